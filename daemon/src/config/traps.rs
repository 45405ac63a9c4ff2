//! What kube-proxy takes without a word: fields without effect, sections of another mode, half a family.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::catalogue::{self, Effect};
use super::interpret::Mode;
use super::kube_proxy::{self, KubeProxyConfiguration};
use super::present::non_defaults;
use super::{Configuration, Overrides, SheaveConfiguration, sheave};
use crate::model::Family;
use crate::source::decode::address;
use crate::table::LOCALHOST;

/// The one feature gate that means something here: `false` leaves externalIPs unserved (KEP-5707).
pub(super) const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

/// What is served otherwise than the file's words say, as it should be.
pub(super) fn remarks(configuration: &Configuration, mode: Mode) -> Vec<String> {
    let given = &configuration.kube_proxy.mode;
    match mode {
        Mode::Nftables => Vec::new(),
        Mode::Iptables => {
            vec![format!("mode {given:?} is served by the nftables plane, with the iptables section of the configuration")]
        }
        Mode::Ipvs => vec![format!(
            "mode {given:?} is served by the nftables plane: there are no virtual servers, schedulers or kube-ipvs0, and backends are drawn at random"
        )],
    }
}

/// What most likely does something else than was meant.
pub(super) fn warnings(configuration: &Configuration, overrides: &Overrides, mode: Mode, cluster_cidrs: &[IpNet]) -> Vec<String> {
    let kube_proxy = &configuration.kube_proxy;
    let mut found = Vec::new();
    without_effect(kube_proxy, mode, &mut found);
    gates(kube_proxy, &mut found);
    sections(kube_proxy, mode, &mut found);
    detection(kube_proxy, cluster_cidrs, &mut found);
    bind_families(kube_proxy, cluster_cidrs, &mut found);
    let node_ports: Vec<IpNet> = kube_proxy.node_port_addresses.iter().filter_map(|text| address::cidr(text)).collect();
    node_port_families(&node_ports, &mut found);
    loopback_node_ports(&node_ports, kube_proxy, mode, &mut found);
    let theirs = found.into_iter().map(|text| format!("{}.{text}", kube_proxy::KIND));
    theirs.chain(unused_servers(&configuration.sheave, overrides)).collect()
}

/// Whoever names servers and manifests may think that both are served.
fn unused_servers(sheave: &SheaveConfiguration, overrides: &Overrides) -> Option<String> {
    let SheaveConfiguration { api_servers, manifests, plane: _, load_balancer: _ } = sheave;
    let field = format!("{}.apiServers", sheave::KIND);
    let field = if overrides.api_servers.is_empty() { &*field } else { "--api-server" };
    (!api_servers.is_empty() && !manifests.is_empty())
        .then(|| format!("{field}: {} not used, objects come from the manifests at {manifests}", api_servers.join(", ")))
}

fn without_effect(kube_proxy: &KubeProxyConfiguration, mode: Mode, found: &mut Vec<String>) {
    for (path, value) in non_defaults(kube_proxy) {
        let Some(entry) = catalogue::find(catalogue::KUBE_PROXY, &path).filter(|entry| entry.effect == Effect::None) else {
            continue;
        };
        // kube-proxy does not read the section of ipvs in another mode either.
        if !path.starts_with("ipvs.") || mode == Mode::Ipvs {
            found.push(format!("{path}: {} has no effect: {}", shown(&value), entry.means));
        }
    }
}

fn gates(kube_proxy: &KubeProxyConfiguration, found: &mut Vec<String>) {
    for gate in kube_proxy.feature_gates.keys().filter(|gate| *gate != EXTERNAL_IPS) {
        found.push(format!("featureGates.{gate}: no such gate here, it has no effect"));
    }
}

/// Each mode has a section of its own: who changes the mode loses what stood in the other.
fn sections(kube_proxy: &KubeProxyConfiguration, mode: Mode, found: &mut Vec<String>) {
    let read = match mode {
        Mode::Iptables => "iptables",
        Mode::Ipvs => "ipvs",
        Mode::Nftables => "nftables",
    };
    for (path, value) in non_defaults(kube_proxy) {
        let Some((section, field)) = path.split_once('.') else { continue };
        let instead = match (mode, section, field) {
            // Masquerading of ipvs mode stands in the iptables section.
            (Mode::Ipvs, "iptables", "masqueradeAll") => continue,
            (Mode::Ipvs, "nftables", "masqueradeAll") => "iptables.masqueradeAll".to_owned(),
            (_, "iptables" | "nftables" | "ipvs", "masqueradeAll" | "minSyncPeriod") if section != read => {
                format!("{read}.{field}")
            }
            _ => continue,
        };
        found.push(format!("{path}: {} is not read in mode {:?}; {instead} is", shown(&value), kube_proxy.mode));
    }
}

