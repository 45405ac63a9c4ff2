//! The addresses of one pool that nobody has: intervals, so that a pool of 2^64 addresses costs as much as one of two.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Family;
use crate::model::load_balancer::{AddressPool, AddressRange};

/// Free addresses of a pool, range by range in the order in which the pool lists them.
#[derive(Debug)]
pub(super) struct Space {
    avoid_buggy: bool,
    ranges: Vec<Free>,
    /// Free addresses by family: in the order of [`Family::ALL`].
    left: [u128; 2],
}

/// Free addresses of one range.
#[derive(Debug)]
struct Free {
    range: AddressRange,
    /// First to last of each interval. No two touch, and none consists of addresses alone that are never handed out; so the lowest
    /// free address is among the first three of the first interval.
    intervals: BTreeMap<IpAddr, IpAddr>,
}

impl Space {
    /// Of a pool whose ranges do not overlap, with nothing taken.
    pub(super) fn new(pool: &AddressPool) -> Self {
        let mut space = Self { avoid_buggy: pool.avoid_buggy_ips, ranges: Vec::new(), left: [0, 0] };
        for &range in &pool.ranges {
            let mut free = Free { range, intervals: BTreeMap::new() };
            free.insert(range.first(), range.last(), pool.avoid_buggy_ips);
            space.ranges.push(free);
            let left = &mut space.left[index(range.family())];
            *left = left.saturating_add(usable(range, pool.avoid_buggy_ips));
        }
        space
    }

    /// Whether it is an address that this pool hands out, free or not.
    pub(super) fn covers(&self, ip: IpAddr) -> bool {
        !(self.avoid_buggy && is_buggy(ip)) && self.ranges.iter().any(|free| free.range.contains(ip))
    }

    /// How many of a family are free.
    pub(super) fn left(&self, family: Family) -> u128 {
        self.left[index(family)]
    }

    /// The ranges of a family in the pool's order, each with its lowest free address.
    pub(super) fn lowest(&self, family: Family) -> impl Iterator<Item = (AddressRange, Option<IpAddr>)> {
        let of_family = self.ranges.iter().filter(move |free| free.range.family() == family);
        of_family.map(|free| (free.range, free.lowest(self.avoid_buggy)))
    }

    /// The address is somebody's. Nothing happens if it was not free.
    pub(super) fn take(&mut self, ip: IpAddr) {
        if self.covers(ip) && self.ranges.iter_mut().any(|free| free.remove(ip, self.avoid_buggy)) {
            let left = &mut self.left[index(Family::of(ip))];
            *left = left.saturating_sub(1);
        }
    }

    /// The address is nobody's any more. Nothing happens if it was free, or is none of the pool's.
    pub(super) fn give(&mut self, ip: IpAddr) {
        if !self.covers(ip) {
            return;
        }
        for free in self.ranges.iter_mut().filter(|free| free.range.contains(ip)) {
            if free.interval_of(ip).is_none() {
                free.give(ip);
                let left = &mut self.left[index(Family::of(ip))];
                *left = left.saturating_add(1);
            }
        }
    }
}

impl Free {
    fn interval_of(&self, ip: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (&first, &last) = self.intervals.range(..=ip).next_back()?;
        (ip <= last).then_some((first, last))
    }

    fn lowest(&self, avoid_buggy: bool) -> Option<IpAddr> {
        let (&first, &last) = self.intervals.first_key_value()?;
        if avoid_buggy { first_usable(first, last) } else { Some(first) }
    }

    /// Whether it was free.
    fn remove(&mut self, ip: IpAddr, avoid_buggy: bool) -> bool {
        let Some((first, last)) = self.interval_of(ip) else { return false };
        self.intervals.remove(&first);
        if let Some(before) = previous(ip).filter(|_| ip > first) {
            self.insert(first, before, avoid_buggy);
        }
        if let Some(after) = next(ip).filter(|_| ip < last) {
            self.insert(after, last, avoid_buggy);
        }
        true
    }

    /// An interval that touches no other, unless nothing of it can ever be handed out: those would only be walked over.
    fn insert(&mut self, first: IpAddr, last: IpAddr, avoid_buggy: bool) {
        if !avoid_buggy || first_usable(first, last).is_some() {
            self.intervals.insert(first, last);
        }
    }

    fn give(&mut self, ip: IpAddr) {
        let after = next(ip).and_then(|after| self.intervals.remove(&after));
        let before = previous(ip).and_then(|before| self.interval_of(before));
        let first = before.map_or(ip, |(first, _)| first);
        self.intervals.insert(first, after.unwrap_or(ip));
    }
}

/// An IPv4 address that ends in .0 or .255: `avoidBuggyIPs` keeps those from everybody.
pub(super) fn is_buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if matches!(v4.octets()[3], 0 | 255))
}

/// The first address of the interval that is not buggy. No three in a row are.
fn first_usable(first: IpAddr, last: IpAddr) -> Option<IpAddr> {
    let candidates = std::iter::successors(Some(first), |&ip| next(ip)).take(3);
    candidates.take_while(|&ip| ip <= last).find(|&ip| !is_buggy(ip))
}

/// How many addresses of the range can be handed out.
fn usable(range: AddressRange, avoid_buggy: bool) -> u128 {
    let all = range.span().saturating_add(1);
    match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) if avoid_buggy => {
            // Of the numbers below n, those that end in .0 and those that end in .255.
            let buggy = |n: u64| n.div_ceil(256) + n / 256;
            all - u128::from(buggy(u64::from(last.to_bits()) + 1) - buggy(u64::from(first.to_bits())))
        }
        _ => all,
    }
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn previous(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
