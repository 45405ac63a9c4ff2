//! What the daemon was told to do, after parsing and validation. Flags and files end here; nothing past this line reads either.
//!
//! ```text
//! file ─► Tree ─► Sieve ─► Documents ─┐
//! flags ──────────────────────────────┴─► Configuration ─► interpret ─► Settings { Options, warnings }
//! ```
//! Flags and file are two spellings of one [`KubeProxyConfiguration`], so that a thing means the same in both.

pub(crate) mod catalogue;
mod duration;
mod field_error;
mod file;
mod interpret;
mod kube_proxy;
mod node_name;
mod present;
#[cfg(test)]
pub(crate) mod samples;
mod settings;
mod sheave;
mod sift;
mod takes;
mod traps;
pub(crate) mod tree;
mod yaml;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use ipnet::IpNet;

use crate::health::STALE_AFTER;
use crate::loadbalancer::membership;
use crate::source::kube::KubeOptions;

pub use duration::GoDuration;
pub use field_error::{FieldError, FieldProblem};
pub use file::{ConfigError, Documents, log_defaults, parse, read, read_from};
pub use interpret::interpret;
pub use kube_proxy::KubeProxyConfiguration;
pub(crate) use node_name::{EXPECTED as EXPECTED_NODE_NAME, node_name};
pub use present::{changed_fields, default_documents, explained, non_defaults};
pub use settings::{LogDefaults, LogFormat, Overrides, Settings, SourceChoice};
pub use sheave::SheaveConfiguration;

/// What was asked for, complete: nothing is unset any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// kube-proxy's part.
    pub kube_proxy: KubeProxyConfiguration,
    /// Ours.
    pub sheave: SheaveConfiguration,
}

/// A file, with what the command line says over its head; read again whenever it changes.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// What the command line says.
    pub overrides: Overrides,
}

/// Everything `sheave run` needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Our Node's name: trimmed and lower-cased, as kube-proxy does.
    pub node_name: Arc<str>,
    /// Who gave it that name.
    pub node_name_origin: NodeNameOrigin,
    /// Where objects come from.
    pub source: SourceOptions,
    /// What to tell pods by.
    pub detect_local: DetectLocal,
    /// The networks that pods are in, whatever they are told by; none: not known.
    pub cluster_cidrs: Vec<IpNet>,
    /// Masquerade all ClusterIP traffic, from pods too.
    pub masquerade_all: bool,
    /// Where NodePorts are served.
    pub node_ports: NodePortSelection,
    /// NodePorts are served at 127.0.0.1 as well, to processes of the node.
    pub localhost_node_ports: bool,
    /// Takes the place of the Node's IP of its family (`bindAddress`).
    pub node_ip: Option<IpAddr>,
    /// Feature gate `AllowServiceExternalIPs=false`.
    pub external_ips_denied: bool,
    /// Take over from kube-proxy: serve beside it, and remove what is its own once it has ended.
    pub adopt: bool,
    /// Announce VIPs at all.
    pub announces: bool,
    /// The least time between two commits; none: a change is committed at once.
    pub min_sync_period: Duration,
    /// What is asked of the kernel beside rules.
    pub kernel: KernelSettings,
    /// Where the daemon answers about itself.
    pub servers: Servers,
    /// How long a change may wait for the kernel before `/healthz` and `/livez` say 503: twice `syncPeriod`.
    pub stale_after: Duration,
    /// `--controller`: give addresses to Services, too; none: somebody else does.
    pub controller: Option<ControllerChoice>,
    /// Which VIPs are announced, and how.
    pub announcing: Announcing,
}

/// Which VIPs are announced, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// Only Services of this `spec.loadBalancerClass`; none: those without one (`--lb-class`).
    pub class: Option<CompactString>,
    /// The namespace whose pools and advertisements count; none: where there are pools (`--metallb-namespace`).
    pub metallb_namespace: Option<Arc<str>>,
    /// The namespace of sheave's own Leases and of the announcers' Secret (`--namespace`).
    pub namespace: Arc<str>,
    /// The file that says which interfaces are excluded; none: MetalLB's own list.
    pub interfaces_excluded: Option<PathBuf>,
    /// Everything is announced again so often; none: only when something changes.
    pub period: Option<Duration>,
    /// The UDP port at which announcers hear each other.
    pub port: u16,
    /// For so long a node whose kernel answers keeps its VIPs without its daemon.
    pub daemon_restart_grace: Duration,
    /// Nodes with the label that excludes them from load balancers announce all the same (`ignoreExcludeLabel`).
    pub ignore_exclude_label: bool,
    /// A cordoned node announces nothing (`moveFromCordoned`).
    pub move_from_cordoned: bool,
}

/// What the controller beside the node's daemon needs to know; the rest is in [`Announcing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerChoice {
    /// The host, as the Lease names it.
    pub host: String,
}

/// Where sheave's own objects are.
pub(crate) const NAMESPACE: &str = "kube-system";

