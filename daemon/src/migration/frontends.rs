//! What packets are addressed to, as far as somebody's rules in the kernel have a backend for it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::iptables::{Chains, Fate, Rule};
use super::{MigrationError, State};
use crate::dataplane::nftables;
use crate::model::Family;
use crate::netlink::condition::Condition;
use crate::netlink::nft::{DoorError, ForeignRule, ForeignTable, KernelNft, TableFamily};

/// An address of a Service's, or a port of the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    /// A ClusterIP, an externalIP or a VIP.
    Address {
        /// The address.
        ip: IpAddr,
        /// `IPPROTO_*`.
        protocol: u8,
        /// The port.
        port: u16,
    },
    /// A NodePort.
    NodePort {
        /// Of which of the node's addresses.
        family: Family,
        /// `IPPROTO_*`.
        protocol: u8,
        /// The port.
        port: u16,
    },
}

/// kube-proxy's verdict maps, of addresses and of NodePorts: frontends that have an endpoint somewhere.
const SERVICE_MAPS: [&str; 2] = ["service-ips", "service-nodeports"];
/// How nft names the map of one rule: `__map%d`.
const ANONYMOUS: &str = "__map";
/// Our sets of frontends by the size of their backend set, in whichever pool.
const CLASS: &str = "class-";

/// Frontends that our rules in the kernel have backends for: whoever wrote them may be gone. Without a table of ours there are none.
///
/// # Errors
/// See [`MigrationError`].
pub fn of_sheave(door: &mut KernelNft) -> Result<BTreeSet<Frontend>, MigrationError> {
    let table = ForeignTable::new(TableFamily::INET, nftables::TABLE);
    let mut found = BTreeSet::new();
    for set in door.set_names_in(&table)?.into_iter().filter(|name| name.contains(CLASS)) {
        // `class-64-4`, `node-local-class-8-6.b`
        let family = if set.split('.').next().is_some_and(|base| base.ends_with("-6")) { Family::V6 } else { Family::V4 };
        found.extend(door.keys_in(&table, &set)?.iter().filter_map(|key| Frontend::parse(family, key)));
    }
    Ok(found)
}

/// Frontends that a table of kube-proxy's nftables mode leads to an endpoint.
pub(super) fn of_table(door: &mut KernelNft, table: &ForeignTable) -> Result<BTreeSet<Frontend>, MigrationError> {
    let family = if table.family == TableFamily::IPV6 { Family::V6 } else { Family::V4 };
    let mut rules = Vec::new();
    for rule in door.rules_in(table)? {
        rules.extend(draws(door, table, &rule)?);
        rules.push(Rule::from(&rule));
    }
    let chains = Chains::of(&rules);
    let mut found = BTreeSet::new();
    for map in SERVICE_MAPS {
        let elements = door.elements_in(table, map)?;
        let served = elements.iter().filter(|element| {
            let chain = element.verdict.as_ref().and_then(|verdict| verdict.chain.as_deref());
            chain.is_some_and(|chain| chains.translates(chain))
        });
        found.extend(served.filter_map(|element| Frontend::parse(family, &element.key)));
    }
    Ok(found)
}

/// The chains among which a rule draws by a map of its own, as rules that lead there: `numgen random mod 2 vmap { 0 : goto endpoint-a, 1 :
/// goto endpoint-b }` (`writeServiceToEndpointRules` of pkg/proxy/nftables/proxier.go). Maps with a name are kube-proxy's of frontends.
fn draws(door: &mut KernelNft, table: &ForeignTable, rule: &ForeignRule) -> Result<Vec<Rule>, DoorError> {
    let Some(map) = rule.verdict_map().filter(|map| map.starts_with(ANONYMOUS)) else { return Ok(Vec::new()) };
    let chains = door.elements_in(table, map)?.into_iter().filter_map(|element| element.verdict?.chain);
    Ok(chains.map(|chain| Rule::new(&rule.chain, Some(&chain), Fate::Other, &[Condition::Other])).collect())
}

