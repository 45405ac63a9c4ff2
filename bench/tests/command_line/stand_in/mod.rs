//! Programs that stand in for others, and how the bench is called.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A subcommand of the bench.
pub(crate) fn bench(subcommand: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheave-bench"));
    command.arg(subcommand).args(arguments).stdin(Stdio::null());
    command
}

/// What a run that must fail says.
pub(crate) fn error_of(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The daemon is a binary of another package, which `cargo test -p sheave-bench` does not build.
pub(crate) fn daemon() -> PathBuf {
    let daemon = Path::new(env!("CARGO_BIN_EXE_sheave-bench")).with_file_name("sheave");
    assert!(daemon.is_file(), "{} is not there: build it first with `cargo build -p sheave`", daemon.display());
    daemon
}

/// A program of a few lines of shell.
pub(crate) fn script(path: &Path, body: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("writing a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("making it executable");
    path.to_string_lossy().into_owned()
}
