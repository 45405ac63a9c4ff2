//! The admin socket: what a person on the node asks the daemon, and the daemon alone knows.
//!
//! HTTP/1.1 over a unix socket that only root can open; it is read, and changes nothing. Paths begin with a version: within `/v1`
//! fields are added, none is renamed or taken away. `docs/admin-socket.md` says what each path answers.
//!
//! ```text
//! socket.rs   where it is, whose it is      vips.rs   /v1/vips      client.rs   the other end: `sheave get`
//! ```

mod client;
mod socket;
mod vips;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::health::ProxyHealth;
use crate::http_server::{self, Answer, Reply, Request, reply, text};
use crate::loadbalancer::speaker::Account;
use crate::retry::Retry;

pub use client::{AskError, ask};
pub use socket::SocketError;
pub use vips::{Announcement, Member, NodeStanding, Vip, Vips};

/// Where the socket is, unless another place is given.
pub const SOCKET: &str = "/run/sheave/sheave.sock";
/// Where VIPs are told.
pub const VIPS: &str = "/v1/vips";

/// Name of the problem in `/healthz`.
const PROBLEM: &str = "admin socket";
/// Pauses between attempts to listen.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(30);

/// What the daemon has to tell.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    /// Of the VIPs; `None`: this daemon announces none.
    pub(crate) account: Option<watch::Receiver<Arc<Account>>>,
}

impl Answer for Desk {
    fn answer(&self, request: &Request<'_>) -> Reply {
        if !matches!(*request.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        match request.path {
            VIPS => {
                let account = self.account.as_ref().map(|account| account.borrow().clone());
                json(&Vips::of(account.as_deref(), Timestamp::now()))
            }
            _ => text(StatusCode::NOT_FOUND, format!("404 page not found; there is {VIPS}\n")),
        }
    }
}

fn json(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => reply(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Listens at the path, as soon as it can be had, until cancelled; then nothing is left there.
pub(crate) async fn serve(path: PathBuf, answer: Arc<dyn Answer>, health: Arc<ProxyHealth>, cancel: CancellationToken) {
    let mut retry = Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST);
    let mut told = None;
    loop {
        match socket::Bound::at(&path) {
            Ok((bound, listener)) => {
                health.problem(PROBLEM, None);
                tracing::debug!(path = %path.display(), "the admin socket is open");
                http_server::serve(listener, answer, cancel).await;
                drop(bound);
                return;
            }
            Err(error) => {
                let error = crate::daemon::with_causes(&error);
                if told.as_ref() != Some(&error) {
                    tracing::warn!("`sheave get` will not reach this daemon: {error}");
                }
                health.problem(PROBLEM, Some(error.clone()));
                told = Some(error);
            }
        }
        if cancel.run_until_cancelled(sleep(retry.next())).await.is_none() {
            health.problem(PROBLEM, None);
            return;
        }
    }
}

#[cfg(test)]
mod tests;
