//! What one slot has seen: latencies, losses, and how long it took.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// A slot under way. The first few exchanges fill caches and neighbour tables, and are not counted.
#[derive(Debug)]
pub(super) struct Counting {
    warm_up: u32,
    begun: Instant,
    /// When the exchange before this one ended.
    last: Instant,
    seen: Seen,
}

/// What came of a slot.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// From the end of one exchange to the end of the next, sockets made and closed in between included. Nanoseconds.
    cycle: Histogram<u64>,
    /// How many clients there were at once.
    clients: u32,
    /// Exchanges without an answer.
    pub(super) lost: u64,
}

/// Exchanges before it counts.
const WARM_UP: u32 = 16;
/// Exchanges that a slot has at least.
const FEWEST: u64 = 8;
/// Latencies from 16 ns to 4 s in three digits: what is slower was lost.
const SHORTEST: u64 = 16;
const LONGEST: u64 = 4_000_000_000;
const DIGITS: u8 = 3;

impl Counting {
    /// Whether the slot goes on: for its time, and until there is something to take the middle of, should somebody else have had the
    /// processor meanwhile.
    pub(super) fn goes_on(&self, until: Duration) -> bool {
        self.begun.elapsed() < until || self.seen.latency.len() + self.seen.lost < FEWEST
    }

    /// Takes note of an exchange.
    ///
    /// # Errors
    /// Those that are no loss.
    pub(super) fn count(&mut self, outcome: io::Result<Duration>, is_loss: impl Fn(&io::Error) -> bool) -> io::Result<()> {
        let ended = Instant::now();
        let cycle = ended - std::mem::replace(&mut self.last, ended);
        let latency = match outcome {
            Ok(latency) => Some(latency),
            Err(error) if is_loss(&error) => None,
            Err(error) => return Err(error),
        };
        if self.warm_up > 0 {
            self.warm_up -= 1;
            self.begun = ended;
            return Ok(());
        }
        match latency {
            Some(latency) => {
                self.seen.latency.saturating_record(nanoseconds(latency));
                self.seen.cycle.saturating_record(nanoseconds(cycle));
            }
            None => self.seen.lost += 1,
        }
        Ok(())
    }

    pub(super) fn end(self) -> Seen {
        self.seen
    }
}

impl Seen {
    pub(super) fn begin() -> Counting {
        let now = Instant::now();
        Counting { warm_up: WARM_UP, begun: now, last: now, seen: Self { clients: 1, ..Self::nothing() } }
    }

    pub(super) fn nothing() -> Self {
        Self { latency: histogram(), cycle: histogram(), clients: 0, lost: 0 }
    }

    /// Exchanges per second of all clients: what one does in the middle, times their number. Unlike a count, it does not fall while
    /// somebody else has the processor, which is most of what a count tells on a busy machine.
    pub(super) fn per_second(&self) -> Option<f64> {
        middle(&self.cycle).map(|cycle| 1e9 / cycle * f64::from(self.clients))
    }

    /// The middle latency in nanoseconds, if anything was answered.
    pub(super) fn median(&self) -> Option<f64> {
        middle(&self.latency)
    }

    /// Takes in what another client saw meanwhile.
    pub(super) fn beside(&mut self, other: &Self) {
        self.then(other);
        self.clients += other.clients;
    }

    /// Takes in what was seen at another time.
    pub(super) fn then(&mut self, other: &Self) {
        self.latency += &other.latency;
        self.cycle += &other.cycle;
        self.lost += other.lost;
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS).expect("1 <= low, 2 x low <= high, digits <= 5: all that it asks for")
}

#[expect(clippy::cast_precision_loss, reason = "the histogram ends at 4 s")]
fn middle(of: &Histogram<u64>) -> Option<f64> {
    (!of.is_empty()).then(|| of.value_at_quantile(0.5) as f64)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(outcomes: impl IntoIterator<Item = io::Result<Duration>>) -> io::Result<Seen> {
        let mut counting = Seen::begin();
        for outcome in outcomes {
            counting.count(outcome, |error| error.kind() == io::ErrorKind::TimedOut)?;
        }
        Ok(counting.end())
    }

    #[test]
    fn the_first_ones_do_not_count_and_losses_do() {
        let micros = |n| Ok(Duration::from_micros(n));
        let cold = (0..WARM_UP).map(|_| micros(900));
        let warm = (1..=99).map(micros).chain([Err(io::ErrorKind::TimedOut.into())]);
        let seen = seen(cold.chain(warm)).unwrap();
        assert_eq!((seen.latency.len(), seen.lost), (99, 1));
        let median = seen.median().unwrap();
        assert!((median - 50_000.0).abs() < 100.0, "{median}");
        assert!(seen.latency.max() < 100_000);
    }

    #[test]
    fn a_slot_whose_time_is_up_still_has_a_few() {
        let mut counting = Seen::begin();
        while counting.goes_on(Duration::ZERO) {
            counting.count(Ok(Duration::from_micros(1)), |_| true).unwrap();
        }
        assert_eq!(counting.end().latency.len(), FEWEST);
    }

    #[test]
    fn an_error_that_is_no_loss_ends_the_slot() {
        let error = seen([Err(io::ErrorKind::OutOfMemory.into())]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }

    #[test]
    fn clients_side_by_side_add_their_rates_and_slots_do_not() {
        let one = seen((0..99).map(|_| Ok(Duration::from_micros(1)))).unwrap();
        let (mut both, mut longer) = (Seen::nothing(), one.clone());
        both.beside(&one);
        both.beside(&one);
        longer.then(&one);
        let rate = one.per_second().unwrap();
        assert_eq!((both.per_second(), longer.per_second()), (Some(rate * 2.0), Some(rate)));
        assert_eq!((Seen::nothing().median(), Seen::nothing().per_second()), (None, None));
    }
}
