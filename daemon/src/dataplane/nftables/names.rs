//! What each set and map is called, and which *instance* of it is in force.
//!
//! A set has a base name, `endpoints-4`, and an instance: `endpoints-4`, `endpoints-4.b`, `endpoints-4.c` are the same set at
//! different times. Whatever must be replaced without a gap is built as another instance beside the one in force, and one
//! transaction turns the rules over. Regular chains carry an instance too, so that this transaction has to touch base chains
//! only; base chains and affinity maps keep their names for ever.

use std::fmt;

use rustc_hash::FxHashMap;

use crate::model::{AffinityTimeout, Family};

/// Our table, of family `inet`. Nobody else writes it.
pub const TABLE: &str = "sheave";

/// An empty table that says that `net.ipv4.conf.all.route_localnet` was off before us.
pub const LOCALNET_TABLE: &str = "sheave-localnet";

/// Name of the empty chain that says which layout the table has; another layout is replaced as a whole by the next load.
pub const LAYOUT: &str = "layout-1";

/// What the names of such chains begin with, whatever the layout.
pub(crate) const LAYOUT_PREFIX: &str = "layout-";

/// One set or map of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SetId {
    pub(crate) kind: SetKind,
    pub(crate) family: Family,
}

/// What a set or map means. The order is the order of loading: what rules draw from first, what sends packets there last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum SetKind {
    /// Map (frontend . slot) -> backend.
    Endpoints(Pool),
    /// Map (client . frontend) -> backend, written by packets.
    Affinity,
    /// Frontends whose affinity must not be used until dead entries are gone.
    Suspended,
    /// Frontends that are sticky for so many seconds.
    Sticky(Reach, AffinityTimeout),
    /// Source networks that are pods.
    Pods,
    /// ServiceCIDRs.
    ServiceCidrs,
    /// ClusterIPs that another proxy serves.
    Foreign,
    /// Addresses at which NodePorts are served.
    NodeIps,
    /// VIPs of our pools, which no interface has.
    Vips,
    /// (endpoint . endpoint) of local endpoints that can reach themselves.
    Hairpin,
    /// (frontend . source network) that may pass.
    Ranges,
    /// Frontends with source ranges.
    Ranged,
    /// External frontends with policy Cluster: always masqueraded.
    ExternalCluster(Reach),
    /// External frontends with policy Local: split by source.
    ExternalLocal(Reach),
    /// Frontends that refuse.
    Reject(Reach),
    /// Frontends that are silent.
    Drop(Reach),
    /// Frontends that are sticky or split by source: one look-up for everybody else.
    Special,
    /// ClusterIPs.
    ClusterIps,
    /// Frontends by the size of their backend set: at most so many, more than half of it.
    Class(Pool, u32),
    /// Every frontend address: packets to anything else leave after one look-up.
    ServiceIps,
}

/// Whether a frontend is at an address of its own or at a port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Key: address . protocol . port.
    Address,
    /// Key: protocol . port.
    NodePort,
}

/// An endpoint map with its classes, dispatch chain and pick chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Pool {
    /// Clients in general, at addresses.
    Main,
    /// Outside clients of policy Local, at addresses.
    Local,
    /// Clients in general, at NodePorts.
    Node,
    /// Outside clients of policy Local, at NodePorts.
    NodeLocal,
}

/// Something for each set. Which sets there are is for us to say, so that nobody can make their hashes collide on purpose: a quick hash
/// will do, where the standard library's was a third of what it takes to write a small change.
pub(crate) type BySet<T> = FxHashMap<SetId, T>;

/// Which instance of each set and chain is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    /// Instance of regular chains, and of every set without an exception.
    pub(crate) epoch: u8,
    /// Sets grown since, and the affinity maps, which survive epochs.
    pub(crate) exceptions: BySet<u8>,
}

impl Pool {
    pub(crate) const ALL: [Self; 4] = [Self::Main, Self::Local, Self::Node, Self::NodeLocal];

