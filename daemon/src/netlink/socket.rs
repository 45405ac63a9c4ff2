//! The netlink socket: of `NETLINK_NETFILTER`, whose header generic netlink shares byte for byte; and of rtnetlink.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;
use std::{io, mem, ptr};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt};

use super::message::{self, Acknowledgement, Message, Messages, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

/// What one read needs: a dump's datagrams are at most 32 KiB (`netlink_dump`), all others smaller.
pub(crate) const DATAGRAM: usize = 64 * 1024;
/// What `netlink_sendmsg` keeps of the send buffer for itself: `len > sk->sk_sndbuf - 32` is `EMSGSIZE`.
const SEND_RESERVE: usize = 32;

/// A netfilter socket of this process, in the network namespace of the thread that opened it.
///
/// Only `wait` waits: nfnetlink answers before `send` returns.
#[derive(Debug)]
pub struct NetfilterSocket {
    fd: OwnedFd,
    port: u32,
}

/// Why a request brought no complete answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// The kernel refused, or the socket failed.
    Refused(Acknowledgement),
    /// The table changed while it was dumped (`NLM_F_DUMP_INTR`, `EINTR`).
    Interrupted,
    /// The kernel stopped answering.
    NoAnswer,
}

impl From<&RequestError> for io::Error {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::Refused(answer) => Errno::from_raw(answer.errno),
            RequestError::Interrupted => Errno::EINTR,
            RequestError::NoAnswer => Errno::ENOMSG,
        }
        .into()
    }
}

impl NetfilterSocket {
    /// Opens a socket with extended acknowledgements that quote no more of a request than its header.
    ///
    /// # Errors
    /// Those of `socket`, `bind` and `setsockopt`.
    pub fn open() -> io::Result<Self> {
        Self::open_protocol(SockProtocol::NetlinkNetFilter)
    }

    /// The same to generic netlink: `struct genlmsghdr` has the command where `struct nfgenmsg` has the family.
    ///
    /// # Errors
    /// As [`NetfilterSocket::open`].
    pub(crate) fn open_generic() -> io::Result<Self> {
        Self::open_protocol(SockProtocol::NetlinkGeneric)
    }

    /// The same to rtnetlink, whose headers are longer.
    ///
    /// # Errors
    /// As [`NetfilterSocket::open`].
    pub(crate) fn open_route() -> io::Result<Self> {
        Self::open_protocol(SockProtocol::NetlinkRoute)
    }

    fn open_protocol(protocol: SockProtocol) -> io::Result<Self> {
        let fd =
            socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let port = socket::getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        let socket = Self { fd, port };
        socket.set_netlink_option(libc::NETLINK_EXT_ACK, 1)?;
        socket.set_netlink_option(libc::NETLINK_CAP_ACK, 1)?;
        Ok(socket)
    }

    /// The address that the kernel gave the socket; events say it of the transactions they come from.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Makes the send buffer as large as may be, up to `wanted` bytes, and says how large one message may be then.
    /// Beyond `net.core.wmem_max` it takes `CAP_NET_ADMIN` in the initial user namespace; `forced` says whether to try.
    ///
    /// # Errors
    /// Those of `getsockopt`; a smaller buffer than wanted is none.
    pub fn grow_send_buffer(&self, wanted: usize, forced: bool) -> io::Result<usize> {
        if !(forced && socket::setsockopt(&self.fd, sockopt::SndBufForce, &wanted).is_ok()) {
            socket::setsockopt(&self.fd, sockopt::SndBuf, &wanted)?;
        }
        Ok(socket::getsockopt(&self.fd, sockopt::SndBuf)?.saturating_sub(SEND_RESERVE))
    }

    /// Makes the receive buffer as large as may be, up to `wanted` bytes.
    ///
    /// # Errors
    /// Those of `setsockopt`; a smaller buffer than wanted is none.
    pub fn grow_receive_buffer(&self, wanted: usize) -> io::Result<()> {
        if socket::setsockopt(&self.fd, sockopt::RcvBufForce, &wanted).is_err() {
            socket::setsockopt(&self.fd, sockopt::RcvBuf, &wanted)?;
        }
        Ok(())
    }

