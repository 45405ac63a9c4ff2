//! `sheave run`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use compact_str::CompactString;
use ipnet::IpNet;

use super::Failure;
use crate::config::{DetectLocal, NodePortSelection, Options, SourceOptions};
use crate::daemon::with_causes;
use crate::source::kube::KubeOptions;

/// Flags of `sheave run`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where Services come from: `kube` (an API server), or `manifests=PATH` (a directory or file of ordinary YAML or JSON,
    /// watched for changes; needs no cluster)
    #[arg(long, value_name = "SOURCE", default_value = "kube", value_parser = parse_source)]
    source: SourceArgument,

    /// Name of this node's Node object [default: the host name, lower case]
    #[arg(long, value_name = "NAME", visible_alias = "hostname-override", env = "NODE_NAME")]
    node_name: Option<String>,

    /// What carries the traffic
    #[arg(long, value_name = "PLANE", default_value = "auto")]
    plane: PlaneArgument,

    /// Take over from kube-proxy: serve beside it, and remove its rules once ours are complete and it has ended
    #[arg(long)]
    adopt: bool,

    /// API server to use, several to be tried in turn [default: the kubeconfig's, else the one of the pod's environment]
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "API server")]
    api_server: Vec<String>,

    /// Credentials and address of the API server
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", help_heading = "API server")]
    kubeconfig: Option<PathBuf>,

    /// CIDRs of the cluster's pods, both families: how traffic from pods is told from any other
    #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Node")]
    cluster_cidr: Vec<IpNet>,

    /// How traffic from pods is told from any other
    #[arg(long, value_name = "MODE", default_value = "ClusterCIDR", help_heading = "Node")]
    detect_local_mode: DetectLocalMode,

    /// Bridge of the pods, for BridgeInterface
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pod_bridge_interface: Option<String>,

    /// Beginning of the names of the pods' interfaces, for InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX", help_heading = "Node")]
    pod_interface_name_prefix: Option<String>,

    /// Where NodePorts are served: `primary` (the node's IP), or CIDRs that this node's addresses are picked by
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "primary", help_heading = "Node")]
    nodeport_addresses: Vec<String>,

    /// Masquerade all traffic to ClusterIPs, from pods too
    #[arg(long, help_heading = "Node")]
    masquerade_all: bool,

    /// Kubernetes feature gates; AllowServiceExternalIPs is the one that matters here
    #[arg(long, value_name = "GATE=BOOL", value_delimiter = ',', help_heading = "Node")]
    feature_gates: Vec<String>,
}

#[derive(Clone, Debug)]
enum SourceArgument {
    Kube,
    Manifests(PathBuf),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlaneArgument {
    /// The best that this kernel has; today that is nftables
    Auto,
    /// NAT by nftables, Linux 5.13 or later
    Nftables,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "verbatim")]
enum DetectLocalMode {
    /// By source address, within --cluster-cidr; without any, no traffic counts as coming from pods
    ClusterCIDR,
    /// By source address, within the Node's own spec.podCIDRs
    NodeCIDR,
    /// By the bridge it comes in through
    BridgeInterface,
    /// By the name of the interface it comes in through
    InterfaceNamePrefix,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = arguments.into_options()?;
    crate::daemon::run(options).map_err(|error| match error {
        error if error.is_usage() => Failure::Usage(with_causes(&error)),
        error if error.is_unreachable() => Failure::Unreachable(error.into()),
        error => Failure::No(error.into()),
    })
}

