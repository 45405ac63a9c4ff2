//! kube-proxy's flags. They are another spelling of a KubeProxyConfiguration, and without effect beside `--config`.

use clap::{ArgMatches, Args, FromArgMatches, parser::ValueSource};

use crate::config::{Configuration, GoDuration, KubeProxyConfiguration};

/// The flags, and which of them were given.
#[derive(Debug)]
pub(super) struct KubeProxyFlags {
    values: Values,
    given: Vec<String>,
}

#[derive(Debug, Args)]
#[group(skip)]
struct Values {
    /// Credentials and address of the API server
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", help_heading = "API server")]
    kubeconfig: Option<String>,

    /// CIDRs of the cluster's pods, both families: how traffic from pods is told from any other
    #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Node")]
    cluster_cidr: Vec<String>,

    /// How traffic from pods is told from any other: ClusterCIDR (without --cluster-cidr, none counts as coming from pods),
    /// NodeCIDR (the Node's own spec.podCIDRs), BridgeInterface, InterfaceNamePrefix [default: ClusterCIDR]
    #[arg(long, value_name = "MODE", help_heading = "Node")]
    detect_local_mode: Option<String>,

    /// Bridge of the pods, for BridgeInterface
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pod_bridge_interface: Option<String>,

    /// Beginning of the names of the pods' interfaces, for InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX", help_heading = "Node")]
    pod_interface_name_prefix: Option<String>,

    /// Where NodePorts are served: `primary` (the node's IP), or CIDRs that this node's addresses are picked by [default: primary,
    /// or every local address with --proxy-mode iptables or ipvs]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', help_heading = "Node")]
    nodeport_addresses: Vec<String>,

    /// Masquerade all traffic to ClusterIPs, from pods too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Node")]
    masquerade_all: Option<bool>,

    /// Kubernetes feature gates; AllowServiceExternalIPs is the one that matters here
    #[arg(long, value_name = "GATE=BOOL", value_delimiter = ',', value_parser = gate, help_heading = "Node")]
    feature_gates: Vec<(String, bool)>,

    /// Takes the place of the Node's IP, if it is an address in particular; binds nothing
    #[arg(long, value_name = "IP", help_heading = "Node")]
    bind_address: Option<String>,

    /// Where /healthz and /livez are served; empty: nowhere [default: port 10256 of every address]
    #[arg(long, value_name = "IP:PORT", help_heading = "Node")]
    healthz_bind_address: Option<String>,

    /// Where /metrics is served [default: port 10249 of the loopback address]
    #[arg(long, value_name = "IP:PORT", help_heading = "Node")]
    metrics_bind_address: Option<String>,

    /// End if one of these ports is taken
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Node")]
    bind_address_hard_fail: Option<bool>,

    /// kube-proxy's mode, all of which the nftables plane serves; it decides what an empty --nodeport-addresses means
    #[arg(long, value_name = "MODE", hide_short_help = true, help_heading = "From kube-proxy")]
    proxy_mode: Option<String>,

    #[arg(long, value_name = "PORT", hide = true)]
    healthz_port: Option<u16>,
    #[arg(long, value_name = "PORT", hide = true)]
    metrics_port: Option<u16>,

    /// Connections to be tracked, for each CPU; 0 leaves the kernel's value
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_max_per_core: Option<i32>,
    /// Connections to be tracked at least
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_min: Option<i32>,
    /// How long an idle established TCP connection is remembered; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = GoDuration::parse, hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_tcp_timeout_established: Option<GoDuration>,
    /// How long one in CLOSE_WAIT is remembered; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = GoDuration::parse, hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Track TCP segments outside of the window
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_tcp_be_liberal: Option<bool>,
    /// How long an unanswered UDP flow is remembered; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = GoDuration::parse, hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_udp_timeout: Option<GoDuration>,
    /// How long an answered UDP flow is remembered; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = GoDuration::parse, hide_short_help = true, help_heading = "From kube-proxy")]
    conntrack_udp_timeout_stream: Option<GoDuration>,
    /// How late the kernel kills this process when memory runs out
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true, hide_short_help = true, help_heading = "From kube-proxy")]
    oom_score_adj: Option<i32>,
    /// Least time between two commits [default: none]
    #[arg(long, value_name = "DURATION", value_parser = GoDuration::parse, hide_short_help = true, help_heading = "From kube-proxy")]
    iptables_min_sync_period: Option<GoDuration>,
    /// Serve NodePorts at 127.0.0.1 too, with --proxy-mode iptables
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_short_help = true, help_heading = "From kube-proxy")]
    iptables_localhost_nodeports: Option<bool>,

    // Taken and without effect, as `sheave config check` says of their fields.
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    iptables_sync_period: Option<GoDuration>,
    #[arg(long, allow_hyphen_values = true, hide = true)]
    iptables_masquerade_bit: Option<i32>,
    #[arg(long, hide = true)]
    ipvs_scheduler: Option<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    ipvs_strict_arp: Option<bool>,
    #[arg(long, value_delimiter = ',', hide = true)]
    ipvs_exclude_cidrs: Vec<String>,
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    ipvs_tcp_timeout: Option<GoDuration>,
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    ipvs_tcpfin_timeout: Option<GoDuration>,
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    ipvs_udp_timeout: Option<GoDuration>,
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    ipvs_sync_period: Option<GoDuration>,
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    ipvs_min_sync_period: Option<GoDuration>,
    #[arg(long, value_parser = GoDuration::parse, hide = true)]
    config_sync_period: Option<GoDuration>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    profiling: Option<bool>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<f32>,
    #[arg(long, allow_hyphen_values = true, hide = true)]
    kube_api_burst: Option<i32>,
    #[arg(long, hide = true)]
    proxy_port_range: Option<String>,
    #[arg(long, hide = true)]
    show_hidden_metrics_for_version: Option<String>,
}

