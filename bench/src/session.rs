//! A run under way: what it has found so far, and where that goes, however it ends.
//!
//! See [`interrupt`] for an end from outside.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::place::Place;
use crate::results::{Measurement, Profile, Results};
use crate::{interrupt, machine, plain, progress, say, table};

/// Where results go.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Destination {
    /// How to print the result
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,

    /// Keep the result as JSON in this file, or in a file of its own in this directory; written as the run goes on
    #[arg(long, value_name = "PATH")]
    save: Option<PathBuf>,
}

/// How to say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people, with budgets and verdicts
    #[default]
    Table,
    /// One object for programs
    Json,
}

/// A destination that is known to be one.
pub(crate) struct Claimed {
    output: Output,
    save: Option<Place>,
}

/// The results of this run, as far as they go. Clones share them.
#[derive(Clone)]
pub(crate) struct Session(Arc<Shared>);

struct Shared {
    destination: Claimed,
    /// `None`: they have been handed out.
    results: Mutex<Option<Results>>,
    /// That they cannot be kept was said once, and is said again at the end.
    complained: AtomicBool,
}

impl Destination {
    /// Finds the place for results of this subcommand. To be called before anything is begun.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub(crate) fn claim(&self, benchmark: &str) -> Result<Claimed> {
        let name = format!("{benchmark}-{}.json", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        let save = self.save.as_deref().map(|path| Place::claim(path, &name)).transpose()?;
        Ok(Claimed { output: self.output, save })
    }
}

impl Session {
    /// Begins a run of a daemon of this commit, and watches for the interrupt that would end it. Results that an earlier run has kept
    /// in the same file stay until this one has measured something.
    ///
    /// # Errors
    /// If interrupts cannot be watched for.
    pub(crate) fn begin(benchmark: &str, destination: Claimed, commit: Option<String>) -> Result<Self> {
        let mut results = Results::begin(benchmark);
        results.versions.commit = commit;
        if results.profile == Profile::Debug {
            say("sheave-bench: THIS IS A DEBUG BUILD, ITS NUMBERS MEAN NOTHING: cargo build --release -p sheave -p sheave-bench");
        }
        let shared = Shared { destination, results: Mutex::new(Some(results)), complained: AtomicBool::new(false) };
        let session = Self(Arc::new(shared));
        let (taken, told) = (session.clone(), session.clone());
        interrupt::watch(move || taken.take(true), move |by, results| told.interrupted(by, &results))?;
        Ok(session)
    }

    /// Adds a figure: see [`Results::add`].
    pub(crate) fn add(&self, name: &str, value: f64, meaning: &str) {
        self.with(|results| results.add(name, value, meaning));
    }

    /// Adds a measurement.
    pub(crate) fn measured(&self, measurement: Measurement) {
        self.with(|results| results.measurements.push(measurement));
    }

    /// Puts measurements in the place of all there were: of numbers that become better as a run goes on.
    pub(crate) fn replace(&self, measurements: Vec<Measurement>) {
        self.with(|results| results.measurements = measurements);
    }

    /// All there are by now.
    pub(crate) fn measurements(&self) -> Vec<Measurement> {
        self.lock().as_ref().map(|results| results.measurements.clone()).unwrap_or_default()
    }

    /// Something is not measured, and the rest is none the worse for it: the run goes on, is whole, and fails at its end.
    pub(crate) fn leave_out(&self, what: String) {
        // What fails once everything is being ended is nobody's news.
        if self.lock().is_some() {
            say(&format!("left out: {what}"));
        }
        self.with(|results| results.left_out.push(what));
    }

    /// Prints and keeps what has been measured. A failure is not nothing: what was measured until then is kept, too, as of a run that
    /// was cut off; then this returns the failure.
    ///
    /// # Errors
    /// The outcome's, that something was left out, and those of writing.
    pub(crate) fn end(&self, outcome: Result<()>) -> Result<()> {
        let cut_off = outcome.is_err();
        let Some(results) = self.take(cut_off) else {
            // An interrupt has taken them. It has ended whatever this waited for, and ends this process once they are delivered,
            // however long nobody reads them; another signal would.
            loop {
                std::thread::park();
            }
        };
        let outcome = outcome.and_then(|()| ensure_all(&results));
        // A run that has measured nothing replaces nothing.
        if outcome.is_err() && is_empty(&results) {
            return outcome;
        }
        let delivered = self.deliver(&results);
        if let (Err(_), Err(error)) = (&outcome, &delivered) {
            // Why the run failed is the answer; this comes on top.
            say(&format!("sheave-bench: {error:#}"));
        }
        outcome.and(delivered)
    }

    fn with(&self, change: impl FnOnce(&mut Results)) {
        let mut results = self.lock();
        let Some(results) = results.as_mut() else { return };
        change(results);
        // A run that has measured nothing replaces nothing.
        if let Some(place) = self.0.destination.save.as_ref().filter(|_| !is_empty(results)) {
            results.load_after = machine::load_average();
            // What is there counts as cut off until the end says otherwise.
            let mut unfinished = Results { interrupted: true, ..results.clone() };
            unfinished.judge();
            if let Err(error) = keep(&unfinished, place)
                && !self.0.complained.swap(true, Ordering::Relaxed)
            {
                say(&format!("sheave-bench: {error:#}"));
            }
        }
    }

