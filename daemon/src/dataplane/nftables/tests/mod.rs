//! The plane against the kernel in a namespace of its own, and against the fake.

mod cost;
mod fake;
mod fixtures;
mod golden;
mod histories;
mod kernel;
pub(super) mod namespace;
mod strangers;
