//! Announcing: which VIPs this node answers for, and what is told of it. MetalLB's speaker.
//!
//! ```text
//! source ─► Tap ─► Rules (pools, L2Advertisements) ─────────┐
//!            └─► PeerFollower ─► Peers (Nodes) ─► Company ──┤       ┌─► Announcer (ARP, NDP)
//! sync loop ─► Published (VIPs, labels, endpoints) ─────────┼─► decide ─► Desk ─► Company: facts for the other members
//! Announcer ─► interfaces ──────────────────────────────────┤       └─► Record: Events, ServiceL2Statuses, our Lease
//! members, Leases of others ─► Company ─► field, caution ───┘       └─► metrics, /healthz, Account
//! ```
//! `rules`, `field`, `caution`, `decide`, `holdings`, `told` and `words` have no IO; `desk` is the loop, on a thread of its own. Nothing
//! but the loop is there while this node may not announce: no socket, no membership, and nobody looks at interfaces.
//!
//! Beside a directory of manifests there is no cluster, so this node elects among itself alone, by the same code.

mod account;
mod caution;
mod company;
mod conflicts;
mod decide;
mod desk;
mod field;
mod holdings;
mod interfaces;
mod members;
mod peers;
mod probing;
pub mod record;
mod rivals;
mod rules;
mod summary;
mod told;
mod words;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::{fmt, io};

use compact_str::CompactString;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::desk::Desk;
use self::record::Record;
use super::announcer::{self, Prober};
use super::membership::Departure;
use super::{election, membership};
use crate::health::ProxyHealth;
use crate::metrics::SpeakerMetrics;
use crate::table::Published;

pub use self::account::{Account, Announced, Elected, VipAccount};
pub use self::desk::HAND_OVER;
pub use self::peers::{PeerFollower, Peers};
pub use self::rules::{Rules, Tap};
pub use self::words::Word;

/// What the speaker is told at its start.
#[derive(Clone, Debug)]
pub struct SpeakerOptions {
    /// Name of our Node: what the election hashes.
    pub node: Arc<str>,
    /// Only Services of this `loadBalancerClass` (`--lb-class`); `None`: only those without one.
    pub class: Option<CompactString>,
    /// Interfaces that never announce, and how often all is announced again.
    pub announcer: announcer::Options,
    /// What the cluster's administrator chose.
    pub election: election::Options,
    /// The UDP port at which announcers hear each other.
    pub port: u16,
    /// How quick the membership is, and how patient.
    pub membership: membership::Options,
}

/// What it reads and where it is seen.
#[derive(Debug)]
pub struct Surroundings {
    /// What counts, from a [`Tap`].
    pub rules: watch::Receiver<Arc<Rules>>,
    /// The others; `None`: this node is alone.
    pub cluster: Option<Cluster>,
    /// The Services.
    pub published: Arc<Published>,
    /// Whose kernel rules come before the first announcement; and where problems are told.
    pub health: Arc<ProxyHealth>,
    /// MetalLB's metrics, and ours.
    pub metrics: Arc<SpeakerMetrics>,
    /// Of the controller beside this speaker, if there is one: it learns which MACs are other announcers', in nobody's way.
    pub prober: Option<Prober>,
}

/// The others.
pub struct Cluster {
    /// The Nodes, from a [`PeerFollower`].
    pub peers: watch::Receiver<Arc<Peers>>,
    /// Begins to write and read at the API server. It is called once this node may announce, from another runtime.
    pub record: Box<dyn Fn() -> Record + Send>,
}

/// A speaker at work.
#[derive(Debug)]
pub struct Speaker {
    thread: JoinHandle<()>,
    departure: oneshot::Sender<Departure>,
    account: watch::Receiver<Arc<Account>>,
}

/// Starts announcing in the network namespace of the calling thread. When cancelled it ends at once, and nobody answers any more.
///
/// # Errors
/// No thread, or no runtime for it.
pub fn spawn(options: SpeakerOptions, surroundings: Surroundings, cancel: CancellationToken) -> io::Result<Speaker> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (departure, asked) = oneshot::channel();
    let (desk, account) = Desk::new(options, surroundings, asked);
    let run = move || {
        runtime.block_on(cancel.run_until_cancelled(desk.run()));
    };
    let thread = std::thread::Builder::new().name("speaker".into()).spawn(run)?;
    Ok(Speaker { thread, departure, account })
}

impl Speaker {
    /// What it knows of every VIP.
    #[must_use]
    pub fn account(&self) -> watch::Receiver<Arc<Account>> {
        self.account.clone()
    }

    /// Ends it. By [`Departure::Leave`] its VIPs are answered for until others do, for [`HAND_OVER`] at the most; by
    /// [`Departure::Restart`] they stay with this node, and the others wait for its next daemon.
    pub async fn depart(self, departure: Departure) {
        // One that was cancelled has ended.
        let _ = self.departure.send(departure);
        // One that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("peers", &self.peers).finish_non_exhaustive()
    }
}
