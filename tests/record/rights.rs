//! What an announcer asks of the API server, to the verb.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use sheave::loadbalancer::speaker::Word;
use sheave::model::ObjectKey;
use sheave_tests::apiserver::Verb;

use crate::{Announcer, PATIENCE, cluster, until_said};

/// Every verb and resource of the roles in a file, a resource named in full, subresources by their resource: so the double counts.
fn allowed(file: &str) -> BTreeSet<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/kustomize/base").join(file);
    let roles: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    let words = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let mut allowed = BTreeSet::new();
    for rule in roles.iter().filter_map(|role| role["rules"].as_array()).flatten() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                let resource = resource.trim_end_matches("/status");
                let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                allowed.extend(words(&rule["verbs"]).into_iter().map(|verb| (verb, name.clone())));
            }
        }
    }
    allowed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_allow_what_is_asked_for_and_no_more() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.announces(&["web"]);
    until_said(&api, &["node-a web"]).await;
    announcer.announces(&[]);
    until_said(&api, &[]).await;
    for heard in [2, 1] {
        announcer.holds(heard, true);
        announcer.settled().await;
    }
    assert!(announcer.record.lease_of("node-b").await.is_some());
    api.wait_for("a watch", PATIENCE, |api| (api.requests(Verb::Watch, "secrets") > 0).then_some(())).await.unwrap();
    for _ in 0..2 {
        let word = Word { reason: "nodeAssigned", is_warning: false, text: "again".to_owned() };
        announcer.record.say(&ObjectKey::new("default", "web"), "uid", &word);
    }
    let repeated =
        |api: &sheave_tests::apiserver::ApiServer| (api.requests(Verb::Patch, "events.events.k8s.io") > 0).then_some(());
    api.wait_for("an Event, twice", PATIENCE, repeated).await.unwrap();

    let asked: BTreeSet<_> =
        api.asked_for().into_iter().map(|(verb, resource)| (format!("{verb:?}").to_lowercase(), resource)).collect();
    // Nodes are listed, and Events written, by everybody (`sheave-run`); pools and L2Advertisements are watched by the source.
    let everyones = allowed("clusterrole.yaml");
    let own: BTreeSet<_> = asked.difference(&everyones).cloned().collect();
    let watched =
        |(_, resource): &(String, String)| resource.starts_with("ipaddresspools") || resource.starts_with("l2advertisements");
    let granted: BTreeSet<_> = allowed("../announcer/roles.yaml").into_iter().filter(|right| !watched(right)).collect();
    assert_eq!(own, granted);
}
