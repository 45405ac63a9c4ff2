//! Whether two versions of an object differ in anything that somebody downstream reads.
//!
//! Every field is named, so that a new one does not compile until somebody has decided.

use crate::model::{EndpointSlice, Node, Service};

pub(super) fn service(a: &Service, b: &Service) -> bool {
    let Service {
        key,
        uid,
        created,
        kind,
        cluster_ips,
        headless,
        external_name,
        external_ips,
        vips,
        source_ranges,
        internal_traffic_policy,
        external_traffic_policy,
        affinity,
        health_check_node_port,
        ports,
        load_balancer,
        problems: _,
    } = a;
    *key == b.key
        && *uid == b.uid
        && *created == b.created
        && *kind == b.kind
        && *cluster_ips == b.cluster_ips
        && *headless == b.headless
        && *external_name == b.external_name
        && *external_ips == b.external_ips
        && *vips == b.vips
        && *source_ranges == b.source_ranges
        && *internal_traffic_policy == b.internal_traffic_policy
        && *external_traffic_policy == b.external_traffic_policy
        && *affinity == b.affinity
        && *health_check_node_port == b.health_check_node_port
        && *ports == b.ports
        && *load_balancer == b.load_balancer
}

pub(super) fn slice(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    let EndpointSlice { key, service, family, ports, endpoints, trigger_time: _, problems: _ } = a;
    *key == b.key && *service == b.service && *family == b.family && *ports == b.ports && *endpoints == b.endpoints
}

pub(super) fn node(a: &Node, b: &Node) -> bool {
    let Node { name, addresses, zone, pod_cidrs, deleting, taints, problems: _ } = a;
    *name == b.name
        && *addresses == b.addresses
        && *zone == b.zone
        && *pod_cidrs == b.pod_cidrs
        && *deleting == b.deleting
        && *taints == b.taints
}
