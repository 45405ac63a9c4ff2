//! `sheave-bench`: the budgets of `docs/performance.md` as numbers of this machine.
//!
//! Everything happens in network namespaces that the bench made and that vanish with it, however it ends: the API server double, the
//! real `sheave run` as a process of its own, the real kernel, and a pod that answers.

mod machine;
mod report;
mod statistics;
mod sync;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

/// Benchmarks of sheave, beside the budgets they are held to.
#[derive(Debug, Parser)]
#[command(name = "sheave-bench", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cold sync, single changes and memory, against an API server double and the real kernel
    Sync(sync::Arguments),
}

/// How to say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people, with budgets and verdicts
    Table,
    /// One object for programs
    Json,
}

fn main() -> ExitCode {
    let Command::Sync(arguments) = Cli::parse().command;
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("sheave-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &sync::Arguments) -> anyhow::Result<()> {
    // While there is one thread: the kernel moves only the one that asks into a user namespace.
    sheave_lab::enter_sandbox().context("the bench needs namespaces of its own")?;
    let report = sync::measure(arguments)?;
    let text = match arguments.output {
        Output::Table => report.table(),
        Output::Json => report.json()?,
    };
    writeln!(std::io::stdout(), "{text}").context("writing the result")
}

/// Progress and errors; stdout is for the result alone. A closed stderr is nothing to fail for.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
