//! Announcing: which VIPs this node answers for, and what is told of it. MetalLB's speaker.
//!
//! ```text
//! source ─► Tap ─► Rules (pools, L2Advertisements, our Node) ─┐
//! sync loop ─► Published (VIPs, labels, endpoints) ───────────┼─► decide ─► Desk ─► Announcer (ARP, NDP)
//! Announcer ─► interfaces ────────────────────────────────────┘                └─► Events, metrics, /healthz
//! ```
//! `rules`, `decide`, `told` and `words` have no IO; `desk` is the loop, on a thread of its own. Nothing but the loop is there while
//! there is no pool or no L2Advertisement: no socket, and nobody looks at interfaces.
//!
//! This node elects among itself alone, so the daemon starts it where there is no other: beside a directory of manifests.

mod account;
mod conflicts;
mod decide;
mod desk;
mod interfaces;
mod rules;
mod told;
mod words;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use compact_str::CompactString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::desk::Desk;
use super::announcer;
use crate::health::ProxyHealth;
use crate::metrics::SpeakerMetrics;
use crate::table::Published;

pub use self::account::{Account, Announced, Elected, VipAccount};
pub use self::rules::{Rules, Tap};

/// What the speaker is told at its start.
#[derive(Clone, Debug)]
pub struct SpeakerOptions {
    /// Name of our Node: what the election hashes.
    pub node: Arc<str>,
    /// Only Services of this `loadBalancerClass` (`--lb-class`); `None`: only those without one.
    pub class: Option<CompactString>,
    /// Interfaces that never announce, and how often all is announced again.
    pub announcer: announcer::Options,
}

/// What it reads and where it is seen.
#[derive(Debug)]
pub struct Surroundings {
    /// What counts, from a [`Tap`].
    pub rules: watch::Receiver<Arc<Rules>>,
    /// The Services.
    pub published: Arc<Published>,
    /// Whose kernel rules come before the first announcement; and where problems are told.
    pub health: Arc<ProxyHealth>,
    /// MetalLB's metrics, and ours.
    pub metrics: Arc<SpeakerMetrics>,
}

/// Starts announcing in the network namespace of the calling thread, until cancelled; then nobody answers any more.
///
/// # Errors
/// No thread, or no runtime for it.
pub fn spawn(options: SpeakerOptions, surroundings: Surroundings, cancel: CancellationToken) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let desk = Desk::new(options, surroundings);
    let run = move || {
        runtime.block_on(cancel.run_until_cancelled(desk.run()));
    };
    std::thread::Builder::new().name("speaker".into()).spawn(run)
}
