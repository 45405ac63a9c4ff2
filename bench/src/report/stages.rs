//! Where the time of a sync goes.

use crate::results::Measurement;
use crate::statistics::FOR_P99;

use super::number::{count, digits, with_unit};
use super::plot::{Bar, Drawing, Plot};
use super::runs::{Run, Runs, size, word};
use super::section::{Cell, Exhibit, Section, Table};

/// In the order in which they happen.
const STAGES: [&str; 7] = ["decode", "index", "policy", "diff", "publish", "encode", "kernel"];
const COLD: &str = "cold sync";
/// What an operation takes besides time: values, and how a reader calls them.
const EFFORT: [(&str, &str); 8] = [
    ("times", "times"),
    ("cpu_ms", "CPU, ms"),
    ("allocations", "allocations"),
    ("allocated_mb", "allocated, MB"),
    ("transactions", "transactions"),
    ("elements", "elements"),
    ("sent_bytes", "bytes"),
    ("kernel_memory_mb", "in the kernel, MB"),
];

/// One cluster's operations.
struct Cluster<'r> {
    run: &'r Run,
    services: f64,
    endpoints: f64,
    mix: String,
}

impl Cluster<'_> {
    fn describe(&self) -> String {
        let Self { services, endpoints, mix, .. } = self;
        let twice = if mix == "realistic" { " × 2 families" } else { "" };
        format!("{} Services, {} endpoints{twice}, {mix}", count(*services), count(*endpoints))
    }

    fn operations(&self) -> impl Iterator<Item = &Measurement> {
        self.run.measurements().filter(|measurement| measurement.values.contains_key("decode_ms"))
    }

    /// Milliseconds of each stage of the cold sync.
    fn cold(&self) -> Option<Vec<f64>> {
        let cold = self.operations().find(|measurement| measurement.name == COLD)?;
        Some(STAGES.iter().map(|stage| stage_of(cold, stage).unwrap_or_default()).collect())
    }
}

/// `None` without a sync at one size.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let clusters = clusters(runs);
    if clusters.is_empty() {
        return None;
    }
    let bars = clusters.iter().filter_map(|cluster| Some(Bar { name: cluster.describe(), parts: cluster.cold()? })).collect();
    let mut exhibits = vec![Exhibit::Plot(Plot {
        caption: "Cold sync by its stages, milliseconds".to_owned(),
        drawing: Drawing::Bars { parts: STAGES.map(str::to_owned).into(), bars },
    })];
    exhibits.push(Exhibit::Table(figures(&clusters)));
    exhibits.extend(clusters.iter().flat_map(|cluster| [times(cluster), effort(cluster)]).map(Exhibit::Table));
    Some(Section {
        id: "stages",
        title: "Where the time of a sync goes",
        lead: "First what a daemon did, a process of its own (docs/performance.md says from when to when); then every operation in process, \
               on one thread, from the JSON of an object to the kernel's acknowledgement: percentiles of the whole and means of the \
               stages, in milliseconds, and then what it took besides, on average. What was done fewer than a hundred times has no p99. Elements and bytes are what the kernel is sent; what \
               it has more in memory is a difference of the whole machine, below zero where others gave more back."
            .to_owned(),
        exhibits,
        sources: clusters.iter().map(|cluster| cluster.run).collect(),
    })
}

/// The newest run of each size and mix, small ones first.
fn clusters(runs: &Runs) -> Vec<Cluster<'_>> {
    let mut clusters: Vec<Cluster<'_>> = Vec::new();
    for run in runs.of("sync") {
        let cold = run.measurements().find(|measurement| measurement.name == COLD && !measurement.at.contains_key("sweep"));
        let Some((services, endpoints)) = cold.and_then(|cold| Some((size(cold, "services")?, size(cold, "endpoints")?))) else {
            continue;
        };
        let mix = cold.and_then(|cold| word(cold, "mix")).unwrap_or_default().to_owned();
        let cluster = Cluster { run, services, endpoints, mix };
        if !clusters.iter().any(|other| other.describe() == cluster.describe()) {
            clusters.push(cluster);
        }
    }
    clusters.sort_by(|one, other| one.endpoints.total_cmp(&other.endpoints).then_with(|| one.mix.cmp(&other.mix)));
    clusters
}

/// The numbers that stand for each run: of the daemon, an API server double and the kernel together.
fn figures(clusters: &[Cluster<'_>]) -> Table {
    let heads: Vec<String> = clusters.iter().map(Cluster::describe).collect();
    let mut table = Table::new("A daemon of its own", std::iter::once("figure").chain(heads.iter().map(String::as_str)));
    // What only repeats a size has no meaning of its own.
    let legend = clusters.first().map(|cluster| cluster.run.results.legend.as_slice()).unwrap_or_default();
    for told in legend.iter().filter(|told| !told.meaning.is_empty()) {
        let cells = clusters.iter().map(|cluster| {
            Cell::number(cluster.run.figure(&told.name).map(|value| with_unit(&told.name, value)).unwrap_or_default())
        });
        table.rows.push(std::iter::once(Cell::words(&told.name)).chain(cells).collect());
    }
    table
}

fn times(cluster: &Cluster<'_>) -> Table {
    let mut table = Table::new(cluster.describe(), ["operation", "p50", "p99"].into_iter().chain(STAGES));
    for operation in cluster.operations() {
        let value = |name: &str| operation.values.get(name).copied();
        let percentiles = [value("p50_ms"), value("p99_ms").filter(|_| value("times") >= Some(FOR_P99.into()))];
        let stages = STAGES.map(|stage| stage_of(operation, stage));
        let cells = percentiles.into_iter().chain(stages).map(|value| Cell::number(value.map(digits).unwrap_or_default()));
        table.rows.push(std::iter::once(Cell::words(&operation.name)).chain(cells).collect());
    }
    table
}

fn effort(cluster: &Cluster<'_>) -> Table {
    let heads = std::iter::once("operation").chain(EFFORT.map(|(_, head)| head));
    let mut table = Table::new(format!("{}, and what it took", cluster.describe()), heads);
    for operation in cluster.operations() {
        let cells = EFFORT
            .map(|(name, _)| Cell::number(operation.values.get(name).map(|value| amount(name, *value)).unwrap_or_default()));
        table.rows.push(std::iter::once(Cell::words(&operation.name)).chain(cells).collect());
    }
    table
}

/// Counts are whole numbers, although their means are not; what has a unit has three digits.
fn amount(name: &str, value: f64) -> String {
    if name.ends_with("_ms") || name.ends_with("_mb") { digits(value) } else { count(value) }
}

fn stage_of(operation: &Measurement, stage: &str) -> Option<f64> {
    operation.values.get(&format!("{stage}_ms")).copied()
}
