//! Health: whether this node's Services are in order, and whether traffic should come here at all (kube-proxy 6.1, 6.2).
//!
//! ```text
//! sync loop ── queued, updated, node ──► ProxyHealth ──► :10256 /healthz, /livez
//! Published ── Services with a healthCheckNodePort ────► one small server each
//! ```
//! Two questions that a load balancer, an autoscaler and a kubelet must not mix up (KEP-3836): `/healthz` says whether new
//! traffic should be sent to this node, and says no also while the node is about to be removed; `/livez` says whether the process
//! works, and a node that is about to be removed is no reason to restart it.
//!
//! One difference from kube-proxy: `/healthz` says 503 until the first sync. kube-proxy says 200 from its first moment, while
//! the kernel has no rules, so a load balancer sends traffic into the void. `/livez` does not wait: an API server that is down when
//! we start is nothing that a restart of ours would mend.

mod server;
mod service_checks;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::model::{Family, Node};
use crate::source::kube::{self, StreamState};

pub(crate) use server::HealthServer;
pub(crate) use service_checks::ServiceChecks;

/// Twice kube-proxy's default `syncPeriod` of 30 s: how long a change may wait for the kernel before that is unhealthy.
pub const STALE_AFTER: Duration = Duration::from_secs(60);

/// The taint by which the cluster autoscaler announces that it will remove a node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is known of our health. The sync loop writes it, servers read it.
#[derive(Debug)]
pub struct ProxyHealth {
    /// Whether a Node object must have been seen. A directory of manifests may have none.
    node_expected: bool,
    /// Those that are served. One sync of ours is of all of them.
    families: &'static [Family],
    state: Mutex<State>,
    /// Generation of the table that is in the kernel.
    programmed: watch::Sender<u64>,
    /// Whether there is a Node of ours, once the source has said so.
    node_there: watch::Sender<Option<bool>>,
    watches: Mutex<Option<Arc<kube::Health>>>,
}

#[derive(Debug)]
struct State {
    /// How long a change may wait for the kernel.
    stale_after: Duration,
    /// Of the last successful sync.
    updated: Option<Timestamp>,
    /// Since when a change waits for the kernel.
    queued: Option<Instant>,
    standing: Standing,
    /// What else is wrong, by whom. It is told and decides nothing.
    problems: BTreeMap<String, String>,
}

/// What the Node object says about new traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// It has not been seen.
    #[default]
    Unknown,
    Eligible,
    /// It has a deletionTimestamp.
    Deleting,
    /// It has the autoscaler's taint.
    ToBeDeleted,
}

/// Our health at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// When the last sync succeeded, if any has.
    pub updated: Option<Timestamp>,
    /// Changes have been waiting for the kernel for too long.
    pub stale: bool,
    /// The Node may get new traffic.
    pub node_eligible: bool,
    standing: Standing,
    /// The families that are served.
    pub families: &'static [Family],
    /// One line for each thing that is wrong.
    pub problems: Vec<String>,
}

impl ProxyHealth {
    /// Nothing synced, nothing queued, no Node seen. `node_expected`: a source that knows no Node is not to be trusted with traffic.
    #[must_use]
    pub fn new(stale_after: Duration, node_expected: bool) -> Self {
        Self {
            node_expected,
            families: &Family::ALL,
            state: Mutex::new(State {
                stale_after,
                updated: None,
                queued: None,
                standing: Standing::default(),
                problems: BTreeMap::new(),
            }),
            programmed: watch::Sender::new(0),
            node_there: watch::Sender::new(None),
            watches: Mutex::default(),
        }
    }

    /// Of a node that serves IPv4 alone.
    #[must_use]
    pub fn without_ipv6(self) -> Self {
        Self { families: &[Family::V4], ..self }
    }

    /// From now on a change may wait so long for the kernel, one that waits already as well.
    pub fn stale_after(&self, stale_after: Duration) {
        self.state().stale_after = stale_after;
    }

