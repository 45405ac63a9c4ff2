//! `sheave config`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use crate::config::{self, Configuration, Documents, FieldError, Overrides, Settings};
use crate::daemon::with_causes;

/// What to do with a configuration.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the default configuration, both documents, with a word about each field
    Default,
    /// Say what a configuration comes to: what it changes, what has no effect, what is wrong
    ///
    /// Exit code 0: it can be used; 1: it is wrong; 2: it cannot be read.
    Check {
        /// The file; `-` is standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(super) fn config(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Default => {
            print!("{}", config::default_documents());
            Ok(())
        }
        Command::Check { file } => check(&file),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn check(file: &Path) -> Result<(), Failure> {
    let read = if file.as_os_str() == "-" {
        config::read_from(std::io::stdin().lock(), Path::new("standard input"))
    } else {
        config::read(file)
    };
    let documents = match read {
        Ok(documents) => documents,
        Err(error @ config::ConfigError::Read { .. }) => return Err(Failure::Usage(with_causes(&error))),
        Err(error) => return Err(Failure::No(error.into())),
    };
    // The host's name is not the file's business.
    let overrides = Overrides { host_name: "this-node".to_owned(), ..Overrides::default() };
    let Settings { warnings, remarks, .. } = documents.judge(&overrides).map_err(|errors| refused(&documents, &errors))?;
    for warning in &warnings {
        println!("warning: {warning}");
    }
    for remark in &remarks {
        println!("note: {remark}");
    }
    let changed = config::explained(&Configuration::of(&documents));
    if changed.is_empty() {
        println!("everything is as it is by default (`sheave config default`)");
    } else {
        println!("otherwise than by default:");
        for line in changed {
            println!("  {line}");
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn refused(documents: &Documents, errors: &[FieldError]) -> Failure {
    for warning in &documents.warnings {
        println!("warning: {warning}");
    }
    for error in errors {
        println!("error: {error}");
    }
    let count = errors.len();
    Failure::No(anyhow::anyhow!("{count} {}", if count == 1 { "error" } else { "errors" }))
}
