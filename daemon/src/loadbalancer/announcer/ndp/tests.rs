use etherparse::{IpNumber, NetSlice, SlicedPacket};
use proptest::prelude::*;

use super::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A solicitation's frame: from, to (IP and MAC), target, and options as they stand.
fn solicitation(from: &str, to: (&str, Mac), target: &str, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; MESSAGE];
    message[0] = SOLICITATION;
    message[8..].copy_from_slice(&ip(target).octets());
    message.extend_from_slice(options);
    let mut frame = vec![0; ethernet::HEADER + IP + message.len()];
    write(&mut frame, THEIRS, ip(from), (ip(to.0), to.1), &mut message);
    frame
}

fn sllao() -> [u8; 8] {
    [1, 1, 2, 0, 0, 0, 0, 2]
}

const GROUP: (&str, Mac) = ("ff02::1:ff00:f0", Mac([0x33, 0x33, 0xff, 0, 0, 0xf0]));

/// As etherparse sees it: source, destination, type, flags, target, and whether the sum is right.
fn second_reading(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, u8, u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv6(ip)) = &sliced.net else { panic!("{sliced:?}") };
    assert_eq!((ip.header().hop_limit(), ip.header().next_header()), (255, IpNumber::IPV6_ICMP));
    let payload = ip.payload().payload;
    let header = etherparse::Icmpv6Slice::from_slice(payload).unwrap();
    assert!(header.is_checksum_valid(ip.header().source(), ip.header().destination()), "checksum");
    (ip.header().source_addr(), ip.header().destination_addr(), payload[0], payload[4], payload[8..].to_vec())
}

