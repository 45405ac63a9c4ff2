//! What a Service costs a packet.

use crate::results::Measurement;

use super::number::{count, digits};
use super::plot::{Axis, Drawing, Line, Plot, Scale};
use super::runs::{Run, Runs, size, word};
use super::section::{Cell, Exhibit, Section, Table};

/// What is done, and how a reader calls it.
const MEASURES: [(&str, &str); 4] = [
    ("udp_first", "First question over UDP"),
    ("udp_established", "Later question over UDP"),
    ("tcp_one", "TCP connect, one client"),
    ("tcp_many", "TCP connect, several clients"),
];
/// The measure that is drawn: every other holds less of a Service.
const DRAWN: &str = "udp_first";
/// Told in the table of percentiles.
const PERCENTILES: [f64; 5] = [50.0, 75.0, 90.0, 99.0, 99.9];

/// One run, as a table of questions.
struct Seen<'r> {
    run: &'r Run,
    /// Numbers of Services, ascending.
    sizes: Vec<f64>,
    /// Whose rules, each with its subjects, in the order of the run.
    series: Vec<(&'r str, &'r str)>,
}

impl<'r> Seen<'r> {
    fn of(run: &'r Run) -> Self {
        let mut sizes: Vec<f64> = run.measurements().filter_map(|row| size(row, "services")).filter(|size| *size > 0.0).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        let mut series = Vec::new();
        for row in run.measurements() {
            let Some(one) = word(row, "rules").zip(word(row, "subject")).filter(|(rules, _)| *rules != "none") else { continue };
            if !series.contains(&one) {
                series.push(one);
            }
        }
        Self { run, sizes, series }
    }

    fn at(&self, measure: &str, (rules, subject): (&str, &str), services: f64) -> Option<&'r Measurement> {
        self.run.measurements().find(|row| {
            row.name == measure
                && word(row, "rules") == Some(rules)
                && word(row, "subject") == Some(subject)
                && size(row, "services") == Some(services)
        })
    }

    /// Whose rules it is says something only where there are several.
    fn name(&self, (rules, subject): (&str, &str)) -> String {
        let alone = self.series.iter().all(|(other, _)| *other == rules);
        if alone { subject.to_owned() } else { format!("{subject}, {rules}") }
    }
}

/// `None` without a run of `packets`.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let run = runs.of("packets").next()?;
    let seen = Seen::of(run);
    let most = *seen.sizes.last()?;
    let mut exhibits = vec![Exhibit::Plot(by_services(&seen)), Exhibit::Plot(distribution(&seen, most))];
    exhibits.extend(MEASURES.iter().map(|measure| Exhibit::Table(latencies(&seen, *measure))));
    exhibits.push(Exhibit::Table(rates(&seen, most)));
    exhibits.push(Exhibit::Table(percentiles(&seen, most)));
    Some(Section {
        id: "packets",
        title: "What a Service costs a packet",
        lead: "Middle latency in microseconds, and how much is done in a second; in brackets the ratio to the same client going straight to \
               the pod through the same rules, the middle one of all rounds. Rows that go straight have none. Without rules there is no conntrack either."
            .to_owned(),
        exhibits,
        sources: vec![run],
    })
}

fn by_services(seen: &Seen<'_>) -> Plot {
    let line = |series: &(&str, &str)| Line {
        name: seen.name(*series),
        points: seen.sizes.iter().filter_map(|services| Some((*services, p50(seen.at(DRAWN, *series, *services)?)?))).collect(),
    };
    Plot {
        caption: "First question over UDP: middle latency by the number of Services".to_owned(),
        drawing: Drawing::Lines {
            x: Axis { name: "Services".to_owned(), scale: Scale::Logarithmic },
            y: Axis { name: "µs".to_owned(), scale: Scale::Linear },
            lines: seen.series.iter().map(line).collect(),
        },
    }
}

