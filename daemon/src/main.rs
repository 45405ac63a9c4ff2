//! The `sheave` binary: parses the command line and hands over to the library.

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory as _, FromArgMatches as _};
use sheave::cli::Cli;

/// The package's version and, where the build was told (`make` does), the commit. Only this file knows it: another commit links the
/// binary anew and compiles nothing else.
static VERSION: LazyLock<String> = LazyLock::new(|| match option_env!("SHEAVE_COMMIT") {
    Some(commit) if !commit.is_empty() => format!("{}, commit {commit}", env!("CARGO_PKG_VERSION")),
    _ => env!("CARGO_PKG_VERSION").to_owned(),
});

fn main() -> ExitCode {
    let arguments = Cli::command().version(VERSION.as_str()).get_matches();
    Cli::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit()).execute()
}
