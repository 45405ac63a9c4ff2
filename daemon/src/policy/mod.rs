//! Pure: objects -> desired state. Endpoint conditions, traffic policies, topology hints, affinity, source ranges.
//!
//! No IO, no async, no clock, no randomness: those are arguments. The rules are those of kube-proxy v1.36.2.

mod types;

pub use types::{Context, Desired, DesiredPort, Seniority};