    fn take(&self, interrupted: bool) -> Option<Results> {
        let results = self.lock().take()?;
        let mut results = Results { interrupted, load_after: machine::load_average(), ..results };
        results.judge();
        Some(results)
    }

    /// What cannot be kept is printed all the same.
    fn deliver(&self, results: &Results) -> Result<()> {
        let Claimed { output, save } = &self.0.destination;
        let kept = save.as_ref().map_or(Ok(()), |place| {
            keep(results, place)?;
            say(&format!("kept in {}", place.shown().display()));
            Ok(())
        });
        let text = match output {
            Output::Table => plain(&table::of(results)),
            Output::Json => results.json()?,
        };
        let mut printed = Ok(());
        progress::aside(|| printed = writeln!(std::io::stdout(), "{text}"));
        kept.and(printed.context("writing the result"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Results>> {
        // Results of a thread that panicked are whole: they are changed by one push at a time.
        self.0.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what there was.
    fn interrupted(&self, by: &str, results: &Results) {
        // The terminal shows ^C, or a bar, on that line.
        let line = if std::io::stderr().is_terminal() { "\n" } else { "" };
        if is_empty(results) {
            say(&format!("{line}sheave-bench: interrupted by {by}, nothing measured yet"));
            return;
        }
        say(&format!("{line}sheave-bench: interrupted by {by}; this is what was measured until then"));
        if let Err(error) = self.deliver(results) {
            say(&format!("sheave-bench: {error:#}"));
        }
    }
}

/// That nothing is missing that was asked for.
fn ensure_all(results: &Results) -> Result<()> {
    let count = results.left_out.len();
    ensure!(count == 0, "not all was measured: {count} left out, as said above");
    Ok(())
}

fn keep(results: &Results, place: &Place) -> Result<()> {
    place.write(&(results.json()? + "\n"))
}

fn is_empty(results: &Results) -> bool {
    results.legend.is_empty() && results.measurements.is_empty()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn begun(save: PathBuf) -> Session {
        let destination = Destination { output: Output::Json, save: Some(save) };
        Session::begin("sync", destination.claim("sync").unwrap(), None).unwrap()
    }

    fn saved(directory: &Path) -> Results {
        let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        read(&files[0])
    }

    /// However little it says.
    fn read(path: &Path) -> Results {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn what_has_been_measured_is_kept_as_the_run_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let session = begun(directory.path().to_owned());
        session.measured(Measurement::new("cold sync").value("kernel_ms", 1.0));
        let partial = saved(directory.path());
        assert!(partial.interrupted && partial.measurements.len() == 1, "{partial:?}");
        session.add("cold_sync_ms", 2.0, "");
        session.end(Ok(())).unwrap();
        let whole = saved(directory.path());
        assert!(!whole.interrupted && whole.figure("cold_sync_ms") == Some(2.0), "{whole:?}");
    }

    #[test]
    fn a_run_that_fails_keeps_what_it_had_and_stays_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let session = begun(directory.path().join("results.json"));
        session.measured(Measurement::new("cold sync").value("kernel_ms", 1.0));
        assert!(session.end(Err(anyhow::anyhow!("it broke"))).unwrap_err().to_string().contains("it broke"));
        let partial = saved(directory.path());
        assert!(partial.interrupted && partial.measurements.len() == 1, "{partial:?}");
    }

    #[test]
    fn a_run_that_leaves_something_out_is_whole_and_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let session = begun(directory.path().join("results.json"));
        session.leave_out("a million".to_owned());
        session.measured(Measurement::new("memory").value("rss_mb", 1.0));
        session.leave_out("two millions".to_owned());
        let error = session.end(Ok(())).unwrap_err().to_string();
        assert_eq!(error, "not all was measured: 2 left out, as said above");
        let kept = saved(directory.path());
        assert!(!kept.interrupted && kept.measurements.len() == 1, "the rest is none the worse: {kept:?}");
        assert_eq!(kept.left_out, ["a million", "two millions"]);
    }

    #[test]
    fn what_an_earlier_run_kept_stays_until_something_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let session = begun(path.clone());
        session.add("cold_sync_ms", 2.0, "");
        session.end(Ok(())).unwrap();

        let session = begun(path.clone());
        session.leave_out("everything".to_owned());
        assert_eq!(read(&path).figure("cold_sync_ms"), Some(2.0));
        session.end(Err(anyhow::anyhow!("it broke at once"))).unwrap_err();
        let kept = saved(directory.path());
        assert!(!kept.interrupted && kept.figure("cold_sync_ms") == Some(2.0), "{kept:?}");
    }

    #[test]
    fn why_a_run_failed_is_told_even_if_its_results_cannot_be_kept() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let session = begun(place.join("results.json"));
        session.measured(Measurement::new("cold sync").value("kernel_ms", 1.0));
        std::fs::remove_dir_all(&place).unwrap();
        let error = session.end(Err(anyhow::anyhow!("it broke"))).unwrap_err().to_string();
        assert!(error.contains("it broke"), "{error}");
    }
}