/// Where each flag that can be wrong, or of no use, stands in a configuration.
const SPELLINGS: &[(&str, &str)] = &[
    ("mode", "--proxy-mode"),
    ("bindAddress", "--bind-address"),
    ("healthzBindAddress", "--healthz-bind-address"),
    ("metricsBindAddress", "--metrics-bind-address"),
    ("clusterCIDR", "--cluster-cidr"),
    ("detectLocalMode", "--detect-local-mode"),
    ("detectLocal.bridgeInterface", "--pod-bridge-interface"),
    ("detectLocal.interfaceNamePrefix", "--pod-interface-name-prefix"),
    ("nodePortAddresses", "--nodeport-addresses"),
    ("conntrack.maxPerCore", "--conntrack-max-per-core"),
    ("conntrack.min", "--conntrack-min"),
    ("conntrack.tcpEstablishedTimeout", "--conntrack-tcp-timeout-established"),
    ("conntrack.tcpCloseWaitTimeout", "--conntrack-tcp-timeout-close-wait"),
    ("conntrack.udpTimeout", "--conntrack-udp-timeout"),
    ("conntrack.udpStreamTimeout", "--conntrack-udp-timeout-stream"),
    ("oomScoreAdj", "--oom-score-adj"),
    ("iptables.minSyncPeriod", "--iptables-min-sync-period"),
    ("iptables.syncPeriod", "--iptables-sync-period"),
    ("nftables.minSyncPeriod", "--iptables-min-sync-period"),
    ("nftables.syncPeriod", "--iptables-sync-period"),
    ("iptables.masqueradeBit", "--iptables-masquerade-bit"),
    ("ipvs.scheduler", "--ipvs-scheduler"),
    ("ipvs.strictARP", "--ipvs-strict-arp"),
    ("ipvs.excludeCIDRs", "--ipvs-exclude-cidrs"),
    ("ipvs.tcpTimeout", "--ipvs-tcp-timeout"),
    ("ipvs.tcpFinTimeout", "--ipvs-tcpfin-timeout"),
    ("ipvs.udpTimeout", "--ipvs-udp-timeout"),
    ("ipvs.syncPeriod", "--ipvs-sync-period"),
    ("ipvs.minSyncPeriod", "--ipvs-min-sync-period"),
    ("configSyncPeriod", "--config-sync-period"),
    ("enableProfiling", "--profiling"),
    ("clientConnection.contentType", "--kube-api-content-type"),
    ("clientConnection.qps", "--kube-api-qps"),
    ("clientConnection.burst", "--kube-api-burst"),
    ("portRange", "--proxy-port-range"),
    ("showHiddenMetricsForVersion", "--show-hidden-metrics-for-version"),
];

/// A mistake or a warning as the person who typed the flags knows it: fields have the flags' names.
pub(super) fn in_flags(text: &str) -> String {
    let Some((field, rest)) = text.split_once(": ") else { return text.to_owned() };
    let path = field.strip_prefix("KubeProxyConfiguration.").unwrap_or(field);
    let plain = path.split_once('[').map_or(path, |(field, _)| field);
    let Some((_, flag)) = SPELLINGS.iter().find(|(path, _)| *path == plain) else { return text.to_owned() };
    let of_fields = |rest: String, (path, flag): &(&str, &str)| rest.replace(&format!("KubeProxyConfiguration.{path}"), flag);
    format!("{flag}: {}", SPELLINGS.iter().fold(rest.to_owned(), of_fields))
}

fn gate(text: &str) -> Result<(String, bool), String> {
    text.split_once('=')
        .and_then(|(name, value)| Some((name.to_owned(), value.to_lowercase().parse().ok()?)))
        .ok_or_else(|| "expected NAME=true or NAME=false".to_owned())
}

impl KubeProxyFlags {
    /// The names of those given on the command line.
    pub(super) fn given(&self) -> &[String] {
        &self.given
    }

