//! Removing what is kube-proxy's, and nothing else.

use std::time::Duration;

use nix::errno::Errno;

use super::iptables::Place;
use super::{Backend, Item, MigrationError, State, block_on, family_word, legacy};
use crate::model::Family;
use crate::netlink::ipset::Ipset;
use crate::netlink::ipvs::{self, Ipvs};
use crate::netlink::nft::{Batch, KernelNft, NftDoor as _, TableFamily};
use crate::netlink::route;

/// How often rules are read again when somebody else changed the ruleset between our reading and our writing.
const ATTEMPTS: u32 = 20;
/// The kernel lets go of what a deleted rule referred to a little later (`nf_tables_trans_destroy_work`), and tells nobody when.
const LET_GO: Duration = Duration::from_millis(20);
const LET_GO_ATTEMPTS: u32 = 100;

/// What one go removed, and what it left.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// What is gone.
    pub removed: Vec<Item>,
    /// What stays, and why; for people.
    pub left: Vec<String>,
    /// Connections that IPVS still carries for kube-proxy's virtual servers. They are not cut: until they have ended, those virtual
    /// servers stay, and another go is due.
    pub draining: u64,
}

/// Removes everything of kube-proxy's. Safe to repeat.
///
/// # Errors
/// See [`MigrationError`]; what was removed by then stays removed.
pub fn remove(door: &mut KernelNft) -> Result<Removal, MigrationError> {
    let state = remove_from_nftables(door)?;
    let mut removal = Removal { removed: state.removable(), ..Removal::default() };
    remove_from_legacy(&state)?;
    for iptables in &state.iptables {
        let kept = iptables.share.kept.iter();
        removal.left.extend(kept.map(|(chain, by)| {
            format!("chain {chain} of {} {iptables}: chain {by}, which is not kube-proxy's, jumps to it", iptables.backend.name())
        }));
    }
    removal.left.extend(state.untouchable.iter().map(ToString::to_string));

    removal.draining = remove_virtual_servers(&state)?;
    if removal.draining > 0 {
        // The sets say which virtual servers are NodePorts', the interface brings the packets.
        removal.removed.retain(|item| !matches!(item.kind, "ipset" | "interface" | "ipvs"));
        return Ok(removal);
    }
    if let Some(device) = &state.device {
        block_on(route::delete_interface(device.index))??;
    }
    let busy = destroy_ipsets(&state.ipsets)?;
    removal.removed.retain(|item| item.kind != "ipset" || !busy.contains(&item.name));
    removal.left.extend(busy.into_iter().map(|name| format!("ipset {name}: a rule that is not kube-proxy's refers to it")));
    Ok(removal)
}

/// kube-proxy's tables and its share of iptables-nft's, in one transaction that the kernel refuses if anybody changed anything since
/// we looked: a rule's number may be another rule's by then.
fn remove_from_nftables(door: &mut KernelNft) -> Result<State, MigrationError> {
    let mut attempt = 0;
    loop {
        let generation = door.generation()?;
        let state = State::look(door)?;
        attempt += 1;
        match door.commit(transaction(&state, generation)) {
            Err(error) if error.errno() == Some(Errno::ERESTART) && attempt < ATTEMPTS => {}
            outcome => return outcome.map(|_| state).map_err(Into::into),
        }
    }
}

fn transaction(state: &State, generation: u32) -> Batch {
    let mut batch = Batch::at_generation(generation);
    for table in &state.tables {
        batch.set_family(table.table.family);
        batch.delete_table(&table.table.name);
    }
    for iptables in state.iptables.iter().filter(|iptables| iptables.backend == Backend::Nft) {
        batch.set_family(match iptables.family {
            Family::V4 => TableFamily::IPV4,
            Family::V6 => TableFamily::IPV6,
        });
        let table = &iptables.table;
        for jump in &iptables.share.jumps {
            if let Place::Handle(handle) = jump.place {
                batch.delete_rule(table, &jump.chain, handle);
            }
        }
        // All rules before the first chain: they jump to each other's.
        iptables.share.chains.iter().for_each(|chain| batch.flush_chain(table, chain));
        iptables.share.chains.iter().for_each(|chain| batch.delete_chain(table, chain));
    }
    batch
}

fn remove_from_legacy(state: &State) -> Result<(), MigrationError> {
    for iptables in state.iptables.iter().filter(|iptables| iptables.backend == Backend::Legacy && state.is_writable(iptables)) {
        if !iptables.share.chains.is_empty() {
            legacy::remove(iptables.family, &iptables.table, &iptables.share.chains)?;
        }
    }
    Ok(())
}

/// Deletes those that carry nothing any more, and says how many connections the others have. New ones do not come: our rules
/// translate before IPVS sees a packet.
fn remove_virtual_servers(state: &State) -> Result<u64, MigrationError> {
    if state.virtual_servers.is_empty() {
        return Ok(0);
    }
    let Some(mut door) = Ipvs::open()? else { return Ok(0) };
    let connections = ipvs::connections();
    let mut draining = 0;
    for server in &state.virtual_servers {
        match connections.get(server).copied().unwrap_or(0) {
            0 => door.delete(server)?,
            some => draining += some,
        }
    }
    Ok(draining)
}

/// Destroys sets, and returns those that somebody else's rules refer to.
fn destroy_ipsets(names: &[String]) -> Result<Vec<String>, MigrationError> {
    let mut left = names.to_vec();
    if left.is_empty() {
        return Ok(left);
    }
    let mut door = Ipset::open()?;
    for attempt in 0..LET_GO_ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(LET_GO);
        }
        let mut busy = Vec::new();
        for name in left {
            if !door.destroy(&name)? {
                busy.push(name);
            }
        }
        left = busy;
        if left.is_empty() {
            break;
        }
    }
    Ok(left)
}

impl std::fmt::Display for super::Untouchable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { family, table, reason, certain } = self;
        let has = if *certain { "has" } else { "may have" };
        write!(
            f,
            "table {} {table} of iptables-legacy, which {has} chains of kube-proxy's: {reason}; once kube-proxy is stopped, run \
             `kube-proxy --cleanup`",
            family_word(*family)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Untouchable;

    #[test]
    fn of_a_table_that_could_not_be_read_nothing_is_claimed() {
        let untouchable =
            |certain| Untouchable { family: Family::V4, table: "nat".to_owned(), reason: "no".to_owned(), certain }.to_string();
        assert!(
            untouchable(false).contains("may have chains of kube-proxy's")
                && untouchable(true).contains("has chains of kube-proxy's")
        );
    }
}
