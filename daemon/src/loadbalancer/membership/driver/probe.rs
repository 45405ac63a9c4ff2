//! Does the node of a silent daemon live?
//!
//! Both need no privilege. The port: a datagram from a connected socket, because only such a socket is told of ICMP port unreachable.
//! The kernel: a TCP connection to the same number, where nobody listens: a reset comes from the kernel, however stuck its processes
//! are. Where a firewall drops that, a stuck daemon looks like a node that is gone, and its VIPs move without the grace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Evidence;

/// Longer than any answer is waited for; meanwhile the next probes go out.
const LIMIT: Duration = Duration::from_millis(600);

/// Whether a process listens: if none does, the kernel says so.
pub(super) async fn port(member: Arc<str>, address: SocketAddr, question: Vec<u8>) -> Option<(Arc<str>, Evidence)> {
    let refused = async {
        let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(address).await?;
        socket.send(&question).await?;
        // A daemon answers to where its roster says that we are, so nothing but an error arrives here.
        socket.recv(&mut [0; 1]).await
    };
    let outcome = timeout(LIMIT, refused).await.ok()?;
    is_refused(&outcome.map(drop)).then_some((member, Evidence::Refuses))
}

/// Whether the kernel answers: by a reset, or for somebody who listens there.
pub(super) async fn kernel(member: Arc<str>, address: SocketAddr) -> Option<(Arc<str>, Evidence)> {
    let outcome = timeout(LIMIT, TcpStream::connect(address)).await.ok()?.map(drop);
    (outcome.is_ok() || is_refused(&outcome)).then_some((member, Evidence::KernelAnswers))
}

fn is_refused(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
