//! The words every plane, every reader and every test shares.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use compact_str::CompactString;
use ipnet::IpNet;

use super::slots::BackendSet;
use crate::model::load_balancer::Hosting;
use crate::model::{AffinityTimeout, Family, Labels, Protocol, ServiceKey, TrafficPolicy};

/// Names a Service port: one entry of `spec.ports` in one family, the unit of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId {
    /// The Service.
    pub service: ServiceKey,
    /// Its port's name, empty for the unnamed one.
    pub name: CompactString,
    /// Its protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
}

/// What a packet is addressed to. Equal addresses are a conflict between Service ports: one of them gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendAddress {
    /// A ClusterIP, VIP or externalIP with a port.
    Ip {
        /// The address.
        ip: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A port on the NodePort addresses of this node.
    NodePort {
        /// The family of those addresses.
        family: Family,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

/// Why an address is a frontend. The order is the order of precedence in a conflict, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// A VIP of one of our own pools.
    PoolVip,
    /// Any other VIP in `status.loadBalancer`.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `spec.ports[].nodePort`.
    NodePort,
}

/// One frontend of a Service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frontend {
    /// Where it is.
    pub address: FrontendAddress,
    /// What it is.
    pub kind: FrontendKind,
    /// The traffic policy that governs it: internal for a ClusterIP, external for all others. `Local` on an external frontend
    /// still sends pods and the node itself to the cluster set (kube-proxy 3.3); `Local` on a ClusterIP spares nobody.
    pub policy: TrafficPolicy,
    /// Sources that may use it; `None` lets everybody in, an empty list nobody. Only ever on VIPs. Sorted, without overlaps.
    pub source_ranges: Option<Arc<[IpNet]>>,
}

/// One endpoint as a target. It is its address and port: `local` may change without making it another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Address and port.
    pub address: SocketAddr,
    /// It runs on this node, so it may reach itself through the Service (hairpin).
    pub local: bool,
}

/// Which backends of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those the topology hints leave, or any.
    Cluster,
    /// Those on this node.
    Local,
}

/// What happens to a new connection that no backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// There are backends for every kind of client.
    Forward,
    /// No usable endpoint anywhere: refuse at once, with ICMP port unreachable.
    Reject,
    /// Endpoints are usable, but only elsewhere: be silent, so that the client tries another node.
    /// On an external frontend with policy `Local`, pods and the node itself are still served from the cluster set.
    Drop,
}

/// A Service port with all that is decided about it. Immutable: a change makes a new one, readers keep the old as long as they like.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// Its name.
    pub id: PortId,
    /// The frontends it holds after conflicts, sorted by address.
    pub frontends: Vec<Frontend>,
    /// Backends of scope `cluster` by slot; empty if no frontend uses that scope.
    pub cluster: BackendSet,
    /// Backends of scope `local` by slot; empty if no frontend uses that scope.
    pub local: BackendSet,
    /// Some endpoint is usable for this port, here or elsewhere: decides between reject and drop.
    pub any_usable: bool,
    /// Session affinity.
    pub affinity: Option<AffinityTimeout>,
    /// UDP only: every serving endpoint, whatever its readiness, hints or place. A conntrack entry towards one of these is alive;
    /// towards anything else it is stale. Sorted.
    pub serving: Arc<[SocketAddr]>,
}

/// The identity of a backend within its Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId {
    /// Address and port.
    pub address: SocketAddr,
    /// Generation at which it joined.
    pub generation: u64,
}

/// A Service whose load balancer asks each node whether it has endpoints (`spec.healthCheckNodePort`, kube-proxy 6.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// The port on this node at which it asks.
    pub port: NonZeroU16,
    /// The Service's `metadata.uid`, for whoever has to complain about the port.
    pub uid: CompactString,
    /// Ready endpoints on this node, by distinct IPv4 address; `None` where the Service has no ClusterIP of the family. Terminating
    /// ones do not count, though they may still get traffic: the load balancer shall look elsewhere in good time.
    pub local_v4: Option<u32>,
    /// The same of IPv6.
    pub local_v6: Option<u32>,
}

/// A Service of type LoadBalancer that has VIPs: what deciding who announces them takes to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// The Service's `metadata.uid`, for Events.
    pub uid: CompactString,
    /// Its labels: L2Advertisements select by them.
    pub labels: Labels,
    /// `spec.loadBalancerClass`.
    pub class: Option<CompactString>,
    /// Its VIPs, in the order of its status, whoever's they are.
    pub vips: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// Where its usable endpoints are, for IPv4 VIPs.
    pub hosting_v4: Hosting,
    /// The same for IPv6 VIPs.
    pub hosting_v6: Hosting,
}

