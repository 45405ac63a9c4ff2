//! This node and the cluster's ServiceCIDRs.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Problem;

/// Our own Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `status.addresses` that are IP addresses, in order.
    pub addresses: Vec<NodeAddress>,
    /// Label `topology.kubernetes.io/zone`, if not empty.
    pub zone: Option<Arc<str>>,
    /// `spec.podCIDRs`, or `spec.podCIDR` where that list is absent.
    pub pod_cidrs: Vec<IpNet>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// Keys of `spec.taints`.
    pub taints: Vec<Arc<str>>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

/// One address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// InternalIP or ExternalIP.
    pub kind: NodeAddressKind,
    /// The address.
    pub address: IpAddr,
}

/// `status.addresses[].type`, of those that carry an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeAddressKind {
    /// `InternalIP`.
    Internal,
    /// `ExternalIP`.
    External,
}

/// One ServiceCIDR object (KEP-1880).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `spec.cidrs`.
    pub cidrs: Vec<IpNet>,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

impl Node {
    /// The node IP of a family: the first InternalIP, else the first ExternalIP (reference: kube-proxy 6.6).
    #[must_use]
    pub fn ip(&self, family: super::Family) -> Option<IpAddr> {
        let of_family = |kind| self.addresses.iter().find(|a| a.kind == kind && super::Family::of(a.address) == family);
        of_family(NodeAddressKind::Internal).or_else(|| of_family(NodeAddressKind::External)).map(|a| a.address)
    }
}
