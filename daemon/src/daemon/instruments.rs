//! The loop's instruments: what it tells metrics and health, as things happen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::dataplane::{Commit, Damage, Fill};
use crate::health::ProxyHealth;
use crate::metrics::Metrics;
use crate::model::{Dirty, Family, Index};
use crate::reconciler::Purpose;
use crate::source::{Change, Kind, Object};
use crate::table::Committed;

/// Trigger times kept until a commit succeeds, at most: in an outage of hours the first ones are those that count.
const MOST_TRIGGERS: usize = 4096;

/// Owned by the loop.
pub(super) struct Instruments {
    metrics: Arc<Metrics>,
    health: Arc<ProxyHealth>,
    /// Trigger times before this belong to the past that we were not there for, nanoseconds since 1970.
    began: i64,
    /// When the changes were triggered that the next commit programs.
    triggers: Vec<(Family, i64)>,
    /// As last told.
    fill: Fill,
    /// Our Node has been seen since its list began.
    node_listed: bool,
}

impl Instruments {
    pub(super) fn new(metrics: Arc<Metrics>, health: Arc<ProxyHealth>) -> Self {
        Self {
            metrics,
            health,
            began: nanoseconds(Timestamp::now()),
            triggers: Vec::new(),
            fill: Fill::default(),
            node_listed: false,
        }
    }

    /// A change has come in.
    pub(super) fn take_in(&mut self, change: &Change) {
        let sync = &self.metrics.sync;
        let counted = match change {
            Change::Applied(Object::Service(_)) | Change::Deleted(Kind::Service, _) => &sync.service_changes,
            Change::Applied(Object::EndpointSlice(_)) | Change::Deleted(Kind::EndpointSlice, _) => &sync.endpoint_changes,
            Change::Applied(Object::Node(node)) => {
                self.node_listed = true;
                return self.health.node(node);
            }
            Change::Listing(Kind::Node) => {
                self.node_listed = false;
                return;
            }
            Change::Listed(Kind::Node) if self.node_listed => return,
            Change::Listed(Kind::Node) | Change::Deleted(Kind::Node, _) => return self.health.node_absent(),
            _ => return,
        };
        counted.total.inc();
        counted.pending.inc();
    }

    /// Something waits for a sync.
    pub(super) fn queued(&self) {
        self.health.queued(Instant::now());
        let now = seconds(Timestamp::now());
        self.metrics.sync.last_queued.each(|gauge| {
            gauge.set(now);
        });
    }

    /// A sync begins with this. Of each Service the oldest trigger counts, in each family that has it.
    pub(super) fn sync_begins(&mut self, dirty: &Dirty, index: &Index) {
        let triggered = dirty.services.iter().filter_map(|(key, trigger)| Some((key, (*trigger)?)));
        for (key, trigger) in triggered.filter(|(_, trigger)| *trigger >= self.began) {
            for family in Family::ALL {
                let has_it = index.slices(key).any(|slice| slice.family == family && slice.trigger_time == Some(trigger));
                if has_it && self.triggers.len() < MOST_TRIGGERS {
                    self.triggers.push((family, trigger));
                }
            }
        }
    }

    /// The table has committed.
    pub(super) fn tally(&self, committed: &Committed) {
        self.metrics.sync.tally(committed);
    }

    /// The kernel has everything, up to this generation.
    pub(super) fn synced(&mut self, commit: &Commit, purpose: Purpose, took: &Took, generation: u64) {
        let (sync, now) = (&self.metrics.sync, Timestamp::now());
        sync.endpoint_changes.pending.set(0);
        sync.service_changes.pending.set(0);
        sync.kernel_current.set(1);
        sync.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        sync.last_done.each(|gauge| {
            gauge.set(seconds(now));
        });
        if commit.transactions > 0 || took.services > 0 {
            let (kind, count) = match purpose {
                Purpose::Load => (&sync.full, &sync.loads),
                Purpose::Delta => (&sync.partial, &sync.changes),
            };
            count.inc();
            sync.whole.each(|histogram| histogram.observe(took.whole.as_secs_f64()));
            kind.each(|histogram| histogram.observe(took.whole.as_secs_f64()));
            sync.policy.observe(took.policy.as_secs_f64());
        }
        sync.account(commit);
        let programmed = nanoseconds(now);
        for (family, trigger) in self.triggers.drain(..) {
            // A clock that was set back must not make a latency of centuries.
            let latency = Duration::from_nanos(u64::try_from(programmed.saturating_sub(trigger)).unwrap_or(0));
            sync.programming.of(family).observe(latency.as_secs_f64());
        }
        self.health.updated(now, generation);
        self.health.problem("commit", None);
    }

    /// The kernel refused a change, and is asked to take the whole table at once.
    pub(super) fn refused(&self) {
        self.metrics.sync.failures.each(|counter| {
            counter.inc();
        });
    }

    /// The kernel refused the whole table, and will be asked again.
    pub(super) fn failed(&self, error: String) {
        self.refused();
        let sync = &self.metrics.sync;
        sync.retries.inc();
        sync.kernel_current.set(0);
        self.health.queued(Instant::now());
        self.health.problem("commit", Some(error));
    }

    /// Somebody else's change was undone.
    pub(super) fn repaired(&self, damage: &Damage, commit: &Commit) {
        let sync = &self.metrics.sync;
        match damage {
            Damage::Structure(_) => &sync.repairs_structure,
            Damage::Elements(_) => &sync.repairs_elements,
        }
        .inc();
        sync.account(commit);
    }

    /// Deferred work has to be tried again.
    pub(super) fn cleanup_failed(&self) {
        self.metrics.sync.cleanup_failures.each(|counter| {
            counter.inc();
        });
    }

    /// The loop has a moment.
    pub(super) fn fill(&mut self, fill: Fill) {
        if fill != self.fill {
            self.metrics.sync.fill(&self.fill, &fill);
            self.fill = fill;
        }
    }
}

/// Where the time of one sync went.
pub(super) struct Took {
    /// Services that went through policy.
    pub(super) services: usize,
    /// Objects to table.
    pub(super) policy: Duration,
    /// Objects to the kernel's acknowledgement.
    pub(super) whole: Duration,
}

fn seconds(when: Timestamp) -> f64 {
    when.as_duration().as_secs_f64()
}

fn nanoseconds(when: Timestamp) -> i64 {
    i64::try_from(when.as_nanosecond()).unwrap_or(i64::MAX)
}
