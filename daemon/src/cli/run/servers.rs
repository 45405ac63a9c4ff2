//! The flags of the servers that answer about the daemon itself, and what `/configz` tells.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde_json::{Value, json};

use super::{Arguments, DetectLocalMode};
use crate::config::Servers;

/// Where to answer about ourselves.
#[derive(Clone, Debug, Args)]
pub(super) struct ServerArguments {
    /// Where /healthz and /livez are answered; empty switches them off
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256", value_parser = healthz, help_heading = "Servers")]
    healthz_bind_address: BindAddress,

    /// Where /metrics, /proxyMode, /configz, /readyz and the log level are answered; empty switches them off
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10249", value_parser = metrics, help_heading = "Servers")]
    metrics_bind_address: BindAddress,

    /// End when one of the two cannot be had at the start, instead of trying again until it can
    #[arg(long, help_heading = "Servers")]
    bind_address_hard_fail: bool,
}

/// An address, or none at all: clap reads `Option` as a flag that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BindAddress(Option<SocketAddr>);

impl ServerArguments {
    pub(super) fn into_servers(self, configz: Value) -> Servers {
        Servers {
            healthz: self.healthz_bind_address.0,
            metrics: self.metrics_bind_address.0,
            bind_address_hard_fail: self.bind_address_hard_fail,
            configz,
            ..Servers::default()
        }
    }
}

impl Arguments {
    /// The configuration in force, in the words of kube-proxy's file.
    pub(super) fn configz(&self) -> Value {
        let detect_local_mode = match self.detect_local_mode {
            DetectLocalMode::ClusterCIDR => "ClusterCIDR",
            DetectLocalMode::NodeCIDR => "NodeCIDR",
            DetectLocalMode::BridgeInterface => "BridgeInterface",
            DetectLocalMode::InterfaceNamePrefix => "InterfaceNamePrefix",
        };
        let address = |address: BindAddress| address.0.map(|address| address.to_string()).unwrap_or_default();
        let cidrs: Vec<String> = self.cluster_cidr.iter().map(ToString::to_string).collect();
        json!({
            "kubeproxy.config.k8s.io": {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "nftables",
                "hostnameOverride": self.node_name.as_deref().unwrap_or_default(),
                "clientConnection": { "kubeconfig": self.kubeconfig.as_deref().map(|path| path.to_string_lossy()).unwrap_or_default() },
                "healthzBindAddress": address(self.servers.healthz_bind_address),
                "metricsBindAddress": address(self.servers.metrics_bind_address),
                "bindAddressHardFail": self.servers.bind_address_hard_fail,
                "clusterCIDR": cidrs.join(","),
                "detectLocalMode": detect_local_mode,
                "detectLocal": {
                    "bridgeInterface": self.pod_bridge_interface.as_deref().unwrap_or_default(),
                    "interfaceNamePrefix": self.pod_interface_name_prefix.as_deref().unwrap_or_default(),
                },
                "nodePortAddresses": self.nodeport_addresses,
                "nftables": { "masqueradeAll": self.masquerade_all },
            }
        })
    }
}

fn healthz(text: &str) -> Result<BindAddress, String> {
    bind_address(text, Servers::HEALTHZ.port())
}

fn metrics(text: &str) -> Result<BindAddress, String> {
    bind_address(text, Servers::METRICS.port())
}

/// `ADDRESS:PORT`, or an address alone, which gets the usual port as with kube-proxy.
fn bind_address(text: &str, usual_port: u16) -> Result<BindAddress, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(BindAddress(None));
    }
    let bare = || text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, usual_port));
    let address = text.parse::<SocketAddr>().or_else(|_| bare());
    address.map(|address| BindAddress(Some(address))).map_err(|_| {
        format!("expected an IP address with or without a port, such as 0.0.0.0:{usual_port} or [::]:{usual_port}, or nothing")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_a_port_or_none_at_all() {
        let read = |text| healthz(text).map(|address| address.0.map(|address| address.to_string()));
        assert_eq!(read("0.0.0.0:10256"), Ok(Some("0.0.0.0:10256".to_owned())));
        assert_eq!(read("192.168.0.2"), Ok(Some("192.168.0.2:10256".to_owned())));
        assert_eq!(read("::"), Ok(Some("[::]:10256".to_owned())));
        assert_eq!(read("[::1]:99"), Ok(Some("[::1]:99".to_owned())));
        assert_eq!(read(""), Ok(None));
        assert!(read("localhost:10256").is_err());
        assert!(read(":10256").is_err());
    }
}
