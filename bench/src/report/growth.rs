//! How cost grows with the cluster.

use crate::results::Measurement;

use super::number::digits;
use super::plot::{Axis, Drawing, Line, Plot, Scale};
use super::runs::{Run, Runs, size, word};
use super::section::{Cell, Exhibit, Section, Table};

/// The directions, as measurements name them.
const ALONG: [(&str, &str); 2] = [("services", "Services of 5 endpoints"), ("endpoints", "endpoints, 50 to a Service")];

/// `None` without a run of the matrix.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let run = runs.of("sync").find(|run| run.measurements().any(|measurement| measurement.at.contains_key("sweep")))?;
    let mut exhibits: Vec<Exhibit> = ALONG.iter().map(|(along, what)| Exhibit::Plot(plot(run, along, what))).collect();
    exhibits.push(Exhibit::Table(exponents(run)));
    Some(Section {
        id: "growth",
        title: "How cost grows",
        lead: "Both axes are logarithmic: a level line costs the same in any cluster, one that rises a decade with each decade is in \
               proportion. The exponent is the slope over the sizes from 1,000 on."
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

fn exponents(run: &Run) -> Table {
    let rows: Vec<&Measurement> = run.measurements().filter(|row| row.at.contains_key("growth")).collect();
    let mut table = Table::new("Exponent of the middle time, 0 being flat", ["operation", "by Services", "by endpoints"]);
    for name in names(rows.iter().copied()) {
        let exponent = |along: &str| {
            let row = rows.iter().find(|row| row.name == name && word(row, "growth") == Some(along));
            row.and_then(|row| row.values.get("p50_exponent")).map(|exponent| digits(*exponent)).unwrap_or_default()
        };
        let cells = ALONG.iter().map(|(along, _)| Cell::number(exponent(along)));
        table.rows.push(std::iter::once(Cell::words(name)).chain(cells).collect());
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
