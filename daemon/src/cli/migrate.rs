//! `sheave migrate`: from kube-proxy to sheave, and back.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::Failure;
use crate::daemon::{DaemonError, give_back_localnet};
use crate::migration::check::Report;
use crate::migration::rollback::{self, Outcome};
use crate::netlink::nft::KernelNft;

/// Subcommands of `sheave migrate`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what kube-proxy has on this node, what will happen to it, and what is to be done first
    ///
    /// Changes nothing. Exit codes: 0 nothing is in the way; 1 something is to be done, and named; 3 it cannot be looked.
    Check(CheckArguments),
    /// Give this node back to kube-proxy: wait until its rules are complete, then remove ours
    ///
    /// A `sheave run` that is alive is asked to stand down. Exit codes: 0 given back; 1 kube-proxy did not come in time: nothing was
    /// removed.
    Back(BackArguments),
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// For people, or for programs
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// The networks that pods are in, as sheave's clusterCIDR has them: what others accept at forward has to cover them. Without it
    /// any network counts
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct BackArguments {
    /// How long to wait: 30s, 5m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::duration)]
    timeout: Duration,
}

pub(super) fn migrate(arguments: &Arguments) -> Result<(), Failure> {
    let mut door = KernelNft::open().map_err(|error| Failure::Unreachable(DaemonError::from(error).into()))?;
    match &arguments.command {
        Command::Check(arguments) => check(&mut door, arguments),
        Command::Back(arguments) => back(&mut door, arguments.timeout),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn check(door: &mut KernelNft, arguments: &CheckArguments) -> Result<(), Failure> {
    let report =
        Report::look(door, &arguments.cluster_cidr).context("looking for kube-proxy's rules").map_err(Failure::Unreachable)?;
    match arguments.output {
        Format::Text => print!("{report}"),
        Format::Json => {
            println!("{}", serde_json::to_string_pretty(&report).context("writing JSON").map_err(Failure::No)?);
        }
    }
    match report.to_do().count() {
        0 => Ok(()),
        1 => Err(Failure::No(anyhow::anyhow!("one thing is to be done"))),
        many => Err(Failure::No(anyhow::anyhow!("{many} things are to be done"))),
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn back(door: &mut KernelNft, timeout: Duration) -> Result<(), Failure> {
    let localnet = |door: &mut KernelNft| give_back_localnet(door).context("setting route_localnet back");
    let outcome = rollback::give_back(door, timeout, localnet, |waiting| println!("waiting: {waiting}")).map_err(Failure::No)?;
    match outcome {
        Outcome::GivenBack => {
            // A `sheave run` that removed the rules itself may not have been allowed to.
            localnet(door).map_err(Failure::No)?;
            println!("kube-proxy serves this node; sheave's rules are removed");
        }
        Outcome::NothingHere => println!("nothing of sheave is in this kernel"),
        Outcome::Declined => {
            return Err(Failure::No(anyhow::anyhow!(
                "nothing was removed: `sheave run` saw no kube-proxy, though it left the ports 10256 and 10249 to it; start kube-proxy \
                 first"
            )));
        }
        Outcome::TooLate(waiting) => {
            return Err(Failure::No(anyhow::anyhow!("nothing was removed within {} s: {waiting}", timeout.as_secs())));
        }
    }
    Ok(())
}
