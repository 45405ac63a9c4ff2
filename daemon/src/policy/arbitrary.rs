//! Random Services, slices and sequences of source changes, for property tests here and in other packages (feature `arbitrary`).
//!
//! Every domain is small, so that collisions happen: eight Services share a handful of addresses and ports, slices move between
//! them, endpoints repeat, hints and conditions come in every combination. Objects are valid in the sense of [`crate::model`]
//! (addresses of the right family, no port 0), not in the sense of the API server: a VIP may be another Service's ClusterIP.
//!
//! ```ignore
//! proptest! {
//!     #[test]
//!     fn survives(changes in arbitrary::operations(64), context in arbitrary::context()) { .. }
//! }
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::Context;
use crate::model::load_balancer::AddressRange;
use crate::model::{
    Conditions, Endpoint, EndpointSlice, Family, Hints, Node, ObjectKey, Problem, Protocol, Service, ServiceCidr, ServiceKey,
    ServicePortSpec, ServiceType, SlicePort, TrafficPolicy, samples,
};
use crate::source::{Change, Kind, Object};

/// The node that [`context`] and [`node`] describe. Endpoints are on it or on [`OTHER_NODES`].
pub const OUR_NODE: &str = "node-a";
/// The nodes that are not ours.
pub const OTHER_NODES: [&str; 2] = ["node-b", "node-c"];
/// Zones of nodes and hints.
pub const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
/// Our node's IPs.
pub const NODE_IPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x168, 0, 0, 0, 0, 0, 2))];
/// The API server of [`context`].
pub const API_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
/// Addresses among VIPs and externalIPs that nobody may take, beside the API server's.
pub const NEVER_SERVED: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
/// How many different Services [`operations`] speaks of.
pub const SERVICES: u8 = 8;
/// How many different slices [`operations`] speaks of.
pub const SLICES: u8 = 10;

/// Names and protocols of ports: few, so that slices and Services mostly meet, and with every way of almost meeting.
const PORTS: [(&str, Protocol); 4] =
    [("", Protocol::Tcp), ("", Protocol::Udp), ("http", Protocol::Tcp), ("http", Protocol::Sctp)];

/// Up to `max` changes as a source might send them: objects come, change and go, lists are complete, cut off or begun again, the
/// node moves to another zone, ServiceCIDRs change. Half of the sequences begin with a complete list of every kind.
pub fn operations(max: usize) -> impl Strategy<Value = Vec<Change>> {
    (any::<bool>(), vec(operation(), 0..=max)).prop_map(move |(listed, steps)| {
        let kinds = [Kind::Service, Kind::ForeignService, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];
        let start = kinds.into_iter().filter(|_| listed).flat_map(|kind| [Change::Listing(kind), Change::Listed(kind)]);
        let mut changes: Vec<Change> = start.chain(steps.into_iter().flatten()).collect();
        changes.truncate(max);
        changes
    })
}

/// One event of a source: mostly a single change, at times a whole list. A sequence of them that has to be of a certain length is
/// made from these.
pub fn operation() -> impl Strategy<Value = Vec<Change>> {
    let one = |change: BoxedStrategy<Change>| change.prop_map(|change| vec![change]).boxed();
    prop_oneof![
        6 => one(service().prop_map(|service| Change::Applied(Object::Service(service.into()))).boxed()),
        8 => one(slice().prop_map(|slice| Change::Applied(Object::EndpointSlice(slice.into()))).boxed()),
        2 => one(service_key().prop_map(|key| Change::Deleted(Kind::Service, key)).boxed()),
        3 => one(slice_key().prop_map(|key| Change::Deleted(Kind::EndpointSlice, key)).boxed()),
        1 => one(service().prop_map(|service| Change::Applied(Object::ForeignService(service.into()))).boxed()),
        1 => one(service_key().prop_map(|key| Change::Deleted(Kind::ForeignService, key)).boxed()),
        1 => one(node().prop_map(|node| Change::Applied(Object::Node(node.into()))).boxed()),
        1 => one(service_cidr().prop_map(|cidr| Change::Applied(Object::ServiceCidr(cidr.into()))).boxed()),
        1 => one(service_cidr().prop_map(|cidr| Change::Deleted(Kind::ServiceCidr, ObjectKey::new("", &cidr.name))).boxed()),
        1 => relist(Kind::Service, service().prop_map(|service| Object::Service(service.into())).boxed()),
        1 => relist(Kind::EndpointSlice, slice().prop_map(|slice| Object::EndpointSlice(slice.into())).boxed()),
        1 => relist(Kind::ForeignService, service().prop_map(|service| Object::ForeignService(service.into())).boxed()),
        1 => relist(Kind::ServiceCidr, service_cidr().prop_map(|cidr| Object::ServiceCidr(cidr.into())).boxed()),
    ]
}

