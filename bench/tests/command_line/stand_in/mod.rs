//! Programs that stand in for others, and how the bench is called.

use std::collections::BTreeSet;
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

/// What it says of something that it refuses, before it has begun anything.
pub(crate) fn refusal_of(output: &Output) -> String {
    let said = error_of(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    said
}

/// The daemon is a binary of another package, which `cargo test -p sheave-bench` does not build.
pub(crate) fn daemon() -> PathBuf {
    let daemon = Path::new(env!("CARGO_BIN_EXE_sheave-bench")).with_file_name("sheave");
    assert!(daemon.is_file(), "{} is not there: build it first with `cargo build -p sheave`", daemon.display());
    daemon
}

/// A program that does nothing, under a name of its own of at most 15 letters.
pub(crate) fn idle(directory: &Path, name: &str) -> PathBuf {
    let program = directory.join(name);
    fs::copy("/bin/sleep", &program).expect("copying sleep");
    program
}

/// Processes of this name in all of the machine.
pub(crate) fn processes(name: &str) -> BTreeSet<i32> {
    let all = fs::read_dir("/proc").expect("a /proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let called = |process: &i32| fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim() == name);
    all.filter(called).collect()
}

/// A kube-proxy that reads the command line and the configuration which one gets, and serves by other means. `first`: what its script
/// does before; `server`: what serves.
pub(crate) fn kube_proxy(directory: &Path, mode: &str, first: &str, server: &Path) -> String {
    let body = format!(
        r#"{first}
[ "$1" = --version ] && exec echo Kubernetes v1.36.2
[ "$1" = --config ] && grep -q '"mode":"{mode}"' "$2" && [ "$3" = --master ] && [ "$5" = --hostname-override ] || exit 1
exec {} run --source kube --api-server "$4" --node-name "$6" --cluster-cidr 10.128.0.0/9"#,
        server.display()
    );
    script(&directory.join("kube-proxy"), &body)
}

/// A program of a few lines of shell.
pub(crate) fn script(path: &Path, body: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("writing a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("making it executable");
    path.to_string_lossy().into_owned()
}
