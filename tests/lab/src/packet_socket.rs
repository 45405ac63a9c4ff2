//! Raw frames of one interface, with what the kernel's offloads leave unsaid in them.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind, Read as _},
    mem::size_of,
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant, SystemTime},
};

/// An `AF_PACKET` socket on one interface: every frame that arrives, none that leaves.
///
/// Frames keep their `virtio_net_hdr` (`PACKET_VNET_HDR`, packet(7)): within one machine, checksums are not computed and TCP
/// segments are not cut to size, and the header says so. Sent on without it, every such frame would be damaged or too long.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

/// `struct virtio_net_hdr`, `include/uapi/linux/virtio_net.h`.
const VNET_HEADER: usize = 10;

impl PacketSocket {
    /// A frame of the greatest length, with its header: 64 KiB of segmentation offload, Ethernet and VLAN headers.
    pub(crate) const LONGEST: usize = VNET_HEADER + 65_536 + 18;

    /// Opens the interface with this index in the calling thread's namespace.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        // Without a protocol at first: nothing is received before the socket is bound to its one interface.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        set(&socket, libc::PACKET_VNET_HDR, &1_i32)?;
        set(&socket, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        // Bursts beyond this are lost, unseeded; so let it be more than any scenario sends at once.
        socket.set_recv_buffer_size(4 << 20)?;
        let index = interface.cast_signed();
        let everyone = libc::packet_mreq { mr_ifindex: index, mr_type: PROMISCUOUS, mr_alen: 0, mr_address: [0; 8] };
        set(&socket, libc::PACKET_ADD_MEMBERSHIP, &everyone)?;
        let address = libc::sockaddr_ll {
            sll_family: PACKET_FAMILY,
            sll_protocol: EVERY_PROTOCOL.to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a sockaddr_ll of the given length and outlives the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>()) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(socket)) }
    }

    /// Takes the next frame, with its header; `None` if there is none now.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(buffer) {
            Ok(length) if length >= VNET_HEADER => Ok(Some(length)),
            Ok(_) => Ok(None),
            // ENETDOWN is reported once when the interface goes down; it may come up again.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NetworkDown) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// When the kernel got the frame that was received last: however late the caller came to read it. The first call switches the
    /// stamps on, and fails if nothing was received before.
    pub(crate) fn received_at(&self) -> io::Result<Instant> {
        // SAFETY: all fields of a timespec may be zero.
        let mut stamp: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes a timespec, which outlives the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCGSTAMPNS, &raw mut stamp) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let seconds = u64::try_from(stamp.tv_sec).unwrap_or_default();
        let stamp = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + nanoseconds(stamp.tv_nsec);
        // The stamp is of the wall clock; its age is the same by both.
        let age = SystemTime::now().duration_since(stamp).unwrap_or_default();
        let now = Instant::now();
        Ok(now.checked_sub(age).unwrap_or(now))
    }

    /// Sends a frame as it was received.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<usize> {
        self.0.send(frame)
    }

    /// Sends an Ethernet frame that has nothing left to compute.
    pub(crate) fn send_ethernet(&self, frame: &[u8]) -> io::Result<usize> {
        self.0.send(&[&[0; VNET_HEADER], frame].concat())
    }

    /// The Ethernet frame behind the header.
    pub(crate) fn ethernet(frame: &[u8]) -> &[u8] {
        frame.get(VNET_HEADER..).unwrap_or_default()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits until one of the descriptors can be read, or until an instant. The precision is the clock's, not the millisecond's.
pub(crate) fn wait<const N: usize>(descriptors: [RawFd; N], until: Option<Instant>) -> io::Result<[bool; N]> {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let limit = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(left.subsec_nanos().cast_signed()),
        }
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), |limit| &raw const *limit);
    // SAFETY: the array has the given length, the limit is null or valid, and both outlive the call.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, limit, std::ptr::null()) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == ErrorKind::Interrupted { Ok([false; N]) } else { Err(error) };
    }
    Ok(polled.map(|entry| entry.revents != 0))
}

fn nanoseconds(count: libc::c_long) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or_default())
}

/// The stamp of the last packet, `include/uapi/linux/sockios.h`; on 64 bits its timespec is libc's.
const SIOCGSTAMPNS: libc::c_ulong = 0x8907;
/// `PACKET_MR_PROMISC` in the width the structure wants: frames for anyone are carried.
const PROMISCUOUS: libc::c_ushort = 1;
/// `AF_PACKET` in the width the structure wants.
const PACKET_FAMILY: libc::c_ushort = 17;
/// `ETH_P_ALL`.
const EVERY_PROTOCOL: u16 = 3;

fn set<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value is valid for its size and outlives the call; the kernel copies it.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast(), length_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A size as the socket calls want it.
fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("socket structures are small")
}
