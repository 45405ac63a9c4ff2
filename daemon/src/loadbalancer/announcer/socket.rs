//! The packet sockets: one for each interface and family on which something is announced.
//!
//! Not one for all interfaces: a socket of one interface costs the packets of other interfaces (those of pods) nothing at all, and a
//! frame's interface needs no look-up. Not one for both families: one EtherType is a look at what comes in, and only there; all
//! EtherTypes (`ETH_P_ALL`) would see, and have copied, whatever the node sends as well (`dev_queue_xmit_nit`).
//!
//! Never promiscuous. `CAP_NET_RAW` is enough; with `CAP_NET_ADMIN` the queue is larger than `net.core.rmem_max`, for storms.

use std::io::{self, Read as _};
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::groups::Groups;
use super::{ethernet, filter};
use crate::model::Family;

/// The largest frame that can be one of ours: a solicitation with options of every kind. What is longer is cut, and then refused.
pub const LARGEST: usize = 2048;
/// Of a storm, some thousand frames wait.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What is asked of a packet socket.
pub trait PacketDoor {
    /// Takes one frame that waits, its Ethernet head first; `None` if none does.
    ///
    /// # Errors
    /// The socket is of no more use.
    fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, PacketError>;

    /// Puts a whole frame on the wire, or into its queue.
    ///
    /// # Errors
    /// No carrier, no room: this frame is lost.
    fn send(&mut self, frame: &[u8]) -> Result<(), PacketError>;

    /// Listens for what is about these addresses, and for nothing else; joins their groups and leaves all others.
    ///
    /// # Errors
    /// What was listened for before may still be.
    fn listen(&mut self, addresses: &[IpAddr]) -> Result<(), PacketError>;

    /// Frames that passed the filter and found no room, since this was asked last.
    fn lost(&mut self) -> u64 {
        0
    }
}

/// Opens packet sockets.
pub trait Doors {
    /// What it opens.
    type Door: PacketDoor;

    /// One on an interface, by its number, which listens for nothing yet.
    ///
    /// # Errors
    /// No such interface, no capability.
    fn open(&self, interface: u32, family: Family) -> Result<Self::Door, PacketError>;
}

/// A packet socket refused.
#[derive(Debug, thiserror::Error)]
#[error("{call} on interface {interface}: {source}")]
pub struct PacketError {
    call: &'static str,
    interface: u32,
    #[source]
    source: io::Error,
}

/// The kernel's packet sockets, of the network namespace of the thread that opens them.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketSockets;

/// `AF_PACKET`, `SOCK_RAW`.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    interface: u32,
    family: Family,
    groups: Groups,
}

impl PacketError {
    pub(super) fn new(call: &'static str, interface: u32, source: impl Into<io::Error>) -> Self {
        Self { call, interface, source: source.into() }
    }
}

impl Doors for PacketSockets {
    type Door = PacketSocket;

    fn open(&self, interface: u32, family: Family) -> Result<PacketSocket, PacketError> {
        PacketSocket::open(interface, family)
    }
}

