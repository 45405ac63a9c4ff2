//! Flows that the kernel remembers (`nf_conntrack_netlink`): which there are, and forgetting some.
//!
//! A UDP flow keeps the backend that its first packet got for as long as packets come. When that backend is gone, its entry has to
//! go, or the client talks into a hole. Which ones are stale is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;

use super::attr::{self, Fields};
use super::message::{self, Acknowledgement, Message, Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use super::nft::DoorError;
use super::socket::{DATAGRAM, NetfilterSocket, RequestError, single};

/// Numbers of `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.
mod abi {
    /// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_*`.
    pub(super) const NEW: u16 = 1 << 8;
    pub(super) const GET: u16 = 1 << 8 | 1;
    pub(super) const DELETE: u16 = 1 << 8 | 2;
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
    pub(super) const FILTER_ORIG_FLAGS: u16 = 1;
    /// `CTA_FILTER_F_CTA_PROTO_NUM` of `nf_conntrack_netlink.c`.
    pub(super) const FILTER_PROTO_NUM: u32 = 1 << 3;
    pub(super) const TUPLE_IP: u16 = 1;
    pub(super) const TUPLE_PROTO: u16 = 2;
    pub(super) const TUPLE_ZONE: u16 = 3;
    pub(super) const IP_V4_SRC: u16 = 1;
    pub(super) const IP_V4_DST: u16 = 2;
    pub(super) const IP_V6_SRC: u16 = 3;
    pub(super) const IP_V6_DST: u16 = 4;
    pub(super) const PROTO_NUM: u16 = 1;
    pub(super) const PROTO_SRC_PORT: u16 = 2;
    pub(super) const PROTO_DST_PORT: u16 = 3;
}

/// `IPS_SEEN_REPLY` of [`Flow::status`].
pub const STATUS_SEEN_REPLY: u32 = 1 << 1;
/// `IPS_SRC_NAT` of [`Flow::status`].
pub const STATUS_SRC_NAT: u32 = 1 << 4;
/// `IPS_DST_NAT` of [`Flow::status`].
pub const STATUS_DST_NAT: u32 = 1 << 5;

/// How often a dump is begun anew when it was interrupted; as upstream does.
const DUMP_ATTEMPTS: u32 = 5;
/// Deletions in one `sendmsg`: their answers must fit into a receive buffer that could not be forced.
const DELETIONS_PER_REQUEST: usize = 64;
const RECEIVE_BUFFER: usize = 4 << 20;

/// Conntrack of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    socket: NetfilterSocket,
    datagram: Vec<u8>,
    /// Whether the kernel takes `CTA_FILTER`. Before 5.8 it takes no notice of it; we look at every flow again ourselves.
    filters: bool,
}

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// As the client sent it: to the frontend.
    pub original: Tuple,
    /// As the answer comes: from the backend.
    pub reply: Tuple,
    /// Which of the separate tables it is in.
    pub zone: Zone,
    /// The kernel's number for it. A flow that came anew with the same addresses has another one.
    pub id: Option<u32>,
    /// `IPS_*` bits.
    pub status: u32,
}

/// The two ends of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// A conntrack zone, and the direction for which it counts; in the other one the flow is in zone 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Zone {
    /// Zone 0.
    #[default]
    Default,
    /// Of both directions.
    Both(u16),
    /// Of the original direction.
    Original(u16),
    /// Of the reply.
    Reply(u16),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The address family.
    pub ipv6: bool,
    /// IP protocol number.
    pub protocol: u8,
}

/// What a dump went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpInfo {
    /// Flows handed over.
    pub matched: u64,
    /// Flows that the kernel told without being asked: it does not filter.
    pub skipped: u64,
}

/// What deleting came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Flows that were there.
    pub deleted: u64,
    /// Flows that had gone already, or had come anew.
    pub gone: u64,
}

