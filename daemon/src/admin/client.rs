//! Asking the daemon of this node.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// For the whole answer. The daemon answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is as large as that.
const LARGEST: usize = 64 << 20;

/// The daemon did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no socket, or nobody listens.
    #[error("no sheave runs on this node: {}; is this the node, and --admin-socket the daemon's?", path.display())]
    Nobody {
        /// Where it was looked for.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket is root's.
    #[error("{} is for root alone; try sudo", path.display())]
    Denied {
        /// Which socket.
        path: PathBuf,
    },
    /// It does not answer, or what it answers is no HTTP.
    #[error("the daemon at {} does not answer: {why}", path.display())]
    Silent {
        /// Where.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// It has no such thing: another version of sheave.
    #[error("the daemon at {} answers {status} to {asked}: {words}; is it of another version than this program?", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What was asked.
        asked: String,
        /// Its answer's code.
        status: StatusCode,
        /// Its words.
        words: String,
    },
}

/// Asks the daemon at a socket for something, and waits no longer than five seconds.
///
/// # Errors
/// See [`AskError`].
pub async fn ask<T: DeserializeOwned>(socket: &Path, what: &str) -> Result<T, AskError> {
    let silent = |why: String| AskError::Silent { path: socket.to_owned(), why };
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AskError::Denied { path: socket.to_owned() },
        _ => AskError::Nobody { path: socket.to_owned(), source },
    })?;
    let answer = timeout(PATIENCE, exchange(stream, what)).await;
    let (status, body) = match answer {
        Ok(answer) => answer.map_err(|error| silent(error.to_string()))?,
        Err(_) => return Err(silent(format!("nothing came within {} s", PATIENCE.as_secs()))),
    };
    if status != StatusCode::OK {
        let words = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        return Err(AskError::Refused { path: socket.to_owned(), asked: what.to_owned(), status, words });
    }
    serde_json::from_slice(&body).map_err(|error| silent(format!("its answer cannot be read: {error}")))
}

async fn exchange(stream: UnixStream, what: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    // HTTP/1.1 wants a host; there is none.
    let request = http::Request::get(what).header(http::header::HOST, "sheave").body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
    driving.abort();
    Ok((head.status, body))
}
