//! The objects as we keep them: small, interned, owned by one [`Index`].
//!
//! Nothing past this line knows a Kubernetes crate's type. A field that could not be understood is left out of the object and
//! named in its `problems`; the rest of the object stays usable, and nothing else is touched.

mod endpoint_slice;
mod index;
mod labels;
pub mod load_balancer;
mod names;
mod node;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod service;

pub use endpoint_slice::{Conditions, Endpoint, EndpointSlice, Hints, SlicePort};
pub(crate) use index::held::Held;
pub use index::{Dirty, Index, ObjectProblem};
pub use labels::{Labels, Operator, Requirement, Selector};
pub use names::{Family, Interner, ObjectKey, Protocol, ServiceKey};
pub use node::{Node, NodeAddress, NodeAddressKind, ServiceCidr};
pub use service::{AffinityTimeout, Service, ServicePortSpec, ServiceType, TrafficPolicy};

/// A field of an object that was left out because it could not be understood, or that looks wrong.
///
/// Becomes one warning line and one Event on the object: `default/web: spec.externalIPs[2]: "10.0.0.300" is not an IP address`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Path of the field as a person writes it in YAML: `spec.ports[0].nodePort`.
    pub field: String,
    /// What is wrong with it and what was done, lower case, no full stop.
    pub reason: String,
}

impl std::fmt::Display for Problem {
    /// As it stands in a line of the log: `spec.externalIPs[2]: "10.0.0.300" is not an IP address: ignored`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { field, reason } = self;
        write!(f, "{field}: {reason}")
    }
}
