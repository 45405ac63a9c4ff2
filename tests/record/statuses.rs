//! ServiceL2Statuses and Events.

use serde_json::{Value, json};
use sheave::loadbalancer::speaker::Word;
use sheave::model::ObjectKey;
use sheave_tests::apiserver::{ApiServer, Config, Effect, Fault, Verb};

use crate::{Announcer, HOME, PATIENCE, cluster, furnish, said, until_said};

fn writes(api: &ApiServer) -> u64 {
    [Verb::Create, Verb::Update, Verb::Patch, Verb::Delete].map(|verb| api.requests(verb, "servicel2statuses")).iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_is_said_as_metallb_says_it_and_nothing_is_written_twice() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.announces(&["web"]);
    until_said(&api, &["node-a web"]).await;
    let object = api.list("servicel2statuses").remove(0);
    let metadata = &object["metadata"];
    assert_eq!(metadata["namespace"], HOME);
    let labels =
        json!({ "metallb.io/node": "node-a", "metallb.io/service-name": "web", "metallb.io/service-namespace": "default" });
    assert_eq!(metadata["labels"], labels);
    let uid = &api.get("nodes", "", "node-a").unwrap()["metadata"]["uid"];
    assert_eq!(metadata["ownerReferences"], json!([{ "apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": uid }]));
    assert_eq!(object["status"], json!({ "node": "node-a", "serviceName": "web", "serviceNamespace": "default" }));

    announcer.settled().await;
    assert_eq!(writes(&api), 2, "made, and told");
    announcer.announces(&["web"]);
    announcer.announces_on(&["api", "web"], &["eth1", "eth0"]);
    until_said(&api, &["node-a api eth0,eth1", "node-a web eth0,eth1"]).await;
    announcer.settled().await;
    assert_eq!(writes(&api), 5);
    announcer.announces_on(&["api"], &["eth0", "eth1"]);
    until_said(&api, &["node-a api eth0,eth1"]).await;
    announcer.announces(&[]);
    until_said(&api, &[]).await;
    announcer.settled().await;
    assert_eq!(writes(&api), 7);
    assert!(!announcer.problems().contains("ServiceL2Status"), "{}", announcer.problems());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_clears_away_what_others_said_and_a_new_life_what_the_last_one_left() {
    let api = cluster();
    let first = Announcer::start(&api, "node-a").await;
    first.announces(&["web", "api"]);
    until_said(&api, &["node-a api", "node-a web"]).await;
    // MetalLB's own speaker has said something of the same Service, and something of another one.
    for service in ["web", "other"] {
        let labels =
            json!({ "metallb.io/node": "node-c", "metallb.io/service-name": service, "metallb.io/service-namespace": "default" });
        api.apply(&json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
            "metadata": { "name": format!("l2-x{service}"), "namespace": HOME, "labels": labels },
            "status": { "node": "node-c", "serviceName": service, "serviceNamespace": "default" },
        }))
        .unwrap();
    }
    let second = Announcer::start(&api, "node-b").await;
    second.announces(&["web"]);
    until_said(&api, &["node-a api", "node-b web", "node-c other"]).await;

    // The first one ends without a word; what comes after it announces nothing for now.
    drop(first);
    let again = Announcer::start(&api, "node-a").await;
    again.announces(&[]);
    until_said(&api, &["node-b web", "node-c other"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_definitions_nothing_is_said_and_nothing_is_wrong() {
    let api = ApiServer::start(Config::default()).unwrap();
    furnish(&api);
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.announces(&["web"]);
    announcer.settled().await;
    assert!(!announcer.problems().contains("ServiceL2Status"), "{}", announcer.problems());
    api.install_metallb();
    announcer.announces(&["api", "web"]);
    until_said(&api, &["node-a api", "node-a web"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_says_so_once_and_goes_on() {
    let api = cluster();
    api.inject(Fault::new(Effect::Answer { code: 403, retry_after: None }).on_resource("servicel2statuses"));
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.announces(&["web"]);
    announcer
        .until_problems("what is missing", |problems| {
            problems.contains("ServiceL2Status: ") && problems.contains("sheave-announce")
        })
        .await;
    api.clear_faults();
    until_said(&api, &["node-a web"]).await;
    announcer.until_problems("nothing is wrong any more", |problems| !problems.contains("ServiceL2Status")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_and_failures_are_tried_again_and_hold_up_nobody() {
    let api = cluster();
    for (verb, code) in [(Verb::List, 500), (Verb::Create, 409), (Verb::Patch, 409), (Verb::Patch, 503)] {
        api.inject(Fault::new(Effect::Answer { code, retry_after: None }).on(verb, "servicel2statuses").times(1));
    }
    api.inject(Fault::new(Effect::HangUp).on(Verb::Create, "servicel2statuses").times(1));
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.announces(&["web", "api", "db"]);
    until_said(&api, &["node-a api", "node-a db", "node-a web"]).await;
    announcer.settled().await;
    // Somebody deletes one: it is there again with the next change.
    let name = api.list("servicel2statuses")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete("servicel2statuses", HOME, &name).unwrap();
    announcer.announces(&["web", "api"]);
    until_said(&api, &["node-a api", "node-a web"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_of_one_node_say_one_thing() {
    let api = cluster();
    let both = [Announcer::start(&api, "node-a").await, Announcer::start(&api, "node-a").await];
    for announcer in &both {
        announcer.announces(&["web", "api"]);
    }
    for announcer in &both {
        announcer.settled().await;
    }
    assert_eq!(said(&api), ["node-a api", "node-a web"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_is_an_event_of_metallbs_speaker() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    let text = "announcing from node \"node-a\" with protocol \"layer2\"".to_owned();
    let word = Word { reason: "nodeAssigned", is_warning: false, text: text.clone() };
    announcer.record.say(&ObjectKey::new("default", "web"), "the-uid", &word);
    let event = api.wait_for("an Event", PATIENCE, |api| api.list("events.events.k8s.io").pop()).await.unwrap();
    let about: Value = json!({ "apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "web", "uid": "the-uid" });
    assert_eq!(event["regarding"], about);
    assert_eq!(
        [&event["reason"], &event["type"], &event["note"], &event["reportingController"], &event["reportingInstance"]],
        ["nodeAssigned", "Normal", &text, "metallb-speaker", "node-a"]
    );
}
