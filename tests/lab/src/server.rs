//! Servers in a host's namespace that say who they are and whom they saw.

use crate::{Error, Namespace, Result};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, mpsc},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    sync::oneshot,
};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; the kernel may lack it: [`Capability::Sctp`](crate::Capability::Sctp).
    Sctp,
}

/// A port to answer on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number; not 0.
    pub number: u16,
}

/// Servers on one host: a thread in its namespace. Dropping it closes listeners and connections alike.
#[derive(Debug)]
pub(crate) struct Server {
    /// Dropping the sender ends the thread.
    _stop: oneshot::Sender<()>,
}

/// A bound socket, not yet given to a runtime.
enum Listener {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

/// The longest first line a client may send before it gets its answer.
const LINE_LIMIT: usize = 4096;

// === impl Port ===

impl Port {
    /// A TCP port.
    #[must_use]
    pub const fn tcp(number: u16) -> Self {
        Self { protocol: Protocol::Tcp, number }
    }

    /// A UDP port.
    #[must_use]
    pub const fn udp(number: u16) -> Self {
        Self { protocol: Protocol::Udp, number }
    }

    /// An SCTP port.
    #[must_use]
    pub const fn sctp(number: u16) -> Self {
        Self { protocol: Protocol::Sctp, number }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.protocol, self.number)
    }
}

impl Protocol {
    /// A socket of this protocol.
    pub(crate) fn socket(self, domain: Domain) -> io::Result<Socket> {
        match self {
            Self::Tcp => Socket::new(domain, Type::STREAM, Some(socket2::Protocol::TCP)),
            Self::Udp => Socket::new(domain, Type::DGRAM, Some(socket2::Protocol::UDP)),
            // One-to-one style (RFC 6458 section 4): connect, accept, read and write as with TCP.
            Self::Sctp => {
                let socket = Socket::new(domain, Type::STREAM, Some(socket2::Protocol::from(libc::IPPROTO_SCTP)))?;
                // SCTP notes an ICMP error and goes on trying, unless one asks to be told at once (sctp_v4_err in net/sctp/input.c):
                // only so a client can tell "refused" from silence.
                match domain {
                    Domain::IPV4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
                    _ => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
                }
                Ok(socket)
            }
        }
    }
}

// === impl Server ===

impl Server {
    /// Binds every port at every address and answers until dropped. Addresses are bound one by one, not as a wildcard:
    /// a datagram is then answered from the address it was sent to, and the answer can name it.
    pub(crate) fn start(namespace: &Namespace, name: &str, addresses: &[IpAddr], ports: &[Port]) -> Result<Self> {
        let listeners = namespace.run(|| bind(addresses, ports))??;
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = mpsc::channel();
        let name: Arc<str> = name.into();
        namespace.start(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().build() {
                Ok(runtime) => runtime,
                Err(source) => return drop(ready.send(Err(source))),
            };
            runtime.block_on(async {
                for listener in listeners {
                    if let Err(source) = listener.serve(&name) {
                        return drop(ready.send(Err(source)));
                    }
                }
                drop(ready.send(Ok(())));
                // Ends when the sender is dropped; then the runtime goes, and with it every task and socket.
                let _ = stopped.await;
            });
        })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { _stop: stop }),
            Ok(Err(source)) => Err(Error::call("serve on", namespace.name())(source)),
            Err(_) => Err(Error::call("serve on", namespace.name())(io::Error::other("the server's thread ended"))),
        }
    }
}

impl Listener {
    /// Hands the socket to the current runtime.
    fn serve(self, name: &Arc<str>) -> io::Result<()> {
        let name = Arc::clone(name);
        match self {
            Self::Stream(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::spawn(async move {
                    loop {
                        // An error here is of one connection (ECONNABORTED); the next may be well.
                        let Ok((stream, from)) = listener.accept().await else { continue };
                        let name = Arc::clone(&name);
                        tokio::spawn(async move {
                            // A client that goes away is its own affair: it reports what it saw.
                            let _ = converse(stream, from, &name).await;
                        });
                    }
                });
            }
            Self::Datagram(socket) => {
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                let to = socket.local_addr()?;
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    loop {
                        // Errors are ICMP answers to earlier replies.
                        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                        let mut reply = identity(&name, from, to).into_bytes();
                        reply.extend_from_slice(&buffer[..length]);
                        let _ = socket.send_to(&reply, from).await;
                    }
                });
            }
        }
        Ok(())
    }
}

/// Answers one connection: the client's first line with the identity, everything after it with an echo. A first line of HTTP
/// gets the identity as a response, so that real web clients can be used.
async fn converse(stream: tokio::net::TcpStream, from: SocketAddr, name: &str) -> io::Result<()> {
    let identity = identity(name, from, stream.local_addr()?);
    // SCTP has no such option, and no need of it.
    let _ = stream.set_nodelay(true);
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(reader, LINE_LIMIT as u64));
    let mut first = Vec::new();
    if reader.read_until(b'\n', &mut first).await? == 0 {
        return Ok(());
    }
    if first.starts_with(b"GET ") || first.starts_with(b"HEAD ") {
        // The rest of the request is read first: closing over unread bytes resets the connection under the client's answer.
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).await? > 2 {
            line.clear();
        }
        let length = identity.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        writer.write_all(format!("{head}{identity}").as_bytes()).await?;
        return writer.shutdown().await;
    }
    writer.write_all(identity.as_bytes()).await?;
    reader.get_mut().set_limit(u64::MAX);
    tokio::io::copy_buf(&mut reader, &mut writer).await.map(drop)
}

/// The line every answer begins with.
fn identity(name: &str, from: SocketAddr, to: SocketAddr) -> String {
    format!("name={name} from={from} to={to}\n")
}

fn bind(addresses: &[IpAddr], ports: &[Port]) -> Result<Vec<Listener>> {
    let mut listeners = Vec::with_capacity(addresses.len() * ports.len());
    for &address in addresses {
        for &port in ports {
            let at = SocketAddr::new(address, port.number);
            listeners.push(listen(port.protocol, at).map_err(Error::call("listen on", format!("{at} ({port})")))?);
        }
    }
    Ok(listeners)
}

fn listen(protocol: Protocol, at: SocketAddr) -> io::Result<Listener> {
    let socket = protocol.socket(Domain::for_address(at))?;
    if protocol != Protocol::Udp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(at))?;
    socket.set_nonblocking(true)?;
    if protocol == Protocol::Udp {
        // A busy machine may leave the server waiting while a thousand datagrams come; the loss would be the lab's own. Best effort:
        // beyond net.core.rmem_max it needs CAP_NET_ADMIN outside of any user namespace.
        let _ = set_receive_buffer(&socket, 4 << 20);
        return Ok(Listener::Datagram(socket.into()));
    }
    socket.listen(4096)?;
    Ok(Listener::Stream(socket.into()))
}

/// SO_RCVBUFFORCE: the size asked for, whatever the limit for ordinary processes.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::RcvBufForce, &bytes)?)
}
