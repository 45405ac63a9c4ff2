//! `sheave run`, and with which arguments it is measured.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::peer::Access;
use crate::proxy::{CLUSTER_CIDR, NODE};

/// What carries its traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plane {
    Nftables,
}

impl Plane {
    /// As on the command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
        }
    }
}

/// `sheave run`, of the binary beside this one: built together, measured together.
pub(crate) fn command(plane: Plane, access: Access<'_>) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("finding this program")?.with_file_name("sheave");
    ensure!(
        program.is_file(),
        "{} is not there: build it with `cargo build --release -p sheave -p sheave-bench`",
        program.display()
    );
    let mut command = Command::new(program);
    command.args(["run", "--source", "kube", "--node-name", NODE, "--cluster-cidr", CLUSTER_CIDR]).args([
        "--plane",
        plane.name(),
        "--log-format",
        "json",
    ]);
    match access {
        Access::Double(url) => command.args(["--api-server", url]),
        Access::Kubeconfig(file) => command.arg("--kubeconfig").arg(file),
    };
    Ok(command)
}
