//! `sheave run`.

mod flags;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use self::flags::KubeProxyFlags;
use super::{Failure, LogFormat, LogOptions, cleanup};
use crate::admin;
use crate::config::{self, ConfigFile, Configuration, ControllerChoice, Overrides, Settings, SheaveConfiguration, SourceChoice};
use crate::daemon::{self, DaemonError, with_causes};

/// Flags of `sheave run`. Those of sheave go before a configuration file, those of kube-proxy are ignored beside one.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration: a KubeProxyConfiguration, a SheaveConfiguration, or both as two YAML documents; read again when it changes.
    /// See `sheave config`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where Services come from: `kube` (an API server), or `manifests=PATH` (a directory or file of ordinary YAML or JSON,
    /// watched for changes; needs no cluster) [default: kube]
    #[arg(long, value_name = "SOURCE", value_parser = parse_source)]
    source: Option<SourceChoice>,

    /// Name of this node's Node object [default: the host name, lower case]
    #[arg(long, value_name = "NAME", visible_alias = "hostname-override", env = "NODE_NAME")]
    node_name: Option<String>,

    /// What carries the traffic: auto (the best that this kernel has; today that is nftables), or nftables (NAT by nftables,
    /// Linux 5.13 or later) [default: auto]
    #[arg(long, value_name = "PLANE", value_parser = ["auto", "nftables"])]
    plane: Option<String>,

    /// Take over from kube-proxy: serve beside it, and remove its rules once ours are complete and it has ended
    #[arg(long)]
    adopt: bool,

    /// Announce no addresses of Services on the LAN, whatever pools and L2Advertisements there are: something else does, or nobody
    #[arg(long, help_heading = "Load balancer")]
    no_announcing: bool,

    /// Give addresses of MetalLB's pools to Services as well, as `sheave controller` does: for a single node, or for manifests, where
    /// they are announced on the LAN, too
    #[arg(long, help_heading = "Load balancer")]
    controller: bool,

    /// Serve only Services of this spec.loadBalancerClass [default: those without one]
    #[arg(long, value_name = "CLASS", value_parser = NonEmptyStringValueParser::new(), help_heading = "Load balancer")]
    lb_class: Option<String>,

    /// The namespace whose IPAddressPools and L2Advertisements count [default: where there are pools; metallb-system, if several
    /// namespaces have some]
    #[arg(long, value_name = "NAME", value_parser = super::object_name, help_heading = "Load balancer")]
    metallb_namespace: Option<String>,

    /// The namespace of sheave's own Leases and of the announcers' Secret
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "kube-system", value_parser = super::object_name, help_heading = "Load balancer")]
    namespace: String,

    /// Where `sheave get` reaches this daemon: a unix socket that only root can open; `none`: nowhere
    #[arg(long, value_name = "PATH", env = "SHEAVE_ADMIN_SOCKET", default_value = admin::SOCKET)]
    admin_socket: PathBuf,

    /// API server to use, several to be tried in turn [default: the kubeconfig's, else the one of the pod's environment]
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "API server")]
    api_server: Vec<String>,

    #[command(flatten)]
    kube_proxy: KubeProxyFlags,

    #[command(flatten)]
    klog: KlogFlags,

    /// How long the next object of a streaming list may take before the list is asked for in pages instead
    #[arg(long, value_name = "DURATION", hide = true, value_parser = parse_patience)]
    streaming_list_patience: Option<Duration>,

    /// One more API server, as kube-proxy calls it
    #[arg(long, value_name = "URL", hide_short_help = true, help_heading = "From kube-proxy")]
    master: Option<String>,

    /// Make the kernel settings of the configuration, and end: with 1 if one cannot be made
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_short_help = true, help_heading = "From kube-proxy")]
    init_only: bool,

    /// The same as `sheave cleanup`
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, hide_short_help = true, help_heading = "From kube-proxy")]
    cleanup: bool,

    /// Write the default configuration to this file, and end
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "From kube-proxy")]
    write_config_to: Option<PathBuf>,
}

/// kube-proxy's flags about its log. They count beside a configuration file.
#[derive(Debug, Args)]
struct KlogFlags {
    /// Verbosity as kube-proxy counts it: from 4 on debug, from 6 on trace
    #[arg(short = 'v', long = "v", value_name = "LEVEL", hide_short_help = true, help_heading = "From kube-proxy")]
    verbosity: Option<u32>,

    #[arg(long, hide = true)]
    vmodule: Option<String>,

    #[arg(long, hide = true)]
    log_flush_frequency: Option<String>,

    #[arg(long, hide = true)]
    logging_format: Option<LogFormat>,
}

/// What is to be done, once the log is open.
struct Prepared {
    task: Task,
    settings: Settings,
    log: LogOptions,
}

enum Task {
    Serve(Option<Box<ConfigFile>>),
    InitOnly,
    Cleanup,
    WriteConfig(PathBuf),
}

impl Arguments {
    pub(super) fn run(self, log: LogOptions) -> Result<(), Failure> {
        let log = LogOptions { log_format: log.log_format.or(self.klog.logging_format), ..log };
        let file = self.config.clone();
        match self.prepare(log.clone()) {
            Ok(prepared) => prepared.run(),
            // A file that cannot be used may still say how the last word is to look.
            Err(failure) => Err(log.tell_unopened(file.as_deref().and_then(config::log_defaults), failure)),
        }
    }

