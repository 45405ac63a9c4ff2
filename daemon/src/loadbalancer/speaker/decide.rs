//! Which VIPs this node announces, where, and of the others why not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

use super::rules::Rules;
use crate::loadbalancer::announcer::Vip;
use crate::loadbalancer::election::{Candidate, Contest, Exclusion, Interfaces, Options, Presence, Silence, Tenant, elect};
use crate::loadbalancer::membership::NetworkInterface;
use crate::model::load_balancer::PeerNode;
use crate::model::{Family, Labels, ServiceKey};
use crate::table::{ServiceState, Tenancy};

/// Everything that decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'a> {
    /// Name of our Node.
    pub(super) node: &'a str,
    /// `--lb-class`.
    pub(super) class: Option<&'a str>,
    pub(super) rules: &'a Rules,
    /// Services with VIPs, whoever's.
    pub(super) services: &'a BTreeMap<ServiceKey, Arc<ServiceState>>,
    /// See [`super::interfaces::candidates`].
    pub(super) interfaces: &'a [NetworkInterface],
    /// The generation that is in the kernel.
    pub(super) programmed: u64,
    /// What this node announces now.
    pub(super) held: &'a Decisions,
}

/// By VIP, of those that are in a pool and have a Service.
pub(super) type Decisions = BTreeMap<IpAddr, Decision>;

/// What becomes of one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The Services that have it, with their uids.
    pub(super) tenants: BTreeMap<ServiceKey, CompactString>,
    /// On which interfaces it is announced, or why it is not.
    pub(super) outcome: Result<Interfaces, Quiet>,
}

/// Why this node does not announce a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// The kernel does not have its Services yet; whoever asked now would be refused.
    Unprogrammed,
    /// Nobody would be served, or nobody wants it.
    Nobody(Silence),
    /// This node cannot.
    Unable(Exclusion),
}

/// Decides about every VIP.
pub(super) fn decide(situation: &Situation<'_>) -> Decisions {
    let ours = |state: &&Arc<ServiceState>| tenancy(state).is_some_and(|own| own.class.as_deref() == situation.class);
    let mut tenants: BTreeMap<IpAddr, Vec<(&ServiceState, &Tenancy)>> = BTreeMap::new();
    for state in situation.services.values().filter(ours) {
        let Some(tenancy) = tenancy(state) else { continue };
        // A status may name an address twice.
        for vip in tenancy.vips.iter().collect::<BTreeSet<_>>() {
            tenants.entry(*vip).or_default().push((state, tenancy));
        }
    }
    let decided = tenants.into_iter().filter_map(|(vip, tenants)| Some((vip, of_one(vip, &tenants, situation)?)));
    decided.collect()
}

/// `None`: it is in no pool, so it is somebody else's.
fn of_one(vip: IpAddr, tenants: &[(&ServiceState, &Tenancy)], situation: &Situation<'_>) -> Option<Decision> {
    let advertisements = situation.rules.advertisements_of(situation.rules.pool_of(vip)?);
    let parties: Vec<Tenant<'_>> = tenants.iter().map(|(state, tenancy)| party(state, tenancy, vip)).collect();
    let nameless;
    let node = match &situation.rules.node {
        Some(node) => node,
        None => {
            nameless = unknown(situation.node);
            &nameless
        }
    };
    let own = Candidate { node, presence: Presence::Present, interfaces: Some(situation.interfaces), holds: None };
    let contest =
        Contest { vip, advertisements: &advertisements, tenants: &parties, candidates: &[own], options: Options::default() };
    let result = elect(&contest);
    let exclusion = result.standings.into_iter().find_map(|standing| standing.rank.err());
    let holds = situation.held.get(&vip).is_some_and(|decision| decision.outcome.is_ok());
    let waits = !holds && tenants.iter().any(|(state, _)| state.generation > situation.programmed);
    let outcome = match (result.winner, exclusion) {
        (Ok(_), _) if waits => Err(Quiet::Unprogrammed),
        (Ok(winner), _) => Ok(winner.interfaces),
        (Err(Silence::NoEligibleNode), Some(exclusion)) => Err(Quiet::Unable(exclusion)),
        (Err(silence), _) => Err(Quiet::Nobody(silence)),
    };
    let tenants = tenants.iter().map(|(state, tenancy)| (state.key.clone(), tenancy.uid.clone())).collect();
    Some(Decision { tenants, outcome })
}

fn party<'a>(state: &'a ServiceState, tenancy: &'a Tenancy, vip: IpAddr) -> Tenant<'a> {
    let hosting = tenancy.hosting(Family::of(vip));
    Tenant { service: &state.key, labels: &tenancy.labels, local: tenancy.local, hosting }
}

fn tenancy(state: &ServiceState) -> Option<&Tenancy> {
    state.tenancy.as_deref()
}

/// Of a node that no object tells of, nothing is known but its name.
fn unknown(name: &str) -> Arc<PeerNode> {
    let labels = Labels::default();
    Arc::new(PeerNode { name: name.into(), labels, addresses: Vec::new(), network_unavailable: false, unschedulable: false })
}

/// What the announcer is to do.
pub(super) fn vips(decisions: &Decisions) -> Vec<Vip> {
    let announced = decisions.iter().filter_map(|(&address, decision)| {
        let interfaces = match decision.outcome.as_ref().ok()? {
            Interfaces::All => Vec::new(),
            Interfaces::Only(names) => names.clone(),
        };
        Some(Vip { address, interfaces })
    });
    announced.collect()
}

#[cfg(test)]
mod tests;
