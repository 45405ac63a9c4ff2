//! Results as files: read back, and believed only as far as they make sense. A report repeats what a file says, so a file that says what
//! no run can have seen is refused with the field that says it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Measurement, Results, SCHEMA};

/// What every whole run of a subcommand says, so that its absence tells of a file that was cut or written by hand.
struct Said {
    benchmark: &'static str,
    figures: &'static [&'static str],
    /// Of each measurement: where it was made,
    at: &'static [&'static str],
    /// and what came out.
    values: &'static [&'static str],
}

const SAID: [Said; 4] = [
    Said {
        benchmark: "sync",
        figures: &[
            "services",
            "endpoints_per_service",
            "changes",
            "add_at",
            "cold_sync_ms",
            "start_to_programmed_ms",
            "change_p50_ms",
            "change_p99_ms",
            "service_add_p99_ms",
            "peak_rss_mb",
        ],
        at: &["plane", "mix", "services", "endpoints"],
        values: &["p50_ms"],
    },
    Said { benchmark: "memory", figures: &[], at: &["endpoints"], values: &["rss_mb", "peak_rss_mb", "churned"] },
    Said { benchmark: "packets", figures: &["rounds"], at: &["rules", "subject", "services"], values: &["p50_us"] },
    Said {
        benchmark: "compare",
        figures: &[],
        at: &["contender", "services", "endpoints_per_service"],
        values: &["programmed_ms", "change_p50_ms"],
    },
];
/// Of where something was measured, what is a number.
const SIZES: [&str; 4] = ["services", "endpoints", "endpoints_per_service", "changes"];
/// What is counted, and never in parts.
const COUNTED: [&str; 7] = ["services", "endpoints", "endpoints_per_service", "changes", "add_at", "rounds", "times"];
/// Of a matrix, which has no figures: of one of its sizes, and of what its sizes come to.
const SWEEP: &str = "sweep";
const GROWTH: &str = "growth";

/// No number of a run is larger, be it in bytes or in nanoseconds. An axis that ends there can still be divided.
pub(crate) const LARGEST: f64 = 1e15;
/// Differences, and exponents: what else is below nothing is no measurement.
const SIGNED: [&str; 4] = ["kernel_memory_mb", "kernel_per_endpoint_bytes", "rss_per_endpoint_bytes", "_exponent"];
const UNITS: [&str; 6] = ["_ns", "_us", "_ms", "_mb", "_bytes", "_per_second"];

impl Results {
    /// Reads a file that a run has saved.
    ///
    /// # Errors
    /// For a file that is not there or is no regular one, is no result, is one of a later schema, or says what cannot be: with its name
    /// and the field.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = || path.display().to_string();
        let mut text = String::new();
        open_regular(path)?.read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
        let json = &mut serde_json::Deserializer::from_str(&text);
        let results: Self = serde_path_to_error::deserialize(&mut *json)
            .with_context(|| format!("{} holds no results of sheave-bench", shown()))?;
        json.end().with_context(|| format!("{} holds more than results of sheave-bench", shown()))?;
        ensure!(
            results.schema <= SCHEMA,
            "{}: schema {} is later than {SCHEMA}, which this build reads",
            shown(),
            results.schema
        );
        results.ensure_sound().with_context(shown)?;
        Ok(results)
    }

    /// When it began.
    ///
    /// # Errors
    /// For what is no time.
    pub(crate) fn began(&self) -> Result<jiff::Timestamp> {
        self.started.parse().with_context(|| format!("started: `{}` is no time", self.started))
    }

    fn ensure_sound(&self) -> Result<()> {
        self.began()?;
        ensure!(self.machine.cpus > 0, "machine.cpus: a machine has one at least");
        for (name, load) in [("load_before", self.load_before), ("load_after", self.load_after)] {
            ensure_number(name, load)?;
        }
        self.ensure_figures()?;
        for (place, measurement) in self.measurements.iter().enumerate() {
            measurement.ensure_sound().with_context(|| format!("measurements[{place}]"))?;
        }
        self.ensure_whole()
    }

    fn ensure_figures(&self) -> Result<()> {
        for (name, budget) in self.budgets.iter().chain(&self.floors) {
            ensure_number(&format!("budgets.{name}"), *budget)?;
        }
        // What a later version has added may be anything, unless it is named as a number.
        let named = self.legend.iter().map(|told| &told.name).chain(self.budgets.keys()).chain(self.floors.keys());
        let measured = self.figures.keys().filter(|name| UNITS.iter().any(|unit| name.ends_with(unit)));
        for name in named.chain(measured) {
            let said = self.figures.get(name).with_context(|| format!("{name}: named, and not there"))?;
            let number = said.as_f64().with_context(|| format!("{name}: {said} is no number"))?;
            ensure_number(name, number)?;
        }
        let numbers = || self.figures.iter().filter_map(|(name, said)| Some((name.as_str(), said.as_f64()?)));
        numbers().try_for_each(|(name, number)| ensure_number(name, number))?;
        ensure_ordered(numbers())
    }

    /// Of a run that was cut off there is less, and that is no lie.
    fn ensure_whole(&self) -> Result<()> {
        let said = SAID.iter().find(|said| said.benchmark == self.benchmark);
        let said = said.with_context(|| format!("benchmark: `{}` is no subcommand that keeps results", self.benchmark))?;
        if self.interrupted {
            return Ok(());
        }
        ensure!(!self.measurements.is_empty(), "measurements: there are none");
        let matrix = self.measurements.iter().any(|row| row.at.contains_key(SWEEP));
        for figure in said.figures.iter().filter(|_| !matrix) {
            let value = self.figure(figure).with_context(|| format!("{figure}: missing"))?;
            ensure!(value > 0.0, "{figure}: {value} is what no run takes");
        }
        for (place, row) in self.measurements.iter().enumerate().filter(|(_, row)| !row.at.contains_key(GROWTH)) {
            if let Some(name) = row.missing(said) {
                bail!("measurements[{place}].{name}: missing");
            }
        }
        Ok(())
    }
}

