//! Looking at what is kube-proxy's, in nf_tables, x_tables, IPVS, ipset and rtnetlink.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::forwarding::{self, Dropping, FORWARD_HOOK, Passage};
use super::iptables::{self, Fate, Place, Rule};
use super::surroundings::is_foreign;
use super::{
    Backend, DEVICE, FILTER, Iptables, MigrationError, State, TABLE, Table, Untouchable, address, block_on, check, frontends,
    legacy,
};
use crate::model::Family;
use crate::netlink::ipset::Ipset;
use crate::netlink::ipvs::{self, Ipvs};
use crate::netlink::nft::{ForeignChain, ForeignRule, ForeignTable, KernelNft, RuleVerdict, TableFamily};
use crate::netlink::{route, xtables};

/// Its set of ClusterIPs.
const CLUSTER_IPS: &str = "cluster-ips";
/// The tables of iptables that it writes to.
const IPTABLES: [&str; 3] = [FILTER, "mangle", "nat"];
/// The ipsets of its ipvs mode that say which ports are NodePorts, and of which protocol.
const NODE_PORT_SETS: [(&str, i32); 3] =
    [("NODE-PORT-TCP", libc::IPPROTO_TCP), ("NODE-PORT-UDP", libc::IPPROTO_UDP), ("NODE-PORT-SCTP-HASH", libc::IPPROTO_SCTP)];

impl State {
    /// Looks at everything that kube-proxy may have made in this thread's network namespace, in any of its modes. Blocks; not to
    /// be called on a thread of an asynchronous runtime.
    ///
    /// # Errors
    /// See [`MigrationError`].
    pub fn look(door: &mut KernelNft) -> Result<Self, MigrationError> {
        let mut state = Self::default();
        let tables = door.all_tables()?;
        for family in [TableFamily::IPV4, TableFamily::IPV6] {
            let table = ForeignTable::new(family, TABLE);
            if tables.contains(&table) {
                state.tables.push(Table::read(door, table)?);
            }
        }
        state.look_at_iptables(door, &tables)?;
        state.look_at_legacy();
        state.look_at_ipvs()?;
        Ok(state)
    }

    fn look_at_iptables(&mut self, door: &mut KernelNft, tables: &[ForeignTable]) -> Result<(), MigrationError> {
        let chains = door.all_chains()?;
        for (family, of) in [(Family::V4, TableFamily::IPV4), (Family::V6, TableFamily::IPV6)] {
            for name in IPTABLES {
                let table = ForeignTable::new(of, name);
                let here = || chains.iter().filter(|chain| chain.table == table);
                if !tables.contains(&table) || !here().any(|chain| iptables::is_chain(&chain.name)) {
                    continue;
                }
                let rules: Vec<Rule> = door.rules_in(&table)?.iter().map(Rule::from).collect();
                let builtin: BTreeSet<&str> =
                    here().filter(|chain| chain.base.is_some()).map(|chain| chain.name.as_str()).collect();
                let share = iptables::share(here().map(|chain| chain.name.as_str()), |chain| builtin.contains(chain), &rules);
                let drops =
                    |chain: &ForeignChain| chain.name == FORWARD_HOOK && chain.base.as_ref().is_some_and(|base| base.drops);
                let drops_forwarded = name == FILTER && (here().any(drops) || forwarding::drops_the_rest(&rules, FORWARD_HOOK));
                self.iptables.push(Iptables { backend: Backend::Nft, family, table: name.to_owned(), share, drops_forwarded });
            }
        }
        Ok(())
    }

    fn look_at_legacy(&mut self) {
        for family in Family::ALL {
            for name in legacy::tables(family).into_iter().filter(|table| IPTABLES.contains(&table.as_str())) {
                let table = match xtables::table(family, &name) {
                    Ok(table) => table,
                    Err(error) => {
                        let reason = error.to_string();
                        self.untouchable.push(Untouchable { family, table: name, reason, certain: false });
                        continue;
                    }
                };
                let rules: Vec<Rule> = table.rules.iter().map(Rule::from).collect();
                let dropping = (name == FILTER).then(|| dropping_legacy(family, &table, &rules)).flatten();
                let drops_forwarded = dropping.is_some();
                self.dropping_legacy.extend(dropping);
                let chains = table.chains.iter().map(|chain| chain.name.as_str());
                let builtin: BTreeSet<&str> =
                    table.chains.iter().filter(|chain| chain.policy.is_some()).map(|chain| chain.name.as_str()).collect();
                let share = iptables::share(chains, |chain| builtin.contains(chain), &rules);
                if !share.is_empty() {
                    if let Some(error) = legacy::why_not_writable(family) {
                        let reason = error.to_string();
                        self.untouchable.push(Untouchable { family, table: name.clone(), reason, certain: true });
                    }
                    self.iptables.push(Iptables { backend: Backend::Legacy, family, table: name, share, drops_forwarded });
                }
            }
        }
    }

