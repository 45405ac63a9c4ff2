//! Which VIPs this node announces, where, and of the others why not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use compact_str::CompactString;

use super::caution::Bearing;
use super::field::Entrant;
use super::rules::Rules;
use crate::loadbalancer::announcer::Vip;
use crate::loadbalancer::announcer::conflict::Claim;
use crate::loadbalancer::election::{
    Arrival, Candidate, Contest, Exclusion, Interfaces, Options, Outcome, Presence, Silence, Standing, Tenant, Winner, elect,
};
use crate::loadbalancer::membership::State;
use crate::loadbalancer::membership::fence::Succession;
use crate::model::{Family, ServiceKey};
use crate::table::{ServiceState, Tenancy};

/// Of those that cannot, so many are named to people.
const NAMED: usize = 3;

/// Everything that decides.
#[derive(Clone, Copy)]
pub(super) struct Situation<'a> {
    /// `--lb-class`.
    pub(super) class: Option<&'a str>,
    pub(super) options: Options,
    pub(super) rules: &'a Rules,
    /// Services with VIPs, whoever's.
    pub(super) services: &'a BTreeMap<ServiceKey, Arc<ServiceState>>,
    /// Who may announce; ourselves first.
    pub(super) field: &'a [Entrant],
    /// Enough is known of the others to take anything that is not ours already.
    pub(super) settled: bool,
    /// What others that are not heard mean for us.
    pub(super) bearing: &'a Bearing,
    /// Who has a VIP that was given up to it.
    pub(super) ceded: &'a dyn Fn(IpAddr) -> Option<Arc<str>>,
    /// Whether a VIP may be taken that nobody is known to hold.
    pub(super) first_taking: Succession,
    /// The generation that is in the kernel.
    pub(super) programmed: u64,
    /// What was decided last.
    pub(super) before: &'a Decisions,
}

/// By VIP, of those that are in a pool and have a Service.
pub(super) type Decisions = BTreeMap<IpAddr, Decision>;

/// What becomes of one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// The Services that have it, with their uids.
    pub(super) tenants: BTreeMap<ServiceKey, CompactString>,
    /// The name of its pool.
    pub(super) pool: CompactString,
    /// On which interfaces it is announced here, or why it is not.
    pub(super) outcome: Result<Interfaces, Quiet>,
    /// Who is to announce it. Another one than we while we announce it: until that one does.
    pub(super) elected: Result<Winner, Silence>,
    /// How everybody fared.
    pub(super) standings: Vec<Standing>,
    /// Why it would come here.
    pub(super) arrival: Arrival,
}

