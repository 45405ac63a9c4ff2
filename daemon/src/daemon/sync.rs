//! The sync loop: the one task that owns the index and the table.
//!
//! ```text
//! changes ─► Index ─► dirty Services ─► policy ─► ServiceTable ─► Delta ─► Dataplane ─► Published, marks, stale flows
//! ```
//! It runs on a thread of its own, since the kernel answers before `sendmsg` returns. Everything that waits in the channel when
//! it comes round is one sync, so a burst costs one commit, and a lone change waits for nobody.

mod rest_of_lists;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::rest_of_lists::RestOfLists;
use super::instruments::{Instruments, Took};
use super::localnet::Localnet;
use super::misgivings::{Misgivings, Surroundings};
use super::node::{self, NodeFacts};
use super::outage::{Matter, Outage};
use super::report::{Reporter, with_causes};
use super::stale_flows::{self, LeftBehind, StaleFlows, Suspects};
use super::watchman::Watchman;
use crate::config::Options;
use crate::dataplane::{Commit, Damage, Dataplane, PlaneError};
use crate::health::ProxyHealth;
use crate::metrics::Metrics;
use crate::model::ServiceKey;
use crate::netlink::route::LocalAddresses;
use crate::reconciler::{Purpose, Reconciled, Reconciler};
use crate::retry::Retry;
use crate::source::{Change, Mark};
use crate::table::Published;

/// Changes taken in before a sync, at most: a bound on how long a busy stream can hold back a commit.
const MOST_CHANGES_PER_SYNC: usize = 16_384;

/// Deferred work that failed is tried again after this, then after the double, up to the longest.
const FINISH_AGAIN: Duration = Duration::from_secs(1);
const FINISH_AT_LATEST: Duration = Duration::from_secs(30);

const AFFINITY: Matter = Matter {
    whose: "affinity entries of removed backends",
    fails: "affinity entries of removed backends not deleted",
    works: "affinity entries of removed backends are deleted",
};

/// What reaches the loop beside changes of objects.
#[derive(Debug)]
pub enum Control {
    /// Somebody else touched our table.
    Damage(Damage),
    /// The API server's addresses, known or changed.
    ApiServers(BTreeSet<IpAddr>),
    /// Another configuration, of the same node and the same source.
    Options(Arc<Options>),
}

/// Where the loop listens.
pub struct Inputs {
    /// From the source.
    pub changes: mpsc::Receiver<Change>,
    /// From the monitor and the API client.
    pub control: mpsc::Receiver<Control>,
    /// From rtnetlink.
    pub addresses: watch::Receiver<LocalAddresses>,
}

/// What the loop tells the outside.
#[derive(Clone)]
pub struct Outputs {
    /// The state, Service by Service.
    pub published: Arc<Published>,
    /// Marks whose content is in the kernel: the last of each stream.
    pub marks: watch::Sender<Vec<Mark>>,
    /// Warnings and events.
    pub reporter: Reporter,
    /// Where stale UDP flows are looked for.
    pub stale_flows: Option<StaleFlows>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// What the probes ask for.
    pub health: Arc<ProxyHealth>,
}

/// How far the kernel can be trusted to hold what the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// Nothing of this process is there yet.
    Unloaded,
    /// It holds the table's last generation.
    Current,
    /// A commit failed: only a load helps.
    Doubtful,
}

/// The loop's state.
pub struct SyncLoop {
    options: Arc<Options>,
    plane: Box<dyn Dataplane>,
    outputs: Outputs,
    instruments: Instruments,
    watchman: Option<Watchman>,
    reconciler: Reconciler,
    facts: NodeFacts,
    kernel: Kernel,
    /// Marks that came in since the last good commit.
    pending_marks: Vec<Mark>,
    retry: Retry,
    retry_at: Option<Instant>,
    /// Rules were missing for a while: any UDP flow may have begun without them, and be remembered as one that is not translated.
    flows_doubtful: bool,
    /// UDP frontends that changed or went since the last good commit. A load says nothing of those that are gone.
    suspect_flows: Suspects,
    /// What was served before this process began, until its rules are replaced.
    left_behind: Option<LeftBehind>,
    rest_of_lists: RestOfLists,
    /// Who waits for our rules to be complete.
    first_commit: Option<oneshot::Sender<()>>,
    /// When the plane's deferred work is due: affinity entries of removed backends.
    unfinished: Option<Instant>,
    finishing: Outage,
    /// Until when the next commit is put off (`minSyncPeriod`).
    held_until: Option<Instant>,
    localnet: Localnet,
    misgivings: Misgivings,
}