    /// Reads and judges everything. The log is not open yet: how it looks may stand in the file.
    fn prepare(self, log: LogOptions) -> Result<Prepared, Failure> {
        let host_name = host_name()?;
        let controller = self.controller.then(|| ControllerChoice { host: host_name.clone() });
        let overrides = Overrides {
            node_name: node_name(self.node_name)?,
            host_name,
            plane: self.plane,
            adopt: self.adopt,
            no_announcing: self.no_announcing,
            source: self.source,
            api_servers: self.api_server.into_iter().chain(self.master).collect(),
            several_cidrs: self.config.is_none(),
            verbosity: self.klog.verbosity,
            log_format: log.format(),
            log_filter: log.filter_given(),
            streaming_list: self.streaming_list_patience,
            controller,
            admin_socket: Some(self.admin_socket).filter(|path| path.as_os_str() != "none"),
            class: self.lb_class.map(Into::into),
            metallb_namespace: self.metallb_namespace.map(Into::into),
            namespace: Some(self.namespace.into()),
        };
        let (file, mut settings) = match self.config {
            Some(path) => {
                let file = ConfigFile { path, overrides };
                let mut settings = file
                    .load()
                    .map_err(|error| Failure::Usage(format!("configuration {}: {}", file.path.display(), with_causes(&error))))?;
                if !self.kube_proxy.given().is_empty() {
                    let ignored = self.kube_proxy.given().join(", ");
                    settings.warnings.push(format!("ignored beside --config, as by kube-proxy: {ignored}"));
                }
                (Some(file), settings)
            }
            None => (None, from_flags(self.kube_proxy, &overrides)?),
        };
        if self.klog.vmodule.is_some() {
            settings.warnings.push("--vmodule: it names Go files and has no effect; --log takes directives".to_owned());
        }
        if self.klog.log_flush_frequency.is_some() {
            settings.warnings.push("--log-flush-frequency: it has no effect, every line is written at once".to_owned());
        }
        let task = match self.write_config_to {
            Some(path) => Task::WriteConfig(path),
            None if self.cleanup => Task::Cleanup,
            None if self.init_only => Task::InitOnly,
            None => Task::Serve(file.map(Box::new)),
        };
        Ok(Prepared { task, settings, log })
    }
}

impl Prepared {
    /// Opens the log and does it.
    fn run(self) -> Result<(), Failure> {
        let Self { task, settings, log } = self;
        let defaults = Some(settings.log);
        let filter = log.start(defaults).map_err(|failure| log.tell_unopened(defaults, failure))?;
        let outcome = match task {
            Task::Cleanup => cleanup::cleanup(&cleanup::Arguments::default()),
            Task::WriteConfig(path) => {
                let written = std::fs::write(&path, config::default_documents());
                written.with_context(|| format!("write {}", path.display())).map_err(Failure::No)
            }
            Task::InitOnly => {
                settings.tell(&mut BTreeSet::new());
                daemon::init_only(&settings.options).map_err(Failure::from)
            }
            Task::Serve(file) => daemon::run(settings, file.as_deref(), &filter).map_err(Failure::from),
        };
        outcome.map_err(|failure| log.tell(defaults, failure))
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        match error {
            error if error.is_usage() => Self::Usage(with_causes(&error)),
            error if error.is_unreachable() => Self::Unreachable(error.into()),
            error => Self::No(error.into()),
        }
    }
}

fn from_flags(flags: KubeProxyFlags, overrides: &Overrides) -> Result<Settings, Failure> {
    let configuration = Configuration { kube_proxy: flags.into_configuration(), sheave: SheaveConfiguration::default() };
    let mut settings = config::interpret(&configuration, overrides).map_err(|errors| {
        Failure::Usage(errors.iter().map(|error| flags::in_flags(&error.to_string())).collect::<Vec<_>>().join("\n"))
    })?;
    settings.warnings.iter_mut().for_each(|warning| *warning = flags::in_flags(warning));
    Ok(settings)
}

fn parse_source(text: &str) -> Result<SourceChoice, String> {
    match text.split_once('=') {
        None if text == "kube" => Ok(SourceChoice::Kube),
        Some(("manifests", path)) if !path.is_empty() => Ok(SourceChoice::Manifests(path.into())),
        _ => Err("expected `kube` or `manifests=PATH`, for example manifests=/etc/sheave/manifests".to_owned()),
    }
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    let patience = super::duration(text)?;
    if patience.is_zero() { Err("expected more than none".to_owned()) } else { Ok(patience) }
}

fn node_name(given: Option<String>) -> Result<Option<String>, Failure> {
    match given {
        Some(name) if config::node_name(&name).is_none() => {
            let found = if name.trim().is_empty() { "is empty".to_owned() } else { format!("{name:?} is no Node's name") };
            Err(Failure::Usage(format!("--node-name: {found}; expected {}", config::EXPECTED_NODE_NAME)))
        }
        given => Ok(given),
    }
}

fn host_name() -> Result<String, Failure> {
    let name = nix::unistd::gethostname().context("reading the host name; give --node-name").map_err(Failure::No)?;
    Ok(name.to_string_lossy().into_owned())
}
