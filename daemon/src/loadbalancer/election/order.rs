//! MetalLB's order of nodes.

use std::net::IpAddr;

use ring::digest::{SHA256, digest};

use crate::model::Labels;
use crate::model::load_balancer::Advertisement;

/// Nodes of one score are in the order of this, smallest first: SHA-256 of `node#address`, as raw bytes (reference: metallb-l2 3.2).
/// The address is written as Go does, IPv6 in the form of RFC 5952; Rust does the same.
#[must_use]
pub fn rank_digest(node: &str, vip: IpAddr) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, format!("{node}#{vip}").as_bytes()).as_ref());
    bytes
}

/// What `preferredNodeSelectors` say of a node: the weights of all that match, of every advertisement that selects the node.
#[must_use]
pub fn score(advertisements: &[&Advertisement], node: &Labels) -> u32 {
    let of_one = |advertisement: &&Advertisement| -> u32 {
        let matching = advertisement.preferences.iter().filter(|preference| preference.selector.matches(node));
        matching.map(|preference| u32::from(preference.weight)).sum()
    };
    advertisements.iter().filter(|advertisement| advertisement.selects_node(node)).map(of_one).sum()
}
