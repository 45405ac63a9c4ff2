//! Removing what is kube-proxy's, and nothing else.

use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;

use super::iptables::Place;
use super::{Backend, Iptables, Item, MigrationError, State, block_on, family_word, legacy, pods_in_words};
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
#[derive(Debug, Default)]
pub struct Removal {
    /// What is gone.
    pub removed: Vec<Item>,
    /// That of it which somebody must have written if it is found again: not a table of iptables with chains that others use, which are
    /// found as soon as nobody uses them any more.
    pub for_good: Vec<Item>,
    /// What stays, and why; for people.
    pub left: Vec<String>,
    /// Connections that IPVS still carries for kube-proxy's virtual servers. They are not cut: until they have ended, those virtual
    /// servers stay, and another go is due.
    pub draining: u64,
    /// What ended it before its time.
    pub failed: Option<MigrationError>,
}

/// Removes everything of kube-proxy's. Safe to repeat. `pods`: the networks that pods are in; with none known, any network that others
/// accept is taken for theirs.
///
/// # Errors
/// See [`MigrationError`], if nothing is removed, which is so where forwarded packets would be dropped without kube-proxy's rules. What
/// fails after that is in [`Removal::failed`], beside what is gone.
pub fn remove(door: &mut KernelNft, pods: &[IpNet]) -> Result<Removal, MigrationError> {
    let state = remove_from_nftables(door, pods)?;
    let items = state.removable();
    let mut removal = Removal::default();
    removal.gone(&items, |item| matches!(item.kind, "nftables" | "iptables-nft"));
    removal.failed = removal.go_on(&state, &items).err();
    removal.for_good = for_good(&state, &removal.removed);
    Ok(removal)
}

impl Removal {
    /// What is not in nf_tables.
    fn go_on(&mut self, state: &State, items: &[Item]) -> Result<(), MigrationError> {
        let is_legacy = |iptables: &&Iptables| iptables.backend == Backend::Legacy && state.is_writable(iptables);
        for iptables in state.iptables.iter().filter(is_legacy) {
            if !iptables.share.chains.is_empty() {
                legacy::remove(iptables.family, &iptables.table, &iptables.share.chains)?;
                self.gone(items, |item| is_of(item, iptables));
            }
        }
        for iptables in &state.iptables {
            let kept = iptables.share.kept.iter();
            self.left.extend(
                kept.map(|(chain, need)| format!("chain {chain} of {} {iptables}: {}", iptables.backend.name(), need.of(chain))),
            );
        }
        self.left.extend(state.untouchable.iter().map(ToString::to_string));

        self.draining = remove_virtual_servers(state)?;
        if self.draining > 0 {
            // The sets say which virtual servers are NodePorts', the interface brings the packets.
            return Ok(());
        }
        self.gone(items, |item| item.kind == "ipvs");
        if let Some(device) = &state.device {
            block_on(route::delete_interface(device.index))??;
            self.gone(items, |item| item.kind == "interface");
        }
        let busy = destroy_ipsets(&state.ipsets)?;
        self.gone(items, |item| item.kind == "ipset" && !busy.contains(&item.name));
        self.left.extend(busy.into_iter().map(|name| format!("ipset {name}: a rule that is not kube-proxy's refers to it")));
        Ok(())
    }

    fn gone(&mut self, items: &[Item], is: impl Fn(&Item) -> bool) {
        self.removed.extend(items.iter().filter(|item| is(item)).cloned());
    }
}

/// What is not of a table in which chains stay.
fn for_good(state: &State, removed: &[Item]) -> Vec<Item> {
    let shared = |item: &Item| state.iptables.iter().any(|iptables| !iptables.share.kept.is_empty() && is_of(item, iptables));
    removed.iter().filter(|item| !shared(item)).cloned().collect()
}

/// Whether an item is kube-proxy's share of this table.
fn is_of(item: &Item, iptables: &Iptables) -> bool {
    item.kind == iptables.backend.name() && item.name == iptables.to_string()
}

