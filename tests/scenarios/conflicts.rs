//! Addresses that several Services want, and addresses that nobody may have.

use crate::fixture::{Checks, Cluster, Endpoint, Expect, Family, Lane, Service, in_lanes};
use anyhow::Context as _;
use serde_json::json;
use sheave_lab::Request;
use sheave_tests::scenario::Scenario;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("conflicts":
        the_older_service_keeps_the_address;
        a_newcomer_without_an_age_takes_nothing;
        the_next_one_serves_when_the_holder_goes;
        another_port_of_a_shared_address_is_no_conflict;
        a_cluster_ip_is_nobodys_external_ip;
        hostile_external_ips_are_refused;
    )
}

/// How soon a warning has to be in the log.
const SOON: Duration = Duration::from_secs(10);

fn old() -> Service {
    Service::new("old", "172.30.0.41").port(80).created("2025-01-01T00:00:00Z").endpoint(Endpoint::local("10.180.0.1"))
}

fn young() -> Service {
    Service::new("a-young", "172.30.0.42").port(80).created("2026-01-01T00:00:00Z").endpoint(Endpoint::remote("10.180.2.1"))
}

fn the_older_service_keeps_the_address(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let claim = |service: Service| service.external_ip("4.3.2.1").node_port(30_001);
    let (old, young) = (claim(old()), claim(young()));
    // Whoever comes first, and again after an unrelated change.
    for services in [vec![&young], vec![&young, &old], vec![&old, &young], vec![&old]] {
        cluster.services(&services)?;
        let holder = if services.len() == 1 && std::ptr::eq(services[0], &raw const young) { "remote" } else { "local" };
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, cluster.client(), ("4.3.2.1", 80), Expect::by(&[holder]));
            checks.ask(lane, cluster.client(), ("192.168.0.2", 30_001), Expect::by(&[holder]));
            if services.len() == 2 {
                // What is not contested works for both.
                checks.ask(lane, cluster.client(), ("172.30.0.41", 80), Expect::by(&["local"]));
                checks.ask(lane, cluster.client(), ("172.30.0.42", 80), Expect::by(&["remote"]));
            }
        }
        checks.run()?;
    }
    cluster.await_log("4.3.2.1:80/TCP belongs to ns/old:tcp-80/TCP (IPv4), which is older", SOON)?;
    Ok(())
}

/// Nobody writes a creationTimestamp by hand. A file that comes later, with a name that sorts before all others, waits for its turn.
fn a_newcomer_without_an_age_takes_nothing(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let claim = |service: Service| service.node_port(30_001).external_ip("4.3.2.1");
    let incumbent = claim(Service::new("svc1", "172.30.0.41").port(80).endpoint(Endpoint::local("10.180.0.1")));
    let newcomer = claim(Service::new("a-new", "172.30.0.42").port(80).endpoint(Endpoint::remote("10.180.2.1")));
    let holder = |name| {
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, cluster.client(), ("192.168.0.2", 30_001), Expect::by(&[name]));
            checks.ask(lane, cluster.client(), ("4.3.2.1", 80), Expect::by(&[name]));
        }
        checks.run()
    };
    cluster.services(&[&incumbent])?;
    holder("local")?;
    cluster.objects("a-new.yaml", newcomer.documents())?;
    holder("local")?;
    cluster.await_log("belongs to ns/svc1", SOON)?;
    // An edit makes nobody younger.
    cluster.services(&[&claim(Service::new("svc1", "172.30.0.41").port(80)).with_endpoints([Endpoint::local("10.180.0.1")])])?;
    holder("local")?;
    cluster.services(&[])?;
    holder("remote")?;
    cluster.services(&[&incumbent])?;
    holder("remote")
}

fn the_next_one_serves_when_the_holder_goes(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (old, young) = (old().vip("1.2.3.4"), young().vip("1.2.3.4"));
    for (services, holder) in [(vec![&old, &young], "local"), (vec![&young], "remote"), (vec![&old, &young], "local")] {
        cluster.services(&services)?;
        let mut checks = Checks::default();
        for &lane in lanes {
            for from in [&cluster.pod, cluster.client()] {
                checks.ask(lane, from, ("1.2.3.4", 80), Expect::by(&[holder]));
            }
        }
        checks.run()?;
    }
    Ok(())
}

/// Sharing a VIP between Services with different ports is what MetalLB's `allow-shared-ip` is for.
fn another_port_of_a_shared_address_is_no_conflict(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let other = Service::new("other", "172.30.0.42").port(53).endpoint(Endpoint::remote("10.180.2.1")).vip("1.2.3.4");
    cluster.services(&[&old().vip("1.2.3.4"), &other])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, cluster.client(), ("1.2.3.4", 80), Expect::by(&["local"]));
        checks.ask(lane, cluster.client(), ("1.2.3.4", 53), Expect::by(&["remote"]));
    }
    checks.run()
}

/// CVE-2020-8554: who may write externalIPs would otherwise get the traffic to, say, the cluster's DNS. The older one loses, too,
/// and on every port: those that the ClusterIP does not have stay refused.
fn a_cluster_ip_is_nobodys_external_ip(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let thief = old().port(53).external_ip("172.30.0.42");
    for services in [vec![thief.clone()], vec![thief.clone(), young()]] {
        cluster.services(&services.iter().collect::<Vec<_>>())?;
        if services.len() == 1 {
            continue;
        }
        let mut checks = Checks::default();
        for &lane in lanes {
            for from in [&cluster.pod, cluster.node(), cluster.client()] {
                checks.ask(lane, from, ("172.30.0.42", 80), Expect::by(&["remote"]));
                checks.ask(lane, from, ("172.30.0.42", 53), Expect::Refused);
            }
        }
        checks.run()?;
    }
    cluster.await_log("172.30.0.42 is the ClusterIP of ns/a-young and stays with it", SOON)?;
    Ok(())
}

/// Loopback, link-local, multicast, nobody's: such an address would catch traffic of the node itself. The others are served.
fn hostile_external_ips_are_refused(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for address in ["127.0.0.1/8", "::1/128", "169.254.20.10/32"] {
        cluster.node().add_address("lo", address)?;
    }
    cluster.serve(cluster.node())?;
    let hostile = json!([
        "127.0.0.1",
        "::1",
        "169.254.20.10",
        "169.254.169.254",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "::ffff:127.0.0.1",
        "4.3.2.1",
        "fd00:4:3::2:1"
    ]);
    cluster.services(&[&old().spec("externalIPs", hostile)])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        let own: &[IpAddr] = match lane.family {
            Family::V4 => &[IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10))],
            Family::V6 => &[IpAddr::V6(Ipv6Addr::LOCALHOST)],
        };
        for &address in own {
            let what = format!("{lane}: node -> {address}");
            checks.add(what, cluster.node(), Request::to(lane.port(80), address), Expect::by(&["test-node"]).kept());
        }
        checks.ask(lane, cluster.client(), ("4.3.2.1", 80), Expect::by(&["local"]));
    }
    checks.run()?;
    cluster.await_log("127.0.0.1", SOON).context("refused without a word")?;
    Ok(())
}
