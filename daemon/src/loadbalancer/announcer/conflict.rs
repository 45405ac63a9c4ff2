//! Somebody else claims one of our addresses: told at once, and then ever more rarely. Pure: the time is an argument.
//!
//! Nothing is sent in defence. A claim is, most often, another node that has just been elected and is to have the address; a frame
//! against it would bring its clients back to us (RFC 5227, 2.4, leaves the choice). Who the claimant is, who uses this decides.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::netlink::mac::Mac;

/// From one alarm about a claimant to the next, then twice as long each time. At first short: after a partition, who is to yield
/// has to learn that the other one goes on.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A claimant that was silent for so long is a new one.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Claimants of an address that are told apart. A forger has any number of MACs; all beyond are one.
const CLAIMANTS: usize = 4;

/// Somebody's claim to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// Who says to have it.
    pub mac: Mac,
    /// The interface on which it was heard.
    pub interface: CompactString,
}

/// News about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The last one.
    pub claim: Claim,
    /// How often it was heard since the last alarm, this time included.
    pub times: u64,
}

/// The claims to our addresses.
#[derive(Debug, Default)]
pub struct Conflicts {
    addresses: HashMap<IpAddr, SmallVec<[Claimant; 1]>>,
}

#[derive(Clone, Debug)]
struct Claimant {
    mac: Mac,
    heard: Instant,
    quiet_until: Instant,
    pause: Duration,
    times: u64,
}

impl Conflicts {
    /// A claim was heard. Returns an alarm if it is time for one.
    pub fn heard(&mut self, claim: Claim, now: Instant) -> Option<Alarm> {
        let claimants = self.addresses.entry(claim.address).or_default();
        claimants.retain(|claimant| now.saturating_duration_since(claimant.heard) < FORGOTTEN);
        let known = claimants.iter().position(|claimant| claimant.mac == claim.mac);
        let claimant = match known {
            Some(at) => &mut claimants[at],
            None if claimants.len() < CLAIMANTS => {
                claimants.push(Claimant { mac: claim.mac, heard: now, quiet_until: now, pause: PAUSE, times: 0 });
                claimants.last_mut()?
            }
            None => claimants.last_mut()?,
        };
        claimant.heard = now;
        claimant.times += 1;
        if now < claimant.quiet_until {
            return None;
        }
        claimant.quiet_until = now + claimant.pause;
        claimant.pause = (claimant.pause * 2).min(LONGEST_PAUSE);
        Some(Alarm { claim, times: std::mem::take(&mut claimant.times) })
    }

    /// The address is not ours any more.
    pub fn forget(&mut self, address: IpAddr) {
        self.addresses.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(number: u8) -> Claim {
        Claim { address: [10, 0, 0, 240].into(), mac: Mac([2, 0, 0, 0, 0, number]), interface: "eth0".into() }
    }

    #[test]
    fn alarms_about_one_claimant_become_rare_and_count_what_they_leave_out() {
        let start = Instant::now();
        let mut conflicts = Conflicts::default();
        let alarms: Vec<(u64, u64)> = (0..1000)
            .filter_map(|second| Some((second, conflicts.heard(claim(1), start + Duration::from_secs(second))?.times)))
            .collect();
        let (often, rarely) = alarms.split_at(5);
        assert_eq!(often, [(0, 1), (1, 1), (3, 2), (7, 4), (15, 8)]);
        assert_eq!(rarely, [(31, 16), (63, 32), (127, 64), (255, 128), (511, 256), (811, 300)]);
        let later = start + Duration::from_secs(2000);
        assert_eq!(conflicts.heard(claim(1), later).map(|alarm| alarm.times), Some(1), "it was forgotten");
    }

    #[test]
    fn a_second_claimant_is_told_at_once_and_forged_ones_are_bounded() {
        let now = Instant::now();
        let mut conflicts = Conflicts::default();
        assert!(conflicts.heard(claim(1), now).is_some());
        assert_eq!(conflicts.heard(claim(2), now), Some(Alarm { claim: claim(2), times: 1 }));
        let alarms = (0..=255).filter(|number| conflicts.heard(claim(*number), now).is_some()).count();
        assert_eq!(alarms, CLAIMANTS - 2);
        assert_eq!(conflicts.addresses.values().map(SmallVec::len).sum::<usize>(), CLAIMANTS);
        conflicts.forget(claim(1).address);
        assert!(conflicts.addresses.is_empty());
    }
}
