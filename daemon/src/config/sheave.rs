//! `SheaveConfiguration`, config.sheave.dev/v1alpha1: what kube-proxy has no word for.

use serde::{Deserialize, Serialize};

use super::duration::GoDuration;

/// The group and version of the document.
pub(super) const API_VERSION: &str = "config.sheave.dev/v1alpha1";
/// The kind of the document.
pub(super) const KIND: &str = "SheaveConfiguration";

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SheaveConfiguration {
    /// URLs of API servers, tried in turn; they replace the server of the kubeconfig or of the pod's environment.
    pub api_servers: Vec<String>,
    /// A directory or file of manifests to serve instead of an API server's objects; empty: an API server.
    pub manifests: String,
    /// What carries the traffic: `auto` or `nftables`; empty: what `mode` of the KubeProxyConfiguration says.
    pub plane: String,
    /// Announcing VIPs on the LAN.
    pub load_balancer: LoadBalancer,
}

/// `loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// A file of MetalLB's, `excludel2.yaml`: names of interfaces that announce nothing; empty: MetalLB's own list.
    pub interfaces_excluded: String,
    /// Everything is announced again so often; 0: only when something changes.
    pub periodic_announcement: GoDuration,
    /// Only Services of this `spec.loadBalancerClass`; empty: those without one.
    pub class: String,
    /// The namespace whose IPAddressPools and L2Advertisements count; empty: where there are pools.
    pub metallb_namespace: String,
    /// The UDP port at which announcers hear each other; 0: 7946.
    pub membership_port: u16,
    /// For so long a node whose kernel answers keeps its VIPs without its daemon; 0: 3 s.
    pub daemon_restart_grace: GoDuration,
    /// Nodes labelled `node.kubernetes.io/exclude-from-external-load-balancers` announce all the same.
    pub ignore_exclude_label: bool,
    /// A cordoned node announces nothing.
    pub move_from_cordoned: bool,
}
