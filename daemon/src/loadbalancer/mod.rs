//! The load balancer: which Service gets which address, who answers for it on the LAN, and what is written where people look.
//!
//! ```text
//! allocator/   pure: pools, namespaces and Services in; wanted statuses, counts and tidings out
//! ```

pub mod allocator;
