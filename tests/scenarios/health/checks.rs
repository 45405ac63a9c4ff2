//! `healthCheckNodePort`.

use super::ask::get;
use crate::{
    fixture::{Cluster, DETECT_PODS, Endpoint, Service},
    kube::served::{ApiCluster, eventually},
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::{Protocol, twin};
use std::net::{IpAddr, Ipv4Addr, TcpListener};

const PORT: u16 = 30_999;
/// The node's addresses in the plan; NodePorts are served at the first one.
const PRIMARY: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

fn web(endpoints: &[Endpoint]) -> Service {
    Service::new("web", "172.30.0.41")
        .only(Protocol::Tcp, 80, 80)
        .node_port(30_001)
        .vip("1.2.3.4")
        .external_local()
        .spec("healthCheckNodePort", PORT)
        .with_endpoints(endpoints.iter().cloned())
}

/// Status, weight and count that a load balancer outside is told in one family; `None` if nobody listens.
fn asked(cluster: &Cluster, to: IpAddr) -> anyhow::Result<Option<(u16, u64)>> {
    let Some(answer) = get(cluster.client(), (to, PORT), "/")? else { return Ok(None) };
    let body = answer.json()?;
    let count = body["localEndpoints"].as_u64().context("a number")?;
    ensure!(answer.header("content-type") == Some("application/json"), "{answer:?}");
    ensure!(answer.header("x-content-type-options") == Some("nosniff"), "{answer:?}");
    ensure!(answer.header("x-load-balancing-endpoint-weight") == Some(&count.to_string()), "{answer:?}");
    let expected = json!({"service": {"namespace": "ns", "name": "web"}, "localEndpoints": count, "serviceProxyHealthy": true});
    ensure!(body == expected, "{body}");
    Ok(Some((answer.status, count)))
}

/// Waits for an answer in both families. Who connects just before a server is closed is cut off: that is neither an answer nor none.
fn becomes(cluster: &Cluster, wanted: Option<(u16, u64)>) -> anyhow::Result<()> {
    for to in [PRIMARY.into(), IpAddr::from(twin(PRIMARY))] {
        eventually(&format!("{wanted:?} from {to}"), || Ok(asked(cluster, to).is_ok_and(|answer| answer == wanted)))
            .with_context(|| format!("last: {:?}", asked(cluster, to)))?;
    }
    Ok(())
}

pub(super) fn local_endpoints_come_and_go() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (here, there) = (|| Endpoint::local("10.180.0.1"), || Endpoint::remote("10.180.2.1"));
    let second = || Endpoint::local("10.180.0.7");
    cluster.services(&[&web(&[here(), there()])])?;
    becomes(&cluster, Some((200, 1)))?;
    // NodePorts are served at the node's own IP alone, and so is this.
    for other in [OTHER.into(), IpAddr::from(twin(OTHER))] {
        ensure!(asked(&cluster, other)?.is_none(), "{other} answers");
    }
    for (endpoints, answer) in [
        (vec![here(), second(), there()], (200, 2)),
        // Traffic still goes to one that terminates, and the load balancer is told in good time.
        (vec![here().terminating(), there()], (503, 0)),
        (vec![there()], (503, 0)),
        (vec![], (503, 0)),
        (vec![here()], (200, 1)),
    ] {
        cluster.services(&[&web(&endpoints)])?;
        becomes(&cluster, Some(answer))?;
    }
    cluster.services(&[])?;
    becomes(&cluster, None)
}

pub(super) fn only_load_balancers_with_policy_local_are_asked() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(&[&DETECT_PODS[..], &["--nodeport-addresses", "0.0.0.0/0,::/0"]].concat())?;
    let endpoints = [Endpoint::local("10.180.0.1")];
    for _ in 0..2 {
        cluster.services(&[&web(&endpoints)])?;
        becomes(&cluster, Some((200, 1)))?;
        // Where NodePorts are served everywhere, so is this.
        eventually("an answer at the other address", || Ok(asked(&cluster, OTHER.into())? == Some((200, 1))))?;
        cluster.services(&[&web(&endpoints).spec("externalTrafficPolicy", "Cluster")])?;
        becomes(&cluster, None)?;
    }
    // Another port closes the old one.
    cluster.services(&[&web(&endpoints)])?;
    becomes(&cluster, Some((200, 1)))?;
    cluster.services(&[&web(&endpoints).spec("healthCheckNodePort", PORT + 1)])?;
    becomes(&cluster, None)?;
    eventually("an answer at the new port", || Ok(get(cluster.client(), (PRIMARY.into(), PORT + 1), "/")?.is_some()))
}

pub(super) fn a_busy_health_check_port_is_an_event_and_served_when_it_is_free() -> anyhow::Result<()> {
    let served = ApiCluster::start()?;
    let holder = served.node().run(|| TcpListener::bind((PRIMARY, PORT)))??;
    served.services([&web(&[Endpoint::local("10.180.0.1")])])?;
    let uid = served.api.get("services", "ns", "web").context("it was applied")?["metadata"]["uid"].clone();
    let of_ours = |event: &Value| event["reason"] == "FailedToStartServiceHealthcheck" && event["regarding"]["uid"] == uid;
    let events = || served.api.list("events.events.k8s.io");
    eventually("an Event on the Service", || Ok(events().iter().any(of_ours))).with_context(|| format!("{:#?}", events()))?;
    // Its packets are none the worse, and the other family answers.
    served.await_answer("172.30.0.41:80", &["local"])?;
    let v6 = IpAddr::from(twin(PRIMARY));
    eventually("an answer over IPv6", || Ok(asked(&served, v6)? == Some((200, 1))))?;
    drop(holder);
    becomes(&served, Some((200, 1)))
}
