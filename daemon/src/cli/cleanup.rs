//! `sheave cleanup`.

use anyhow::Context as _;
use clap::Args;

use super::Failure;
use crate::dataplane::nftables;
use crate::netlink::nft::KernelNft;

/// Flags of `sheave cleanup`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(super) fn cleanup(arguments: &Arguments) -> Result<(), Failure> {
    let mut door = KernelNft::open().context("opening netfilter's netlink socket").map_err(Failure::Unreachable)?;
    let table = format!("table inet {}", nftables::TABLE);
    let there = nftables::exists(&mut door).context("looking for our table").map_err(Failure::No)?;
    match (there, arguments.dry_run) {
        (false, _) => println!("nothing of sheave is in this kernel"),
        (true, true) => println!("would remove: {table}"),
        (true, false) => {
            nftables::cleanup(&mut door).with_context(|| format!("removing {table}")).map_err(Failure::No)?;
            println!("removed: {table}");
        }
    }
    Ok(())
}
