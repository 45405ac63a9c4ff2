//! Changes of objects, seen by an API server's clients and then by packets.

use super::served::{ApiCluster, eventually};
use crate::{
    disruption::traffic,
    fixture::{DETECT_PODS, Endpoint, Service, node_in_zone},
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::{Outcome, Protocol};
use sheave_tests::{scenario::Scenario, scenarios};
use std::net::TcpListener;

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("kube":
        objects_come_change_and_go needs ["nftables"];
        a_service_is_handed_to_another_proxy_and_back needs ["nftables"];
        slices_that_become_headless_no_longer_count needs ["nftables"];
        the_zone_of_the_node_changes needs ["nftables"];
        service_cidrs_change needs ["nftables"];
        a_dead_api_server_is_passed_over needs ["nftables"];
        conflicts_and_invalid_fields_are_events_on_the_service needs ["nftables"];
    )
    .to_vec()
}

/// A Service of one TCP port.
fn service(name: &str, cluster_ip: &str, backend: &str) -> Service {
    Service::new(name, cluster_ip).only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at(backend))
}

const LOCAL: &str = "10.180.0.1";
const REMOTE: &str = "10.180.2.1";

fn objects_come_change_and_go() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    served.await_watches()?;
    let api = service("api", "172.30.0.60", LOCAL);
    served.services([&api])?;
    served.await_answer("172.30.0.60:80", &["local"])?;
    served.await_answer("[fd00:172:30::60]:80", &["local"])?;
    served.services([&api.clone().with_endpoints([Endpoint::at(REMOTE)])])?;
    served.await_answer("172.30.0.60:80", &["remote"])?;
    served.services([&api.with_endpoints([])])?;
    served.await_refusal("172.30.0.60:80")?;
    served.delete_service("api")?;
    served.await_outcome(&served.pod, "172.30.0.60:80", "silence at an address of nobody", |outcome| {
        *outcome == Outcome::TimedOut
    })?;
    Ok(())
}

fn a_service_is_handed_to_another_proxy_and_back() -> anyhow::Result<()> {
    const LABEL: &str = "service.kubernetes.io/service-proxy-name";
    let served = ApiCluster::start()?;
    served.services([&service("api", "172.30.0.60", LOCAL)])?;
    served.await_answer("172.30.0.60:80", &["local"])?;
    let label = |value: Value| {
        let patch = json!({ "metadata": { "labels": { LABEL: value } } });
        served.api.patch("services", "ns", "api", patch).map_err(|status| anyhow::anyhow!("{status:?}"))
    };
    label("another".into())?;
    // Neither served nor dropped: it leaves the node by its routes, and the lab's router says that it has none.
    let leaves = |outcome: &Outcome| matches!(outcome, Outcome::Unreachable(_));
    served.await_outcome(&served.pod, "172.30.0.60:80", "packets left alone", leaves)?;
    // While it is another's, its endpoints change.
    served.services([&service("api", "172.30.0.60", REMOTE).label(LABEL, "another")])?;
    label(Value::Null)?;
    served.await_answer("172.30.0.60:80", &["remote"])
}

fn slices_that_become_headless_no_longer_count() -> anyhow::Result<()> {
    const LABEL: &str = "service.kubernetes.io/headless";
    let served = ApiCluster::start()?;
    let api = service("api", "172.30.0.60", LOCAL);
    served.services([&api])?;
    served.await_answer("172.30.0.60:80", &["local"])?;
    served.services([&api.clone().slice_label(LABEL, "")])?;
    served.await_refusal("172.30.0.60:80")?;
    served.services([&api])?;
    served.await_answer("172.30.0.60:80", &["local"])
}

