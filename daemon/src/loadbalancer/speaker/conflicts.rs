//! Who else claims a VIP that this node announces, for as long as that is true. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::loadbalancer::announcer::conflict::{Alarm, Claim};
use crate::netlink::mac::Mac;

/// Alarms about one claimant are at most 300 s apart; after twice that it has fallen silent.
const OVER: Duration = Duration::from_secs(600);

/// Of two that do not hear each other any more, one finds that first. It takes over, and its word may be here before the other finds so, too.
const ABOUT_TO_FALL_SILENT: Duration = Duration::from_secs(1);

/// The last claim to each VIP, and when it was heard.
#[derive(Debug, Default)]
pub(super) struct Conflicts(BTreeMap<IpAddr, (Claim, Instant)>);

impl Conflicts {
    pub(super) fn heard(&mut self, claim: Claim, now: Instant) {
        self.0.insert(claim.address, (claim, now));
    }

    /// Forgets those of VIPs that are not announced here any more, and those that are over.
    pub(super) fn retain(&mut self, is_announced: impl Fn(IpAddr) -> bool, now: Instant) {
        self.0.retain(|address, (_, heard)| is_announced(*address) && now < *heard + OVER);
    }

    /// When the next one is over, unless it is heard again.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|(_, heard)| *heard + OVER).min()
    }

    /// What is wrong, for `/healthz`.
    pub(super) fn problem(&self) -> Option<String> {
        let each = self.0.values().map(|(Claim { address, mac, interface }, _)| {
            format!("{address} is claimed by another host as well, {mac} on {interface}")
        });
        let all: Vec<String> = each.collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Claims by members that were heard when they came. Such a claim is settled between the two; but if the member is found to be gone in the
/// next moment, it was the first sign of that, and the next one may be long in coming.
#[derive(Debug, Default)]
pub(super) struct OfMembers(BTreeMap<(IpAddr, Mac), (Alarm, Instant)>);

impl OfMembers {
    pub(super) fn heard(&mut self, alarm: Alarm, now: Instant) {
        self.0.insert((alarm.claim.address, alarm.claim.mac), (alarm, now));
    }

    /// Those that are to be looked at again: by members that are not heard any more.
    pub(super) fn overtaken(&mut self, is_heard: impl Fn(Mac) -> bool, now: Instant) -> Vec<Alarm> {
        self.0.retain(|_, (_, heard)| now < *heard + ABOUT_TO_FALL_SILENT);
        let overtaken = self.0.extract_if(.., |(_, mac), _| !is_heard(*mac));
        overtaken.map(|(_, (alarm, _))| alarm).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_claimed_just_before_it_fell_silent_is_looked_at_again_once() {
        let start = Instant::now();
        let alarm = |last: u8| {
            let claim = Claim { address: [10, 0, 0, last].into(), mac: Mac([2, 0, 0, 0, 0, last]), interface: "eth0".into() };
            Alarm { claim, times: 1 }
        };
        let mut claims = OfMembers::default();
        claims.heard(alarm(1), start);
        claims.heard(alarm(2), start);
        assert_eq!(claims.overtaken(|_| true, start), []);
        let soon = start + Duration::from_millis(4);
        assert_eq!(claims.overtaken(|mac| mac != alarm(1).claim.mac, soon), [alarm(1)]);
        assert_eq!(claims.overtaken(|mac| mac != alarm(1).claim.mac, soon), []);
        assert_eq!(claims.overtaken(|_| false, start + ABOUT_TO_FALL_SILENT), [], "that was another time");
    }

    #[test]
    fn a_claim_is_a_problem_until_it_is_over_or_the_vip_is_not_ours() {
        let start = Instant::now();
        let claim = |last: u8| Claim { address: [10, 0, 0, last].into(), mac: Mac([2, 0, 0, 0, 0, 9]), interface: "eth0".into() };
        let mut conflicts = Conflicts::default();
        assert_eq!(conflicts.problem(), None);
        conflicts.heard(claim(1), start);
        conflicts.heard(claim(2), start + OVER / 2);
        let text = conflicts.problem().expect("two");
        assert!(text.starts_with("10.0.0.1 is claimed by another host as well, 02:00:00:00:00:09 on eth0; 10.0.0.2"), "{text}");
        assert_eq!(conflicts.next_end(), Some(start + OVER));
        conflicts.retain(|_| true, start + OVER);
        assert!(conflicts.problem().is_some_and(|text| text.starts_with("10.0.0.2")));
        conflicts.retain(|address| address != claim(2).address, start + OVER);
        assert_eq!((conflicts.problem(), conflicts.next_end()), (None, None));
    }
}