impl Measurement {
    fn ensure_sound(&self) -> Result<()> {
        let Self { name: _, at, values, samples } = self;
        for (name, place) in at {
            match place.as_f64() {
                Some(number) => ensure_number(&format!("at.{name}"), number)?,
                None => ensure!(!SIZES.contains(&name.as_str()), "at.{name}: {place} is no number"),
            }
        }
        for (name, value) in values {
            ensure_number(&format!("values.{name}"), *value)?;
        }
        ensure_ordered(values.iter().map(|(name, value)| (name.as_str(), *value))).context("values")?;
        for (name, values) in samples {
            values.iter().try_for_each(|value| ensure_number(&format!("samples.{name}"), *value))?;
        }
        Ok(())
    }

    /// The first of what every such measurement says and this one does not.
    fn missing(&self, said: &Said) -> Option<String> {
        let at = said.at.iter().find(|name| !self.at.contains_key(**name)).map(|name| format!("at.{name}"));
        let value = || said.values.iter().find(|name| !self.values.contains_key(**name)).map(|name| format!("values.{name}"));
        at.or_else(value)
    }
}

/// Opens a file to read all of it. One that has no end, or waits for a writer, would be read for ever.
///
/// # Errors
/// If it is not there, cannot be read, or is no regular file.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.with_context(|| format!("reading {}", path.display()))?;
    let kind = file.metadata().with_context(|| format!("reading {}", path.display()))?;
    ensure!(kind.is_file(), "reading {}: it is no regular file", path.display());
    Ok(file)
}

fn ensure_number(name: &str, number: f64) -> Result<()> {
    ensure!(number.is_finite() && number.abs() <= LARGEST, "{name}: {number:e} is no measured number");
    let signed = SIGNED.iter().any(|ending| name.ends_with(ending));
    ensure!(signed || number >= 0.0, "{name}: {number} is below nothing");
    let counted = COUNTED.contains(&name.rsplit('.').next().unwrap_or(name));
    ensure!(!counted || number.fract() == 0.0, "{name}: {number} is no count");
    Ok(())
}

/// A 99th percentile is not below the median of the same.
fn ensure_ordered<'n>(numbers: impl Iterator<Item = (&'n str, f64)>) -> Result<()> {
    let numbers: BTreeMap<&str, f64> = numbers.collect();
    for (name, median) in numbers.iter().filter(|(name, _)| name.contains("p50")) {
        let tail = name.replacen("p50", "p99", 1);
        if let Some(value) = numbers.get(tail.as_str()) {
            ensure!(value >= median, "{tail}: {value} is below {name}, which is {median}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
