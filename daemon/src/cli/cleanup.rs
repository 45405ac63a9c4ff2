//! `sheave cleanup`.

use anyhow::Context as _;
use clap::Args;

use super::Failure;
use crate::daemon::{DaemonError, give_back_localnet, unguarded_localnet};
use crate::dataplane::nftables;
use crate::migration::rollback;
use crate::netlink::nft::{KernelNft, NftDoor as _};

const NOTHING: &str = "nothing of sheave is in this kernel";

/// Flags of `sheave cleanup`.
#[derive(Debug, Default, Args)]
pub(super) struct Arguments {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub(super) fn cleanup(arguments: &Arguments) -> Result<(), Failure> {
    let mut door = KernelNft::open().map_err(|error| Failure::Unreachable(DaemonError::from(error).into()))?;
    let table = format!("table inet {}", nftables::TABLE);
    // Held by a daemon that runs, and gone with it: see docs/decisions/nat-hold.md.
    if nftables::is_held(&mut door).map_err(|error| Failure::Unreachable(error.into()))? {
        let advice = format!("`sheave run` is running on this node and would restore {table} at once: stop it first");
        return Err(Failure::No(anyhow::anyhow!(advice)));
    }
    if arguments.dry_run {
        let there = door.table_exists(nftables::TABLE).map_err(|error| Failure::Unreachable(error.into()))?;
        println!("{}", if there { format!("would remove: {table}") } else { NOTHING.to_owned() });
        return Ok(());
    }
    // Before the rules that guard it.
    give_back_localnet(&mut door).context("setting route_localnet back").map_err(Failure::No)?;
    let removed = nftables::cleanup(&mut door).with_context(|| format!("removing {table}")).map_err(Failure::No)?;
    rollback::withdraw(&mut door).context("removing the request to stand down").map_err(Failure::No)?;
    println!("{}", if removed { format!("removed: {table}") } else { NOTHING.to_owned() });
    if let Some(text) = unguarded_localnet() {
        println!("{text}");
    }
    Ok(())
}
