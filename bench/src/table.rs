//! Results for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::results::{Measurement, Results, Verdict};

/// Everything: what it was run on, the measurements, and the figures beside their budgets.
pub(crate) fn of(results: &Results) -> String {
    let Results { command_line, machine, versions, profile, interrupted, .. } = results;
    let mut text = format!(
        "{command_line}\n{}, {}\n{}, {}\n",
        versions.describe(),
        profile.describe(),
        machine.describe(),
        results.surroundings()
    );
    measurements(&mut text, &results.measurements);
    figures(&mut text, results);
    if *interrupted {
        text.push_str("\ninterrupted: this is what had been measured by then");
    }
    text
}

fn figures(text: &mut String, results: &Results) {
    if results.legend.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{:<32} {:>10} {:>10}  {:<7} what it is", "figure", "measured", "budget", "verdict");
    let mut missed = 0;
    for legend in &results.legend {
        let name = &legend.name;
        let Some(value) = results.figure(name) else { continue };
        let verdict = results.verdict(name);
        missed += usize::from(verdict == Verdict::Missed);
        let budget = results.budgets.get(name).map(|budget| number(name, *budget)).unwrap_or_default();
        let (value, verdict) = (number(name, value), verdict.word());
        let _ = writeln!(text, "{name:<32} {value:>10} {budget:>10}  {verdict:<7} {}", legend.meaning);
    }
    text.push_str(&match missed {
        _ if results.budgets.is_empty() => "\nno budget is for these sizes".to_owned(),
        0 => "\nevery budget is kept".to_owned(),
        _ => format!("\n{missed} budgets are missed"),
    });
}

/// Measurements that follow each other and answer with the same names are one table.
fn measurements(text: &mut String, measurements: &[Measurement]) {
    for alike in measurements.chunk_by(|one, next| one.values.keys().eq(next.values.keys()) && one.at.keys().eq(next.at.keys())) {
        let Some(first) = alike.first() else { continue };
        // What is the same for all of them is said once, above.
        let (same, differing): (Vec<_>, Vec<_>) =
            first.at.iter().partition(|(name, value)| alike.iter().all(|measurement| measurement.at.get(*name) == Some(*value)));
        let differing: Vec<&String> = differing.into_iter().map(|(name, _)| name).collect();
        let heads = differing.iter().copied().chain(first.values.keys()).cloned();
        let mut rows: Vec<Vec<String>> = vec![std::iter::once("what".to_owned()).chain(heads).collect()];
        rows.extend(alike.iter().map(|measurement| {
            let at = differing.iter().map(|name| measurement.at.get(*name).map(plain).unwrap_or_default());
            let values = measurement.values.iter().map(|(name, value)| number(name, *value));
            std::iter::once(measurement.name.clone()).chain(at).chain(values).collect()
        }));
        text.push('\n');
        if !same.is_empty() {
            let same: Vec<String> = same.into_iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
            let _ = writeln!(text, "{}", same.join(", "));
        }
        align(text, &rows);
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first column to the left, numbers to the right.
fn align(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

/// A number as its name's unit wants it.
fn number(name: &str, value: f64) -> String {
    let measured = ["_ns", "_us", "_ms", "_mb", "_per_second"].iter().any(|unit| name.ends_with(unit));
    if measured || value.fract() != 0.0 { significant(value) } else { format!("{value:.0}") }
}

/// Three digits that mean something.
pub(crate) fn significant(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    fn results() -> Results {
        let mut results = Results { measurements: Vec::new(), ..example() };
        let row = |services: u32| {
            Measurement::new("cold sync").at("plane", "nftables").at("services", services).value("kernel_ms", f64::from(services))
        };
        results.measurements.extend([row(10), row(50_000)]);
        results.measurements.push(Measurement::new("removed").value("p99_ms", 0.25));
        results
    }

    #[test]
    fn the_table_has_budget_and_verdict_of_each_figure() {
        let table = of(&results());
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(row("cold_sync_ms").contains("kept ") && row("change_p99_ms").contains("MISSED"), "{table}");
        assert!(row("kernel_elements").contains("265000"), "{table}");
        assert!(table.ends_with("1 budgets are missed"), "{table}");
    }

    #[test]
    fn measurements_of_one_kind_share_a_head() {
        let table = of(&results());
        let at = table.find("plane ").unwrap();
        let expected = "plane nftables\nwhat       services  kernel_ms\ncold sync        10       10.0\ncold sync     50000      50000\n\nwhat     p99_ms\nremoved   0.250\n";
        assert_eq!(&table[at..at + expected.len()], expected);
    }

    #[test]
    fn an_interrupted_run_says_so() {
        let interrupted = Results { interrupted: true, ..Results::begin("sync") };
        assert!(of(&interrupted).ends_with("by then"));
    }

    #[test]
    fn three_digits_that_mean_something() {
        assert_eq!([0.012_34, 1.5, 42.0, 471.6].map(significant), ["0.012", "1.50", "42.0", "472"]);
    }
}
