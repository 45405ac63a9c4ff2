//! How cost grows with the cluster.

use crate::results::Measurement;

use super::number::digits;
use super::plot::{Axis, Drawing, Line, Plot, Scale};
use super::runs::{Run, Runs, size, word};
use super::section::{Cell, Exhibit, Section, Table};

/// The directions, as measurements name them.
const ALONG: [(&str, &str); 2] = [("services", "Services of 5 endpoints"), ("endpoints", "endpoints, 50 to a Service")];

/// Exponents, and what they are of.
const EXPONENTS: [(&str, &str); 5] = [
    ("p50_exponent", "time, p50"),
    ("cpu_exponent", "CPU"),
    ("kernel_exponent", "time in the kernel"),
    ("allocations_exponent", "allocations"),
    ("elements_exponent", "elements"),
];

/// `None` without a run of the matrix.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let run = runs.of("sync").find(|run| run.measurements().any(|measurement| measurement.at.contains_key("sweep")))?;
    let mut exhibits: Vec<Exhibit> = ALONG.iter().map(|(along, what)| Exhibit::Plot(plot(run, along, what))).collect();
    exhibits.extend(ALONG.iter().map(|(along, what)| Exhibit::Table(exponents(run, along, what))));
    Some(Section {
        id: "growth",
        title: "How cost grows",
        lead: "Both axes are logarithmic: a level line costs the same in any cluster, one that rises a decade with each decade is in \
               proportion. The exponent is the slope over the sizes from 1,000 on; what is next to nothing at any size has one that means nothing."
            .to_owned(),
        exhibits,
        sources: vec![run],
    })
}

fn plot(run: &Run, along: &str, what: &str) -> Plot {
    let swept: Vec<&Measurement> = run.measurements().filter(|row| word(row, "sweep") == Some(along)).collect();
    let lines = names(swept.iter().copied()).into_iter().map(|name| {
        let rows = swept.iter().filter(|row| row.name == name);
        let points = rows.filter_map(|row| Some((size(row, along)?, *row.values.get("p50_ms")?)));
        Line { name: name.to_owned(), points: points.collect() }
    });
    Plot {
        caption: format!("Middle time of an operation by {what}"),
        drawing: Drawing::Lines {
            x: Axis { name: along.replace("services", "Services"), scale: Scale::Logarithmic },
            y: Axis { name: "ms".to_owned(), scale: Scale::Logarithmic },
            lines: lines.collect(),
        },
    }
}

fn exponents(run: &Run, along: &str, what: &str) -> Table {
    let caption = format!("Exponents of growth by {what}, 0 being flat");
    let mut table = Table::new(caption, std::iter::once("operation").chain(EXPONENTS.map(|(_, head)| head)));
    for row in run.measurements().filter(|row| word(row, "growth") == Some(along)) {
        let cells =
            EXPONENTS.map(|(name, _)| Cell::number(row.values.get(name).map(|exponent| digits(*exponent)).unwrap_or_default()));
        table.rows.push(std::iter::once(Cell::words(&row.name)).chain(cells).collect());
    }
    table
}

/// Of all operations, in the order in which they were made.
fn names<'m>(rows: impl Iterator<Item = &'m Measurement>) -> Vec<&'m str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.name.as_str()) {
            names.push(&row.name);
        }
    }
    names
}
