//! Figures, the budgets they are held to, and how both are printed.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use crate::machine::Machine;

/// One number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// As in the JSON; its end says the unit: `_ms`, `_mb`, or none for a count.
    name: &'static str,
    value: f64,
    /// Not to be exceeded. `None`: told for explanation, or measured at another size than the budget is for.
    budget: Option<f64>,
    /// What exactly it is, for people.
    meaning: &'static str,
}

/// Whether a figure keeps to its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Missed,
    NoBudget,
}

/// Everything that one run has to say.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    /// As it was typed.
    command: String,
    figures: Vec<Figure>,
}

impl Figure {
    pub(crate) fn verdict(&self) -> Verdict {
        match self.budget {
            None => Verdict::NoBudget,
            Some(budget) if self.value <= budget => Verdict::Kept,
            Some(_) => Verdict::Missed,
        }
    }

    fn number(&self, number: f64) -> String {
        if self.name.ends_with("_ms") || self.name.ends_with("_mb") { significant(number) } else { format!("{number:.0}") }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Missed => "MISSED",
            Self::NoBudget => "",
        }
    }
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, command: std::env::args().collect::<Vec<_>>().join(" "), figures: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &'static str, value: f64, budget: Option<f64>, meaning: &'static str) {
        self.figures.push(Figure { name, value, budget, meaning });
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{}\nsheave {}, {}\n{}\n\n{:<28} {:>10} {:>10}  {:<7} what it is\n",
            self.command,
            env!("CARGO_PKG_VERSION"),
            profile(),
            self.machine.describe(),
            "figure",
            "measured",
            "budget",
            "verdict",
        );
        for figure in &self.figures {
            let budget = figure.budget.map(|budget| figure.number(budget)).unwrap_or_default();
            let (value, verdict) = (figure.number(figure.value), figure.verdict().word());
            let _ = writeln!(text, "{:<28} {value:>10} {budget:>10}  {verdict:<7} {}", figure.name, figure.meaning);
        }
        let missed = self.figures.iter().filter(|figure| figure.verdict() == Verdict::Missed).count();
        text.push_str(&match missed {
            0 => "\nevery budget is kept".to_owned(),
            _ => format!("\n{missed} budgets are missed"),
        });
        text
    }

    /// For programs: each figure under its name, its budget under `budgets`.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        let mut object = Map::new();
        object.insert("command".into(), self.command.clone().into());
        object.insert("machine".into(), serde_json::to_value(&self.machine).context("describing the machine")?);
        object.insert("versions".into(), json!({"sheave": env!("CARGO_PKG_VERSION"), "profile": profile()}));
        object.extend(self.figures.iter().map(|figure| (figure.name.to_owned(), rounded(figure.value))));
        let budgets = self.figures.iter().filter_map(|figure| Some((figure.name.to_owned(), rounded(figure.budget?))));
        object.insert("budgets".into(), Value::Object(budgets.collect()));
        serde_json::to_string_pretty(&Value::Object(object)).context("writing JSON")
    }
}

/// A debug build is for trying the bench out; its numbers mean nothing, and should say so wherever they end up.
fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug build: these numbers mean nothing" } else { "release build" }
}

/// Three digits that mean something.
fn significant(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

/// Microseconds are the finest that is measured; counts stay whole.
fn rounded(number: f64) -> Value {
    let rounded = (number * 1e3).round() / 1e3;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 { json!(rounded as i64) } else { json!(rounded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(Machine::here());
        report.add("cold_sync_ms", 499.9996, Some(500.0), "kept by a hair");
        report.add("change_p99_ms", 3.001, Some(3.0), "missed by a hair");
        report.add("kernel_elements", 265_000.0, None, "counted");
        report
    }

    #[test]
    fn a_budget_is_kept_up_to_its_last_bit() {
        let verdict = |value, budget| Figure { name: "x_ms", value, budget, meaning: "" }.verdict();
        assert_eq!(verdict(3.0, Some(3.0)), Verdict::Kept);
        assert_eq!(verdict(3.000_001, Some(3.0)), Verdict::Missed);
        assert_eq!(verdict(f64::NAN, Some(3.0)), Verdict::Missed, "what is no number keeps no budget");
        assert_eq!(verdict(1e9, None), Verdict::NoBudget);
    }

    #[test]
    fn the_table_has_budget_and_verdict_of_each_figure() {
        let table = report().table();
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(row("cold_sync_ms").contains("kept ") && row("change_p99_ms").contains("MISSED"), "{table}");
        assert!(row("kernel_elements").contains("265000"), "{table}");
        assert!(table.ends_with("1 budgets are missed"), "{table}");
    }

    #[test]
    fn the_json_has_figures_by_name_and_budgets_apart() {
        let json: Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(json["cold_sync_ms"], 500);
        assert_eq!(json["change_p99_ms"], 3.001);
        assert_eq!(json["kernel_elements"], 265_000);
        assert_eq!(json["budgets"], json!({"cold_sync_ms": 500, "change_p99_ms": 3}));
        assert!(json["machine"]["cores"].as_u64().unwrap() >= 1 && json["versions"]["sheave"].is_string());
    }

    #[test]
    fn three_digits_that_mean_something() {
        assert_eq!([0.012_34, 1.5, 42.0, 471.6].map(significant), ["0.012", "1.50", "42.0", "472"]);
    }
}
