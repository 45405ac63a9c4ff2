//! What the daemon was told to do, after parsing and validation. Flags and files end here; nothing past this line reads either.

use std::path::PathBuf;
use std::sync::Arc;

use compact_str::CompactString;
use ipnet::IpNet;

use crate::source::kube::KubeOptions;

/// Everything `sheave run` needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our Node's name: trimmed and lower-cased, as kube-proxy does.
    pub node_name: Arc<str>,
    /// Where objects come from.
    pub source: SourceOptions,
    /// What to tell pods by.
    pub detect_local: DetectLocal,
    /// Masquerade all ClusterIP traffic, from pods too.
    pub masquerade_all: bool,
    /// Where NodePorts are served.
    pub node_ports: NodePortSelection,
    /// Feature gate `AllowServiceExternalIPs=false`.
    pub external_ips_denied: bool,
    /// Take over from kube-proxy: serve beside it, and remove what is its own once it has ended.
    pub adopt: bool,
}

/// `--source`.
#[derive(Clone, Debug)]
pub enum SourceOptions {
    /// A Kubernetes API server.
    Kube(KubeOptions),
    /// A directory or a file of manifests.
    Manifests(PathBuf),
}

/// `--detect-local-mode` with its argument (kube-proxy 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// Pods have these addresses. None given for a family: the detector is off in that family.
    ClusterCidr(Vec<IpNet>),
    /// Pods of this node have the addresses of its `spec.podCIDRs`.
    NodeCidr,
    /// Packets from pods come in through this bridge.
    BridgeInterface(CompactString),
    /// Packets from pods come in through interfaces whose names begin so.
    InterfaceNamePrefix(CompactString),
}

/// `--nodeport-addresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortSelection {
    /// The node IP of each family; a family without one serves all its local addresses (kube-proxy 4.5).
    Primary,
    /// Addresses of this node within these; a family without any serves all its local addresses.
    Cidrs(Vec<IpNet>),
}
