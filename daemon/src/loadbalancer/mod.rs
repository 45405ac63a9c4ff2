//! MetalLB's layer-2 job: which Service gets which address, who answers for it on the LAN, and what is written where people look.
//!
//! ```text
//! allocator/    pure: pools, namespaces and Services in; wanted statuses, counts and tidings out
//! controller/   the allocator's IO: the Lease, watches, writes of statuses, Events
//! membership/   who lives, and what each member can announce
//! election      pure: who speaks for which address
//! announcer/    ARP and neighbour discovery for our addresses, on the node's interfaces
//! fuzz/         parsers as functions of any bytes
//! speaker/      the announcer's IO: which VIPs this node answers for, and what is told of it
//! ```
//! Elections are pure and stateless, so every node comes to the same answer from the same facts; the facts come from the API and from
//! the members themselves.

pub mod allocator;
pub mod announcer;
pub mod controller;
pub mod election;
pub mod fuzz;
pub mod membership;
pub mod speaker;
