//! Rounds: everything once, in an order of the seed's, again and again.
//!
//! A machine with others on it is slow for seconds, and then is not. What is compared must therefore be measured close together,
//! and not always in the same order: a ratio is taken within one round, and of all rounds' ratios the middle one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::seen::Seen;
use super::site::{Effort, Site};
use super::spread::Spread;
use super::subject::Subject;

/// What is done in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Measure {
    /// A flow for each question.
    UdpFirst,
    /// One flow for all questions.
    UdpEstablished,
    /// One connection after the other.
    TcpOne,
    /// Several clients at once.
    TcpMany,
}

/// Something that has a number in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    /// Its place in the list of sites; the first one has no rules.
    pub(super) site: usize,
    pub(super) subject: Subject,
    pub(super) measure: Measure,
}

/// What a cell showed in one round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Showing {
    /// In nanoseconds.
    median: f64,
    per_second: f64,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// By round.
    showings: BTreeMap<Cell, BTreeMap<u32, Showing>>,
    /// All rounds together.
    whole: BTreeMap<Cell, Seen>,
    /// Rounds that were complete.
    pub(super) rounds: u32,
}

/// Ratios of a cell to another one, one for each round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ratios {
    /// Of the middle latencies: above 1 is slower.
    pub(super) latency: Vec<f64>,
    /// Of the rates: below 1 is slower.
    pub(super) rate: Vec<f64>,
}

impl Measure {
    pub(super) const ALL: [Self; 4] = [Self::UdpFirst, Self::UdpEstablished, Self::TcpOne, Self::TcpMany];

    /// As in the results.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UdpFirst => "udp_first",
            Self::UdpEstablished => "udp_established",
            Self::TcpOne => "tcp_one",
            Self::TcpMany => "tcp_many",
        }
    }
}

/// Every cell of these sites.
pub(super) fn cells(sites: &[Site]) -> Vec<Cell> {
    let of_site = |(site, of): (usize, &Site)| of.subjects().map(move |subject| (site, subject)).collect::<Vec<_>>();
    let pairs = sites.iter().enumerate().flat_map(of_site);
    pairs.flat_map(|(site, subject)| Measure::ALL.map(|measure| Cell { site, subject, measure })).collect()
}

/// What is run, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) rounds: u32,
    /// Of the order within each round.
    pub(super) seed: u64,
    pub(super) effort: Effort,
}

/// Who is told how it goes.
pub(super) trait Audience {
    /// A round begins; the first is 0.
    fn round_begins(&self, round: u32);

    /// Something was measured once more.
    fn slot_done(&self);

    /// A kube-proxy has failed: its network is not visited any more.
    fn site_lost(&self, site: usize, error: &anyhow::Error);

    /// There is more to see, after each round and when the last one was cut off.
    fn seen(&self, record: &Record);
}

/// Runs all rounds.
///
/// # Errors
/// If sheave or the network without rules fails: the others are compared with them.
pub(super) fn run(sites: &mut [Site], plan: Plan, audience: &impl Audience) -> Result<Record> {
    let mut record = Record::default();
    let mut cells = cells(sites);
    let mut lost = BTreeSet::new();
    let mut random = StdRng::seed_from_u64(plan.seed);
    for round in 0..plan.rounds {
        audience.round_begins(round);
        cells.shuffle(&mut random);
        for &cell in &cells {
            if lost.contains(&cell.site) {
                continue;
            }
            let site = &mut sites[cell.site];
            // Not always at the same moment of whatever else has a period.
            let lasting = plan.effort.lasting.mul_f64(random.random_range(0.95..1.05));
            let effort = Effort { lasting, ..plan.effort };
            let measured = site.measure(cell.subject, cell.measure, effort);
            // First, for it is the better explanation; and rules that nobody keeps any more would go on to answer.
            match site.ensure_running().and(measured) {
                Ok(seen) => record.take(round, cell, &seen),
                Err(error) => {
                    if !site.is_of_a_peer() {
                        audience.seen(&record);
                        return Err(error);
                    }
                    audience.site_lost(cell.site, &error);
                    lost.insert(cell.site);
                }
            }
            audience.slot_done();
        }
        cells.retain(|cell| !lost.contains(&cell.site));
        record.rounds += 1;
        audience.seen(&record);
    }
    Ok(record)
}