/// Something a person should know about a Service: a conflict lost, an address refused. Becomes a warning line and an Event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Notice {
    /// The Service it is about.
    pub service: ServiceKey,
    /// CamelCase reason as Events use them: `FrontendConflict`, `AddressRefused`.
    pub reason: &'static str,
    /// What is not served, and why; `None` where it is served.
    pub subject: Option<Subject>,
    /// One line that names the field and what to do.
    pub message: String,
}

/// What is not served, and why, whichever field of the Service asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A frontend that this Service port has.
    Held(FrontendAddress, PortId),
    /// The ClusterIP of this Service.
    ClusterIpOf(IpAddr, ServiceKey),
    /// An address of a kind that no Service may have, in the words that follow "is".
    Unfit(IpAddr, &'static str),
    /// An address of a family in which the Service has no ClusterIP.
    Stranger(IpAddr),
}

impl Notice {
    /// The same refusal, perhaps of another field of the Service: an externalIP that becomes a VIP as well is told as that from then on,
    /// and is not served any more than before.
    #[must_use]
    pub fn is_but_moved(&self, other: &Self) -> bool {
        self.subject.is_some() && (&self.service, self.reason, &self.subject) == (&other.service, other.reason, &other.subject)
    }
}

impl Tenancy {
    /// Where its usable endpoints are, for VIPs of a family.
    #[must_use]
    pub fn hosting(&self, family: Family) -> &Hosting {
        match family {
            Family::V4 => &self.hosting_v4,
            Family::V6 => &self.hosting_v6,
        }
    }
}

impl HealthCheck {
    /// Ready endpoints on this node in a family, if the Service exists in it.
    #[must_use]
    pub fn local(&self, family: Family) -> Option<u32> {
        match family {
            Family::V4 => self.local_v4,
            Family::V6 => self.local_v6,
        }
    }
}

impl FrontendAddress {
    /// The address, if it is not a NodePort.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Self::Ip { ip, .. } => Some(ip),
            Self::NodePort { .. } => None,
        }
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match *self {
            Self::Ip { protocol, .. } | Self::NodePort { protocol, .. } => protocol,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match *self {
            Self::Ip { port, .. } | Self::NodePort { port, .. } => port,
        }
    }

    /// The family.
    #[must_use]
    pub fn family(&self) -> Family {
        match *self {
            Self::Ip { ip, .. } => Family::of(ip),
            Self::NodePort { family, .. } => family,
        }
    }
}

impl fmt::Display for FrontendAddress {
    /// `10.96.0.10:53/UDP`, `[fd00::a]:53/UDP`, `node:30080/TCP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ip { ip, protocol, port } => write!(f, "{}/{protocol}", SocketAddr::new(ip, port)),
            Self::NodePort { protocol, port, .. } => write!(f, "node:{port}/{protocol}"),
        }
    }
}

impl fmt::Display for PortId {
    /// `default/web:http/TCP (IPv4)`; without a port name `default/web/TCP (IPv4)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.name.is_empty() { "" } else { ":" };
        write!(f, "{}{colon}{}/{} ({})", self.service, self.name, self.protocol, self.family)
    }
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "ClusterIP",
            Self::PoolVip => "LoadBalancer VIP from a pool",
            Self::LoadBalancer => "LoadBalancer VIP",
            Self::ExternalIp => "externalIP",
            Self::NodePort => "NodePort",
        })
    }
}

impl Frontend {
    /// It is not a ClusterIP: reached from outside, governed by the external traffic policy.
    #[must_use]
    pub fn is_external(&self) -> bool {
        self.kind != FrontendKind::ClusterIp
    }

    /// The scope that serves clients in general: pods and the node itself for an external frontend, everybody for a ClusterIP.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match (self.is_external(), self.policy) {
            (false, TrafficPolicy::Local) => Scope::Local,
            _ => Scope::Cluster,
        }
    }

    /// Some of its clients are served from this scope.
    #[must_use]
    pub fn uses(&self, scope: Scope) -> bool {
        match scope {
            Scope::Cluster => self.scope() == Scope::Cluster,
            Scope::Local => self.policy == TrafficPolicy::Local,
        }
    }

    /// Outside clients get the local set only.
    #[must_use]
    pub fn splits_by_source(&self) -> bool {
        self.is_external() && self.policy == TrafficPolicy::Local
    }
}

impl ServicePort {
    /// The backends of a scope.
    #[must_use]
    pub fn set(&self, scope: Scope) -> &BackendSet {
        match scope {
            Scope::Cluster => &self.cluster,
            Scope::Local => &self.local,
        }
    }

    /// What becomes of a connection to this frontend that no backend takes (kube-proxy 4.1).
    #[must_use]
    pub fn verdict(&self, frontend: &Frontend) -> Verdict {
        let short = if frontend.splits_by_source() { self.local.is_empty() } else { self.set(frontend.scope()).is_empty() };
        match (self.any_usable, short) {
            (false, _) => Verdict::Reject,
            (true, true) => Verdict::Drop,
            (true, false) => Verdict::Forward,
        }
    }
}
