//! Random histories over few names and addresses, so that everything meets everything.

use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::fixtures::{Port, cidrs, commit, node, stage};
use crate::model::{Family, ServiceKey, TrafficPolicy};
use crate::table::{Delta, Detector, FrontendKind, LOCALHOST, NodeState, ServiceTable};

/// What happens at once.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Services(Vec<(&'static str, Option<Port>)>),
    Node(NodeState),
    Foreign(Vec<u8>),
}

impl Step {
    pub(super) fn stage(self, table: &mut ServiceTable) -> Arc<Delta> {
        match self {
            Self::Services(services) => services.into_iter().for_each(|(name, port)| stage(table, name, port)),
            Self::Node(node) => table.set_node(node),
            Self::Foreign(last) => {
                let ips = last.into_iter().map(|last| [172, 30, 0, last].into()).collect();
                table.set_foreign(ServiceKey::new("default", "foreign"), ips);
            }
        }
        commit(table)
    }
}

pub(super) fn history(steps: usize) -> impl Strategy<Value = Vec<Step>> {
    let service = (prop::sample::select(vec!["a", "b", "c", "d"]), prop::option::weighted(0.85, port()));
    let services = vec(service, 1..3).prop_map(Step::Services);
    let foreign = vec(1..6_u8, 0..3).prop_map(Step::Foreign);
    vec(prop_oneof![8 => services, 1 => node_state().prop_map(Step::Node), 1 => foreign], 1..steps)
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)]
}

fn port() -> impl Strategy<Value = Port> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, PoolVip};
    let kind = prop::sample::select(vec![ClusterIp, PoolVip, LoadBalancer, ExternalIp]);
    let frontends = btree_map((1..6_u8, 80..82_u16), (kind, policy()), 0..3);
    let node_port = prop::option::of((30_000..30_002_u16, policy()));
    let family = prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)];
    let sticky = prop_oneof![3 => Just(0_u32), 1 => Just(30), 1 => Just(600)];
    let backends = (prop_oneof![0..6_u16, 124..133_u16], 0..4_u16);
    let ranges =
        prop::option::weighted(0.3, prop::sample::subsequence(vec!["192.0.2.0/24", "10.0.0.0/9", "203.0.113.7/32"], 0..3));
    (family, frontends, node_port, backends, sticky, any::<bool>(), ranges).prop_map(
        |(family, frontends, node_port, (count, local), sticky, usable, ranges)| {
            let mut port = Port::new(family);
            for ((last, number), (kind, policy)) in frontends {
                let ip = if family == Family::V4 { format!("172.30.0.{last}") } else { format!("fd00:30::{last}") };
                port = port.at(kind, &ip, number, policy);
            }
            if let Some((number, policy)) = node_port {
                port = port.node_port(number, policy);
            }
            if let Some(ranges) = ranges {
                port = port.from(&ranges);
            }
            port = port.backends(count, local);
            port.0.affinity = NonZeroU32::new(sticky);
            port.0.any_usable = usable || count > 0;
            port
        },
    )
}

fn node_state() -> impl Strategy<Value = NodeState> {
    let detector = prop_oneof![
        Just(Detector::Off),
        Just(Detector::Cidrs(cidrs(&["10.0.0.0/8"]))),
        Just(Detector::Cidrs(cidrs(&["10.0.0.0/9", "10.128.0.0/9", "fd00::/64"]))),
        Just(Detector::Interface("cni0".into())),
    ];
    let flags = any::<[bool; 3]>();
    (detector, flags, 0..3_u8).prop_map(|(detector, [masquerade_all, match_all, localhost], addresses)| {
        let mut node = NodeState { detector, masquerade_all, ..node() };
        node.echo_v4 = (addresses > 0).then(|| [192, 0, 2, addresses].into());
        node.node_ports_v4.match_all = match_all;
        node.node_ports_v4.addresses =
            (0..addresses).map(|last| [192, 0, 2, last].into()).chain(localhost.then_some(LOCALHOST)).collect();
        node
    })
}
