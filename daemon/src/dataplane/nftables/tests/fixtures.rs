//! Service tables in a few words.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Family, Protocol, ServiceKey, TrafficPolicy};
use crate::policy::{Desired, DesiredPort, Seniority};
use crate::table::{
    Backend, Delta, Detector, Frontend, FrontendAddress, FrontendKind, NodePortAddresses, NodeState, PortId, Scope, ServiceTable,
};

/// A Service port being described. IPv6 if its first address is.
#[derive(Clone, Debug)]
pub(super) struct Port(pub(super) DesiredPort);

impl Port {
    pub(super) fn new(family: Family) -> Self {
        let id = PortId { service: ServiceKey::new("default", "x"), name: "".into(), protocol: Protocol::Tcp, family };
        Self(DesiredPort {
            id,
            frontends: Vec::new(),
            cluster: Vec::new(),
            local: Vec::new(),
            any_usable: true,
            affinity: None,
            serving: [].into(),
        })
    }

    pub(super) fn v4() -> Self {
        Self::new(Family::V4)
    }

    pub(super) fn at(mut self, kind: FrontendKind, ip: &str, port: u16, policy: TrafficPolicy) -> Self {
        let address = FrontendAddress::Ip { ip: ip.parse().unwrap(), protocol: Protocol::Tcp, port };
        self.0.frontends.push(Frontend { address, kind, policy, source_ranges: None });
        self.sorted()
    }

    pub(super) fn cluster_ip(self, ip: &str, port: u16) -> Self {
        self.at(FrontendKind::ClusterIp, ip, port, TrafficPolicy::Cluster)
    }

    pub(super) fn node_port(mut self, port: u16, policy: TrafficPolicy) -> Self {
        let address = FrontendAddress::NodePort { family: self.0.id.family, protocol: Protocol::Tcp, port };
        self.0.frontends.push(Frontend { address, kind: FrontendKind::NodePort, policy, source_ranges: None });
        self.sorted()
    }

    /// Restricts the frontend written last.
    pub(super) fn from(mut self, ranges: &[&str]) -> Self {
        let ranges: Arc<[IpNet]> = ranges.iter().map(|net| net.parse().unwrap()).collect();
        for frontend in self.0.frontends.iter_mut().filter(|frontend| frontend.kind == FrontendKind::LoadBalancer) {
            frontend.source_ranges = Some(ranges.clone());
        }
        self
    }

    /// Backends `10.0.x.y:8080`, the first `local` of them on this node.
    pub(super) fn backends(mut self, count: u16, local: u16) -> Self {
        let backend = |n: u16| {
            let [high, low] = n.to_be_bytes();
            let ip = match self.0.id.family {
                Family::V4 => IpAddr::from([10, 0, high, low]),
                Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, n]),
            };
            Backend { address: (ip, 8080).into(), local: n < local }
        };
        let all: Vec<Backend> = (0..count).map(backend).collect();
        let uses = |scope| self.0.frontends.iter().any(|frontend| frontend.scope() == scope);
        let splits = self.0.frontends.iter().any(Frontend::splits_by_source);
        self.0.local =
            if uses(Scope::Local) || splits { all.iter().copied().filter(|backend| backend.local).collect() } else { Vec::new() };
        self.0.cluster = if uses(Scope::Cluster) { all } else { Vec::new() };
        self
    }

    pub(super) fn sticky(mut self, seconds: u32) -> Self {
        self.0.affinity = NonZeroU32::new(seconds);
        self
    }

    pub(super) fn unusable(mut self) -> Self {
        self.0.any_usable = false;
        self
    }

    fn sorted(mut self) -> Self {
        self.0.frontends.sort_by_key(|frontend| frontend.address);
        self
    }
}

/// Stages Services by name, one port each; `None` takes one away. The delta of all of them.
pub(super) fn put<const N: usize>(table: &mut ServiceTable, services: [(&str, Option<Port>); N]) -> Arc<Delta> {
    for (name, port) in services {
        stage(table, name, port);
    }
    commit(table)
}

pub(super) fn stage(table: &mut ServiceTable, name: &str, port: Option<Port>) {
    let key = ServiceKey::new("default", name);
    match port {
        Some(port) => stage_of_age(table, name, 0, port),
        None => table.set_service(key, None),
    }
}

/// One that was created at this time.
pub(super) fn stage_of_age(table: &mut ServiceTable, name: &str, created: i64, Port(mut port): Port) {
    let key = ServiceKey::new("default", name);
    port.id.service = key.clone();
    let seniority = Seniority { created, uid: name.into() };
    table.set_service(key, Some((Desired { ports: vec![port], notices: Vec::new() }, seniority)));
}

pub(super) fn commit(table: &mut ServiceTable) -> Arc<Delta> {
    table.commit().delta.into()
}

pub(super) fn cidrs(list: &[&str]) -> BTreeSet<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

pub(super) fn node_ports(list: &[&str]) -> NodePortAddresses {
    NodePortAddresses { match_all: false, addresses: list.iter().map(|ip| ip.parse().unwrap()).collect() }
}

/// A node with everything a cluster usually has.
pub(super) fn node() -> NodeState {
    NodeState {
        detector: Detector::Cidrs(cidrs(&["10.0.0.0/8", "fd00::/64"])),
        masquerade_all: false,
        node_ports_v4: node_ports(&["192.0.2.1"]),
        node_ports_v6: node_ports(&["2001:db8::1"]),
        service_cidrs: cidrs(&["172.30.0.0/16", "fd00:30::/112"]),
        echo_v4: "192.0.2.1".parse().ok(),
        echo_v6: "2001:db8::1".parse().ok(),
    }
}

/// Some of everything, in both families.
pub(super) fn everything() -> ServiceTable {
    use FrontendKind::{ExternalIp, LoadBalancer, PoolVip};
    use TrafficPolicy::{Cluster, Local};
    let mut table = ServiceTable::default();
    table.set_node(node());
    table.set_foreign(ServiceKey::new("default", "foreign"), vec!["172.30.9.9".parse().unwrap()]);
    let web = Port::v4().cluster_ip("172.30.0.10", 80).at(LoadBalancer, "198.51.100.1", 80, Local).node_port(30080, Local);
    put(
        &mut table,
        [
            ("web", Some(web.backends(5, 2).sticky(10_800))),
            ("api", Some(Port::v4().cluster_ip("172.30.0.11", 443).at(ExternalIp, "203.0.113.9", 443, Cluster).backends(3, 0))),
            ("down", Some(Port::v4().cluster_ip("172.30.0.12", 80).node_port(30081, Cluster).unusable())),
            (
                "far",
                Some(
                    Port::v4().at(LoadBalancer, "198.51.100.2", 80, Local).from(&["192.0.2.0/24", "10.9.0.0/16"]).backends(2, 0),
                ),
            ),
            (
                "lan",
                Some(Port::v4().at(PoolVip, "192.0.2.240", 80, Cluster).at(PoolVip, "192.0.2.241", 80, Local).backends(2, 0)),
            ),
            ("lan-six", Some(Port::new(Family::V6).at(PoolVip, "2001:db8::240", 80, Cluster).backends(1, 1))),
            ("six", Some(Port::new(Family::V6).cluster_ip("fd00:30::a", 80).node_port(30080, Cluster).backends(4, 1).sticky(60))),
        ],
    );
    table
}
