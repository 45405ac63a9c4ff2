//! What is kept in memory.

use super::number::{count, digits};
use super::plot::{Axis, Drawing, Line, Plot, Scale};
use super::runs::{Runs, size};
use super::section::{Cell, Exhibit, Section, Table};

/// Values, and how a reader calls them: of the daemon,
const DAEMON: [(&str, &str); 4] = [
    ("rss_mb", "programmed, MB"),
    ("rss_after_churn_mb", "after churn, MB"),
    ("peak_rss_mb", "at most, MB"),
    ("rss_per_endpoint_bytes", "an endpoint, bytes"),
];
/// and of the kernel.
const KERNEL: [(&str, &str); 4] = [
    ("churned", "endpoints changed"),
    ("kernel_elements", "elements"),
    ("kernel_memory_mb", "more than before, MB"),
    ("kernel_per_endpoint_bytes", "an endpoint, bytes"),
];
/// Those that are drawn: resident memory.
const DRAWN: usize = 3;

/// `None` without a run of `memory`.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let run = runs.of("memory").next()?;
    let rows: Vec<_> = run.measurements().filter_map(|row| Some((size(row, "endpoints")?, &row.values))).collect();
    let table = |caption: &str, columns: [(&'static str, &'static str); 4]| {
        let mut table = Table::new(caption, std::iter::once("endpoints").chain(columns.map(|(_, head)| head)));
        for (endpoints, values) in &rows {
            let cell = |(name, _)| Cell::number(values.get(name).map(|value| amount(name, *value)).unwrap_or_default());
            table.rows.push(std::iter::once(Cell::number(count(*endpoints))).chain(columns.map(cell)).collect());
        }
        Exhibit::Table(table)
    };
    let line = |(name, head): &(&str, &str)| Line {
        name: head.trim_end_matches(", MB").to_owned(),
        points: rows.iter().filter_map(|(endpoints, values)| Some((*endpoints, *values.get(*name)?))).collect(),
    };
    let plot = Plot {
        caption: "Resident memory by the number of endpoints".to_owned(),
        drawing: Drawing::Lines {
            x: Axis { name: "endpoints".to_owned(), scale: Scale::Linear },
            y: Axis { name: "MB".to_owned(), scale: Scale::Linear },
            lines: DAEMON.iter().take(DRAWN).map(line).collect(),
        },
    };
    Some(Section {
        id: "memory",
        title: "Memory",
        lead: "A daemon of its own for each size, 50 endpoints to a Service. What an endpoint takes is what a daemon has more than one \
               without any; what the kernel has more is as good as the machine was quiet, and means little at few endpoints."
            .to_owned(),
        exhibits: vec![
            Exhibit::Plot(plot),
            table("Resident memory of the daemon", DAEMON),
            table("Memory of the kernel, and what it has there", KERNEL),
        ],
        sources: vec![run],
    })
}

/// Megabytes and bytes have three digits, counts all of them.
fn amount(name: &str, value: f64) -> String {
    if name.ends_with("_mb") || name.ends_with("_bytes") { digits(value) } else { count(value) }
}
