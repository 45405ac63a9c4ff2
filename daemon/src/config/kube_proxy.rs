//! `KubeProxyConfiguration`, kubeproxy.config.k8s.io/v1alpha1: every field of Kubernetes 1.36, and its defaults
//! (pkg/proxy/apis/config/v1alpha1/defaults.go). What each means here: [`super::catalogue`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::KernelSettings;
use super::duration::GoDuration;

/// The group and version of the document.
pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// The kind of the document.
pub(super) const KIND: &str = "KubeProxyConfiguration";

/// The document. A field is an `Option` where Kubernetes tells "not set" from zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the catalogue says what each field means, to users as well")]
pub struct KubeProxyConfiguration {
    pub bind_address: String,
    pub bind_address_hard_fail: bool,
    pub client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    pub config_sync_period: GoDuration,
    pub conntrack: Conntrack,
    pub detect_local: DetectLocalFields,
    pub detect_local_mode: String,
    pub enable_profiling: bool,
    pub feature_gates: BTreeMap<String, bool>,
    pub healthz_bind_address: String,
    pub hostname_override: String,
    pub iptables: Iptables,
    pub ipvs: Ipvs,
    pub logging: Logging,
    pub metrics_bind_address: String,
    pub mode: String,
    pub nftables: Nftables,
    pub node_port_addresses: Vec<String>,
    pub oom_score_adj: Option<i32>,
    pub port_range: String,
    pub show_hidden_metrics_for_version: String,
    pub windows_run_as_service: bool,
    pub winkernel: Winkernel,
}

/// `clientConnection`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    pub accept_content_types: String,
    pub burst: i32,
    pub content_type: String,
    pub kubeconfig: String,
    pub qps: f32,
}

/// `conntrack`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Conntrack {
    pub max_per_core: Option<i32>,
    pub min: Option<i32>,
    pub tcp_be_liberal: bool,
    pub tcp_close_wait_timeout: Option<GoDuration>,
    pub tcp_established_timeout: Option<GoDuration>,
    pub udp_stream_timeout: GoDuration,
    pub udp_timeout: GoDuration,
}

/// `detectLocal`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocalFields {
    pub bridge_interface: String,
    pub interface_name_prefix: String,
}

/// `iptables`: of mode `iptables` and `""`; ipvs mode takes its masquerading from here as well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Iptables {
    pub localhost_node_ports: Option<bool>,
    pub masquerade_all: bool,
    pub masquerade_bit: Option<i32>,
    pub min_sync_period: GoDuration,
    pub sync_period: GoDuration,
}

/// `ipvs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipvs {
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Vec<String>,
    pub min_sync_period: GoDuration,
    pub scheduler: String,
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    pub sync_period: GoDuration,
    pub tcp_fin_timeout: GoDuration,
    pub tcp_timeout: GoDuration,
    pub udp_timeout: GoDuration,
}

/// `nftables`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Nftables {
    pub masquerade_all: bool,
    pub masquerade_bit: Option<i32>,
    pub min_sync_period: GoDuration,
    pub sync_period: GoDuration,
}

/// `logging`, of k8s.io/component-base.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logging {
    pub flush_frequency: NanosOrDuration,
    pub format: String,
    pub options: LoggingOptions,
    pub verbosity: u32,
    pub vmodule: Vec<ModuleVerbosity>,
}

/// `logging.options`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggingOptions {
    pub json: OutputOptions,
    pub text: OutputOptions,
}

/// `logging.options.json`, `logging.options.text`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputOptions {
    pub info_buffer_size: Quantity,
    pub split_stream: bool,
}

/// One entry of `logging.vmodule`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModuleVerbosity {
    pub file_pattern: String,
    pub verbosity: u32,
}

/// `logging.flushFrequency`: a duration, or nanoseconds as a number, as kubeadm writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NanosOrDuration {
    Nanos(i64),
    Duration(GoDuration),
}

/// A resource.Quantity: `"0"`, `64Ki`, or a bare number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    Number(i64),
    Text(String),
}

/// `winkernel`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Winkernel {
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    pub forward_health_check_vip: bool,
    pub network_name: String,
    pub root_hns_endpoint_name: String,
    pub source_vip: String,
}

impl Default for NanosOrDuration {
    fn default() -> Self {
        Self::Nanos(0)
    }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::Text("0".to_owned())
    }
}

impl KubeProxyConfiguration {
    /// What is in force where nothing is said.
    #[must_use]
    pub fn defaults() -> Self {
        let mut configuration = Self::default();
        configuration.set_defaults();
        configuration
    }

    /// Fills in what is not set. Zero, an empty string and `0s` count as not set, but in the fields that are `Option`s here.
    pub fn set_defaults(&mut self) {
        fill(&mut self.bind_address, "0.0.0.0");
        // The family of bindAddress decides that of both servers (getDefaultAddresses in v1alpha1/defaults.go).
        let v6 = self.bind_address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
        let (any, loopback) = if v6 { ("[::]", "[::1]") } else { ("0.0.0.0", "127.0.0.1") };
        address(&mut self.healthz_bind_address, any, 10256);
        address(&mut self.metrics_bind_address, loopback, 10249);
        fill(&mut self.client_connection.content_type, "application/vnd.kubernetes.protobuf");
        if self.client_connection.qps == 0.0 {
            self.client_connection.qps = 5.0;
        }
        if self.client_connection.burst == 0 {
            self.client_connection.burst = 10;
        }
        period(&mut self.config_sync_period, 15 * 60);
        self.conntrack.max_per_core.get_or_insert(32 * 1024);
        self.conntrack.min.get_or_insert(128 * 1024);
        self.conntrack.tcp_established_timeout.get_or_insert(GoDuration::from_secs(24 * 3600));
        self.conntrack.tcp_close_wait_timeout.get_or_insert(GoDuration::from_secs(3600));
        fill(&mut self.detect_local_mode, "ClusterCIDR");
        self.iptables.localhost_node_ports.get_or_insert(true);
        self.iptables.masquerade_bit.get_or_insert(14);
        period(&mut self.iptables.sync_period, 30);
        period(&mut self.iptables.min_sync_period, 1);
        period(&mut self.ipvs.sync_period, 30);
        self.nftables.masquerade_bit.get_or_insert(14);
        period(&mut self.nftables.sync_period, 30);
        period(&mut self.nftables.min_sync_period, 1);
        fill(&mut self.logging.format, "text");
        if self.logging.flush_frequency == NanosOrDuration::default() {
            self.logging.flush_frequency = NanosOrDuration::Duration(GoDuration::from_secs(5));
        }
        self.oom_score_adj.get_or_insert(KernelSettings::USUAL_OOM_SCORE);
    }
}

fn fill(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

fn period(field: &mut GoDuration, seconds: i64) {
    if field.is_zero() {
        *field = GoDuration::from_secs(seconds);
    }
}

/// Of an address with an optional port: `10.0.0.1`, `::1`, `[::1]:10249`.
fn address(field: &mut String, host: &str, port: u16) {
    if field.is_empty() {
        *field = format!("{host}:{port}");
    } else if let Ok(ip) = field.trim_matches(['[', ']']).parse::<IpAddr>() {
        *field = std::net::SocketAddr::new(ip, port).to_string();
    }
}
