//! A Service as policy needs it. Fields that no dataplane reads (`selector`, `targetPort`, ...) are not kept.

use std::net::IpAddr;
use std::num::NonZeroU32;

use compact_str::CompactString;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::load_balancer::LoadBalancerRequest;
use super::{Problem, Protocol, ServiceKey};

/// Seconds for which a client stays with its backend after its last new connection (`sessionAffinity: ClientIP`).
pub type AffinityTimeout = NonZeroU32;

/// One Service object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// `metadata.uid`, empty for a manifest without one. The last tie-breaker of a conflict.
    pub uid: CompactString,
    /// `metadata.creationTimestamp` in seconds since 1970; `None` where it is absent, and then youngest of all. The manifests' source
    /// gives an age to those without one.
    pub created: Option<i64>,
    /// `spec.type`.
    pub kind: ServiceType,
    /// ClusterIPs of both families. Empty: none given (ExternalName, or not yet allocated), or headless.
    pub cluster_ips: SmallVec<[IpAddr; 2]>,
    /// `clusterIP: None`: DNS only, no rules.
    pub headless: bool,
    /// `spec.externalName`, for [`ServiceType::ExternalName`]; kept for people and for DNS.
    pub external_name: Option<CompactString>,
    /// `spec.externalIPs`, both families, canonical, in the order given.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with ipMode VIP or none (KEP-1860): the addresses to be served on every node.
    pub vips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, both families.
    pub source_ranges: Vec<IpNet>,
    /// `spec.internalTrafficPolicy`; absent is `Cluster`.
    pub internal_traffic_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`; absent is `Cluster`.
    pub external_traffic_policy: TrafficPolicy,
    /// `sessionAffinity: ClientIP` and its timeout; `None` is no affinity. Absent timeout: 10,800 s, the API server's default.
    pub affinity: Option<AffinityTimeout>,
    /// `spec.healthCheckNodePort`, 0 for none.
    pub health_check_node_port: u16,
    /// `spec.ports`, in the order given. Invalid ones are left out, and so is a second one of the same name and protocol: these two
    /// are a port's identity from here on.
    pub ports: Vec<ServicePortSpec>,
    /// What the load balancer reads of it; `None` for a Service that is none of its business.
    pub load_balancer: Option<Box<LoadBalancerRequest>>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceType {
    /// Also where absent.
    ClusterIp,
    /// A port on every node.
    NodePort,
    /// A VIP in the status.
    LoadBalancer,
    /// A CNAME in DNS; never any rules, even with a ClusterIP.
    ExternalName,
}

/// Who may serve a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any endpoint of the cluster.
    #[default]
    Cluster,
    /// Endpoints of this node only.
    Local,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortSpec {
    /// Port name, empty for a single unnamed port. Endpoints are matched by (name, protocol) alone.
    pub name: CompactString,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on ClusterIP, VIP and externalIP. Never 0.
    pub port: u16,
    /// NodePort, 0 for none. Served whenever non-zero, whatever the type says.
    pub node_port: u16,
}
