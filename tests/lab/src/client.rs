//! Asking like a client, and saying exactly what came of it.

use crate::{Error, Namespace, Port, Protocol, Result};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    collections::BTreeMap,
    fmt, io,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// One question to an address.
#[derive(Clone, Debug)]
pub struct Request {
    protocol: Protocol,
    to: SocketAddr,
    from: SocketAddr,
    timeout: Duration,
    /// When a datagram without an answer is sent once more.
    again_after: Option<Duration>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server answered.
    Answered(Answer),
    /// Rejected: a TCP reset in answer to SYN, or an ICMP port unreachable.
    Refused,
    /// A reset, or an end of file, on an established connection.
    Reset,
    /// Nothing came back.
    TimedOut,
    /// The kernel did not let the packet out: a local packet met a drop or reject verdict (EPERM, EACCES).
    Forbidden,
    /// Any other error, such as `EHOSTUNREACH`: a route is missing, or a router on the way says so.
    Unreachable(i32),
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's name.
    pub by: String,
    /// The client's address as the server saw it: after source NAT, if there was any.
    pub source_seen: SocketAddr,
    /// The server's own address: after destination NAT.
    pub at: SocketAddr,
    /// The client's own address.
    pub source: SocketAddr,
    /// From before the first packet to the answer.
    pub latency: Duration,
    /// It came only after the datagram was sent again: see [`Request::again_after`].
    pub repeated: bool,
}

/// Who answered how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers per server.
    pub answered: BTreeMap<String, usize>,
    /// The other outcomes, in order of their occurrence.
    pub failed: Vec<Outcome>,
}

/// The ports a client sends from: the kernel's own range (`ip_local_port_range`), apart from every port that is served.
const SOURCE_PORTS: std::ops::Range<u16> = 32_768..61_000;

/// What a client says.
const QUESTION: &[u8] = b"?\n";
/// Long enough for a SYN's first retransmission (1 s): an ICMP error that meets a locked socket is lost (`LockDroppedIcmps`).
const TIMEOUT: Duration = Duration::from_millis(2500);

// === impl Request ===

impl Request {
    /// A request to `address:port` or `[address]:port`.
    ///
    /// # Errors
    /// If the text is neither.
    pub fn new(protocol: Protocol, to: &str) -> Result<Self> {
        let to: SocketAddr = to.parse().map_err(|_| Error::Address {
            text: to.to_owned(),
            expected: "an address with a port such as 172.30.0.41:80 or [fd00:172:30::41]:80",
        })?;
        Ok(Self::to(Port { protocol, number: to.port() }, to.ip()))
    }

    /// A request to a port of an address.
    #[must_use]
    pub fn to(port: Port, address: IpAddr) -> Self {
        let any = match address {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        let to = SocketAddr::new(address, port.number);
        Self { protocol: port.protocol, to, from: SocketAddr::new(any, 0), timeout: TIMEOUT, again_after: None }
    }

    /// Sends from this address of the host.
    #[must_use]
    pub fn from_address(mut self, address: IpAddr) -> Self {
        self.from.set_ip(address);
        self
    }

    /// Sends from this port.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        self.from.set_port(port);
        self
    }

    /// Waits this long for the answer. The default is 2.5 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Over UDP, sends the datagram once more if there is no answer by then, from the same socket, as every resolver does; the answer
    /// says so. Other protocols do that by themselves.
    #[must_use]
    pub fn again_after(mut self, pause: Duration) -> Self {
        self.again_after = (self.protocol == Protocol::Udp).then_some(pause);
        self
    }

    /// Asks once, from a namespace.
    pub(crate) fn send(&self, namespace: &Namespace) -> Result<Outcome> {
        namespace.run(|| self.ask())?
    }

    /// Asks many times, one after the other, each with a socket of its own.
    pub(crate) fn sample(&self, namespace: &Namespace, times: usize) -> Result<Tally> {
        namespace.run(|| {
            let mut tally = Tally::default();
            for _ in 0..times {
                match self.ask()? {
                    Outcome::Answered(answer) => *tally.answered.entry(answer.by).or_default() += 1,
                    other => tally.failed.push(other),
                }
            }
            Ok(tally)
        })?
    }

    /// Asks from the calling thread's namespace. An error is a fault of the lab; what the network does is an outcome.
    pub(crate) fn ask(&self) -> Result<Outcome> {
        let socket = self.open()?;
        Ok(self.exchange(socket).unwrap_or_else(|error| Outcome::of(&error)))
    }

    /// A socket, bound as asked.
    fn open(&self) -> Result<Socket> {
        self.bound().map_err(Error::call("open", format!("a {:?} socket at {}", self.protocol, self.from)))
    }

