//! What planes need to know about this node, beside the Services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use compact_str::CompactString;
use ipnet::IpNet;

use crate::model::Family;

/// Node-level inputs of a render. Changing them costs a few elements and, for [`Detector`], match-all and the echo addresses, a few rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Which sources are pods of the cluster (kube-proxy 4.3).
    pub detector: Detector,
    /// Masquerade all ClusterIP traffic, from pods too.
    pub masquerade_all: bool,
    /// Where NodePorts are served, IPv4.
    pub node_ports_v4: NodePortAddresses,
    /// Where NodePorts are served, IPv6.
    pub node_ports_v6: NodePortAddresses,
    /// ServiceCIDRs: addresses within that no Service has are dropped.
    pub service_cidrs: BTreeSet<IpNet>,
    /// The address of this node at which its kernel answers echo requests to the VIPs of our pools, IPv4. Without one they stay
    /// unanswered.
    pub echo_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub echo_v6: Option<IpAddr>,
}

/// How a packet from a pod is told from any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Detector {
    /// Not at all: no masquerade of ClusterIP traffic from outside, no short-circuit for pods.
    #[default]
    Off,
    /// By source address. A family without a CIDR has the detector off.
    Cidrs(BTreeSet<IpNet>),
    /// By input interface.
    Interface(CompactString),
    /// By prefix of the input interface's name.
    InterfacePrefix(CompactString),
}

/// The addresses at which NodePorts of one family are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// Any local address but loopback is one; `addresses` then only serves postrouting, where the kernel cannot ask for it.
    pub match_all: bool,
    /// The addresses of this node that are in force. Of loopback at most 127.0.0.1: then NodePorts are served there too, to
    /// processes of this node and to nobody else.
    pub addresses: BTreeSet<IpAddr>,
}

/// The loopback address at which NodePorts may be served; IPv6 has no such thing (`route_localnet` is IPv4's).
pub const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl NodeState {
    /// NodePorts are served at [`LOCALHOST`].
    #[must_use]
    pub fn serves_localhost(&self) -> bool {
        self.node_ports_v4.addresses.contains(&LOCALHOST)
    }

    /// NodePort addresses of a family.
    #[must_use]
    pub fn node_ports(&self, family: Family) -> &NodePortAddresses {
        match family {
            Family::V4 => &self.node_ports_v4,
            Family::V6 => &self.node_ports_v6,
        }
    }

    /// The address at which echo requests to VIPs of a family are answered.
    #[must_use]
    pub fn echo(&self, family: Family) -> Option<IpAddr> {
        let echo = match family {
            Family::V4 => self.echo_v4,
            Family::V6 => self.echo_v6,
        };
        echo.filter(|ip| Family::of(*ip) == family)
    }
}