impl Default for Announcing {
    fn default() -> Self {
        Self {
            class: None,
            metallb_namespace: None,
            namespace: NAMESPACE.into(),
            interfaces_excluded: None,
            period: None,
            port: membership::DEFAULT_PORT,
            daemon_restart_grace: membership::Options::default().daemon_restart_grace,
            ignore_exclude_label: false,
            move_from_cordoned: false,
        }
    }
}

/// Where our Node's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeNameOrigin {
    /// `--node-name`, `--hostname-override` or `NODE_NAME`.
    CommandLine,
    /// `hostnameOverride`.
    File,
    /// The host.
    HostName,
}

/// `--source`.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceOptions {
    /// A Kubernetes API server.
    Kube(Box<KubeOptions>),
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

/// The servers that answer about the daemon itself. By default none listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// `/healthz` and `/livez`; none: not served.
    pub healthz: Option<SocketAddr>,
    /// `/metrics` and the rest of that port; none: not served.
    pub metrics: Option<SocketAddr>,
    /// The admin socket (`--admin-socket`); none: not served.
    pub admin: Option<PathBuf>,
    /// A port that is taken at the start ends the process, instead of being tried again.
    pub bind_address_hard_fail: bool,
}

/// Settings of this process and of its network namespace (kube-proxy 6.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelSettings {
    /// `oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Of connection tracking.
    pub conntrack: ConntrackSettings,
}

impl KernelSettings {
    /// kube-proxy's default: killed after nearly everything else.
    pub(crate) const USUAL_OOM_SCORE: i32 = -999;
}

/// `conntrack`. Zero leaves the kernel's value alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Entries for each CPU.
    pub max_per_core: u32,
    /// Entries at least.
    pub min: u32,
    /// An established TCP connection without packets is forgotten after this.
    pub tcp_established: Duration,
    /// One that waits for the node's side to close.
    pub tcp_close_wait: Duration,
    /// A UDP flow of one direction.
    pub udp: Duration,
    /// A UDP flow that was answered.
    pub udp_stream: Duration,
    /// Segments outside of the window are not invalid.
    pub tcp_be_liberal: bool,
}

impl Options {
    /// A name and a source, and nothing else: no CIDRs, NodePorts at the node's IP, no servers, kernel settings left alone.
    #[must_use]
    pub fn new(node_name: Arc<str>, source: SourceOptions) -> Self {
        Self {
            node_name,
            node_name_origin: NodeNameOrigin::CommandLine,
            source,
            detect_local: DetectLocal::ClusterCidr(Vec::new()),
            cluster_cidrs: Vec::new(),
            masquerade_all: false,
            node_ports: NodePortSelection::Primary,
            localhost_node_ports: false,
            node_ip: None,
            external_ips_denied: false,
            adopt: false,
            announces: true,
            min_sync_period: Duration::ZERO,
            kernel: KernelSettings::default(),
            servers: Servers::default(),
            stale_after: STALE_AFTER,
            controller: None,
            announcing: Announcing::default(),
        }
    }
}

impl ConfigFile {
    /// Reads the file and says what it comes to.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(&self) -> Result<Settings, ConfigError> {
        read(&self.path)?.judge(&self.overrides).map_err(ConfigError::Invalid)
    }
}

impl Configuration {
    /// Defaults filled in. Without a KubeProxyConfiguration the mode is nftables, which is what this daemon does.
    #[must_use]
    pub fn of(documents: &Documents) -> Self {
        let mut kube_proxy = documents.kube_proxy.clone().unwrap_or_else(Self::native);
        kube_proxy.set_defaults();
        Self { kube_proxy, sheave: documents.sheave.clone().unwrap_or_default() }
    }

    /// The same with what the command line says over its head: what is in force.
    #[must_use]
    pub fn under(mut self, overrides: &Overrides) -> Self {
        let Overrides { node_name, host_name, plane, source, api_servers, verbosity, log_format, .. } = overrides;
        let Self { kube_proxy, sheave } = &mut self;
        let name = [node_name.as_deref().unwrap_or_default(), &kube_proxy.hostname_override, host_name]
            .into_iter()
            .map(str::trim)
            .find(|name| !name.is_empty());
        kube_proxy.hostname_override = name.unwrap_or_default().to_lowercase();
        kube_proxy.logging.verbosity = verbosity.unwrap_or(kube_proxy.logging.verbosity);
        if let Some(format) = log_format {
            format.word().clone_into(&mut kube_proxy.logging.format);
        }
        if let Some(plane) = plane {
            sheave.plane.clone_from(plane);
        }
        match source {
            Some(SourceChoice::Manifests(path)) => sheave.manifests = path.display().to_string(),
            Some(SourceChoice::Kube) => sheave.manifests.clear(),
            None => {}
        }
        if !api_servers.is_empty() {
            sheave.api_servers.clone_from(api_servers);
        }
        self
    }

    /// A KubeProxyConfiguration of mode nftables that says nothing else.
    #[must_use]
    pub fn native() -> KubeProxyConfiguration {
        KubeProxyConfiguration { mode: "nftables".to_owned(), ..KubeProxyConfiguration::default() }
    }
}
