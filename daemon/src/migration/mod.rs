//! Living with kube-proxy: finding what is its own on this node, taking over from it, and giving back.
//!
//! ```text
//! State::look ─► what is kube-proxy's here     presence ─► does it run, or is this left over?
//!      └─► removal::remove                     check ─► what is there, what will happen, what is to be done
//! rollback ─► has kube-proxy's own set of rules all our ClusterIPs? then ours go
//! ```
//! While both sets of rules exist ours decide: our NAT chains come just before kube-proxy's, and the kernel asks no further chain
//! once one has translated a connection (`nf_nat_inet_fn`). What is not kube-proxy's stays: foreign chains, rules, sets and virtual
//! servers. Connections that it translated go on, because conntrack keeps translating them.

pub mod check;
mod forwarding;
mod frontends;
pub mod iptables;
pub mod legacy;
pub mod presence;
pub mod removal;
pub mod rollback;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use self::forwarding::FORWARD_HOOK;
pub use self::frontends::Frontend;
use self::iptables::{Fate, Place, Rule, Share};
use self::legacy::LegacyError;
use crate::model::Family;
use crate::netlink::ipset::{Ipset, IpsetError};
use crate::netlink::ipvs::{self, Ipvs, IpvsError, VirtualServer};
use crate::netlink::nft::{CommitError, DoorError, ForeignChain, ForeignRule, ForeignTable, KernelNft, RuleVerdict, TableFamily};
use crate::netlink::route::{self, Dummy, RouteError};
use crate::netlink::xtables;

/// The table of kube-proxy's nftables mode, one in each family.
const TABLE: &str = "kube-proxy";
/// Its set of ClusterIPs.
const CLUSTER_IPS: &str = "cluster-ips";
/// The dummy interface of its ipvs mode.
const DEVICE: &str = "kube-ipvs0";
/// The tables of iptables that it writes to.
const IPTABLES: [&str; 3] = [FILTER, "mangle", "nat"];
/// The one of them that decides what is forwarded.
const FILTER: &str = "filter";
/// The ipsets of its ipvs mode that say which ports are NodePorts, and of which protocol.
const NODE_PORT_SETS: [(&str, i32); 3] =
    [("NODE-PORT-TCP", libc::IPPROTO_TCP), ("NODE-PORT-UDP", libc::IPPROTO_UDP), ("NODE-PORT-SCTP-HASH", libc::IPPROTO_SCTP)];

/// What is kube-proxy's in this network namespace.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Tables of its nftables mode.
    pub tables: Vec<Table>,
    /// Its share of iptables' tables, of both backends.
    pub iptables: Vec<Iptables>,
    /// Tables of iptables-legacy that have chains of kube-proxy's, or may have, and cannot be read or written here.
    pub untouchable: Vec<Untouchable>,
    /// Its ipsets.
    pub ipsets: Vec<String>,
    /// Its interface.
    pub device: Option<Dummy>,
    /// Its virtual servers.
    pub virtual_servers: Vec<VirtualServer>,
    /// Those of them that have a destination to send connections to.
    pub serving: Vec<VirtualServer>,
    /// Chains of iptables-legacy at forward that drop what none of their rules accepts, whoever wrote them.
    pub dropping_legacy: Vec<String>,
    /// Everybody else's virtual servers.
    pub foreign_virtual_servers: Vec<VirtualServer>,
}

/// A table of kube-proxy's nftables mode.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its place in nf_tables.
    pub table: ForeignTable,
    /// ClusterIPs that it knows.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Frontends that it leads to an endpoint.
    pub frontends: BTreeSet<Frontend>,
}

/// kube-proxy's share of a table of iptables.
#[derive(Clone, Debug)]
pub struct Iptables {
    /// Who keeps it.
    pub backend: Backend,
    /// Its family.
    pub family: Family,
    /// Its name: `nat`, `filter` or `mangle`.
    pub table: String,
    /// What is kube-proxy's in it.
    pub share: Share,
    /// Forwarded packets that none of its rules accepts are dropped.
    pub drops_forwarded: bool,
}

/// The two implementations of iptables, which know nothing of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Tables of nf_tables.
    Nft,
    /// Tables of x_tables.
    Legacy,
}

/// A table of iptables-legacy that cannot be read or written here.
#[derive(Clone, Debug)]
pub struct Untouchable {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub table: String,
    /// Why.
    pub reason: String,
    /// It has chains of kube-proxy's; otherwise it may have.
    pub certain: bool,
}

/// One thing that is kube-proxy's, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Item {
    /// `nftables`, `iptables-nft`, `iptables-legacy`, `ipset`, `interface` or `ipvs`.
    pub kind: &'static str,
    /// Its name, as the tool of that kind says it.
    pub name: String,
    /// How much there is of it.
    pub detail: String,
}