    /// A change waits for the kernel. The first one counts.
    pub fn queued(&self, now: Instant) {
        self.state().queued.get_or_insert(now);
    }

    /// Everything known is in the kernel, up to this generation of the table.
    pub fn updated(&self, now: Timestamp, generation: u64) {
        let mut state = self.state();
        state.updated = Some(now);
        state.queued = None;
        drop(state);
        self.programmed.send_replace(generation);
    }

    /// Our Node, as last seen. That it is gone is no news: the last object counts, as in kube-proxy.
    pub fn node(&self, node: &Node) {
        let tainted = node.taints.iter().any(|taint| **taint == *TO_BE_DELETED);
        self.state().standing = match (node.deleting, tainted) {
            (true, _) => Standing::Deleting,
            (false, true) => Standing::ToBeDeleted,
            (false, false) => Standing::Eligible,
        };
        self.node_there.send_replace(Some(true));
    }

    /// The source has no Node of ours, or none any more.
    pub fn node_absent(&self) {
        self.node_there.send_replace(Some(false));
    }

    /// Whether there ever was a Node of ours.
    #[must_use]
    pub fn node_seen(&self) -> bool {
        self.state().standing != Standing::Unknown
    }

    /// Whether there is a Node of ours, followed; nothing until the source has said so.
    #[must_use]
    pub fn node_there(&self) -> watch::Receiver<Option<bool>> {
        self.node_there.subscribe()
    }

    /// Something else is wrong (`Some`), or no longer (`None`). For people: `/healthz` tells it, the verdict is another matter.
    pub fn problem(&self, whose: &str, what: Option<String>) {
        match what {
            Some(what) => self.state().problems.insert(whose.to_owned(), what),
            None => self.state().problems.remove(whose),
        };
    }

    /// The watches to be told of.
    pub fn follow_watches(&self, health: Arc<kube::Health>) {
        *self.watches.lock().unwrap_or_else(PoisonError::into_inner) = Some(health);
    }

    /// The generation in the kernel, followed.
    #[must_use]
    pub fn programmed(&self) -> watch::Receiver<u64> {
        self.programmed.subscribe()
    }

    /// How it is now.
    #[must_use]
    pub fn look(&self) -> Look {
        self.look_at(Instant::now())
    }

    fn look_at(&self, now: Instant) -> Look {
        let mut problems = self.failing_watches();
        let state = self.state();
        problems.extend(state.problems.iter().map(|(whose, what)| format!("{whose}: {what}")));
        Look {
            updated: state.updated,
            stale: state.queued.is_some_and(|queued| now.saturating_duration_since(queued) >= state.stale_after),
            node_eligible: state.standing == Standing::Eligible || (state.standing == Standing::Unknown && !self.node_expected),
            standing: state.standing,
            families: self.families,
            problems,
        }
    }

    fn failing_watches(&self) -> Vec<String> {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let streams = watches.map(|watches| watches.streams()).unwrap_or_default();
        let failing = streams.into_iter().filter_map(|stream| match stream.state {
            StreamState::Failing { reason } => Some(format!("watch of {}: {reason}", stream.stream)),
            StreamState::Starting | StreamState::Live | StreamState::Absent => None,
        });
        failing.collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Look {
    /// The kernel has what the API wants, or has not been behind for long.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.updated.is_some() && !self.stale
    }

    /// The process works, as far as that can be told. See the module about its beginning.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.stale
    }

    /// Why no new traffic should come, if it should not.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        if self.updated.is_none() {
            Some("nothing has been programmed yet")
        } else if self.stale {
            Some("changes have been waiting for the kernel for too long")
        } else if self.node_eligible {
            None
        } else {
            Some(self.standing.reason())
        }
    }
}

impl Standing {
    fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "the Node has not been seen",
            Self::Eligible => "the Node is eligible",
            Self::Deleting => "the Node is being deleted",
            Self::ToBeDeleted => "the Node has the taint ToBeDeletedByClusterAutoscaler",
        }
    }
}
