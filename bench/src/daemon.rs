//! `sheave run`: which program is measured, and with which arguments.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::peer::Access;
use crate::proxy::{CLUSTER_CIDR, NODE};
use crate::say;

/// `sheave` beside this program: built together, measured together.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    program: PathBuf,
    /// What it says it was built from. `None`: its build was not told (`SHEAVE_COMMIT`).
    pub(crate) commit: Option<String>,
}

/// What carries its traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plane {
    Nftables,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that the bench's own source was at.
const COMMIT: Option<&str> = option_env!("SHEAVE_BENCH_COMMIT");
/// Behind the commit of a source with changes on top of it.
const CHANGED: &str = "-dirty";

impl Daemon {
    /// Finds it and asks it who it is. To be called before the sandbox is entered: what is mounted there may hide where this
    /// program is, as some container runtimes' and every chroot's `/proc` does.
    ///
    /// # Errors
    /// If it is not there, or is something else.
    pub(crate) fn beside_this() -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?.with_file_name("sheave");
        let shown = program.display();
        ensure!(program.is_file(), "{shown} is not there: build it with `cargo build --release -p sheave -p sheave-bench`");
        let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("running {shown} --version"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && said.starts_with("sheave "), "{shown} is not sheave: it printed {said:?}");
        ensure!(is_own(&said), "{shown} is not the sheave of this bench, {VERSION}: it printed {said:?}");
        let commit = commit(&said);
        if let (Some(daemon), Some(bench)) = (commit.as_deref(), COMMIT)
            && daemon.trim_end_matches(CHANGED) != bench
        {
            say(&format!("sheave-bench: {shown} is of commit {daemon}, this bench of {bench}: the result is that daemon's"));
        }
        Ok(Self { program, commit })
    }

    /// `sheave run`, as it is measured.
    pub(crate) fn command(&self, plane: Plane, access: Access<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["run", "--source", "kube", "--node-name", NODE, "--cluster-cidr", CLUSTER_CIDR]).args([
            "--plane",
            plane.name(),
            "--log-format",
            "json",
            // A bench is not asked anything, and leaves nothing in /run.
            "--admin-socket",
            "none",
        ]);
        match access {
            Access::Double(url) => command.args(["--api-server", url]),
            Access::Kubeconfig(file) => command.arg("--kubeconfig").arg(file),
        };
        command
    }
}

impl Plane {
    /// As on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
        }
    }
}

/// Whether it is of this bench's version.
fn is_own(version: &str) -> bool {
    let numbered = version.lines().next().and_then(|line| line.strip_prefix("sheave "));
    numbered.and_then(|rest| rest.split(',').next()).is_some_and(|number| number.trim() == VERSION)
}

/// "sheave 0.1.0, commit 0123456789ab".
fn commit(version: &str) -> Option<String> {
    version.lines().next()?.split_once(", commit ").map(|(_, commit)| commit.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_another_version_is_another_one() {
        assert!(is_own(&format!("sheave {VERSION}\n")) && is_own(&format!("sheave {VERSION}, commit x\n")));
        assert!(!is_own("sheave 9.9.9\n") && !is_own("sheave\n") && !is_own(""));
    }

    #[test]
    fn the_commit_stands_behind_the_version_if_the_build_was_told() {
        assert_eq!(commit("sheave 0.1.0, commit 0123456789ab-dirty\n").as_deref(), Some("0123456789ab-dirty"));
        for untold in ["sheave 0.1.0\n", "", "sheave 0.1.0\nother, commit x"] {
            assert_eq!(commit(untold), None, "{untold}");
        }
    }
}
