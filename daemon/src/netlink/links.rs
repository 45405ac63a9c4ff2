//! rtnetlink: the interfaces of this network namespace, what may be sent on them, and each change of them.
//!
//! Listed, then followed, without a gap: changes are subscribed to before the list is asked for, and applied after it. Each message
//! says all of what it is about, so one that is older than the list does no harm: the newer one follows. Changes that were lost
//! (`ENOBUFS`) are made up for by another list.
//!
//! Own messages in place of the rtnetlink crate's: a thread waits for these among packet sockets, and has to hear of what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use compact_str::CompactString;
use ipnet::IpNet;
use nix::errno::Errno;

use super::attr::{Fields, u32_at};
use super::mac::Mac;
use super::message::{Message, Messages, NLM_F_DUMP};
use super::route::RouteError;
use super::socket::{DATAGRAM, NetfilterSocket, RequestError, single};

/// Numbers of `include/uapi/linux/rtnetlink.h`, `if_link.h`, `if_addr.h` and `if.h`.
mod abi {
    pub(super) const NEWLINK: u16 = 16;
    pub(super) const DELLINK: u16 = 17;
    pub(super) const GETLINK: u16 = 18;
    pub(super) const NEWADDR: u16 = 20;
    pub(super) const DELADDR: u16 = 21;
    pub(super) const GETADDR: u16 = 22;
    /// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
    pub(super) const GROUPS: [i32; 3] = [1, 5, 9];
    /// Bytes of `struct ifinfomsg` and `struct ifaddrmsg`.
    pub(super) const LINK_HEADER: usize = 16;
    pub(super) const ADDRESS_HEADER: usize = 8;
    /// `IFLA_*`.
    pub(super) const MAC: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const PARENT: u16 = 5;
    pub(super) const MASTER: u16 = 10;
    pub(super) const WIRELESS: u16 = 11;
    pub(super) const OPERSTATE: u16 = 16;
    pub(super) const INFO: u16 = 18;
    pub(super) const CARRIER: u16 = 33;
    pub(super) const CARRIER_CHANGES: u16 = 35;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    /// `IFLA_VLAN_ID`
    pub(super) const VLAN_ID: u16 = 1;
    /// `IF_OPER_*`: states in which nothing is passed on, although there may be a carrier (802.1X, a bond that is not ready).
    pub(super) const NOT_READY: std::ops::RangeInclusive<u8> = 1..=5;
    /// `IFF_*`.
    pub(super) const UP: u32 = 1;
    pub(super) const BROADCAST: u32 = 1 << 1;
    pub(super) const NOARP: u32 = 1 << 7;
    /// `ARPHRD_ETHER`
    pub(super) const ETHERNET: u16 = 1;
    /// `IFA_*`.
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const LOCAL: u16 = 2;
    pub(super) const FLAGS: u16 = 8;
    /// `IFA_F_*`: a duplicate; not known yet to be none.
    pub(super) const DUPLICATE: u32 = 1 << 3;
    pub(super) const TENTATIVE: u32 = 1 << 6;
}

/// How often a list is begun anew when it was interrupted.
const LIST_ATTEMPTS: u32 = 5;
/// Some thousand changes may wait: a node that starts many pods.
const RECEIVE_BUFFER: usize = 1 << 20;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number. One that was deleted and made anew has another.
    pub index: u32,
    /// Its name.
    pub name: CompactString,
    /// What made it: `veth`, `bond`, `vlan`, `bridge`; empty for a card.
    pub kind: CompactString,
    /// Its MAC, if it has an Ethernet address.
    pub mac: Option<Mac>,
    /// `IFF_UP`: somebody wants it to be used.
    pub up: bool,
    /// It can be used: it has a carrier, and is in no state of waiting for something (`IFLA_OPERSTATE`).
    pub carrier: bool,
    /// How often the carrier came or went (`IFLA_CARRIER_CHANGES`): one that came back between two looks shows here.
    pub carrier_changes: u32,
    /// `IFF_BROADCAST`
    pub broadcast: bool,
    /// Not `IFF_NOARP`.
    pub arp: bool,
    /// The bond, bridge or VRF whose member it is.
    pub master: Option<u32>,
    /// The interface below, of a VLAN; of a veth, the other end, by its number in another namespace.
    pub parent: Option<u32>,
    /// Of a VLAN, its number.
    pub vlan: Option<u16>,
    /// Its addresses, in order. Duplicates are nobody's.
    pub addresses: Vec<LinkAddress>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress {
    /// The address, and the prefix of its subnet.
    pub net: IpNet,
    /// Duplicate address detection has not ended.
    pub tentative: bool,
}

