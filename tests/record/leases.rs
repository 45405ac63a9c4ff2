//! Leases, and whether the API can be stood on.

use std::time::{Duration, Instant};

use serde_json::Value;
use sheave::loadbalancer::membership::fence::{Api, Claim};
use sheave_tests::apiserver::{ApiServer, Effect, Fault, Verb};

use crate::{Announcer, PATIENCE, cluster, eventually};

fn lease(api: &ApiServer) -> Option<Value> {
    api.get("leases", "kube-system", "sheave-announcer-node-a")
}

fn heard(lease: &Value) -> &str {
    lease["metadata"]["annotations"]["sheave.dev/members-heard"].as_str().unwrap()
}

fn writes(api: &ApiServer) -> u64 {
    api.requests(Verb::Create, "leases") + api.requests(Verb::Update, "leases")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_says_how_many_it_hears_renews_and_says_once_that_it_is_none_any_more() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.holds(3, false);
    announcer.settled().await;
    assert_eq!(writes(&api), 0, "who holds nothing has nothing to say");
    announcer.holds(3, true);
    announcer.settled().await;
    let first = lease(&api).unwrap();
    assert_eq!(heard(&first), "3");
    assert!(first["spec"]["holderIdentity"].as_str().unwrap().starts_with("node-a_"));
    let uid = &api.get("nodes", "", "node-a").unwrap()["metadata"]["uid"];
    assert_eq!(first["metadata"]["ownerReferences"][0]["uid"], *uid);
    // Members are lost: that is said at once, and not with the next renewal.
    announcer.holds(1, true);
    announcer.settled().await;
    let second = lease(&api).unwrap();
    assert_eq!((heard(&second), &second["spec"]["acquireTime"]), ("1", &first["spec"]["acquireTime"]));
    let renewed = |api: &ApiServer| lease(api).filter(|lease| lease["spec"]["renewTime"] != second["spec"]["renewTime"]);
    api.wait_for("a renewal", PATIENCE, renewed).await.unwrap();
    announcer.holds(3, false);
    announcer.settled().await;
    let last = lease(&api).unwrap();
    assert_eq!((last["spec"]["holderIdentity"].as_str(), heard(&last)), (Some(""), "3"));
    assert_eq!(last["metadata"]["ownerReferences"], first["metadata"]["ownerReferences"]);
    assert_eq!(announcer.problems().matches("lease").count(), 0, "{}", announcer.problems());
    let text = announcer.metrics.text();
    let told = format!("sheave_announcer_writes_total{{resource=\"leases\",outcome=\"written\"}} {}", writes(&api));
    assert!(text.lines().any(|line| line == told), "{told} is not in\n{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_somebody_changed_or_deleted_is_written_all_the_same() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    announcer.holds(3, true);
    announcer.settled().await;
    let touched = serde_json::json!({ "metadata": { "labels": { "seen": "yes" } } });
    api.patch("leases", "kube-system", "sheave-announcer-node-a", touched).unwrap();
    announcer.holds(2, true);
    announcer.settled().await;
    assert_eq!(heard(&lease(&api).unwrap()), "2");
    api.delete("leases", "kube-system", "sheave-announcer-node-a").unwrap();
    announcer.holds(1, true);
    announcer.settled().await;
    assert_eq!(heard(&lease(&api).unwrap()), "1");
    assert!(!announcer.problems().contains("node name"), "{}", announcer.problems());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_of_one_node_name_are_told() {
    let api = cluster();
    let (one, other) = (Announcer::start(&api, "node-a").await, Announcer::start(&api, "node-a").await);
    one.holds(2, true);
    one.settled().await;
    // The other one takes the first one's for that of an earlier life; the first one knows better.
    other.holds(2, true);
    other.settled().await;
    one.until_problems("a second daemon", |problems| problems.contains("two processes run under one node name")).await;
    other.until_problems("a first daemon", |problems| problems.contains("two processes run under one node name")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_known_since_its_first_request_and_over_with_the_first_answer() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    let mut state = announcer.record.api();
    announcer.holds(3, true);
    announcer.settled().await;
    assert_eq!(*state.borrow_and_update(), Api::Reachable);
    let cut = Instant::now();
    api.refuse_connections().unwrap();
    api.cut_connections();
    // Somebody depends on it, so it is asked at once.
    announcer.record.watch_closely(true);
    let lost = tokio::time::timeout(PATIENCE, state.wait_for(|api| *api != Api::Reachable)).await.unwrap();
    let Api::LostSince(since) = *lost.unwrap() else { panic!("lost") };
    assert!(since >= cut);
    assert_eq!(announcer.record.lease_of("node-b").await, None);
    announcer.holds(1, true);
    announcer.until_problems("a lease that is not written", |problems| problems.contains("announcer's lease")).await;
    api.accept_connections().unwrap();
    tokio::time::timeout(PATIENCE, state.wait_for(|api| *api == Api::Reachable)).await.unwrap().unwrap();
    announcer.settled().await;
    assert_eq!(heard(&lease(&api).unwrap()), "1");
    announcer.until_problems("nothing is wrong any more", |problems| !problems.contains("lease")).await;
}

/// A server that answers and can tell nothing of Leases is no ground to stand on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_an_outage_and_silence_is_noticed_in_time() {
    let api = cluster();
    let announcer = Announcer::start(&api, "node-a").await;
    let mut state = announcer.record.api();
    announcer.holds(3, true);
    announcer.settled().await;
    announcer.record.watch_closely(true);
    let silent = Effect::Delay(Duration::from_secs(3600));
    for effect in [Effect::Answer { code: 503, retry_after: None }, Effect::Answer { code: 403, retry_after: None }, silent] {
        api.inject(Fault::new(effect.clone()).on_resource("leases"));
        tokio::time::timeout(PATIENCE, state.wait_for(|api| *api != Api::Reachable)).await.unwrap().unwrap();
        api.clear_faults();
        tokio::time::timeout(PATIENCE, state.wait_for(|api| *api == Api::Reachable)).await.unwrap().unwrap();
    }
    // Nobody depends on it and nothing is held: nothing is asked, so nothing new is known.
    announcer.record.watch_closely(false);
    announcer.holds(3, false);
    announcer.settled().await;
    assert_eq!(*state.borrow(), Api::Reachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_claims_is_seen_and_that_it_holds_nothing_as_well() {
    let api = cluster();
    let (one, other) = (Announcer::start(&api, "node-a").await, Announcer::start(&api, "node-b").await);
    let nothing = other.record.lease_of("node-a").await.unwrap();
    assert_eq!((nothing.seen.renewed, nothing.claim), (None, None));
    let begin = Instant::now();
    one.holds(2, true);
    one.settled().await;
    let claim = Some(Claim { node: "node-a".into(), heard: 2 });
    let record = other.record.clone();
    let seen = tokio::time::timeout(PATIENCE, async move {
        loop {
            let rival = record.lease_of("node-a").await.unwrap();
            if rival.claim.is_some() {
                return rival;
            }
        }
    });
    let seen = seen.await.unwrap();
    assert_eq!(seen.claim, claim);
    assert!(seen.seen.renewed.is_some_and(|renewed| renewed + Duration::from_secs(1) >= begin), "by one clock");
    // Asked by many at once, the server is asked four times a second at most.
    let asked = api.requests(Verb::Get, "leases");
    for _ in 0..50 {
        other.record.lease_of("node-a").await.unwrap();
    }
    assert!(api.requests(Verb::Get, "leases") - asked < 25, "{}", api.requests(Verb::Get, "leases") - asked);
    one.holds(2, false);
    one.settled().await;
    let record = other.record.clone();
    let over = async move { while record.lease_of("node-a").await.unwrap().claim.is_some() {} };
    tokio::time::timeout(PATIENCE, over).await.unwrap();
    eventually("nothing is wrong", || !one.problems().contains("lease")).await;
}