    /// What its names start with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Local => "local-",
            Self::Node => "node-",
            Self::NodeLocal => "node-local-",
        }
    }

    pub(crate) fn reach(self) -> Reach {
        match self {
            Self::Main | Self::Local => Reach::Address,
            Self::Node | Self::NodeLocal => Reach::NodePort,
        }
    }

    /// Place in arrays by pool.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Main => 0,
            Self::Local => 1,
            Self::Node => 2,
            Self::NodeLocal => 3,
        }
    }
}

impl SetKind {
    pub(crate) fn of(self, family: Family) -> SetId {
        SetId { kind: self, family }
    }
}

impl SetId {
    /// Its name in the kernel as this instance.
    pub(crate) fn named(self, instance: u8) -> String {
        format!("{self}{}", suffix(instance))
    }
}

/// The digit that ends every name: `4` or `6`.
pub(crate) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

impl fmt::Display for SetId {
    /// The base name: `endpoints-4`, `node-sticky-10800-6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |reach| if reach == Reach::NodePort { "node-" } else { "" };
        let external = |reach| if reach == Reach::NodePort { "node" } else { "external" };
        match self.kind {
            SetKind::Endpoints(pool) => write!(f, "{}endpoints", pool.prefix()),
            SetKind::Affinity => f.write_str("affinity"),
            SetKind::Suspended => f.write_str("sticky-suspended"),
            SetKind::Sticky(reach, timeout) => write!(f, "{}sticky-{timeout}", node(reach)),
            SetKind::Pods => f.write_str("pods"),
            SetKind::ServiceCidrs => f.write_str("service-cidrs"),
            SetKind::Foreign => f.write_str("foreign"),
            SetKind::NodeIps => f.write_str("node-ips"),
            SetKind::Vips => f.write_str("vips"),
            SetKind::Hairpin => f.write_str("hairpin"),
            SetKind::Ranges => f.write_str("ranges"),
            SetKind::Ranged => f.write_str("ranged"),
            SetKind::ExternalCluster(reach) => write!(f, "{}-cluster", external(reach)),
            SetKind::ExternalLocal(reach) => write!(f, "{}-local", external(reach)),
            SetKind::Reject(reach) => write!(f, "{}reject", node(reach)),
            SetKind::Drop(reach) => write!(f, "{}drop", node(reach)),
            SetKind::Special => f.write_str("special"),
            SetKind::ClusterIps => f.write_str("cluster-ips"),
            SetKind::Class(pool, class) => write!(f, "{}class-{class}", pool.prefix()),
            SetKind::ServiceIps => f.write_str("service-ips"),
        }?;
        write!(f, "-{}", digit(self.family))
    }
}

impl Instances {
    /// Everything at this instance, but what is in `exceptions`.
    pub(crate) fn at(epoch: u8) -> Self {
        Self { epoch, exceptions: BySet::default() }
    }

    pub(crate) fn of(&self, set: SetId) -> u8 {
        self.exceptions.get(&set).copied().unwrap_or(self.epoch)
    }

    /// The name of a set in the kernel.
    pub(crate) fn set(&self, set: SetId) -> String {
        set.named(self.of(set))
    }

    /// The name of a regular chain of one family in the kernel.
    pub(crate) fn chain(&self, base: &str, family: Family) -> String {
        format!("{base}-{}{}", digit(family), suffix(self.epoch))
    }

    /// Moves one set to its next instance.
    pub(crate) fn advance(&mut self, set: SetId) {
        let next = (self.of(set) + 1) % INSTANCES;
        self.exceptions.insert(set, next);
    }
}

/// Instances are letters. Two would do; the rest leaves room beside the debris of loads that failed half-way.
pub(crate) const INSTANCES: u8 = 26;

/// What is appended to a base name: nothing, `.b`, `.c`, ...
pub(crate) fn suffix(instance: u8) -> String {
    if instance == 0 { String::new() } else { format!(".{}", char::from(b'a' + instance)) }
}

/// The instance that a name in the kernel has.
pub(crate) fn instance_of(name: &str) -> u8 {
    match name.as_bytes() {
        [.., b'.', letter @ b'b'..=b'z'] => letter - b'a',
        _ => 0,
    }
}
