//! Pauses between attempts: 0.8 s to 30 s, doubling, drawn at random, so that 5,000 nodes do not come back in step; 3 s at most
//! while there is no answer and nothing has been listed yet.

use std::time::Duration;

use super::connect::Timing;

#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    longest_unlisted: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(timing: &Timing) -> Self {
        let Timing { backoff, longest_backoff, longest_unlisted, .. } = *timing;
        Self { first: backoff, longest: longest_backoff, longest_unlisted, attempts: 0 }
    }

    /// The next pause: between a bound and its double, never beyond the longest.
    pub(super) fn next(&mut self) -> Duration {
        self.next_within(self.longest)
    }

    /// The next pause while nobody answers and nothing has ever been listed: whoever waits at boot has no rules at all. Pauses that
    /// grow later, because a server that answers again refuses, begin where these have come to.
    pub(super) fn next_unlisted(&mut self) -> Duration {
        self.next_within(self.longest_unlisted.min(self.longest))
    }

    fn next_within(&mut self, longest: Duration) -> Duration {
        let bound = self.first.saturating_mul(1 << self.attempts.min(16));
        if bound < longest / 2 {
            self.attempts = self.attempts.saturating_add(1);
        }
        let least = bound.min(longest / 2);
        rand::random_range(least..=least * 2)
    }

    /// Like [`Self::next`], but the first attempt is free.
    pub(super) fn next_but_first(&mut self) -> Duration {
        if self.attempts == 0 {
            self.attempts = 1;
            return Duration::ZERO;
        }
        self.next()
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(&Timing::default());
        for bound in [0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0, 15.0] {
            let pause = backoff.next().as_secs_f64();
            assert!((bound..=bound * 2.0 + 1e-6).contains(&pause) && pause <= 30.0, "{pause} of {bound}");
        }
        backoff.reset();
        assert_eq!(backoff.next_but_first(), Duration::ZERO);
        assert!(backoff.next_but_first() >= Duration::from_millis(1_600));
        for _ in 0..100 {
            backoff.next();
        }
    }

    #[test]
    fn without_any_list_pauses_stay_short_and_grow_on_from_there() {
        let mut backoff = Backoff::new(&Timing::default());
        for bound in [0.8, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5] {
            let pause = backoff.next_unlisted().as_secs_f64();
            assert!((bound..=bound * 2.0 + 1e-6).contains(&pause), "{pause} of {bound}");
        }
        for bound in [1.6, 3.2, 6.4, 12.8, 15.0] {
            let pause = backoff.next().as_secs_f64();
            assert!((bound..=bound * 2.0 + 1e-6).contains(&pause), "{pause} of {bound}");
        }
        assert!(backoff.next_unlisted() <= Duration::from_secs(3));
    }
}
