//! The node's interfaces, as an election asks for them.

use std::net::IpAddr;

use crate::loadbalancer::announcer::exclusions::Exclusions;
use crate::loadbalancer::announcer::interface::{Obstacle, obstacle};
use crate::loadbalancer::membership::NetworkInterface;
use crate::model::Family;
use crate::netlink::links::{Link, Links};

/// Those that can announce, or could if they had a carrier.
pub(super) fn candidates(links: &Links, exclusions: &Exclusions) -> Vec<NetworkInterface> {
    links.iter().filter(|link| seen(link, exclusions)).map(seen_by_others).collect()
}

fn seen(link: &Link, exclusions: &Exclusions) -> bool {
    let mut obstacles = Family::ALL.into_iter().map(|family| obstacle(link, exclusions, family));
    obstacles.any(|obstacle| matches!(obstacle, None | Some(Obstacle::NoCarrier)))
}

fn seen_by_others(link: &Link) -> NetworkInterface {
    let everywhere = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let subnets = link.addresses.iter().map(|address| address.net).filter(|net| !everywhere(net.addr()));
    NetworkInterface {
        name: link.name.clone(),
        hardware: link.mac.map(|mac| mac.0),
        carrier: link.carrier,
        subnets: subnets.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::links::LinkAddress;
    use crate::netlink::mac::Mac;

    fn link(name: &str) -> Link {
        let address = |net: &str| LinkAddress { net: net.parse().unwrap(), tentative: false };
        Link {
            name: name.into(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            up: true,
            carrier: true,
            broadcast: true,
            arp: true,
            addresses: vec![address("192.168.0.1/24"), address("169.254.7.7/16"), address("fe80::1/64"), address("fd00::1/64")],
            ..Link::default()
        }
    }

    fn told(link: &Link) -> Option<NetworkInterface> {
        seen(link, &Exclusions::default()).then(|| seen_by_others(link))
    }

    #[test]
    fn one_without_a_carrier_is_told_and_one_that_cannot_announce_is_not() {
        let eth0 = told(&link("eth0")).expect("it can");
        let subnets = ["192.168.0.1/24", "fd00::1/64"].map(|net| net.parse().unwrap());
        assert_eq!((eth0.name.as_str(), eth0.carrier, eth0.subnets), ("eth0", true, subnets.to_vec()));
        assert_eq!(told(&Link { carrier: false, ..link("eth0") }).map(|interface| interface.carrier), Some(false));
        for unable in [link("veth1"), Link { up: false, ..link("eth0") }, Link { master: Some(3), ..link("eth0") }] {
            assert_eq!(told(&unable), None);
        }
        assert!(told(&Link { addresses: Vec::new(), ..link("vlan7") }).is_some(), "IPv4 needs no address there");
    }
}
