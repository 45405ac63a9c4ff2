//! Giving the node back to kube-proxy: its rules first, then ours go.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::presence::{self, Listeners};
use super::{MigrationError, State, address};
use crate::dataplane::nftables::{self, TABLE};
use crate::netlink::nft::{Batch, DoorError, ForeignTable, KernelNft, NftDoor as _, TableFamily};

/// The table by which a `sheave run` that is alive is asked to stand down.
pub(super) const REQUEST_TABLE: &str = "sheave-back";
/// How often it is looked whether kube-proxy has come. Nothing tells: it may program any of four subsystems.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Addresses that an answer names at most.
const NAMED: usize = 5;

/// Asks whatever `sheave run` is alive to stand down, and those that start beside a kube-proxy not to serve.
fn request(door: &mut KernelNft) -> Result<(), MigrationError> {
    let mut batch = Batch::new();
    batch.add_table(REQUEST_TABLE, None);
    door.commit(batch)?;
    Ok(())
}

/// Whether it was asked.
///
/// # Errors
/// See [`DoorError`].
pub fn is_requested(door: &mut KernelNft) -> Result<bool, DoorError> {
    door.table_exists(REQUEST_TABLE)
}

/// Forgets that it was asked.
///
/// # Errors
/// See [`MigrationError`].
pub fn withdraw(door: &mut KernelNft) -> Result<(), MigrationError> {
    if is_requested(door)? {
        let mut batch = Batch::new();
        batch.delete_table(REQUEST_TABLE);
        door.commit(batch)?;
    }
    Ok(())
}

/// What still keeps our rules in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A `sheave run` is alive, and would restore them at once; it is asked to stand down.
    SheaveRuns,
    /// It has done so, or ended.
    StandsDown,
    /// No kube-proxy runs.
    NoKubeProxy,
    /// It runs and has no rules yet.
    NoRules,
    /// Its rules lack ClusterIPs that ours have.
    Missing(BTreeSet<IpAddr>),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Our rules are gone, and kube-proxy's serve.
    GivenBack,
    /// There was nothing of ours.
    NothingHere,
    /// The time is over, and nothing was removed.
    TooLate(Waiting),
}

/// Waits until kube-proxy's rules can take over, and removes ours.
///
/// # Errors
/// See [`MigrationError`], and those of the removal.
pub fn give_back(door: &mut KernelNft, limit: Duration, mut told: impl FnMut(&Waiting)) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let mut last = None;
    let mut asked = false;
    loop {
        let held = nftables::is_held(door)?;
        if !door.table_exists(TABLE)? && !held {
            return Ok(if asked { Outcome::GivenBack } else { Outcome::NothingHere });
        }
        let waiting = match waiting(door)? {
            // The one that was asked is on its way to remove them itself.
            None if asked && last == Some(Waiting::SheaveRuns) => Waiting::StandsDown,
            None => {
                nftables::cleanup(door)?;
                withdraw(door)?;
                return Ok(Outcome::GivenBack);
            }
            Some(waiting) => waiting,
        };
        if waiting == Waiting::SheaveRuns && !asked {
            request(door)?;
            asked = true;
        }
        if started.elapsed() >= limit {
            withdraw(door)?;
            return Ok(Outcome::TooLate(waiting));
        }
        if last.as_ref() != Some(&waiting) {
            told(&waiting);
        }
        last = Some(waiting);
        std::thread::sleep(LOOK_AGAIN.min(limit.saturating_sub(started.elapsed())));
    }
}

/// What has to be waited for; `None` when ours can go.
fn waiting(door: &mut KernelNft) -> Result<Option<Waiting>, MigrationError> {
    let state = State::look(door)?;
    let held = nftables::is_held(door)?;
    let theirs = state.cluster_ips();
    if presence::signs(if held { Listeners::Ignore } else { Listeners::Count }).is_empty() && !held {
        return Ok(Some(Waiting::NoKubeProxy));
    }
    if theirs.is_empty() {
        return Ok(Some(Waiting::NoRules));
    }
    let missing: BTreeSet<IpAddr> = own_cluster_ips(door)?.difference(&theirs).copied().collect();
    if !missing.is_empty() {
        return Ok(Some(Waiting::Missing(missing)));
    }
    Ok(held.then_some(Waiting::SheaveRuns))
}

/// The ClusterIPs that our rules know, from the kernel: whoever wrote them may be gone.
fn own_cluster_ips(door: &mut KernelNft) -> Result<BTreeSet<IpAddr>, MigrationError> {
    let table = ForeignTable::new(TableFamily::INET, TABLE);
    let mut found = BTreeSet::new();
    for set in door.set_names_in(&table)?.into_iter().filter(|name| name.starts_with("cluster-ips-")) {
        found.extend(door.keys_in(&table, &set)?.iter().filter_map(|key| address(key)));
    }
    Ok(found)
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SheaveRuns => f.write_str("`sheave run` serves this node, and is asked to stand down"),
            Self::StandsDown => f.write_str("`sheave run` has stood down or ended"),
            Self::NoKubeProxy => f.write_str(
                "no kube-proxy runs on this node: no process of that name, nobody who listens on its ports 10256 and 10249",
            ),
            Self::NoRules => f.write_str("kube-proxy has not written its rules"),
            Self::Missing(addresses) => {
                let named: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
                let more = addresses.len().saturating_sub(NAMED);
                write!(f, "kube-proxy's rules lack {} ClusterIPs that sheave's have: {}", addresses.len(), named.join(", "))?;
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
        }
    }
}
