//! Where traffic comes from and where it is served: pods, NodePorts, the node's IP.

use std::net::IpAddr;

use compact_str::CompactString;
use ipnet::IpNet;

use super::{Interpreter, Mode, at};
use crate::config::field_error::FieldProblem;
use crate::config::{DetectLocal, NodePortSelection, Overrides};
use crate::model::Family;
use crate::source::decode::address;

impl Interpreter<'_> {
    /// The CIDRs, and the mode with its argument.
    pub(super) fn detect_local(&mut self, overrides: &Overrides) -> (Vec<IpNet>, DetectLocal) {
        let cidrs = self.cluster_cidrs(overrides);
        let detect_local = match self.kube_proxy.detect_local_mode.as_str() {
            "ClusterCIDR" => DetectLocal::ClusterCidr(cidrs.clone()),
            "NodeCIDR" => DetectLocal::NodeCidr,
            "BridgeInterface" => DetectLocal::BridgeInterface(
                self.interface("detectLocal.bridgeInterface", &self.kube_proxy.detect_local.bridge_interface),
            ),
            "InterfaceNamePrefix" => DetectLocal::InterfaceNamePrefix(
                self.interface("detectLocal.interfaceNamePrefix", &self.kube_proxy.detect_local.interface_name_prefix),
            ),
            other => {
                const MODES: &[&str] = &["BridgeInterface", "ClusterCIDR", "InterfaceNamePrefix", "NodeCIDR"];
                self.mistakes.not_supported(at("detectLocalMode"), other, MODES);
                DetectLocal::NodeCidr
            }
        };
        (cidrs, detect_local)
    }

    fn cluster_cidrs(&mut self, overrides: &Overrides) -> Vec<IpNet> {
        let given = &self.kube_proxy.cluster_cidr;
        if given.is_empty() {
            return Vec::new();
        }
        let cidrs: Vec<IpNet> = given.split(',').filter_map(|text| self.cidr("clusterCIDR", text.trim())).collect();
        let of = |family| cidrs.iter().filter(|net| Family::of(net.addr()) == family).count();
        if !overrides.several_cidrs && (of(Family::V4) > 1 || of(Family::V6) > 1) {
            let detail = "only one CIDR allowed or a valid DualStack CIDR (e.g. 10.100.0.0/16,fde4:8dba:82e1::/48)";
            self.mistakes.invalid(at("clusterCIDR"), given.as_str(), detail);
        }
        cidrs
    }

    /// An interface's name, or the beginning of one: one that no interface can have (`dev_valid_name` of net/core/dev.c) would match
    /// nothing, and every rule with a longer one would be refused.
    fn interface(&mut self, field: &str, name: &str) -> CompactString {
        if name.trim().is_empty() {
            self.mistakes.push(
                at(field),
                FieldProblem::Required(format!("detectLocalMode {} needs it", self.kube_proxy.detect_local_mode)),
            );
        } else if name.len() >= libc::IFNAMSIZ {
            self.mistakes.invalid(at(field), name, format!("must be shorter than {} bytes", libc::IFNAMSIZ));
        } else if name.contains(|char: char| matches!(char, '/' | ':') || char.is_whitespace()) {
            self.mistakes.invalid(at(field), name, "must be without '/', ':' and white space, as names of interfaces are");
        }
        name.into()
    }

    pub(super) fn node_ports(&mut self, mode: Mode) -> NodePortSelection {
        const FIELD: &str = "nodePortAddresses";
        let given = &self.kube_proxy.node_port_addresses;
        if given.iter().any(|text| text == "primary") {
            if given.len() > 1 {
                self.mistakes.invalid(at(FIELD), given.clone(), "\"primary\" must stand alone, it does not go with CIDRs");
            }
            return NodePortSelection::Primary;
        }
        if given.is_empty() && mode == Mode::Nftables {
            return NodePortSelection::Primary;
        }
        let cidrs = given.iter().enumerate().filter_map(|(place, text)| self.cidr(&format!("{FIELD}[{place}]"), text));
        NodePortSelection::Cidrs(cidrs.collect())
    }

    /// A bind address that is some address of the node in particular.
    pub(super) fn node_ip(&mut self) -> Option<IpAddr> {
        let ip = address::ip(&self.kube_proxy.bind_address);
        if ip.is_none() {
            let detail = "not a valid textual representation of an IP address";
            self.mistakes.invalid(at("bindAddress"), self.kube_proxy.bind_address.as_str(), detail);
        }
        ip.filter(|ip| !ip.is_unspecified())
    }
}

/// The loopback address is among those that NodePorts are asked for at, in IPv4.
pub(super) fn serves_loopback(selection: &NodePortSelection) -> bool {
    match selection {
        NodePortSelection::Primary => false,
        NodePortSelection::Cidrs(cidrs) => {
            let mut of_family = cidrs.iter().filter(|net| Family::of(net.addr()) == Family::V4).peekable();
            let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
            of_family.peek().is_none() || of_family.any(|net| net.contains(&loopback))
        }
    }
}
