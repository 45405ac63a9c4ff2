//! Answering for addresses that no interface has.
pub mod arp;
pub mod ethernet;
pub mod exclusions;
pub mod filter;
mod groups;
pub mod interface;
pub mod ndp;
pub mod socket;