/// Why it cannot be told what is there, or it is still there.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// nf_tables did not answer.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// nf_tables refused.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// ipset did not answer, or refused.
    #[error(transparent)]
    Ipset(#[from] IpsetError),
    /// IPVS did not answer, or refused.
    #[error(transparent)]
    Ipvs(#[from] IpvsError),
    /// rtnetlink did not answer, or refused.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// iptables-legacy failed.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// No runtime, no thread.
    #[error("{what}: {source}")]
    Process {
        /// What could not be had.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

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
                let drops = table.policy(FORWARD_HOOK) == Some(&xtables::Target::Drop);
                let drops_forwarded = name == FILTER && (drops || forwarding::drops_the_rest(&rules, FORWARD_HOOK));
                if drops_forwarded && !forwarding::lets_pods_through(&rules, FORWARD_HOOK) {
                    self.dropping_legacy.push(check::legacy_chain(family, FORWARD_HOOK));
                }
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

    /// Whether nothing here is known to be kube-proxy's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    /// Everything that is kube-proxy's, by name.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let Self { tables, iptables, untouchable: _, ipsets, device, virtual_servers, .. } = self;
        let item = |kind, name: String, detail: String| Item { kind, name, detail };
        let mut items: Vec<Item> = tables
            .iter()
            .map(|table| {
                let detail = format!("{} ClusterIPs, {} frontends with backends", table.cluster_ips.len(), table.frontends.len());
                item("nftables", format!("table {}", table.table), detail)
            })
            .collect();
        items.extend(iptables.iter().filter(|iptables| !iptables.share.chains.is_empty()).map(|iptables| {
            let Share { chains, jumps, .. } = &iptables.share;
            item(iptables.backend.name(), iptables.to_string(), format!("{} chains, {} jumps to them", chains.len(), jumps.len()))
        }));
        items.extend(ipsets.iter().map(|name| item("ipset", name.clone(), String::new())));
        items.extend(
            device.iter().map(|device| item("interface", DEVICE.to_owned(), format!("{} addresses", device.addresses.len()))),
        );
        if !virtual_servers.is_empty() {
            items.push(item("ipvs", "virtual servers".to_owned(), virtual_servers.len().to_string()));
        }
        items
    }

    /// What of it [`removal`] can remove.
    #[must_use]
    pub fn removable(&self) -> Vec<Item> {
        let mut removable = self.clone();
        removable.iptables.retain(|iptables| self.is_writable(iptables));
        removable.items()
    }

    /// Whether its table can be written here.
    fn is_writable(&self, iptables: &Iptables) -> bool {
        let is = |other: &Untouchable| (other.family, &other.table) == (iptables.family, &iptables.table);
        iptables.backend == Backend::Nft || !self.untouchable.iter().any(is)
    }

    /// Chains that forward packets of Services only because kube-proxy's KUBE-FORWARD accepts them there. What it accepts it knows by
    /// a mark that kube-proxy's own NAT rules set, so it is of no use from the moment on in which ours translate.
    #[must_use]
    pub fn forwards_by_kube_proxy(&self) -> Vec<String> {
        let depends = |iptables: &&Iptables| {
            iptables.drops_forwarded && iptables.share.accepts_forwarded && !iptables.share.lets_pods_through
        };
        let name = |iptables: &Iptables| format!("{FORWARD_HOOK} of {} {iptables}", iptables.backend.name());
        self.iptables.iter().filter(depends).map(name).collect()
    }

    /// Whether it has what serves NodePorts at 127.0.0.1, if that was asked for: iptables mode, IPv4.
    #[must_use]
    pub fn may_serve_localhost(&self) -> bool {
        let serves = |iptables: &Iptables| iptables.family == Family::V4 && !iptables.share.frontends.is_empty();
        self.ipsets.is_empty() && self.iptables.iter().any(serves)
    }

    /// ClusterIPs that kube-proxy's rules know, in whichever mode.
    #[must_use]
    pub fn cluster_ips(&self) -> BTreeSet<IpAddr> {
        let of_tables = self.tables.iter().flat_map(|table| &table.cluster_ips);
        let of_iptables = self.iptables.iter().flat_map(|iptables| &iptables.share.services);
        // An address on the interface is of no use without a virtual server.
        let of_servers = self.virtual_servers.iter().map(|server| server.at.ip());
        of_tables.chain(of_iptables).copied().chain(of_servers).collect()
    }
}

/// Their names, in one line.
#[must_use]
pub fn sentence(items: &[Item]) -> String {
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for item in items {
        names.entry(item.kind).or_default().push(&item.name);
    }
    let parts = names.into_iter().map(|(kind, names)| format!("{kind} ({})", names.join(", ")));
    parts.collect::<Vec<_>>().join("; ")
}

impl Table {
    fn read(door: &mut KernelNft, table: ForeignTable) -> Result<Self, MigrationError> {
        let cluster_ips = door.keys_in(&table, CLUSTER_IPS)?.iter().filter_map(|key| address(key)).collect();
        let frontends = frontends::of_table(door, &table)?;
        Ok(Self { table, cluster_ips, frontends })
    }
}

impl Backend {
    /// As in the name of its tool.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }
}

impl fmt::Display for Iptables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", family_word(self.family), self.table)
    }
}

impl From<&ForeignRule> for Rule {
    fn from(rule: &ForeignRule) -> Self {
        let fate = match () {
            () if rule.ends_with(&RuleVerdict::Accept) => Fate::Accept,
            () if rule.ends_with(&RuleVerdict::Drop) || rule.rejects() => Fate::Drop,
            () => Fate::Other,
        };
        let known = Self::new(&rule.chain, rule.target(), fate, &rule.conditions());
        Self { translates: rule.translates(), place: Place::Handle(rule.handle), ..known }
    }
}

/// As `nft list tables` has it.
fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// An element's key as an address, if it is one.
fn address(key: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(key).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(key).ok().map(IpAddr::from))
}

/// rtnetlink's client is asynchronous; what looks and removes here is not. On a thread of its own, in the same network namespace: who
/// looks may be within a runtime already, which takes no second one.
fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> Result<T, MigrationError> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| MigrationError::Process { what: "starting a runtime for rtnetlink", source })?;
        Ok(runtime.block_on(work))
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