impl Arguments {
    fn into_options(self) -> Result<Options, Failure> {
        // One plane so far: both words mean it.
        let (PlaneArgument::Auto | PlaneArgument::Nftables) = self.plane;
        let node_name = node_name(self.node_name)?;
        Ok(Options {
            node_name: node_name.clone(),
            detect_local: detect_local(
                self.detect_local_mode,
                &self.cluster_cidr,
                self.pod_bridge_interface,
                self.pod_interface_name_prefix,
            )?,
            masquerade_all: self.masquerade_all,
            node_ports: node_ports(&self.nodeport_addresses)?,
            external_ips_denied: external_ips_denied(&self.feature_gates)?,
            adopt: self.adopt,
            source: match self.source {
                SourceArgument::Manifests(path) => SourceOptions::Manifests(path),
                SourceArgument::Kube => SourceOptions::Kube(KubeOptions {
                    kubeconfig: self.kubeconfig,
                    api_servers: self.api_server,
                    node_name,
                    ..KubeOptions::default()
                }),
            },
        })
    }
}

fn parse_source(text: &str) -> Result<SourceArgument, String> {
    match text.split_once('=') {
        None if text == "kube" => Ok(SourceArgument::Kube),
        Some(("manifests", path)) if !path.is_empty() => Ok(SourceArgument::Manifests(path.into())),
        _ => Err("expected `kube` or `manifests=PATH`, for example manifests=/etc/sheave/manifests".to_owned()),
    }
}

fn node_name(given: Option<String>) -> Result<Arc<str>, Failure> {
    let name = match given {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .context("reading the host name; give --node-name")
            .map_err(Failure::No)?
            .to_string_lossy()
            .into_owned(),
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err(Failure::Usage("--node-name is empty; expected the name of this node's Node object".to_owned()));
    }
    Ok(name.into())
}

fn detect_local(
    mode: DetectLocalMode,
    cluster_cidrs: &[IpNet],
    bridge: Option<String>,
    prefix: Option<String>,
) -> Result<DetectLocal, Failure> {
    let needed = |value: Option<String>, flag: &str, mode: &str| {
        value
            .filter(|text| !text.is_empty())
            .map(CompactString::from)
            .ok_or_else(|| Failure::Usage(format!("--detect-local-mode {mode} needs {flag}")))
    };
    Ok(match mode {
        DetectLocalMode::ClusterCIDR => DetectLocal::ClusterCidr(cluster_cidrs.iter().map(IpNet::trunc).collect()),
        DetectLocalMode::NodeCIDR => DetectLocal::NodeCidr,
        DetectLocalMode::BridgeInterface => {
            DetectLocal::BridgeInterface(needed(bridge, "--pod-bridge-interface", "BridgeInterface")?)
        }
        DetectLocalMode::InterfaceNamePrefix => {
            DetectLocal::InterfaceNamePrefix(needed(prefix, "--pod-interface-name-prefix", "InterfaceNamePrefix")?)
        }
    })
}

fn node_ports(given: &[String]) -> Result<NodePortSelection, Failure> {
    if given.iter().any(|entry| entry == "primary") {
        return match given {
            [_] => Ok(NodePortSelection::Primary),
            _ => Err(Failure::Usage("--nodeport-addresses: `primary` stands alone, it does not go with CIDRs".to_owned())),
        };
    }
    let cidrs = given.iter().map(|text| {
        text.parse::<IpNet>().map_err(|error| {
            Failure::Usage(format!("--nodeport-addresses: {text:?}: {error}; expected `primary` or CIDRs such as 192.168.0.0/24"))
        })
    });
    Ok(NodePortSelection::Cidrs(cidrs.collect::<Result<_, _>>()?))
}

/// Only one gate means anything here. Others are kube-proxy's business and are let pass, as a shared configuration may name them.
fn external_ips_denied(gates: &[String]) -> Result<bool, Failure> {
    let mut denied = false;
    for gate in gates {
        let value = gate.split_once('=').and_then(|(name, value)| Some((name, value.parse::<bool>().ok()?)));
        match value {
            Some(("AllowServiceExternalIPs", allowed)) => denied = !allowed,
            Some((name, _)) => tracing::warn!("--feature-gates: {name} is not known here and has no effect"),
            None => return Err(Failure::Usage(format!("--feature-gates: {gate:?}; expected NAME=true or NAME=false"))),
        }
    }
    Ok(denied)
}