impl SyncLoop {
    /// A loop that has seen nothing yet.
    #[must_use]
    pub fn new(options: Arc<Options>, plane: Box<dyn Dataplane>, outputs: Outputs) -> Self {
        Self {
            reconciler: Reconciler::new(node::context(&options, None, std::iter::empty(), &NodeFacts::default())),
            options,
            plane,
            instruments: Instruments::new(outputs.metrics.clone(), outputs.health.clone()),
            finishing: Outage::new(AFFINITY, outputs.health.clone(), FINISH_AGAIN, FINISH_AT_LATEST),
            localnet: Localnet::forgetful(outputs.health.clone(), outputs.metrics.clone()),
            outputs,
            watchman: None,
            facts: NodeFacts::default(),
            kernel: Kernel::Unloaded,
            pending_marks: Vec::new(),
            retry: Retry::new(Duration::from_millis(500), Duration::from_secs(30)),
            retry_at: None,
            flows_doubtful: false,
            suspect_flows: Suspects::default(),
            left_behind: None,
            rest_of_lists: RestOfLists::default(),
            first_commit: None,
            unfinished: None,
            held_until: None,
            misgivings: Misgivings::default(),
        }
    }

    /// Sets `route_localnet`, and back, as this one remembers.
    #[must_use]
    pub(super) fn with_localnet(mut self, localnet: Localnet) -> Self {
        self.localnet = localnet;
        self
    }

    /// Cuts UDP flows to what was served before and is no more.
    #[must_use]
    pub(super) fn after(mut self, left_behind: Option<LeftBehind>) -> Self {
        self.left_behind = left_behind;
        self
    }

    /// Repairs what others break, as this one tells.
    #[must_use]
    pub fn watched_by(mut self, watchman: Watchman) -> Self {
        self.watchman = Some(watchman);
        self
    }

    /// Waits a little for pools before the first load: its source lists them.
    #[must_use]
    pub(super) fn awaiting_pools(mut self) -> Self {
        self.rest_of_lists = self.rest_of_lists.with_pools();
        self
    }

    /// Says so when everything that the source lists is in the kernel for the first time.
    #[must_use]
    pub fn telling_the_first_commit(mut self, told: oneshot::Sender<()>) -> Self {
        self.first_commit = Some(told);
        self
    }

    /// Serves IPv4 only: the kernel has no IPv6, or it is switched off.
    #[must_use]
    pub fn without_ipv6(mut self) -> Self {
        self.facts.ipv6_off = true;
        self
    }

