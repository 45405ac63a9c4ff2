//! ClusterIPs and node ports: which are taken, and which is next.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;

/// The default `--service-node-port-range`.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// Node ports below this are left to those who name theirs (KEP-3668: 86 ports of the default range).
const FIRST_DYNAMIC_PORT: u16 = 30_086;

/// A node port belongs to a protocol: the same number may serve TCP and UDP.
type NodePort = (String, u16);

/// What all Services together hold.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    addresses: HashSet<IpAddr>,
    ports: HashSet<NodePort>,
    /// Where the search in a network goes on, so that a deleted address is not handed out again at once.
    next: HashMap<IpNet, u128>,
    next_port: u16,
}

/// What one Service holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<NodePort>,
}

impl Claim {
    /// Of a Service as stored.
    pub(super) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let addresses = list(&spec["clusterIPs"]).iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        let mut ports: Vec<NodePort> = list(&spec["ports"])
            .iter()
            .filter_map(|port| {
                let number = u16::try_from(port["nodePort"].as_u64()?).ok().filter(|number| *number > 0)?;
                Some((port["protocol"].as_str().unwrap_or("TCP").to_owned(), number))
            })
            .collect();
        // A health check node port is a TCP port on every node like any other.
        let health = spec["healthCheckNodePort"].as_u64().and_then(|number| u16::try_from(number).ok()).filter(|n| *n > 0);
        ports.extend(health.map(|number| ("TCP".to_owned(), number)));
        Self { addresses, ports }
    }
}

impl Allocator {
    pub(super) fn is_free(&self, address: IpAddr) -> bool {
        !self.addresses.contains(&address)
    }

    pub(super) fn is_free_port(&self, protocol: &str, port: u16) -> bool {
        !self.ports.contains(&(protocol.to_owned(), port))
    }

    pub(super) fn in_range(port: u16) -> bool {
        NODE_PORTS.contains(&port)
    }

    pub(super) fn take(&mut self, claim: Claim) {
        self.addresses.extend(claim.addresses);
        self.ports.extend(claim.ports);
    }

    pub(super) fn give_back(&mut self, claim: &Claim) {
        for address in &claim.addresses {
            self.addresses.remove(address);
        }
        for port in &claim.ports {
            self.ports.remove(port);
        }
    }

    /// A free address of a network, or `None` where it is full. Not taken yet.
    pub(super) fn next_address(&mut self, network: IpNet) -> Option<IpAddr> {
        let hosts = 32 + 96 * u32::from(network.addr().is_ipv6()) - u32::from(network.prefix_len());
        let size = 1_u128.checked_shl(hosts).unwrap_or(u128::MAX);
        // The network's own address and the broadcast address are not handed out, and the lower part is for those who name
        // theirs (KEP-3070: min(max(16, size/16), 256) addresses).
        let first = (size / 16).clamp(16, 256).min(size / 2) + 1;
        let last = if network.addr().is_ipv4() { size.saturating_sub(2) } else { size - 1 };
        let start = self.next.get(&network).copied().unwrap_or(first).clamp(first.min(last), last);
        let offset = (start..=last).chain(1..start).find(|offset| self.is_free(nth(network, *offset)))?;
        self.next.insert(network, offset + 1);
        Some(nth(network, offset))
    }

    /// A node port that is free for every protocol named, or `None` where there is none. Not taken yet.
    pub(super) fn next_port(&mut self, protocols: &[&str], besides: &[u16]) -> Option<u16> {
        let start = self.next_port.max(FIRST_DYNAMIC_PORT);
        let free = |port: &u16| !besides.contains(port) && protocols.iter().all(|protocol| self.is_free_port(protocol, *port));
        let port = (start..=*NODE_PORTS.end())
            .chain(FIRST_DYNAMIC_PORT..start)
            .chain(*NODE_PORTS.start()..FIRST_DYNAMIC_PORT)
            .find(free)?;
        self.next_port = port + 1;
        Some(port)
    }
}

/// The address at an offset in a network; `offset` is below the network's size.
fn nth(network: IpNet, offset: u128) -> IpAddr {
    match network.network() {
        IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits().wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX))).into(),
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().wrapping_add(offset)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_network_is_used_up_to_its_last_address_and_no_further() {
        let mut allocator = Allocator::default();
        let network: IpNet = "10.96.0.0/28".parse().unwrap();
        let mut given = Vec::new();
        while let Some(address) = allocator.next_address(network) {
            allocator.take(Claim { addresses: vec![address], ports: Vec::new() });
            given.push(address);
        }
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 14);
        assert!(given.iter().all(|address| network.contains(address)));
        allocator.give_back(&Claim { addresses: vec![given[3]], ports: Vec::new() });
        assert_eq!(allocator.next_address(network), Some(given[3]));
    }

    #[test]
    fn ports_are_per_protocol_and_the_range_ends() {
        let mut allocator = Allocator::default();
        let mut count = 0;
        while let Some(port) = allocator.next_port(&["TCP"], &[]) {
            allocator.take(Claim { addresses: Vec::new(), ports: vec![("TCP".to_owned(), port)] });
            count += 1;
        }
        assert_eq!(count, NODE_PORTS.len());
        assert!(allocator.next_port(&["UDP"], &[]).is_some());
        assert!(allocator.next_port(&["UDP", "TCP"], &[]).is_none());
    }
}