    /// Subscribes to a multicast group (`enum nfnetlink_groups`).
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn join(&self, group: i32) -> io::Result<()> {
        self.set_netlink_option(libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// Ends a subscription. What was queued before stays readable.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn leave(&self, group: i32) -> io::Result<()> {
        self.set_netlink_option(libc::NETLINK_DROP_MEMBERSHIP, group)
    }

    /// Sends one datagram to the kernel, which has worked it off when this returns.
    pub(crate) fn send(&self, datagram: &[u8]) -> Result<(), Errno> {
        loop {
            match socket::send(self.fd.as_raw_fd(), datagram, MsgFlags::empty()) {
                Ok(_) => return Ok(()), // a datagram goes whole or not at all
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Reads one datagram of the kernel's, or says `None` when there is none.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>, Errno> {
        let length = loop {
            // SAFETY: an all-zero sockaddr_nl is a valid one; the kernel overwrites it.
            let mut sender: libc::sockaddr_nl = unsafe { mem::zeroed() };
            let mut size = socklen::<libc::sockaddr_nl>();
            // SAFETY: buffer and sender are writable for the lengths given, and outlive the call.
            let read = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                    ptr::from_mut(&mut sender).cast(),
                    &mut size,
                )
            };
            match Errno::result(read) {
                // Another process may write to our port; only the kernel's is 0.
                Ok(_) if sender.nl_pid != 0 => {}
                Ok(length) => break usize::try_from(length).unwrap_or(0),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        };
        buffer.get(..length).map(Some).ok_or(Errno::EMSGSIZE)
    }

    /// Throws away what is queued.
    pub(crate) fn discard(&self, buffer: &mut [u8]) {
        while matches!(self.receive(buffer), Ok(Some(_)) | Err(Errno::ENOBUFS)) {}
    }

    /// Sends one request and hands over every message of the answer but the last, which only says how it went. A request for a
    /// dump ends with its `NLMSG_DONE`; any other must ask for an acknowledgement.
    pub(crate) fn request(
        &self,
        buffer: &mut [u8],
        request: &[u8],
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), RequestError> {
        let failed =
            |errno: Errno| RequestError::Refused(Acknowledgement { errno: errno as i32, sequence: 0, offset: None, text: None });
        self.discard(buffer);
        self.send(request).map_err(failed)?;
        let mut interrupted = false;
        while let Some(datagram) = self.receive(buffer).map_err(failed)? {
            for message in Messages::new(datagram) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                if !matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
                    each(&message);
                    continue;
                }
                return match message.acknowledgement() {
                    Some(answer) if answer.errno == libc::EINTR => Err(RequestError::Interrupted),
                    Some(answer) if answer.errno != 0 => Err(RequestError::Refused(answer)),
                    Some(_) if interrupted => Err(RequestError::Interrupted),
                    Some(_) => Ok(()),
                    None => Err(RequestError::NoAnswer),
                };
            }
        }
        Err(RequestError::NoAnswer)
    }

    /// Waits until there is something to read here or on `other`, and says whether `other` was among it.
    ///
    /// # Errors
    /// Those of `poll`.
    pub(crate) fn wait(&self, other: BorrowedFd<'_>) -> io::Result<bool> {
        let poll = |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut fds = [poll(self.fd.as_fd()), poll(other)];
        loop {
            // SAFETY: `fds` is an array of two initialised entries, borrowed for the call.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
            match Errno::result(ready) {
                Ok(_) => return Ok(fds[1].revents != 0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn set_netlink_option(&self, option: i32, value: i32) -> io::Result<()> {
        // SAFETY: the value is an int, of the length given, and outlives the call.
        let result = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_NETLINK, option, ptr::from_ref(&value).cast(), socklen::<i32>())
        };
        Errno::result(result)?;
        Ok(())
    }
}

impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "socket addresses and options have a few bytes")]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// Waits until there is something to read on `fd`, but no longer than `time`.
pub(crate) fn wait_for(fd: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    wait_for_any(&[fd], time)
}

/// Waits until there is something to read on one of these, but no longer than `time`.
pub(crate) fn wait_for_any(fds: &[BorrowedFd<'_>], time: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    // Whoever is interrupted has waited less: nobody relies on the whole time.
    let milliseconds = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    let count = libc::nfds_t::try_from(fds.len()).map_err(io::Error::other)?;
    // SAFETY: `fds` is an array of so many initialised entries, borrowed for the call.
    Errno::result(unsafe { libc::poll(fds.as_mut_ptr(), count, milliseconds) })?;
    Ok(())
}

/// A flag that one thread raises and another waits for.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are involved.
    let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes a request of one message.
pub(crate) fn single(kind: u16, flags: u16, family: u8, attributes: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut request = Vec::with_capacity(128);
    let start = message::begin(&mut request, kind, message::NLM_F_REQUEST | flags, 1, family, 0);
    attributes(&mut request);
    message::end(&mut request, start);
    request
}