    fn look_at_ipvs(&mut self) -> Result<(), MigrationError> {
        let mut ipset = Ipset::open()?;
        self.ipsets = ipset.names()?.into_iter().filter(|name| iptables::is_ipset(name)).collect();
        self.device = block_on(route::dummy(DEVICE))??;
        let Some(mut ipvs) = Ipvs::open()? else { return Ok(()) };
        let mut node_ports = BTreeSet::new();
        for (set, protocol) in NODE_PORT_SETS {
            for name in [format!("KUBE-{set}"), format!("KUBE-6-{set}")] {
                if self.ipsets.contains(&name) {
                    node_ports.extend(ipset.ports(&name)?.into_iter().map(|port| (protocol, port)));
                }
            }
        }
        let on_device = |ip: &IpAddr| self.device.as_ref().is_some_and(|device| device.addresses.contains(ip));
        (self.virtual_servers, self.foreign_virtual_servers) = ipvs.virtual_servers()?.into_iter().partition(|server| {
            on_device(&server.at.ip()) || node_ports.contains(&(i32::from(server.protocol), server.at.port()))
        });
        let serving = ipvs::serving();
        self.serving = self.virtual_servers.iter().filter(|server| serving.contains(server)).copied().collect();
        Ok(())
    }
}

/// Every chain at forward that drops what its rules do not accept, whoever wrote it, in nf_tables and in iptables-legacy. Reads the
/// rules of no other table. What iptables-legacy does not let us read drops nothing.
///
/// # Errors
/// See [`MigrationError`].
pub(super) fn dropping(door: &mut KernelNft) -> Result<Vec<Dropping>, MigrationError> {
    let chains: Vec<ForeignChain> = door.all_chains()?.into_iter().filter(|chain| is_foreign(&chain.table)).collect();
    let mut found = Vec::new();
    for chain in chains.iter().filter(|chain| forwarding::may_drop(chain)) {
        let rules: Vec<Rule> = door.rules_in(&chain.table)?.iter().map(Rule::from).collect();
        found.extend(Dropping::of(chain, &rules));
    }
    for family in Family::ALL {
        if legacy::tables(family).iter().any(|table| table == FILTER)
            && let Ok(table) = xtables::table(family, FILTER)
        {
            let rules: Vec<Rule> = table.rules.iter().map(Rule::from).collect();
            found.extend(dropping_legacy(family, &table, &rules));
        }
    }
    Ok(found)
}

/// Table `filter` of iptables-legacy.
fn dropping_legacy(family: Family, table: &xtables::Table, rules: &[Rule]) -> Option<Dropping> {
    let by_policy = table.policy(FORWARD_HOOK) == Some(&xtables::Target::Drop);
    (by_policy || forwarding::drops_the_rest(rules, FORWARD_HOOK)).then(|| Dropping {
        name: check::legacy_chain(family, FORWARD_HOOK),
        family: Some(family),
        passage: Passage::of(rules, FORWARD_HOOK),
        by_kube_proxy: forwarding::accepts_by_kube_proxy(rules),
    })
}

impl Table {
    fn read(door: &mut KernelNft, table: ForeignTable) -> Result<Self, MigrationError> {
        let cluster_ips = door.keys_in(&table, CLUSTER_IPS)?.iter().filter_map(|key| address(key)).collect();
        let frontends = frontends::of_table(door, &table)?;
        Ok(Self { table, cluster_ips, frontends })
    }
}

impl From<&ForeignRule> for Rule {
    fn from(rule: &ForeignRule) -> Self {
        let fate = match () {
            () if rule.ends_with(&RuleVerdict::Accept) => Fate::Accept,
            () if rule.ends_with(&RuleVerdict::Drop) || rule.rejects() => Fate::Drop,
            () if rule.ends_with(&RuleVerdict::Return) => Fate::Return,
            () => Fate::Other,
        };
        let known = Self::new(&rule.chain, rule.target(), fate, &rule.conditions());
        Self { translates: rule.translates(), place: Place::Handle(rule.handle), ..known }
    }
}
