//! Neighbour discovery over Ethernet (RFC 4861, RFC 4862): solicitations and advertisements, read, answered, announced.
//!
//! ```text
//!  Ethernet      IPv6                                     ICMPv6
//!  0        14   14                                  54   54                58         62          78
//!  | head   |    |6|..|length|58|255| source | dest. |    |135/136|0|check  | R S O    | target IP | options: type, length/8, ..
//! ```
//! Answers differ from MetalLB's where RFC 4861 (7.2.4) says so: the override flag is set, because a VIP is neither anycast nor
//! proxied, and a client that still knows the last node's MAC has to believe the new one; duplicate address detection is answered to
//! all nodes; and a solicitation without its sender's MAC, or to the VIP itself, is answered like any other.

use std::net::Ipv6Addr;

use super::ethernet::{self, Frame};
use crate::netlink::mac::Mac;

/// Bytes of an IPv6 head.
const IP: usize = 40;
/// Bytes of a solicitation or an advertisement before its options (RFC 4861, 4.3 and 4.4).
const MESSAGE: usize = 24;
/// Bytes of a frame with one advertisement and our MAC.
pub const FRAME: usize = ethernet::HEADER + IP + MESSAGE + LINK_LAYER;
/// Bytes of a frame with a solicitation that does not say who asks.
pub const PROBE: usize = ethernet::HEADER + IP + MESSAGE;
/// Bytes of an option that says a MAC.
const LINK_LAYER: usize = 8;

const ICMPV6: u8 = 58;
/// The hop limit that proves that no router passed it on.
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Flags of an advertisement: it answers a solicitation; it replaces what is known.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// `ff02::1`, and its MAC.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Where advertisements for everybody go.
pub const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// A solicitation or an advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which of them.
    pub kind: Kind,
    /// Who sent it; `::` is a host that looks whether its address is free (RFC 4862, 5.4).
    pub source: Ipv6Addr,
    /// The address asked for, or advertised.
    pub target: Ipv6Addr,
    /// The MAC that the sender says: its own in a solicitation, the target's in an advertisement.
    pub link_layer: Option<Mac>,
}

/// The two messages that concern us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has the target?
    Solicitation,
    /// The target is here.
    Advertisement,
}

/// Why a frame is none that neighbour discovery can be read from. From [`NdpError::HopLimit`] on: RFC 4861, 7.1.1 and 7.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NdpError {
    /// Fewer bytes than the frame has to have, or than it says.
    #[error("truncated")]
    Truncated,
    /// Another EtherType or version, another protocol next (also one in extension headers: RFC 6980), or another message.
    #[error("not neighbour discovery")]
    NotNdp,
    /// It came through a router.
    #[error("hop limit is not 255")]
    HopLimit,
    /// The sum over pseudo header and message is wrong.
    #[error("wrong checksum")]
    Checksum,
    /// Code is not 0.
    #[error("code is not 0")]
    Code,
    /// A group, or nothing at all, has no MAC.
    #[error("its target is no host")]
    Target,
    /// One of length 0 would never end, one beyond the end is cut short, one of a MAC has eight bytes.
    #[error("an option has a wrong length")]
    Option,
    /// A group cannot send; a sender without address asks a solicited-node group, and does not say a MAC.
    #[error("its sender is none")]
    Sender,
    /// An answer that was asked for goes to who asked.
    #[error("a solicited answer to a group")]
    SolicitedGroup,
}

impl Message {
    /// Reads a frame. What follows the IPv6 packet is padding.
    ///
    /// # Errors
    /// See [`NdpError`]; any bytes may come.
    pub fn parse(frame: &[u8]) -> Result<(Frame<'_>, Self), NdpError> {
        let frame = Frame::parse(frame).ok_or(NdpError::Truncated)?;
        if frame.ethertype != ethernet::IPV6 {
            return Err(NdpError::NotNdp);
        }
        let (head, rest) = frame.payload.split_first_chunk::<IP>().ok_or(NdpError::Truncated)?;
        if head[0] >> 4 != 6 || head[6] != ICMPV6 {
            return Err(NdpError::NotNdp);
        }
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let message = rest.get(..length).ok_or(NdpError::Truncated)?;
        let (fixed, options) = message.split_first_chunk::<MESSAGE>().ok_or(NdpError::Truncated)?;
        let kind = match fixed[0] {
            SOLICITATION => Kind::Solicitation,
            ADVERTISEMENT => Kind::Advertisement,
            _ => return Err(NdpError::NotNdp),
        };
        if head[7] != HOP_LIMIT {
            return Err(NdpError::HopLimit);
        }
        let (source, destination) = (address(&head[8..24]), address(&head[24..]));
        if checksum(source, destination, message) != 0 {
            return Err(NdpError::Checksum);
        }
        if fixed[1] != 0 {
            return Err(NdpError::Code);
        }
        let target = address(&fixed[8..]);
        if target.is_multicast() || target.is_unspecified() {
            return Err(NdpError::Target);
        }
        let wanted = match kind {
            Kind::Solicitation => SOURCE_LINK_LAYER,
            Kind::Advertisement => TARGET_LINK_LAYER,
        };
        let link_layer = link_layer(options, wanted)?;
        let message = Self { kind, source, target, link_layer };
        message.check(destination, fixed[4] & SOLICITED != 0, frame.source)?;
        Ok((frame, message))
    }

