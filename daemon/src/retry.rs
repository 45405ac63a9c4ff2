//! How long to wait before trying again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
