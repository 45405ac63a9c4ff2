//! Who answers whom, and who is masqueraded: the whole of kube-proxy's `TestInternalExternalMasquerade`, with an externalIP column.

use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Lane, Pods, Service, per_lane};
use sheave_lab::Host;
use sheave_tests::scenario::Scenario;

/// From where, to what, and what must come of it for each of the three Services.
type Row = (From, To, [&'static str; 3]);

#[derive(Clone, Copy, Debug)]
enum From {
    Pod,
    Node,
    Outside,
}

#[derive(Clone, Copy, Debug)]
enum To {
    ClusterIp,
    NodePort,
    Vip,
    ExternalIp,
}

/// Defaults, externalTrafficPolicy Local, internalTrafficPolicy Local: ClusterIP, NodePort, VIP and externalIP of each.
const SERVICES: [(&str, &str, u16, &str, &str); 3] = [
    ("svc1", "172.30.0.41", 30_001, "1.2.3.1", "4.3.2.1"),
    ("svc2", "172.30.0.42", 30_002, "1.2.3.2", "4.3.2.2"),
    ("svc3", "172.30.0.43", 30_003, "1.2.3.3", "4.3.2.3"),
];

/// `B`: both endpoints, `L`: the local one only, `m`: masqueraded. One row per client and kind of address, one column per Service.
const TABLE: [Row; 12] = [
    (From::Pod, To::ClusterIp, ["B", "B", "L"]),
    (From::Pod, To::NodePort, ["B m", "B", "B m"]),
    (From::Pod, To::Vip, ["B m", "B", "B m"]),
    (From::Pod, To::ExternalIp, ["B m", "B", "B m"]),
    (From::Node, To::ClusterIp, ["B m", "B m", "L m"]),
    (From::Node, To::NodePort, ["B m", "B m", "B m"]),
    (From::Node, To::Vip, ["B m", "B m", "B m"]),
    (From::Node, To::ExternalIp, ["B m", "B m", "B m"]),
    (From::Outside, To::ClusterIp, ["B m", "B m", "L m"]),
    (From::Outside, To::NodePort, ["B m", "L", "B m"]),
    (From::Outside, To::Vip, ["B m", "L", "B m"]),
    (From::Outside, To::ExternalIp, ["B m", "L", "B m"]),
];

const BY_BRIDGE: [&str; 4] = ["--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "cni0"];

pub(crate) fn scenarios() -> Vec<Scenario> {
    [
        per_lane!("truth_table::defaults", defaults),
        per_lane!("truth_table::detector_off", detector_off),
        per_lane!("truth_table::masquerade_all", masquerade_all),
        per_lane!("truth_table::detector_by_node_cidr", detector_by_node_cidr),
        per_lane!("truth_table::detector_by_interface_prefix", detector_by_interface_prefix),
        per_lane!("truth_table::detector_by_bridge", detector_by_bridge),
        per_lane!("truth_table::detector_by_bridge_of_neighbours", detector_by_bridge_of_neighbours, needs "bridge_nf"),
        per_lane!("truth_table::all_node_addresses", all_node_addresses),
        per_lane!("truth_table::bridged_pods", bridged_pods, needs "bridge_nf"),
    ]
    .concat()
}

fn defaults(lane: Lane) -> anyhow::Result<()> {
    holds(lane, Pods::Routed, &DETECT_PODS, |_, _, cell| cell)
}

/// Nobody is known to be a pod: ClusterIPs are never masqueraded, and pods are outside clients to externalTrafficPolicy Local.
fn detector_off(lane: Lane) -> anyhow::Result<()> {
    holds(lane, Pods::Routed, &[], |from, to, cell| match (from, to, cell) {
        (_, To::ClusterIp, "B m") => "B",
        (_, To::ClusterIp, "L m") => "L",
        (From::Pod, To::NodePort | To::Vip | To::ExternalIp, "B") => "L",
        _ => cell,
    })
}

fn masquerade_all(lane: Lane) -> anyhow::Result<()> {
    let arguments = [&DETECT_PODS[..], &["--masquerade-all"]].concat();
    holds(lane, Pods::Routed, &arguments, |_, to, cell| match (to, cell) {
        (To::ClusterIp, "B") => "B m",
        (To::ClusterIp, "L") => "L m",
        _ => cell,
    })
}

fn detector_by_node_cidr(lane: Lane) -> anyhow::Result<()> {
    holds(lane, Pods::Routed, &["--detect-local-mode", "NodeCIDR"], |_, _, cell| cell)
}

fn detector_by_interface_prefix(lane: Lane) -> anyhow::Result<()> {
    let arguments = ["--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "pod"];
    holds(lane, Pods::Routed, &arguments, |_, _, cell| cell)
}

fn detector_by_bridge(lane: Lane) -> anyhow::Result<()> {
    holds(lane, Pods::BridgedApart, &BY_BRIDGE, |_, _, cell| cell)
}

/// Packets between neighbours never pass the node's routing, and have no input interface where masquerading is decided.
fn detector_by_bridge_of_neighbours(lane: Lane) -> anyhow::Result<()> {
    holds(lane, Pods::Bridged, &BY_BRIDGE, |_, _, cell| cell)
}

/// NodePorts at every address of the node are found by routing instead of by a list.
fn all_node_addresses(lane: Lane) -> anyhow::Result<()> {
    let arguments = [&DETECT_PODS[..], &["--nodeport-addresses", "0.0.0.0/0,::/0"]].concat();
    holds(lane, Pods::Routed, &arguments, |_, _, cell| cell)
}

/// The client and the local endpoint are neighbours on one bridge: the reply must come back through the node.
fn bridged_pods(lane: Lane) -> anyhow::Result<()> {
    holds(lane, Pods::Bridged, &DETECT_PODS, |_, _, cell| cell)
}

/// The table, with the cells that a variant changes, holds.
fn holds(
    lane: Lane,
    pods: Pods,
    arguments: &[&str],
    variant: impl Fn(From, To, &'static str) -> &'static str,
) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(pods)?;
    cluster.start(arguments)?;
    let [svc1, svc2, svc3] = SERVICES.map(|(name, cluster_ip, node_port, vip, external_ip)| {
        let endpoints = [Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1")];
        Service::new(name, cluster_ip).port(80).node_port(node_port).vip(vip).external_ip(external_ip).with_endpoints(endpoints)
    });
    cluster.services(&[&svc1, &svc2.external_local(), &svc3.internal_local()])?;

    let mut checks = Checks::default();
    for (from, to, cells) in TABLE {
        for ((name, cluster_ip, node_port, vip, external_ip), cell) in SERVICES.into_iter().zip(cells) {
            let address = match to {
                To::ClusterIp => (cluster_ip, 80),
                To::NodePort => ("192.168.0.2", node_port),
                To::Vip => (vip, 80),
                To::ExternalIp => (external_ip, 80),
            };
            let host: &Host = match from {
                From::Pod => &cluster.pod,
                From::Node => cluster.node(),
                From::Outside => cluster.client(),
            };
            let cell = variant(from, to, cell);
            let what = format!("{from:?} -> {to:?} of {name}: {cell}");
            checks.add(what, host, lane.to(address.0, address.1), expect(cell));
        }
    }
    checks.run()
}

/// Reads a cell of the table.
fn expect(cell: &str) -> Expect {
    let by: &[&'static str] = if cell.starts_with('B') { &["local", "remote"] } else { &["local"] };
    if cell.ends_with('m') { Expect::by(by).masqueraded() } else { Expect::by(by).kept() }
}
