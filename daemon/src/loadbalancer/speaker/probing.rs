//! Whether a VIP that nobody is known to hold is free: the LAN is asked before the first announcement, and again while another host
//! answers. Pure: the time is an argument.
//!
//! A VIP that a member held or holds is not asked for: a fail-over must not wait, and who answers is that member. The controller cannot
//! ask in our place, since it is on the network of pods; beside a directory of manifests it can, and does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::decide::{Decisions, Quiet};
use crate::loadbalancer::announcer::conflict::Claim;
use crate::retry::Retry;

/// Nobody's answer counts for so long: by then it is announced, or not to be.
const FREE_FOR: Duration = Duration::from_secs(10);
/// Pauses between two questions for an address that another host has.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(60);

/// What is known of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Probed {
    /// Nobody answered for it.
    Free,
    /// It has to be asked for.
    Unknown,
    /// Another host has it.
    Taken(Claim),
}

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Probing {
    free: BTreeMap<IpAddr, Instant>,
    taken: BTreeMap<IpAddr, Taken>,
}

#[derive(Debug)]
struct Taken {
    claim: Claim,
    again: Instant,
    retry: Retry,
}

impl Probing {
    /// What is known of it now.
    fn of(&self, address: IpAddr, now: Instant) -> Probed {
        match self.taken.get(&address) {
            Some(Taken { claim, .. }) => Probed::Taken(claim.clone()),
            None if self.free.get(&address).is_some_and(|until| now < *until) => Probed::Free,
            None => Probed::Unknown,
        }
    }

    /// Keeps back what is not known to be free, of all that is to be announced here. What is held by us or by others is not looked at.
    /// Returns what is kept back.
    pub(super) fn keep_back(&self, decisions: &mut Decisions, is_held: impl Fn(IpAddr) -> bool, now: Instant) -> Vec<IpAddr> {
        let mut kept = Vec::new();
        for (&vip, decision) in decisions.iter_mut().filter(|(vip, decision)| decision.outcome.is_ok() && !is_held(**vip)) {
            decision.outcome = match self.of(vip, now) {
                Probed::Free => continue,
                Probed::Unknown => Err(Quiet::Unprobed),
                Probed::Taken(claim) => Err(Quiet::Occupied(claim)),
            };
            kept.push(vip);
        }
        kept
    }

    /// Those that are to be asked for now, of all that would be announced here if they were free.
    pub(super) fn due(&mut self, wanted: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        self.free.retain(|_, until| now < *until);
        self.taken.retain(|address, _| wanted.contains(address));
        let is_due = |address: &IpAddr| match self.taken.get(address) {
            Some(taken) => taken.again <= now,
            None => !self.free.contains_key(address),
        };
        wanted.iter().copied().filter(is_due).collect()
    }

    /// These were asked for, and those claimed.
    pub(super) fn heard(&mut self, asked: &[IpAddr], claims: &[Claim], now: Instant) {
        for &address in asked {
            let known = self.taken.remove(&address);
            match claims.iter().find(|claim| claim.address == address) {
                Some(claim) => {
                    let mut retry = known.map_or_else(|| Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST), |known| known.retry);
                    self.taken.insert(address, Taken { claim: claim.clone(), again: now + retry.next(), retry });
                }
                None => drop(self.free.insert(address, now + FREE_FOR)),
            }
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.taken.values().map(|taken| taken.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::mac::Mac;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 241));

    fn claim(last: u8) -> Claim {
        Claim { address: VIP, mac: Mac([2, 0, 0, 0, 0, last]), interface: "eth0".into() }
    }

    #[test]
    fn it_is_asked_for_until_nobody_answers_and_ever_more_rarely() {
        let mut now = Instant::now();
        let mut probing = Probing::default();
        assert_eq!(probing.of(VIP, now), Probed::Unknown);
        assert_eq!(probing.due(&[VIP, OTHER], now), [VIP, OTHER]);
        probing.heard(&[VIP, OTHER], &[claim(9)], now);
        assert_eq!((probing.of(VIP, now), probing.of(OTHER, now)), (Probed::Taken(claim(9)), Probed::Free));
        assert_eq!(probing.due(&[VIP, OTHER], now), [] as [IpAddr; 0]);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let next = probing.next().unwrap();
            pauses.push(next - now);
            now = next;
            assert_eq!(probing.due(&[VIP], now), [VIP]);
            probing.heard(&[VIP], &[claim(8)], now);
        }
        assert!(pauses[0] <= AGAIN_AFTER && pauses[9] >= AGAIN_AT_LATEST / 2, "{pauses:?}");
        assert_eq!(probing.of(VIP, now), Probed::Taken(claim(8)));
        probing.heard(&[VIP], &[], now);
        assert_eq!((probing.of(VIP, now), probing.next()), (Probed::Free, None));
        assert_eq!(probing.of(VIP, now + FREE_FOR), Probed::Unknown, "it was long ago");
    }

    #[test]
    fn what_is_not_to_be_announced_is_not_asked_for() {
        let now = Instant::now();
        let mut probing = Probing::default();
        probing.heard(&[VIP], &[claim(9)], now);
        assert_eq!(probing.due(&[], now + AGAIN_AT_LATEST), [] as [IpAddr; 0]);
        assert_eq!((probing.of(VIP, now), probing.next()), (Probed::Unknown, None));
    }
}
