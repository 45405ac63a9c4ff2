//! Intervals against a plain set.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::loadbalancer::allocator::space::{Space, is_buggy};

proptest! {
    #[test]
    fn intervals_are_a_set(avoid_buggy_ips in any::<bool>(), start in 0u32..300, steps in prop::collection::vec((any::<bool>(), 0u32..600), 0..200)) {
        let at = |offset: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + offset));
        let (first, last) = (at(start), at(start + 290));
        let ranges = vec![AddressRange::new(first, last).unwrap(), AddressRange::new(at(1000), at(1000)).unwrap()];
        let mut space = Space::new(&AddressPool { avoid_buggy_ips, ranges: ranges.clone(), ..pool("a", "") });
        let usable = |ip: &IpAddr| !(avoid_buggy_ips && is_buggy(*ip));
        let all: BTreeSet<IpAddr> = ranges.iter().flat_map(|range| range.iter()).filter(usable).collect();
        let mut free = all.clone();
        for (take, offset) in steps {
            let ip = at(offset);
            if take {
                space.take(ip);
                free.remove(&ip);
            } else {
                space.give(ip);
                free.extend(Some(ip).filter(|ip| all.contains(ip)));
            }
            prop_assert_eq!(space.left(Family::V4), free.len() as u128);
            let lowest: Vec<_> = ranges.iter().map(|range| (*range, free.range(range.first()..=range.last()).next().copied())).collect();
            prop_assert_eq!(space.lowest(Family::V4).collect::<Vec<_>>(), lowest);
        }
    }
}

#[test]
fn the_whole_of_ipv6_and_of_ipv4() {
    let everything = "0.0.0.0-255.255.255.255 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let mut space = Space::new(&AddressPool { avoid_buggy_ips: true, ..pool("a", everything) });
    assert_eq!(space.left(Family::V4), (1 << 32) - (2 << 24));
    assert_eq!(space.left(Family::V6), u128::MAX);
    for ip in ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0.0.0.1", "255.255.255.254"] {
        space.take(address(ip));
    }
    let lowest: Vec<_> =
        Family::ALL.into_iter().flat_map(|family| space.lowest(family)).map(|(_, ip)| ip.unwrap().to_string()).collect();
    assert_eq!(lowest, ["0.0.0.2", "::1"]);
}
