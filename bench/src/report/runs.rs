//! The results that a report is made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use crate::results::{Measurement, Profile, Results};
pub(super) use crate::results::{size, word};

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
    began: Timestamp,
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
            match Run::read(&path) {
                Ok(run) => runs.runs.push(run),
                Err(error) => runs.skipped.push(format!("{error:#}")),
            }
        }
        let named: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let skipped = runs.skipped.iter().map(|skipped| format!("\nleft out: {skipped}")).collect::<String>();
        ensure!(!runs.runs.is_empty(), "there are no results in {}{skipped}", named.join(", "));
        // Of one second, the name decides.
        runs.runs.sort_by(|one, other| (other.began, &other.file).cmp(&(one.began, &one.file)));
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
    /// What was cut off, or built for trying out, says nothing about sheave.
    fn read(path: &Path) -> Result<Self> {
        let results = Results::read(path)?;
        ensure!(!results.interrupted, "{} was interrupted", path.display());
        ensure!(results.profile == Profile::Release, "{} is of a debug build", path.display());
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { file, began: results.began()?, results })
    }

    /// A size of its cluster, or any other figure.
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        self.results.figure(name)
    }

    pub(super) fn measurements(&self) -> impl Iterator<Item = &Measurement> {
        self.results.measurements.iter()
    }
}

/// All files that these name: of a directory, those that end in `.json`.
///
/// # Errors
/// For a directory that cannot be listed.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
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
