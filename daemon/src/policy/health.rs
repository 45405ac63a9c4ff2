//! What a Service's load balancer is told of this node (kube-proxy 6.2).

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::{Context, endpoints, service};
use crate::model::{EndpointSlice, Family, Service, ServiceType, TrafficPolicy};
use crate::table::HealthCheck;

/// How the load balancer of `service` asks this node, if it does: type LoadBalancer, policy `Local`, and a port to ask at.
///
/// Counted are distinct addresses, over all ports of the Service: a pod that serves two ports is one endpoint.
#[expect(clippy::needless_pass_by_value, reason = "callers have an iterator; a reference to one would only be cloned here")]
pub fn health_check<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    context: &Context,
) -> Option<HealthCheck> {
    let port = NonZeroU16::new(service.health_check_node_port)?;
    if service.kind != ServiceType::LoadBalancer || service::external_policy(service) != TrafficPolicy::Local {
        return None;
    }
    let local = |family| {
        let exists = context.serves(family) && service::cluster_ip(service, family).is_some();
        exists.then(|| {
            let slices = slices.clone().filter(|slice| slice.family == family && !slice.ports.is_empty());
            let ready = slices
                .flat_map(|slice| slice.endpoints.iter())
                .filter(|endpoint| endpoint.conditions.ready && endpoints::is_local(endpoint, context));
            let distinct: BTreeSet<_> = ready.map(|endpoint| endpoint.address).collect();
            u32::try_from(distinct.len()).unwrap_or(u32::MAX)
        })
    };
    let (local_v4, local_v6) = (local(Family::V4), local(Family::V6));
    (local_v4.is_some() || local_v6.is_some()).then(|| HealthCheck { port, uid: service.uid.clone(), local_v4, local_v6 })
}
