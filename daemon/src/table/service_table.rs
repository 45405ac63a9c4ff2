//! The ServiceTable: desired state after conflicts, with slots.

mod commit;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::{Addresses, Hairpins};
use super::claims::{Claimant, Claims};
use super::delta::AddressUse;
use super::node_state::NodeState;
use super::types::{Backend, Frontend, FrontendAddress, FrontendKind, HealthCheck, Notice, PortId, ServicePort, Tenancy};
use crate::model::ServiceKey;
use crate::policy::{Desired, Seniority};

pub use commit::Committed;

/// The one truth every plane renders. Owned by the sync loop.
///
/// What is staged takes effect at [`ServiceTable::commit`], all at once. The content is a pure function of what is in force: it does
/// not depend on the order in which it was staged, nor on how many commits it came in. Only slots and generations tell of the past.
///
/// Held are the Service ports that have at least one frontend. A port that asks for none, or lost all of them to others, is nothing
/// to any plane; its wishes are remembered, and it comes into being in the commit that gives it a frontend.
#[derive(Debug, Default)]
pub struct ServiceTable {
    generation: u64,
    /// Service ports with a frontend.
    ports: HashMap<PortId, Arc<ServicePort>>,
    /// Every Service that asks for something or has a notice.
    services: HashMap<ServiceKey, Entry>,
    claims: Claims,
    addresses: Addresses,
    hairpins: Hairpins,
    /// ClusterIPs of Services that another proxy serves.
    foreign: HashMap<ServiceKey, Vec<IpAddr>>,
    /// Of the few Services that have one.
    health_checks: HashMap<ServiceKey, HealthCheck>,
    /// Of Services with VIPs.
    tenancies: HashMap<ServiceKey, Arc<Tenancy>>,
    node: Arc<NodeState>,
    staged: Staged,
}

/// What the next commit will bring. Of two values for one key the later counts.
#[derive(Debug, Default)]
struct Staged {
    /// By key, so that a commit does the same things in the same order whatever came first.
    services: BTreeMap<ServiceKey, Option<(Desired, Seniority)>>,
    foreign: BTreeMap<ServiceKey, Vec<IpAddr>>,
    health_checks: BTreeMap<ServiceKey, Option<HealthCheck>>,
    tenancies: BTreeMap<ServiceKey, Option<Arc<Tenancy>>>,
    node: Option<NodeState>,
}

/// What is in force of one Service.
#[derive(Debug, Default)]
struct Entry {
    /// Its ports, sorted by id, those without a frontend too.
    ports: Vec<PortEntry>,
    /// What policy refused.
    refused: Vec<Notice>,
    /// That, and what conflicts cost it. Sorted, no two alike.
    notices: Vec<Notice>,
}

/// One port of a Service: what it has, and what it does not get.
#[derive(Debug)]
struct PortEntry {
    claimant: Arc<Claimant>,
    /// In the table if it has frontends.
    port: Arc<ServicePort>,
    /// `None` for nearly all.
    unmet: Option<Box<Unmet>>,
}

/// What a Service port asked for and does not have, kept for the day on which the holder goes.
#[derive(Debug, Default, PartialEq)]
struct Unmet {
    /// Frontends that others hold, or that were refused.
    frontends: Vec<Frontend>,
    /// Backends of a scope that no frontend it holds uses. Those of a scope in use are in its set.
    cluster: Vec<Backend>,
    local: Vec<Backend>,
}

// === Reading ===

impl ServiceTable {
    /// Counts the commits that changed something.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every Service port that has a frontend, in no particular order.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = &Arc<ServicePort>> {
        self.ports.values()
    }

    /// One Service port, if it has a frontend.
    #[must_use]
    pub fn port(&self, id: &PortId) -> Option<&Arc<ServicePort>> {
        self.ports.get(id)
    }

    /// By what Service ports queue for something scarce, least first: the oldest Service, then the name. It is made of nothing but the
    /// objects, so every node and every load comes to the same.
    #[must_use]
    pub fn seniority(&self, id: &PortId) -> Option<impl Ord + use<'_>> {
        let ports = &self.services.get(&id.service)?.ports;
        let rank = ports.binary_search_by(|entry| entry.port.id.cmp(id)).ok()?;
        Some(&*ports[rank].claimant)
    }

    /// The ports of one Service that have a frontend, sorted by id.
    pub fn ports_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<ServicePort>> {
        let ports = self.services.get(service).map_or(&[][..], |entry| &entry.ports);
        ports.iter().map(|entry| &entry.port).filter(|port| !port.frontends.is_empty())
    }

    /// What a person should know about one Service, sorted.
    #[must_use]
    pub fn notices_of(&self, service: &ServiceKey) -> &[Notice] {
        self.services.get(service).map_or(&[], |entry| &entry.notices)
    }

    /// How a Service's load balancer asks this node, if it does.
    #[must_use]
    pub fn health_check_of(&self, service: &ServiceKey) -> Option<&HealthCheck> {
        self.health_checks.get(service)
    }

    /// What announcing a Service's VIPs takes to know, if it has any.
    #[must_use]
    pub fn tenancy_of(&self, service: &ServiceKey) -> Option<&Arc<Tenancy>> {
        self.tenancies.get(service)
    }

    /// The Service port that holds this frontend.
    #[must_use]
    pub fn holder(&self, address: &FrontendAddress) -> Option<&Arc<ServicePort>> {
        let strongest = self.claims.strongest(address)?;
        let claimed = self.is_open(address, strongest.kind);
        if claimed { self.ports.get(&strongest.claimant.port) } else { None }
    }

    /// Every address in use, and how.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = (IpAddr, AddressUse)> {
        self.addresses.iter()
    }

    /// How one address is used.
    #[must_use]
    pub fn address(&self, ip: IpAddr) -> AddressUse {
        self.addresses.get(ip)
    }

    /// Local endpoint addresses that can reach themselves through a Service.
    pub fn hairpins(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.hairpins.iter()
    }

    /// Whether an endpoint of this node that a Service port uses has this address.
    #[must_use]
    pub fn is_local_endpoint(&self, ip: IpAddr) -> bool {
        self.hairpins.contains(ip)
    }

    /// The node's own state.
    #[must_use]
    pub fn node(&self) -> &Arc<NodeState> {
        &self.node
    }

    /// Whose ClusterIP it is: of several Services the one that goes before, and ours before another proxy's, whose age nobody knows.
    fn cluster_ip_of(&self, ip: IpAddr) -> Option<&ServiceKey> {
        self.claims.cluster_ip(ip).map(|claim| &claim.claimant.port.service).or_else(|| self.addresses.owner(ip))
    }

    /// The address is nobody's ClusterIP, or is asked for as one.
    fn is_open(&self, address: &FrontendAddress, kind: FrontendKind) -> bool {
        kind == FrontendKind::ClusterIp || address.ip().is_none_or(|ip| self.addresses.owner(ip).is_none())
    }
}

#[cfg(test)]
mod tests;
