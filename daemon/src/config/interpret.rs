//! From a complete configuration to options: every field is looked at here, and what is wrong is told all at once.

mod addresses;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use self::addresses::serves_loopback;
use super::field_error::Mistakes;
use super::kube_proxy::{self, Conntrack, KubeProxyConfiguration};
use super::sheave::LoadBalancer;
use super::{
    Announcing, Configuration, ConntrackSettings, FieldError, GoDuration, KernelSettings, LogDefaults, LogFormat, NodeNameOrigin,
    Options, Overrides, Settings, SheaveConfiguration, SourceChoice, SourceOptions, present, sheave, traps,
};
use crate::source::decode::address;
use crate::source::kube::{KubeOptions, Timing, parse_url};

/// `mode` of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// `iptables`, or nothing.
    Iptables,
    Ipvs,
    Nftables,
}

/// A least time between commits that nobody need have chosen: kube-proxy takes `0s` for its default, 1 s.
const USUAL_MIN_SYNC: Duration = Duration::from_secs(1);

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const POSITIVE: &str = "must be greater than 0";
const NOT_A_CIDR: &str = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)";

/// Turns a configuration into options.
///
/// # Errors
/// All that is wrong with it.
pub fn interpret(configuration: &Configuration, overrides: &Overrides) -> Result<Settings, Vec<FieldError>> {
    let node_name_origin = node_name_origin(configuration, overrides);
    let configuration = &configuration.clone().under(overrides);
    let mut reader = Interpreter { kube_proxy: &configuration.kube_proxy, mistakes: Mistakes::default() };
    let mode = reader.mode();
    let log = reader.log();
    reader.sections(mode);
    let (cluster_cidrs, detect_local) = reader.detect_local(overrides);
    let node_ports = reader.node_ports(mode);
    let given = &configuration.kube_proxy.hostname_override;
    // The host's own name nobody has chosen: where there is no API server it need not be the name of anything.
    if node_name_origin != NodeNameOrigin::HostName && super::node_name(given).is_none() {
        reader.mistakes.invalid(at("hostnameOverride"), given.as_str(), format!("must be {}", super::EXPECTED_NODE_NAME));
    }
    let node_name: Arc<str> = given.as_str().into();
    let options = Options {
        source: reader.source(&configuration.sheave, overrides, &node_name),
        node_name,
        node_name_origin,
        localhost_node_ports: mode == Mode::Iptables
            && configuration.kube_proxy.iptables.localhost_node_ports != Some(false)
            && serves_loopback(&node_ports),
        node_ports,
        detect_local,
        cluster_cidrs,
        masquerade_all: match mode {
            Mode::Iptables | Mode::Ipvs => configuration.kube_proxy.iptables.masquerade_all,
            Mode::Nftables => configuration.kube_proxy.nftables.masquerade_all,
        },
        node_ip: reader.node_ip(),
        external_ips_denied: configuration.kube_proxy.feature_gates.get(traps::EXTERNAL_IPS) == Some(&false),
        adopt: overrides.adopt,
        announces: !overrides.no_announcing,
        min_sync_period: min_sync_period(&configuration.kube_proxy, mode),
        kernel: reader.kernel(),
        servers: reader.servers(overrides.admin_socket.clone()),
        stale_after: stale_after(&configuration.kube_proxy, mode),
        controller: overrides.controller.clone(),
        announcing: reader.announcing(&configuration.sheave.load_balancer, overrides),
    };
    if !reader.mistakes.found.is_empty() {
        return Err(reader.mistakes.found);
    }
    Ok(Settings {
        remarks: traps::remarks(configuration, mode),
        warnings: traps::warnings(configuration, overrides, mode, &options.cluster_cidrs),
        configz: present::configz(configuration),
        options,
        log,
    })
}

struct Interpreter<'a> {
    kube_proxy: &'a KubeProxyConfiguration,
    mistakes: Mistakes,
}

