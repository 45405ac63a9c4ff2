//! How the streams are doing: one log line per outage and cause, and a snapshot for metrics and health.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tracing::{info, warn};

use super::failure::{Failure, Outage};

/// Of what ails one server in one outage, so many causes are told: one whose words change with each attempt must not fill the log.
const MOST_CAUSES: usize = 8;

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
    /// What each failing stream has met since it last delivered.
    held_up: BTreeMap<&'static str, HashSet<Outage>>,
    /// Outages that have been reported and are not over: each holds a stream up.
    reported: HashMap<Outage, Reported>,
}

/// An outage that somebody has been told of.
#[derive(Debug)]
struct Reported {
    began: Instant,
    /// What has been said of it.
    causes: HashSet<String>,
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

    /// It is not watched any more.
    pub(super) fn unregister(&self, stream: &'static str) {
        let mut inner = self.lock();
        inner.streams.remove(stream);
        inner.held_up.remove(stream);
        inner.end_outages();
    }

    pub(super) fn listed(&self, stream: &'static str) {
        self.lock().stream(stream).lists += 1;
    }

    pub(super) fn absent(&self, stream: &'static str) {
        let mut inner = self.lock();
        inner.enter(stream, StreamState::Absent);
        inner.held_up.remove(stream);
        inner.end_outages();
    }

    /// The stream delivers (again). An outage is over when it holds up no stream any more.
    pub(super) fn live(&self, stream: &'static str) {
        let mut inner = self.lock();
        inner.enter(stream, StreamState::Live);
        inner.held_up.remove(stream);
        inner.end_outages();
    }

    /// An attempt at `server` failed. The first of its kind is reported, the others are the same outage, unless they have another cause.
    pub(super) fn failed(&self, stream: &'static str, server: &str, failure: &Failure) {
        let mut inner = self.lock();
        inner.enter(stream, StreamState::Failing { reason: failure.to_string() });
        inner.stream(stream).failures += 1;
        let outage = failure.outage(server);
        let met = inner.held_up.entry(stream).or_default();
        // Whoever refuses a resource or a user is there.
        if matches!(outage, Outage::Unauthorized | Outage::Resource(_)) {
            met.retain(|outage| !outage.is_a_servers());
        }
        met.insert(outage.clone());
        inner.end_outages();
        // No watch has ever worked: more often a wrong address than an outage.
        let never = inner.streams.values().all(|stream| stream.lists == 0);
        let new = || Reported { began: Instant::now(), causes: HashSet::new() };
        let Reported { causes, .. } = inner.reported.entry(outage).or_insert_with(new);
        if causes.len() >= MOST_CAUSES || !causes.insert(failure.cause()) {
            tracing::debug!("watch of {stream} failed: {failure}");
            return;
        }
        let advice = failure.advice().filter(|_| never || !failure.is_unreachable()).map(|advice| format!("; {advice}"));
        let advice = advice.unwrap_or_default();
        if never && failure.is_unreachable() {
            warn!("{failure}{advice}. What is in force stays; it is asked again until it answers");
        } else {
            let at = if failure.is_unreachable() { String::new() } else { format!(" at {server}") };
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
    /// Takes back what holds up no stream any more, and says so. Several servers are out together, as long as a stream finds none that
    /// answers.
    fn end_outages(&mut self) {
        let Self { streams, held_up, reported } = self;
        let stays = |outage: &Outage| {
            held_up.values().any(|met| met.contains(outage) || outage.is_a_servers() && met.iter().any(Outage::is_a_servers))
        };
        let over = reported.extract_if(|outage, _| !stays(outage)).map(|(_, Reported { began, .. })| began).min();
        let Some(began) = over else { return };
        let failing = streams.values().filter(|stream| matches!(stream.state, StreamState::Failing { .. }));
        let failing: Vec<_> = failing.map(|stream| stream.stream).collect();
        let rest = match &failing[..] {
            [] => "every watch has resumed".to_owned(),
            failing => format!("still failing: {}", failing.join(", ")),
        };
        info!("API server answers again after {:.1} s; {rest}", began.elapsed().as_secs_f64());
    }
}