/// A list of a kind; one in four is cut off before its end.
fn relist(kind: Kind, object: BoxedStrategy<Object>) -> BoxedStrategy<Vec<Change>> {
    let items = vec(object.prop_map(Change::Applied), 0..6);
    let list = (items, prop::bool::weighted(0.75)).prop_map(move |(items, complete)| {
        let end = complete.then_some(Change::Listed(kind));
        [Change::Listing(kind)].into_iter().chain(items).chain(end).collect()
    });
    list.boxed()
}

/// A Service of every type and family, with VIPs, externalIPs, NodePorts, source ranges and affinity.
pub fn service() -> impl Strategy<Value = Service> {
    let spec = (service_key(), service_type(), cluster_ips(), prop::bool::weighted(0.05));
    let addresses = (vec(external_ip(), 0..3), vec(external_ip(), 0..3), vec(source_range(), 0..3));
    let traffic = (policy(), policy(), option::weighted(0.3, 1..4u32));
    let age = (0..3u8, option::of(0..3i64));
    (spec, addresses, traffic, age, service_ports(), problems()).prop_map(
        |(
            (key, kind, cluster_ips, headless),
            (external_ips, vips, source_ranges),
            (internal, external, affinity),
            age,
            ports,
            problems,
        )| {
            Service {
                uid: format!("{key}-{}", age.0).into(),
                key,
                created: age.1,
                kind,
                cluster_ips: if headless { smallvec::SmallVec::new() } else { cluster_ips.into() },
                headless,
                external_name: (kind == ServiceType::ExternalName).then(|| "db.example.com".into()),
                external_ips,
                vips,
                source_ranges,
                internal_traffic_policy: internal,
                external_traffic_policy: external,
                affinity: affinity.and_then(NonZeroU32::new),
                health_check_node_port: if kind == ServiceType::LoadBalancer { 31000 } else { 0 },
                load_balancer: None,
                ports,
                problems,
            }
        },
    )
}

/// A slice of up to twelve endpoints of one of the Services.
pub fn slice() -> impl Strategy<Value = EndpointSlice> {
    let owner = (slice_key(), service_key(), family());
    (owner, slice_ports(), problems(), option::of(0..9i64)).prop_flat_map(
        |((key, service, family), ports, problems, trigger_time)| {
            endpoints(family).prop_map(move |endpoints| EndpointSlice {
                key: key.clone(),
                service: service.clone(),
                family,
                ports: ports.clone(),
                endpoints: endpoints.into(),
                trigger_time,
                problems: problems.clone(),
            })
        },
    )
}

/// The endpoints of one slice. Hinted slices are hinted throughout, as a controller writes them; sometimes with a gap.
fn endpoints(family: Family) -> impl Strategy<Value = Vec<Endpoint>> {
    let hinted = prop_oneof![4 => Just(0u8), 3 => Just(10), 2 => Just(8)];
    (hinted.clone(), hinted).prop_flat_map(move |(zones, nodes)| vec(endpoint(family, zones, nodes), 0..12))
}