impl State {
    /// Frontends that kube-proxy's rules have an endpoint for, in whichever mode.
    #[must_use]
    pub fn frontends(&self) -> BTreeSet<Frontend> {
        let mut found: BTreeSet<Frontend> = self.tables.iter().flat_map(|table| &table.frontends).copied().collect();
        for iptables in &self.iptables {
            let addresses = iptables.share.frontends.iter();
            found.extend(addresses.map(|&(ip, protocol, port)| Frontend::Address { ip, protocol, port }));
            let family = iptables.family;
            let ports = iptables.share.node_ports.iter();
            found.extend(ports.map(|&(protocol, port)| Frontend::NodePort { family, protocol, port }));
        }
        for server in &self.serving {
            let (ip, protocol, port) = (server.at.ip(), server.protocol, server.at.port());
            found.insert(Frontend::Address { ip, protocol, port });
            // IPVS has a virtual server for each of the node's addresses.
            found.insert(Frontend::NodePort { family: Family::of(ip), protocol, port });
        }
        found
    }
}

impl Frontend {
    /// From a key of `[address .] protocol . port`, every field padded to four bytes.
    fn parse(family: Family, key: &[u8]) -> Option<Self> {
        let ends = |at: usize| {
            let port = key.get(at + 4..at + 6)?.try_into().ok().map(u16::from_be_bytes)?;
            Some((*key.get(at)?, port))
        };
        match key.len() {
            8 => ends(0).map(|(protocol, port)| Self::NodePort { family, protocol, port }),
            12 | 24 => {
                let length = key.len() - 8;
                let ip = super::address(&key[..length])?;
                ends(length).map(|(protocol, port)| Self::Address { ip, protocol, port })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match *self {
            Self::Address { ip, protocol, port } => {
                write!(f, "{}", SocketAddr::new(ip, port))?;
                protocol
            }
            Self::NodePort { family, protocol, port } => {
                write!(f, "NodePort {port} of IPv{}", if family == Family::V6 { 6 } else { 4 })?;
                protocol
            }
        };
        match i32::from(protocol) {
            libc::IPPROTO_TCP => f.write_str("/TCP"),
            libc::IPPROTO_UDP => f.write_str("/UDP"),
            libc::IPPROTO_SCTP => f.write_str("/SCTP"),
            other => write!(f, "/{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::TABLE;
    use super::*;
    use crate::netlink::testns::in_namespace;

    #[test]
    fn keys_are_addresses_and_node_ports() {
        let parse = |family, key: &[u8]| Frontend::parse(family, key).map(|frontend| frontend.to_string());
        assert_eq!(parse(Family::V6, &[6, 0, 0, 0, 0x75, 0x80, 0, 0]).as_deref(), Some("NodePort 30080 of IPv6/TCP"));
        assert_eq!(parse(Family::V4, &[10, 96, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0]).as_deref(), Some("10.96.0.1:53/UDP"));
        let v6 = [&[0xfd; 16][..], &[132, 0, 0, 0, 0, 80, 0, 0]].concat();
        assert!(parse(Family::V6, &v6).unwrap().ends_with("]:80/SCTP"));
        assert_eq!(parse(Family::V4, &[1, 2, 3]), None);
    }

    /// A table with every ClusterIP and verdict, and not one endpoint; then with each of the ways in which kube-proxy leads to one.
    #[test]
    fn a_frontend_without_an_endpoint_is_not_served() {
        in_namespace(|| {
            let nft = |script: &str| Command::new("nft").arg(script).status().is_ok_and(|status| status.success());
            let table = ForeignTable::new(TableFamily::IPV4, TABLE);
            assert!(nft("table ip kube-proxy {
                set cluster-ips { type ipv4_addr; elements = { 10.96.0.1 }; }
                chain service-a { }
                chain external-a { goto service-a; }
                chain endpoint-a { }
                map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.1 . tcp . 443 : goto service-a }; }
                map service-nodeports { type inet_proto . inet_service : verdict; elements = { tcp . 30080 : goto external-a }; }
            }"));
            let mut door = KernelNft::open().unwrap();
            let mut served = || of_table(&mut door, &table).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
            let both = ["10.96.0.1:443/TCP", "NodePort 30080 of IPv4/TCP"];
            assert!(served().is_empty());
            assert!(nft(
                "add rule ip kube-proxy service-a meta l4proto tcp dnat to numgen random mod 1 map { 0 : 10.0.0.1 . 443 }"
            ));
            assert_eq!(served(), both, "a map of endpoints");
            assert!(nft("flush chain ip kube-proxy service-a"));
            assert!(nft("add rule ip kube-proxy service-a numgen random mod 1 vmap { 0 : goto endpoint-a }"));
            assert!(served().is_empty(), "a chain that does not translate");
            assert!(nft("add rule ip kube-proxy endpoint-a meta l4proto tcp dnat to 10.0.0.1:443"));
            assert_eq!(served(), both, "a map of chains");
        });
    }
}