/// All interfaces, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links(BTreeMap<u32, Link>);

/// The interfaces of the network namespace of the thread that opened it, followed.
#[derive(Debug)]
pub struct LinkMonitor {
    /// Subscribed to changes.
    events: NetfilterSocket,
    /// Lists are asked for here, so that no list has changes in it.
    lists: NetfilterSocket,
    datagram: Vec<u8>,
    links: Links,
}

impl Links {
    /// The interface of this number.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.0.get(&index)
    }

    /// The interface of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.iter().find(|link| link.name == name)
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.0.values()
    }

    /// Applies one message, and says which interface it was about, if it changed anything.
    fn apply(&mut self, message: &Message<'_>) -> Option<u32> {
        match message.kind {
            abi::NEWLINK => {
                let mut link = Link::parse(message)?;
                let known = self.0.entry(link.index).or_default();
                link.addresses = std::mem::take(&mut known.addresses);
                let index = link.index;
                let changed = *known != Link { addresses: Vec::new(), ..link.clone() };
                *known = link;
                changed.then_some(index)
            }
            abi::DELLINK => {
                let (index, _) = link_header(message)?;
                self.0.remove(&index).map(|link| link.index)
            }
            abi::NEWADDR | abi::DELADDR => {
                let (index, address, valid) = LinkAddress::parse(message)?;
                let addresses = &mut self.0.get_mut(&index)?.addresses;
                let before = addresses.clone();
                addresses.retain(|known| known.net != address.net);
                if message.kind == abi::NEWADDR && valid {
                    addresses.push(address);
                    addresses.sort_unstable();
                }
                (before != *addresses).then_some(index)
            }
            _ => None,
        }
    }

    /// The numbers of those that differ.
    fn differences(&self, other: &Self) -> BTreeSet<u32> {
        self.0.keys().chain(other.0.keys()).filter(|index| self.0.get(index) != other.0.get(index)).copied().collect()
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        Self(links.into_iter().map(|link| (link.index, link)).collect())
    }
}

impl Link {
    /// Reads `RTM_NEWLINK`, without addresses.
    fn parse(message: &Message<'_>) -> Option<Self> {
        let (index, flags) = link_header(message)?;
        let hardware = u16::from_ne_bytes([*message.payload.get(2)?, *message.payload.get(3)?]);
        let fields: Fields<'_, 36> = Fields::parse(message.payload.get(abi::LINK_HEADER..)?);
        if fields.bytes(abi::WIRELESS).is_some() {
            return None; // a message about a radio, with nothing else in it
        }
        let info: Fields<'_, 3> = fields.nest(abi::INFO);
        let kind = info.text(abi::INFO_KIND).unwrap_or_default();
        let vlan = || info.nest::<2>(abi::INFO_DATA).bytes(abi::VLAN_ID)?.try_into().ok().map(u16::from_ne_bytes);
        let ready = !fields.u8(abi::OPERSTATE).is_some_and(|state| abi::NOT_READY.contains(&state));
        let mac = fields.bytes(abi::MAC).filter(|_| hardware == abi::ETHERNET).and_then(Mac::from_slice);
        Some(Self {
            index,
            name: fields.text(abi::NAME)?.into(),
            kind: kind.into(),
            mac: mac.filter(|mac| mac.is_unicast()),
            up: flags & abi::UP != 0,
            carrier: fields.u8(abi::CARRIER) == Some(1) && ready,
            carrier_changes: fields.u32_ne(abi::CARRIER_CHANGES).unwrap_or(0),
            broadcast: flags & abi::BROADCAST != 0,
            arp: flags & abi::NOARP == 0,
            master: fields.u32_ne(abi::MASTER),
            parent: fields.u32_ne(abi::PARENT),
            vlan: if kind == "vlan" { vlan() } else { None },
            addresses: Vec::new(),
        })
    }
}