/// Why this node does not announce a VIP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Quiet {
    /// The kernel does not have its Services yet; whoever asked now would be refused.
    #[error("its Services are not in the kernel of this node yet")]
    Unprogrammed,
    /// Nobody would be served, or nobody wants it.
    #[error(transparent)]
    Nobody(Silence),
    /// Nobody can: the first few of everybody with their reasons, and how many there are beside them.
    #[error("no node can announce it")]
    Unable(Vec<(Arc<str>, Exclusion)>, usize),
    /// Another node does, or is about to.
    #[error("it is announced by node {0:?}")]
    Elsewhere(Arc<str>),
    /// Not enough is known of the others yet.
    #[error("the other announcers are not known yet")]
    Unsettled,
    /// It may be taken over then, if nothing is heard that says otherwise.
    #[error("it is taken over as soon as it is sure that nobody else has it")]
    Waiting(Instant),
    /// Who held it may well live, and we are the one that is cut off.
    #[error("the node that has it may well live: this one hears too few of the others to take it over")]
    CutOff,
    /// API and members are lost.
    #[error("this node has lost the API server and most of the other announcers, which may have taken it over")]
    Withdrawn,
    /// This one has it, which is not heard, or knows better.
    #[error("node {0:?} has it, although it is not heard or knows other things of the API server")]
    Yielded(Arc<str>),
    /// Nobody is known to have it, and the LAN is being asked.
    #[error("the LAN is being asked whether another host has it")]
    Unprobed,
    /// It does: two would answer.
    #[error("another host has it, {} on {}", .0.mac, .0.interface)]
    Occupied(Claim),
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
    let pool = situation.rules.pool_of(vip)?;
    let advertisements = situation.rules.advertisements_of(pool);
    let parties: Vec<Tenant<'_>> = tenants.iter().map(|(state, tenancy)| party(state, tenancy, vip)).collect();
    let candidates: Vec<Candidate<'_>> = situation.field.iter().map(|entrant| entrant.candidate(vip)).collect();
    let options = situation.options;
    let contest = Contest { vip, advertisements: &advertisements, tenants: &parties, candidates: &candidates, options };
    let result = elect(&contest);
    let generation = tenants.iter().map(|(state, _)| state.generation).max().unwrap_or_default();
    // What nobody else could announce, nobody else has: there is no reason to be silent about it.
    let others_could = *situation.bearing != Bearing::Free && could_elsewhere(&contest, situation.field);
    let outcome = outcome(vip, &result, generation, others_could, situation);
    let arrival = arrival(vip, &result.standings, situation);
    let Outcome { winner: elected, standings } = result;
    let tenants = tenants.iter().map(|(state, tenancy)| (state.key.clone(), tenancy.uid.clone())).collect();
    Some(Decision { tenants, pool: pool.key.name().into(), outcome, elected, standings, arrival })
}

/// Whether those that are not heard would elect somebody, as far as they are known.
fn could_elsewhere(contest: &Contest<'_>, field: &[Entrant]) -> bool {
    let unheard = contest.candidates.iter().zip(field).filter(|(_, entrant)| entrant.presence == Presence::Absent);
    // Of one that has told nothing it is taken for granted that it can what we can.
    let ours = contest.candidates.first().and_then(|own| own.interfaces);
    let candidates: Vec<_> = unheard
        .map(|(candidate, _)| Candidate { presence: Presence::Present, interfaces: candidate.interfaces.or(ours), ..*candidate })
        .collect();
    elect(&Contest { candidates: &candidates, ..contest.clone() }).winner.is_ok()
}

/// Why a VIP would come here: by a fault, if its holder is gone, or is there and has lost its cable.
fn arrival(vip: IpAddr, standings: &[Standing], situation: &Situation<'_>) -> Arrival {
    let unplugged = |node: &str| {
        let standing = standings.iter().find(|standing| *standing.node == *node);
        standing.is_some_and(|standing| matches!(standing.rank, Err(Exclusion::NoCarrier | Exclusion::NotOnSubnet)))
    };
    if let Some(holder) = holder(vip, situation) {
        return if unplugged(&holder.node.name) { Arrival::Inherited } else { Arrival::from_holder(holder.state) };
    }
    // Who lost its cable may have said that it announces no longer before it said why.
    let Some(before) = situation.before.get(&vip) else { return Arrival::Elected };
    match &before.elected {
        Ok(winner) if situation.field.first().is_some_and(|own| own.node.name == winner.node) => before.arrival,
        Ok(winner) if unplugged(&winner.node) => Arrival::Inherited,
        _ => Arrival::Elected,
    }
}

