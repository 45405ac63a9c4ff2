//! Percentiles of a few hundred durations.

use std::time::Duration;

/// Durations, sorted. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// `None` without any.
    pub(crate) fn new(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        (!durations.is_empty()).then_some(Self(durations))
    }

    /// The smallest sample that at least `percent` % of all do not exceed (nearest rank: a value that was measured, never one
    /// between two).
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).clamp(1, self.0.len());
        self.0[rank - 1]
    }

    /// The 99th percentile, where there are samples enough for one.
    pub(crate) fn p99(&self) -> Option<Duration> {
        (self.0.len() >= FOR_P99 as usize).then(|| self.percentile(99))
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn max(&self) -> Duration {
        self.percentile(100)
    }
}

/// Samples that a 99th percentile needs: by nearest rank, that of fewer is simply the slowest of them.
pub(crate) const FOR_P99: u32 = 100;
/// Samples that a median needs, so that it takes more than a few chance events to move it.
const FOR_P50: u32 = 10;

/// How many samples a figure of this name must be made of to be held to a budget: none for what is no percentile.
pub(crate) fn samples_for(figure: &str) -> u32 {
    match figure {
        tail if tail.contains("_p99_") => FOR_P99,
        middle if middle.contains("_p50_") => FOR_P50,
        _ => 0,
    }
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(milliseconds: impl IntoIterator<Item = u64>) -> Samples {
        Samples::new(milliseconds.into_iter().map(Duration::from_millis).collect()).unwrap()
    }

    #[test]
    fn percentiles_are_measured_values_by_nearest_rank() {
        let hundred = samples((1..=100).rev());
        for percent in [1, 50, 99, 100] {
            assert_eq!(hundred.percentile(percent), Duration::from_millis(percent as u64));
        }
        let two_hundred = samples(1..=200);
        assert_eq!(two_hundred.percentile(99), Duration::from_millis(198), "two of 200 are beyond the 99th percentile");
        assert_eq!(two_hundred.max(), Duration::from_millis(200));
    }

    #[test]
    fn one_sample_is_every_percentile_and_none_is_nothing() {
        let one = samples([7]);
        assert_eq!((one.percentile(0), one.percentile(50), one.max()), (one.max(), one.max(), Duration::from_millis(7)));
        assert!(Samples::new(Vec::new()).is_none());
    }

    #[test]
    fn one_slow_sample_of_a_hundred_is_the_maximum_and_not_the_99th_percentile() {
        let outlier = samples((0..99).map(|_| 1).chain([1_000]));
        assert_eq!((outlier.percentile(99), outlier.max()), (Duration::from_millis(1), Duration::from_millis(1_000)));
    }

    #[test]
    fn a_percentile_is_held_to_a_budget_where_it_is_one() {
        assert_eq!(["change_p50_ms", "service_add_p99_ms", "cold_sync_ms"].map(samples_for), [10, 100, 0]);
        let enough = u64::from(samples_for("change_p99_ms"));
        assert!(samples(1..=enough).percentile(99) < samples(1..=enough).max());
        assert_eq!(samples(1..enough).percentile(99), samples(1..enough).max());
        assert_eq!((samples(1..enough).p99(), samples(1..=enough).p99()), (None, Some(Duration::from_millis(99))));
        assert_eq!(samples(1..enough).count(), 99);
    }

    #[test]
    fn milliseconds_keep_their_fractions() {
        assert!((milliseconds(Duration::from_micros(1_250)) - 1.25).abs() < 1e-9);
    }
}
