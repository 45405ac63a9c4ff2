//! How long to wait before trying again.

use std::fmt::Display;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::ProxyHealth;

/// Exponential backoff with jitter: each wait is between half and all of a bound that doubles up to a limit.
///
/// Nodes that fail together (an API outage, a kernel update) must not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Retry {
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, failures: 0 }
    }

    /// The wait after another failure.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(16)).min(self.limit);
        self.failures = self.failures.saturating_add(1);
        // A fresh RandomState is randomly keyed: enough to spread nodes, and no crate for it.
        let random = RandomState::new().build_hasher().finish();
        bound.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
    }

    /// It worked: the next failure starts over.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Something in the background that fails and is tried again until it works: how long to wait, and which line is worth writing.
/// While it lasts it is one of the problems that `/healthz` tells.
#[derive(Debug)]
pub(super) struct Outage {
    /// What is out of order, in `/healthz`.
    what: &'static str,
    health: Arc<ProxyHealth>,
    retry: Retry,
    /// Of the first failure that no success has followed.
    since: Option<Instant>,
}

/// One failure among those of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// To be tried again after this.
    pub(super) wait: Duration,
    /// The outage begins with it: worth a warning. All others are the same matter.
    pub(super) first: bool,
}

impl Outage {
    /// None so far; waits as those of [`Retry::new`].
    pub(super) fn new(what: &'static str, health: Arc<ProxyHealth>, first: Duration, limit: Duration) -> Self {
        Self { what, health, retry: Retry::new(first, limit), since: None }
    }

    /// It failed at `now`.
    pub(super) fn failed(&mut self, now: Instant, error: &impl Display) -> Failed {
        self.health.problem(self.what, Some(error.to_string()));
        let first = self.since.is_none();
        self.since.get_or_insert(now);
        Failed { wait: self.retry.next(), first }
    }

    /// It worked at `now`. How long it had not, if this ends an outage.
    pub(super) fn worked(&mut self, now: Instant) -> Option<Duration> {
        self.retry.reset();
        let since = self.since.take()?;
        self.health.problem(self.what, None);
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::STALE_AFTER;

    #[test]
    fn an_outage_begins_once_and_ends_once() {
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let problems = || health.look().problems;
        let mut outage = Outage::new("moon", health.clone(), Duration::from_millis(100), Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(outage.worked(start), None);
        for round in 0..2 {
            assert!(outage.failed(start, &"eclipse").first, "round {round}");
            assert_eq!(problems(), ["moon: eclipse"]);
            let second = outage.failed(start + Duration::from_secs(1), &"clouds");
            assert_eq!(problems(), ["moon: clouds"], "what is told is how it is now");
            assert!(!second.first && second.wait >= Duration::from_millis(100), "{second:?}");
            assert_eq!(outage.worked(start + Duration::from_secs(3)), Some(Duration::from_secs(3)));
            assert_eq!(outage.worked(start + Duration::from_secs(4)), None);
            assert_eq!(problems(), Vec::<String>::new());
        }
    }

    #[test]
    fn waits_grow_to_the_limit_and_start_over_after_a_success() {
        let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..40).map(|_| retry.next()).collect();
        assert!((50..=100).contains(&waits[0].as_millis()), "{waits:?}");
        assert!(waits[20..].iter().all(|wait| (500..=1000).contains(&wait.as_millis())), "{waits:?}");
        retry.reset();
        assert!(retry.next() <= Duration::from_millis(100));
    }
}