/// One endpoint, with zone hints and node hints in so many of ten cases.
fn endpoint(family: Family, zones: u8, nodes: u8) -> impl Strategy<Value = Endpoint> {
    let node = option::weighted(0.9, select(all_nodes()));
    let zones = hint(zones, &ZONES);
    let nodes = hint(nodes, &all_nodes());
    (0..6u8, conditions(), node, zones, nodes).prop_map(move |(host, conditions, node, zones, nodes)| Endpoint {
        address: pod_ip(family, host),
        conditions,
        node: node.map(Arc::from),
        hints: (!zones.is_empty() || !nodes.is_empty()).then(|| Box::new(Hints { zones, nodes })),
    })
}

/// One or two of `names` in so many of ten cases, else none.
fn hint(tenths: u8, names: &[&'static str]) -> impl Strategy<Value = Vec<Arc<str>>> + use<> {
    (0..10u8, subsequence(names.to_vec(), 1..=2)).prop_map(move |(roll, names)| {
        let names = if roll < tenths { names } else { Vec::new() };
        names.into_iter().map(Arc::from).collect()
    })
}

/// Mostly what controllers write (ready, draining, starting), at times any of the eight combinations.
fn conditions() -> impl Strategy<Value = Conditions> {
    let draining = Conditions { ready: false, serving: true, terminating: true };
    let starting = Conditions { ready: false, serving: false, terminating: false };
    let any = any::<[bool; 3]>().prop_map(|[ready, serving, terminating]| Conditions { ready, serving, terminating });
    prop_oneof![4 => Just(Conditions::READY), 4 => Just(draining), 1 => Just(starting), 2 => any]
}

/// Our Node, in any zone or none.
pub fn node() -> impl Strategy<Value = Node> {
    zone().prop_map(|zone| Node { zone, ..samples::node(OUR_NODE, NODE_IPS) })
}

/// One of two ServiceCIDRs.
pub fn service_cidr() -> impl Strategy<Value = ServiceCidr> {
    let cidr = select(vec![net([172, 30, 0, 0], 16), net([172, 31, 0, 0], 16), net([172, 30, 0, 0], 24)]);
    (select(vec!["kubernetes", "extra"]), vec(cidr, 1..3)).prop_map(|(name, cidrs)| ServiceCidr {
        name: name.into(),
        cidrs,
        problems: Vec::new(),
    })
}

/// What is in our pools: some of the VIPs that Services have, all of them, or nothing.
pub fn pools() -> impl Strategy<Value = Vec<AddressRange>> {
    let range = |first: IpAddr, last: IpAddr| AddressRange::new(first, last).expect("it is written the right way round");
    let v4 = |last: u8| IpAddr::from([203, 0, 113, last]);
    let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    subsequence(vec![range(v4(0), v4(3)), range(v4(2), v4(9)), range(v6(0), v6(0xffff))], 0..=3)
}

/// What policy may know: our node in any zone, with and without a pool, an API server, externalIPs and either family.
pub fn context() -> impl Strategy<Value = Context> {
    (zone(), prop::bool::weighted(0.2), pools(), prop::bool::weighted(0.1)).prop_map(
        |(zone, external_ips_denied, pools, ipv6_off)| Context {
            node_name: OUR_NODE.into(),
            zone,
            node_ips: NODE_IPS.to_vec(),
            external_ips_denied,
            pools,
            api_servers: [API_SERVER].into(),
            ipv6_off,
        },
    )
}

/// One of [`SERVICES`] keys.
pub fn service_key() -> impl Strategy<Value = ServiceKey> {
    (0..SERVICES).prop_map(|number| ObjectKey::new("default", &format!("service-{number}")))
}

/// One of [`SLICES`] keys.
pub fn slice_key() -> impl Strategy<Value = ObjectKey> {
    (0..SLICES).prop_map(|number| ObjectKey::new("default", &format!("slice-{number}")))
}

fn service_type() -> impl Strategy<Value = ServiceType> {
    use ServiceType::{ClusterIp, ExternalName, LoadBalancer, NodePort};
    prop_oneof![5 => Just(ClusterIp), 4 => Just(NodePort), 6 => Just(LoadBalancer), 1 => Just(ExternalName)]
}

/// Any number of families, none and both included. Now and then two Services claim the same one.
fn cluster_ips() -> impl Strategy<Value = Vec<IpAddr>> {
    let ip = |family| (0..24u8).prop_map(move |host| cluster_ip(family, host));
    (option::weighted(0.9, ip(Family::V4)), option::weighted(0.5, ip(Family::V6)))
        .prop_map(|(v4, v6)| v4.into_iter().chain(v6).collect())
}

/// VIPs and externalIPs: shared between Services, at times a ClusterIP, a node's address or one that must be refused.
fn external_ip() -> impl Strategy<Value = IpAddr> {
    let v4 = (1..7u8).prop_map(|host| IpAddr::from([203, 0, 113, host]));
    let v6 = (1..5u16).prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]));
    prop_oneof![10 => v4, 5 => v6, 2 => (0..24u8).prop_map(|host| cluster_ip(Family::V4, host)), 1 => select(NODE_IPS.to_vec()), 1 => select(NEVER_SERVED.to_vec())]
}

