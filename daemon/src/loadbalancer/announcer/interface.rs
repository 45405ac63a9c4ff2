//! Which interfaces may announce, and why the others may not.
//!
//! MetalLB's rules: not excluded by name, up, no member of a bond, bridge or VRF, and one that speaks ARP; for IPv4 one that can
//! broadcast, and it needs no address (a bare VLAN will do); for IPv6 one with a link-local address. Ours on top: it has a carrier, and
//! Ethernet addresses.

use std::net::{IpAddr, Ipv6Addr};

use compact_str::CompactString;

use super::exclusions::Exclusions;
use crate::model::Family;
use crate::netlink::links::{Link, Links};
use crate::netlink::mac::Mac;

/// Why an interface does not announce addresses of a family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// By name.
    #[error("excluded by {0:?}")]
    Excluded(CompactString),
    /// Not `IFF_UP`.
    #[error("down")]
    Down,
    /// No cable, no link partner, or a bond without one.
    #[error("no carrier")]
    NoCarrier,
    /// Its frames belong to a bond, a bridge or a VRF: the interface of this number.
    #[error("a member of interface {0}")]
    Member(u32),
    /// `IFF_NOARP`, or its addresses are no Ethernet's.
    #[error("no ARP or neighbour discovery on it")]
    NoArp,
    /// IPv4 needs broadcasts.
    #[error("no broadcast on it")]
    NoBroadcast,
    /// IPv6 is off there, or its address is a duplicate.
    #[error("no link-local address")]
    NoLinkLocal,
}

/// An interface that announces, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: CompactString,
    /// Its MAC.
    pub mac: Mac,
    /// Whether it announces IPv4.
    pub v4: bool,
    /// Whether it announces IPv6.
    pub v6: bool,
    /// The address that its advertisements come from. `None` while duplicate address detection has not ended: then they come from
    /// the VIP, because a tentative address must not send (RFC 4862, 5.4).
    pub link_local: Option<Ipv6Addr>,
    /// How often its carrier came or went. Who lost it for a moment may have been forgotten by the switch.
    pub carrier_changes: u32,
}

impl Interface {
    /// The interface, if it may announce any family.
    #[must_use]
    pub fn new(link: &Link, exclusions: &Exclusions) -> Option<Self> {
        let [v4, v6] = Family::ALL.map(|family| obstacle(link, exclusions, family).is_none());
        let link_local =
            link.addresses.iter().filter(|address| !address.tentative).find_map(|address| match address.net.addr() {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
                _ => None,
            });
        let (name, carrier_changes) = (link.name.clone(), link.carrier_changes);
        link.mac.filter(|_| v4 || v6).map(|mac| Self { index: link.index, name, mac, v4, v6, link_local, carrier_changes })
    }

    /// Whether it announces addresses of this family.
    #[must_use]
    pub fn announces(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Why this interface does not announce this family; `None` if it does.
#[must_use]
pub fn obstacle(link: &Link, exclusions: &Exclusions, family: Family) -> Option<Obstacle> {
    let link_local = || {
        link.addresses.iter().any(|address| match address.net.addr() {
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        })
    };
    if let Some(pattern) = exclusions.pattern(&link.name) {
        return Some(Obstacle::Excluded(pattern.into()));
    }
    match (family, link) {
        (_, Link { up: false, .. }) => Some(Obstacle::Down),
        (_, Link { master: Some(master), .. }) => Some(Obstacle::Member(*master)),
        (_, Link { arp: false, .. } | Link { mac: None, .. }) => Some(Obstacle::NoArp),
        (_, Link { carrier: false, .. }) => Some(Obstacle::NoCarrier),
        (Family::V4, Link { broadcast: false, .. }) => Some(Obstacle::NoBroadcast),
        (Family::V6, _) if !link_local() => Some(Obstacle::NoLinkLocal),
        _ => None,
    }
}

/// The interfaces that may announce this address and have it in one of their subnets: those from which a LAN can be expected to ask.
/// The election asks for it; announcing does not, for a bare VLAN has no subnet.
pub fn on_link<'a>(links: &'a Links, exclusions: &'a Exclusions, address: IpAddr) -> impl Iterator<Item = &'a Link> {
    let family = Family::of(address);
    links.iter().filter(move |link| {
        obstacle(link, exclusions, family).is_none() && link.addresses.iter().any(|own| own.net.contains(&address))
    })
}

/// The interface that has this address as its own. A VIP must be nobody's: the kernel would answer for it beside us.
#[must_use]
pub fn holder(links: &Links, address: IpAddr) -> Option<&Link> {
    links.iter().find(|link| link.addresses.iter().any(|own| own.net.addr() == address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::links::LinkAddress;

    fn link() -> Link {
        let address = |text: &str| LinkAddress { net: text.parse().unwrap(), tentative: false };
        Link {
            index: 2,
            name: "eth0".into(),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            up: true,
            carrier: true,
            broadcast: true,
            arp: true,
            addresses: vec![address("192.168.1.5/24"), address("fe80::1/64"), address("2001:db8::5/64")],
            ..Link::default()
        }
    }

    #[test]
    fn each_obstacle_is_named() {
        let both = |change: &dyn Fn(&mut Link)| {
            let mut link = link();
            change(&mut link);
            Family::ALL.map(|family| obstacle(&link, &Exclusions::default(), family))
        };
        let same = |obstacle: Obstacle| [Some(obstacle.clone()), Some(obstacle)];
        assert_eq!(both(&|_| {}), [None, None]);
        assert_eq!(both(&|link| link.name = "veth1".into()), same(Obstacle::Excluded("^veth.*".into())));
        assert_eq!(both(&|link| link.up = false), same(Obstacle::Down));
        assert_eq!(both(&|link| link.carrier = false), same(Obstacle::NoCarrier));
        assert_eq!(both(&|link| link.master = Some(7)), same(Obstacle::Member(7)));
        assert_eq!(both(&|link| link.arp = false), same(Obstacle::NoArp));
        assert_eq!(both(&|link| link.mac = None), same(Obstacle::NoArp));
        assert_eq!(both(&|link| link.broadcast = false), [Some(Obstacle::NoBroadcast), None]);
        assert_eq!(both(&|link| link.addresses.clear()), [None, Some(Obstacle::NoLinkLocal)], "a bare VLAN");
    }

    #[test]
    fn subnets_and_holders_are_facts_of_their_own() {
        let links: Links = [link()].into_iter().collect();
        let on_link = |address: &str| on_link(&links, &Exclusions::default(), address.parse().unwrap()).count();
        assert_eq!(["192.168.1.240", "192.168.2.240", "2001:db8::f0", "2001:db9::f0"].map(on_link), [1, 0, 1, 0]);
        let holder = |address: &str| holder(&links, address.parse().unwrap()).map(|link| link.name.as_str());
        assert_eq!([holder("192.168.1.5"), holder("192.168.1.240")], [Some("eth0"), None]);
    }

    #[test]
    fn a_tentative_address_sends_nothing() {
        let mut link = link();
        link.addresses[1].tentative = true;
        let interface = Interface::new(&link, &Exclusions::default()).unwrap();
        assert_eq!((interface.v6, interface.link_local), (true, None));
    }
}
