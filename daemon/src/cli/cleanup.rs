//! `sheave cleanup`.

use anyhow::Context as _;
use clap::Args;

use super::Failure;
use crate::daemon::{DaemonError, give_back_localnet, unguarded_localnet, would_give_back_localnet};
use crate::dataplane::nftables;
use crate::migration::rollback;
use crate::netlink::nft::{DoorError, KernelNft, NftDoor as _};

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
    let mut tables = own_tables(&mut door).map_err(|error| Failure::Unreachable(error.into()))?;
    if arguments.dry_run {
        if let Some(setting) = would_give_back_localnet(&mut door).map_err(Failure::Unreachable)? {
            println!("would set to 0: {setting}");
        }
        say("would remove", &tables);
        return Ok(());
    }
    // Before the rules that guard it.
    give_back_localnet(&mut door).context("setting route_localnet back").map_err(Failure::No)?;
    nftables::cleanup(&mut door).with_context(|| format!("removing {table}")).map_err(Failure::No)?;
    rollback::withdraw(&mut door).context("removing the request to stand down").map_err(Failure::No)?;
    // What was before sheave stays remembered where it could not be set back.
    let left = own_tables(&mut door).map_err(|error| Failure::Unreachable(error.into()))?;
    tables.retain(|table| !left.contains(table));
    say("removed", &tables);
    if let Some(text) = unguarded_localnet() {
        println!("{text}");
    }
    Ok(())
}

/// Those of sheave that are there.
fn own_tables(door: &mut KernelNft) -> Result<Vec<&'static str>, DoorError> {
    let all = [nftables::TABLE, nftables::HOLD_TABLE, nftables::LOCALNET_TABLE, rollback::REQUEST_TABLE];
    let mut there = Vec::new();
    // Of a process that stands by it goes with that process.
    if nftables::is_left_over(door, nftables::STAND_BY_TABLE)? {
        there.push(nftables::STAND_BY_TABLE);
    }
    for table in all {
        if door.table_exists(table)? {
            there.push(table);
        }
    }
    Ok(there)
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(what: &str, tables: &[&str]) {
    if tables.is_empty() {
        println!("{NOTHING}");
    }
    for table in tables {
        println!("{what}: table inet {table}");
    }
}
