//! How much later than the quickest some beats of a peer arrive.

use std::time::{Duration, Instant};

/// Jitter of one path: how far the slowest of the last beats was behind the quickest. Lost ones do not count, and no two clocks
/// have to agree: a beat carries the sender's own milliseconds.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// Least difference between arrival and departure in the present span, and in the one before.
    least: [Option<i64>; 2],
    /// Largest, likewise.
    most: [Option<i64>; 2],
    /// The spans are changed then.
    turn: Option<Instant>,
    /// Beats seen, up to [`ENOUGH`].
    seen: u8,
}

/// Half of what is remembered: clocks drift, routes change.
const SPAN: Duration = Duration::from_secs(10);
/// Fewer beats than this say little about a path.
const ENOUGH: u8 = 10;
/// What is assumed of it until then.
const UNKNOWN: Duration = Duration::from_millis(100);

impl Lateness {
    /// A beat that was sent at `sent` of the sender's milliseconds came in now, `now` on ours.
    pub(super) fn arrived(&mut self, sent: u64, ours: u64, now: Instant) {
        if self.turn.is_none_or(|turn| turn <= now) {
            // After a pause longer than both spans nothing of what was seen counts.
            let recent = self.turn.is_some_and(|turn| now < turn + SPAN);
            let last = |value: Option<i64>| if recent { value } else { None };
            self.least = [None, last(self.least[0])];
            self.most = [None, last(self.most[0])];
            self.turn = Some(now + SPAN);
        }
        self.seen = self.seen.saturating_add(1).min(ENOUGH);
        let took = ours.cast_signed().wrapping_sub(sent.cast_signed());
        self.least[0] = Some(self.least[0].map_or(took, |least| least.min(took)));
        self.most[0] = Some(self.most[0].map_or(took, |most| most.max(took)));
    }

    /// The jitter.
    pub(super) fn get(&self) -> Duration {
        let least = self.least.iter().flatten().min();
        let most = self.most.iter().flatten().max();
        let spread = least.zip(most).map_or(0, |(least, most)| most.saturating_sub(*least));
        let spread = Duration::from_millis(u64::try_from(spread).unwrap_or(0));
        if self.seen < ENOUGH { spread.max(UNKNOWN) } else { spread }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_the_last_beats_whatever_the_clocks_say() {
        let begin = Instant::now();
        let mut lateness = Lateness::default();
        assert_eq!(lateness.get(), UNKNOWN);
        let mut beat = |number: u64, late: u64| {
            let at = number * 100 + late;
            lateness.arrived(7_000_000 + number * 100, at, begin + Duration::from_millis(at));
            lateness.get()
        };
        assert_eq!(beat(0, 0), UNKNOWN, "one beat says nothing");
        let quiet = (1..50).map(|number| beat(number, number % 3)).last();
        assert_eq!(quiet, Some(Duration::from_millis(2)));
        assert_eq!(beat(50, 90), Duration::from_millis(90));
        let forgotten = (51..300).map(|number| beat(number, 1)).last();
        assert_eq!(forgotten, Some(Duration::ZERO), "25 s later");
    }
}
