//! What a run has to say once all scenarios are done: what was skipped, what was asked twice, and last of all what failed and why.
//!
//! Last, because the end of a log is what a continuous build keeps. The runner itself prints every failure before that, with the
//! daemon's log; here is the short form.

use libtest_mimic::{Completion, Failed};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Collects from all threads of the runner.
pub(super) struct Report {
    /// The capabilities that may be lacking; `None`: any.
    allowed: Option<BTreeSet<String>>,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// How many scenarios lacked this.
    skipped: BTreeMap<String, usize>,
    /// Scenarios that passed with datagrams sent again, and how many.
    repeated: BTreeMap<&'static str, usize>,
    /// Scenarios that failed, and the lines that say why.
    failed: BTreeMap<&'static str, Vec<String>>,
    /// How long each took.
    took: Vec<(Duration, &'static str)>,
}

/// Names a file of capabilities that may be lacking. With it, a skip for any other reason is a failure.
const ALLOWED_SKIPS: &str = "SHEAVE_ALLOWED_SKIPS";
/// The lines that all failures share at the end: less than what a continuous build keeps.
const LINES_OF_ALL: usize = 24;
/// Even with many failures, each may say this much.
const LINES_OF_ONE: usize = 2;
/// Scenarios that are named for their length, when there were many more than that.
const LONGEST: usize = 8;
/// What the world prefixes to the daemon's log.
const DAEMON_LOG: &str = "sheave: ";

impl Report {
    pub(super) fn from_environment() -> anyhow::Result<Self> {
        let allowed = match env::var_os(ALLOWED_SKIPS).map(PathBuf::from) {
            None => None,
            Some(path) => {
                let text = fs::read_to_string(&path)
                    .map_err(|error| anyhow::anyhow!("cannot read {ALLOWED_SKIPS}={}: {error}", path.display()))?;
                let entries = text.lines().filter_map(|line| line.split('#').next()).map(str::trim);
                Some(entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
            }
        };
        Ok(Self { allowed, noted: Mutex::default() })
    }

    /// Judges a skip: allowed, or a failure.
    pub(super) fn skip(&self, name: &'static str, lacking: &str) -> Result<Completion, Failed> {
        let unexpected =
            self.allowed.as_ref().is_some_and(|allowed| lacking.split(' ').any(|capability| !allowed.contains(capability)));
        if unexpected {
            return Err(self.fail(name, &format!("skipped, which {ALLOWED_SKIPS} does not allow: needs {lacking}"), ""));
        }
        *self.noted().skipped.entry(lacking.to_owned()).or_default() += 1;
        Ok(Completion::ignored_with(format!("needs {lacking}")))
    }

    /// A scenario passed, but these datagrams had to be sent again.
    pub(super) fn repeat(&self, name: &'static str, datagrams: usize) {
        self.noted().repeated.insert(name, datagrams);
    }

    /// A scenario ended, in whatever way.
    pub(super) fn took(&self, name: &'static str, time: Duration) {
        self.noted().took.push((time, name));
    }

    /// A scenario failed: a line that says how it ended, and all that it wrote. Returned is what the runner prints, which is all.
    pub(super) fn fail(&self, name: &'static str, ending: &str, output: &str) -> Failed {
        let mut lines = vec![ending.to_owned()];
        lines.extend(own_words(output));
        self.noted().failed.insert(name, lines);
        Failed::from(format!("{ending}\n{output}"))
    }

    /// What is to be printed after everything else.
    pub(super) fn last_words(&self) -> Vec<String> {
        let noted = self.noted();
        let mut words = Vec::new();
        for (lacking, times) in &noted.skipped {
            words.push(format!("{times} skipped: needs {lacking}"));
        }
        for (name, datagrams) in &noted.repeated {
            words.push(format!("{name}: {datagrams} datagrams sent again"));
        }
        if noted.took.len() > 2 * LONGEST {
            let mut took = noted.took.clone();
            took.sort_unstable_by(|one, other| other.cmp(one));
            let longest = took.iter().take(LONGEST).map(|(time, name)| format!("{name} {:.0} s", time.as_secs_f64()));
            words.push(format!("longest: {}", longest.collect::<Vec<_>>().join(", ")));
        }
        if noted.failed.is_empty() {
            return words;
        }
        let share = (LINES_OF_ALL / noted.failed.len()).max(LINES_OF_ONE);
        words.push(String::new());
        for (name, lines) in &noted.failed {
            let mut lines = lines.iter();
            words.extend(lines.next().map(|ending| format!("FAILED {name}: {ending}")));
            let (room, left) = (share - 1, lines.len());
            words.extend(lines.take(if left > room { room - 1 } else { left }).map(|line| format!("  {line}")));
            if left > room {
                words.push(format!("  ... and {} more lines above", left - (room - 1)));
            }
        }
        words
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the machine was like while a scenario ran: a failure for want of time looks like any other.
pub(super) fn circumstances(took: Duration, limit: Duration) -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    format!("after {:.1} s of {} s, load average {load} on {cpus} CPUs", took.as_secs_f64(), limit.as_secs())
}

/// What a scenario said itself: without the daemon's log, unless there is nothing else, and without advice about backtraces.
fn own_words(output: &str) -> Vec<String> {
    let spoken = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE");
    let own: Vec<&str> = output.lines().filter(spoken).filter(|line| !line.starts_with(DAEMON_LOG)).collect();
    let words = if own.is_empty() {
        output.lines().rev().filter(spoken).take(3).collect::<Vec<_>>().into_iter().rev().collect()
    } else {
        own
    };
    words.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report { allowed: Some(BTreeSet::from(["sctp".to_owned()])), noted: Mutex::default() }
    }

    #[test]
    fn failures_come_last_and_without_the_daemons_log() {
        let report = report();
        let failed = report.fail(
            "rows::one",
            "ended with status 1 after 3.0 s",
            "sheave: {\"message\":\"synced\"}\n1 of 8 checks failed:\n  x\n",
        );
        assert!(failed.message().is_some_and(|all| all.contains("synced")), "the runner prints everything");
        report.skip("rows::one_sctp", "sctp").unwrap();
        report.skip("rows::two_sctp", "sctp").unwrap();
        report.repeat("rows::two", 1);
        assert_eq!(
            report.last_words(),
            [
                "2 skipped: needs sctp",
                "rows::two: 1 datagrams sent again",
                "",
                "FAILED rows::one: ended with status 1 after 3.0 s",
                "  1 of 8 checks failed:",
                "    x"
            ]
        );
    }

    #[test]
    fn a_skip_that_is_not_allowed_is_a_failure() {
        let report = report();
        assert!(report.skip("lab::one", "sctp netem").is_err());
        assert!(report.last_words().last().is_some_and(|line| line.starts_with("FAILED lab::one: skipped")));
    }

    #[test]
    fn many_failures_share_the_end_of_the_log() {
        let report = report();
        let names = ["a", "b", "c", "d", "e", "f"];
        for name in names {
            report.fail(name, "ended with status 1", &"line\n".repeat(50));
        }
        let words = report.last_words();
        assert!(words.len() <= LINES_OF_ALL + 1, "{words:#?}");
        for name in names {
            assert!(words.contains(&format!("FAILED {name}: ended with status 1")));
        }
        assert_eq!(words.last().unwrap(), "  ... and 48 more lines above");
    }

    #[test]
    fn one_that_was_killed_without_a_word_shows_the_end_of_the_log() {
        let log: String = (1..=9).map(|n| format!("sheave: {n}\n")).collect();
        assert_eq!(own_words(&log), ["sheave: 7", "sheave: 8", "sheave: 9"]);
    }
}
