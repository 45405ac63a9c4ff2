//! From a Service to its status.

use serde_json::{Value, json};
use sheave_tests::apiserver::{ApiServer, Effect, Fault, Verb};

use crate::{PATIENCE, Replica, address, addressed, cluster, pool, service, version};

/// Events with a reason, about an object of this name.
fn events<'a>(api: &ApiServer, reason: &'a str, name: &'a str) -> Vec<Value> {
    let about = |event: &Value| event["reason"] == reason && event["regarding"]["name"] == name;
    api.list("events.events.k8s.io").into_iter().filter(about).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_gets_an_address_and_everybody_is_told() {
    let api = cluster();
    let replica = Replica::start(&api, "a").await;
    api.apply(&service("web")).unwrap();
    assert_eq!(addressed(&api, "web").await, "192.168.1.240");
    let web = api.get("services", "default", "web").unwrap();
    let ingress = json!([{ "ip": "192.168.1.240", "ipMode": "VIP" }]);
    assert_eq!(web["status"]["loadBalancer"]["ingress"], ingress);
    assert_eq!(web["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"], "lan");

    let counts = json!({ "assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 10, "availableIPv6": 0 });
    api.wait_for("the pool's counts", PATIENCE, |api| {
        (api.get("ipaddresspools", "metallb-system", "lan")?["status"] == counts).then_some(())
    })
    .await
    .unwrap();
    let state = |api: &ApiServer| {
        let state = api.get("configurationstates", "metallb-system", "controller")?;
        (state["status"]["result"] == "Valid").then_some(state)
    };
    let state = api.wait_for("a ConfigurationState", PATIENCE, state).await.unwrap();
    assert_eq!(state["metadata"]["labels"], json!({ "metallb.io/component-type": "controller" }));
    let key =
        api.wait_for("the announcers' key", PATIENCE, |api| api.get("secrets", "kube-system", "sheave-gossip")).await.unwrap();
    assert_eq!(key["data"]["key"].as_str().unwrap().len(), 44, "32 bytes in base64");

    let event = api.wait_for("an Event", PATIENCE, |api| events(api, "IPAllocated", "web").pop()).await.unwrap();
    assert_eq!(event["reportingController"], "metallb-controller");
    assert_eq!(event["note"], r#"Assigned IP ["192.168.1.240"]"#);
    let silent = api.wait_for("why nobody answers", PATIENCE, |api| events(api, "NotAdvertised", "web").pop()).await.unwrap();
    assert_eq!(silent["type"], "Warning");

    let text = replica.metrics.text();
    for line in [
        "metallb_allocator_addresses_total{pool=\"lan\"} 11",
        "metallb_allocator_addresses_in_use_total{pool=\"lan\"} 1",
        "metallb_k8s_client_config_loaded_bool 1",
        "metallb_k8s_client_config_stale_bool 0",
        "sheave_controller_leads 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
    }
    // Gone, its address is another's; and a Service that is none of ours has none.
    api.delete("services", "default", "web").unwrap();
    let mut other = service("other");
    other["spec"]["loadBalancerClass"] = "example.com/other".into();
    api.apply(&other).unwrap();
    api.apply(&service("next")).unwrap();
    assert_eq!(addressed(&api, "next").await, "192.168.1.240");
    assert_eq!(address(&api, "other"), None);
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_writes_nothing_and_moves_nothing() {
    let api = cluster();
    let first = Replica::start(&api, "a").await;
    let names = ["web", "api", "db"];
    for name in names {
        api.apply(&service(name)).unwrap();
        addressed(&api, name).await;
    }
    let counted = |api: &ApiServer, assigned: u64| {
        let pool = api.get("ipaddresspools", "metallb-system", "lan")?;
        let state = api.get("configurationstates", "metallb-system", "controller")?;
        (pool["status"]["assignedIPv4"] == assigned && state["status"]["result"] == "Valid").then_some(())
    };
    api.wait_for("all is written", PATIENCE, |api| counted(api, 3)).await.unwrap();
    first.end().await;
    let versions = || -> Vec<_> {
        let services = names.map(|name| version(&api, "services", "default", name));
        let state = version(&api, "configurationstates", "metallb-system", "controller");
        services.into_iter().chain([state, version(&api, "secrets", "kube-system", "sheave-gossip")]).collect()
    };
    let (before, updates) = (versions(), api.requests(Verb::Update, "services"));

    let second = Replica::start(&api, "b").await;
    // Whatever it would have written is written before this, or with it.
    api.apply(&service("last")).unwrap();
    assert_eq!(addressed(&api, "last").await, "192.168.1.243");
    api.wait_for("all is written", PATIENCE, |api| counted(api, 4)).await.unwrap();
    assert_eq!((versions(), api.requests(Verb::Update, "services")), (before, updates + 1));
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_decided_again() {
    let api = cluster();
    let replica = Replica::start(&api, "a").await;
    api.apply(&service("first")).unwrap();
    addressed(&api, "first").await;
    api.inject(Fault::new(Effect::Answer { code: 409, retry_after: None }).on(Verb::Update, "services").times(3));
    api.apply(&service("web")).unwrap();
    api.wait_for("a refused write", PATIENCE, |api| (api.requests(Verb::Update, "services") >= 2).then_some(())).await.unwrap();
    // Somebody wants another address meanwhile: that is what is written.
    let wish = json!({ "metadata": { "annotations": { "metallb.io/loadBalancerIPs": "192.168.1.249" } } });
    api.patch("services", "default", "web", wish).unwrap();
    let there = |api: &ApiServer| address(api, "web").filter(|address| address == "192.168.1.249");
    api.wait_for("the address that is wished for", PATIENCE, there).await.unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_tried_again_and_holds_up_nobody() {
    let api = cluster();
    // Reading the pool to write its counts fails: Services are written all the same.
    api.inject(Fault::new(Effect::Answer { code: 500, retry_after: None }).on(Verb::Get, "ipaddresspools"));
    let replica = Replica::start(&api, "a").await;
    for name in ["a", "b", "c"] {
        api.apply(&service(name)).unwrap();
        addressed(&api, name).await;
    }
    api.clear_faults();
    api.wait_for("the counts, in the end", PATIENCE, |api| {
        (api.get("ipaddresspools", "metallb-system", "lan")?["status"]["assignedIPv4"] == 3).then_some(())
    })
    .await
    .unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_pool_spoils_only_itself() {
    let api = cluster();
    api.apply(&pool("broken", "10.0.0.9-10.0.0.1")).unwrap();
    let replica = Replica::start(&api, "a").await;
    api.apply(&service("web")).unwrap();
    assert_eq!(addressed(&api, "web").await, "192.168.1.240");
    api.wait_for("an Event on the pool", PATIENCE, |api| events(api, "InvalidPool", "broken").pop()).await.unwrap();
    let invalid = |api: &ApiServer| {
        let status = api.get("configurationstates", "metallb-system", "controller")?["status"].clone();
        (status["result"] == "Invalid").then_some(status)
    };
    let status = api.wait_for("an invalid configuration", PATIENCE, invalid).await.unwrap();
    assert!(status["errorSummary"].as_str().unwrap().starts_with("IPAddressPool broken: "), "{status}");
    assert_eq!(status["conditions"][0]["type"], "poolReconcilerValid");
    let text = replica.metrics.text();
    assert!(text.lines().any(|line| line == "metallb_k8s_client_config_stale_bool 1"), "{text}");
    // Mended, it is used, and the state is valid again.
    api.apply(&pool("broken", "10.0.0.1-10.0.0.9")).unwrap();
    let mut wants = service("wants");
    wants["metadata"]["annotations"] = json!({ "metallb.io/address-pool": "broken" });
    api.apply(&wants).unwrap();
    assert_eq!(addressed(&api, "wants").await, "10.0.0.1");
    api.wait_for("a valid configuration", PATIENCE, |api| {
        let state = api.get("configurationstates", "metallb-system", "controller")?;
        (state["status"]["result"] == "Valid").then_some(())
    })
    .await
    .unwrap();
    replica.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_metallbs_definitions_nothing_is_touched_and_later_they_may_come() {
    let api = ApiServer::start(sheave_tests::apiserver::Config::default()).unwrap();
    let mut theirs = service("theirs");
    theirs["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
    api.apply(&theirs).unwrap();
    let before = version(&api, "services", "default", "theirs");
    let replica = Replica::start(&api, "a").await;
    api.wait_for("all watches", PATIENCE, |api| (api.open_watches("services") == 1).then_some(())).await.unwrap();
    replica.end().await;
    assert_eq!(version(&api, "services", "default", "theirs"), before);
    assert!(api.list("secrets").is_empty() && api.list("events.events.k8s.io").is_empty());
}
