//! The compiler, which results name, and the commit that this source is at, which the daemon beside the bench should be of, too.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    tell("SHEAVE_BENCH_RUSTC", said(Command::new(rustc).arg("--version")));
    tell("SHEAVE_BENCH_COMMIT", said(Command::new("git").args(["rev-parse", "--short=12", "HEAD"])));
    // The log of HEAD grows with every commit, checkout and rebase; HEAD itself names a branch and stays as it is.
    match said(Command::new("git").args(["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])) {
        Some(log) => println!("cargo::rerun-if-changed={log}"),
        None => println!("cargo::rerun-if-changed=build.rs"),
    }
}

/// Left out where it is not known: a source archive has no commit.
fn tell(name: &str, value: Option<String>) {
    if let Some(value) = value {
        println!("cargo::rustc-env={name}={value}");
    }
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
