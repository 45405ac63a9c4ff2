//! MetalLB's job: who announces which VIP, and how the LAN is told.
//!
//! ```text
//! membership ──► election ──► announcer
//! who lives      who speaks   ARP, NDP
//! ```
//! Elections are pure and stateless, so every node comes to the same answer from the same facts; the facts come from the API and from
//! the members themselves.

pub mod election;
pub mod membership;
