//! Pure: the ServiceTable, the one truth every plane renders, with its slots and its [`Delta`].

mod delta;
mod node_state;
mod service_table;
mod types;

pub use delta::{AddressChange, AddressUse, Delta, PortChange, SetDelta, SlotWrite};
pub use node_state::{Detector, NodePortAddresses, NodeState};
pub use service_table::ServiceTable;
pub use types::{
    Backend, BackendId, BackendSet, Frontend, FrontendAddress, FrontendKind, Notice, PortId, Scope, ServicePort, Slot, Verdict,
};
