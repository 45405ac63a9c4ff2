//! The envelope that all results come in: what was run, on what, and what came out. Written by every subcommand, read back by those
//! that compare and report.
//!
//! ```json
//! { "schema": 1, "benchmark": "sync", "command_line": "...", "started": "2026-01-01T00:00:00Z", "machine": {}, "versions": {},
//!   "profile": "release", "load_before": 0.1, "load_after": 1.9, "nft_listeners": 0, "interrupted": false,
//!   "cold_sync_ms": 483, "change_p99_ms": 0.2,
//!   "budgets": { "cold_sync_ms": 500 }, "legend": [ { "name": "cold_sync_ms", "meaning": "..." } ],
//!   "measurements": [ { "name": "cold sync", "at": { "services": 5000 }, "values": { "kernel_ms": 377 } } ] }
//! ```
//! A *figure* is one number that stands for the run, under its own name at the top, beside its budget (`floors`: what must be reached). A *measurement* is one question
//! asked at one point (an operation, a plane, a size), with all numbers that answer it. The end of a name says the unit: `_ns`, `_us`,
//! `_ms`, `_mb` (10^6 bytes), `_bytes`, `_per_second`; none for a count or a ratio. Fields that a reader does not know are kept.

mod command_line;
mod saved;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::machine::{Machine, Versions};
use crate::promises::{self, Bound};
pub(crate) use saved::{LARGEST, open_regular};

/// Of files of this making. A field that is added does not change it; one that means something else does.
pub(crate) const SCHEMA: u32 = 1;

/// One run of one subcommand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) schema: u32,
    /// The subcommand.
    pub(crate) benchmark: String,
    /// As it was typed.
    pub(crate) command_line: String,
    /// RFC 3339, UTC.
    pub(crate) started: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    pub(crate) profile: Profile,
    /// Load average of one minute, before anything was begun.
    pub(crate) load_before: f64,
    /// The same at the end, this run's own load included.
    pub(crate) load_after: f64,
    /// Sockets that listened to nf_tables' events at the beginning, anywhere on the machine: loads take longer for it.
    #[serde(default)]
    pub(crate) nft_listeners: usize,
    /// Stopped before its end: what is here was measured, but there is less of it.
    pub(crate) interrupted: bool,
    /// What was asked for and not measured, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left_out: Vec<String>,
    /// What figures must not exceed, by name.
    #[serde(default)]
    pub(crate) budgets: BTreeMap<String, f64>,
    /// What figures must reach, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) floors: BTreeMap<String, f64>,
    /// The figures in the order in which people should read them.
    #[serde(default)]
    pub(crate) legend: Vec<Legend>,
    #[serde(default)]
    pub(crate) measurements: Vec<Measurement>,
    /// The figures by name, and whatever a later version adds.
    #[serde(flatten)]
    pub(crate) figures: Map<String, Value>,
}

/// How bench and daemon were built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    Release,
    /// For trying the bench out: its numbers mean nothing.
    Debug,
}

/// What a figure is, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Legend {
    pub(crate) name: String,
    pub(crate) meaning: String,
    /// Why there is no verdict, although there is a budget for runs of another shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unjudged: Option<String>,
}

/// What a figure is held to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Held {
    /// Nothing: it explains.
    Free,
    To(Bound),
    /// A budget that is for runs of another shape; says for which.
    Elsewhere(String),
}

/// One question asked at one point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// What was done: `cold sync`, `one endpoint changed`.
    pub(crate) name: String,
    /// Where in the space of questions: plane, sizes, mix, protocol.
    #[serde(default)]
    pub(crate) at: BTreeMap<String, Value>,
    /// What came out, by name.
    #[serde(default)]
    pub(crate) values: BTreeMap<String, f64>,
    /// Single samples by name, where a report draws how they are distributed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) samples: BTreeMap<String, Vec<f64>>,
}

/// Whether a figure keeps to its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    Missed,
    NoBudget,
}

impl Profile {
    /// Of this build.
    pub(crate) const HERE: Self = if cfg!(debug_assertions) { Self::Debug } else { Self::Release };

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Release => "release build",
            Self::Debug => "debug build: these numbers mean nothing",
        }
    }
}

impl Measurement {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Says where: a size, a plane.
    #[must_use]
    pub(crate) fn at(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.at.insert(name.to_owned(), value.into());
        self
    }

    /// Says what came out. What is no number (a ratio to nothing) is left out.
    #[must_use]
    pub(crate) fn value(mut self, name: &str, value: f64) -> Self {
        if value.is_finite() {
            self.values.insert(name.to_owned(), rounded(value));
        }
        self
    }
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Missed => "MISSED",
            Self::NoBudget => "",
        }
    }
}