impl Conntrack {
    /// Opens conntrack of this thread's network namespace.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open() -> Result<Self, DoorError> {
        let open = || {
            let socket = NetfilterSocket::open()?;
            socket.grow_receive_buffer(RECEIVE_BUFFER)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| DoorError::Open { call: "open conntrack", source })?;
        Ok(Self { socket, datagram: vec![0; DATAGRAM], filters: true })
    }

    /// Hands over every flow of the selection, one datagram of the kernel's in memory at a time. A dump that was interrupted is begun
    /// anew: a flow may be handed over twice.
    ///
    /// # Errors
    /// [`DoorError::Interrupted`] when it was interrupted each time; what was handed over is right all the same.
    pub fn dump(&mut self, selection: Selection, mut each: impl FnMut(&Flow)) -> Result<DumpInfo, DoorError> {
        let subject = || format!("protocol {} of {}", selection.protocol, if selection.ipv6 { "IPv6" } else { "IPv4" });
        let mut attempts = 0;
        while attempts < DUMP_ATTEMPTS {
            let mut info = DumpInfo::default();
            let request = selection.request(self.filters);
            let outcome = self.socket.request(&mut self.datagram, &request, &mut |message| match Flow::parse(message) {
                Some(flow) if selection.has(&flow) => {
                    info.matched += 1;
                    each(&flow);
                }
                _ => info.skipped += 1,
            });
            match outcome {
                Ok(()) => return Ok(info),
                Err(RequestError::Interrupted) => attempts += 1,
                Err(RequestError::NoAnswer) => return Err(DoorError::NoAnswer { call: "dump conntrack", subject: subject() }),
                // Not this filter, then: look at everything.
                Err(RequestError::Refused(Acknowledgement { errno: libc::EINVAL | libc::EOPNOTSUPP, .. })) if self.filters => {
                    self.filters = false;
                }
                Err(RequestError::Refused(Acknowledgement { errno, text, .. })) => {
                    let errno = Errno::from_raw(errno);
                    return Err(DoorError::Kernel { call: "dump conntrack", subject: subject(), errno, text });
                }
            }
        }
        Err(DoorError::Interrupted { call: "dump conntrack", subject: subject() })
    }

    /// Deletes these flows, as they were told: one that has come anew since has another number and stays.
    ///
    /// # Errors
    /// The first refusal other than that a flow is gone. The others of its request are deleted.
    pub fn delete(&mut self, flows: &[Flow]) -> Result<Deleted, DoorError> {
        let mut outcome = Deleted::default();
        for some in flows.chunks(DELETIONS_PER_REQUEST) {
            let mut request = Vec::new();
            for (sequence, flow) in (1_u32..).zip(some) {
                let family = family(flow.original.source.is_ipv6());
                let start = message::begin(&mut request, abi::DELETE, NLM_F_REQUEST | NLM_F_ACK, sequence, family, 0);
                flow.write_identity(&mut request);
                message::end(&mut request, start);
            }
            let failed = |sequence: u32, errno, text| {
                let index = usize::try_from(sequence).unwrap_or(usize::MAX).wrapping_sub(1);
                let subject = some.get(index).map(|flow| format!("{flow:?}")).unwrap_or_default();
                DoorError::Kernel { call: "delete flow", subject, errno, text }
            };
            self.socket.discard(&mut self.datagram);
            self.socket.send(&request).map_err(|errno| failed(0, errno, None))?;
            let mut refused = None;
            while let Some(datagram) = self.socket.receive(&mut self.datagram).map_err(|errno| failed(0, errno, None))? {
                for answer in Messages::new(datagram).filter_map(|message| message.acknowledgement()) {
                    match answer.errno {
                        0 => outcome.deleted += 1,
                        libc::ENOENT => outcome.gone += 1,
                        errno => refused = refused.or(Some(failed(answer.sequence, Errno::from_raw(errno), answer.text))),
                    }
                }
            }
            if let Some(error) = refused {
                return Err(error);
            }
        }
        Ok(outcome)
    }
}

impl Selection {
    /// All UDP entries of a family.
    #[must_use]
    pub fn udp(ipv6: bool) -> Self {
        Self { ipv6, protocol: 17 }
    }

    fn has(self, flow: &Flow) -> bool {
        flow.protocol == self.protocol && flow.original.source.is_ipv6() == self.ipv6
    }

    fn request(self, filtered: bool) -> Vec<u8> {
        single(abi::GET, NLM_F_DUMP, family(self.ipv6), |request| {
            if filtered {
                attr::nest(request, abi::FILTER, |request| {
                    attr::put(request, abi::FILTER_ORIG_FLAGS, &abi::FILTER_PROTO_NUM.to_ne_bytes());
                });
                attr::nest(request, abi::TUPLE_ORIG, |request| {
                    attr::nest(request, abi::TUPLE_PROTO, |request| attr::put(request, abi::PROTO_NUM, &[self.protocol]));
                });
            }
        })
    }
}