impl PacketSocket {
    /// Opens one on an interface. It hears nothing until [`PacketDoor::listen`].
    ///
    /// # Errors
    /// Those of `socket`, `setsockopt` and `bind`; `EPERM` without `CAP_NET_RAW`.
    pub fn open(interface: u32, family: Family) -> Result<Self, PacketError> {
        let failed = |call| move |source: io::Error| PacketError::new(call, interface, source);
        // Of no protocol until its filter is there: nothing unfiltered gets in.
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0))).map_err(failed("open packet socket"))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)
                .map_err(|errno| PacketError::new("set receive buffer", interface, errno))?;
        }
        let opened = Self { socket, interface, family, groups: Groups::default() };
        opened.attach(&[])?;
        opened.bind()?;
        Ok(opened)
    }

    fn bind(&self) -> Result<(), PacketError> {
        let failed = |source: Errno| PacketError::new("bind packet socket", self.interface, source);
        // SAFETY: an all-zero sockaddr_ll is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(|_| failed(Errno::EAFNOSUPPORT))?;
        address.sll_protocol = self.protocol().to_be();
        address.sll_ifindex = i32::try_from(self.interface).map_err(|_| failed(Errno::ENODEV))?;
        // SAFETY: the address is of the length given, and outlives the call.
        let outcome =
            unsafe { libc::bind(self.socket.as_raw_fd(), ptr::from_ref(&address).cast(), length_of::<libc::sockaddr_ll>()) };
        Errno::result(outcome).map(drop).map_err(failed)
    }

    fn protocol(&self) -> u16 {
        match self.family {
            Family::V4 => ethernet::ARP,
            Family::V6 => ethernet::IPV6,
        }
    }

    /// Replaces the filter, in one step. See [`filter`] for what happens if there is no room.
    fn attach(&self, addresses: &[IpAddr]) -> Result<(), PacketError> {
        let mut limit = filter::RANGES;
        loop {
            let ranges = filter::ranges(addresses.iter().copied(), limit);
            let program: Vec<SockFilter> = filter::program(self.family, &ranges)
                .into_iter()
                .map(|filter::Instruction { code, then, otherwise, operand }| SockFilter::new(code, then, otherwise, operand))
                .collect();
            match self.socket.attach_filter(&program) {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && limit > 1 => limit /= 2,
                outcome => return outcome.map_err(|source| PacketError::new("attach filter", self.interface, source)),
            }
        }
    }
}

impl PacketDoor for PacketSocket {
    fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, PacketError> {
        loop {
            match self.socket.read(buffer) {
                Ok(length) => return Ok(buffer.get(..length)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Told once when the interface goes down; the socket works on when it is up again.
                    Some(libc::EAGAIN | libc::ENETDOWN) => return Ok(None),
                    _ => return Err(PacketError::new("receive", self.interface, error)),
                },
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), PacketError> {
        self.socket.send(frame).map(drop).map_err(|source| PacketError::new("send", self.interface, source))
    }

    fn listen(&mut self, addresses: &[IpAddr]) -> Result<(), PacketError> {
        let v6: Vec<Ipv6Addr> = addresses
            .iter()
            .filter_map(|address| match address {
                IpAddr::V6(address) => Some(*address),
                IpAddr::V4(_) => None,
            })
            .collect();
        // Nothing is said about an address before it is listened for.
        self.attach(addresses)?;
        let failed = |errno| PacketError::new("join solicited-node group", self.interface, errno);
        self.groups.follow(self.socket.as_fd(), self.interface, &v6).map_err(failed)
    }

    fn lost(&mut self) -> u64 {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = length_of::<libc::tpacket_stats>();
        // SAFETY: room for the structure that this option is, and its length; both outlive the call. The kernel counts from zero again.
        let outcome = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                ptr::from_mut(&mut counts).cast(),
                &raw mut length,
            )
        };
        if outcome == 0 { counts.tp_drops.into() } else { 0 }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "socket addresses and options have a few bytes")]
pub(super) const fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netlink::testns::in_namespace;

    #[test]
    fn a_filter_for_which_there_is_no_room_becomes_coarser() {
        in_namespace(|| {
            // Of this namespace since Linux 6.8; before, it is not to be seen in one.
            if let Err(error) = std::fs::write("/proc/sys/net/core/optmem_max", "8192") {
                eprintln!("skipped: net.core.optmem_max: {error}");
                return;
            }
            let scattered: Vec<IpAddr> = (1..1000).map(|number| Ipv4Addr::from_bits(number * 4_000_000).into()).collect();
            let mut door = PacketSocket::open(1, Family::V4).unwrap();
            let whole = filter::program(Family::V4, &filter::ranges(scattered.iter().copied(), filter::RANGES));
            let whole: Vec<SockFilter> =
                whole.iter().map(|one| SockFilter::new(one.code, one.then, one.otherwise, one.operand)).collect();
            assert_eq!(door.socket.attach_filter(&whole).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
            door.listen(&scattered).unwrap();
            // The one before is still there while the next is put in place.
            door.listen(&scattered[1..]).unwrap();
        });
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        in_namespace(|| {
            let error = PacketSocket::open(4711, Family::V6).unwrap_err();
            assert_eq!(error.to_string(), "bind packet socket on interface 4711: No such device (os error 19)");
        });
    }
}
