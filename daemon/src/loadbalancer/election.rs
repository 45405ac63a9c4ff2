//! Who announces a VIP.
//!
//! Every node computes this for itself and comes to the same answer: MetalLB's order ([`rank_digest`], byte for byte, so that a swap
//! of the two moves no MAC), over the candidates that may announce. It is held **per IP**, over all Services that share it: MetalLB
//! elects per Service by its first address, and two Services that share one can elect two nodes for it.
//!
//! Pure: no clock, no IO. A [`Candidate`] that is not elected has the reason with it, which `sheave explain` prints.

mod eligibility;
mod order;
mod tenure;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

use super::membership::{NetworkInterface, State};
use crate::model::load_balancer::{Advertisement, PeerNode};
use crate::model::{Labels, ServiceKey};

pub use crate::model::load_balancer::Hosting;
pub use eligibility::Exclusion;
pub use order::{rank_digest, score};
pub use tenure::{Arrival, PROTECTION, Tenure, Tenures};

/// All that decides who announces one VIP.
#[derive(Clone, Debug)]
pub struct Contest<'a> {
    /// The VIP.
    pub vip: IpAddr,
    /// The advertisements that select its pool, without [`Advertisement::problems`].
    pub advertisements: &'a [&'a Advertisement],
    /// The Services that have it, at least one.
    pub tenants: &'a [Tenant<'a>],
    /// Every node that may be an announcer, alive or not. No name twice.
    pub candidates: &'a [Candidate<'a>],
    /// What the cluster's administrator chose.
    pub options: Options,
}

/// What is left to choice. The default is MetalLB's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nodes with the label [`crate::model::load_balancer::EXCLUDE_LABEL`] take part all the same (`--ignore-exclude-lb`).
    pub ignore_exclude_label: bool,
    /// A cordoned node announces nothing: its VIPs move before its pods do. Off: MetalLB 0.14.9 did so, which moved VIPs under people
    /// who cordoned for other reasons (its issue 2715).
    pub move_from_unschedulable: bool,
}

/// A Service that has the VIP.
#[derive(Clone, Copy, Debug)]
pub struct Tenant<'a> {
    /// Namespace and name.
    pub service: &'a ServiceKey,
    /// Its labels: advertisements select by them.
    pub labels: &'a Labels,
    /// `externalTrafficPolicy: Local`: only a node with an endpoint of its own can serve it.
    pub local: bool,
    /// Where its usable endpoints are.
    pub hosting: &'a Hosting,
}

/// A node that may announce.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The Node object.
    pub node: &'a PeerNode,
    /// What the members know of its daemon.
    pub presence: Presence,
    /// Where it could announce; `None` until it has told.
    pub interfaces: Option<&'a [NetworkInterface]>,
    /// Whether it says that it announces this VIP now.
    pub holds: Option<Holding>,
}

/// Whether the daemon of a node can announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It can.
    Present,
    /// Its kernel forwards but its daemon does not answer, for less than `daemonRestartGrace`: it keeps what it has and gets nothing.
    Grace,
    /// It is handing over.
    Leaving,
    /// It is gone, or was never seen.
    Absent,
    /// It can, but the API server has no Node of its name: no other announcer counts on it, or hears it.
    Unlisted,
}

/// What the present holder of a VIP says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// It came here because its holder failed or restarted, less than [`PROTECTION`] ago: it stays. The holder alone ends this, so
    /// no two clocks have to agree.
    pub protected: bool,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Who announces, or why nobody does.
    pub winner: Result<Winner, Silence>,
    /// Of every candidate how it fared, the eligible ones first and in their order.
    pub standings: Vec<Standing>,
}

/// Who announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Winner {
    /// Name of the node.
    pub node: Arc<str>,
    /// On what.
    pub interfaces: Interfaces,
    /// Why this one.
    pub reason: Reason,
}

/// Why the winner won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The first in the order.
    First,
    /// It holds the VIP, which moved less than [`PROTECTION`] ago; another one would be first.
    Protected,
}

/// The interfaces on which the winner announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// Every one that can.
    All,
    /// These, by name, sorted: all that the advertisements which select the node name.
    Only(Vec<CompactString>),
}

/// How one node fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Name of the node.
    pub node: Arc<str>,
    /// Its rank among the eligible ones, from 0, or why it is none.
    pub rank: Result<usize, Exclusion>,
}

/// Why nobody announces a VIP. Each is an Event with a next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Silence {
    /// MetalLB's rule: a VIP that nobody could answer for is not announced.
    #[error("none of its Services has a ready endpoint")]
    NoEndpoints,
    /// The commonest reason why MetalLB "does not work".
    #[error("no L2Advertisement selects its pool and Service")]
    NoAdvertisement,
    /// Every node has a reason of its own.
    #[error("no node can announce it")]
    NoEligibleNode,
}

/// Holds the election.
#[must_use]
pub fn elect(contest: &Contest<'_>) -> Outcome {
    let (field, silence) = eligibility::judge(contest);
    let advertisements = eligibility::in_force(contest);
    let mut eligible: Vec<_> = field.iter().filter(|entry| entry.verdict.is_ok()).map(|entry| entry.candidate).collect();
    eligible.sort_by_cached_key(|candidate| {
        let score = score(&advertisements, &candidate.node.labels);
        (std::cmp::Reverse(score), rank_digest(&candidate.node.name, contest.vip))
    });
    let kept = eligible.iter().find(|candidate| candidate.holds.is_some_and(|holding| holding.protected));
    let winner = match (kept.or(eligible.first()), eligible.first()) {
        (Some(chosen), Some(first)) => Ok(Winner {
            node: chosen.node.name.clone(),
            interfaces: eligibility::interfaces(&advertisements, &chosen.node.labels),
            reason: if chosen.node.name == first.node.name { Reason::First } else { Reason::Protected },
        }),
        _ => Err(silence.unwrap_or(Silence::NoEligibleNode)),
    };
    let ranked =
        eligible.iter().enumerate().map(|(rank, candidate)| Standing { node: candidate.node.name.clone(), rank: Ok(rank) });
    let excluded = field.iter().filter_map(|entry| {
        let exclusion = entry.verdict.clone().err()?;
        Some(Standing { node: entry.candidate.node.name.clone(), rank: Err(exclusion) })
    });
    let standings = ranked.chain(excluded).collect();
    Outcome { winner, standings }
}

impl From<State> for Presence {
    fn from(state: State) -> Self {
        match state {
            State::Alive => Self::Present,
            State::DaemonDown { .. } => Self::Grace,
            State::Leaving => Self::Leaving,
            State::Unheard | State::Gone { .. } => Self::Absent,
        }
    }
}

impl Outcome {
    /// Whether this node announces it.
    #[must_use]
    pub fn is_won_by(&self, node: &str) -> bool {
        self.winner.as_ref().is_ok_and(|winner| &*winner.node == node)
    }
}
