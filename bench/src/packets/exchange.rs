//! Both ends of a conversation in one thread.
//!
//! A veth hands a packet to the other namespace within the sender's own system call, so that when `send` returns, the question has
//! been through every hook and lies in the server's socket. Whoever then reads it in the same thread measures what the kernel does
//! with packets, and no wake-up of a thread, which costs several times as much and depends on who else is at work.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::SockRef;

/// The answering ends, a pair for each endpoint of the Service.
#[derive(Debug)]
pub(super) struct Backends {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// Where questions go, in turn.
#[derive(Clone, Debug)]
pub(super) struct Target {
    addresses: Vec<SocketAddr>,
    turn: usize,
}

/// The sizes of an ordinary DNS question and its answer, and of a small HTTP exchange.
pub(super) const QUESTION: usize = 60;
pub(super) const ANSWER: usize = 120;
/// How often an idle server looks whether it is still needed.
const TICK: Duration = Duration::from_millis(5);
/// Nothing between namespaces of one machine takes longer, unless it is lost.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

impl Backends {
    /// Opens them in the calling thread's namespace.
    pub(super) fn open(address: Ipv4Addr, ports: impl Iterator<Item = u16>) -> Result<Self> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for port in ports {
            let at = SocketAddr::from((address, port));
            let datagrams = UdpSocket::bind(at).with_context(|| format!("serving UDP at {at}"))?;
            datagrams.set_nonblocking(true).context("a socket that does not block")?;
            udp.push(datagrams);
            let listener = TcpListener::bind(at).with_context(|| format!("serving TCP at {at}"))?;
            listener.set_nonblocking(true).context("a listener that does not block")?;
            // For when it is told to block: see `tcp::serve`.
            SockRef::from(&listener).set_read_timeout(Some(TICK)).context("a listener that does not wait for ever")?;
            tcp.push(listener);
        }
        Ok(Self { udp, tcp })
    }
}

impl Target {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, turn: 0 }
    }

    pub(super) fn next(&mut self) -> io::Result<SocketAddr> {
        self.turn += 1;
        let count = self.addresses.len().max(1);
        self.addresses.get(self.turn % count).copied().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Tries sockets that do not block in turn until one has something, or the time is up. Nearly always the first turn finds it: see
/// above.
pub(crate) fn first<S, T>(sockets: &[S], patience: Duration, mut attempt: impl FnMut(&S) -> io::Result<T>) -> io::Result<T> {
    let mut begun = None;
    loop {
        for socket in sockets {
            match attempt(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
        // Where the kernel has left the packets to a thread of its own (ksoftirqd), that one needs a processor.
        if begun.get_or_insert_with(Instant::now).elapsed() > patience {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::yield_now();
    }
}

/// A question that is not taken for another one's.
pub(super) fn question(number: u64) -> [u8; QUESTION] {
    let mut question = [b'?'; QUESTION];
    question[..8].copy_from_slice(&number.to_le_bytes());
    question
}

/// The answer to it.
pub(super) fn answer_to(question: &[u8]) -> [u8; ANSWER] {
    let mut answer = [b'!'; ANSWER];
    let length = question.len().min(8);
    answer[..length].copy_from_slice(&question[..length]);
    answer
}

/// Whether it was lost on the way rather than refused by this machine: the one is counted, the other ends the bench.
pub(crate) fn is_loss(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, NotConnected,
        PermissionDenied, TimedOut, UnexpectedEof, WouldBlock,
    };
    let lost = [
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        HostUnreachable,
        NetworkUnreachable,
        NotConnected,
        PermissionDenied,
        TimedOut,
        UnexpectedEof,
        WouldBlock,
    ];
    // A blocking connect() that runs into SO_SNDTIMEO says EINPROGRESS (socket(7)).
    lost.contains(&error.kind()) || error.raw_os_error() == Some(libc::EINPROGRESS)
}
