//! Ordinary objects to begin from, for tests and measurements here and in other packages (feature `samples`). Whoever needs more says
//! only what matters: `Service { affinity, ..samples::service(key, ip) }`.

use std::net::IpAddr;

use super::{
    Conditions, Endpoint, EndpointSlice, Family, Node, NodeAddress, NodeAddressKind, ObjectKey, Protocol, Service, ServiceKey,
    ServicePortSpec, ServiceType, SlicePort, TrafficPolicy,
};

/// Type ClusterIP, with one unnamed port 80/TCP and UID `1`, of no known age.
#[must_use]
pub fn service(key: ServiceKey, cluster_ip: IpAddr) -> Service {
    Service {
        key,
        uid: "1".into(),
        created: None,
        kind: ServiceType::ClusterIp,
        cluster_ips: [cluster_ip].into_iter().collect(),
        headless: false,
        external_name: None,
        external_ips: Vec::new(),
        vips: Vec::new(),
        source_ranges: Vec::new(),
        internal_traffic_policy: TrafficPolicy::Cluster,
        external_traffic_policy: TrafficPolicy::Cluster,
        affinity: None,
        health_check_node_port: 0,
        load_balancer: None,
        ports: vec![port("", Protocol::Tcp, 80)],
        problems: Vec::new(),
    }
}

/// A port of a Service, without a NodePort.
#[must_use]
pub fn port(name: &str, protocol: Protocol, port: u16) -> ServicePortSpec {
    ServicePortSpec { name: name.into(), protocol, port, node_port: 0 }
}

/// An IPv4 slice with one unnamed port 80/TCP.
#[must_use]
pub fn slice(key: ObjectKey, service: ServiceKey, endpoints: impl IntoIterator<Item = Endpoint>) -> EndpointSlice {
    EndpointSlice {
        key,
        service,
        family: Family::V4,
        ports: vec![slice_port("", Protocol::Tcp, 80)],
        endpoints: endpoints.into_iter().collect(),
        trigger_time: None,
        problems: Vec::new(),
    }
}

/// A port of a slice.
#[must_use]
pub fn slice_port(name: &str, protocol: Protocol, port: u16) -> SlicePort {
    SlicePort { name: name.into(), protocol, port }
}

/// Ready, on no node, without hints.
#[must_use]
pub fn endpoint(address: IpAddr) -> Endpoint {
    Endpoint { address, conditions: Conditions::READY, node: None, hints: None }
}

/// A node with these InternalIPs, in no zone.
#[must_use]
pub fn node(name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Node {
    let internal = |address| NodeAddress { kind: NodeAddressKind::Internal, address };
    Node {
        name: name.into(),
        addresses: addresses.into_iter().map(internal).collect(),
        zone: None,
        pod_cidrs: Vec::new(),
        deleting: false,
        taints: Vec::new(),
        problems: Vec::new(),
    }
}