fn the_zone_of_the_node_changes() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    served.apply([node_in_zone("a")])?;
    let api = Service::new("api", "172.30.0.60").only(Protocol::Tcp, 80, 80);
    let api = api.endpoint(Endpoint::at(LOCAL).for_zone("a")).endpoint(Endpoint::at(REMOTE).for_zone("b"));
    served.services([&api.spec("trafficDistribution", "PreferClose")])?;
    // One answer proves nothing of two backends; sixteen in a row from one do.
    let only = |by: &'static str| {
        eventually(&format!("all answers from {by}"), || {
            for _ in 0..16 {
                if served.pod.tcp("172.30.0.60:80")?.by() != Some(by) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    };
    only("local")?;
    served.apply([node_in_zone("b")])?;
    only("remote")?;
    served.apply([node_in_zone("a")])?;
    only("local")
}

fn service_cidrs_change() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    let nobody = "172.31.0.9:80";
    let leaves = |outcome: &Outcome| matches!(outcome, Outcome::Unreachable(_));
    served.await_outcome(&served.pod, nobody, "packets left alone", leaves)?;
    let cidr = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "more" },
        "spec": { "cidrs": ["172.31.0.0/16"] } });
    served.apply([cidr])?;
    served.await_outcome(&served.pod, nobody, "packets dropped", |outcome| *outcome == Outcome::TimedOut)?;
    served.api.delete("servicecidrs", "", "more").map_err(|status| anyhow::anyhow!("{status:?}"))?;
    served.await_outcome(&served.pod, nobody, "packets left alone again", leaves)?;
    Ok(())
}

fn a_dead_api_server_is_passed_over() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    // A port that was free a moment ago, and where nobody listens.
    let dead = served.node().run(|| TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()))??;
    let servers = format!("http://{dead},{}", served.api.url());
    served.start_on_api(&servers, &DETECT_PODS)?;
    served.await_answer("172.30.0.41:80", &traffic::BACKENDS)?;
    served.services([&service("api", "172.30.0.60", LOCAL)])?;
    served.await_answer("172.30.0.60:80", &["local"])
}

fn conflicts_and_invalid_fields_are_events_on_the_service() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    // The VIP of `web`, which is older. Creation is told in whole seconds, and of two of the same second the UID decides, which is drawn.
    let web = served.api.get("services", "ns", "web").context("it was applied")?;
    let second: jiff::Timestamp = web["metadata"]["creationTimestamp"].as_str().context("every object has one")?.parse()?;
    eventually("the next second", || Ok(jiff::Timestamp::now().as_second() > second.as_second()))?;
    served.services([&service("thief", "172.30.0.60", LOCAL).vip(traffic::VIP)])?;
    let mut odd = service("odd", "172.30.0.61", LOCAL).spec("loadBalancerSourceRanges", json!(["not a range"])).documents();
    odd[0]["metadata"]["namespace"] = "ns".into();
    odd[0]["metadata"]["uid"] = "uid-odd".into();
    for object in &odd {
        // What no API server would let in today may be there from an earlier version.
        served.api.apply_unchecked(object).map_err(|status| anyhow::anyhow!("{status:?}"))?;
    }
    for name in ["thief", "odd"] {
        let uid = served.api.get("services", "ns", name).context("it was applied")?["metadata"]["uid"].clone();
        eventually(&format!("an Event on {name}"), || Ok(events(&served).iter().any(|event| event["regarding"]["uid"] == uid)))
            .with_context(|| format!("{:#?}", events(&served)))?;
        let event = events(&served).into_iter().find(|event| event["regarding"]["uid"] == uid).context("it was there")?;
        ensure!(event["type"] == "Warning" && event["metadata"]["namespace"] == "ns", "{event}");
        ensure!(event["reportingController"] == "sheave" && event["regarding"]["name"] == name, "{event}");
    }
    // Each spoiled itself alone.
    served.await_answer("172.30.0.60:80", &["local"])?;
    served.await_answer("172.30.0.61:80", &["local"])?;
    served.await_answer(&format!("{}:80", traffic::VIP), &traffic::BACKENDS)
}

fn events(served: &ApiCluster) -> Vec<Value> {
    served.api.list("events.events.k8s.io")
}
