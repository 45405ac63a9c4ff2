//! Configurations to test with.

use super::catalogue::{self, Change, Effect, Entry};
use super::{kube_proxy, sheave};

/// A KubeProxyConfiguration with these fields.
pub(crate) fn document(fields: &str) -> String {
    of_kind(kube_proxy::API_VERSION, kube_proxy::KIND, fields)
}

fn of_kind(version: &str, kind: &str, fields: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\n{fields}\n")
}

/// Every field that has an effect, with a file and the same after a change of that field alone.
pub(crate) fn changes() -> impl Iterator<Item = (&'static Entry, String, String)> {
    let theirs = catalogue::KUBE_PROXY.iter().filter(|entry| entry.effect != Effect::None);
    // One plane so far: every word for it means the same.
    let ours = catalogue::SHEAVE.iter().filter(|entry| entry.change != Change::None);
    let pair = |version, kind| {
        move |entry: &'static Entry| {
            let (context, value) = other(entry.path);
            let field = field(entry.path, value);
            (entry, of_kind(version, kind, context), of_kind(version, kind, &format!("{context}\n{field}")))
        }
    };
    theirs.map(pair(kube_proxy::API_VERSION, kube_proxy::KIND)).chain(ours.map(pair(sheave::API_VERSION, sheave::KIND)))
}

/// A field of a section or of the document itself.
pub(super) fn field(path: &str, value: &str) -> String {
    match path.split_once('.') {
        Some((section, field)) => format!("{section}: {{{field}: {value}}}"),
        None => format!("{path}: {value}"),
    }
}

/// Fields that a value makes sense beside (one of the same name is said twice then: the last one counts), and a value that is not the default.
fn other(path: &str) -> (&'static str, &'static str) {
    match path {
        "bindAddress" => ("", "10.0.0.1"),
        "bindAddressHardFail" | "conntrack.tcpBeLiberal" => ("", "true"),
        "clientConnection.kubeconfig" => ("", "/k"),
        "clusterCIDR" => ("", "10.0.0.0/8"),
        "conntrack.maxPerCore" | "conntrack.min" | "oomScoreAdj" => ("", "7"),
        "conntrack.tcpCloseWaitTimeout"
        | "conntrack.tcpEstablishedTimeout"
        | "conntrack.udpStreamTimeout"
        | "conntrack.udpTimeout" => ("", "7s"),
        "detectLocal.bridgeInterface" => ("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni1}", "cni0"),
        "detectLocal.interfaceNamePrefix" => {
            ("detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: cali}", "veth")
        }
        "detectLocalMode" => ("", "NodeCIDR"),
        "featureGates" => ("", "{AllowServiceExternalIPs: false}"),
        "healthzBindAddress" | "metricsBindAddress" => ("", "10.0.0.1:7"),
        "hostnameOverride" => ("", "other"),
        "iptables.localhostNodePorts" => ("", "false"),
        "iptables.masqueradeAll" => ("", "true"),
        "iptables.minSyncPeriod" | "iptables.syncPeriod" => ("", "7s"),
        "ipvs.minSyncPeriod" | "ipvs.syncPeriod" => ("mode: ipvs", "7s"),
        "logging.format" => ("", "json"),
        "logging.verbosity" => ("", "7"),
        "mode" => ("", "nftables"),
        "nftables.masqueradeAll" => ("mode: nftables", "true"),
        "nftables.minSyncPeriod" | "nftables.syncPeriod" => ("mode: nftables", "7s"),
        "nodePortAddresses" => ("", "[10.0.0.0/8]"),
        "loadBalancer.class" => ("", "example.com/lb"),
        "loadBalancer.ignoreExcludeLabel" | "loadBalancer.moveFromCordoned" => ("", "true"),
        "loadBalancer.interfacesExcluded" => ("", "/e"),
        "loadBalancer.membershipPort" => ("", "7947"),
        "loadBalancer.metallbNamespace" => ("", "lb"),
        "loadBalancer.daemonRestartGrace" => ("", "7s"),
        "loadBalancer.periodicAnnouncement" => ("", "7s"),
        "manifests" => ("", "/m"),
        "apiServers" => ("", "['https://10.0.0.1:6443']"),
        other => panic!("{other} claims an effect: show it here"),
    }
}
