//! The controller: gives addresses to Services, and writes what it decided.
//!
//! ```text
//! elector ── holds the Lease ──► desk: changes ─► intake ─► allocator ─► queue ─► writes
//!    └─ loses it: the desk is dropped
//! ```
//! Only the replica that holds the Lease knows anything: it lists everything anew, from the store and not from a cache, when it begins
//! to lead. What a predecessor wrote a moment before is in that list, so no address is given twice. The status of a Service is the
//! only database.
//!
//! `beside` is the same decision without an API server: between a directory of manifests and the sync loop.
//!
//! ```text
//! lease.rs     client-go's rules, pure     intake.rs              what is told, in the allocator's terms
//! elector.rs   holding the Lease           desk.rs                the loop of the one that leads
//! queue.rs     one write at a time         status.rs              objects edited as JSON
//! health.rs    what probes are told        process.rs             `sheave controller`
//! vetting.rs   is it free?             configuration_state.rs, gossip_key.rs, words.rs
//! ```

mod beside;
mod configuration_state;
mod desk;
mod elector;
mod gossip_key;
mod health;
mod intake;
mod lease;
mod process;
mod queue;
mod status;
mod vetting;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::desk::{Desk, Writer};
use self::elector::{Elector, Tenure};
use self::intake::Intake;
use self::lease::Candidate;
use self::queue::WriteQueue;
use self::vetting::Vetting;
use super::allocator;
use super::announcer::Prober;
use crate::metrics::AllocatorMetrics;
use crate::model::load_balancer::Home;
use crate::source::Kind;
use crate::source::kube::{ApiServers, EventSink, KubeOptions, KubeSource, Watches};

pub use self::beside::Beside;
pub use self::gossip_key::{GOSSIP_KEY, GOSSIP_PREVIOUS, GOSSIP_SECRET};
use self::health::ControllerProbes;
pub use self::health::{ControllerHealth, Role};
pub use self::lease::{LeaseTiming, LeaseTimingError};
pub use self::process::{ControllerError, ControllerServers, serve};

/// Name of the Lease, unless another is given.
pub const LEASE: &str = "sheave-controller";
/// Who reports its Events: MetalLB's users look for them by this name.
const REPORTER: &str = "metallb-controller";
/// Changes on their way to the loop.
const CHANGES_QUEUED: usize = 1024;
/// What must have been listed before anything is decided.
const LISTED: [Kind; 5] = [Kind::AddressPool, Kind::Advertisement, Kind::Peer, Kind::Namespace, Kind::Service];

/// What the controller needs to know.
#[derive(Clone, Debug)]
pub struct ControllerOptions {
    /// The API server, and the namespace whose pools count.
    pub kube: KubeOptions,
    /// `--lb-class`: only Services of this class; `None`: only those without one.
    pub class: Option<CompactString>,
    /// Our own namespace, where the Lease and the Secret are.
    pub namespace: Arc<str>,
    /// Name of the Lease.
    pub lease: String,
    /// How long it lasts.
    pub timing: LeaseTiming,
    /// Who we are among the replicas: of no two processes the same.
    pub identity: String,
    /// Asks the LAN for an address before it is given out; `None` where this process is on no LAN of nodes.
    pub prober: Option<Prober>,
}

/// What others see of it.
#[derive(Clone, Debug)]
pub struct ControllerView {
    /// For probes.
    pub health: Arc<ControllerHealth>,
    /// For scrapes.
    pub metrics: Arc<AllocatorMetrics>,
}

impl ControllerOptions {
    /// Who we are: the host's name, and a number that no other process of it has. As client-go's, so that a pod which starts anew under
    /// the same name is another candidate.
    #[must_use]
    pub fn identity_at(host: &str) -> String {
        format!("{host}_{:016x}", rand::random::<u64>())
    }
}

/// Waits for the Lease and leads, until cancelled; then it is released.
pub async fn run(options: ControllerOptions, servers: Arc<ApiServers>, view: ControllerView, cancel: CancellationToken) {
    let ControllerOptions { namespace, lease, timing, identity, .. } = &options;
    let candidate = Candidate::new(identity.clone(), namespace, lease, *timing);
    let elector = Elector::new(candidate, (namespace, lease), servers.clone(), view.health.clone());
    // Events that were said before the Lease was lost may still be posted after it: they are true.
    let events = EventSink::reporting_as(REPORTER, servers.clone(), identity, cancel.clone());
    let (options, view, servers, events) = (&options, &view, &servers, &events);
    elector
        .run(cancel, async move |tenure, stop| {
            lead(options, servers.clone(), view, events.clone(), tenure, stop).await;
        })
        .await;
}

/// Everything that one does who leads.
async fn lead(
    options: &ControllerOptions,
    servers: Arc<ApiServers>,
    view: &ControllerView,
    events: EventSink,
    tenure: Tenure,
    stop: CancellationToken,
) {
    let home = options.kube.metallb_namespace.clone().map_or(Home::Detected, Home::Given);
    let desk = Desk {
        intake: Intake::new(allocator::Options { class: options.class.clone() }, home, &LISTED),
        writer: Writer { servers: servers.clone(), tenure, namespace: options.namespace.clone() },
        events,
        metrics: view.metrics.clone(),
        health: view.health.clone(),
        queue: WriteQueue::default(),
        under_way: FuturesUnordered::new(),
        pools: BTreeMap::new(),
        state: None,
        decided: false,
        told_ambiguous: false,
        prober: options.prober.clone(),
        vetting: Vetting::default(),
        waiting: BTreeSet::new(),
        asking: None,
    };
    let source = KubeSource::of(Watches::Controller, servers, options.kube.clone());
    view.metrics.follow(source.health());
    let _silent = SilenceAtTheEnd(&view.metrics);
    let (changes, told) = mpsc::channel(CHANGES_QUEUED);
    // The desk ends when the source has: it hears no more.
    tokio::join!(source.run(changes, stop.clone()), desk.run(told, stop));
}

/// However leading ends, nothing is told of pools any more.
struct SilenceAtTheEnd<'m>(&'m AllocatorMetrics);

impl Drop for SilenceAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.silence();
    }
}
