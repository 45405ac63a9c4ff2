//! The daemon's rooms, one after the other on one thread, with a clock at each door.
//!
//! ```text
//! JSON ─► decode ─► Index ─► policy ─► ServiceTable ─► publish ─► Dataplane: encode, kernel
//! ```
//! These are the pieces that the sync loop drives, driven in its order; what is missing is the loop itself (its channel, its logs,
//! two wake-ups of threads), which [`super::in_process`] measures.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sheave::dataplane::nftables::NftablesPlane;
use sheave::dataplane::{Commit, Dataplane as _};
use sheave::netlink::nft::KernelNft;
use sheave::policy;
use sheave::reconciler::{Purpose, Reconciler};
use sheave::source::{Change, Kind};
use sheave::table::{Detector, NodePortAddresses, NodeState, Published};

use super::objects::{Decoder, Document};
use crate::allocations::Allocations;
use crate::machine;
use crate::proxy::CLUSTER_CIDR;

/// A node of the load: one endpoint in a hundred is local.
const NODE: &str = "node-00000";

/// Everything from a decoder to the kernel of the namespace it was made in.
pub(super) struct Pipeline {
    decoder: Decoder,
    reconciler: Reconciler,
    plane: NftablesPlane,
    published: Published,
    /// The kernel has the table.
    loaded: bool,
}

/// What one sync took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// From JSON to objects.
    pub(super) decode: Duration,
    /// Objects into the index.
    pub(super) index: Duration,
    /// What each Service wants, evaluated once more on its own: the reconciler has no clock inside.
    pub(super) policy: Duration,
    /// The rest of the reconciler: conflicts, slots, the delta.
    pub(super) diff: Duration,
    /// For readers.
    pub(super) publish: Duration,
    /// The plane, outside the kernel.
    pub(super) encode: Duration,
    /// Inside `sendmsg` and what waits for the answer.
    pub(super) kernel: Duration,
    /// Processor time of all of it.
    pub(super) cpu: Duration,
    pub(super) allocations: Allocations,
    /// Elements written or deleted.
    pub(super) elements: u64,
    /// Bytes sent to the kernel.
    pub(super) bytes: u64,
    pub(super) transactions: u32,
}

impl Cost {
    /// From the first byte decoded to the kernel's last acknowledgement.
    pub(super) fn whole(&self) -> Duration {
        self.decode + self.index + self.policy + self.diff + self.publish + self.encode + self.kernel
    }
}

/// Processor time and allocations from here on, without what is left out.
struct Meter {
    cpu: Duration,
    allocations: Allocations,
}

impl Meter {
    fn start() -> Self {
        Self { cpu: machine::own_time(), allocations: Allocations::so_far() }
    }

    fn add_to(&self, cost: &mut Cost) {
        cost.cpu += machine::own_time().saturating_sub(self.cpu);
        let Allocations { count, bytes } = Allocations::so_far().since(self.allocations);
        cost.allocations.count += count;
        cost.allocations.bytes += bytes;
    }
}

impl Pipeline {
    /// Nothing known, and nothing in the kernel of this thread's namespace.
    pub(super) fn start() -> Result<Self> {
        let door = KernelNft::open().context("opening nf_tables")?;
        let context = policy::Context { node_name: NODE.into(), ..policy::Context::default() };
        let mut reconciler = Reconciler::new(context.clone());
        let everywhere = NodePortAddresses { match_all: true, ..NodePortAddresses::default() };
        let state = NodeState {
            detector: Detector::Cidrs(BTreeSet::from([CLUSTER_CIDR.parse().context("reading the pods' network")?])),
            node_ports_v4: everywhere.clone(),
            node_ports_v6: everywhere,
            ..NodeState::default()
        };
        reconciler.set_node(context, state);
        let (decoder, published, plane) = (Decoder::default(), Published::default(), NftablesPlane::new(Box::new(door)));
        Ok(Self { decoder, reconciler, plane, published, loaded: false })
    }

