//! The load balancer: which Service gets which address, who answers for it on the LAN, and what is written where people look.
//!
//! ```text
//! allocator/    pure: pools, namespaces and Services in; wanted statuses, counts and tidings out
//! controller/   the allocator's IO: the Lease, watches, writes of statuses, Events
//! ```

pub mod allocator;
pub mod controller;
