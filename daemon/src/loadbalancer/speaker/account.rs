//! What this node knows of every VIP, for people: who announces it, why there, and of everybody else why not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use jiff::Timestamp;

use super::decide::{Decision, Decisions, Quiet};
use super::field::Entrant;
use super::holdings::Holdings;
use crate::loadbalancer::announcer::Announcer;
use crate::loadbalancer::election::{Presence, Reason, Silence, Standing, Winner};
use crate::loadbalancer::membership::{Member, State};
use crate::model::ServiceKey;

/// Everything, as of one moment. A new one is made whenever something in it changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Name of our Node.
    pub node: Arc<str>,
    /// Every VIP that is in a pool and has a Service of our class.
    pub vips: BTreeMap<IpAddr, VipAccount>,
    /// The other members by name, as this node sees them; empty for a single node.
    pub members: BTreeMap<Arc<str>, State>,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq)]
pub struct VipAccount {
    /// The Services that have it, sorted.
    pub services: Vec<ServiceKey>,
    /// The pool that it is from.
    pub pool: CompactString,
    /// Who answers for it on the LAN, as far as this node knows: of itself, or by what that member tells. `None`: nobody does.
    pub announced: Option<Announced>,
    /// Who is to announce it, or why nobody can. Another one than who announces it while it moves.
    pub elected: Result<Elected, Silence>,
    /// Why this node does not announce it, although nobody else is to; for people.
    pub withheld: Option<String>,
    /// Of every candidate how it fared: the eligible ones first and in their order.
    pub standings: Vec<Standing>,
}

/// Who answers for a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Name of the node.
    pub node: Arc<str>,
    /// Since when, or since when this node has known.
    pub since: Timestamp,
    /// On these interfaces; empty if it is another node, which does not tell.
    pub interfaces: Vec<CompactString>,
    /// It came there because another node or daemon failed or ended, so it does not move back for five minutes.
    pub protected: bool,
}

/// Who is to announce a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    /// Name of the node.
    pub node: Arc<str>,
    /// Why this one.
    pub reason: Reason,
}

/// Keeps the account: since when what it says has been so.
#[derive(Debug, Default)]
pub(super) struct Accountant {
    since: BTreeMap<IpAddr, (Arc<str>, Timestamp)>,
}

/// What an account is made of.
pub(super) struct Books<'a> {
    pub(super) node: &'a Arc<str>,
    pub(super) decisions: &'a Decisions,
    pub(super) field: &'a [Entrant],
    pub(super) members: &'a [Member],
    pub(super) holdings: &'a Holdings,
    pub(super) announcer: Option<&'a Announcer>,
}

impl Accountant {
    /// As it is now.
    pub(super) fn account(&mut self, books: &Books<'_>, now: Timestamp) -> Account {
        let stats = books.announcer.map(Announcer::stats).unwrap_or_default();
        let on: BTreeMap<IpAddr, Vec<CompactString>> = stats.into_iter().map(|stats| (stats.address, stats.interfaces)).collect();
        let mut since = BTreeMap::new();
        let vips = books.decisions.iter().map(|(&vip, decision)| {
            let announced = announcer_of(vip, decision, books).map(|(node, protected)| {
                let known = self.since.remove(&vip).filter(|(before, _)| *before == node);
                let (node, at) = known.unwrap_or((node, now));
                since.insert(vip, (node.clone(), at));
                let interfaces = if node == *books.node { on.get(&vip).cloned().unwrap_or_default() } else { Vec::new() };
                Announced { node, since: at, interfaces, protected }
            });
            (vip, of_one(decision, announced))
        });
        let vips = vips.collect();
        self.since = since;
        let members = books.members.iter().map(|member| (member.name.clone(), member.state)).collect();
        Account { node: books.node.clone(), vips, members }
    }
}

fn of_one(decision: &Decision, announced: Option<Announced>) -> VipAccount {
    let Decision { tenants, pool, outcome, elected, standings, arrival: _ } = decision;
    let withheld = match outcome {
        Ok(_) | Err(Quiet::Elsewhere(_) | Quiet::Nobody(_) | Quiet::Unable(..)) => None,
        Err(quiet) => Some(quiet.to_string()),
    };
    VipAccount {
        services: tenants.keys().cloned().collect(),
        pool: pool.clone(),
        announced,
        elected: elected.clone().map(|Winner { node, reason, interfaces: _ }| Elected { node, reason }),
        withheld,
        standings: standings.clone(),
    }
}

/// Who announces a VIP, and whether it is protected: ourselves, or else who is to, or else anybody who says so.
fn announcer_of(vip: IpAddr, decision: &Decision, books: &Books<'_>) -> Option<(Arc<str>, bool)> {
    if decision.outcome.is_ok() {
        let protected = books.holdings.get(vip).is_some_and(|tenure| tenure.protected_until.is_some());
        return Some((books.node.clone(), protected));
    }
    let elected = decision.elected.as_ref().ok().map(|winner| &winner.node);
    let others = books.field.iter().skip(1).filter(|entrant| entrant.presence != Presence::Absent);
    let holders = others.filter_map(|entrant| Some((&entrant.node.name, entrant.holds(vip)?)));
    let holder = holders.min_by_key(|(name, _)| elected != Some(*name))?;
    Some((holder.0.clone(), holder.1.protected))
}
