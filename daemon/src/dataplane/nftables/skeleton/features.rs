//! What of the skeleton depends on the table's content: rarely used parts exist only while something uses them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::nftables::names::Pool;
use crate::model::{AffinityTimeout, Family};
use crate::table::{Detector, NodeState};

/// Everything a skeleton is made from, beside names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) v4: FamilyFeatures,
    pub(crate) v6: FamilyFeatures,
}

/// The same of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FamilyFeatures {
    /// How a source is known to be a pod.
    pub(crate) pods: PodTest,
    /// Masquerade all ClusterIP traffic.
    pub(crate) masquerade_all: bool,
    /// NodePorts are served at any local address.
    pub(crate) match_all: bool,
    /// NodePorts are served at 127.0.0.1 as well, to processes of the node.
    pub(crate) localhost: bool,
    /// Some frontend has source ranges.
    pub(crate) ranges: bool,
    /// There are VIPs of our pools.
    pub(crate) vips: bool,
    /// The address of this node that answers echo requests to them.
    pub(crate) echo: Option<IpAddr>,
    /// Affinity timeouts in use by frontends with an address.
    pub(crate) sticky: BTreeSet<AffinityTimeout>,
    /// Affinity timeouts in use by NodePorts.
    pub(crate) node_sticky: BTreeSet<AffinityTimeout>,
    /// The largest class that exists, by [`Pool::index`].
    pub(crate) top: [u32; 4],
}

/// How a source is known to be a pod, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodTest {
    /// It is not known.
    Off,
    /// By its address: set `pods`.
    Address,
    /// By the interface it came in on.
    Interface {
        /// Name, or the start of one.
        name: String,
        /// It is the start of a name.
        prefix: bool,
    },
}

/// Classes that always exist. A cluster pays for larger ones when its first such backend set appears: one more set and one more
/// chain, and one more look-up for packets to sets of that size only.
pub(crate) const USUAL_TOP: u32 = 256;

/// The largest class, and so the largest backend set. Kubernetes is tested to 5,000 endpoints per Service.
pub(crate) const LARGEST_CLASS: u32 = 131_072;

/// The class of a backend set: the smallest power of two that holds it; none for an empty set or one beyond [`LARGEST_CLASS`].
pub(crate) fn class_of(backends: usize) -> Option<u32> {
    let class = u32::try_from(backends).ok().filter(|n| *n > 0)?.checked_next_power_of_two()?;
    (class <= LARGEST_CLASS).then_some(class)
}

/// Classes from 1 to the largest that exists.
pub(crate) fn classes(top: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(1_u32), |class| class.checked_mul(2)).take_while(move |class| *class <= top)
}

impl Features {
    /// What the node's state asks for, before any Service.
    pub(crate) fn of(node: &NodeState) -> Self {
        Self { v4: FamilyFeatures::of(node, Family::V4), v6: FamilyFeatures::of(node, Family::V6) }
    }

    pub(crate) fn family(&self, family: Family) -> &FamilyFeatures {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    pub(crate) fn family_mut(&mut self, family: Family) -> &mut FamilyFeatures {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl FamilyFeatures {
    fn of(node: &NodeState, family: Family) -> Self {
        Self {
            pods: PodTest::of(&node.detector, family),
            masquerade_all: node.masquerade_all,
            match_all: node.node_ports(family).match_all,
            localhost: family == Family::V4 && node.serves_localhost(),
            ranges: false,
            vips: false,
            echo: node.echo(family),
            sticky: BTreeSet::new(),
            node_sticky: BTreeSet::new(),
            top: [USUAL_TOP; 4],
        }
    }

    /// Something is sticky.
    pub(crate) fn learns(&self) -> bool {
        !self.sticky.is_empty() || !self.node_sticky.is_empty()
    }

    pub(crate) fn top(&self, pool: Pool) -> u32 {
        self.top[pool.index()]
    }
}

impl PodTest {
    fn of(detector: &Detector, family: Family) -> Self {
        match detector {
            Detector::Off => Self::Off,
            Detector::Cidrs(cidrs) if cidrs.iter().any(|net| Family::of(IpNet::addr(net)) == family) => Self::Address,
            Detector::Cidrs(_) => Self::Off,
            Detector::Interface(name) => Self::Interface { name: name.to_string(), prefix: false },
            Detector::InterfacePrefix(name) => Self::Interface { name: name.to_string(), prefix: true },
        }
    }
}
