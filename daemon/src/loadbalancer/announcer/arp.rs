//! ARP over Ethernet for IPv4 (RFC 826): reading, answering, announcing, probing.
//!
//! ```text
//!  0      2      4   5   6      8          14        18         24        28
//!  | 1    |0x0800| 6 | 4 | op   | sender MAC| sender IP|target MAC| target IP|
//! ```
//! Frames are those that MetalLB sends: an answer goes to the asker alone; an announcement is broadcast, sender and target are both
//! the address, the target's MAC is all ones, once as a request and once as a reply, because some hosts learn from the one only and
//! some from the other (RFC 5227, 3).

use std::net::Ipv4Addr;

use super::ethernet::{self, Frame};
use crate::netlink::mac::Mac;

/// Bytes of an ARP packet for Ethernet and IPv4.
const PACKET: usize = 28;
/// Bytes of a frame that holds one. Whoever drives the wire fills it up to its minimum.
pub const FRAME: usize = ethernet::HEADER + PACKET;

/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// `ar_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target's IP?
    Request,
    /// The sender has the sender's IP.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is.
    pub operation: Operation,
    /// `ar_sha`
    pub sender_mac: Mac,
    /// `ar_spa`; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// `ar_tha`; nothing in a request.
    pub target_mac: Mac,
    /// `ar_tpa`
    pub target_ip: Ipv4Addr,
}

/// Why a frame is none that ARP can be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArpError {
    /// Fewer bytes than a frame has to have.
    #[error("truncated")]
    Truncated,
    /// Another EtherType.
    #[error("not ARP")]
    NotArp,
    /// Another hardware or protocol, or addresses of other lengths.
    #[error("not for Ethernet and IPv4")]
    Kind,
    /// Neither request nor reply: reverse ARP and others.
    #[error("neither request nor reply")]
    Operation,
    /// The sender's MAC, or that of its frame, is a group's or nothing: nobody can be answered there.
    #[error("its sender is no host")]
    Sender,
}

impl Packet {
    /// Reads a frame. What follows the packet is padding.
    ///
    /// # Errors
    /// See [`ArpError`]; any bytes may come.
    pub fn parse(frame: &[u8]) -> Result<(Frame<'_>, Self), ArpError> {
        let frame = Frame::parse(frame).ok_or(ArpError::Truncated)?;
        if frame.ethertype != ethernet::ARP {
            return Err(ArpError::NotArp);
        }
        let packet: &[u8; PACKET] = frame.payload.first_chunk().ok_or(ArpError::Truncated)?;
        let (kind, rest) = packet.split_at(KIND.len());
        if kind != KIND {
            return Err(ArpError::Kind);
        }
        let operation = match rest[..2] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return Err(ArpError::Operation),
        };
        let mac = |at: usize| Mac([packet[at], packet[at + 1], packet[at + 2], packet[at + 3], packet[at + 4], packet[at + 5]]);
        let ip = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
        let packet = Self { operation, sender_mac: mac(8), sender_ip: ip(14), target_mac: mac(18), target_ip: ip(24) };
        if !packet.sender_mac.is_unicast() || !frame.source.is_unicast() {
            return Err(ArpError::Sender);
        }
        Ok((frame, packet))
    }

    /// The frame that carries it to `destination`, from the sender's MAC.
    #[must_use]
    pub fn to(&self, destination: Mac) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        if let Some((head, packet)) = frame.split_first_chunk_mut() {
            ethernet::write(head, destination, self.sender_mac, ethernet::ARP);
            packet[..6].copy_from_slice(&KIND);
            packet[7] = match self.operation {
                Operation::Request => 1,
                Operation::Reply => 2,
            };
            packet[8..14].copy_from_slice(&self.sender_mac.0);
            packet[14..18].copy_from_slice(&self.sender_ip.octets());
            packet[18..24].copy_from_slice(&self.target_mac.0);
            packet[24..].copy_from_slice(&self.target_ip.octets());
        }
        frame
    }

    /// The answer to this request: what it asks for is at `mac`. To the asker alone.
    #[must_use]
    pub fn answer(&self, mac: Mac) -> [u8; FRAME] {
        let answer = Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        };
        answer.to(self.sender_mac)
    }
}

/// The two frames that tell everybody that `ip` is at `mac`: as a request, and as a reply.
#[must_use]
pub fn gratuitous(ip: Ipv4Addr, mac: Mac) -> [[u8; FRAME]; 2] {
    [Operation::Request, Operation::Reply].map(|operation| {
        let packet = Packet { operation, sender_mac: mac, sender_ip: ip, target_mac: Mac::BROADCAST, target_ip: ip };
        packet.to(Mac::BROADCAST)
    })
}

/// The frame that asks whether anybody has `ip`, without saying that we do (RFC 5227, 2.1.1).
#[must_use]
pub fn probe(ip: Ipv4Addr, mac: Mac) -> [u8; FRAME] {
    let packet = Packet {
        operation: Operation::Request,
        sender_mac: mac,
        sender_ip: Ipv4Addr::UNSPECIFIED,
        target_mac: Mac([0; 6]),
        target_ip: ip,
    };
    packet.to(Mac::BROADCAST)
}

#[cfg(test)]
mod tests;
