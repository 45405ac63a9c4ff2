//! An EndpointSlice as policy needs it: 250,000 of its endpoints are the bulk of our memory, so an endpoint is kept small.

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

use super::{Family, ObjectKey, Problem, Protocol, ServiceKey};

/// One EndpointSlice object of family IPv4 or IPv6 (slices of FQDNs are not kept).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice itself.
    pub key: ObjectKey,
    /// The Service it belongs to, by label `kubernetes.io/service-name`.
    pub service: ServiceKey,
    /// `addressType`.
    pub family: Family,
    /// Ports with a name, a number other than 0 and a known protocol; the others are left out.
    pub ports: Vec<SlicePort>,
    /// Endpoints with a parsable first address of this family.
    pub endpoints: Box<[Endpoint]>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time`, nanoseconds since 1970.
    pub trigger_time: Option<i64>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name, empty for the unnamed port.
    pub name: CompactString,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the endpoint; never 0.
    pub port: u16,
}

/// One endpoint. Only the first address counts: the API promises that all addresses of an endpoint are the same backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `addresses[0]`, canonical.
    pub address: IpAddr,
    /// The three conditions with their defaults applied.
    pub conditions: Conditions,
    /// `nodeName`. Local means: equal to our node's name, as a string. Addresses are never compared.
    pub node: Option<Arc<str>>,
    /// `hints`, absent where both lists are empty.
    pub hints: Option<Box<Hints>>,
}

/// `conditions`, after defaults: ready nil is true, serving nil is true (*not* the value of ready), terminating nil is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// Takes new connections. Already false while terminating, unless the Service publishes not-ready addresses.
    pub ready: bool,
    /// Still answers, terminating or not.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
}

/// Topology hints (KEP-2433 zones, KEP-3015 nodes). The order has no meaning; it settles ties.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    /// `hints.forZones[].name`.
    pub zones: Vec<Arc<str>>,
    /// `hints.forNodes[].name`.
    pub nodes: Vec<Arc<str>>,
}

impl Conditions {
    /// Ready, serving, not terminating: also what an endpoint without conditions means.
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };

    /// Used only where no ready endpoint is left (KEP-1669).
    #[must_use]
    pub fn is_fallback(self) -> bool {
        !self.ready && self.serving && self.terminating
    }
}
