use etherparse::{ArpHardwareId, ArpOperation, EtherType, NetSlice, SlicedPacket};
use proptest::prelude::*;

use super::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 240);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn request() -> Packet {
    Packet { operation: Operation::Request, sender_mac: THEIRS, sender_ip: CLIENT, target_mac: Mac([0; 6]), target_ip: VIP }
}

#[test]
fn a_request_is_answered_to_the_asker_alone() {
    let answer = request().answer(OURS);
    let (frame, packet) = Packet::parse(&answer).unwrap();
    assert_eq!((frame.destination, frame.source), (THEIRS, OURS));
    let expected =
        Packet { operation: Operation::Reply, sender_mac: OURS, sender_ip: VIP, target_mac: THEIRS, target_ip: CLIENT };
    assert_eq!(packet, expected);
}

#[test]
fn announcements_are_a_request_and_a_reply_to_all() {
    for (bytes, operation) in gratuitous(VIP, OURS).iter().zip([Operation::Request, Operation::Reply]) {
        let (frame, packet) = Packet::parse(bytes).unwrap();
        assert_eq!((frame.destination, frame.source), (Mac::BROADCAST, OURS));
        let expected = Packet { operation, sender_mac: OURS, sender_ip: VIP, target_mac: Mac::BROADCAST, target_ip: VIP };
        assert_eq!(packet, expected);
    }
}

#[test]
fn a_probe_claims_nothing() {
    let (frame, packet) = Packet::parse(&probe(VIP, OURS)).map(|(frame, packet)| (frame.destination, packet)).unwrap();
    assert_eq!((frame, packet.sender_ip, packet.target_ip), (Mac::BROADCAST, Ipv4Addr::UNSPECIFIED, VIP));
}

#[test]
fn what_is_cut_short_or_of_another_kind_is_refused() {
    let whole = request().to(Mac::BROADCAST);
    for length in 0..FRAME {
        assert_eq!(Packet::parse(&whole[..length]), Err(ArpError::Truncated), "{length} bytes");
    }
    let broken = |at: usize, value: u8| {
        let mut frame = whole;
        frame[at] = value;
        Packet::parse(&frame).map(|(_, packet)| packet)
    };
    assert_eq!(broken(13, 0), Err(ArpError::NotArp));
    for (at, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16)] {
        assert_eq!(broken(at, value), Err(ArpError::Kind), "byte {at}");
    }
    for operation in [0, 3, 4, 8] {
        assert_eq!(broken(21, operation), Err(ArpError::Operation));
    }
    assert_eq!(broken(20, 1), Err(ArpError::Operation), "the high byte counts");
    assert_eq!(broken(22, 0xff), Err(ArpError::Sender), "an answer would go to a group");
    assert_eq!(broken(6, 0x33), Err(ArpError::Sender), "a frame from a group");
    let mut padded = whole.to_vec();
    padded.resize(60, 0xaa);
    assert_eq!(Packet::parse(&padded).map(|(_, packet)| packet), Ok(request()));
}

/// Bytes that are nearly ARP: a real packet with some bytes changed, or only noise.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<[u8; FRAME - 22]>(), 1..3_u8, prop::collection::vec((0..FRAME, any::<u8>()), 0..3), 0..=FRAME + 20)
        .prop_map(|(addresses, operation, changes, length)| {
            let mut frame = request().to(Mac::BROADCAST).to_vec();
            frame[21] = operation;
            frame[22..].copy_from_slice(&addresses);
            for (at, value) in changes {
                frame[at] = value;
            }
            frame.resize(length, 0);
            frame
        });
    prop_oneof![3 => changed, 1 => prop::collection::vec(any::<u8>(), 0..80)]
}

proptest! {
    /// etherparse reads any hardware and protocol; ours are Ethernet and IPv4, and senders that can be answered.
    #[test]
    fn a_second_reader_agrees(bytes in nearly()) {
        let ours = Packet::parse(&bytes).ok().map(|(_, packet)| packet);
        let theirs = SlicedPacket::from_ethernet(&bytes).ok().and_then(|sliced| {
            let Some(NetSlice::Arp(arp)) = sliced.net else { return None };
            let operation = match arp.operation() {
                ArpOperation::REQUEST => Operation::Request,
                ArpOperation::REPLY => Operation::Reply,
                _ => return None,
            };
            (arp.hw_addr_type() == ArpHardwareId::ETHERNET && arp.proto_addr_type() == EtherType::IPV4).then_some(())?;
            let ip = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
            let packet = Packet {
                operation,
                sender_mac: Mac::from_slice(arp.sender_hw_addr())?,
                sender_ip: ip(arp.sender_protocol_addr())?,
                target_mac: Mac::from_slice(arp.target_hw_addr())?,
                target_ip: ip(arp.target_protocol_addr())?,
            };
            let source = Mac::from_slice(&bytes[6..12])?;
            (bytes[12..14] == [8, 6] && packet.sender_mac.is_unicast() && source.is_unicast()).then_some(packet)
        });
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn what_is_written_is_read(addresses: ([u8; 6], [u8; 4], [u8; 6], [u8; 4]), reply: bool, to: [u8; 6]) {
        let (sender_mac, sender_ip, target_mac, target_ip) = addresses;
        let operation = if reply { Operation::Reply } else { Operation::Request };
        let packet = Packet {
            operation,
            sender_mac: Mac(sender_mac),
            sender_ip: sender_ip.into(),
            target_mac: Mac(target_mac),
            target_ip: target_ip.into(),
        };
        let bytes = packet.to(Mac(to));
        match Packet::parse(&bytes) {
            Ok((frame, read)) => prop_assert_eq!((frame.destination, frame.source, read), (Mac(to), Mac(sender_mac), packet)),
            Err(error) => prop_assert!(error == ArpError::Sender && !Mac(sender_mac).is_unicast()),
        }
    }
}