impl Interpreter<'_> {
    fn mode(&mut self) -> Mode {
        match self.kube_proxy.mode.as_str() {
            "" | "iptables" => Mode::Iptables,
            "ipvs" => Mode::Ipvs,
            "nftables" => Mode::Nftables,
            other => {
                self.mistakes.not_supported(at("mode"), other, &["iptables", "ipvs", "nftables"]);
                Mode::Nftables
            }
        }
    }

    fn log(&mut self) -> LogDefaults {
        let logging = &self.kube_proxy.logging;
        let format = LogFormat::of(&logging.format).unwrap_or_else(|| {
            self.mistakes.not_supported(at("logging.format"), &logging.format, &["json", "text"]);
            LogFormat::Text
        });
        LogDefaults { format, verbosity: logging.verbosity }
    }

    /// The sections of the modes: like kube-proxy, iptables' always, the others' in their mode.
    fn sections(&mut self, mode: Mode) {
        let KubeProxyConfiguration { iptables, ipvs, nftables, client_connection, .. } = self.kube_proxy;
        self.masquerade_bit("iptables.masqueradeBit", iptables.masquerade_bit);
        self.periods("iptables", iptables.sync_period, iptables.min_sync_period);
        if mode == Mode::Nftables {
            self.masquerade_bit("nftables.masqueradeBit", nftables.masquerade_bit);
            self.periods("nftables", nftables.sync_period, nftables.min_sync_period);
        }
        if mode == Mode::Ipvs {
            self.periods("ipvs", ipvs.sync_period, ipvs.min_sync_period);
            self.not_negative("ipvs.tcpTimeout", ipvs.tcp_timeout);
            self.not_negative("ipvs.tcpFinTimeout", ipvs.tcp_fin_timeout);
            self.not_negative("ipvs.udpTimeout", ipvs.udp_timeout);
            for (place, cidr) in ipvs.exclude_cidrs.iter().enumerate() {
                self.cidr(&format!("ipvs.excludeCIDRs[{place}]"), cidr);
            }
        }
        if self.kube_proxy.config_sync_period <= GoDuration::default() {
            self.duration("configSyncPeriod", self.kube_proxy.config_sync_period, POSITIVE);
        }
        if client_connection.burst < 0 {
            self.mistakes.invalid(at("clientConnection.burst"), client_connection.burst, "must be non-negative");
        }
    }

    fn periods(&mut self, section: &str, sync: GoDuration, min: GoDuration) {
        if sync <= GoDuration::default() {
            self.duration(&format!("{section}.syncPeriod"), sync, POSITIVE);
        }
        self.not_negative(&format!("{section}.minSyncPeriod"), min);
        if min > sync {
            self.duration(
                &format!("{section}.syncPeriod"),
                sync,
                &format!("must be greater than or equal to {}.{section}.minSyncPeriod", kube_proxy::KIND),
            );
        }
    }

    fn masquerade_bit(&mut self, field: &str, bit: Option<i32>) {
        if let Some(bit) = bit.filter(|bit| !(0..=31).contains(bit)) {
            self.mistakes.invalid(at(field), bit, "must be within the range [0, 31]");
        }
    }

    fn kernel(&mut self) -> KernelSettings {
        let Conntrack { max_per_core, min, tcp_be_liberal, .. } = self.kube_proxy.conntrack;
        let oom_score_adj = self.kube_proxy.oom_score_adj.unwrap_or_default();
        if !(-1000..=1000).contains(&oom_score_adj) {
            self.mistakes.invalid(at("oomScoreAdj"), oom_score_adj, "must be within the range [-1000, 1000]");
        }
        let Conntrack { tcp_established_timeout, tcp_close_wait_timeout, udp_timeout, udp_stream_timeout, .. } =
            self.kube_proxy.conntrack;
        let conntrack = ConntrackSettings {
            max_per_core: self.count("conntrack.maxPerCore", max_per_core),
            min: self.count("conntrack.min", min),
            tcp_established: self.timeout("conntrack.tcpEstablishedTimeout", tcp_established_timeout),
            tcp_close_wait: self.timeout("conntrack.tcpCloseWaitTimeout", tcp_close_wait_timeout),
            udp: self.timeout("conntrack.udpTimeout", Some(udp_timeout)),
            udp_stream: self.timeout("conntrack.udpStreamTimeout", Some(udp_stream_timeout)),
            tcp_be_liberal,
        };
        KernelSettings { oom_score_adj, conntrack }
    }

    fn source(&mut self, sheave: &SheaveConfiguration, overrides: &Overrides, node_name: &Arc<str>) -> SourceOptions {
        let SheaveConfiguration { api_servers, manifests, plane, load_balancer: _ } = sheave;
        // Those of the command line are judged where they are used.
        let of_file = if overrides.api_servers.is_empty() { api_servers.as_slice() } else { &[] };
        for (place, url) in of_file.iter().enumerate().filter(|(_, url)| parse_url(url).is_err()) {
            let field = format!("{}.apiServers[{place}]", sheave::KIND);
            self.mistakes.invalid(field, url.as_str(), "must be a URL such as https://10.0.0.1:6443");
        }
        // One plane so far: all words mean it.
        if !matches!(plane.as_str(), "" | "auto" | "nftables") {
            self.mistakes.not_supported(format!("{}.plane", sheave::KIND), plane, &["auto", "nftables"]);
        }
        match (&overrides.source, manifests.as_str()) {
            (Some(SourceChoice::Manifests(path)), _) => SourceOptions::Manifests(path.clone()),
            (None, path) if !path.is_empty() => SourceOptions::Manifests(path.into()),
            (Some(SourceChoice::Kube) | None, _) => {
                let kubeconfig = &self.kube_proxy.client_connection.kubeconfig;
                SourceOptions::Kube(Box::new(KubeOptions {
                    kubeconfig: (!kubeconfig.is_empty()).then(|| kubeconfig.into()),
                    api_servers: api_servers.clone(),
                    node_name: node_name.clone(),
                    timing: overrides
                        .streaming_list
                        .map_or_else(Timing::default, |streaming_list| Timing { streaming_list, ..Timing::default() }),
                    ..KubeOptions::default()
                }))
            }
        }
    }

    fn announcing(&mut self, load_balancer: &LoadBalancer, overrides: &Overrides) -> Announcing {
        let LoadBalancer {
            interfaces_excluded,
            periodic_announcement,
            class,
            metallb_namespace,
            membership_port,
            daemon_restart_grace,
            ignore_exclude_label,
            move_from_cordoned,
        } = load_balancer;
        let at = |name: &str| format!("{}.loadBalancer.{name}", sheave::KIND);
        for (name, value) in [("periodicAnnouncement", periodic_announcement), ("daemonRestartGrace", daemon_restart_grace)] {
            if value.is_negative() {
                self.mistakes.invalid(at(name), value.to_string(), NOT_NEGATIVE);
            }
        }
        if !metallb_namespace.is_empty() && super::node_name(metallb_namespace).as_ref() != Some(metallb_namespace) {
            self.mistakes.invalid(at("metallbNamespace"), metallb_namespace.as_str(), "must be the name of a namespace");
        }
        let usual = Announcing::default();
        let given = |duration: &GoDuration| (!duration.is_zero()).then(|| duration.to_std());
        Announcing {
            class: overrides.class.clone().or_else(|| (!class.is_empty()).then(|| class.into())),
            metallb_namespace: overrides
                .metallb_namespace
                .clone()
                .or_else(|| (!metallb_namespace.is_empty()).then(|| metallb_namespace.as_str().into())),
            namespace: overrides.namespace.clone().unwrap_or(usual.namespace),
            interfaces_excluded: (!interfaces_excluded.is_empty()).then(|| interfaces_excluded.into()),
            period: given(periodic_announcement),
            port: if *membership_port == 0 { usual.port } else { *membership_port },
            daemon_restart_grace: given(daemon_restart_grace).unwrap_or(usual.daemon_restart_grace),
            ignore_exclude_label: *ignore_exclude_label,
            move_from_cordoned: *move_from_cordoned,
        }
    }

    fn cidr(&mut self, field: &str, text: &str) -> Option<IpNet> {
        let cidr = address::cidr(text);
        if cidr.is_none() {
            self.mistakes.invalid(at(field), text, NOT_A_CIDR);
        }
        cidr
    }

    fn count(&mut self, field: &str, value: Option<i32>) -> u32 {
        let value = value.unwrap_or_default();
        u32::try_from(value).unwrap_or_else(|_| {
            self.mistakes.invalid(at(field), value, NOT_NEGATIVE);
            0
        })
    }

    fn timeout(&mut self, field: &str, value: Option<GoDuration>) -> Duration {
        let value = value.unwrap_or_default();
        self.not_negative(field, value);
        value.to_std()
    }

    fn not_negative(&mut self, field: &str, value: GoDuration) {
        if value.is_negative() {
            self.duration(field, value, NOT_NEGATIVE);
        }
    }

    fn duration(&mut self, field: &str, value: GoDuration, detail: &str) {
        self.mistakes.invalid(at(field), value.to_string(), detail);
    }
}