/// Ranges that overlap, hold the node's address or everybody.
fn source_range() -> impl Strategy<Value = IpNet> {
    let v6 = |first: u16, prefix| IpNet::new_assert(IpAddr::from([first, 0, 0, 0, 0, 0, 0, 0]), prefix);
    let ranges = [
        net([10, 0, 0, 0], 8),
        net([10, 1, 2, 3], 16),
        net([192, 168, 0, 0], 24),
        net([192, 168, 0, 0], 25),
        net([198, 51, 100, 7], 32),
    ];
    prop_oneof![8 => select(ranges.to_vec()), 2 => Just(v6(0xfd00, 16)), 1 => Just(v6(0x2001, 32)), 1 => Just(net([0, 0, 0, 0], 0))]
}

/// Up to four ports, with different names and protocols as the API server demands.
fn service_ports() -> impl Strategy<Value = Vec<ServicePortSpec>> {
    let ids = subsequence(PORTS.to_vec(), 0..=4);
    ids.prop_flat_map(|ids| {
        ids.into_iter()
            .map(|(name, protocol)| {
                (select(vec![53u16, 80, 443]), option::weighted(0.4, 30000..30006u16)).prop_map(move |(port, node_port)| {
                    ServicePortSpec { name: name.into(), protocol, port, node_port: node_port.unwrap_or(0) }
                })
            })
            .collect::<Vec<_>>()
    })
}

fn slice_ports() -> impl Strategy<Value = Vec<SlicePort>> {
    let port = (select(PORTS.to_vec()), select(vec![53u16, 8080]));
    vec(port.prop_map(|((name, protocol), port)| SlicePort { name: name.into(), protocol, port }), 2..6)
}

fn problems() -> impl Strategy<Value = Vec<Problem>> {
    let problem =
        (0..3u8).prop_map(|index| Problem { field: format!("spec.externalIPs[{index}]"), reason: "not an IP address".into() });
    option::weighted(0.1, problem).prop_map(|problem| problem.into_iter().collect())
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![2 => Just(Family::V4), 1 => Just(Family::V6)]
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

fn zone() -> impl Strategy<Value = Option<Arc<str>>> {
    option::weighted(0.9, select(ZONES.to_vec()).prop_map(Arc::from))
}

fn all_nodes() -> Vec<&'static str> {
    [OUR_NODE].into_iter().chain(OTHER_NODES).collect()
}

fn cluster_ip(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([172, 30, 0, host]),
        Family::V6 => IpAddr::from([0xfd00, 0x30, 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

fn pod_ip(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 180, 0, host]),
        Family::V6 => IpAddr::from([0xfd00, 0x180, 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

fn net(address: [u8; 4], prefix: u8) -> IpNet {
    IpNet::new_assert(IpAddr::from(address), prefix)
}
