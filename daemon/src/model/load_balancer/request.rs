//! What a Service asks of the load balancer, and what its status says that it has.

use std::net::IpAddr;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::model::{Family, Labels};

/// The part of a Service that only the load balancer reads. There for type LoadBalancer, and for a Service whose status holds an
/// address from when it was of that type.
///
/// What a person wrote is kept as text where it can be wrong: the answer to a wrong request names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancerRequest {
    /// `spec.loadBalancerClass`.
    pub class: Option<CompactString>,
    /// The Service's labels.
    pub labels: Labels,
    /// `spec.ipFamilies`.
    pub families: SmallVec<[Family; 2]>,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: IpFamilyPolicy,
    /// `spec.loadBalancerIP`, not empty.
    pub address: Option<CompactString>,
    /// Annotation `metallb.io/loadBalancerIPs`.
    pub addresses: Option<CompactString>,
    /// Annotation `metallb.io/address-pool`.
    pub pool: Option<CompactString>,
    /// Annotation `metallb.io/allow-shared-ip`, not empty.
    pub sharing_key: Option<CompactString>,
    /// Annotation `metallb.io/ip-allocated-from-pool`: what we wrote last.
    pub allocated_from: Option<CompactString>,
    /// One of the above was read from an annotation of the old prefix, `metallb.universe.tf/`.
    pub deprecated_prefix: bool,
    /// `spec.selector` as text, `app=web,tier=front` by key; empty for none. Services with `externalTrafficPolicy: Local` share an
    /// address only if theirs are equal.
    pub selector: CompactString,
    /// `status.loadBalancer.ingress`, those that have an address, in order. One that is no address is left out, like a host name.
    pub ingress: SmallVec<[IngressAddress; 2]>,
    /// The status has an entry that is no address: a host name, or what cannot be read.
    pub other_ingress: bool,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IngressAddress {
    /// `ip`.
    pub ip: IpAddr,
    /// `ipMode`, absent is VIP (KEP-1860).
    pub mode: IpMode,
}

/// `ipMode` (KEP-1860).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpMode {
    /// Packets come with the address as destination: planes serve it.
    #[default]
    Vip,
    /// Somebody translates before the node: planes leave it alone.
    Proxy,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpFamilyPolicy {
    /// One family. Also where absent.
    #[default]
    SingleStack,
    /// Both where the cluster has both.
    PreferDualStack,
    /// Both, or nothing.
    RequireDualStack,
}