fn at(field: &str) -> String {
    format!("{}.{field}", kube_proxy::KIND)
}

fn node_name_origin(file: &Configuration, overrides: &Overrides) -> NodeNameOrigin {
    let said = |name: &str| !name.trim().is_empty();
    if overrides.node_name.as_deref().is_some_and(said) {
        NodeNameOrigin::CommandLine
    } else if said(&file.kube_proxy.hostname_override) {
        NodeNameOrigin::File
    } else {
        NodeNameOrigin::HostName
    }
}

fn stale_after(kube_proxy: &KubeProxyConfiguration, mode: Mode) -> Duration {
    let period = match mode {
        Mode::Iptables => kube_proxy.iptables.sync_period,
        Mode::Ipvs => kube_proxy.ipvs.sync_period,
        Mode::Nftables => kube_proxy.nftables.sync_period,
    };
    period.to_std().saturating_mul(2)
}

/// Only a period that somebody chose delays commits. kube-proxy's default is there to spare it work that costs us next to nothing.
fn min_sync_period(kube_proxy: &KubeProxyConfiguration, mode: Mode) -> Duration {
    let period = match mode {
        Mode::Iptables => kube_proxy.iptables.min_sync_period,
        Mode::Ipvs => kube_proxy.ipvs.min_sync_period,
        Mode::Nftables => kube_proxy.nftables.min_sync_period,
    }
    .to_std();
    if period == USUAL_MIN_SYNC { Duration::ZERO } else { period }
}