impl Results {
    /// A run that begins now, on this machine.
    pub(crate) fn begin(benchmark: &str) -> Self {
        let load = crate::machine::load_average();
        Self {
            schema: SCHEMA,
            benchmark: benchmark.to_owned(),
            command_line: command_line::of(std::env::args_os()),
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            machine: Machine::here(),
            versions: Versions::here(),
            profile: Profile::HERE,
            load_before: load,
            load_after: load,
            nft_listeners: crate::listeners::of_nf_tables(),
            interrupted: false,
            left_out: Vec::new(),
            budgets: BTreeMap::new(),
            floors: BTreeMap::new(),
            legend: Vec::new(),
            measurements: Vec::new(),
            figures: Map::new(),
        }
    }

    /// What else the machine was doing, in words.
    pub(crate) fn surroundings(&self) -> String {
        let Self { load_before, load_after, nft_listeners, .. } = self;
        let load = format!("load {load_before} before and {load_after} after");
        match nft_listeners {
            0 => load,
            listeners => format!("{load}, {listeners} listening to nf_tables, which slows every load"),
        }
    }

    /// Adds a figure. What is no number is left out.
    pub(crate) fn add(&mut self, name: &str, value: f64, meaning: &str) {
        if value.is_finite() {
            self.figures.insert(name.to_owned(), number(value));
            self.legend.push(Legend { name: name.to_owned(), meaning: meaning.to_owned(), unjudged: None });
        }
    }

    /// Says of each figure what it is held to, as far as the run is known by now.
    pub(crate) fn judge(&mut self) {
        let held: Vec<Held> = self.legend.iter().map(|told| promises::held(self, &told.name)).collect();
        self.budgets.clear();
        self.floors.clear();
        for (told, held) in self.legend.iter_mut().zip(held) {
            told.unjudged = None;
            match held {
                Held::Free => {}
                Held::To(Bound::AtMost(most)) => drop(self.budgets.insert(told.name.clone(), most)),
                Held::To(Bound::AtLeast(least)) => drop(self.floors.insert(told.name.clone(), least)),
                Held::Elsewhere(why) => told.unjudged = Some(why),
            }
        }
    }

    /// What a figure is held to.
    pub(crate) fn bound(&self, name: &str) -> Option<Bound> {
        let most = self.budgets.get(name).copied().map(Bound::AtMost);
        most.or_else(|| self.floors.get(name).copied().map(Bound::AtLeast))
    }

    /// A figure.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name)?.as_f64()
    }

    pub(crate) fn verdict(&self, name: &str) -> Verdict {
        self.figure(name).zip(self.bound(name)).map_or(Verdict::NoBudget, |(value, bound)| bound.verdict(value))
    }

    /// For programs.
    ///
    /// # Errors
    /// If it cannot be written as JSON, which nothing in it prevents.
    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("writing JSON")
    }
}

/// A number that says where a measurement was made.
pub(crate) fn size(measurement: &Measurement, name: &str) -> Option<f64> {
    measurement.at.get(name)?.as_f64()
}

/// A word that says where a measurement was made.
pub(crate) fn word<'m>(measurement: &'m Measurement, name: &str) -> Option<&'m str> {
    measurement.at.get(name).and_then(Value::as_str)
}

/// Nanoseconds in a millisecond figure are the finest that is measured.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Microseconds are the finest of a figure in milliseconds; counts stay whole.
fn number(value: f64) -> Value {
    let rounded = (value * 1e3).round() / 1e3;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 { Value::from(rounded as i64) } else { Value::from(rounded) }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A run with a figure that keeps to its budget, one that does not, and one without.
    pub(crate) fn example() -> Results {
        let mut results = Results { profile: Profile::Release, ..Results::begin("sync") };
        results.add("cold_sync_ms", 499.9996, "kept by a hair");
        results.add("change_p99_ms", 3.001, "missed by a hair");
        results.add("kernel_elements", 265_000.0, "counted");
        for (name, size) in [("services", 5_000), ("endpoints_per_service", 50), ("changes", 200), ("add_at", 50_000)] {
            results.add(name, size.into(), "");
        }
        let cold = Measurement::new("cold sync").at("plane", "nftables").at("mix", "plain");
        results.measurements.push(cold.value("kernel_ms", 377.25));
        results.judge();
        results
    }

    #[test]
    fn figures_are_at_the_top_by_name_and_budgets_apart() {
        let json: Value = serde_json::from_str(&example().json().unwrap()).unwrap();
        assert_eq!(json["cold_sync_ms"], 500);
        assert_eq!(json["change_p99_ms"], 3.001);
        assert_eq!(json["kernel_elements"], 265_000);
        assert_eq!(json["budgets"], json!({"cold_sync_ms": 500.0, "change_p99_ms": 3.0}));
        assert_eq!(
            json["measurements"][0],
            json!({"name": "cold sync", "at": {"plane": "nftables", "mix": "plain"}, "values": {"kernel_ms": 377.25}})
        );
        assert!(json["machine"]["cpus"].as_u64().unwrap() >= 1 && json["versions"]["sheave"].is_string());
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut results = example();
        results.add("ratio", f64::NAN, "nothing by nothing");
        assert_eq!(results.figure("ratio"), None);
        assert!(Measurement::new("x").value("ratio", f64::INFINITY).values.is_empty());
    }
}
