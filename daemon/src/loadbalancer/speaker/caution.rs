//! What members that are not heard, a lost API and rivals mean for our VIPs. Keeps what [`fence`] needs to remember; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rivals::Leases;
use crate::loadbalancer::election::rank_digest;
use crate::loadbalancer::membership::fence::{self, Api, Claim, LeaseSeen, Quorum, Roll, Succession, Verdict};
use crate::loadbalancer::membership::{Cause, Member, State, View};
use crate::netlink::mac::Mac;

/// A Lease that is needed and was not looked at yet is asked for again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// For so long two members that hear each other may announce one VIP: one of them has not heard the news yet. See
/// [`Caution::disputed`].
const STAGE: Duration = Duration::from_secs(1);
/// Who was alone and hears the first ones again waits for so long before it takes over from those that it does not hear yet: they call
/// the roll once a second, each at its own time.
const ROLL_CALL: Duration = Duration::from_millis(1500);

/// Whether this node may announce at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// What it wins.
    Free,
    /// Nothing: API and members are lost, and others may have taken over.
    Withdrawn,
    /// Nothing: this one, which is not heard, lives and hears more members, or as many and goes first by its name.
    Yielding(Arc<str>),
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct Caution {
    own: Arc<str>,
    roll: Roll,
    quorum: Quorum,
    /// When enough members were heard again, after fewer than half.
    rejoined: Option<Instant>,
    /// VIPs that were given up to somebody who has them.
    ceded: BTreeMap<IpAddr, Ceded>,
    /// VIPs that another member says to announce, too, and since when we know.
    disputes: BTreeMap<IpAddr, (Arc<str>, Instant)>,
}

/// A VIP that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ceded {
    to: Arc<str>,
    /// How many members were heard then. With more it is decided anew.
    heard: usize,
    /// It was heard by what it says, not by its frames on the LAN alone.
    member: bool,
}

/// Who claims a VIP of ours on the LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claimant {
    /// A host that is no member.
    Stranger,
    /// A member that is heard: the election settles it.
    Heard(Arc<str>),
    /// A member that is not heard, to which the VIP was given up.
    Yielded(Arc<str>),
    /// A member that is not heard, and has to give way: it has to hear of us on the LAN, as there is no other way.
    Defied(Arc<str>),
}

impl Caution {
    pub(super) fn new(own: Arc<str>) -> Self {
        let quorum = Quorum { heard: 1, known: 1, lost_since: None };
        Self { own, roll: Roll::default(), quorum, rejoined: None, ceded: BTreeMap::new(), disputes: BTreeMap::new() }
    }

    /// Takes in how things stand; with it, when to ask again at the latest.
    pub(super) fn weigh(&mut self, view: &View, api: Api, leases: &Leases, now: Instant) -> (Bearing, Option<Instant>) {
        let members = &*view.members;
        let was_alone = self.quorum.lost_since.is_some();
        self.quorum = self.roll.count(members, api, now);
        if was_alone && self.quorum.lost_since.is_none() {
            self.rejoined = Some(now);
        }
        let Quorum { heard, .. } = self.quorum;
        self.ceded.retain(|vip, ceded| {
            let rival = members.iter().find(|member| member.name == ceded.to);
            match (rival.map(|rival| rival.state), ceded.member) {
                (Some(State::Alive), false) | (None, _) => false,
                (Some(State::Alive), true) => rival.is_some_and(|rival| holds(rival, *vip)),
                (Some(_), true) => false,
                (Some(_), false) => heard <= ceded.heard,
            }
        });
        match fence::verdict(self.quorum, api, now) {
            Verdict::Withdraw => return (Bearing::Withdrawn, None),
            Verdict::HoldUntil(at) => return (Bearing::Free, Some(at)),
            Verdict::Hold => {}
        }
        let claim = self.claim();
        let rival = unheard(view).find(|member| {
            let lives = leases.get(&member.name).filter(|lease| renewed_since(lease.seen, member.state));
            lives.and_then(|lease| lease.claim.as_ref()).is_some_and(|rival| claim.yields_to(rival))
        });
        (rival.map_or(Bearing::Free, |rival| Bearing::Yielding(rival.name.clone())), None)
    }

    /// How many are heard.
    pub(super) fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// What our Lease says.
    pub(super) fn claim(&self) -> Claim {
        Claim { node: self.own.clone(), heard: self.quorum.heard }
    }

    /// Whose Leases have to be known.
    pub(super) fn suspects(view: &View) -> BTreeSet<Arc<str>> {
        unheard(view).map(|member| member.name.clone()).collect()
    }

    /// Whether a VIP may be taken over from a member that says, or said, that it holds it.
    pub(super) fn succession(&self, member: &Member, api: Api, leases: &Leases, now: Instant) -> Succession {
        let State::Gone { cause: Cause::NodeGone, since } = member.state else { return Succession::AtOnce };
        let lease = leases.get(&member.name);
        let roll_called = self.rejoined.map(|rejoined| rejoined + ROLL_CALL).filter(|called| now < *called);
        match fence::succession(self.quorum, api, since, lease.map(|lease| lease.seen).unwrap_or_default(), now) {
            Succession::AtOnce if let Some(called) = roll_called => Succession::After(called),
            // Nobody has looked yet.
            Succession::AtOnce if self.quorum.lost_since.is_some() && lease.is_none() => Succession::After(now + LOOK_AGAIN),
            other => other,
        }
    }

