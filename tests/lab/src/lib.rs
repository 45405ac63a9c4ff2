//! A small network in namespaces: a node under test, a remote node, pods, a LAN and clients outside.
//!
//! ```text
//!   client 203.0.113.2 --+                                   +-- test-node 192.168.0.2 -- pods 10.x.y.z
//!                        +-- router 203.0.113.1/192.168.0.1 -+
//!   more outside hosts --+      (bridges `wan` and `lan`)    +-- remote    192.168.0.3 -- pods 10.x.y.z
//!                                                            +-- hosts on the LAN
//! ```
//! Where that is not the network one wants, a [`Switchboard`] wires machines to any number of bridges.
//!
//! Everything exists twice, in IPv4 and in IPv6: [`twin`] maps an IPv4 address of the plan to its IPv6 address.
//!
//! The lab knows nothing of sheave. It makes networks, answers on ports, asks like a client and reports what happened:
//!
//! ```no_run
//! use sheave_lab::{Lab, Port, enter_sandbox};
//! # fn main() -> sheave_lab::Result<()> {
//! enter_sandbox()?; // first thing in main, while there is one thread
//! let lab = Lab::new()?;
//! let (a, b) = (lab.pod("a", "10.180.0.1")?, lab.remote_pod("b", "10.180.2.1")?);
//! b.serve(&[Port::tcp(80)])?;
//! assert_eq!(a.tcp("10.180.2.1:80")?.by(), Some("b"));
//! # Ok(()) }
//! ```
//!
//! A namespace lives as long as an open descriptor of it: there are no bind mounts, so nothing is left behind, however the
//! process ends. Traffic exists inside the namespaces only.

mod address;
mod capability;
mod client;
mod error;
mod flow;
mod host;
mod link;
mod namespace;
mod packet_socket;
mod pod;
mod process;
mod recorder;
mod relay;
mod sandbox;
mod server;
mod switchboard;
mod topology;

pub use address::{twin, twin_net};
pub use capability::{Capability, UnknownCapability};
pub use client::{Answer, Outcome, Request, Tally};
pub use error::{Error, Result};
pub use flow::{FreshFlows, FreshReport, TcpFlow, TcpReport, UdpFlow, UdpReport};
pub use host::{Host, Node};
pub use namespace::Namespace;
pub use process::{Finished, Process};
pub use recorder::{Mac, Questions, Recorder, Sighting, Word};
pub use relay::{BadLink, Direction, Fate, Traffic};
pub use sandbox::enter_sandbox;
pub use server::{Port, Protocol};
pub use switchboard::{Cable, Switchboard};
pub use topology::Lab;
