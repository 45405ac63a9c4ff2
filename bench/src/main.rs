//! `sheave-bench`: the budgets of `docs/performance.md` as numbers of this machine.
//!
//! Everything happens in network namespaces that the bench made and that vanish with it, however it ends: the API server double, the
//! real `sheave run` as a process of its own, the real kernel, and a pod that answers.

mod allocations;
mod compare;
mod daemon;
mod interrupt;
mod listeners;
mod machine;
mod packets;
mod peer;
mod place;
mod probe;
mod program;
mod progress;
mod promises;
mod proxy;
mod refusal;
mod report;
mod results;
mod rights;
mod room;
mod scratch;
mod session;
mod statistics;
mod sync;
mod table;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use nix::sys::signal::{self, SigHandler, Signal};

use daemon::Daemon;
use refusal::Refusal;
use session::{Destination, Session};

/// Benchmarks of sheave, beside the budgets they are held to.
#[derive(Debug, Parser)]
#[command(name = "sheave-bench", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// sheave beside a kube-proxy of yours, or beside stock nft: start, changes, memory and processor time on the same objects
    Compare(compare::Arguments),
    /// What `sheave run` and the kernel keep in memory, by the number of endpoints, and after churn
    Memory(sync::memory::Arguments),
    /// Cold sync, single changes and memory, against an API server double and the real kernel
    Sync(sync::Arguments),
    /// First packets, connections and questions through Services, beside the same straight to the pod
    Packets(packets::Arguments),
    /// Saved results as one page of HTML, and as tables of the documentation
    Report(report::Arguments),
}

fn main() -> ExitCode {
    ignore_file_limit();
    let outcome = run(&Cli::parse().command);
    scratch::remove();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("sheave-bench: {error:#}"));
            if Refusal::is_behind(&error) { ExitCode::from(Refusal::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

/// A file that may not grow (`ulimit -f`) is an error of writing, which is told, and no reason to die.
fn ignore_file_limit() {
    // SAFETY: no handler is installed. It fails for no signal of that number.
    let _ = unsafe { signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Compare(asked) => {
            asked.ensure_possible()?;
            measure("compare", &asked.destination, |daemon, run| compare::measure(asked, daemon, run))
        }
        Command::Memory(asked) => measure("memory", &asked.destination, |daemon, run| sync::memory::measure(asked, daemon, run)),
        Command::Sync(asked) => measure("sync", &asked.destination, |daemon, run| sync::measure(asked, daemon, run)),
        Command::Packets(asked) => {
            asked.ensure_possible()?;
            measure("packets", &asked.destination, |daemon, run| packets::measure(asked, daemon, run))
        }
        Command::Report(asked) => report::write(asked),
    }
}

/// A measurement of the kernel, in namespaces of its own.
fn measure(
    benchmark: &str,
    destination: &Destination,
    work: impl FnOnce(&Daemon, &Session) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let destination = destination.claim(benchmark)?;
    rights::ensure_sufficient()?;
    scratch::ensure_place()?;
    let daemon = Daemon::beside_this().map_err(Refusal::of)?;
    rights::enter_sandbox()?;
    scratch::remove_abandoned();
    let session = Session::begin(benchmark, destination, daemon.commit.clone())?;
    let outcome = work(&daemon, &session);
    session.end(outcome)
}

/// Progress and errors; stdout is for the result alone. A closed stderr is nothing to fail for.
fn say(text: &str) {
    progress::aside(|| drop(writeln!(std::io::stderr(), "{}", plain(text))));
}

/// For a terminal, which would obey what others have written: a program's words, a file's. Lines stay lines.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        // Marks that turn the direction of writing around (Unicode's UAX 9) hide what stands there.
        let turns = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (character.is_control() && !matches!(character, '\n' | '\t')) {
            plain.extend(character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// The same of what is one line by right.
fn one_line(text: &str) -> String {
    plain(&text.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_terminal_is_told_nothing_by_others() {
        assert_eq!(super::plain("a\u{1b}[2J\u{202e}b\n≥ 15 ×\r"), "a\\u{1b}[2J\\u{202e}b\n≥ 15 ×\\u{d}");
        assert_eq!(super::one_line("a\nleft out: b"), "a\\nleft out: b");
    }

    /// What a subcommand understands of a command line.
    pub(crate) fn parse<A: clap::Args>(arguments: &[&str]) -> Result<A, String> {
        let command = A::augment_args(clap::Command::new("sheave-bench").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        A::from_arg_matches(&matches).map_err(|error| error.to_string())
    }
}