impl Record {
    fn take(&mut self, round: u32, cell: Cell, seen: &Seen) {
        if let Some((median, per_second)) = seen.median().zip(seen.per_second()) {
            let showing = Showing { median, per_second };
            self.showings.entry(cell).or_default().insert(round, showing);
        }
        self.whole.entry(cell).or_insert_with(Seen::nothing).then(seen);
    }

    /// All rounds of a cell together.
    pub(super) fn whole(&self, cell: Cell) -> Option<&Seen> {
        self.whole.get(&cell)
    }

    /// Exchanges per second, by round.
    pub(super) fn rate(&self, cell: Cell) -> Option<Spread> {
        Spread::of(self.showings.get(&cell)?.values().map(|showing| showing.per_second))
    }

    /// How a cell compares with another one, within each round that has both.
    pub(super) fn ratios(&self, cell: Cell, to: Cell) -> Ratios {
        let empty = BTreeMap::new();
        let (own, other) = (self.showings.get(&cell).unwrap_or(&empty), self.showings.get(&to).unwrap_or(&empty));
        let pairs = || own.iter().filter_map(|(round, own)| Some((own, other.get(round)?)));
        Ratios {
            latency: pairs().map(|(own, other)| own.median / other.median).collect(),
            rate: pairs().map(|(own, other)| own.per_second / other.per_second).collect(),
        }
    }
}

/// How long a slot lasts, if a round has so many seconds.
pub(super) fn slot(seconds_per_round: f64, cells: usize) -> Duration {
    let cells = u32::try_from(cells.max(1)).unwrap_or(u32::MAX);
    Duration::from_secs_f64(seconds_per_round) / cells
}

#[cfg(test)]
mod tests {
    use super::super::subject::{Place, Way};
    use super::*;

    fn cell(way: Way) -> Cell {
        Cell { site: 1, subject: Subject { place: Place::Pod, way }, measure: Measure::UdpFirst }
    }

    fn seen(micros: u64, count: u32) -> Seen {
        let mut counting = Seen::begin();
        for _ in 0..count {
            counting.count(Ok(Duration::from_micros(micros)), |_| true).unwrap();
        }
        counting.end()
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_a_slow_round_does_not_count_against_anybody() {
        let (straight, service) = (cell(Way::Straight), cell(Way::ClusterIp));
        let mut record = Record::default();
        for (round, slowness) in [(0, 1), (1, 10), (2, 1)] {
            record.take(round, straight, &seen(10 * slowness, 100));
            record.take(round, service, &seen(15 * slowness, 116));
        }
        let ratios = record.ratios(service, straight);
        assert_eq!(ratios.rate.len(), 3);
        let latency = Spread::of(ratios.latency).unwrap();
        assert!((latency.median - 1.5).abs() < 0.01 && (latency.upper_quartile - 1.5).abs() < 0.01, "{latency:?}");
        assert_eq!(record.whole(service).unwrap().latency.len(), 300, "each slot's first sixteen do not count");
    }

    #[test]
    fn a_round_without_the_other_has_no_ratio() {
        let (straight, service) = (cell(Way::Straight), cell(Way::ClusterIp));
        let mut record = Record::default();
        record.take(0, service, &seen(15, 20));
        assert_eq!(record.ratios(service, straight), Ratios { latency: Vec::new(), rate: Vec::new() });
        assert!(record.rate(service).is_some());
    }

    #[test]
    fn slots_share_the_round() {
        assert_eq!(slot(4.0, 40), Duration::from_millis(100));
        assert_eq!(slot(4.0, 0), Duration::from_secs(4));
    }
}