#[test]
fn each_kind_of_solicitation_is_answered_as_the_rfc_says() {
    let (vip, from) = ("2001:db8::f0", ip("fe80::1"));
    let nud = ("2001:db8::f0", OURS);
    let client = ip("2001:db8::9");
    for (asked, to, to_mac, flags) in [
        (solicitation("2001:db8::9", GROUP, vip, &sllao()), client, THEIRS, 0x60),
        (solicitation("2001:db8::9", GROUP, vip, &[]), client, THEIRS, 0x60),
        (solicitation("2001:db8::9", nud, vip, &[]), client, THEIRS, 0x60),
        (solicitation("2001:db8::9", nud, vip, &[1, 1, 2, 0, 0, 0, 0, 3]), client, Mac([2, 0, 0, 0, 0, 3]), 0x60),
        (solicitation("::", GROUP, vip, &[]), ALL_NODES, ALL_NODES_MAC, 0x20),
    ] {
        let (frame, message) = Message::parse(&asked).unwrap();
        assert_eq!(message.kind, Kind::Solicitation);
        let answer = message.answer(OURS, from, frame.source);
        let head = Frame::parse(&answer).unwrap();
        assert_eq!((head.destination, head.source), (to_mac, OURS));
        let mut rest = ip(vip).octets().to_vec();
        rest.extend_from_slice(&[2, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(second_reading(&answer), (from, to, 136, flags, rest));
        let (_, read) = Message::parse(&answer).unwrap();
        let expected = Message { kind: Kind::Advertisement, source: from, target: ip(vip), link_layer: Some(OURS) };
        assert_eq!(read, expected);
    }
}

#[test]
fn an_announcement_goes_to_all_nodes_and_overrides() {
    let frame = unsolicited(ip("2001:db8::f0"), OURS, ip("fe80::1"));
    let (_, to, kind, flags, _) = second_reading(&frame);
    assert_eq!((to, kind, flags), (ALL_NODES, 136, OVERRIDE));
    assert_eq!(Frame::parse(&frame).unwrap().destination, ALL_NODES_MAC);
}

#[test]
fn a_probe_is_duplicate_address_detection() {
    let frame = probe(ip("2001:db8::f0"), OURS);
    let (from, to, kind, _, rest) = second_reading(&frame);
    assert_eq!((from, to, kind), (Ipv6Addr::UNSPECIFIED, ip(GROUP.0), 135));
    assert_eq!(rest, ip("2001:db8::f0").octets(), "and no option");
    assert_eq!(Frame::parse(&frame).unwrap().destination, GROUP.1);
    assert!(Message::parse(&frame).is_ok());
}

#[test]
fn each_check_of_the_rfc_refuses() {
    let vip = "2001:db8::f0";
    let good = solicitation("2001:db8::9", GROUP, vip, &sllao());
    for length in 0..good.len() {
        assert_eq!(Message::parse(&good[..length]), Err(NdpError::Truncated), "{length} bytes");
    }
    let broken = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        Message::parse(&frame).map(|(_, message)| message)
    };
    assert_eq!(broken(13, 0), Err(NdpError::NotNdp), "EtherType");
    assert_eq!(broken(14, 0x45), Err(NdpError::NotNdp), "version");
    assert_eq!(broken(20, 0), Err(NdpError::NotNdp), "an extension header first");
    assert_eq!(broken(54, 133), Err(NdpError::NotNdp), "a router solicitation");
    assert_eq!(broken(21, 254), Err(NdpError::HopLimit));
    assert_eq!(broken(56, good[56] ^ 1), Err(NdpError::Checksum));
    assert_eq!(broken(70, good[70] ^ 1), Err(NdpError::Checksum));
    assert_eq!(broken(19, 40), Err(NdpError::Truncated), "a length beyond the end");
    assert_eq!(broken(6, 1), Err(NdpError::Sender), "a frame from a group");

    let refused = |frame: &[u8]| Message::parse(frame).map(|(_, message)| message);
    let sums = |from: &str, to, target: &str, options: &[u8]| refused(&solicitation(from, to, target, options));
    assert_eq!(sums("2001:db8::9", GROUP, "ff02::1", &[]), Err(NdpError::Target));
    assert_eq!(sums("2001:db8::9", GROUP, "::", &[]), Err(NdpError::Target));
    assert_eq!(sums("ff02::5", GROUP, vip, &[]), Err(NdpError::Sender));
    assert_eq!(sums("::", GROUP, vip, &sllao()), Err(NdpError::Sender), "who has no address says no MAC");
    assert_eq!(sums("::", (vip, OURS), vip, &[]), Err(NdpError::Sender), "and asks the group");
    assert_eq!(sums("2001:db8::9", GROUP, vip, &[1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(NdpError::Sender));
    for options in
        [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[14, 2, 0, 0, 0, 0, 0, 0], &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1]]
    {
        assert_eq!(sums("2001:db8::9", GROUP, vip, options), Err(NdpError::Option), "{options:?}");
    }
    let nonce = [&[14, 1, 1, 2, 3, 4, 5, 6][..], &sllao()].concat();
    assert_eq!(sums("2001:db8::9", GROUP, vip, &nonce).unwrap().link_layer, Some(THEIRS), "unknown options are passed over");

    let solicited_to_all = advertisement(ip(vip), THEIRS, ip("fe80::2"), (ALL_NODES, ALL_NODES_MAC), SOLICITED);
    assert_eq!(refused(&solicited_to_all), Err(NdpError::SolicitedGroup));
    assert_eq!(refused(&unsolicited(ip(vip), THEIRS, Ipv6Addr::UNSPECIFIED)), Err(NdpError::Sender));
    let mut padded = good.clone();
    padded.extend_from_slice(&[0xaa; 9]);
    assert!(refused(&padded).is_ok());
}

proptest! {
    /// Noise, and real messages with some bytes changed and the sum made right again, so that it is not the sum that refuses all.
    #[test]
    fn no_bytes_make_a_reader_panic(
        noise in prop::collection::vec(any::<u8>(), 0..120),
        options in prop::collection::vec(any::<u8>(), 0..40),
        changes in prop::collection::vec((0..MESSAGE, any::<u8>()), 0..4),
        advertised: bool,
    ) {
        let _ = Message::parse(&noise);
        let mut message = [&[0; MESSAGE][..], &options].concat();
        message[0] = if advertised { ADVERTISEMENT } else { SOLICITATION };
        message[8..MESSAGE].copy_from_slice(&ip("2001:db8::f0").octets());
        for (at, value) in changes {
            message[at] = value;
        }
        message[2..4].fill(0);
        let mut frame = vec![0; ethernet::HEADER + IP + message.len()];
        write(&mut frame, THEIRS, ip("fe80::9"), (ip(GROUP.0), GROUP.1), &mut message);
        match Message::parse(&frame) {
            Ok((_, read)) => {
                let answer = read.answer(OURS, ip("fe80::1"), THEIRS);
                let (_, told) = Message::parse(&answer).expect("an answer is a message");
                prop_assert_eq!(told.target, read.target);
            }
            Err(error) => prop_assert_ne!(error, NdpError::Checksum),
        }
    }

    #[test]
    fn a_second_reader_finds_the_same_sum(target: [u8; 16], from: [u8; 16], mac: [u8; 6]) {
        let frame = unsolicited(target.into(), Mac(mac), from.into());
        let (source, _, _, _, rest) = second_reading(&frame);
        prop_assert_eq!((source.octets(), &rest[..16]), (from, &target[..]));
    }
}
