//! The key of the membership.

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use sheave::loadbalancer::controller::GOSSIP_SECRET;
use sheave::loadbalancer::membership::Key;
use sheave_tests::apiserver::{Cut, Effect, Fault, Verb};

use crate::{Announcer, PATIENCE, cluster, eventually};

fn secret(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": GOSSIP_SECRET, "namespace": "kube-system" }, "data": data })
}

fn bytes(byte: u8) -> ByteString {
    ByteString(vec![byte; 32])
}

fn key(byte: u8) -> Key {
    Key::new(&[byte; 32]).unwrap()
}

async fn until_keys(announcer: &Announcer, expected: &[Key]) {
    let mut keys = announcer.record.keys();
    let found = tokio::time::timeout(PATIENCE, keys.wait_for(|keys| keys[..] == *expected)).await.is_ok();
    assert!(found, "{} keys", announcer.record.keys().borrow().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_followed_and_never_unlearnt() {
    let api = cluster();
    // Others' are not asked for.
    api.apply(&json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "other", "namespace": "kube-system" } }))
        .unwrap();
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.until_problems("no key", |problems| problems.contains("there is no Secret kube-system/sheave-gossip")).await;
    api.wait_for("a watch", PATIENCE, |api| (api.open_watches("secrets") == 1).then_some(())).await.unwrap();
    api.apply(&secret(&json!({ "key": bytes(1) }))).unwrap();
    until_keys(&announcer, &[key(1)]).await;
    announcer.until_problems("there is a key", |problems| !problems.contains("key")).await;

    // What is no key changes nothing, and is named without a byte of it.
    api.apply(&secret(&json!({ "key": ByteString(b"hunter2".to_vec()) }))).unwrap();
    announcer.until_problems("no key of that", |problems| problems.contains("data.key is not 32 bytes")).await;
    assert!(!announcer.problems().contains("hunter2") && !announcer.problems().contains("aHVudGVyMg"));
    api.apply(&secret(&json!({ "key": bytes(1), "previous": bytes(2) }))).unwrap();
    until_keys(&announcer, &[key(1), key(2)]).await;

    // Another one, with outages: heard at once, used later, and then the old one is forgotten.
    api.cut_streams(Some("secrets"), Cut::Abrupt);
    api.inject(Fault::new(Effect::Answer { code: 503, retry_after: None }).on(Verb::List, "secrets").times(2));
    api.apply(&secret(&json!({ "key": bytes(3) }))).unwrap();
    until_keys(&announcer, &[key(1), key(3)]).await;
    until_keys(&announcer, &[key(3), key(1)]).await;
    api.delete("secrets", "kube-system", GOSSIP_SECRET).unwrap();
    until_keys(&announcer, &[key(3)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_it_says_what_is_missing() {
    let api = cluster();
    api.apply(&secret(&json!({ "key": bytes(1) }))).unwrap();
    api.inject(Fault::new(Effect::Answer { code: 403, retry_after: None }).on_resource("secrets"));
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.until_problems("a missing right", |problems| problems.contains("resourceNames")).await;
    assert!(announcer.record.keys().borrow().is_empty());
    api.clear_faults();
    until_keys(&announcer, &[key(1)]).await;
}

/// A node that is to announce nothing any more has nothing to complain of, and asks for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_last_handle_it_ends() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.until_problems("no key", |problems| problems.contains("there is no Secret")).await;
    api.wait_for("a watch", PATIENCE, |api| (api.open_watches("secrets") == 1).then_some(())).await.unwrap();
    let (health, another) = (announcer.health.clone(), announcer.record.clone());
    drop(announcer);
    assert!(another.keys().borrow().is_empty() && api.open_watches("secrets") == 1, "there is another handle");
    drop(another);
    api.wait_for("the end of the watch", PATIENCE, |api| (api.open_watches("secrets") == 0).then_some(())).await.unwrap();
    eventually("nothing is wrong", || health.look().problems.is_empty()).await;
}
