//! What policy is given and what it answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::model::load_balancer::AddressRange;
use crate::model::{AffinityTimeout, Family, Service};
use crate::table::{Backend, Frontend, Notice, PortId};

/// Everything policy may know beside the Service and its slices. No clock, no randomness, no IO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Our node's name; an endpoint is local if its `nodeName` equals it.
    pub node_name: Arc<str>,
    /// Our node's zone label, if any.
    pub zone: Option<Arc<str>>,
    /// Our node's IPs, primary of each family: decides the source-range exception (kube-proxy 4.2).
    pub node_ips: Vec<IpAddr>,
    /// Gate `AllowServiceExternalIPs`; false hides externalIPs, but they still count as "externally accessible".
    pub external_ips_denied: bool,
    /// The address pools that this cluster's own load balancer hands out: a VIP within is [`crate::table::FrontendKind::PoolVip`].
    pub pools: Vec<AddressRange>,
    /// Addresses of the API server, canonical: never a VIP or an externalIP.
    pub api_servers: BTreeSet<IpAddr>,
    /// IPv6 is not served: the kernel lacks it, or it is switched off (kube-proxy 6.6). IPv4 always is.
    pub ipv6_off: bool,
}

/// The desired state of one Service before conflicts with others are decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Its ports in each family in which it has a ClusterIP. Sorted by id.
    pub ports: Vec<DesiredPort>,
    /// Addresses refused on their own merits (loopback, link-local, an API server's: `AddressRefused`), and those of a family in which
    /// the Service does not exist (`KubeProxyIncorrectIPVersion`).
    pub notices: Vec<Notice>,
}

/// The desired state of one Service port.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPort {
    /// Its name.
    pub id: PortId,
    /// Frontends it asks for, sorted by address, no address twice.
    pub frontends: Vec<Frontend>,
    /// Backends of scope `cluster`, sorted by address, no address twice; empty if that scope is not used.
    pub cluster: Vec<Backend>,
    /// Backends of scope `local`, likewise.
    pub local: Vec<Backend>,
    /// Some endpoint is usable, here or elsewhere.
    pub any_usable: bool,
    /// Session affinity.
    pub affinity: Option<AffinityTimeout>,
    /// UDP: all serving endpoints, sorted. Empty for TCP and SCTP.
    pub serving: Arc<[SocketAddr]>,
}

/// How old a claim is: the older Service keeps a contested frontend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority {
    /// creationTimestamp, or `i64::MAX` where it is absent.
    pub created: i64,
    /// UID, then key, so that the order is total.
    pub uid: compact_str::CompactString,
}

impl Context {
    /// This node serves the family.
    #[must_use]
    pub fn serves(&self, family: Family) -> bool {
        match family {
            Family::V4 => true,
            Family::V6 => !self.ipv6_off,
        }
    }
}

impl Seniority {
    /// Of a Service.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        Self { created: service.created.unwrap_or(i64::MAX), uid: service.uid.clone() }
    }
}