impl Flow {
    /// Reads `IPCTNL_MSG_CT_NEW`. `None` for what has no ports: it is no flow of ours.
    #[must_use]
    pub fn parse(message: &Message<'_>) -> Option<Self> {
        if message.kind != abi::NEW {
            return None;
        }
        let fields: Fields<'_, 26> = message.fields();
        let (protocol, original, original_zone) = Tuple::parse(fields.bytes(abi::TUPLE_ORIG)?)?;
        let (_, reply, reply_zone) = Tuple::parse(fields.bytes(abi::TUPLE_REPLY)?)?;
        let zone = match (fields.u16_be(abi::ZONE), original_zone, reply_zone) {
            (Some(zone), ..) => Zone::Both(zone),
            (None, Some(zone), _) => Zone::Original(zone),
            (None, None, Some(zone)) => Zone::Reply(zone),
            (None, None, None) => Zone::Default,
        };
        let status = fields.u32_be(abi::STATUS).unwrap_or(0);
        Some(Self { protocol, original, reply, zone, id: fields.u32_be(abi::ID), status })
    }

    /// Its answers come from elsewhere than where it was sent, or go elsewhere than where it came from.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.reply != self.original.reversed()
    }

    /// What tells the kernel which flow is meant.
    fn write_identity(&self, buffer: &mut Vec<u8>) {
        let zone = match self.zone {
            Zone::Original(zone) => Some(zone),
            Zone::Default | Zone::Both(_) | Zone::Reply(_) => None,
        };
        self.original.write(buffer, abi::TUPLE_ORIG, self.protocol, zone);
        if let Zone::Both(zone) = self.zone {
            attr::put_u16_be(buffer, abi::ZONE, zone);
        }
        if let Some(id) = self.id {
            attr::put_u32_be(buffer, abi::ID, id);
        }
    }
}

impl Tuple {
    /// The way back.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    fn parse(nest: &[u8]) -> Option<(u8, Self, Option<u16>)> {
        let fields: Fields<'_, 4> = Fields::parse(nest);
        let (ip, ports): (Fields<'_, 5>, Fields<'_, 4>) = (fields.nest(abi::TUPLE_IP), fields.nest(abi::TUPLE_PROTO));
        let address = |v4, v6| -> Option<IpAddr> {
            let v4 = ip.bytes(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(|bytes| Ipv4Addr::from(bytes).into());
            v4.or_else(|| {
                ip.bytes(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(|bytes| Ipv6Addr::from(bytes).into())
            })
        };
        let source = SocketAddr::new(address(abi::IP_V4_SRC, abi::IP_V6_SRC)?, ports.u16_be(abi::PROTO_SRC_PORT)?);
        let destination = SocketAddr::new(address(abi::IP_V4_DST, abi::IP_V6_DST)?, ports.u16_be(abi::PROTO_DST_PORT)?);
        (source.is_ipv6() == destination.is_ipv6()).then_some(())?;
        Some((ports.u8(abi::PROTO_NUM)?, Self { source, destination }, fields.u16_be(abi::TUPLE_ZONE)))
    }

    fn write(&self, buffer: &mut Vec<u8>, kind: u16, protocol: u8, zone: Option<u16>) {
        attr::nest(buffer, kind, |buffer| {
            attr::nest(buffer, abi::TUPLE_IP, |buffer| {
                put_address(buffer, self.source.ip(), abi::IP_V4_SRC, abi::IP_V6_SRC);
                put_address(buffer, self.destination.ip(), abi::IP_V4_DST, abi::IP_V6_DST);
            });
            attr::nest(buffer, abi::TUPLE_PROTO, |buffer| {
                attr::put(buffer, abi::PROTO_NUM, &[protocol]);
                attr::put_u16_be(buffer, abi::PROTO_SRC_PORT, self.source.port());
                attr::put_u16_be(buffer, abi::PROTO_DST_PORT, self.destination.port());
            });
            if let Some(zone) = zone {
                attr::put_u16_be(buffer, abi::TUPLE_ZONE, zone);
            }
        });
    }
}

fn put_address(buffer: &mut Vec<u8>, address: IpAddr, v4: u16, v6: u16) {
    match address {
        IpAddr::V4(address) => attr::put(buffer, v4, &address.octets()),
        IpAddr::V6(address) => attr::put(buffer, v6, &address.octets()),
    }
}

/// `AF_INET` or `AF_INET6`.
const fn family(ipv6: bool) -> u8 {
    if ipv6 { 10 } else { 2 }
}

#[cfg(test)]
mod tests;
