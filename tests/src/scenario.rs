//! The runner: every scenario in a process, a sandbox and a time limit of its own, reported as `cargo test` reports.
//!
//! ```text
//! runner (libtest-mimic) -- one thread per core --> itself again, with `--sheave-scenario NAME`
//!                                                     enter_sandbox -> probe what it needs -> run it -> exit status
//! ```
//! A child process, because a namespace belongs to threads, a daemon under test to a process group, and a crash to nobody else.

mod child;

use crate::scenario::child::Ending;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sheave_lab::{Capability, enter_sandbox};
use std::{
    collections::BTreeSet,
    env, fs,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// One scenario: a function that builds a lab, does things, and asserts.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    name: &'static str,
    needs: &'static [&'static str],
    limit: Duration,
    run: fn() -> anyhow::Result<()>,
}

/// Lists the scenarios of a module: `scenarios!("nodeport": answers_on_the_node_address, sctp_too needs ["sctp"])`.
/// Their names are `nodeport::answers_on_the_node_address` and so on.
#[macro_export]
macro_rules! scenarios {
    ($group:literal: $($scenario:ident $(needs $needs:expr)? $(, within $seconds:literal s)?);+ $(;)?) => {
        [$($crate::scenario::Scenario::new(concat!($group, "::", stringify!($scenario)), $scenario)
            $(.needs(&$needs))? $(.within(std::time::Duration::from_secs($seconds)))?),+]
    };
}

/// The argument that makes the runner's executable run one scenario and nothing else.
const CHILD_ARGUMENT: &str = "--sheave-scenario";
/// The exit status of a scenario that could not be run here. The lines above it on standard output say what was lacking.
const SKIPPED: u8 = 77;
/// How a skipped scenario says what it lacks.
const LACKS: &str = "lacks: ";
/// Names a file of capabilities that may be lacking. With it, a skip for any other reason is a failure.
const ALLOWED_SKIPS: &str = "SHEAVE_ALLOWED_SKIPS";
/// Multiplies the time limits: for emulated machines.
const PATIENCE: &str = "SHEAVE_TEST_PATIENCE";

// === impl Scenario ===

impl Scenario {
    /// A scenario that needs nothing special and has a minute.
    #[must_use]
    pub const fn new(name: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self { name, needs: &[], limit: Duration::from_secs(60), run }
    }

    /// What the kernel or machine must have: names of [`Capability`], such as `sctp` or `tool:curl`.
    #[must_use]
    pub const fn needs(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    /// When its process group is killed.
    #[must_use]
    pub const fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Runs in the child: the whole life of one scenario. A panic ends the process with a status of its own.
    fn run_here(self) -> ExitCode {
        let lacking = match enter_sandbox().map_err(anyhow::Error::from).and_then(|()| self.lacking()) {
            Ok(lacking) => lacking,
            Err(error) => return say_failed(&error),
        };
        if !lacking.is_empty() {
            say(&format!("{LACKS}{}", lacking.join(" ")));
            return ExitCode::from(SKIPPED);
        }
        match (self.run)() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say_failed(&error),
        }
    }

    fn lacking(self) -> anyhow::Result<Vec<&'static str>> {
        let mut lacking = Vec::new();
        for &need in self.needs {
            if !need.parse::<Capability>()?.probe()? {
                lacking.push(need);
            }
        }
        Ok(lacking)
    }

    /// Runs in the runner: starts the child and judges how it ended.
    fn run_apart(self, skips: &Skips) -> Result<Completion, Failed> {
        let limit = patiently(self.limit);
        match child::run(&[CHILD_ARGUMENT, self.name], limit) {
            Err(error) => Err(Failed::from(format!("cannot start a process for the scenario: {error}"))),
            Ok(Ending::Exited { status: 0, .. }) => Ok(Completion::Completed),
            Ok(Ending::Exited { status, output }) if status == i32::from(SKIPPED) => {
                let lacking = output.lines().find_map(|line| line.strip_prefix(LACKS)).unwrap_or("what it did not name");
                skips.note(self.name, lacking)
            }
            Ok(Ending::Exited { status, output }) => Err(Failed::from(format!("ended with status {status}\n{output}"))),
            Ok(Ending::Killed { signal, output }) => Err(Failed::from(format!("killed by signal {signal}\n{output}"))),
            Ok(Ending::TooLate { output }) => Err(Failed::from(format!("not done within {limit:?}\n{output}"))),
        }
    }
}

/// A time limit as it is for this machine: longer on an emulated one.
#[must_use]
pub fn patiently(limit: Duration) -> Duration {
    limit * patience()
}

/// How many times as long as usual everything may take.
pub(crate) fn patience() -> u32 {
    env::var(PATIENCE).ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// `main` of a scenario binary.
#[must_use]
pub fn main(scenarios: &[Scenario]) -> ExitCode {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD_ARGUMENT) {
        let wanted = arguments.next();
        return match scenarios.iter().find(|scenario| Some(scenario.name) == wanted.as_deref()) {
            Some(scenario) => scenario.run_here(),
            None => say_failed(&anyhow::anyhow!("no scenario is called {wanted:?}")),
        };
    }
    let skips = match Skips::from_environment() {
        Ok(skips) => Arc::new(skips),
        Err(error) => return say_failed(&error),
    };
    let trials = scenarios.iter().map(|&scenario| {
        let skips = Arc::clone(&skips);
        Trial::ignorable_test(scenario.name, move || scenario.run_apart(&skips))
    });
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    for line in skips.lines() {
        say(&line);
    }
    conclusion.exit_code()
}

/// What was skipped, and what may be.
struct Skips {
    /// `None`: anything may.
    allowed: Option<BTreeSet<String>>,
    noted: Mutex<BTreeSet<String>>,
}

impl Skips {
    fn from_environment() -> anyhow::Result<Self> {
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
    fn note(&self, name: &str, lacking: &str) -> Result<Completion, Failed> {
        let unexpected =
            self.allowed.as_ref().is_some_and(|allowed| lacking.split(' ').any(|capability| !allowed.contains(capability)));
        if unexpected {
            return Err(Failed::from(format!("skipped, which {ALLOWED_SKIPS} does not allow: needs {lacking}")));
        }
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("skipped: {name} needs {lacking}"));
        Ok(Completion::ignored_with(format!("needs {lacking}")))
    }

    fn lines(&self) -> Vec<String> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[expect(clippy::print_stdout, reason = "a test binary reports on standard output")]
fn say(line: &str) {
    println!("{line}");
}

fn say_failed(error: &anyhow::Error) -> ExitCode {
    say(&format!("{error:?}"));
    ExitCode::FAILURE
}
