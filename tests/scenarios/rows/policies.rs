//! Where traffic is let in, and where it goes.

use super::everybody_meets;
use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Lane, Service};
use anyhow::Context as _;
use sheave_lab::Host;

/// `TestLoadBalancer`: who is in a range is served, others meet silence.
pub(super) fn row_07_load_balancer_source_ranges(lanes: &[Lane]) -> anyhow::Result<()> {
    let (cluster, denied) = ranged()?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for vip in ["1.2.3.4", "5.6.7.8"] {
            checks.ask(lane, cluster.client(), (vip, 80), Expect::by(&["local"]).masqueraded());
            checks.ask(lane, &denied, (vip, 80), Expect::Dropped);
        }
    }
    checks.run()
}

/// `TestLoadBalancer`: nor have ClusterIPs.
pub(super) fn row_08_node_ports_have_no_source_ranges(lanes: &[Lane]) -> anyhow::Result<()> {
    let (_cluster, denied) = ranged()?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &denied, ("192.168.0.2", 3001), Expect::by(&["local"]).masqueraded());
        checks.ask(lane, &denied, ("172.30.0.41", 80), Expect::by(&["local"]).masqueraded());
    }
    checks.run()
}

/// The cluster of both rows, and a client that is in no range. The space before the second range is as in the upstream test.
fn ranged() -> anyhow::Result<(Cluster, Host)> {
    let cluster = Cluster::start()?;
    let denied = cluster.outside("denied", "203.0.113.130", None)?;
    let service = Service::new("svc1", "172.30.0.41").port(80).node_port(3001).vip("1.2.3.4").vip("5.6.7.8");
    // IPv6 has no network of the length of the second one: the twins of both clients are listed by hand.
    let ranges = ["192.168.0.0/24", " 203.0.113.0/25", "fd00:192:168::/112", " fd00:203::113:2/128"];
    let service = service.spec("loadBalancerSourceRanges", ranges.map(str::to_owned).to_vec());
    cluster.services(&[&service.endpoint(Endpoint::local("10.180.0.1"))])?;
    Ok((cluster, denied))
}

/// `TestNodePorts`: without a list, only the node's own IP is served; what listens at its other addresses stays reachable.
pub(super) fn row_11_node_ports_on_the_primary_address(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    serve_on_the_node(&cluster, lanes)?;
    cluster.services(&[&two_endpoints().node_port(3001)])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [cluster.client(), &cluster.pod] {
            checks.ask(lane, from, ("192.168.0.2", 3001), Expect::by(&["local", "remote"]).masqueraded());
            checks.ask(lane, from, ("192.168.1.2", 3001), Expect::by(&["test-node"]).kept());
        }
    }
    checks.run()
}

/// `TestNodePorts`: with a list, every address of the node within it.
pub(super) fn row_11_node_port_addresses(lanes: &[Lane]) -> anyhow::Result<()> {
    let networks = "192.168.0.0/24,192.168.1.0/24,fd00:192:168::/112,fd00:192:168::1:0/112";
    let cluster = Cluster::start_with(&[&DETECT_PODS[..], &["--nodeport-addresses", networks]].concat())?;
    serve_on_the_node(&cluster, lanes)?;
    cluster.services(&[&two_endpoints().node_port(3001)])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for address in ["192.168.0.2", "192.168.1.2"] {
            checks.ask(lane, cluster.client(), (address, 3001), Expect::by(&["local", "remote"]).masqueraded());
        }
    }
    checks.run()
}

/// A process of the node on the NodePort's number: it answers where the NodePort is not served.
fn serve_on_the_node(cluster: &Cluster, lanes: &[Lane]) -> anyhow::Result<()> {
    let mut ports: Vec<_> = lanes.iter().map(|lane| lane.port(3001)).collect();
    ports.dedup();
    cluster.node().serve(&ports).context("the node cannot serve")
}

/// `TestExternalTrafficPolicyLocal`.
pub(super) fn row_12_external_traffic_policy_local(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&everywhere().external_local()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for to in EXTERNAL {
            checks.ask(lane, cluster.client(), to, Expect::by(&["local"]).kept());
        }
    }
    checks.run()
}

/// `TestExternalTrafficPolicyLocal`: pods are short-circuited, and their addresses are known everywhere.
pub(super) fn row_13_external_traffic_policy_local_for_pods(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&everywhere().external_local()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for to in EXTERNAL {
            checks.ask(lane, &cluster.pod, to, Expect::by(&["local", "remote"]).kept());
            checks.ask(lane, cluster.node(), to, Expect::by(&["local", "remote"]).masqueraded());
        }
    }
    checks.run()
}

/// `TestExternalTrafficPolicyCluster`.
pub(super) fn row_14_external_traffic_policy_cluster(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&everywhere()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for to in EXTERNAL {
            for from in [&cluster.pod, cluster.client()] {
                checks.ask(lane, from, to, Expect::by(&["local", "remote"]).masqueraded());
            }
        }
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["local", "remote"]).kept());
    }
    checks.run()
}

/// `TestInternalTrafficPolicy`: silence while somebody could answer elsewhere, refusal when nobody can; and answers when one is here.
pub(super) fn row_15_internal_traffic_policy(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = Service::new("svc1", "172.30.0.41").port(80).internal_local();
    let (here, there) = (Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1"));
    for (endpoints, expect) in
        [(vec![there.clone()], Expect::Dropped), (vec![], Expect::Refused), (vec![here, there], Expect::by(&["local"]))]
    {
        cluster.services(&[&service.clone().with_endpoints(endpoints)])?;
        everybody_meets(&cluster, lanes, &expect)?;
    }
    Ok(())
}

/// The externalIP, VIP and NodePort of [`everywhere`].
const EXTERNAL: [(&str, u16); 3] = [("192.168.99.11", 80), ("1.2.3.4", 80), ("192.168.0.2", 3001)];

/// A Service with one endpoint here and one elsewhere.
fn two_endpoints() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).with_endpoints([Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1")])
}

/// The same, with every kind of frontend.
fn everywhere() -> Service {
    two_endpoints().node_port(3001).vip("1.2.3.4").external_ip("192.168.99.11")
}
