//! What is kept in memory.

use super::number::{count, digits};
use super::plot::{Axis, Drawing, Line, Plot, Scale};
use super::runs::{Runs, size};
use super::section::{Cell, Exhibit, Section, Table};

/// Values, and how a reader calls them.
const COLUMNS: [(&str, &str); 5] = [
    ("rss_mb", "programmed, MB"),
    ("rss_after_churn_mb", "after churn, MB"),
    ("peak_rss_mb", "at most, MB"),
    ("rss_per_endpoint_bytes", "an endpoint, bytes"),
    ("kernel_per_endpoint_bytes", "in the kernel, bytes"),
];
/// Those that are drawn: resident memory.
const DRAWN: usize = 3;

/// `None` without a run of `memory`.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let run = runs.of("memory").next()?;
    let rows: Vec<_> = run.measurements().filter_map(|row| Some((size(row, "endpoints")?, &row.values))).collect();
    let mut table =
        Table::new("Resident memory of the daemon", std::iter::once("endpoints").chain(COLUMNS.map(|(_, head)| head)));
    for (endpoints, values) in &rows {
        let cell = |(name, _): (&str, &str)| Cell::number(values.get(name).map(|value| digits(*value)).unwrap_or_default());
        table.rows.push(std::iter::once(Cell::number(count(*endpoints))).chain(COLUMNS.map(cell)).collect());
    }
    let line = |(name, head): &(&str, &str)| Line {
        name: head.trim_end_matches(", MB").to_owned(),
        points: rows.iter().filter_map(|(endpoints, values)| Some((*endpoints, *values.get(*name)?))).collect(),
    };
    let plot = Plot {
        caption: "Resident memory by the number of endpoints".to_owned(),
        drawing: Drawing::Lines {
            x: Axis { name: "endpoints".to_owned(), scale: Scale::Linear },
            y: Axis { name: "MB".to_owned(), scale: Scale::Linear },
            lines: COLUMNS.iter().take(DRAWN).map(line).collect(),
        },
    };
    Some(Section {
        id: "memory",
        title: "Memory",
        lead: "A daemon of its own for each size, 50 endpoints to a Service. What an endpoint takes is what a daemon has more than one \
               without any; what the kernel has more is as good as the machine was quiet, and means little at few endpoints."
            .to_owned(),
        exhibits: vec![Exhibit::Plot(plot), Exhibit::Table(table)],
        sources: vec![run],
    })
}
