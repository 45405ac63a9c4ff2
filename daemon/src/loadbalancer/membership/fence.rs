//! When to withdraw, when not to take over, and who yields when two announce one VIP.
//!
//! Two members that do not hear each other cannot know whether the other one is gone or cut off. "Better two answers than none" is
//! MetalLB's choice; here are the rules by which there are two for seconds only, while the API is there to ask:
//!
//! | API | members heard, of those last known | what holds | what is taken over |
//! |---|---|---|---|
//! | reachable | half or more | stays | at once |
//! | reachable | fewer | stays | if the other one's Lease was not renewed since it fell silent |
//! | lost | half or more | stays | at once |
//! | lost | fewer | withdrawn | nothing |
//!
//! Half counts as enough, because in a cluster of two each is half, and the one must survive the other. Where both sides reach the API,
//! each sees the other's claim in its Lease ([`Claim::yields_to`]). Where they do not, and share the LAN of the clients, each sees the
//! other's gratuitous ARP ([`yields_on_lan`]). Where they share neither, no client sees both.
//!
//! Pure: the Lease is read and written elsewhere.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::core::Member;
use super::verdict::{Cause, State};

/// API and members must have been lost for this long before a VIP is withdrawn.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever lost members says so in its Lease at once; after this, one that did not has no API or does not live.
pub const CLAIMS_VISIBLE: Duration = Duration::from_secs(2);
/// A node that is gone is missed for so long, if the API is reachable meanwhile: where two of three nodes were switched off last week,
/// the third one must not withdraw at the next hiccup of the API.
pub const MISSED: Duration = Duration::from_secs(60);
/// A Lease is renewed so often at rest: 0.2 writes per second and node, however many VIPs.
pub const RENEWAL: Duration = Duration::from_secs(5);
/// Two writes of a Lease are never closer than this, whatever happens.
pub const LEAST_PAUSE: Duration = Duration::from_millis(500);

/// Whom a node counts.
#[derive(Clone, Debug, Default)]
pub struct Roll {
    /// Gone for longer than [`MISSED`] while the API was there: no members any more until they are heard again.
    forgotten: BTreeSet<Arc<str>>,
    lost_since: Option<Instant>,
}

/// The members as a node last knew them; see [`Roll::count`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Those that live, ourselves among them.
    pub heard: usize,
    /// All that were members, ourselves among them: those that left or whose node was deleted are none any more.
    pub known: usize,
    /// Since when fewer than half are heard; `None` if they are not.
    pub lost_since: Option<Instant>,
}

/// The API server as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// It answers.
    Reachable,
    /// It has not since then: the first request that failed was begun then.
    LostSince(Instant),
}

/// What to do with the VIPs that this node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Hold,
    /// Go on, and ask again then: both are lost, not for long enough yet.
    HoldUntil(Instant),
    /// Answer for none of them: both API and members are lost, and others may have taken over.
    Withdraw,
}

/// Whether a VIP of a member that is gone may be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// Now.
    AtOnce,
    /// Not before it was seen until then that its Lease is not renewed.
    After(Instant),
    /// No: it may well live, and this node is the one that is cut off.
    No,
}

/// What the Lease of another node says, as far as it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseSeen {
    /// When another renewal of it was seen last, on our clock.
    pub renewed: Option<Instant>,
}

/// What a holder writes into its Lease when it lost members or took something over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of its node.
    pub node: Arc<str>,
    /// How many members it hears, itself among them.
    pub heard: usize,
}

/// The Lease of this node: when to write it.
#[derive(Clone, Debug, Default)]
pub struct LeaseClock {
    written: Option<Instant>,
    /// What is in the API is not what should be.
    stale: bool,
}