fn detection(kube_proxy: &KubeProxyConfiguration, cluster_cidrs: &[IpNet], found: &mut Vec<String>) {
    let mode = kube_proxy.detect_local_mode.as_str();
    let unread = [
        ("clusterCIDR", "ClusterCIDR", &kube_proxy.cluster_cidr),
        ("detectLocal.bridgeInterface", "BridgeInterface", &kube_proxy.detect_local.bridge_interface),
        ("detectLocal.interfaceNamePrefix", "InterfaceNamePrefix", &kube_proxy.detect_local.interface_name_prefix),
    ];
    for (field, of, value) in unread.into_iter().filter(|(_, of, value)| *of != mode && !value.is_empty()) {
        let beside = if of == "ClusterCIDR" { ", and what others have to accept at forward in every mode" } else { "" };
        found.push(format!("{field}: {value:?} says what is local in detectLocalMode {of} only{beside}; it is {mode}"));
    }
    if mode == "ClusterCIDR" && cluster_cidrs.is_empty() {
        found.push(
            "clusterCIDR: empty, so no traffic counts as coming from pods: none to a ClusterIP is masqueraded, from outside neither".to_owned(),
        );
    }
}

/// An address of one family in a cluster of the other: nobody asks there. kube-proxy has a line in its log for it (`checkBadIPConfig` of
/// cmd/kube-proxy/app/server.go), which does not say that a server's address followed `bindAddress`.
fn bind_families(kube_proxy: &KubeProxyConfiguration, cluster_cidrs: &[IpNet], found: &mut Vec<String>) {
    let Some(family) = cluster_cidrs.first().map(|net| Family::of(net.addr())) else { return };
    if cluster_cidrs.iter().any(|net| Family::of(net.addr()) != family) {
        return;
    }
    let KubeProxyConfiguration { bind_address, healthz_bind_address, metrics_bind_address, .. } = kube_proxy;
    let server = |text: &str| text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bound = address::ip(bind_address);
    for (field, text, ip) in [
        ("bindAddress", bind_address, bound),
        ("healthzBindAddress", healthz_bind_address, server(healthz_bind_address)),
        ("metricsBindAddress", metrics_bind_address, server(metrics_bind_address)),
    ] {
        let Some(other) = ip.filter(|ip| !ip.is_unspecified()).map(Family::of).filter(|other| *other != family) else { continue };
        let follows = field != "bindAddress" && bound.is_some_and(|bound| Family::of(bound) == other);
        let why = if follows { format!("; by default it has the family of bindAddress, {bind_address}") } else { String::new() };
        found.push(format!("{field}: {text} is {other}, and clusterCIDR has {family} alone{why}"));
    }
}

fn node_port_families(cidrs: &[IpNet], found: &mut Vec<String>) {
    let has = |family| cidrs.iter().any(|net| Family::of(net.addr()) == family);
    for (has_it, not, all) in [(Family::V4, Family::V6, "::/0"), (Family::V6, Family::V4, "0.0.0.0/0")] {
        if has(has_it) && !has(not) {
            found.push(format!(
                "nodePortAddresses: no {not} CIDR, so NodePorts are served at every {not} address; write {all} if that is meant"
            ));
        }
    }
}

/// At loopback addresses kube-proxy serves NodePorts in mode iptables alone, in IPv4, and says of the others no more than a line in its
/// log. A family that has a CIDR is served at what is left of it, if anything is.
fn loopback_node_ports(cidrs: &[IpNet], kube_proxy: &KubeProxyConfiguration, mode: Mode, found: &mut Vec<String>) {
    let localhost = mode == Mode::Iptables && kube_proxy.iptables.localhost_node_ports != Some(false);
    let served = |net: &IpNet| !is_loopback(net) || (localhost && net.contains(&LOCALHOST));
    for family in Family::ALL {
        let (some, none): (Vec<&IpNet>, Vec<&IpNet>) =
            cidrs.iter().filter(|net| Family::of(net.addr()) == family).partition(|net| served(net));
        if none.is_empty() {
            continue;
        }
        let none = none.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let outcome = if some.is_empty() {
            format!("there is no other {family} CIDR, so no NodePort is served in {family}")
        } else {
            format!("the other {family} CIDRs alone count")
        };
        let why = match (mode, family) {
            (Mode::Iptables, Family::V4) if localhost => "of loopback addresses 127.0.0.1 alone serves NodePorts".to_owned(),
            (Mode::Iptables, Family::V4) => "loopback, and iptables.localhostNodePorts is false".to_owned(),
            (Mode::Iptables, Family::V6) => "loopback, where NodePorts are not served in IPv6".to_owned(),
            (Mode::Ipvs | Mode::Nftables, _) => format!("loopback, where NodePorts are not served in mode {:?}", kube_proxy.mode),
        };
        found.push(format!("nodePortAddresses: {none}: {why}; {outcome}"));
    }
}

/// It lies within 127.0.0.0/8, or is ::1.
fn is_loopback(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.addr().is_loopback() && net.prefix_len() >= 8,
        IpNet::V6(net) => net.addr().is_loopback() && net.prefix_len() == 128,
    }
}

/// A value as the file would have it.
fn shown(value: &Value) -> String {
    value.to_string()
}
