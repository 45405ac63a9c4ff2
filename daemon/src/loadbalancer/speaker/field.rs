//! Everybody who may announce, as an election asks for them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::loadbalancer::election::{Candidate, Holding, Presence};
use crate::loadbalancer::membership::fence::Succession;
use crate::loadbalancer::membership::{Facts, Hold, Member, NetworkInterface, State};
use crate::model::Labels;
use crate::model::load_balancer::PeerNode;

/// One who may announce.
#[derive(Clone, Debug)]
pub(super) struct Entrant {
    pub(super) node: Arc<PeerNode>,
    /// What is known of it; `None`: it is ourselves.
    pub(super) state: Option<State>,
    pub(super) presence: Presence,
    /// What it tells; `None`: nothing so far.
    pub(super) facts: Option<Arc<Facts>>,
    /// What it says, or said, that it announces.
    holds: HashMap<IpAddr, Holding>,
    /// Whether what it held may be taken over.
    pub(super) succession: Succession,
}

impl Entrant {
    /// Ourselves.
    pub(super) fn own(node: Arc<PeerNode>, presence: Presence, facts: Facts) -> Self {
        let holds = held(&facts);
        Self { node, state: None, presence, facts: Some(facts.into()), holds, succession: Succession::AtOnce }
    }

    /// Another one.
    pub(super) fn other(node: Arc<PeerNode>, member: &Member, succession: Succession) -> Self {
        let Member { name: _, state, facts } = member;
        let holds = facts.as_deref().map(held).unwrap_or_default();
        Self { node, state: Some(*state), presence: (*state).into(), facts: facts.clone(), holds, succession }
    }

    /// One of whom nothing was heard.
    pub(super) fn unheard(node: Arc<PeerNode>) -> Self {
        Self {
            node,
            state: Some(State::Unheard),
            presence: Presence::Absent,
            facts: None,
            holds: HashMap::new(),
            succession: Succession::AtOnce,
        }
    }

    pub(super) fn holds(&self, vip: IpAddr) -> Option<Holding> {
        self.holds.get(&vip).copied()
    }

    pub(super) fn is_present(&self) -> bool {
        self.presence == Presence::Present
    }

    /// For the election of one VIP.
    pub(super) fn candidate(&self, vip: IpAddr) -> Candidate<'_> {
        let interfaces: Option<&[NetworkInterface]> = self.facts.as_ref().map(|facts| &*facts.interfaces);
        Candidate { node: &self.node, presence: self.presence, interfaces, holds: self.holds(vip) }
    }
}

fn held(facts: &Facts) -> HashMap<IpAddr, Holding> {
    facts.holds.iter().map(|&Hold { vip, protected }| (vip, Holding { protected })).collect()
}

/// Everybody of the roster, ourselves among them.
pub(super) fn entrants(
    own: Entrant,
    nodes: &BTreeMap<Arc<str>, Arc<PeerNode>>,
    members: &[Member],
    succession: impl Fn(&Member) -> Succession,
) -> Vec<Entrant> {
    let known: HashMap<&str, &Member> = members.iter().map(|member| (&*member.name, member)).collect();
    let others = nodes.values().filter(|node| node.name != own.node.name).map(|node| match known.get(&*node.name) {
        Some(member) => Entrant::other(node.clone(), member, succession(member)),
        None => Entrant::unheard(node.clone()),
    });
    let others: Vec<_> = others.collect();
    std::iter::once(own).chain(others).collect()
}

/// Of a node that no object tells of, nothing is known but its name.
pub(super) fn nameless(name: &Arc<str>) -> Arc<PeerNode> {
    let labels = Labels::default();
    Arc::new(PeerNode { name: name.clone(), labels, addresses: Vec::new(), network_unavailable: false, unschedulable: false })
}
