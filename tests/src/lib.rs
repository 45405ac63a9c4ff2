//! What sheave is tested with: an API server double, a runner that gives each scenario a process and a network of its own, a world with
//! the real daemon in it, and a LAN of several such nodes.

pub mod apiserver;
pub mod confinement;
pub mod lan;
pub mod scenario;
pub mod world;
