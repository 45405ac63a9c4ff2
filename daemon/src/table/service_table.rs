//! The ServiceTable: desired state after conflicts, with slots.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{AddressUse, FrontendAddress, NodeState, PortId, ServicePort};

/// The one truth every plane renders. Owned by the sync loop.
#[derive(Debug, Default)]
pub struct ServiceTable {
    generation: u64,
    ports: HashMap<PortId, Arc<ServicePort>>,
    holders: HashMap<FrontendAddress, PortId>,
    addresses: HashMap<IpAddr, AddressUse>,
    hairpins: HashMap<IpAddr, u32>,
    node: Arc<NodeState>,
}

impl ServiceTable {
    /// Counts the commits that changed something.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every Service port, in no particular order.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = &Arc<ServicePort>> {
        self.ports.values()
    }

    /// One Service port.
    #[must_use]
    pub fn port(&self, id: &PortId) -> Option<&Arc<ServicePort>> {
        self.ports.get(id)
    }

    /// The Service port that holds this frontend.
    #[must_use]
    pub fn holder(&self, address: &FrontendAddress) -> Option<&Arc<ServicePort>> {
        self.ports.get(self.holders.get(address)?)
    }

    /// Every address in use, and how.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = (IpAddr, AddressUse)> {
        self.addresses.iter().map(|(ip, used)| (*ip, *used))
    }

    /// How one address is used.
    #[must_use]
    pub fn address(&self, ip: IpAddr) -> AddressUse {
        self.addresses.get(&ip).copied().unwrap_or_default()
    }

    /// Local endpoint addresses that can reach themselves through a Service.
    pub fn hairpins(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.hairpins.keys().copied()
    }

    /// The node's own state.
    #[must_use]
    pub fn node(&self) -> &Arc<NodeState> {
        &self.node
    }
}