    /// Lists everything, as at a start or after a connection was lost. Documents are made as they are wanted, outside the clock.
    pub(super) fn list(&mut self, documents: impl Iterator<Item = Document>) -> Result<Cost> {
        const KINDS: [Kind; 5] = [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice];
        let mut cost = Cost::default();
        for kind in KINDS {
            self.reconciler.apply(Change::Listing(kind));
        }
        self.take_in(documents, &mut cost)?;
        let listed = Instant::now();
        for kind in KINDS {
            self.reconciler.apply(Change::Listed(kind));
        }
        cost.index += listed.elapsed();
        self.sync(&mut cost)?;
        Ok(cost)
    }

    /// Objects come or change, all in one sync.
    pub(super) fn apply(&mut self, documents: Vec<Document>) -> Result<Cost> {
        let mut cost = Cost::default();
        self.take_in(documents.into_iter(), &mut cost)?;
        self.sync(&mut cost)?;
        Ok(cost)
    }

    /// Objects go, all in one sync. A watch tells of a deletion with the whole object.
    pub(super) fn delete(&mut self, documents: &[Document]) -> Result<Cost> {
        let mut cost = Cost::default();
        let meter = Meter::start();
        for document in documents {
            let began = Instant::now();
            let change = document.deletion(&mut self.decoder)?;
            let decoded = Instant::now();
            self.reconciler.apply(change);
            cost.decode += decoded - began;
            cost.index += decoded.elapsed();
        }
        meter.add_to(&mut cost);
        self.sync(&mut cost)?;
        Ok(cost)
    }

    fn take_in(&mut self, documents: impl Iterator<Item = Document>, cost: &mut Cost) -> Result<()> {
        for document in documents {
            let meter = Meter::start();
            let began = Instant::now();
            let change = self.decoder.change(&document)?;
            let decoded = Instant::now();
            self.reconciler.apply(change);
            cost.decode += decoded - began;
            cost.index += decoded.elapsed();
            meter.add_to(cost);
        }
        Ok(())
    }

    fn sync(&mut self, cost: &mut Cost) -> Result<()> {
        let problems = self.reconciler.take_problems();
        ensure!(problems.is_empty(), "the load has broken objects: {problems:?}");
        let dirty = self.reconciler.take_dirty();
        let began = Instant::now();
        for key in dirty.services.keys() {
            let index = self.reconciler.index();
            if let Some(service) = index.service(key) {
                std::hint::black_box(policy::desired(service, index.slices(key), self.reconciler.context()));
            }
        }
        cost.policy += began.elapsed();

        let meter = Meter::start();
        let purpose = if self.loaded { Purpose::Delta } else { Purpose::Load };
        let (published, mut publish) = (&self.published, Duration::ZERO);
        let began = Instant::now();
        let reconciled = self.reconciler.reconcile(dirty, purpose, |committed, table| {
            let began = Instant::now();
            published.publish(committed, table);
            publish += began.elapsed();
        });
        cost.publish += publish;
        cost.diff += began.elapsed().saturating_sub(publish + cost.policy);

        let began = Instant::now();
        let delta = &reconciled.committed.delta;
        let commit = match purpose {
            Purpose::Load => self.plane.load(self.reconciler.table()).context("loading the table")?,
            Purpose::Delta if delta.is_empty() => Commit::default(),
            Purpose::Delta => self.plane.apply(delta, self.reconciler.table()).context("applying a change")?,
        };
        cost.kernel += commit.kernel;
        cost.encode += began.elapsed().saturating_sub(commit.kernel);
        meter.add_to(cost);
        cost.elements += commit.elements;
        cost.bytes += commit.bytes;
        cost.transactions += commit.transactions;
        self.loaded = true;
        // As the loop does when it has a moment.
        self.plane.finish().context("deleting affinity entries")?;
        Ok(())
    }
}
