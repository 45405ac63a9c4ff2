//! What the scenarios stand on: a runner that gives each a process and a network of its own, and a world with the real daemon in it.

pub mod scenario;
pub mod world;
