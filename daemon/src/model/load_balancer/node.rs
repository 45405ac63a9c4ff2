//! Nodes as candidates for announcing, and namespaces as pools see them.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Labels;

/// A node with this label, whatever its value, takes no part in load balancing (KEP-1143).
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Any node of the cluster, as an announcer sees its peers and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNode {
    /// `metadata.name`: what the election hashes.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its InternalIPs, in order; the first one of a family is where its heartbeats come from.
    pub addresses: Vec<IpAddr>,
    /// Condition `NetworkUnavailable` is `True`.
    pub network_unavailable: bool,
    /// `spec.unschedulable`: cordoned.
    pub unschedulable: bool,
}

/// A Namespace: pools select by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceLabels {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
}
