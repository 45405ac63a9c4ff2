//! Pure: the ServiceTable, the one truth every plane renders, with its slots and its [`Delta`].

mod addresses;
mod claims;
mod delta;
#[cfg(test)]
mod fixtures;
mod node_state;
mod published;
mod refusal;
mod service_table;
mod slots;
mod types;

pub use delta::{AddressChange, AddressUse, Delta, PortChange, SetDelta, SlotWrite};
pub use node_state::{Detector, LOCALHOST, NodePortAddresses, NodeState};
pub use published::{Follower, Published, PublishedShard, ServiceState};
pub use service_table::{Committed, ServiceTable};
pub use slots::{BackendSet, Slot};
pub use types::{
    Backend, BackendId, Frontend, FrontendAddress, FrontendKind, HealthCheck, Notice, PortId, Scope, ServicePort, Subject,
    Tenancy, Verdict,
};
