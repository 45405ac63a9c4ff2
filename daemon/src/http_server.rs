//! A small HTTP/1.1 server for probes, scrapes and the admin socket: few connections, short requests, and no patience with slow peers.
//!
//! A probe must be answered while the API server, the kernel or a scraper misbehave, so nothing here waits for anybody: handlers
//! compute an answer from what is in memory, and a connection that dawdles is closed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::retry::Retry;

/// Connections of one listener at a time. For one more the oldest is closed: a probe must not wait for peers that say nothing.
const CONNECTIONS: usize = 64;
/// How long a request may take to arrive, and how long an idle connection is kept. A scraper that comes every half minute connects
/// anew; a slow one must not hold a place.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection is closed after this, between two requests if it can be.
const LONGEST: Duration = Duration::from_secs(120);
/// Of a request's body; only a log filter is ever sent to us.
const LARGEST_BODY: usize = 4 << 10;
/// Of a request's head.
const LARGEST_HEAD: usize = 16 << 10;
/// Queue of the kernel for connections that are not accepted yet.
const BACKLOG: i32 = 128;

/// What is asked.
pub(crate) struct Request<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    pub(crate) body: &'r [u8],
    /// Who asks; none over a unix socket.
    pub(crate) peer: Option<SocketAddr>,
}

/// What is answered.
pub(crate) type Reply = Response<Full<Bytes>>;

/// Answers requests, at once and from memory.
pub(crate) trait Answer: Send + Sync + 'static {
    fn answer(&self, request: &Request<'_>) -> Reply;
}

/// Where connections come from.
pub(crate) trait Listen: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one, and whose it is.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        Self::accept(self).await.map(|(stream, peer)| (stream, Some(peer)))
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<SocketAddr>)> {
        Self::accept(self).await.map(|(stream, _)| (stream, None))
    }
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}: {source}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Listens. `both_families` makes `[::]` accept IPv4 as well, whatever the system's default.
pub(crate) fn bind(address: SocketAddr, both_families: bool) -> Result<TcpListener, BindError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!(both_families && address.ip().is_unspecified()))?;
        }
        // Connections of the process before us may still be closing.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|source| BindError { address, source })
}

/// Listens as soon as the address can be had; `None` if cancelled before. `failed` hears of each attempt, and which is the first.
pub(crate) async fn listen(
    address: SocketAddr,
    both_families: bool,
    mut retry: Retry,
    cancel: &CancellationToken,
    failed: impl Fn(&BindError, bool),
) -> Option<TcpListener> {
    let mut first = true;
    loop {
        match bind(address, both_families) {
            Ok(listener) => return Some(listener),
            Err(error) => failed(&error, std::mem::take(&mut first)),
        }
        cancel.run_until_cancelled(sleep(retry.next())).await?;
    }
}

/// Serves until cancelled; then no connection outlives the request it carries.
pub(crate) async fn serve(listener: impl Listen, answer: Arc<dyn Answer>, cancel: CancellationToken) {
    // By age, and looked through when another one comes.
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    while let Some(accepted) = cancel.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tokio::spawn(connection(stream, peer, answer.clone(), cancel.clone())).abort_handle());
            }
            // The peer has gone, or descriptors have run out: both pass.
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Option<SocketAddr>,
    answer: Arc<dyn Answer>,
    cancel: CancellationToken,
) {
    let service = service_fn(|request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(respond(&*answer, request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // Whatever the peer did wrong is its own affair.
        _ = connection.as_mut() => return,
        () = cancel.cancelled() => {}
        () = sleep(LONGEST) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(PATIENCE, connection).await;
}

async fn respond(answer: &dyn Answer, request: http::Request<Incoming>, peer: Option<SocketAddr>) -> Reply {
    let (head, body) = request.into_parts();
    let body = match timeout(PATIENCE, Limited::new(body, LARGEST_BODY).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broken\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come\n"),
    };
    answer.answer(&Request { method: &head.method, path: head.uri.path(), body: &body, peer })
}

/// A reply in plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

/// A reply of any type. No browser shall guess another one.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

#[cfg(test)]
mod tests;
