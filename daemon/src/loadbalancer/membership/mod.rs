//! Who of the announcers is alive, what each can announce on, and what it holds.
//!
//! ```text
//! socket ──► Driver ──► Membership ──► Change      verdict: who is gone, and which of the three faults it is
//!   ▲         │  ▲          │                      seal:    every datagram encrypted, fresh, and for its receiver
//!   └─────────┘  └─ probes ─┘                      fence:   when to withdraw, and when not to take over
//! ```
//! [`Membership`] has no IO, no clock and no randomness of its own: time is an argument, datagrams go in and out as bytes, so the tests
//! play minutes of fifty nodes under loss, jitter, stalls and partitions in virtual time.
//!
//! How it works. Who the members could be is known from the API (the *roster*), so nothing has to be discovered. Every member sends a
//! beat to each of its *watchers* every 100 ms, and to everybody else every second; a beat says when the next one is due, so nobody
//! expects what was not promised. The watchers are the next eight on a ring ordered by hash, so the cost per node is the same in a
//! cluster of 10 and of 250. Who misses beats asks directly, and probes the peer's kernel meanwhile. Who still hears nothing accuses,
//! in its beats; a member that most of its watchers accuse is down, and everybody who hears both agrees. Why not SWIM, as DESIGN.md
//! had it: docs/decisions/membership.md.

mod codec;
mod core;
mod driver;
mod facts;
pub mod fence;
pub(super) mod fuzz;
mod handover;
mod lateness;
mod options;
mod peer;
mod ring;
mod seal;
#[cfg(test)]
mod tests;
mod transfer;
mod verdict;
mod wire;

pub use self::core::{Change, Member, Membership, Output, Refused};
pub use driver::{Counts, Driver, DriverError, Handle, View};
pub use facts::{Facts, FactsError, Hold, NetworkInterface};
pub use handover::HandOver;
pub use options::{DEFAULT_PORT, Options};
pub use seal::{KEY_BYTES, Key, Session};
pub use verdict::{Cause, Evidence, Fault, State};
pub use wire::{Departure, WireError};