fn outcome(
    vip: IpAddr,
    Outcome { winner, standings }: &Outcome,
    generation: u64,
    others_could: bool,
    situation: &Situation<'_>,
) -> Result<Interfaces, Quiet> {
    let quiet = match situation.bearing {
        Bearing::Free => None,
        Bearing::Withdrawn => Some(Quiet::Withdrawn),
        Bearing::Yielding(rival) => Some(Quiet::Yielded(rival.clone())),
    };
    if let Some(quiet) = quiet.filter(|_| others_could) {
        return Err(quiet);
    }
    if let Some(rival) = (situation.ceded)(vip) {
        return Err(Quiet::Yielded(rival));
    }
    let own = situation.field.first();
    let holds = own.is_some_and(|own| own.holds(vip).is_some());
    match winner {
        Ok(winner) if own.is_some_and(|own| own.node.name == winner.node) => match obstacle(vip, generation, situation) {
            Some(obstacle) if !holds => Err(obstacle),
            _ => Ok(winner.interfaces.clone()),
        },
        // Make before break: it is answered here until the other one says that it does.
        Ok(Winner { node, .. }) if holds && !has_taken(vip, node, situation) => {
            let before = situation.before.get(&vip).and_then(|decision| decision.outcome.as_ref().ok());
            Ok(before.cloned().unwrap_or(Interfaces::All))
        }
        Ok(Winner { node, .. }) => Err(Quiet::Elsewhere(node.clone())),
        Err(Silence::NoEligibleNode) => {
            let mut unable = standings.iter().filter_map(|one| Some((one.node.clone(), one.rank.clone().err()?)));
            let named: Vec<_> = unable.by_ref().take(NAMED).collect();
            let more = unable.count();
            Err(if named.is_empty() { Quiet::Nobody(Silence::NoEligibleNode) } else { Quiet::Unable(named, more) })
        }
        Err(silence) => Err(Quiet::Nobody(*silence)),
    }
}

/// Why a VIP that is to come here does not yet.
fn obstacle(vip: IpAddr, generation: u64, situation: &Situation<'_>) -> Option<Quiet> {
    if !situation.settled {
        return Some(Quiet::Unsettled);
    }
    if generation > situation.programmed {
        return Some(Quiet::Unprogrammed);
    }
    match holder(vip, situation).map_or(situation.first_taking, |holder| holder.succession) {
        Succession::AtOnce => None,
        Succession::After(at) => Some(Quiet::Waiting(at)),
        Succession::No => Some(Quiet::CutOff),
    }
}

/// The other one that holds a VIP, or held it last. One that lives before those that are gone.
fn holder<'a>(vip: IpAddr, situation: &Situation<'a>) -> Option<&'a Entrant> {
    let others = situation.field.iter().skip(1).filter(|entrant| entrant.holds(vip).is_some());
    others.min_by_key(|entrant| match entrant.state {
        Some(State::Alive) => 0,
        Some(State::DaemonDown { .. }) => 1,
        Some(State::Leaving) => 2,
        _ => 3,
    })
}

/// The winner announces it by now. One whose daemon is silent does, or nobody can know.
fn has_taken(vip: IpAddr, winner: &str, situation: &Situation<'_>) -> bool {
    let winner = situation.field.iter().find(|entrant| *entrant.node.name == *winner);
    winner.is_none_or(|winner| winner.holds(vip).is_some() || winner.presence != Presence::Present)
}

fn party<'a>(state: &'a ServiceState, tenancy: &'a Tenancy, vip: IpAddr) -> Tenant<'a> {
    let hosting = tenancy.hosting(Family::of(vip));
    Tenant { service: &state.key, labels: &tenancy.labels, local: tenancy.local, hosting }
}

fn tenancy(state: &ServiceState) -> Option<&Tenancy> {
    state.tenancy.as_deref()
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

/// Those that wait for a time, the first of them.
pub(super) fn next_try(decisions: &Decisions) -> Option<Instant> {
    let waiting = decisions.values().filter_map(|decision| match decision.outcome {
        Err(Quiet::Waiting(at)) => Some(at),
        _ => None,
    });
    waiting.min()
}

impl Decision {
    /// It is announced here because we are elected, and not until somebody else does.
    pub(super) fn is_ours(&self, own: &str) -> bool {
        self.outcome.is_ok() && self.elected.as_ref().is_ok_and(|winner| &*winner.node == own)
    }
}

#[cfg(test)]
mod tests;
