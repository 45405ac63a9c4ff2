//! From what is known of this node to what policy and planes are told about it. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Announcing, DetectLocal, NodePortSelection, Options};
use crate::model::load_balancer::{AddressRange, Home};
use crate::model::{Family, Node, ObjectKey, ServiceCidr};
use crate::policy::Context;
use crate::table::{Detector, LOCALHOST, NodePortAddresses, NodeState};

/// What the outside says about this node; changes while we run.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFacts {
    /// Addresses of its interfaces.
    pub(super) local: BTreeSet<IpAddr>,
    /// Addresses of the API server.
    pub(super) api_servers: BTreeSet<IpAddr>,
    /// As it was found at the start.
    pub(super) ipv6_off: bool,
}

/// Node-level inputs of the planes.
pub(super) fn node_state<'a>(
    options: &Options,
    node: Option<&Node>,
    cidrs: impl Iterator<Item = &'a ServiceCidr>,
    facts: &NodeFacts,
) -> NodeState {
    let node_ports = |family| node_ports(&options.node_ports, family, node_ip(options, node, family), &facts.local);
    let mut node_ports_v4 = node_ports(Family::V4);
    if options.localhost_node_ports {
        node_ports_v4.addresses.insert(LOCALHOST);
    }
    let echo = |family| echo(node_ip(options, node, family), family, &facts.local);
    NodeState {
        detector: detector(&options.detect_local, node),
        masquerade_all: options.masquerade_all,
        node_ports_v4,
        node_ports_v6: node_ports(Family::V6),
        service_cidrs: cidrs.flat_map(|object| object.cidrs.iter().copied()).collect(),
        echo_v4: echo(Family::V4),
        echo_v6: echo(Family::V6),
    }
}

/// Inputs of policy.
pub(super) fn context<'a>(
    options: &Options,
    node: Option<&Node>,
    pools: impl Iterator<Item = (&'a ObjectKey, &'a [AddressRange])>,
    facts: &NodeFacts,
) -> Context {
    Context {
        node_name: options.node_name.clone(),
        zone: node.and_then(|node| node.zone.clone()),
        node_ips: Family::ALL.iter().filter_map(|family| node_ip(options, node, *family)).collect(),
        external_ips_denied: options.external_ips_denied,
        pools: in_force(&options.announcing, &pools.collect::<Vec<_>>()),
        api_servers: facts.api_servers.clone(),
        ipv6_off: facts.ipv6_off,
    }
}

