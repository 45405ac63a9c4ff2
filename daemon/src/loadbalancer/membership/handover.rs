//! Make before break: a daemon that ends, or gives a VIP away, goes on answering until its successor has announced.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::core::Member;
use super::verdict::State;

/// The VIPs that this node answers for until others do.
#[derive(Clone, Debug)]
pub struct HandOver {
    waiting: BTreeSet<IpAddr>,
    deadline: Instant,
}

impl HandOver {
    /// Of these VIPs, and for this long at the most: nobody else may be able to announce them.
    #[must_use]
    pub fn new(vips: impl IntoIterator<Item = IpAddr>, now: Instant, bound: Duration) -> Self {
        Self { waiting: vips.into_iter().collect(), deadline: now + bound }
    }

    /// What the members say. Gives the VIPs that another living member announces now: these need no answer of ours any more.
    pub fn observe<'a>(&mut self, members: impl IntoIterator<Item = &'a Member>) -> Vec<IpAddr> {
        let alive = members.into_iter().filter(|member| member.state == State::Alive);
        let held: BTreeSet<IpAddr> =
            alive.flat_map(|member| &member.facts).flat_map(|facts| &facts.holds).map(|hold| hold.vip).collect();
        let (taken, waiting) = self.waiting.iter().partition(|vip| held.contains(*vip));
        self.waiting = waiting;
        let taken: BTreeSet<IpAddr> = taken;
        taken.into_iter().collect()
    }

    /// Whether there is nothing to wait for any more.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.waiting.is_empty() || now >= self.deadline
    }

    /// When it is over at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Those that nobody has taken so far.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.waiting.iter().copied()
    }
}