fn distribution(seen: &Seen<'_>, services: f64) -> Plot {
    let line = |series: &(&str, &str)| {
        let points = seen.at(DRAWN, *series, services).map(told).unwrap_or_default();
        Line { name: seen.name(*series), points: points.into_iter().filter(|(percent, _)| *percent < 100.0).collect() }
    };
    Plot {
        caption: format!("First question over UDP: how its latencies are distributed, {} Services", count(services)),
        drawing: Drawing::Lines {
            x: Axis { name: "of all questions, no slower than".to_owned(), scale: Scale::Nines },
            y: Axis { name: "µs".to_owned(), scale: Scale::Logarithmic },
            lines: seen.series.iter().map(line).collect(),
        },
    }
}

fn latencies(seen: &Seen<'_>, (measure, called): (&str, &str)) -> Table {
    let heads: Vec<String> = seen.sizes.iter().map(|services| format!("{} Services", count(*services))).collect();
    let head = ["", "no rules"].into_iter().chain(heads.iter().map(String::as_str));
    let mut table = Table::new(called, head);
    for series in &seen.series {
        let bare = seen.at(measure, ("none", series.1), 0.0).and_then(p50).map(digits).unwrap_or_default();
        let cell = |services: &f64| {
            let found = seen.at(measure, *series, *services);
            let ratio = found.and_then(|row| row.values.get("p50_to_straight").copied());
            beside_straight(series.1, found.and_then(p50).map(digits), ratio)
        };
        let mut row = vec![Cell::words(seen.name(*series)), Cell::number(bare)];
        row.extend(seen.sizes.iter().map(|services| Cell::number(cell(services))));
        table.rows.push(row);
    }
    table
}

/// What one client, or several, get done in a second.
fn rates(seen: &Seen<'_>, services: f64) -> Table {
    let caption = format!("Questions and connections per second, {} Services", count(services));
    let mut table = Table::new(caption, std::iter::once("").chain(MEASURES.map(|(_, called)| called)));
    for series in &seen.series {
        let cell = |(measure, _)| {
            let found = seen.at(measure, *series, services);
            let (rate, ratio) =
                ["per_second", "rate_to_straight"].map(|name| found.and_then(|row| row.values.get(name).copied())).into();
            Cell::number(beside_straight(series.1, rate.map(count), ratio))
        };
        table.rows.push(std::iter::once(Cell::words(seen.name(*series))).chain(MEASURES.map(cell)).collect());
    }
    table
}

/// A number, and in brackets its ratio to the one that goes straight; that one has none.
fn beside_straight(subject: &str, number: Option<String>, ratio: Option<f64>) -> String {
    match (number, ratio) {
        (Some(number), Some(ratio)) if !subject.starts_with("straight") => format!("{number} ({ratio:.2})"),
        (number, _) => number.unwrap_or_default(),
    }
}

fn percentiles(seen: &Seen<'_>, services: f64) -> Table {
    let heads: Vec<String> = PERCENTILES.iter().map(|percent| format!("p{percent}, µs")).collect();
    let head = ["", "questions", "lost"].into_iter().chain(heads.iter().map(String::as_str));
    let mut table = Table::new(format!("First question over UDP, {} Services: percentiles", count(services)), head);
    for series in &seen.series {
        let Some(found) = seen.at(DRAWN, *series, services) else { continue };
        let told = told(found);
        let exchanges = found.samples.get("exchanges").and_then(|exchanges| exchanges.first());
        let counted = [exchanges, found.values.get("lost")].map(|number| number.map(|number| count(*number)).unwrap_or_default());
        let mut row: Vec<Cell> = std::iter::once(Cell::words(seen.name(*series))).chain(counted.map(Cell::number)).collect();
        row.extend(PERCENTILES.iter().map(|wanted| {
            let latency = told.iter().find(|(percent, _)| percent == wanted).map(|(_, latency)| digits(*latency));
            Cell::number(latency.unwrap_or_default())
        }));
        table.rows.push(row);
    }
    table
}

/// Percent, and the latency that so many do not exceed.
fn told(measurement: &Measurement) -> Vec<(f64, f64)> {
    let samples = |name| measurement.samples.get(name).map(Vec::as_slice).unwrap_or_default();
    samples("percentiles").iter().copied().zip(samples("latency_us").iter().copied()).collect()
}

fn p50(measurement: &Measurement) -> Option<f64> {
    measurement.values.get("p50_us").copied()
}