    /// Runs until cancelled, or until the source is gone. The kernel keeps what it has: SIGTERM removes nothing.
    pub async fn run(mut self, mut inputs: Inputs, cancel: CancellationToken) {
        self.facts.local.clone_from(&inputs.addresses.borrow_and_update());
        self.node_changed();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                // Nobody left who could say anything is no reason to stop.
                Some(control) = inputs.control.recv() => self.take_control(control, &mut inputs.control),
                Ok(()) = inputs.addresses.changed() => {
                    self.facts.local.clone_from(&inputs.addresses.borrow_and_update());
                    self.node_changed();
                }
                change = inputs.changes.recv() => match change {
                    Some(change) => self.take_in(change, &mut inputs.changes),
                    None => {
                        tracing::error!("the source has ended");
                        return;
                    }
                },
                () = sleep_until(self.retry_at), if self.retry_at.is_some() => self.retry_at = None,
                () = sleep_until(self.held_until), if self.held_until.is_some() => self.held_until = None,
                () = sleep_until(self.rest_of_lists.until()), if self.rest_of_lists.until().is_some() => self.rest_of_lists.elapsed(),
                // Deferred work waits until nothing else does.
                () = sleep_until(self.unfinished), if self.unfinished.is_some() => {
                    self.finish();
                    continue;
                }
            }
            self.sync();
        }
    }

    fn take_in(&mut self, first: Change, more: &mut mpsc::Receiver<Change>) {
        self.take_one(first);
        for _ in 1..MOST_CHANGES_PER_SYNC {
            match more.try_recv() {
                Ok(change) => self.take_one(change),
                Err(_) => break,
            }
        }
    }

    fn take_one(&mut self, change: Change) {
        match change {
            Change::Mark(mark) => {
                // The last of each stream: while commits fail, bookmarks keep coming.
                self.pending_marks.retain(|older| older.stream != mark.stream);
                self.pending_marks.push(mark);
            }
            Change::Together(changes) => changes.into_iter().for_each(|change| self.take_one(change)),
            change => {
                self.instruments.take_in(&change);
                self.reconciler.apply(change);
            }
        }
    }

    /// A script that edits our table line by line is one repair, not one for each line.
    fn take_control(&mut self, first: Control, more: &mut mpsc::Receiver<Control>) {
        let mut damage: Option<Damage> = None;
        let mut next = Some(first);
        while let Some(control) = next {
            match (control, &mut damage) {
                (Control::ApiServers(addresses), _) => {
                    self.facts.api_servers = addresses;
                    self.node_changed();
                }
                (Control::Options(options), _) => {
                    self.options = options;
                    // A pause that nobody asks for any more is over.
                    self.held_until = None;
                    self.node_changed();
                }
                (Control::Damage(Damage::Elements(more)), Some(Damage::Elements(known))) => known.extend(more),
                // Writing everything mends the elements, too.
                (Control::Damage(Damage::Elements(_)), Some(Damage::Structure(_))) => {}
                (Control::Damage(other), known) => *known = Some(other),
            }
            next = more.try_recv().ok();
        }
        if let Some(damage) = damage {
            self.mend(&damage);
        }
    }

    /// Something about the node changed: policy's context (then every Service is looked at again) or the planes' inputs.
    fn node_changed(&mut self) {
        let index = self.reconciler.index();
        let node = index.node().map(|node| &**node);
        let context = node::context(&self.options, node, index.pools(), &self.facts);
        let state = node::node_state(&self.options, node, index.service_cidrs(), &self.facts);
        self.misgivings.set_surroundings(Surroundings::new(&self.options, index, &self.facts.local, &state));
        self.reconciler.set_node(context, state);
    }

    /// One sync: everything that is dirty goes through policy and table into one commit.
    fn sync(&mut self) {
        let problems = self.reconciler.take_problems();
        self.outputs.reporter.problems(problems, self.reconciler.index());
        if self.reconciler.index().is_complete() && self.reconciler.index().is_dirty() {
            self.instruments.queued();
        }
        // What changes nothing, such as a mark, has nothing to wait for.
        if self.held_until.is_some() && self.reconciler.is_dirty() {
            tracing::debug!("changes wait for minSyncPeriod");
            return;
        }
        // Until the first complete list of both kinds nothing in the kernel is touched.
        let index = self.reconciler.index();
        if !index.is_complete() || self.retry_at.is_some() {
            return;
        }
        if self.kernel == Kernel::Unloaded && self.rest_of_lists.are_awaited(index) {
            return;
        }
        let started = Instant::now();
        let dirty = self.reconciler.take_dirty();
        if dirty.node || dirty.service_cidrs || dirty.pools {
            self.node_changed();
        }
        // Readers see what the API wants even while the kernel refuses it: `explain` must be able to say so.
        self.instruments.sync_begins(&dirty, self.reconciler.index());
        let changed: Vec<ServiceKey> = dirty.services.keys().cloned().collect();
        let purpose = if self.kernel == Kernel::Current { Purpose::Delta } else { Purpose::Load };
        let (published, instruments, suspects) = (&self.outputs.published, &self.instruments, &mut self.suspect_flows);
        let Reconciled { services, committed } = self.reconciler.reconcile(dirty, purpose, |committed, table| {
            instruments.tally(committed);
            published.publish(committed, table);
            if purpose == Purpose::Load {
                suspects.merge(stale_flows::changed(&committed.delta, table));
            }
        });
        let decided = started.elapsed();
        if let Some(left_behind) = self.left_behind.take() {
            let known = std::mem::replace(&mut self.suspect_flows, left_behind.suspects(self.reconciler.table()));
            self.suspect_flows.merge(known);
        }
        if !self.reconciler.table().node().serves_localhost() {
            self.localnet.follow(false);
        }
        let outcome = match self.kernel {
            Kernel::Current if committed.delta.is_empty() => Ok(Commit::default()),
            Kernel::Current => {
                let outcome = self.plane.apply(&committed.delta, self.reconciler.table());
                self.or_load(outcome)
            }
            Kernel::Unloaded | Kernel::Doubtful => self.load(),
        };
        let took = Took { services, policy: decided, whole: started.elapsed() };
        if purpose == Purpose::Delta {
            // Only now: the kernel does not wait for it.
            self.suspect_flows.merge(stale_flows::changed(&committed.delta, self.reconciler.table()));
        }
        match outcome {
            Ok(commit) => self.committed(&commit, purpose, &took),
            Err(error) => self.failed(&error),
        }
        let index = self.reconciler.index();
        self.outputs.reporter.notices(committed.notices_raised, committed.notices_cleared, index);
        let misgivings = self.misgivings.look(changed, index, self.reconciler.table());
        self.outputs.reporter.misgivings(misgivings, index);
    }

    /// A refused change is most often the first sign of a table that somebody flushed: what helps is at hand.
    fn or_load(&mut self, outcome: Result<Commit, PlaneError>) -> Result<Commit, PlaneError> {
        outcome.or_else(|error| {
            self.instruments.refused();
            self.outputs.reporter.refused(self.plane.name(), &error);
            self.load()
        })
    }

    /// Writes everything that is ours.
    fn load(&mut self) -> Result<Commit, PlaneError> {
        self.flows_doubtful = true;
        let commit = self.load_plane()?;
        self.localnet.remember_again();
        Ok(commit)
    }

    /// With the monitor at rest. If somebody else may have changed our table meanwhile, once more.
    fn load_plane(&mut self) -> Result<Commit, PlaneError> {
        let Some(watchman) = &mut self.watchman else { return self.plane.load(self.reconciler.table()) };
        watchman.hold()?;
        let rest = watchman.rest();
        let outcome = self.plane.load(self.reconciler.table());
        let transactions = outcome.as_ref().map_or(0, |commit| commit.transactions);
        let others = watchman.wake(&rest, transactions);
        let first = outcome?;
        // Awake first: what happens from here on is told.
        if !others || self.plane.is_whole() {
            return Ok(first);
        }
        Ok(first.followed_by(self.plane.load(self.reconciler.table())?))
    }

    /// A load that undoes damage. Whoever did it may not have been done, and have pulled the table from under it: packets do not wait
    /// for the pause after a failure then. If it fails once more, the reason is another.
    fn load_again(&mut self) -> Result<Commit, PlaneError> {
        self.load().or_else(|error| {
            self.instruments.refused();
            tracing::debug!(error = with_causes(&error), "the repair failed, the whole table is written once more");
            self.load()
        })
    }

    fn committed(&mut self, commit: &Commit, purpose: Purpose, took: &Took) {
        self.kernel = Kernel::Current;
        self.instruments.synced(commit, purpose, took, self.reconciler.table().generation());
        if let Some(told) = self.first_commit.take() {
            // Nobody waits any more if the daemon is being stopped.
            let _ = told.send(());
        }
        self.retry.reset();
        if commit.transactions > 0 && self.options.min_sync_period > Duration::ZERO {
            self.held_until = Some(Instant::now() + self.options.min_sync_period);
        }
        if self.reconciler.table().node().serves_localhost() {
            self.localnet.follow(true);
        }
        self.finish_soon();
        // Whose the flows of Services that went before this process began are, can be told from now on.
        self.flows_doubtful |= self.rest_of_lists.have_come(self.reconciler.index());
        self.outputs.reporter.commit_succeeded();
        self.outputs.reporter.replaced(commit);
        self.outputs.reporter.fitting(commit, self.reconciler.index());
        self.look_for_stale_flows();
        let marks = std::mem::take(&mut self.pending_marks);
        // A relist, a bookmark or an edit of manifests that changes nothing is not worth a line.
        if commit.transactions > 0 {
            tracing::info!(
                generation = self.reconciler.table().generation(),
                services = took.services,
                elements = commit.elements,
                transactions = commit.transactions,
                policy_us = micros(took.policy),
                encode_us = micros(commit.encode),
                kernel_us = micros(commit.kernel),
                whole_us = micros(took.whole),
                mark = marks.last().map(|mark| mark.point.as_str()),
                "synced"
            );
        } else if let Some(mark) = marks.last() {
            tracing::debug!(target: "sheave::marks", mark = mark.point.as_str(), "nothing to change");
        }
        self.outputs.marks.send_modify(|known| {
            for mark in marks {
                known.retain(|old| old.stream != mark.stream);
                known.push(mark);
            }
        });
    }

    fn look_for_stale_flows(&mut self) {
        let all = std::mem::take(&mut self.flows_doubtful);
        let mut suspects = std::mem::take(&mut self.suspect_flows);
        if let Some(flows) = &self.outputs.stale_flows {
            if all {
                suspects.merge(stale_flows::all(self.reconciler.table(), self.reconciler.index().is_informed()));
            }
            flows.look_for(suspects);
        }
    }

    fn failed(&mut self, error: &PlaneError) {
        let wait = self.retry.next();
        self.kernel = if self.kernel == Kernel::Unloaded { Kernel::Unloaded } else { Kernel::Doubtful };
        self.retry_at = Some(Instant::now() + wait);
        self.instruments.failed(with_causes(error));
        self.outputs.reporter.commit_failed(self.plane.name(), error, wait, Instant::now());
    }

    fn mend(&mut self, damage: &Damage) {
        if self.kernel != Kernel::Current {
            return; // a load is due anyway
        }
        let outcome = match damage {
            Damage::Structure(_) => self.load_again(),
            Damage::Elements(_) => {
                let outcome = self.plane.repair(damage, self.reconciler.table());
                self.or_load(outcome)
            }
        };
        match outcome {
            Ok(commit) if commit.transactions == 0 => {}
            Ok(commit) => {
                self.outputs.reporter.replaced(&commit);
                self.outputs.reporter.fitting(&commit, self.reconciler.index());
                self.finish_soon();
                self.flows_doubtful = true;
                self.look_for_stale_flows();
                self.instruments.repaired(damage, &commit);
                self.outputs.reporter.repaired(damage, &commit);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Unless it has failed and is due later: commits do not bring the next attempt nearer.
    fn finish_soon(&mut self) {
        self.unfinished.get_or_insert_with(Instant::now);
    }

    fn finish(&mut self) {
        self.unfinished = None;
        self.instruments.fill(self.plane.fill());
        if self.kernel != Kernel::Current {
            return; // a load is due, and a commit after it
        }
        let outcome = self.plane.finish();
        let now = Instant::now();
        let Err(error) = outcome else {
            self.finishing.worked(now);
            return;
        };
        // What was committed stays in force; at worst a client of a removed backend is not sticky for a while.
        self.instruments.cleanup_failed();
        self.unfinished = Some(now + self.finishing.failed(now, &with_causes(&error)));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