    /// The configuration that they spell. Without `--proxy-mode` its mode is nftables: this is no iptables proxy.
    pub(super) fn into_configuration(self) -> KubeProxyConfiguration {
        let flags = self.values;
        let mut to = Configuration::native();
        put(&mut to.mode, flags.proxy_mode);
        put(&mut to.client_connection.kubeconfig, flags.kubeconfig);
        put(&mut to.client_connection.content_type, flags.kube_api_content_type);
        put(&mut to.client_connection.qps, flags.kube_api_qps);
        put(&mut to.client_connection.burst, flags.kube_api_burst);
        to.cluster_cidr = flags.cluster_cidr.join(",");
        put(&mut to.detect_local_mode, flags.detect_local_mode);
        put(&mut to.detect_local.bridge_interface, flags.pod_bridge_interface);
        put(&mut to.detect_local.interface_name_prefix, flags.pod_interface_name_prefix);
        to.node_port_addresses = flags.nodeport_addresses;
        put(&mut to.nftables.masquerade_all, flags.masquerade_all);
        put(&mut to.iptables.masquerade_all, flags.masquerade_all);
        to.feature_gates = flags.feature_gates.into_iter().collect();
        put(&mut to.bind_address, flags.bind_address);
        put(&mut to.bind_address_hard_fail, flags.bind_address_hard_fail);
        to.conntrack.max_per_core = flags.conntrack_max_per_core;
        to.conntrack.min = flags.conntrack_min;
        to.conntrack.tcp_established_timeout = flags.conntrack_tcp_timeout_established;
        to.conntrack.tcp_close_wait_timeout = flags.conntrack_tcp_timeout_close_wait;
        put(&mut to.conntrack.tcp_be_liberal, flags.conntrack_tcp_be_liberal);
        put(&mut to.conntrack.udp_timeout, flags.conntrack_udp_timeout);
        put(&mut to.conntrack.udp_stream_timeout, flags.conntrack_udp_timeout_stream);
        to.oom_score_adj = flags.oom_score_adj;
        // kube-proxy has no flags for the nftables section, and lets iptables' count for it.
        for (sync, min) in [
            (&mut to.iptables.sync_period, &mut to.iptables.min_sync_period),
            (&mut to.nftables.sync_period, &mut to.nftables.min_sync_period),
        ] {
            put(sync, flags.iptables_sync_period);
            put(min, flags.iptables_min_sync_period);
        }
        to.iptables.localhost_node_ports = flags.iptables_localhost_nodeports;
        to.iptables.masquerade_bit = flags.iptables_masquerade_bit;
        put(&mut to.ipvs.scheduler, flags.ipvs_scheduler);
        put(&mut to.ipvs.strict_arp, flags.ipvs_strict_arp);
        to.ipvs.exclude_cidrs = flags.ipvs_exclude_cidrs;
        put(&mut to.ipvs.tcp_timeout, flags.ipvs_tcp_timeout);
        put(&mut to.ipvs.tcp_fin_timeout, flags.ipvs_tcpfin_timeout);
        put(&mut to.ipvs.udp_timeout, flags.ipvs_udp_timeout);
        put(&mut to.ipvs.sync_period, flags.ipvs_sync_period);
        put(&mut to.ipvs.min_sync_period, flags.ipvs_min_sync_period);
        put(&mut to.config_sync_period, flags.config_sync_period);
        put(&mut to.enable_profiling, flags.profiling);
        put(&mut to.port_range, flags.proxy_port_range);
        put(&mut to.show_hidden_metrics_for_version, flags.show_hidden_metrics_for_version);
        let healthz = flags.healthz_bind_address.or(flags.healthz_port.map(|port| with_port(port, "0.0.0.0")));
        put(&mut to.healthz_bind_address, healthz.clone());
        let metrics = flags.metrics_bind_address.or(flags.metrics_port.map(|port| with_port(port, "127.0.0.1")));
        put(&mut to.metrics_bind_address, metrics.clone());
        to.set_defaults();
        // Only a flag can be empty and mean it.
        for (field, flag) in [(&mut to.healthz_bind_address, healthz), (&mut to.metrics_bind_address, metrics)] {
            if flag.as_deref() == Some("") {
                field.clear();
            }
        }
        to
    }
}

/// `--healthz-port`, `--metrics-port`: 0 is off.
fn with_port(port: u16, host: &str) -> String {
    if port == 0 { String::new() } else { format!("{host}:{port}") }
}

fn put<T>(to: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *to = value;
    }
}

impl FromArgMatches for KubeProxyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = Values::from_arg_matches(matches)?;
        let known = Values::augment_args(clap::Command::new("flags"));
        let typed = |arg: &&clap::Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let given = known.get_arguments().filter(typed).filter_map(|arg| arg.get_long().map(|name| format!("--{name}")));
        Ok(Self { values, given: given.collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for KubeProxyFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        Values::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Values::augment_args_for_update(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_speak_of_flags_throughout() {
        let text = "KubeProxyConfiguration.metricsBindAddress: Invalid value: \"127.0.0.1:7\": must not be that of \
                    KubeProxyConfiguration.healthzBindAddress, 127.0.0.1:7: each server has its own";
        let expected = "--metrics-bind-address: Invalid value: \"127.0.0.1:7\": must not be that of --healthz-bind-address, \
                        127.0.0.1:7: each server has its own";
        assert_eq!(in_flags(text), expected);
        assert_eq!(in_flags("KubeProxyConfiguration.winkernel.enableDSR: x"), "KubeProxyConfiguration.winkernel.enableDSR: x");
    }
}
