//! Something in the background that fails and is tried again until it works, as a person reads of it.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::ProxyHealth;
use crate::retry::Retry;

/// What fails and works again, in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matter {
    /// As `/healthz` names it.
    pub(super) whose: &'static str,
    /// What is not so while it fails.
    pub(super) fails: &'static str,
    /// What is so again.
    pub(super) works: &'static str,
}

/// The outages of one matter, one after the other. While one lasts it is among the problems that `/healthz` tells; its beginning is a
/// warning, its end a line, and what lies between, the same matter, is for debugging.
#[derive(Debug)]
pub(super) struct Outage {
    matter: Matter,
    health: Arc<ProxyHealth>,
    retry: Retry,
    /// Of the first failure that no success has followed.
    since: Option<Instant>,
}

impl Outage {
    /// None so far; waits as those of [`Retry::new`].
    pub(super) fn new(matter: Matter, health: Arc<ProxyHealth>, first: Duration, limit: Duration) -> Self {
        Self { matter, health, retry: Retry::new(first, limit), since: None }
    }

    /// It failed at `now`. Returns how long to wait.
    pub(super) fn failed(&mut self, now: Instant, error: &impl Display) -> Duration {
        let Matter { whose, fails, works: _ } = self.matter;
        self.health.problem(whose, Some(error.to_string()));
        let wait = self.retry.next();
        if self.since.is_none() {
            tracing::warn!(%error, "{fails}; tried again until it works");
        } else {
            tracing::debug!(%error, retry_ms = wait.as_millis(), "{fails}");
        }
        self.since.get_or_insert(now);
        wait
    }

    /// It worked at `now`.
    pub(super) fn worked(&mut self, now: Instant) {
        self.retry.reset();
        let Some(since) = self.since.take() else { return };
        self.health.problem(self.matter.whose, None);
        tracing::info!("{} again, after {:.1} s", self.matter.works, now.saturating_duration_since(since).as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured_log::Log;
    use crate::health::STALE_AFTER;

    #[test]
    fn an_outage_is_a_warning_a_problem_and_the_end_of_both() {
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let problems = || health.look().problems;
        let matter = Matter { whose: "moon", fails: "the moon is not seen", works: "the moon is seen" };
        let mut outage = Outage::new(matter, health.clone(), Duration::from_millis(100), Duration::from_secs(1));
        let start = Instant::now();
        let (log, _guard) = Log::capture();
        outage.worked(start);
        for _ in 0..2 {
            outage.failed(start, &"eclipse");
            assert_eq!(problems(), ["moon: eclipse"]);
            let wait = outage.failed(start + Duration::from_secs(1), &"clouds");
            assert_eq!(problems(), ["moon: clouds"], "what is told is how it is now");
            assert!(wait >= Duration::from_millis(100), "{wait:?}");
            outage.worked(start + Duration::from_secs(3));
            outage.worked(start + Duration::from_secs(4));
            assert_eq!(problems(), Vec::<String>::new());
        }
        let round =
            ["WARN the moon is not seen; tried again until it works error=eclipse", "INFO the moon is seen again, after 3.0 s"];
        assert_eq!(log.lines(), [round, round].concat());
    }
}
