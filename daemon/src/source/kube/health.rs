//! How the streams are doing: one log line per outage, and a snapshot for metrics and health.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::failure::{Failure, Outage};

/// The state of all streams of a source. Cheap to ask at any time.
#[derive(Debug, Default)]
pub struct Health {
    inner: Mutex<Inner>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamHealth {
    /// `services`, `endpointslices`, ...
    pub stream: &'static str,
    /// Whether it delivers.
    pub state: StreamState,
    /// Since when it is in this state.
    pub since: Instant,
    /// Complete lists delivered since the start.
    pub lists: u64,
    /// Failed attempts since the start.
    pub failures: u64,
}

/// What a stream is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// Nothing has come yet.
    Starting,
    /// Follows the API server.
    Live,
    /// The API server does not have this resource; asked again now and then.
    Absent,
    /// Retrying. What it has delivered stays in force.
    Failing {
        /// Of the last attempt.
        reason: String,
    },
}

#[derive(Debug, Default)]
struct Inner {
    streams: BTreeMap<&'static str, StreamHealth>,
    /// Outages that have been reported and are not over.
    reported: HashSet<Outage>,
    /// When the first of them began.
    began: Option<Instant>,
}

impl Health {
    /// Every stream, by name.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamHealth> {
        self.lock().streams.values().cloned().collect()
    }

    /// A lock that a panicking thread held is taken all the same: every value in it is whole at any time.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, stream: &'static str) {
        self.lock().stream(stream);
    }

    pub(super) fn listed(&self, stream: &'static str) {
        self.lock().stream(stream).lists += 1;
    }

    pub(super) fn absent(&self, stream: &'static str) {
        self.lock().enter(stream, StreamState::Absent);
    }

    /// The stream delivers (again). The outage is over when the last stream does.
    pub(super) fn live(&self, stream: &'static str) {
        let mut inner = self.lock();
        inner.enter(stream, StreamState::Live);
        if inner.reported.is_empty() || inner.streams.values().any(|other| matches!(other.state, StreamState::Failing { .. })) {
            return;
        }
        inner.reported.clear();
        let lasted = inner.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        info!("API server answers again after {:.1} s; every watch has resumed", lasted.as_secs_f64());
    }

    /// An attempt at `server` failed. The first of its kind is reported, the others are the same outage.
    pub(super) fn failed(&self, stream: &'static str, server: &str, failure: &Failure) {
        let mut inner = self.lock();
        inner.enter(stream, StreamState::Failing { reason: failure.to_string() });
        inner.stream(stream).failures += 1;
        inner.began.get_or_insert_with(Instant::now);
        // No watch has ever worked: more often a wrong address than an outage.
        let never = inner.streams.values().all(|stream| stream.lists == 0);
        if !inner.reported.insert(failure.outage(server)) {
            tracing::debug!("watch of {stream} failed: {failure}");
            return;
        }
        let advice = failure.advice().filter(|_| never || !failure.is_unreachable()).map(|advice| format!("; {advice}"));
        let advice = advice.unwrap_or_default();
        if never && failure.is_unreachable() {
            warn!("{failure}{advice}. What is in force stays; it is asked again until it answers");
        } else {
            let at = if failure.names_the_server() { String::new() } else { format!(" at {server}") };
            warn!("watch of {stream} failed{at}: {failure}{advice}; what is in force stays, retrying until it works");
        }
    }
}

impl Inner {
    fn stream(&mut self, stream: &'static str) -> &mut StreamHealth {
        let new = || StreamHealth { stream, state: StreamState::Starting, since: Instant::now(), lists: 0, failures: 0 };
        self.streams.entry(stream).or_insert_with(new)
    }

    fn enter(&mut self, stream: &'static str, state: StreamState) {
        let health = self.stream(stream);
        if std::mem::discriminant(&health.state) != std::mem::discriminant(&state) {
            health.since = Instant::now();
        }
        health.state = state;
    }
}
