//! The kernel doors.
//!
//! ```text
//! nft::Batch --(the same bytes)--> nft::KernelNft  one sendmsg, one transaction
//!                              \-> nft::FakeNft    the kernel's rules, in memory
//! nft::Monitor    what others did to our table
//! ipset           names of sets, and the end of one
//! ipvs            virtual servers, and the end of one
//! xtables         chains of iptables-legacy's tables
//! conntrack       UDP flows that outlived their backend
//! links           interfaces, followed; route: addresses alone
//! ```
//! Each door is synchronous: nfnetlink queues every reply before `sendmsg` returns, so there is nothing to wait for, and a
//! large transaction holds its thread for as long as the kernel needs. Callers own a thread.
//!
//! A socket belongs to the network namespace of the thread that opened it, for as long as it lives.
//!
//! Not here: what to write (`dataplane`), which flows are stale (the reconciliation policy), and anything that needs no netlink.

pub mod attr;
pub mod condition;
pub mod conntrack;
pub mod ipset;
pub mod ipvs;
pub mod links;
pub mod mac;
pub mod message;
pub mod nft;
pub mod route;
pub mod socket;
pub mod xtables;

#[cfg(test)]
mod robustness;
#[cfg(test)]
pub(crate) mod testns;
