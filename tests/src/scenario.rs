//! The runner: every scenario in a process, a sandbox and a time limit of its own, reported as `cargo test` reports.
//!
//! ```text
//! runner (libtest-mimic) -- as many as there are cores, --> itself again, with `--sheave-scenario NAME`
//!                           and beside them those that wait
//!                                                     enter_sandbox -> probe what it needs -> run it -> exit status
//! ```
//! A child process, because a namespace belongs to threads, a daemon under test to a process group, and a crash to nobody else.

mod child;
mod places;
mod report;

use crate::scenario::{
    child::Ending,
    places::Turns,
    report::{Report, circumstances},
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use sheave_lab::{Capability, enter_sandbox};
use std::{
    env,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// One scenario: a function that builds a lab, does things, and asserts.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    name: &'static str,
    needs: &'static [&'static str],
    limit: Duration,
    waits: bool,
    run: fn() -> anyhow::Result<()>,
}

/// Lists the scenarios of a module: `scenarios!("nodeport": answers_on_the_node_address, sctp_too needs ["sctp"])`.
/// Their names are `nodeport::answers_on_the_node_address` and so on. `within 90 s` and `waiting 90 s` are [`Scenario::within`] and
/// [`Scenario::waiting`].
#[macro_export]
macro_rules! scenarios {
    ($group:literal: $($scenario:ident $(needs $needs:expr)? $(, within $seconds:literal s)? $(, waiting $idle:literal s)?);+ $(;)?) => {
        [$($crate::scenario::Scenario::new(concat!($group, "::", stringify!($scenario)), $scenario)
            $(.needs(&$needs))? $(.within(std::time::Duration::from_secs($seconds)))?
            $(.waiting(std::time::Duration::from_secs($idle)))?),+]
    };
}

/// The argument that makes the runner's executable run one scenario and nothing else.
const CHILD_ARGUMENT: &str = "--sheave-scenario";
/// The exit status of a scenario that could not be run here. The lines above it on standard output say what was lacking.
const SKIPPED: u8 = 77;
/// How a skipped scenario says what it lacks.
const LACKS: &str = "lacks: ";
/// How a scenario that passed says that datagrams had to be sent again.
const REPEATED: &str = "datagrams sent again: ";
/// How many datagrams this scenario has sent again.
static REPEATS: AtomicUsize = AtomicUsize::new(0);
/// Multiplies the time limits: for emulated machines.
const PATIENCE: &str = "SHEAVE_TEST_PATIENCE";

// === impl Scenario ===

impl Scenario {
    /// A scenario that needs nothing special and has a minute.
    #[must_use]
    pub const fn new(name: &'static str, run: fn() -> anyhow::Result<()>) -> Self {
        Self { name, needs: &[], limit: Duration::from_secs(60), waits: false, run }
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

    /// The same for one that spends nearly all of its time waiting for a timer of the daemon's: it runs beside the others, and not in
    /// the place of one.
    #[must_use]
    pub const fn waiting(self, limit: Duration) -> Self {
        Self { limit, waits: true, ..self }
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
            Ok(()) => {
                match REPEATS.load(Ordering::Relaxed) {
                    0 => {}
                    repeats => say(&format!("{REPEATED}{repeats}")),
                }
                ExitCode::SUCCESS
            }
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
    fn run_apart(self, turns: &Turns, report: &Report) -> Result<Completion, Failed> {
        let _place = turns.take(self.waits);
        let (limit, start) = (patiently(self.limit), Instant::now());
        let ending = child::run(&[CHILD_ARGUMENT, self.name], limit);
        report.took(self.name, start.elapsed());
        let fail = |how: String, output: &str| {
            Err(report.fail(self.name, &format!("{how}, {}", circumstances(start.elapsed(), limit)), output))
        };
        match ending {
            Err(error) => fail(format!("cannot start a process for the scenario: {error}"), ""),
            Ok(Ending::Exited { status: 0, output }) => {
                if let Some(datagrams) = said(&output, REPEATED).and_then(|number| number.parse().ok()) {
                    report.repeat(self.name, datagrams);
                }
                Ok(Completion::Completed)
            }
            Ok(Ending::Exited { status, output }) if status == i32::from(SKIPPED) => {
                report.skip(self.name, said(&output, LACKS).unwrap_or("what it did not name"))
            }
            Ok(Ending::Exited { status, output }) => fail(format!("ended with status {status}"), &output),
            Ok(Ending::Killed { signal, output }) => fail(format!("killed by signal {signal}"), &output),
            Ok(Ending::TooLate { output }) => fail("not done in time".to_owned(), &output),
        }
    }
}

/// What a scenario said to the runner, after the words that mark it.
fn said<'a>(output: &'a str, mark: &str) -> Option<&'a str> {
    output.lines().find_map(|line| line.strip_prefix(mark))
}

/// Notes that a question over UDP got its answer only when it was sent again, and returns how many did so far in this scenario.
/// The report of a run names every scenario in which it happened: a loss is never silent.
pub fn note_repeat() -> usize {
    REPEATS.fetch_add(1, Ordering::Relaxed) + 1
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
    let report = match Report::from_environment() {
        Ok(report) => Arc::new(report),
        Err(error) => return say_failed(&error),
    };
    let mut arguments = Arguments::from_args();
    // Those that wait come first: whatever comes last is waited for.
    let (waiting, working): (Vec<&Scenario>, Vec<&Scenario>) = scenarios.iter().partition(|scenario| scenario.waits);
    let turns = Arc::new(Turns::new(&mut arguments, waiting.len()));
    let trials = waiting.into_iter().chain(working).map(|&scenario| {
        let (turns, report) = (Arc::clone(&turns), Arc::clone(&report));
        Trial::ignorable_test(scenario.name, move || scenario.run_apart(&turns, &report))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    for line in report.last_words() {
        say(&line);
    }
    conclusion.exit_code()
}

#[expect(clippy::print_stdout, reason = "a test binary reports on standard output")]
fn say(line: &str) {
    println!("{line}");
}

fn say_failed(error: &anyhow::Error) -> ExitCode {
    say(&format!("{error:?}"));
    ExitCode::FAILURE
}