/// kube-proxy's tables and its share of iptables-nft's, in one transaction that the kernel refuses if anybody changed anything since
/// we looked: a rule's number may be another rule's by then.
fn remove_from_nftables(door: &mut KernelNft, pods: &[IpNet]) -> Result<State, MigrationError> {
    let mut attempt = 0;
    loop {
        let generation = door.generation()?;
        let state = State::look(door)?;
        // What lets pods through at our start may be gone by now, and connections that kube-proxy began pass by KUBE-FORWARD.
        let chains = state.forwards_by_kube_proxy(pods);
        if !chains.is_empty() {
            return Err(MigrationError::ForwardsByKubeProxy { chains: chains.join(", "), pods: pods_in_words(pods) });
        }
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
    use std::process::Command;

    use super::*;
    use crate::migration::Untouchable;
    use crate::migration::iptables::{Need, Share};
    use crate::netlink::testns::in_namespace;

    /// It accepted at our start, and somebody has made it drop since.
    #[test]
    fn nothing_is_removed_where_kube_forward_alone_lets_packets_through() {
        in_namespace(|| {
            let nft = |script: &str| assert!(Command::new("nft").arg(script).status().is_ok_and(|status| status.success()));
            nft("table ip kube-proxy { }; table ip filter {
                chain KUBE-FORWARD { meta mark & 0x4000 == 0x4000 accept; ct state related,established accept; }
                chain FORWARD { type filter hook forward priority 0; policy drop; jump KUBE-FORWARD; ip saddr 172.17.0.0/16 accept; \
                                ip daddr 172.17.0.0/16 accept; }
            }");
            let mut door = KernelNft::open().unwrap();
            let pods = ["10.244.0.0/16".parse().unwrap()];
            let refused = remove(&mut door, &pods).expect_err("forwarded packets would be dropped").to_string();
            assert!(refused.contains("FORWARD of iptables-nft ip filter") && refused.contains("(10.244.0.0/16)"), "{refused}");
            assert_eq!(State::look(&mut door).unwrap().items().len(), 2);
            nft("add rule ip filter FORWARD ip saddr 10.244.0.0/16 accept");
            nft("add rule ip filter FORWARD ip daddr 10.0.0.0/8 accept");
            assert_eq!(remove(&mut door, &pods).unwrap().removed.len(), 2);
        });
    }

    #[test]
    fn of_a_table_that_could_not_be_read_nothing_is_claimed() {
        let untouchable =
            |certain| Untouchable { family: Family::V4, table: "nat".to_owned(), reason: "no".to_owned(), certain }.to_string();
        assert!(
            untouchable(false).contains("may have chains of kube-proxy's")
                && untouchable(true).contains("has chains of kube-proxy's")
        );
    }

    /// Once others no longer use a chain that stayed, its table is found again though nobody wrote to it.
    #[test]
    fn a_table_in_which_chains_stay_is_not_gone_for_good() {
        let need = |chain: &str| Need { by: "CNI-HOSTPORT-SETMARK".to_owned(), jumps_to: chain.to_owned() };
        let table = |name: &str, kept: &[&str]| Iptables {
            backend: Backend::Nft,
            family: Family::V4,
            table: name.to_owned(),
            share: Share {
                chains: vec!["KUBE-SERVICES".to_owned()],
                kept: kept.iter().map(|chain| ((*chain).to_owned(), need(chain))).collect(),
                ..Share::default()
            },
            drops_forwarded: false,
        };
        let iptables = vec![table("nat", &["KUBE-MARK-MASQ"]), table("filter", &[])];
        let state = State { iptables, ipsets: vec!["KUBE-LOOP-BACK".to_owned()], ..State::default() };
        let items = state.removable();
        assert_eq!(items.len(), 3);
        let names: Vec<_> = for_good(&state, &items).into_iter().map(|item| item.name).collect();
        assert_eq!(names, ["ip filter", "KUBE-LOOP-BACK"]);
    }
}
