use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::loadbalancer::announcer::{arp, ndp};
use crate::netlink::mac::Mac;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// `BPF_MAXINSNS`
const MOST: usize = 4096;

/// What the kernel would do: so many bytes of the frame are let through.
fn run(program: &[Instruction], frame: &[u8], packet_type: u32) -> u32 {
    let (mut at, mut number) = (0, 0);
    loop {
        let Instruction { code, then, otherwise, operand } = program[at];
        at += 1;
        let offset = usize::try_from(operand).unwrap();
        let mut compare = |holds: bool| at += usize::from(if holds { then } else { otherwise });
        match code {
            operation::WORD if operand == operation::PACKET_TYPE => number = packet_type,
            operation::WORD | operation::HALF | operation::BYTE => {
                let length = [4, 2, 1][usize::from((code - operation::WORD) / 8)];
                let Some(bytes) = frame.get(offset..offset + length) else { return 0 };
                number = bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
            }
            operation::IF_EQUAL => compare(number == operand),
            operation::IF_GREATER => compare(number > operand),
            operation::IF_AT_LEAST => compare(number >= operand),
            operation::JUMP => at += offset,
            operation::RETURN => return operand,
            _ => panic!("operation {code:#x}"),
        }
    }
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

fn request(target: u32) -> [u8; arp::FRAME] {
    let mut packet = arp::Packet::parse(&arp::probe(Ipv4Addr::from_bits(target), MAC)).unwrap().1;
    packet.sender_ip = Ipv4Addr::new(192, 0, 2, 1);
    packet.to(Mac::BROADCAST)
}

#[test]
fn a_pool_of_neighbours_is_one_range() {
    let pool = (0..1000).map(|number| v4(0x0a00_0000 + number));
    let ranges = ranges(pool, RANGES);
    assert_eq!(ranges, [(0x0a00_0000, 0x0a00_03e7)]);
    assert!(program(Family::V4, &ranges).len() < 30);
}

#[test]
fn the_largest_program_fits_and_the_ends_of_all_numbers_are_found() {
    let scattered: Vec<IpAddr> = (0..5000).map(|number| v4(u32::MAX - number * 859_000)).chain([v4(0)]).collect();
    let ranges = ranges(scattered.iter().copied(), RANGES);
    assert_eq!(ranges.len(), RANGES, "also where all gaps are alike");
    for family in Family::ALL {
        let length = program(family, &ranges).len();
        assert!(length <= MOST, "{length}");
    }
    let program = program(Family::V4, &ranges);
    for address in scattered {
        assert_ne!(run(&program, &request(number(address)), 1), 0, "{address}");
    }
}

#[test]
fn what_is_not_for_this_interface_stays_outside() {
    let program = program(Family::V4, &ranges([v4(7)].into_iter(), RANGES));
    let taken: Vec<bool> = (0..6).map(|packet_type| run(&program, &request(7), packet_type) != 0).collect();
    assert_eq!(taken, [true, true, true, false, false, false]);
    let mut other = request(7);
    other[13] = 0;
    assert_eq!(run(&program, &other, 1), 0, "another EtherType");
    assert_eq!(run(&program, &request(7)[..40], 1), 0, "cut short");
    assert_eq!(run(&super::program(Family::V4, &[]), &request(7), 1), 0, "no address, no frame");
}

#[test]
fn of_icmpv6_only_two_messages_come_in() {
    let vip: Ipv6Addr = "2001:db8::f0".parse().unwrap();
    let program = program(Family::V6, &ranges([vip.into()].into_iter(), RANGES));
    let frame = ndp::unsolicited(vip, MAC, "fe80::1".parse().unwrap());
    for kind in 0..=255 {
        let mut frame = frame;
        frame[54] = kind;
        assert_eq!(run(&program, &frame, 2) != 0, matches!(kind, 135 | 136), "message {kind}");
    }
    let mut udp = frame;
    udp[20] = 17;
    assert_eq!(run(&program, &udp, 2), 0);
    assert_ne!(run(&program, &ndp::probe(vip, MAC), 2), 0);
    assert_eq!(run(&program, &ndp::probe("2001:db8::f1".parse().unwrap(), MAC), 2), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Nothing of ours is missed; and if all ranges fit, nothing else comes in.
    #[test]
    fn the_filter_knows_our_addresses(
        ours in prop::collection::btree_set(prop_oneof![0..64_u32, any::<u32>(), Just(u32::MAX)], 0..300),
        others in prop::collection::vec(prop_oneof![0..64_u32, any::<u32>()], 20),
        limit in prop_oneof![1..8_usize, Just(RANGES)],
        as_sender: bool,
    ) {
        let ranges = ranges(ours.iter().copied().map(v4), limit);
        prop_assert!(ranges.len() <= limit);
        let program = program(Family::V4, &ranges);
        prop_assert!(program.len() <= MOST);
        let exact = ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum::<u64>() == ours.len() as u64;
        let asked: BTreeSet<u32> = ours.iter().chain(&others).copied().collect();
        for number in asked {
            let frame = if as_sender { arp::gratuitous(Ipv4Addr::from_bits(number), MAC)[1] } else { request(number) };
            let taken = run(&program, &frame, 1) != 0;
            prop_assert!(taken || !ours.contains(&number), "{} missed", number);
            prop_assert!(!exact || !taken || ours.contains(&number), "{} in vain", number);
        }
    }
}