impl Roll {
    /// Counts the members as they are known now.
    pub fn count<'a>(&mut self, members: impl IntoIterator<Item = &'a Member>, api: Api, now: Instant) -> Quorum {
        let (mut heard, mut known) = (1, 1);
        let mut still = BTreeSet::new();
        for member in members {
            match member.state {
                State::Alive | State::DaemonDown { .. } => {
                    heard += 1;
                    known += 1;
                }
                // Its daemon is gone, its node is not: it takes nothing over, and says nothing against us.
                State::Unheard | State::Leaving | State::Gone { cause: Cause::Left | Cause::DaemonDown(_), .. } => {}
                State::Gone { cause: Cause::NodeGone, since } => {
                    let old = api == Api::Reachable && now >= since + MISSED;
                    if old || self.forgotten.contains(&member.name) {
                        still.insert(member.name.clone());
                    } else {
                        known += 1;
                    }
                }
            }
        }
        self.forgotten = still;
        self.lost_since = (heard * 2 < known).then(|| self.lost_since.unwrap_or(now));
        Quorum { heard, known, lost_since: self.lost_since }
    }
}

/// What becomes of the VIPs that this node holds.
#[must_use]
pub fn verdict(quorum: Quorum, api: Api, now: Instant) -> Verdict {
    let (Some(members_lost), Api::LostSince(api_lost)) = (quorum.lost_since, api) else { return Verdict::Hold };
    let until = members_lost.max(api_lost) + PATIENCE;
    if now >= until { Verdict::Withdraw } else { Verdict::HoldUntil(until) }
}

/// Whether this node may take over from a member that is gone since `silent`.
#[must_use]
pub fn succession(quorum: Quorum, api: Api, silent: Instant, lease: LeaseSeen, now: Instant) -> Succession {
    if quorum.lost_since.is_none() {
        return Succession::AtOnce;
    }
    let visible = silent + CLAIMS_VISIBLE;
    match api {
        Api::LostSince(_) => Succession::No,
        Api::Reachable if lease.renewed.is_some_and(|renewed| renewed > silent) => Succession::No,
        Api::Reachable if now >= visible => Succession::AtOnce,
        Api::Reachable => Succession::After(visible),
    }
}

/// A member that we do not hear claims a VIP of ours on the LAN, so it lives: its hardware address is known from
/// [`super::NetworkInterface::hardware`]. Who hears fewer than half gives way; of two halves, the one with the greater name. Both
/// sides come to the same, whichever of them reaches the API.
///
/// What was given up so is not taken over again before the rival is heard, or more members are.
///
/// A member that we hear is no matter of this (the election settles it), and neither is a host that is no member: that is an alarm.
#[must_use]
pub fn yields_on_lan(quorum: Quorum, own: &str, rival: &str) -> bool {
    match (quorum.heard * 2).cmp(&quorum.known) {
        Ordering::Less => true,
        Ordering::Equal => own > rival,
        Ordering::Greater => false,
    }
}

impl Claim {
    /// Whether this one gives way: to who hears more members, of equals to the lesser name. Both sides come to the same.
    #[must_use]
    pub fn yields_to(&self, rival: &Self) -> bool {
        (Reverse(self.heard), &self.node) > (Reverse(rival.heard), &rival.node)
    }
}

impl LeaseClock {
    /// What it has to say is other than what it says: VIPs were taken or given up, members were lost or came back.
    pub fn changed(&mut self) {
        self.stale = true;
    }

    /// It was written.
    pub fn written(&mut self, now: Instant) {
        self.written = Some(now);
        self.stale = false;
    }

    /// When it has to be written next; `None` for a node that holds nothing and said nothing.
    #[must_use]
    pub fn due(&self, holds_any: bool, now: Instant) -> Option<Instant> {
        let earliest = self.written.map_or(now, |written| written + LEAST_PAUSE);
        match (holds_any, self.stale) {
            (true, false) => Some(self.written.map_or(now, |written| written + RENEWAL)),
            // Having given up the last one is said once.
            (true, true) => Some(earliest),
            (false, true) => self.written.map(|_| earliest),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests;
