//! Addresses for Services of type LoadBalancer: what MetalLB does in layer 2.
//!
//! ```text
//! announcer    ARP and neighbour discovery for our addresses, on the node's interfaces
//! ```

pub mod announcer;
