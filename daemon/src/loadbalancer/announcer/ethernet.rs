//! The head of an Ethernet frame (IEEE 802.3): destination, source, EtherType.
//!
//! A VLAN tag is never seen here: the kernel takes it off before a socket of one EtherType gets the frame
//! (`__netif_receive_skb_core`, `skb_vlan_untag`), and gives the frame to the VLAN's own interface.

use crate::netlink::mac::Mac;

/// Bytes of the head.
pub const HEADER: usize = 14;
/// `ETH_P_ARP`
pub const ARP: u16 = 0x0806;
/// `ETH_P_IPV6`
pub const IPV6: u16 = 0x86dd;

/// A frame whose head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// To whom: one host, a group, or all.
    pub destination: Mac,
    /// Which host put it on the wire.
    pub source: Mac,
    /// What the payload is.
    pub ethertype: u16,
    /// What follows the head, padding included.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the head; `None` if it is cut short.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, payload) = bytes.split_first_chunk::<HEADER>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *head;
        Some(Self {
            destination: Mac([d0, d1, d2, d3, d4, d5]),
            source: Mac([s0, s1, s2, s3, s4, s5]),
            ethertype: u16::from_be_bytes([t0, t1]),
            payload,
        })
    }
}

/// Writes a head at the beginning of a frame.
pub(super) fn write(frame: &mut [u8; HEADER], destination: Mac, source: Mac, ethertype: u16) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
    frame[12..].copy_from_slice(&ethertype.to_be_bytes());
}