    /// Whether a VIP that nobody is known to hold may be taken: not before it is known of those who were never heard whether they live.
    /// Where the membership's port is blocked, they do. And who hears fewer than half takes nothing that any of the others may have taken
    /// over since.
    pub(super) fn first_taking(&self, members: &[Member], api: Api, leases: &Leases, now: Instant) -> Succession {
        let unknown = members.iter().any(|member| member.state == State::Unheard && !leases.contains_key(&member.name));
        if unknown && api == Api::Reachable {
            return Succession::After(now + LOOK_AGAIN);
        }
        members.iter().map(|member| self.succession(member, api, leases, now)).fold(Succession::AtOnce, stricter)
    }

    /// Somebody claims a VIP of ours on the LAN. A member that is heard is no matter of this, but of the election.
    pub(super) fn claimed(&mut self, vip: IpAddr, mac: Mac, members: &[Member]) -> Claimant {
        let has =
            |member: &Member| member.facts.iter().flat_map(|facts| &facts.interfaces).any(|own| own.hardware == Some(mac.0));
        let Some(member) = members.iter().find(|member| has(member)) else { return Claimant::Stranger };
        let heard = matches!(member.state, State::Alive | State::DaemonDown { .. } | State::Leaving);
        let name = member.name.clone();
        if heard {
            return Claimant::Heard(name);
        }
        if !fence::yields_on_lan(self.quorum, &self.own, &name) {
            return Claimant::Defied(name);
        }
        self.ceded.insert(vip, Ceded { to: name.clone(), heard: self.quorum.heard, member: false });
        Claimant::Yielded(name)
    }

    /// Whether a member with this hardware address is heard.
    pub(super) fn is_heard(mac: Mac, members: &[Member]) -> bool {
        let heard = |member: &&Member| matches!(member.state, State::Alive | State::DaemonDown { .. } | State::Leaving);
        let mut interfaces =
            members.iter().filter(heard).flat_map(|member| member.facts.iter().flat_map(|facts| &facts.interfaces));
        interfaces.any(|own| own.hardware == Some(mac.0))
    }

    /// Notes which of our VIPs a member that we hear says to announce as well, although by what we know it is ours.
    ///
    /// For a moment that is how a VIP moves. If it lasts, the two know different things of the API, most often because one of them has
    /// lost it. So who has lost it gives way first, then who comes later in the order of nodes; each stage a second after the one
    /// before, and each only while the other goes on, so one of them stays whatever the two know of each other.
    pub(super) fn disputed(
        &mut self,
        ours: impl Fn(IpAddr) -> bool,
        members: &[Member],
        api: Api,
        now: Instant,
    ) -> Option<Instant> {
        let mut known = std::mem::take(&mut self.disputes);
        let mut next = None;
        for member in members.iter().filter(|member| member.state == State::Alive) {
            for hold in member.facts.iter().flat_map(|facts| &facts.holds).filter(|hold| ours(hold.vip)) {
                let since = known.remove(&hold.vip).filter(|(rival, _)| *rival == member.name).map_or(now, |(_, since)| since);
                let later = rank_digest(&self.own, hold.vip) > rank_digest(&member.name, hold.vip);
                let stages = match (api, later) {
                    (Api::LostSince(_), true) => 2,
                    (Api::LostSince(_), false) => 3,
                    (Api::Reachable, true) => 4,
                    (Api::Reachable, false) => continue,
                };
                let until = since + STAGE * stages;
                if now >= until {
                    let ceded = Ceded { to: member.name.clone(), heard: self.quorum.heard, member: true };
                    self.ceded.insert(hold.vip, ceded);
                } else {
                    next = next.into_iter().chain([until]).min();
                    self.disputes.insert(hold.vip, (member.name.clone(), since));
                }
            }
        }
        next
    }

    /// Another member says to announce one of ours.
    pub(super) fn has_disputes(&self) -> bool {
        !self.disputes.is_empty()
    }

    /// Who has a VIP that was given up to it.
    pub(super) fn ceded(&self, vip: IpAddr) -> Option<&Arc<str>> {
        self.ceded.get(&vip).map(|ceded| &ceded.to)
    }
}

/// Those that may live all the same. Before all had the time to be heard, nobody is one for that alone.
fn unheard(view: &View) -> impl Iterator<Item = &Member> {
    view.members.iter().filter(|member| match member.state {
        State::Unheard => view.settled,
        state => matches!(state, State::Gone { cause: Cause::NodeGone, .. }),
    })
}

/// Since it fell silent.
fn renewed_since(lease: LeaseSeen, state: State) -> bool {
    match (lease.renewed, state) {
        (Some(renewed), State::Gone { since, .. }) => renewed > since,
        (renewed, _) => renewed.is_some(),
    }
}

fn stricter(one: Succession, other: Succession) -> Succession {
    match (one, other) {
        (Succession::No, _) | (_, Succession::No) => Succession::No,
        (Succession::After(one), Succession::After(other)) => Succession::After(one.max(other)),
        (Succession::After(at), Succession::AtOnce) | (Succession::AtOnce, Succession::After(at)) => Succession::After(at),
        (Succession::AtOnce, Succession::AtOnce) => Succession::AtOnce,
    }
}

fn holds(member: &Member, vip: IpAddr) -> bool {
    member.facts.as_ref().is_some_and(|facts| facts.hold(vip).is_some())
}

#[cfg(test)]
mod tests;