    fn bound(&self) -> io::Result<Socket> {
        let socket = self.protocol.socket(Domain::for_address(self.to))?;
        let mut from = self.from;
        if self.protocol == Protocol::Sctp {
            report_errors(&socket, self.to)?;
            // One address, or INIT offers all that the host has, and what is sent to another passes by the translation.
            from = self.single_homed()?;
        }
        if from.port() != 0 {
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(from))?;
            return Ok(socket);
        }
        // As many attempts as there are ports: all can be taken, but not for ever looked for.
        let mut result = Err(ErrorKind::AddrInUse.into());
        for _ in SOURCE_PORTS {
            from.set_port(next_source_port());
            result = socket.bind(&SockAddr::from(from));
            if !matches!(&result, Err(error) if error.kind() == ErrorKind::AddrInUse) {
                break;
            }
        }
        result.map(|()| socket)
    }

    /// Where it is sent from: the address that routing picks, unless one is given.
    fn single_homed(&self) -> io::Result<SocketAddr> {
        if !self.from.ip().is_unspecified() {
            return Ok(self.from);
        }
        let probe = Socket::new(Domain::for_address(self.to), Type::DGRAM, None)?;
        probe.connect(&SockAddr::from(self.to))?;
        Ok(SocketAddr::new(local_address(&probe)?.ip(), self.from.port()))
    }

    /// A connected socket in the calling thread's namespace, for what outlasts one question.
    pub(crate) fn connect(&self) -> io::Result<Socket> {
        let socket = self.bound()?;
        socket.connect_timeout(&SockAddr::from(self.to), self.timeout)?;
        Ok(socket)
    }

    fn exchange(&self, mut socket: Socket) -> io::Result<Outcome> {
        let start = Instant::now();
        let deadline = start + self.timeout;
        socket.connect_timeout(&SockAddr::from(self.to), self.timeout)?;
        let source = local_address(&socket)?;
        socket.write_all(QUESTION)?;
        let mut line = Vec::new();
        let mut buffer = [0; 1024];
        let mut again = self.again_after.map(|pause| deadline.min(start + pause));
        let mut repeated = false;
        while !line.contains(&b'\n') {
            let left = again.unwrap_or(deadline).saturating_duration_since(Instant::now());
            if left.is_zero() {
                if again.take().is_none() {
                    return Ok(Outcome::TimedOut);
                }
                repeated = true;
                socket.write_all(QUESTION)?;
                continue;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut buffer) {
                Ok(0) => return Ok(Outcome::Reset),
                Ok(length) => line.extend_from_slice(&buffer[..length]),
                // The time is judged above.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        let latency = start.elapsed();
        match Identity::parse(&line) {
            Some(Identity { by, source_seen, at }) => {
                Ok(Outcome::Answered(Answer { by: by.to_owned(), source_seen, at, source, latency, repeated }))
            }
            // Somebody else's server answered; its words are worth reading.
            None => Ok(Outcome::Answered(Answer {
                by: format!("a stranger: {}", String::from_utf8_lossy(&line).trim_end()),
                source_seen: source,
                at: self.to,
                source,
                latency,
                repeated,
            })),
        }
    }
}

/// The line a server of the lab begins its answer with, taken apart.
pub(crate) struct Identity<'a> {
    pub(crate) by: &'a str,
    pub(crate) source_seen: SocketAddr,
    pub(crate) at: SocketAddr,
}

impl<'a> Identity<'a> {
    pub(crate) fn parse(answer: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(answer.split(|&byte| byte == b'\n').next()?).ok()?;
        let mut words = line.split(' ');
        let mut field = |key| words.next().and_then(|word| word.strip_prefix(key));
        Some(Self { by: field("name=")?, source_seen: field("from=")?.parse().ok()?, at: field("to=")?.parse().ok()? })
    }
}

/// A port that this process has not sent from for as long as can be. The kernel draws ports for UDP and SCTP at random, and one
/// that a question had half a minute ago belongs to that flow still: its packets go where the flow went (UDP: 30 s, and 120 s once
/// answered; `nf_conntrack_udp_timeout`), whatever the rules say of a new one.
fn next_source_port() -> u16 {
    static TURN: AtomicU16 = AtomicU16::new(0);
    SOURCE_PORTS.start + TURN.fetch_add(1, Ordering::Relaxed) % (SOURCE_PORTS.end - SOURCE_PORTS.start)
}

/// Asks for ICMP errors: to SCTP, a port unreachable is otherwise no more than a hint, told when the association times out
/// (`sctp_v4_err` in net/sctp/input.c).
fn report_errors(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match to {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// The socket's own address.
fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet socket"))
}

// === impl Outcome ===

impl Outcome {
    /// The answering server's name, if one answered.
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        match self {
            Self::Answered(answer) => Some(&answer.by),
            _ => None,
        }
    }

    /// The answer.
    ///
    /// # Errors
    /// If there was none; the error says what there was.
    pub fn answer(self) -> Result<Answer> {
        match self {
            Self::Answered(answer) => Ok(answer),
            other => Err(Error::NoAnswer(Box::new(other))),
        }
    }

    /// What an error of a socket call means to a client.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Self::Reset,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Unreachable(error.raw_os_error().unwrap_or(0)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(Answer { by, source_seen, at, latency, .. }) => {
                write!(f, "answered by {by} at {at}, which saw {source_seen}, after {latency:.1?}")
            }
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Forbidden => f.write_str("forbidden by a local verdict"),
            Self::Unreachable(errno) => write!(f, "unreachable ({})", io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl Answer {
    /// Whether the server saw the client's own address and port: no source NAT on the way.
    #[must_use]
    pub fn source_kept(&self) -> bool {
        self.source_seen == self.source
    }
}

// === impl Tally ===

impl Tally {
    /// The names of those who answered, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.answered.keys().map(String::as_str).collect()
    }
}
