//! What sheave is tested with: an API server double, a runner that gives each scenario a process and a network of its own, and a
//! world with the real daemon in it.

pub mod apiserver;
pub mod confinement;
pub mod scenario;
pub mod world;
