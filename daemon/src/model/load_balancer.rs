//! What the load balancer reads: MetalLB's own objects (group `metallb.io`, version v1beta1), what a Service asks of it, and the nodes
//! that may announce.
//!
//! Semantics are those of MetalLB v0.16.1. One object that cannot be understood spoils only itself: it keeps its problems, and who
//! uses it decides by them.

mod advertisement;
mod home;
mod hosting;
mod node;
mod pool;
mod request;

pub use advertisement::{Advertisement, NodePreference};
pub use home::{Ambiguous, Home, USUAL_NAMESPACE};
pub use hosting::Hosting;
pub use node::NamespaceLabels;
pub use node::{EXCLUDE_LABEL, PeerNode};
pub use pool::{AddressPool, AddressRange, PoolCounts, RangeError, ServiceAllocation};
pub use request::{IngressAddress, IpFamilyPolicy, IpMode, LoadBalancerRequest};
