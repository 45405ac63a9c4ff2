//! Answering for addresses that no interface has: ARP (RFC 826) and neighbour discovery (RFC 4861), as MetalLB's layer 2 does.
//!
//! ```text
//!        Announcer (handle)  <-- events, statistics, interfaces
//!             | the addresses that this node announces
//! netlink::links --> Engine --> interface  who may announce      arp, ndp    frames
//!   which are up      |    --> gratuitous  when to announce      filter      what wakes us
//!                     |    --> responder   what a frame means    groups      where IPv6 asks
//!                     |    --> conflict    who else claims it    probe(r)    is it free?
//!                  PacketDoor (AF_PACKET, one per interface and family)
//! ```
//! `arp`, `ndp`, `filter`, `responder`, `gratuitous`, `conflict` and `interface` are pure: no IO, and the time is an argument.
//! `arp::Packet::parse`, `ndp::Message::parse` and `responder::hear` take any bytes.
//!
//! An address is never put on an interface: the kernel would answer on every interface of every node. Who announces is not decided
//! here.

pub mod arp;
pub mod conflict;
mod engine;
pub mod ethernet;
pub mod exclusions;
pub mod filter;
pub mod gratuitous;
mod groups;
pub mod interface;
pub mod ndp;
pub mod probe;
mod prober;
pub mod responder;
pub mod socket;
mod thread;
mod vip;

pub use engine::Event;
pub use prober::{ProbeError, Prober};
pub use thread::{Announcer, Options, StartError};
pub use vip::{Counters, Vip, VipStats};
