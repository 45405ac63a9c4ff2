//! What of a Service is served at all, and which policies apply to it (kube-proxy 1.2, 2).

use std::net::IpAddr;

use crate::model::{Family, Service, ServicePortSpec, ServiceType, TrafficPolicy};

/// Which endpoint lists a Service port needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) cluster: bool,
    pub(super) local: bool,
}

/// The ClusterIP that makes the Service exist in `family`. Without one nothing of it does: no NodePort, VIP or externalIP either.
pub(super) fn cluster_ip(service: &Service, family: Family) -> Option<IpAddr> {
    if !is_served(service) {
        return None;
    }
    service.cluster_ips.iter().copied().find(|ip| Family::of(*ip) == family)
}

/// A headless Service is for DNS only; ExternalName is a CNAME even if a ClusterIP was left behind by a change of type.
fn is_served(service: &Service) -> bool {
    !service.headless && service.kind != ServiceType::ExternalName
}

/// The external policy in force: `Local` counts only where the type lets traffic in from outside. externalIPs of either family do
/// that for type ClusterIP; a VIP left in the status after a change of type does not.
pub(super) fn external_policy(service: &Service) -> TrafficPolicy {
    let open = match service.kind {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    };
    if open { service.external_traffic_policy } else { TrafficPolicy::Cluster }
}

/// The port asks for a frontend besides its ClusterIP. What it asks for counts, not what it gets: externalIPs that are hidden by
/// `AllowServiceExternalIPs` or refused still make it accessible, as in kube-proxy.
fn is_externally_accessible(service: &Service, spec: &ServicePortSpec, family: Family) -> bool {
    let has = |addresses: &[IpAddr]| addresses.iter().any(|ip| Family::of(*ip) == family);
    spec.node_port != 0 || has(&service.vips) || has(&service.external_ips)
}

/// The lists of kube-proxy 3.2. An accessible port needs its cluster list even when both policies are Local: pods and the node
/// itself are short-circuited to it.
pub(super) fn uses(service: &Service, spec: &ServicePortSpec, family: Family) -> Uses {
    let accessible = is_externally_accessible(service, spec, family);
    let internal_local = service.internal_traffic_policy == TrafficPolicy::Local;
    let external_local = external_policy(service) == TrafficPolicy::Local;
    Uses { cluster: !internal_local || accessible, local: internal_local || (external_local && accessible) }
}
