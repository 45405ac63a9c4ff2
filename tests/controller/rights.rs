//! What the controller asks of the API server, to the verb.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use sheave_tests::apiserver::{ApiServer, Effect, Fault, Refusal, Verb};

use crate::{PATIENCE, Replica, addressed, cluster, eventually, service};

/// Every verb and resource of the roles in a file, a resource named in full, subresources by their resource: so the double counts.
fn allowed(file: &str) -> BTreeSet<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/kustomize/controller").join(file);
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
    // A server that streams no lists: then they are asked for as well.
    api.inject(Fault::new(Effect::RefuseStreamingLists(Refusal::Invalid)));
    let first = Replica::start(&api, "a").await;
    api.apply(&service("web")).unwrap();
    addressed(&api, "web").await;
    let all = |api: &ApiServer| {
        let there = |resource, namespace, name| api.get(resource, namespace, name);
        let counted = there("ipaddresspools", "metallb-system", "lan")?["status"]["assignedIPv4"] == 1;
        let state = there("configurationstates", "metallb-system", "controller")?["status"]["result"] == "Valid";
        (counted && state && there("secrets", "kube-system", "sheave-gossip").is_some()).then_some(())
    };
    api.wait_for("everything that is written", PATIENCE, all).await.unwrap();
    // The same warning twice, having been over between: the second time is counted in the first one's Event.
    for (round, key) in [json!("shared"), Value::Null, json!("shared")].into_iter().enumerate() {
        let annotations = json!({ "metadata": { "annotations": { "metallb.universe.tf/allow-shared-ip": key } } });
        api.patch("services", "default", "web", annotations).unwrap();
        // Whoever is told of a later Service has been told of this.
        let later = format!("later-{round}");
        api.apply(&service(&later)).unwrap();
        addressed(&api, &later).await;
    }
    api.wait_for("an Event, twice", PATIENCE, |api| (api.requests(Verb::Patch, "events.events.k8s.io") > 0).then_some(()))
        .await
        .unwrap();
    // It has written its Lease, too.
    eventually("a renewal", || api.requests(Verb::Update, "leases") > 0).await;
    first.end().await;
    let asked: BTreeSet<_> =
        api.asked_for().into_iter().map(|(verb, resource)| (format!("{verb:?}").to_lowercase(), resource)).collect();
    assert_eq!(asked, allowed("roles.yaml"));
}
