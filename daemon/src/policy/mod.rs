//! Pure: objects -> desired state. Endpoint conditions, traffic policies, topology hints, affinity, source ranges.
//!
//! No IO, no async, no clock, no randomness: those are arguments. The rules are those of kube-proxy v1.36.2; each is one small
//! function that says which.
//!
//! ```text
//! service.rs     what of a Service is served at all, and which policies apply
//! addresses.rs   VIPs and externalIPs that are refused whoever asks
//! ranges.rs      source ranges of the VIPs
//! frontends.rs   what a Service port answers to
//! endpoints.rs   slices -> one list of distinct endpoints per Service port
//! topology.rs    that list -> backends of scope cluster and local
//! health.rs      what a load balancer is told of this node
//! tenancy.rs     what announcing its VIPs takes to know
//! ```
//! What two Services dispute is not decided here but in [`crate::table`], which sees them all.

mod addresses;
#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod endpoints;
mod frontends;
mod health;
#[cfg(any(test, feature = "arbitrary"))]
pub mod naive;
mod ranges;
mod service;
mod tenancy;
#[cfg(test)]
mod tests;
mod topology;
mod types;

pub use health::health_check;
pub use tenancy::tenancy;
pub use types::{Context, Desired, DesiredPort, Seniority};

use crate::model::{EndpointSlice, Family, Protocol, Service, ServicePortSpec};
use crate::table::PortId;
use endpoints::Merger;
use frontends::FamilyFrontends;

/// What `service` asks of this node, given its EndpointSlices. The order of slices and endpoints makes no difference.
///
/// Empty for a Service that is not served: headless, ExternalName, or without a ClusterIP.
#[expect(clippy::needless_pass_by_value, reason = "callers have an iterator; a reference to one would only be cloned here")]
pub fn desired<'a>(service: &Service, slices: impl Iterator<Item = &'a EndpointSlice> + Clone, context: &Context) -> Desired {
    let mut desired = Desired::default();
    for family in Family::ALL {
        let Some(cluster_ip) = service::cluster_ip(service, family) else {
            frontends::note_strangers(service, family, context, &mut desired.notices);
            continue;
        };
        if !context.serves(family) {
            continue;
        }
        let frontends = FamilyFrontends::new(service, family, cluster_ip, context, &mut desired.notices);
        let mut merger = Merger::new(slices.clone(), family);
        for spec in &service.ports {
            let endpoints = merger.merge(spec, context);
            let lists = topology::lists(endpoints, service::uses(service, spec, family), context);
            desired.ports.push(DesiredPort {
                id: port_id(service, spec, family),
                frontends: frontends.of(spec),
                cluster: lists.cluster,
                local: lists.local,
                any_usable: lists.any_usable,
                affinity: service.affinity,
                serving: if spec.protocol == Protocol::Udp { topology::serving(endpoints) } else { [].into() },
            });
        }
    }
    desired.ports.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    desired
}

fn port_id(service: &Service, spec: &ServicePortSpec, family: Family) -> PortId {
    PortId { service: service.key.clone(), name: spec.name.clone(), protocol: spec.protocol, family }
}