/// What is in the pools of the namespace that counts, in an order of its own: the same pools must make the same context.
fn in_force(announcing: &Announcing, pools: &[(&ObjectKey, &[AddressRange])]) -> Vec<AddressRange> {
    let home = announcing.metallb_namespace.clone().map_or(Home::Detected, Home::Given);
    let Ok(home) = home.namespace(pools.iter().map(|(key, _)| *key)) else { return Vec::new() };
    let of_home = pools.iter().filter(|(key, _)| key.namespace() == &*home);
    let mut ranges: Vec<_> = of_home.flat_map(|(_, ranges)| ranges.iter().copied()).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// The Node's, unless `bindAddress` is some address in particular (kube-proxy 6.6).
fn node_ip(options: &Options, node: Option<&Node>, family: Family) -> Option<IpAddr> {
    options.node_ip.filter(|ip| Family::of(*ip) == family).or_else(|| node?.ip(family))
}

fn detector(options: &DetectLocal, node: Option<&Node>) -> Detector {
    let cidrs = |cidrs: &[IpNet]| match cidrs {
        [] => Detector::Off,
        some => Detector::Cidrs(some.iter().copied().collect()),
    };
    match options {
        DetectLocal::ClusterCidr(given) => cidrs(given),
        // Until the Node is known there is nothing to tell pods by; its first event brings the rules along.
        DetectLocal::NodeCidr => node.map_or(Detector::Off, |node| cidrs(&node.pod_cidrs)),
        DetectLocal::BridgeInterface(name) => Detector::Interface(name.clone()),
        DetectLocal::InterfaceNamePrefix(prefix) => Detector::InterfacePrefix(prefix.clone()),
    }
}

fn node_ports(
    selection: &NodePortSelection,
    family: Family,
    node_ip: Option<IpAddr>,
    local: &BTreeSet<IpAddr>,
) -> NodePortAddresses {
    let ranges: Vec<IpNet> = match selection {
        NodePortSelection::Primary => node_ip.map(IpNet::from).into_iter().collect(),
        NodePortSelection::Cidrs(cidrs) => cidrs.iter().copied().filter(|cidr| Family::of(cidr.addr()) == family).collect(),
    };
    // A /0 says "anywhere", and so does nothing at all for this family.
    let match_all = ranges.is_empty() || ranges.iter().any(|cidr| cidr.prefix_len() == 0);
    let served = |ip: &&IpAddr| {
        Family::of(**ip) == family
            && !ip.is_loopback()
            && !is_link_local(**ip)
            && (match_all || ranges.iter().any(|cidr| cidr.contains(*ip)))
    };
    NodePortAddresses { match_all, addresses: local.iter().filter(served).copied().collect() }
}

/// The address at which echo requests to VIPs are answered: the node's own, or any other that the kernel has and that means the same
/// everywhere. Routing chooses the way of the reply by it.
fn echo(node_ip: Option<IpAddr>, family: Family, local: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let global = |ip: &IpAddr| {
        let link_local = matches!(ip, IpAddr::V4(v4) if v4.is_link_local()) || is_link_local(*ip);
        Family::of(*ip) == family && !ip.is_loopback() && !link_local
    };
    node_ip.filter(|ip| local.contains(ip)).or_else(|| local.iter().copied().find(global))
}

/// An address that needs an interface to mean anything is never a NodePort address: no packet could be answered by it alone.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::model::samples;

    fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn node(addresses: &[&str]) -> Node {
        samples::node("n", ips(addresses))
    }

    #[test]
    fn primary_is_the_node_ip_and_leaves_a_family_without_one_open() {
        let local = ips(&["127.0.0.1", "192.168.0.2", "192.168.1.2", "fd00::2", "fe80::1", "::1"]);
        let node = node(&["192.168.0.2"]);
        let v4 = node_ports(&NodePortSelection::Primary, Family::V4, node.ip(Family::V4), &local);
        assert_eq!(v4, NodePortAddresses { match_all: false, addresses: ips(&["192.168.0.2"]) });
        let v6 = node_ports(&NodePortSelection::Primary, Family::V6, node.ip(Family::V6), &local);
        assert_eq!(v6, NodePortAddresses { match_all: true, addresses: ips(&["fd00::2"]) });
    }

    #[test]
    fn a_bind_address_in_particular_is_the_node_ip_of_its_family_and_localhost_is_added() {
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nbindAddress: 192.168.1.2\n";
        let configuration = config::Configuration::of(&config::parse(text).unwrap());
        let overrides = config::Overrides { host_name: "n".to_owned(), ..Default::default() };
        let options = config::interpret(&configuration, &overrides).unwrap().options;
        let facts = NodeFacts { local: ips(&["192.168.0.2", "192.168.1.2"]), ..NodeFacts::default() };
        let known = node(&["192.168.0.2", "fd00::2"]);
        assert_eq!(
            context(&options, Some(&known), std::iter::empty(), &facts).node_ips,
            ["192.168.1.2", "fd00::2"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        let all = node_state(&options, Some(&known), std::iter::empty(), &facts);
        assert_eq!(all.node_ports_v4.addresses, ips(&["127.0.0.1", "192.168.0.2", "192.168.1.2"]), "an empty mode is iptables'");
        let primary = Options { node_ports: NodePortSelection::Primary, localhost_node_ports: false, ..options };
        let state = node_state(&primary, Some(&known), std::iter::empty(), &facts);
        assert_eq!(state.node_ports_v4, NodePortAddresses { match_all: false, addresses: ips(&["192.168.1.2"]) });
    }

    #[test]
    fn cidrs_of_one_family_leave_the_other_open() {
        let local = ips(&["192.168.0.2", "192.168.1.2", "fd00::2"]);
        let selection = NodePortSelection::Cidrs(vec!["192.168.1.0/24".parse().unwrap()]);
        assert_eq!(node_ports(&selection, Family::V4, None, &local).addresses, ips(&["192.168.1.2"]));
        assert!(node_ports(&selection, Family::V6, None, &local).match_all);
    }

    #[test]
    fn echo_requests_are_answered_at_the_nodes_own_address_or_at_one_that_means_the_same_everywhere() {
        let local = ips(&["127.0.0.1", "169.254.20.10", "192.168.0.2", "192.168.1.2", "::1", "fd00::2", "fe80::1"]);
        let at = |node_ip: Option<&str>, family| {
            let ip = echo(node_ip.map(|ip| ip.parse().unwrap()), family, &local);
            ip.map(|ip| ip.to_string())
        };
        assert_eq!(at(Some("192.168.1.2"), Family::V4).as_deref(), Some("192.168.1.2"));
        assert_eq!(at(Some("203.0.113.7"), Family::V4).as_deref(), Some("192.168.0.2"), "a cloud's address, on no interface");
        assert_eq!(at(None, Family::V4).as_deref(), Some("192.168.0.2"));
        assert_eq!(at(None, Family::V6).as_deref(), Some("fd00::2"));
        assert_eq!(echo(None, Family::V6, &ips(&["::1", "fe80::1", "192.168.0.2"])), None);
    }

    #[test]
    fn pools_of_the_namespace_that_counts_are_in_force_in_one_order() {
        let range = |first: &str, last: &str| AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap();
        let (a, b) = (range("192.0.2.1", "192.0.2.9"), range("198.51.100.0", "198.51.100.255"));
        let (here, there) = (ObjectKey::new("metallb-system", "p"), ObjectKey::new("team", "q"));
        let detected = Announcing::default();
        assert_eq!(in_force(&detected, &[(&here, &[b, a]), (&there, &[range("192.0.2.100", "192.0.2.200")])]), [a, b]);
        assert_eq!(in_force(&detected, &[(&there, &[b])]), [b], "the only namespace that has pools");
        let several: [(&ObjectKey, &[AddressRange]); 2] = [(&there, &[b]), (&ObjectKey::new("other", "p"), &[a])];
        assert_eq!(in_force(&detected, &several), [], "which of them is not said");
        let given = Announcing { metallb_namespace: Some("other".into()), ..Announcing::default() };
        assert_eq!(in_force(&given, &several), [a]);
        assert_eq!(in_force(&detected, &[]), []);
    }

    #[test]
    fn a_node_ip_on_no_interface_serves_nothing() {
        let v4 = node_ports(&NodePortSelection::Primary, Family::V4, Some("203.0.113.7".parse().unwrap()), &ips(&["10.0.0.1"]));
        assert_eq!(v4, NodePortAddresses::default());
    }
}
