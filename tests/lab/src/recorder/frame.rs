//! The frames that tell of addresses: RFC 826, RFC 5227, RFC 4861. Read by hand, so that they are not judged by the code under test.

use super::{Mac, Word};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) mac: Mac,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

const BROADCAST: [u8; 6] = [0xff; 6];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet and IPv4, lengths of their addresses (RFC 826).
const ARP_KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// In the flags of an advertisement.
const SOLICITED: u8 = 0x40;
const TARGET_LINK_LAYER: u8 = 2;

/// What a frame says of an address, if it tells who has it.
pub(super) fn read(frame: &[u8]) -> Option<(Word, IpAddr, Mac)> {
    match frame.get(12..14)?.try_into().ok()? {
        ARP => read_arp(frame.get(..6)?, frame.get(14..42)?),
        IPV6 => read_advertisement(frame.get(14..)?),
        _ => None,
    }
}

fn read_arp(to: &[u8], body: &[u8]) -> Option<(Word, IpAddr, Mac)> {
    if !body.starts_with(&ARP_KIND) {
        return None;
    }
    let mac = Mac(body.get(8..14)?.try_into().ok()?);
    let [sender, target]: [[u8; 4]; 2] = [body.get(14..18)?.try_into().ok()?, body.get(24..28)?.try_into().ok()?];
    let word = match *body.get(7)? {
        ARP_REQUEST if sender == target => Word::Announced,
        ARP_REPLY if to == BROADCAST => Word::Announced,
        ARP_REPLY => Word::Answered,
        _ => return None,
    };
    Some((word, Ipv4Addr::from(sender).into(), mac))
}

fn read_advertisement(packet: &[u8]) -> Option<(Word, IpAddr, Mac)> {
    let message = packet.get(40..)?;
    if *packet.get(6)? != ICMPV6 || *message.first()? != ADVERTISEMENT {
        return None;
    }
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let mut options = message.get(24..)?;
    let mac = loop {
        let length = usize::from(*options.get(1)?) * 8;
        let option = options.get(..length).filter(|option| !option.is_empty())?;
        if option.first() == Some(&TARGET_LINK_LAYER) {
            break Mac(option.get(2..8)?.try_into().ok()?);
        }
        options = options.get(length..)?;
    };
    let word = if message.get(4)? & SOLICITED == 0 { Word::Announced } else { Word::Answered };
    Some((word, Ipv6Addr::from(target).into(), mac))
}

impl Asker {
    /// An ARP request, or a neighbour solicitation to the group of the address.
    pub(super) fn question(&self, address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(target) => {
                let ethernet = [&BROADCAST, &self.mac.0[..], &ARP].concat();
                let sender = [&[0, ARP_REQUEST][..], &self.mac.0, &self.v4.octets()].concat();
                [&ethernet[..], &ARP_KIND, &sender, &[0; 6], &target.octets()].concat()
            }
            IpAddr::V6(target) => self.solicitation(target),
        }
    }

    fn solicitation(&self, target: Ipv6Addr) -> Vec<u8> {
        let [.., a, b, c] = target.octets();
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
        let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[1, 1], &self.mac.0].concat();
        let length = u16::try_from(message.len()).expect("32 bytes");
        let addresses = [self.v6.octets(), group.octets()].concat();
        let pseudo = [&addresses[..], &u32::from(length).to_be_bytes(), &[0, 0, 0, ICMPV6]].concat();
        let checksum = checksum(&[&pseudo[..], &message].concat());
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let ethernet = [&[0x33, 0x33, 0xff, a, b, c], &self.mac.0[..], &IPV6].concat();
        let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[ICMPV6, 255]].concat();
        [ethernet, header, addresses, message].concat()
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice it fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Asker = Asker {
        mac: Mac([2, 0, 0, 0, 0, 9]),
        v4: Ipv4Addr::new(192, 168, 1, 9),
        v6: Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 1, 9),
    };
    const THEM: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// An ARP message from [`THEM`].
    fn arp(to: [u8; 6], operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let ethernet = [&to, &THEM.0[..], &ARP].concat();
        [&ethernet[..], &ARP_KIND, &[0, operation], &THEM.0, &sender, &[0; 6], &target].concat()
    }

    #[test]
    fn arp_is_told_apart() {
        let (vip, other) = ([192, 168, 1, 240], [192, 168, 1, 9]);
        let said = |word| Some((word, IpAddr::from(vip), THEM));
        assert_eq!(read(&arp(BROADCAST, ARP_REQUEST, vip, vip)), said(Word::Announced));
        assert_eq!(read(&arp(BROADCAST, ARP_REPLY, vip, vip)), said(Word::Announced));
        assert_eq!(read(&arp(ME.mac.0, ARP_REPLY, vip, other)), said(Word::Answered));
        assert_eq!(read(&arp(BROADCAST, ARP_REQUEST, other, vip)), None, "a question tells of nobody who has it");
        let whole = arp(ME.mac.0, ARP_REPLY, vip, other);
        assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
    }

    #[test]
    fn advertisements_are_told_apart() {
        let vip: Ipv6Addr = "fd00:192:168::1:240".parse().unwrap();
        let advertisement = |flags| {
            let message = [&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..], &vip.octets(), &[14, 1, 0, 0, 0, 0, 0, 0]].concat();
            let ethernet = [&ME.mac.0, &THEM.0[..], &IPV6].concat();
            [&ethernet[..], &[0x60, 0, 0, 0, 0, 40, ICMPV6, 255], &[0; 32], &message, &[2, 1], &THEM.0].concat()
        };
        assert_eq!(read(&advertisement(SOLICITED | 0x20)), Some((Word::Answered, vip.into(), THEM)));
        assert_eq!(read(&advertisement(0x20)), Some((Word::Announced, vip.into(), THEM)));
        let whole = advertisement(0);
        assert!((0..whole.len()).all(|length| read(&whole[..length]).is_none()));
    }

    #[test]
    fn questions_are_as_the_standards_have_them() {
        let arp = ME.question([192, 168, 1, 240].into());
        assert_eq!((arp.len(), &arp[38..]), (42, &[192, 168, 1, 240][..]));
        let solicitation = ME.question("fd00:192:168::1:240".parse().unwrap());
        assert_eq!((solicitation.len(), &solicitation[..6]), (86, &[0x33, 0x33, 0xff, 1, 2, 0x40][..]));
        // Summed up with its checksum, a message is all ones.
        let [addresses, message] = [&solicitation[22..54], &solicitation[54..]];
        assert_eq!(checksum(&[addresses, &[0, 0, 0, 32, 0, 0, 0, ICMPV6], message].concat()), 0);
    }
}
