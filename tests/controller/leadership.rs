//! One leads, and no other writes.

use std::time::Duration;

use sheave::loadbalancer::controller::{LeaseTiming, Role};
use sheave_tests::apiserver::{Effect, Fault, Verb};

use crate::{PATIENCE, Replica, TIMING, address, addressed, cluster, eventually, service};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_leads_and_the_other_takes_over_at_once_when_it_goes() {
    let api = cluster();
    let first = Replica::start(&api, "a").await;
    eventually("a leads", || first.leads()).await;
    let second = Replica::start(&api, "b").await;
    eventually("b follows", || second.health.role() == Role::Following { leader: "a".to_owned() }).await;
    assert_eq!(api.open_watches("services"), 1, "who does not lead asks for nothing");
    assert!(!second.metrics.text().contains("metallb_k8s_client_config_loaded_bool 0"), "an alert takes a zero for a failure");
    api.apply(&service("web")).unwrap();
    assert_eq!(addressed(&api, "web").await, "192.168.1.240");

    first.end().await;
    let lease = api.get("leases", "kube-system", "sheave-controller").unwrap();
    assert!(lease["spec"]["holderIdentity"] != "a", "released");
    eventually("b leads", || second.leads()).await;
    let lease = api.get("leases", "kube-system", "sheave-controller").unwrap();
    assert_eq!((&lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"].as_u64()), (&"b".into(), Some(1)));
    api.apply(&service("next")).unwrap();
    assert_eq!(addressed(&api, "next").await, "192.168.1.241", "what the first gave away is known");
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_renew_writes_nothing_any_more() {
    let api = cluster();
    let timing = LeaseTiming { duration: Duration::from_secs(2), renew_deadline: Duration::from_secs(1), ..TIMING };
    let replica = Replica::with(&api, "a", timing).await;
    api.apply(&service("web")).unwrap();
    addressed(&api, "web").await;
    // The server refuses Leases and nothing else: whoever writes on could.
    api.inject(Fault::new(Effect::Answer { code: 500, retry_after: None }).on(Verb::Update, "leases"));
    eventually("the lease is lost", || !replica.leads()).await;
    assert!(replica.metrics.text().lines().any(|line| line == "sheave_controller_leads 0"));
    api.wait_for("nobody watches", PATIENCE, |api| (api.open_watches("services") == 0).then_some(())).await.unwrap();
    api.apply(&service("next")).unwrap();
    let asked = api.requests(Verb::Update, "leases");
    let tried = |api: &sheave_tests::apiserver::ApiServer| (api.requests(Verb::Update, "leases") >= asked + 3).then_some(());
    api.wait_for("it tries to lead again", PATIENCE, tried).await.unwrap();
    assert_eq!(address(&api, "next"), None);
    api.clear_faults();
    assert_eq!(addressed(&api, "next").await, "192.168.1.241");
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sees_another_holder_stops_at_once() {
    let api = cluster();
    let replica = Replica::start(&api, "a").await;
    eventually("a leads", || replica.leads()).await;
    // Somebody else's hand: longer than this test, and read at the next renewal.
    let spec = serde_json::json!({ "spec": { "holderIdentity": "c", "leaseDurationSeconds": 3600, "leaseTransitions": 7 } });
    api.patch("leases", "kube-system", "sheave-controller", spec).unwrap();
    eventually("it follows", || replica.health.role() == Role::Following { leader: "c".to_owned() }).await;
    replica.end().await;
    let lease = api.get("leases", "kube-system", "sheave-controller").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "c", "what is not ours is not released");
}
