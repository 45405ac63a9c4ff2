//! What one sync changed. Everything a plane needs to bring the kernel along without looking at anything that did not change.

use std::net::IpAddr;
use std::sync::Arc;

use super::NodeState;
use super::types::{Backend, BackendId, ServicePort};

/// The difference between two generations of a [`super::ServiceTable`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Generation of the table after it.
    pub generation: u64,
    /// Service ports that came, went or changed; one entry each, by id. A frontend that moves leaves one entry's port and joins
    /// another's, in either order: a plane that writes entry by entry removes with all of them before it adds with any.
    pub ports: Vec<PortChange>,
    /// Addresses whose use by any frontend changed; one entry each.
    pub addresses: Vec<AddressChange>,
    /// Local endpoint addresses that can now reach themselves through a Service (`true`), or no longer can (`false`).
    pub hairpins: Vec<(IpAddr, bool)>,
    /// The node's own state before and after, if it changed.
    pub node: Option<(Arc<NodeState>, Arc<NodeState>)>,
}

/// One Service port before and after. At least one of the two is there.
#[derive(Clone, Debug, PartialEq)]
pub struct PortChange {
    /// `None`: it is new.
    pub before: Option<Arc<ServicePort>>,
    /// `None`: it is gone.
    pub after: Option<Arc<ServicePort>>,
    /// What happened in the cluster set.
    pub cluster: SetDelta,
    /// What happened in the local set.
    pub local: SetDelta,
}

/// What happened in one backend set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetDelta {
    /// Slots where another backend is now, each once, by ascending slot. Applying them in any order gives the new array. A backend
    /// that stays and only becomes local, or ceases to be, is no write: see [`Delta::hairpins`].
    pub writes: Vec<SlotWrite>,
    /// Identities that joined.
    pub added: Vec<BackendId>,
    /// Identities that left.
    pub removed: Vec<BackendId>,
}

/// One slot before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// The place.
    pub slot: u32,
    /// `None`: the array was shorter.
    pub before: Option<Backend>,
    /// `None`: the array is now shorter.
    pub after: Option<Backend>,
}

/// How an address is used by the frontends of the whole table, before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressChange {
    /// The address.
    pub ip: IpAddr,
    /// Before.
    pub before: AddressUse,
    /// After.
    pub after: AddressUse,
}

/// How an address is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressUse {
    /// Some frontend is at this address.
    pub service: bool,
    /// It is a ClusterIP: ports no Service has are refused, and its traffic is masqueraded by the ClusterIP rule.
    pub cluster_ip: bool,
    /// It is the ClusterIP of a Service that another proxy serves: never dropped as unallocated.
    pub foreign: bool,
    /// It is a VIP of one of our pools, which no interface has: the node answers for it beyond the ports that Services have.
    pub pool_vip: bool,
}

impl Delta {
    /// Nothing changed: there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.addresses.is_empty() && self.hairpins.is_empty() && self.node.is_none()
    }
}

impl SetDelta {
    /// Nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
