//! What stands beside the bench: the daemon that was built with it, another one, or none.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::stand_in::{error_of, refusal_of, script};
use tempfile::TempDir;

/// Another place for the bench. A link, so that it finds itself there; of the same file system, so that there can be one.
fn elsewhere() -> TempDir {
    let place = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("making a directory");
    fs::hard_link(env!("CARGO_BIN_EXE_sheave-bench"), place.path().join("sheave-bench")).expect("linking the bench");
    place
}

/// A run that cannot succeed.
fn run_in(place: &Path) -> Output {
    let mut command = Command::new(place.join("sheave-bench"));
    command.args(["memory", "--endpoints", "0", "--churn", "0"]).stdin(Stdio::null());
    command.output().expect("running the bench")
}

#[test]
fn a_daemon_that_is_missing_is_told_with_what_builds_it() {
    let place = elsewhere();
    let error = refusal_of(&run_in(place.path()));
    assert!(error.contains("sheave is not there: build it with `cargo build"), "{error}");
}

#[test]
fn a_program_that_is_no_daemon_is_refused() {
    let place = elsewhere();
    script(&place.path().join("sheave"), "echo wheave 1.0");
    let error = refusal_of(&run_in(place.path()));
    assert!(error.contains("is not sheave") && error.contains("wheave 1.0"), "{error}");
}

/// And a daemon that ends is told with its last words, at once.
#[test]
fn a_daemon_of_another_commit_is_named() {
    let place = elsewhere();
    script(
        &place.path().join("sheave"),
        "[ \"$1\" = --version ] && exec echo sheave 0.1.0, commit 000000000000-dirty\necho no such luck >&2; exit 7",
    );
    let error = error_of(&run_in(place.path()));
    let told = error.contains("is of commit 000000000000-dirty, this bench of ");
    // A source archive has no commit, and its bench nothing to compare with.
    assert!(told || option_env!("SHEAVE_BENCH_COMMIT").is_none(), "{error}");
    assert!(error.contains("the proxy ended") && error.contains("no such luck"), "{error}");
}