impl LinkAddress {
    /// Reads `RTM_NEWADDR` or `RTM_DELADDR`: the interface, the address, and whether it is none that somebody else has.
    fn parse(message: &Message<'_>) -> Option<(u32, Self, bool)> {
        let [family, prefix, flags, ..] = *message.payload else { return None };
        let index = u32_at(message.payload, 4)?;
        let fields: Fields<'_, 9> = Fields::parse(message.payload.get(abi::ADDRESS_HEADER..)?);
        // The address is IFA_LOCAL; IFA_ADDRESS is the peer's on a point-to-point link, and ours where there is no IFA_LOCAL (IPv6).
        let bytes = fields.bytes(abi::LOCAL).or_else(|| fields.bytes(abi::ADDRESS))?;
        let address: IpAddr = match i32::from(family) {
            libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
            libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
            _ => return None,
        };
        let flags = fields.u32_ne(abi::FLAGS).unwrap_or_else(|| flags.into());
        let net = IpNet::new(address, prefix).ok()?;
        Some((index, Self { net, tentative: flags & abi::TENTATIVE != 0 }, flags & abi::DUPLICATE == 0))
    }
}

impl LinkMonitor {
    /// Subscribes, and lists.
    ///
    /// # Errors
    /// No socket, or no list.
    pub fn open() -> Result<Self, RouteError> {
        let open = || -> io::Result<_> {
            let events = NetfilterSocket::open_route()?;
            events.grow_receive_buffer(RECEIVE_BUFFER)?;
            for group in abi::GROUPS {
                events.join(group)?;
            }
            Ok((events, NetfilterSocket::open_route()?))
        };
        let (events, lists) = open().map_err(|source| RouteError::new("subscribe to interface changes", source))?;
        let mut monitor = Self { events, lists, datagram: vec![0; DATAGRAM], links: Links::default() };
        monitor.links = monitor.list()?;
        Ok(monitor)
    }

    /// The interfaces, as of the last look.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Applies what was told since the last look, without waiting, and says the numbers of the interfaces that are not, or were for a
    /// moment not, what they were. [`AsFd`] is readable when there is something to look at.
    ///
    /// # Errors
    /// The socket, or a list that had to be asked for again. What is known stays; another look may work.
    pub fn look(&mut self) -> Result<BTreeSet<u32>, RouteError> {
        let mut changed = BTreeSet::new();
        loop {
            match self.events.receive(&mut self.datagram) {
                Ok(Some(datagram)) => changed.extend(Messages::new(datagram).filter_map(|message| self.links.apply(&message))),
                Ok(None) => return Ok(changed),
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => changed.append(&mut self.list_again()?),
                Err(errno) => return Err(RouteError::new("wait for interface changes", errno.into())),
            }
        }
    }

    /// Asks for everything, and says what differs.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn list_again(&mut self) -> Result<BTreeSet<u32>, RouteError> {
        // What is queued is older than the list; some of it is lost in any case.
        self.events.discard(&mut self.datagram);
        let listed = self.list()?;
        let changed = self.links.differences(&listed);
        self.links = listed;
        Ok(changed)
    }

    fn list(&mut self) -> Result<Links, RouteError> {
        // Interfaces first: an address belongs to one.
        let requests = [(abi::GETLINK, abi::LINK_HEADER), (abi::GETADDR, abi::ADDRESS_HEADER)];
        let mut links = Links::default();
        for (kind, header) in requests {
            // `single` writes the first four bytes of the header, a family of 0: all of them.
            let request = single(kind, NLM_F_DUMP, 0, |request| request.resize(request.len() + header - 4, 0));
            self.dump(&request, &mut links).map_err(|error| RouteError::new("list interfaces", (&error).into()))?;
        }
        Ok(links)
    }

    fn dump(&mut self, request: &[u8], links: &mut Links) -> Result<(), RequestError> {
        let mut outcome = Ok(());
        for _ in 0..LIST_ATTEMPTS {
            outcome = self.lists.request(&mut self.datagram, request, &mut |message| {
                links.apply(message);
            });
            if outcome != Err(RequestError::Interrupted) {
                break;
            }
        }
        outcome
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// Number and flags. `None` for messages of a bridge about its ports: one that leaves is told as a deletion, but is still there.
fn link_header(message: &Message<'_>) -> Option<(u32, u32)> {
    let every_family = message.payload.first() == Some(&0);
    every_family.then_some((u32_at(message.payload, 4)?, u32_at(message.payload, 8)?))
}

#[cfg(test)]
mod tests;
