//! Which addresses have to be asked for on the LAN before they are given to a Service, and what was heard of them. Pure: the time is an
//! argument.
//!
//! What a status says is not asked for: it was given out before, and somebody announces it. Who answered is asked for again after a
//! while, for as long as a pool has the address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::loadbalancer::announcer::Prober;
use crate::loadbalancer::announcer::conflict::Claim;
use crate::netlink::mac::Mac;

/// An address that nobody answered for counts as free for so long: a write may fail, and be tried again.
const FREE_FOR: Duration = Duration::from_secs(30);
/// An address that somebody has is asked for again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Who answers for so many addresses is a proxy (RFC 1027) that answers for all: it says nothing about who has them.
const PROXY: usize = 256;
/// Addresses that other hosts have, as far as that is remembered. A forger has any number of MACs.
const MOST: usize = 4096;

/// What is known of addresses by asking.
#[derive(Debug, Default)]
pub(super) struct Vetting {
    /// Until when each counts as free.
    free: BTreeMap<IpAddr, Instant>,
    taken: BTreeMap<IpAddr, Taken>,
    proxies: BTreeSet<Mac>,
    /// Nobody could be asked, and it was said.
    told_deaf: bool,
}

#[derive(Debug)]
struct Taken {
    by: Mac,
    look_again: Instant,
}

/// The address is another host's, or (`None`) no longer.
pub(super) type Occupancy = (IpAddr, Option<Mac>);

/// What was asked for, and who has it; or why nobody could be asked.
pub(super) type Answer = (Vec<IpAddr>, Result<Vec<Claim>, String>);

