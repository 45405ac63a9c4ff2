//! What a frame means to us: a question that we answer, somebody else's claim to one of our addresses, or nothing. Pure.

use std::net::IpAddr;

use super::interface::Interface;
use super::{arp, ndp};
use crate::netlink::mac::Mac;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks for one of our addresses; this is to be sent.
    Question(IpAddr, Answer),
    /// Somebody else says to have one of our addresses.
    Claim(IpAddr, Mac),
}

/// An answer's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// ARP's.
    Arp([u8; arp::FRAME]),
    /// Neighbour discovery's.
    Ndp([u8; ndp::FRAME]),
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Arp(frame) => frame,
            Self::Ndp(frame) => frame,
        }
    }
}

/// Understands one frame that came in on `interface`. `announced` says whether we announce an address there, `own` whether a MAC is
/// one of this node's: our own frames, which a loop or a second interface on the same LAN brings back, mean nothing.
///
/// A frame is answered if it was sent to everybody, or to this interface's MAC as it is now; and whoever asks from no address is
/// answered too, which is how an address is defended against somebody who is about to take it (RFC 5227, RFC 4862).
pub fn hear(frame: &[u8], interface: &Interface, announced: impl Fn(IpAddr) -> bool, own: impl Fn(Mac) -> bool) -> Option<Heard> {
    match frame.get(12..14)? {
        [0x08, 0x06] => hear_arp(frame, interface, announced, own),
        _ => hear_ndp(frame, interface, announced, own),
    }
}

fn hear_arp(frame: &[u8], interface: &Interface, announced: impl Fn(IpAddr) -> bool, own: impl Fn(Mac) -> bool) -> Option<Heard> {
    let (head, packet) = arp::Packet::parse(frame).ok()?;
    let for_us = head.destination == Mac::BROADCAST || head.destination == interface.mac;
    if !for_us || own(head.source) || own(packet.sender_mac) {
        return None;
    }
    let (sender, target) = (packet.sender_ip.into(), packet.target_ip.into());
    if announced(sender) {
        return Some(Heard::Claim(sender, packet.sender_mac));
    }
    (packet.operation == arp::Operation::Request && announced(target))
        .then(|| Heard::Question(target, Answer::Arp(packet.answer(interface.mac))))
}

fn hear_ndp(frame: &[u8], interface: &Interface, announced: impl Fn(IpAddr) -> bool, own: impl Fn(Mac) -> bool) -> Option<Heard> {
    let (head, message) = ndp::Message::parse(frame).ok()?;
    let for_us = !head.destination.is_unicast() || head.destination == interface.mac;
    let target = message.target.into();
    if !for_us || own(head.source) || message.link_layer.is_some_and(&own) || !announced(target) {
        return None;
    }
    Some(match message.kind {
        ndp::Kind::Advertisement => Heard::Claim(target, message.link_layer.unwrap_or(head.source)),
        ndp::Kind::Solicitation => {
            // From the target itself, as Linux answers for its own (`ndisc_send_na`): `ndisc6` takes no answer about a global address from
            // a link-local one.
            Heard::Question(target, Answer::Ndp(message.answer(interface.mac, message.target, head.source)))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER_OF_OURS: Mac = Mac([2, 0, 0, 0, 1, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 240);
    const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xf0);

    fn heard(frame: &[u8]) -> Option<Heard> {
        let interface = Interface {
            index: 2,
            name: "eth0".into(),
            mac: OURS,
            v4: true,
            v6: true,
            link_local: "fe80::1".parse().ok(),
            carrier_changes: 0,
        };
        let announced = |address| [IpAddr::from(VIP), VIP6.into()].contains(&address);
        hear(frame, &interface, announced, |mac| [OURS, OTHER_OF_OURS].contains(&mac))
    }

    fn request(sender_mac: Mac, sender_ip: [u8; 4], target_ip: Ipv4Addr) -> arp::Packet {
        let operation = arp::Operation::Request;
        arp::Packet { operation, sender_mac, sender_ip: sender_ip.into(), target_mac: Mac([0; 6]), target_ip }
    }

    #[test]
    fn questions_to_all_or_to_us_are_answered_and_those_to_others_not() {
        let asked = request(THEIRS, [10, 0, 0, 9], VIP);
        let answer = Some(Heard::Question(VIP.into(), Answer::Arp(asked.answer(OURS))));
        assert_eq!(heard(&asked.to(Mac::BROADCAST)), answer);
        assert_eq!(heard(&asked.to(OURS)), answer);
        assert_eq!(heard(&asked.to(OTHER_OF_OURS)), None, "the MAC that it was before");
        assert_eq!(heard(&asked.to(Mac([1, 0, 0x5e, 0, 0, 1]))), None, "no group is asked by ARP");
        let probe = arp::probe(VIP, THEIRS);
        assert!(matches!(heard(&probe), Some(Heard::Question(..))), "an address is defended");
        assert_eq!(heard(&request(THEIRS, [10, 0, 0, 9], Ipv4Addr::new(10, 0, 0, 241)).to(Mac::BROADCAST)), None);
        assert!(matches!(heard(&ndp::probe(VIP6, THEIRS)), Some(Heard::Question(..))));
    }

    /// `ndisc6` waits in vain for an answer about a global address that comes from a link-local one.
    #[test]
    fn an_answer_comes_from_its_target() {
        let Some(Heard::Question(_, answer)) = heard(&ndp::probe(VIP6, THEIRS)) else { panic!("it asks") };
        assert_eq!(ndp::Message::parse(answer.as_ref()).unwrap().1.source, VIP6);
    }

    #[test]
    fn who_else_says_to_have_it_claims_it() {
        let claim = Some(Heard::Claim(VIP.into(), THEIRS));
        for frame in arp::gratuitous(VIP, THEIRS) {
            assert_eq!(heard(&frame), claim);
        }
        let asks_from_it = request(THEIRS, VIP.octets(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(heard(&asks_from_it.to(Mac::BROADCAST)), claim);
        let told = ndp::unsolicited(VIP6, THEIRS, "fe80::2".parse().unwrap());
        assert_eq!(heard(&told), Some(Heard::Claim(VIP6.into(), THEIRS)));
    }

    #[test]
    fn our_own_frames_that_come_back_mean_nothing() {
        for mac in [OURS, OTHER_OF_OURS] {
            for frame in arp::gratuitous(VIP, mac) {
                assert_eq!(heard(&frame), None, "{mac}");
            }
            assert_eq!(heard(&request(mac, [10, 0, 0, 5], VIP).to(Mac::BROADCAST)), None);
            assert_eq!(heard(&ndp::unsolicited(VIP6, mac, "fe80::2".parse().unwrap())), None);
            assert_eq!(heard(&ndp::probe(VIP6, mac)), None);
        }
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), ndp: bool) {
            let mut bytes = bytes;
            if let Some(kind) = bytes.get_mut(12..14) {
                kind.copy_from_slice(if ndp { &[0x86, 0xdd] } else { &[8, 6] });
            }
            let _ = heard(&bytes);
        }
    }
}
