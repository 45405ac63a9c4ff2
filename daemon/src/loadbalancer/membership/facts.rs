//! What a member tells of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compact_str::CompactString;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::codec::Reader;
use super::transfer::MAX_BLOB;

/// Of one member: where it can announce, and what it announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interfaces that could announce, excluded ones left out.
    pub interfaces: Vec<NetworkInterface>,
    /// The VIPs that it announces.
    pub holds: Vec<Hold>,
}

/// One interface of a node, as far as an election asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Its name on that node, at most 15 bytes on Linux.
    pub name: CompactString,
    /// Its hardware address, where it has one of six bytes: by it others know whose an ARP packet is.
    pub hardware: Option<[u8; 6]>,
    /// Something is connected to it (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Of its addresses, link-local ones left out.
    pub subnets: Vec<IpNet>,
}

/// One VIP that a member announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The VIP.
    pub vip: IpAddr,
    /// It stays there for now; see [`crate::loadbalancer::election::Holding::protected`].
    pub protected: bool,
}

/// Facts that cannot be told or understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// More than fits; 10,000 IPv6 VIPs do.
    #[error("{0} bytes of facts, at most {MAX_BLOB} can be told to others")]
    TooLarge(usize),
    /// Cut off, or nonsense.
    #[error("the facts of a member are malformed")]
    Malformed,
}

const V4: u8 = 4;
const V6: u8 = 6;
/// Room is made for at most so many entries before they are read.
const FORESEEN: usize = 1024;

impl Facts {
    /// Interfaces: count, then name (length first), hardware address (a flag first), carrier, subnets (count first). Holds: flags and address, to the end.
    pub(super) fn encode(&self) -> Result<Vec<u8>, FactsError> {
        let Self { interfaces, holds } = self;
        let mut bytes = Vec::new();
        let too_many = |count: usize| FactsError::TooLarge(count * 17);
        let count = u16::try_from(interfaces.len()).map_err(|_| too_many(interfaces.len()))?;
        bytes.extend(count.to_be_bytes());
        for NetworkInterface { name, hardware, carrier, subnets } in interfaces {
            bytes.push(u8::try_from(name.len()).map_err(|_| too_many(name.len()))?);
            bytes.extend(name.as_bytes());
            bytes.push(u8::from(hardware.is_some()));
            bytes.extend(hardware.iter().flatten());
            bytes.push(u8::from(*carrier));
            bytes.extend(u16::try_from(subnets.len()).map_err(|_| too_many(subnets.len()))?.to_be_bytes());
            for subnet in subnets {
                put_address(&mut bytes, subnet.addr());
                bytes.push(subnet.prefix_len());
            }
        }
        for Hold { vip, protected } in holds {
            bytes.push(u8::from(*protected));
            put_address(&mut bytes, *vip);
        }
        if bytes.len() > MAX_BLOB { Err(FactsError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FactsError> {
        Self::read(&mut Reader::new(bytes)).ok_or(FactsError::Malformed)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let count = usize::from(reader.u16()?);
        let mut interfaces = Vec::with_capacity(count.min(FORESEEN));
        for _ in 0..count {
            let length = usize::from(reader.u8()?);
            let name = std::str::from_utf8(reader.take(length)?).ok()?.into();
            let hardware = if flag(reader.u8()?)? { Some(reader.array()?) } else { None };
            let carrier = flag(reader.u8()?)?;
            let count = usize::from(reader.u16()?);
            let mut subnets = Vec::with_capacity(count.min(FORESEEN));
            for _ in 0..count {
                let address = get_address(reader)?;
                subnets.push(IpNet::new(address, reader.u8()?).ok()?);
            }
            interfaces.push(NetworkInterface { name, hardware, carrier, subnets });
        }
        let mut holds = Vec::new();
        while !reader.is_empty() {
            let protected = flag(reader.u8()?)?;
            holds.push(Hold { vip: get_address(reader)?, protected });
        }
        Some(Self { interfaces, holds })
    }

    /// How it holds this VIP.
    #[must_use]
    pub fn hold(&self, vip: IpAddr) -> Option<Hold> {
        self.holds.iter().copied().find(|hold| hold.vip == vip)
    }
}

impl NetworkInterface {
    /// The subnet of an address with its prefix, as the facts have it.
    #[must_use]
    pub fn subnet(address: IpAddr, prefix: u8) -> Option<IpNet> {
        match address {
            IpAddr::V4(v4) => Ipv4Net::new(v4, prefix).ok().map(|net| IpNet::V4(net.trunc())),
            IpAddr::V6(v6) => Ipv6Net::new(v6, prefix).ok().map(|net| IpNet::V6(net.trunc())),
        }
    }
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            bytes.push(V4);
            bytes.extend(v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes.push(V6);
            bytes.extend(v6.octets());
        }
    }
}

fn get_address(reader: &mut Reader<'_>) -> Option<IpAddr> {
    match reader.u8()? {
        V4 => Some(Ipv4Addr::from(reader.array()?).into()),
        V6 => Some(Ipv6Addr::from(reader.array()?).into()),
        _ => None,
    }
}
