//! What is refused, what is dropped, and what is left alone (kube-proxy's section 4.1).

use crate::fixture::{
    Checks, Cluster, Endpoint, Expect, Family, Lane, Pong, Service, TCP_UDP, dual, in_lanes, node, ping, service_cidr,
};
use anyhow::{Context as _, ensure};
use serde_json::json;
use sheave_lab::{Protocol, TcpFlow};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{net::SocketAddr, time::Duration};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = in_lanes!("verdicts":
        ranges_come_before_refusals;
        unknown_ports_of_external_addresses_are_left_alone;
        an_address_changes_its_meaning_with_the_objects;
        a_cluster_ip_on_the_node_keeps_its_other_ports;
    );
    scenarios.extend(scenarios!("verdicts":
        pings_to_a_cluster_ip_are_refused needs ["nftables"];
        established_connections_outlive_their_service needs ["nftables"];
    ));
    scenarios
}

fn web(name: &str, address: &str) -> Service {
    Service::new(name, address).port(80).endpoint(Endpoint::local("10.180.0.1"))
}

/// Without endpoints, a source that is not let in meets silence as ever; the others are told.
fn ranges_come_before_refusals(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service =
        Service::new("svc1", "172.30.0.41").port(80).vip("1.2.3.4").source_ranges(&["192.168.0.0/24", "203.0.113.0/24"]);
    cluster.services(&[&service])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, cluster.client(), ("1.2.3.4", 80), Expect::Refused);
        checks.ask(lane, &cluster.pod, ("1.2.3.4", 80), Expect::Dropped);
    }
    checks.run()
}

/// A VIP or an externalIP may be somebody's address, with other ports of its own.
fn unknown_ports_of_external_addresses_are_left_alone(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["1.2.3.4", "4.3.2.1"])?;
    cluster.services(&[&web("svc1", "172.30.0.41").vip("1.2.3.4").external_ip("4.3.2.1")])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            for address in ["1.2.3.4", "4.3.2.1"] {
                checks.ask(lane, from, (address, 80), Expect::by(&["local"]).masqueraded());
                checks.ask(lane, from, (address, 53), Expect::by(&["elsewhere"]).kept());
            }
        }
    }
    checks.run()
}

/// Unallocated, served, without endpoints, foreign, unallocated again, outside of every ServiceCIDR, inside of a wider one.
fn an_address_changes_its_meaning_with_the_objects(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["172.30.0.41"])?;
    let served = web("svc1", "172.30.0.41");
    let foreign = served.clone().label("service.kubernetes.io/service-proxy-name", "other");
    let left_alone = Expect::by(&["elsewhere"]).kept();
    let ask = |expect: &Expect| {
        let mut checks = Checks::default();
        for &lane in lanes {
            for from in [&cluster.pod, cluster.node(), cluster.client()] {
                checks.ask(lane, from, ("172.30.0.41", 80), expect.clone());
            }
        }
        checks.run()
    };
    for (what, services, expect) in [
        ("unallocated", vec![], Expect::Dropped),
        ("served", vec![&served], Expect::by(&["local"])),
        ("without endpoints", vec![&served.clone().with_endpoints([])], Expect::Refused),
        ("another proxy's", vec![&foreign], left_alone.clone()),
        ("unallocated again", vec![], Expect::Dropped),
    ] {
        cluster.services(&services)?;
        ask(&expect).context(what)?;
    }
    cluster.objects("cluster.yaml", [node()])?;
    ask(&left_alone).context("without a ServiceCIDR")?;
    let mut wider = service_cidr();
    wider["spec"]["cidrs"] = json!(["172.16.0.0/12", "fd00:172::/32"]);
    cluster.objects("cluster.yaml", [node(), wider])?;
    ask(&Expect::Dropped).context("with a wider ServiceCIDR")
}

/// Unknown ports are refused on the way through and on the way out, not on the way in: what listens there stays reachable.
fn a_cluster_ip_on_the_node_keeps_its_other_ports(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for ip in dual("172.30.0.41") {
        cluster.node().add_address("lo", &ip)?;
    }
    cluster.serve(cluster.node())?;
    cluster.services(&[&web("svc1", "172.30.0.41")])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.client()] {
            checks.ask(lane, from, ("172.30.0.41", 80), Expect::by(&["local"]));
            checks.ask(lane, from, ("172.30.0.41", 53), Expect::by(&["test-node"]).kept());
        }
    }
    checks.run()
}

fn pings_to_a_cluster_ip_are_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&web("svc1", "172.30.0.41").vip("1.2.3.4")])?;
    for family in [Family::V4, Family::V6] {
        for from in [&cluster.pod, cluster.client()] {
            for (address, expected) in
                [("172.30.0.41", Pong::Refused), ("172.30.0.50", Pong::Silence), ("10.180.0.1", Pong::Reply)]
            {
                let pong = ping(from, family, address)?;
                ensure!(pong == expected, "{family:?} {address} from {}: {pong:?}, not {expected:?}", from.name());
            }
        }
    }
    Ok(())
}

/// Every verdict is about new connections: those that are there go on without their endpoint, their permission, their Service.
fn established_connections_outlive_their_service() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = web("svc1", "172.30.0.41").node_port(30_001).vip("1.2.3.4");
    cluster.services(&[&service])?;
    let mut flows = Vec::new();
    for lane in TCP_UDP.iter().filter(|lane| lane.protocol == Protocol::Tcp) {
        for (from, address, port) in [
            (&cluster.pod, "172.30.0.41", 80),
            (cluster.node(), "172.30.0.41", 80),
            (cluster.client(), "1.2.3.4", 80),
            (cluster.client(), "192.168.0.2", 30_001),
        ] {
            let to = SocketAddr::new(lane.address(address), port);
            flows.push((format!("{} -> {to}", from.name()), TcpFlow::start(from, &to.to_string(), 50_000)?));
        }
    }
    let elsewhere = cluster.far_pod("other", "10.180.2.2")?;
    for services in [
        vec![service.clone().with_endpoints([Endpoint::remote(&elsewhere.ipv4().to_string())])],
        vec![service.clone().source_ranges(&["10.0.0.0/8"])],
        vec![service.with_endpoints([])],
        vec![],
    ] {
        cluster.services(&services.iter().collect::<Vec<_>>())?;
        for (what, flow) in &flows {
            flow.await_progress(5_000, Duration::from_secs(10)).with_context(|| what.clone())?;
        }
    }
    for (what, flow) in flows {
        let report = flow.stop();
        ensure!(report.is_whole() && report.by == "local", "{what}: {report:?}");
    }
    Ok(())
}
