//! A UDP client that keeps its 5-tuple: to the kernel one connection, as long as it talks, to a backend that may be long gone
//! (kube-proxy's section 5.1).

use crate::fixture::{Cluster, Endpoint, Family, Service, node};
use anyhow::{Context as _, ensure};
use sheave_lab::{Host, Port, UdpFlow, UdpReport};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{net::SocketAddr, time::Duration};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("udp_flows":
        follow_their_service_to_another_backend needs ["nftables"];
        follow_a_changed_target_port needs ["nftables"];
        stay_with_a_backend_that_still_serves needs ["nftables"];
        end_with_the_last_endpoint_and_come_back needs ["nftables"];
        end_with_their_service needs ["nftables"];
        that_began_too_early_are_taken_in needs ["nftables"];
    )
    .to_vec()
}

/// How soon a flow has to be where it belongs.
const SOON: Duration = Duration::from_secs(5);
/// How fast clients talk: much more often than any timeout of the kernel's.
const RATE: u32 = 50;

/// A flow with the words to name it by.
struct Named(String, UdpFlow);

/// From everywhere to every kind of frontend, in both families.
fn flows(cluster: &Cluster) -> anyhow::Result<Vec<Named>> {
    let mut flows = Vec::new();
    for family in [Family::V4, Family::V6] {
        for (from, address, port) in [
            (&cluster.pod, "172.30.0.41", 80),
            (cluster.node(), "172.30.0.41", 80),
            (cluster.client(), "172.30.0.41", 80),
            (cluster.client(), "1.2.3.4", 80),
            (cluster.client(), "192.168.0.2", 30_001),
        ] {
            flows.push(flow(from, family, address, port)?);
        }
    }
    Ok(flows)
}

fn flow(from: &Host, family: Family, address: &str, port: u16) -> anyhow::Result<Named> {
    let to = SocketAddr::new(family.address(address), port);
    Ok(Named(format!("{} -> {to}", from.name()), UdpFlow::start(from, &to.to_string(), RATE)?))
}

/// Waits until a server's count of answers grows, and then no other's.
fn await_server(flows: &[Named], name: &str) -> anyhow::Result<()> {
    for Named(what, flow) in flows {
        let count = |report: &UdpReport| report.by.get(name).copied().unwrap_or(0);
        let before = count(&flow.report());
        let grown = flow.await_report(SOON, |report| count(report) > before);
        let then = grown.with_context(|| format!("{what} is not answered by {name}: {:?}", flow.report().by))?;
        let others = |report: &UdpReport| report.answered - count(report);
        let now = flow.await_answers(20, SOON)?;
        ensure!(others(&now) == others(&then), "{what} is answered by others than {name}: {:?}, then {:?}", then.by, now.by);
    }
    Ok(())
}

fn web() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).node_port(30_001).vip("1.2.3.4")
}

fn follow_their_service_to_another_backend() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let at = |endpoint| web().endpoint(endpoint);
    cluster.services(&[&at(Endpoint::local("10.180.0.1"))])?;
    let flows = flows(&cluster)?;
    await_server(&flows, "local")?;
    cluster.services(&[&at(Endpoint::remote("10.180.2.1"))])?;
    await_server(&flows, "remote")?;
    cluster.services(&[&at(Endpoint::local("10.180.0.1"))])?;
    await_server(&flows, "local")
}

fn follow_a_changed_target_port() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.local.stop_serving();
    let at = |target| Service::new("svc1", "172.30.0.41").port_to(80, target).node_port(30_001).vip("1.2.3.4");
    cluster.local_pod("second", "10.180.0.12")?;
    cluster.services(&[&at(80).endpoint(Endpoint::local("10.180.0.12"))])?;
    let flows = flows(&cluster)?;
    await_server(&flows, "second")?;
    // The pod answers on another port only.
    cluster.local.serve(&[Port::udp(5353)])?;
    cluster.services(&[&at(5353).endpoint(Endpoint::local("10.180.0.1"))])?;
    await_server(&flows, "local")
}

/// Terminating and not ready, but serving: nothing new comes, and what is there stays.
fn stay_with_a_backend_that_still_serves() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&web().endpoint(Endpoint::local("10.180.0.1"))])?;
    let flows = flows(&cluster)?;
    await_server(&flows, "local")?;
    let leaving = Endpoint::local("10.180.0.1").terminating();
    cluster.services(&[&web().with_endpoints([leaving, Endpoint::remote("10.180.2.1")])])?;
    await_server(&flows, "local")?;
    let dying = Endpoint::local("10.180.0.1").dying();
    cluster.services(&[&web().with_endpoints([dying, Endpoint::remote("10.180.2.1")])])?;
    await_server(&flows, "remote")
}

/// kube-proxy forgets these flows up to 1.36 (kubernetes#139628): they are sent to nobody, for hours.
fn end_with_the_last_endpoint_and_come_back() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&web().endpoint(Endpoint::local("10.180.0.1"))])?;
    let flows = flows(&cluster)?;
    await_server(&flows, "local")?;
    cluster.services(&[&web()])?;
    for Named(what, flow) in &flows {
        let before = flow.report().refused;
        flow.await_report(SOON, |report| report.refused > before).with_context(|| format!("{what} is not refused"))?;
    }
    cluster.services(&[&web().endpoint(Endpoint::remote("10.180.2.1"))])?;
    await_server(&flows, "remote")
}

/// And these, too (kubernetes#141371): the next pod with the address would get what was not meant for it.
fn end_with_their_service() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["172.30.0.41", "1.2.3.4"])?;
    cluster.node().serve(&[Port::udp(30_001)])?;
    cluster.services(&[&web().endpoint(Endpoint::local("10.180.0.1"))])?;
    let flows = flows(&cluster)?;
    await_server(&flows, "local")?;
    // ClusterIPs outside of any ServiceCIDR: what is not translated any more is answered by those whose addresses these are.
    cluster.objects("cluster.yaml", [node()])?;
    cluster.services(&[])?;
    for flow in flows {
        let name = if flow.0.ends_with(":30001") { "test-node" } else { "elsewhere" };
        await_server(&[flow], name)?;
    }
    Ok(())
}

/// Their first datagrams went untranslated to wherever the address led: there is a connection already, of the wrong kind.
fn that_began_too_early_are_taken_in() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["172.30.0.41", "1.2.3.4"])?;
    cluster.node().serve(&[Port::udp(30_001)])?;
    cluster.objects("cluster.yaml", [node()])?;
    let flows = flows(&cluster)?;
    for Named(what, flow) in &flows {
        flow.await_answers(3, SOON).with_context(|| format!("{what} has no answer before there is a Service"))?;
    }
    cluster.services(&[&web().endpoint(Endpoint::local("10.180.0.1"))])?;
    await_server(&flows, "local")
}
