//! sheave: Kubernetes Services in the kernel of this node.
//!
//! ```text
//! source -> model -> policy -> table -> dataplane -> kernel
//! ```
//! One direction. `policy` and `table` are pure; one task owns the index and the table; see `docs/architecture.md`.

pub mod admin;
#[cfg(test)]
mod captured_log;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod health;
mod http_server;
pub mod loadbalancer;
pub mod log_filter;
pub mod metrics;
pub mod migration;
pub mod model;
pub mod netlink;
pub mod policy;
pub mod reconciler;
mod regular_file;
mod retry;
pub mod source;
pub mod table;
mod user_namespace;