    fn check(&self, destination: Ipv6Addr, solicited: bool, from: Mac) -> Result<(), NdpError> {
        if self.source.is_multicast() || !from.is_unicast() || self.link_layer.is_some_and(|mac| !mac.is_unicast()) {
            return Err(NdpError::Sender);
        }
        match self.kind {
            Kind::Solicitation if self.source.is_unspecified() => {
                let proper = is_solicited_node(destination) && self.link_layer.is_none();
                if proper { Ok(()) } else { Err(NdpError::Sender) }
            }
            Kind::Advertisement if self.source.is_unspecified() => Err(NdpError::Sender),
            Kind::Advertisement if solicited && destination.is_multicast() => Err(NdpError::SolicitedGroup),
            Kind::Solicitation | Kind::Advertisement => Ok(()),
        }
    }

    /// The answer to this solicitation: its target is at `mac`. It is sent from the address `from`, to the asker; if the asker
    /// has no address yet, to all nodes, and not as an answer (RFC 4861, 7.2.4). `asker` is where the solicitation's frame came from.
    #[must_use]
    pub fn answer(&self, mac: Mac, from: Ipv6Addr, asker: Mac) -> [u8; FRAME] {
        if self.source.is_unspecified() {
            return advertisement(self.target, mac, from, (ALL_NODES, ALL_NODES_MAC), OVERRIDE);
        }
        advertisement(self.target, mac, from, (self.source, self.link_layer.unwrap_or(asker)), SOLICITED | OVERRIDE)
    }
}

/// The frame that tells everybody that `ip` is at `mac`, sent from the address `from`.
#[must_use]
pub fn unsolicited(ip: Ipv6Addr, mac: Mac, from: Ipv6Addr) -> [u8; FRAME] {
    advertisement(ip, mac, from, (ALL_NODES, ALL_NODES_MAC), OVERRIDE)
}

/// The frame that asks whether anybody has `ip`, without saying that we do: duplicate address detection's (RFC 4862, 5.4.2).
#[must_use]
pub fn probe(ip: Ipv6Addr, mac: Mac) -> [u8; PROBE] {
    let mut message = [0; MESSAGE];
    message[0] = SOLICITATION;
    message[8..].copy_from_slice(&ip.octets());
    let mut frame = [0; PROBE];
    let destination = (solicited_node(ip), solicited_node_mac(ip));
    write(&mut frame, mac, Ipv6Addr::UNSPECIFIED, destination, &mut message);
    frame
}

/// The group that is asked for an address: `ff02::1:ff` and its last three bytes (RFC 4291, 2.7.1).
#[must_use]
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// That group's MAC: `33:33` and its last four bytes (RFC 2464, 7).
#[must_use]
pub fn solicited_node_mac(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c] = ip.octets();
    Mac([0x33, 0x33, 0xff, a, b, c])
}

fn is_solicited_node(ip: Ipv6Addr) -> bool {
    ip == solicited_node(ip)
}

fn advertisement(target: Ipv6Addr, mac: Mac, from: Ipv6Addr, destination: (Ipv6Addr, Mac), flags: u8) -> [u8; FRAME] {
    let mut message = [0; MESSAGE + LINK_LAYER];
    message[0] = ADVERTISEMENT;
    message[4] = flags;
    message[8..MESSAGE].copy_from_slice(&target.octets());
    message[MESSAGE] = TARGET_LINK_LAYER;
    message[MESSAGE + 1] = 1;
    message[MESSAGE + 2..].copy_from_slice(&mac.0);
    let mut frame = [0; FRAME];
    write(&mut frame, mac, from, destination, &mut message);
    frame
}

/// Puts a message, with its checksum, behind its heads. The frame has room for all three.
fn write(frame: &mut [u8], mac: Mac, from: Ipv6Addr, (to, to_mac): (Ipv6Addr, Mac), message: &mut [u8]) {
    let sum = checksum(from, to, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    if let Some((head, packet)) = frame.split_first_chunk_mut() {
        ethernet::write(head, to_mac, mac, ethernet::IPV6);
        packet[0] = 6 << 4;
        packet[4..6].copy_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes());
        packet[6] = ICMPV6;
        packet[7] = HOP_LIMIT;
        packet[8..24].copy_from_slice(&from.octets());
        packet[24..IP].copy_from_slice(&to.octets());
        packet[IP..].copy_from_slice(message);
    }
}

/// The MAC of the first option of this type. All options are looked at: one wrong length spoils the message (RFC 4861, 7.1.1).
fn link_layer(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, NdpError> {
    let mut found = None;
    while let [kind, eighths, ..] = *options {
        let length = usize::from(eighths) * 8;
        if length == 0 {
            return Err(NdpError::Option);
        }
        let (option, rest) = options.split_at_checked(length).ok_or(NdpError::Option)?;
        if kind == wanted {
            let mac = Mac::from_slice(&option[2..]).ok_or(NdpError::Option)?;
            found = found.or(Some(mac));
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(NdpError::Option) }
}

fn address(bytes: &[u8]) -> Ipv6Addr {
    <[u8; 16]>::try_from(bytes).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
}

/// The sum over pseudo header and message (RFC 4443, 2.3): of a message with a right one in place, 0.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
    };
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + length + u32::from(ICMPV6) + words(message);
    while let (carry @ 1.., low) = (sum >> 16, sum & 0xffff) {
        sum = carry + low;
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