impl Vetting {
    /// Those of the addresses that have to be asked for before they are given out.
    pub(super) fn unknown<'a>(
        &'a self,
        addresses: impl Iterator<Item = IpAddr> + 'a,
        now: Instant,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        addresses.filter(move |ip| self.free.get(ip).is_none_or(|until| *until <= now))
    }

    /// Asks for addresses. Who cannot ask takes them for free, as MetalLB does, and says so once.
    pub(super) async fn ask(prober: Prober, addresses: Vec<IpAddr>) -> Answer {
        let heard = prober.ask(addresses.clone()).await.map_err(|error| error.to_string());
        (addresses, heard)
    }

    /// What was heard when these were asked for; what has changed by it.
    pub(super) fn heard(&mut self, asked: &[IpAddr], heard: Result<Vec<Claim>, String>, now: Instant) -> Vec<Occupancy> {
        let claims = match heard {
            Ok(claims) => {
                self.told_deaf = false;
                claims
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told_deaf, true) {
                    tracing::warn!("addresses are given out without asking the LAN whether another host has them: {error}");
                }
                Vec::new()
            }
        };
        let mut claimed: BTreeMap<IpAddr, Claim> = BTreeMap::new();
        for claim in claims.into_iter().filter(|claim| !self.proxies.contains(&claim.mac)) {
            claimed.entry(claim.address).or_insert(claim);
        }
        self.free.retain(|_, until| *until > now);
        let mut changed = Vec::new();
        for &ip in asked {
            let is_known = self.taken.contains_key(&ip);
            match claimed.remove(&ip).filter(|_| is_known || self.taken.len() < MOST) {
                Some(Claim { mac, interface, .. }) => {
                    if self.taken.get(&ip).is_none_or(|taken| taken.by != mac) {
                        tracing::warn!("{ip} is not given to a Service: another host has it, {mac} on {interface}");
                        changed.push((ip, Some(mac)));
                    }
                    self.taken.insert(ip, Taken { by: mac, look_again: now + LOOK_AGAIN });
                    changed.extend(self.look_through(mac));
                }
                None => {
                    self.free.insert(ip, now + FREE_FOR);
                    if self.taken.remove(&ip).is_some() {
                        tracing::info!("{ip} can be given to a Service: no other host has it any more");
                        changed.push((ip, None));
                    }
                }
            }
        }
        changed
    }

    /// Those that are to be asked for again. What no pool has any more is forgotten; it follows who else has it then.
    pub(super) fn due(&mut self, covers: impl Fn(IpAddr) -> bool, now: Instant) -> (Vec<IpAddr>, Vec<Occupancy>) {
        let gone: Vec<IpAddr> = self.taken.keys().copied().filter(|ip| !covers(*ip)).collect();
        self.taken.retain(|ip, _| gone.binary_search(ip).is_err());
        let mut due = Vec::new();
        for (ip, taken) in self.taken.iter_mut().filter(|(_, taken)| taken.look_again <= now) {
            taken.look_again = now + LOOK_AGAIN;
            due.push(*ip);
        }
        (due, gone.into_iter().map(|ip| (ip, None)).collect())
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.taken.values().map(|taken| taken.look_again).min()
    }

    /// How many addresses other hosts have.
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Whether somebody who has just answered is a proxy. What it was taken to have is nobody's.
    fn look_through(&mut self, mac: Mac) -> Vec<Occupancy> {
        if self.taken.values().filter(|taken| taken.by == mac).count() < PROXY {
            return Vec::new();
        }
        tracing::warn!(
            "{mac} answers for {PROXY} addresses of pools, as a proxy for all (RFC 1027) would: what it says does not count any more; \
             take such a proxy off this LAN, or the pool's addresses from it"
        );
        self.proxies.insert(mac);
        let (before, kept) = std::mem::take(&mut self.taken).into_iter().partition(|(_, taken)| taken.by == mac);
        let before: BTreeMap<IpAddr, Taken> = before;
        self.taken = kept;
        before.into_keys().map(|ip| (ip, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        [10, 0, high, low].into()
    }

    fn claim(number: u16, mac: u8) -> Claim {
        Claim { address: address(number), mac: Mac([2, 0, 0, 0, 0, mac]), interface: "eth0".into() }
    }

    fn unknown(vetting: &Vetting, numbers: &[u16], now: Instant) -> Vec<IpAddr> {
        vetting.unknown(numbers.iter().map(|number| address(*number)), now).collect()
    }

    #[test]
    fn what_is_asked_for_is_free_for_a_while_or_taken_until_nobody_answers() {
        let start = Instant::now();
        let mut vetting = Vetting::default();
        assert_eq!(unknown(&vetting, &[1, 2], start), [address(1), address(2)]);
        let changed = vetting.heard(&[address(1), address(2)], Ok(vec![claim(1, 9)]), start);
        assert_eq!(changed, [(address(1), Some(Mac([2, 0, 0, 0, 0, 9])))]);
        assert_eq!((unknown(&vetting, &[2], start), vetting.taken()), (vec![], 1));
        assert_eq!(unknown(&vetting, &[2], start + FREE_FOR), [address(2)], "it was long ago");

        assert_eq!(vetting.next(), Some(start + LOOK_AGAIN));
        assert_eq!(vetting.due(|_| true, start), (vec![], vec![]));
        let later = start + LOOK_AGAIN;
        assert_eq!(vetting.due(|_| true, later), (vec![address(1)], vec![]));
        assert_eq!(vetting.heard(&[address(1)], Ok(vec![claim(1, 9)]), later), [], "nothing new");
        assert_eq!(vetting.heard(&[address(1)], Ok(vec![]), later + LOOK_AGAIN), [(address(1), None)]);
        assert_eq!((vetting.next(), vetting.taken()), (None, 0));
    }

    #[test]
    fn what_no_pool_has_any_more_is_forgotten() {
        let start = Instant::now();
        let mut vetting = Vetting::default();
        vetting.heard(&[address(1), address(2)], Ok(vec![claim(1, 9), claim(2, 9)]), start);
        let (due, gone) = vetting.due(|ip| ip == address(2), start + LOOK_AGAIN);
        assert_eq!((due, gone), (vec![address(2)], vec![(address(1), None)]));
    }

    #[test]
    fn who_cannot_ask_gives_out_and_who_answers_for_all_does_not_count() {
        let now = Instant::now();
        let mut vetting = Vetting::default();
        assert_eq!(vetting.heard(&[address(0)], Err("no CAP_NET_RAW".into()), now), []);
        assert_eq!(unknown(&vetting, &[0], now), [] as [IpAddr; 0]);

        let most = u16::try_from(PROXY).unwrap();
        let mut occupied = BTreeSet::new();
        for number in 1..=most {
            for (ip, by) in vetting.heard(&[address(number)], Ok(vec![claim(number, 7)]), now) {
                if by.is_some() {
                    occupied.insert(ip)
                } else {
                    occupied.remove(&ip)
                };
            }
        }
        assert_eq!((occupied.len(), vetting.taken()), (0, 0), "a proxy");
        assert_eq!(vetting.heard(&[address(most + 1)], Ok(vec![claim(most + 1, 7)]), now), []);
        assert_eq!(vetting.heard(&[address(most + 2)], Ok(vec![claim(most + 2, 8)]), now).len(), 1, "another host");
    }

    #[test]
    fn a_forger_with_many_macs_fills_no_memory() {
        let now = Instant::now();
        let mut vetting = Vetting::default();
        for number in 0..u16::try_from(MOST).unwrap() + 9 {
            let mac = Mac([2, 0, 0, 1, number.to_be_bytes()[0], number.to_be_bytes()[1]]);
            vetting.heard(&[address(number)], Ok(vec![Claim { mac, ..claim(number, 0) }]), now);
        }
        assert_eq!(vetting.taken(), MOST);
    }
}
