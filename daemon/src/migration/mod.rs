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
mod look;
pub mod presence;
pub mod removal;
pub mod rollback;
mod surroundings;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

pub use self::forwarding::pods_in_words;
use self::forwarding::{Dropping, FORWARD_HOOK};
pub use self::frontends::{Frontend, of_sheave as frontends_of_sheave};
use ipnet::IpNet;

use self::iptables::Share;
use self::legacy::LegacyError;
use crate::model::Family;
use crate::netlink::ipset::IpsetError;
use crate::netlink::ipvs::{IpvsError, VirtualServer};
use crate::netlink::nft::{CommitError, DoorError, ForeignTable};
use crate::netlink::route::{Dummy, RouteError};

/// The table of kube-proxy's nftables mode, one in each family.
const TABLE: &str = "kube-proxy";
/// The dummy interface of its ipvs mode.
const DEVICE: &str = "kube-ipvs0";
/// The one of them that decides what is forwarded.
const FILTER: &str = "filter";
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
    pub dropping_legacy: Vec<Dropping>,
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
    /// Traffic would stop with what is kube-proxy's; nothing is removed.
    #[error(
        "chain {chains} drops forwarded packets, and only kube-proxy's KUBE-FORWARD accepts any of Services there: kube-proxy's rules \
         stay until others accept packets from and to {pods}"
    )]
    ForwardsByKubeProxy {
        /// Which chains.
        chains: String,
        /// Where the pods are.
        pods: String,
    },
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
    /// Whether nothing here is known to be kube-proxy's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items().is_empty()
    }

    /// Whether it leads packets of Services anywhere, or what cannot be read here may. What `kube-proxy --cleanup` leaves of iptables
    /// mode does not: chains with its names and nobody who jumps to them (`CleanupLeftovers` of pkg/proxy/iptables/proxier.go, v1.36).
    #[must_use]
    pub fn may_serve(&self) -> bool {
        let unread = self.untouchable.iter().any(|table| !table.certain);
        unread || !self.cluster_ips().is_empty() || !self.frontends().is_empty()
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
    ///
    /// `pods`: the networks that pods are in; with none known, any network that others accept is taken for theirs.
    #[must_use]
    pub fn forwards_by_kube_proxy(&self, pods: &[IpNet]) -> Vec<String> {
        let depends = |iptables: &&Iptables| {
            let Share { accepts_forwarded, passage, .. } = &iptables.share;
            iptables.drops_forwarded && *accepts_forwarded && !passage.lets_through(pods, Some(iptables.family))
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
