//! What was seen, as measurements of the common envelope.

use std::collections::BTreeMap;
use std::fmt;

use crate::results::Measurement;
use crate::session::Session;

use super::rounds::{Cell, Measure, Record};
use super::site::Site;
use super::spread::Spread;
use super::subject::{Place, Subject, Way};

/// Whose rules a site has, as results say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// `none`, or the proxy.
    name: String,
    services: u32,
    subjects: Vec<Subject>,
}

/// Where the latencies of all rounds are told, in percent.
const PERCENTILES: [f64; 9] = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9, 100.0];
/// The site without rules.
const BARE: usize = 0;

impl Rules {
    pub(super) fn of(site: &Site) -> Self {
        let (name, services) = match &site.rules {
            Some((server, services)) => (server.name(), *services),
            None => ("none".to_owned(), 0),
        };
        Self { name, services, subjects: site.subjects().collect() }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, services, subjects: _ } = self;
        write!(f, "{services} Services, {name}")
    }
}

/// One for each cell, so ordered that sizes stand below each other.
pub(super) fn measurements(record: &Record, sites: &[Rules]) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    for measure in Measure::ALL {
        for subject in Subject::ALL {
            for (site, rules) in sites.iter().enumerate() {
                if rules.subjects.contains(&subject) {
                    measurements.extend(measurement(record, rules, Cell { site, subject, measure }));
                }
            }
        }
    }
    measurements
}

fn measurement(record: &Record, rules: &Rules, cell: Cell) -> Option<Measurement> {
    let whole = record.whole(cell)?;
    let bare = Cell { site: BARE, subject: cell.subject.straight(), ..cell };
    let straight = Cell { subject: cell.subject.straight(), ..cell };
    let (to_bare, to_straight) = (record.ratios(cell, bare), record.ratios(cell, straight));
    let latency = |percent: f64| microseconds(whole.latency.value_at_percentile(percent));
    let mut measurement = Measurement::new(cell.measure.name())
        .at("subject", cell.subject.to_string())
        .at("rules", rules.name.as_str())
        .at("services", rules.services)
        .value("p50_us", latency(50.0))
        .value("p99_us", latency(99.0))
        .value("per_second", record.rate(cell)?.median)
        .value("lost", count(whole.lost));
    for (name, ratios) in
        [("p50_to_bare", &to_bare.latency), ("p50_to_straight", &to_straight.latency), ("rate_to_straight", &to_straight.rate)]
    {
        let Some(spread) = Spread::of(ratios.iter().copied()) else { continue };
        let Spread { median, lower_quartile, upper_quartile } = spread;
        measurement = measurement
            .value(name, thousandths(median))
            .value(&format!("{name}_iqr"), thousandths(upper_quartile - lower_quartile));
    }
    measurement.samples = BTreeMap::from([
        ("percentiles".to_owned(), PERCENTILES.to_vec()),
        ("latency_us".to_owned(), PERCENTILES.iter().map(|percent| latency(*percent)).collect()),
        ("exchanges".to_owned(), vec![count(whole.latency.len())]),
        ("p50_to_bare".to_owned(), to_bare.latency),
        ("p50_to_straight".to_owned(), to_straight.latency),
        ("rate_to_bare".to_owned(), to_bare.rate),
        ("rate_to_straight".to_owned(), to_straight.rate),
    ]);
    Some(measurement)
}

/// The numbers that stand for a run: of the first proxy, from a pod to a ClusterIP, at the most Services.
pub(super) fn add_figures(session: &Session, record: &Record, sites: &[Rules]) {
    let Some(first) = sites.get(BARE + 1) else { return };
    let own: Vec<usize> = (0..sites.len()).filter(|site| sites[*site].name == first.name).collect();
    let (Some(&fewest), Some(&most)) = (own.first(), own.last()) else { return };
    let subject = Subject { place: Place::Pod, way: Way::ClusterIp };
    let cell = |site, measure| Cell { site, subject, measure };
    let straight = |site, measure| Cell { subject: subject.straight(), ..cell(site, measure) };
    let add = |name: &str, value: Option<f64>, meaning| {
        if let Some(value) = value {
            session.add(name, value, meaning);
        }
    };
    let middle = |numbers: Vec<f64>| Spread::of(numbers).map(|spread| spread.median);
    let first = record.whole(cell(most, Measure::UdpFirst));
    let at = |percent| first.map(|seen| microseconds(seen.latency.value_at_percentile(percent)));
    add(
        "first_packet_p50_us",
        at(50.0),
        "a pod's question on a fresh UDP flow through a ClusterIP, at the most Services, to its answer",
    );
    add("first_packet_p99_us", at(99.0), "the same");
    let ratio = record.ratios(cell(most, Measure::UdpFirst), straight(most, Measure::UdpFirst)).latency;
    add(
        "first_packet_to_straight",
        middle(ratio),
        "its p50 to that of the pod addressed directly: the middle of all rounds' ratios",
    );
    let ratio = record.ratios(cell(most, Measure::UdpFirst), cell(fewest, Measure::UdpFirst)).latency;
    let rounds = |of: &[f64]| u32::try_from(of.len()).ok().map(f64::from);
    let of_rounds = "rounds that it is the middle of";
    add("first_packet_growth_rounds", rounds(&ratio), of_rounds);
    add("first_packet_growth", middle(ratio), "its p50 at the most Services to that at the fewest");
    if let Some(peer) = beside(sites, most) {
        let ratio = record.ratios(cell(most, Measure::UdpFirst), cell(peer, Measure::UdpFirst)).latency;
        // A kube-proxy that failed on the way has fewer than the run.
        add("first_packet_to_kube_proxy_rounds", rounds(&ratio), of_rounds);
        add("first_packet_to_kube_proxy", middle(ratio), "its p50 to that of a kube-proxy with as many Services");
    }
    let ratio = record.ratios(cell(most, Measure::TcpOne), straight(most, Measure::TcpOne)).rate;
    add("connections_to_straight", middle(ratio), "TCP connect, request and close per second, to the pod addressed directly");
    add("rounds", Some(f64::from(record.rounds)), "complete ones");
}

/// The kube-proxy that has as many Services.
fn beside(sites: &[Rules], own: usize) -> Option<usize> {
    let services = sites.get(own)?.services;
    sites.iter().position(|site| site.name.starts_with("kube-proxy ") && site.services == services)
}

#[expect(clippy::cast_precision_loss, reason = "histograms end at 4 s")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "no run has 2^53 exchanges")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Ratios have two digits that mean something, and a third for whoever asks for a per cent.
fn thousandths(ratio: f64) -> f64 {
    (ratio * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_compared_with_the_kube_proxy_of_its_size() {
        let rules = |name: &str, services| Rules { name: name.to_owned(), services, subjects: Vec::new() };
        let (own, peer) = ("sheave nftables", "kube-proxy v1.36.2 nftables");
        let sites = [rules("none", 0), rules(own, 10), rules(peer, 10), rules(own, 1_000), rules(peer, 1_000)];
        assert_eq!((beside(&sites, 1), beside(&sites, 3)), (Some(2), Some(4)));
        assert_eq!((beside(&sites[..2], 1), beside(&sites, 9)), (None, None));
    }
}
