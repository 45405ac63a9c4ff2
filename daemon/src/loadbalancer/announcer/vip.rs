//! An address to announce, and what is counted of it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use compact_str::CompactString;

/// An address that this node is to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// On these interfaces, as far as they can announce; none: on every one that can.
    pub interfaces: Vec<CompactString>,
}

/// What happened for one address since this process first announced it. MetalLB's three counters.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    responses: AtomicU64,
    gratuitous: AtomicU64,
}

/// The values of [`Counters`], and where the address is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipStats {
    /// The address.
    pub address: IpAddr,
    /// Names of the interfaces on which it is announced now; none if it is not, or not any more.
    pub interfaces: Vec<CompactString>,
    /// Questions for it (`metallb_layer2_requests_received`).
    pub requests: u64,
    /// Answers sent (`metallb_layer2_responses_sent`).
    pub responses: u64,
    /// Frames sent without a question (`metallb_layer2_gratuitous_sent`): of a burst two over IPv4, one over IPv6, on each interface.
    pub gratuitous: u64,
}

impl Counters {
    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.responses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn announced(&self) {
        self.gratuitous.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self, address: IpAddr, interfaces: Vec<CompactString>) -> VipStats {
        let [requests, responses, gratuitous] =
            [&self.requests, &self.responses, &self.gratuitous].map(|counter| counter.load(Ordering::Relaxed));
        VipStats { address, interfaces, requests, responses, gratuitous }
    }
}
