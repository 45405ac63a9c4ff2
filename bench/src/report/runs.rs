//! The results that a report is made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::results::{Measurement, Profile, Results};

/// What was read, the newest first.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    /// What was passed over, and why; for people.
    pub(super) skipped: Vec<String>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Run {
    /// Its name, without directories: a report says the same wherever it is made.
    pub(super) file: String,
    pub(super) results: Results,
}

impl Runs {
    /// Reads files, and of directories all files that end in `.json`.
    ///
    /// # Errors
    /// For a directory that cannot be listed, and if nothing at all is left to report.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut runs = Self::default();
        for path in files(paths)? {
            match usable(&path) {
                Ok(results) => {
                    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
                    runs.runs.push(Run { file, results });
                }
                Err(error) => runs.skipped.push(format!("{error:#}")),
            }
        }
        let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let skipped = runs.skipped.iter().map(|skipped| format!("\nleft out: {skipped}")).collect::<String>();
        ensure!(!runs.runs.is_empty(), "there are no results in {}{skipped}", named.join(", "));
        // All are UTC in one format, so that text sorts as time does; of one second, the name decides.
        runs.runs.sort_by(|one, other| (&other.results.started, &other.file).cmp(&(&one.results.started, &one.file)));
        Ok(runs)
    }

    /// All of one subcommand.
    pub(super) fn of<'r>(&'r self, benchmark: &str) -> impl Iterator<Item = &'r Run> {
        self.runs.iter().filter(move |run| run.results.benchmark == benchmark)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }
}

impl Run {
    /// A size of its cluster, or any other figure.
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        self.results.figure(name)
    }

    /// Which Services there were; all measurements of a run have the same.
    pub(super) fn mix(&self) -> Option<&str> {
        self.results.measurements.first()?.at.get("mix")?.as_str()
    }

    pub(super) fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.results.measurements.iter()
    }
}

/// A number that says where a measurement was made.
pub(super) fn size(measurement: &Measurement, name: &str) -> Option<f64> {
    measurement.at.get(name)?.as_f64()
}

/// A word that says where a measurement was made.
pub(super) fn word<'m>(measurement: &'m Measurement, name: &str) -> Option<&'m str> {
    measurement.at.get(name).and_then(Value::as_str)
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let listed = fs::read_dir(path).with_context(|| format!("listing {}", path.display()))?;
        let mut within: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        within.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        within.sort();
        files.append(&mut within);
    }
    Ok(files)
}

/// What was cut off, or built for trying out, says nothing about sheave.
fn usable(path: &Path) -> Result<Results> {
    let results = Results::read(path)?;
    ensure!(!results.interrupted, "{} was interrupted", path.display());
    ensure!(results.profile == Profile::Release, "{} is of a debug build", path.display());
    Ok(results)
}
