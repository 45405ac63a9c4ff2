//! A Kubernetes API server as a source: a set of watches, each with its own connection, its own pace and its own task.
//!
//! The watches are our own and not kube's `watcher`: it has no way back from streaming lists to pages, keeps a page of lists in
//! memory, and copies every event twice. An event here is one line, decoded where it lies.
//!
//! Nothing the server does ends a source. It is waited for, and what was delivered stays in force meanwhile.

mod backoff;
mod connect;
mod events;
mod failure;
mod health;
mod meter;
mod request;
mod resource;
mod split;
mod watcher;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::connect::parse as parse_url;
pub use self::connect::{ApiServers, ConnectError, KubeOptions, Timing, connect, look_at, try_connect};
pub use self::events::{EventSink, EventSubject, Remark, Severity};
pub use self::health::{Health, StreamHealth, StreamState};
pub use self::meter::{Asked, Meter};
pub use self::request::{ApiRequest, RequestError};
pub use self::resource::Watches;

use self::failure::Failure;
use self::watcher::Watcher;
use super::Change;

/// The watches of one cluster.
#[derive(Debug)]
pub struct KubeSource {
    options: KubeOptions,
    watches: Watches,
    servers: Arc<ApiServers>,
    health: Arc<Health>,
}

impl KubeSource {
    /// A source that has not begun. `servers` comes from [`connect`] with the same options.
    #[must_use]
    pub fn new(servers: Arc<ApiServers>, options: KubeOptions) -> Self {
        Self::of(Watches::default(), servers, options)
    }

    /// One of another set of watches. Several sources of one process share their `servers`, and each has a channel and a health of its
    /// own: what holds up one of them is not the others' business.
    #[must_use]
    pub fn of(watches: Watches, servers: Arc<ApiServers>, options: KubeOptions) -> Self {
        Self { options, watches, servers, health: Arc::default() }
    }

    /// The same, which tells a health how its watches are doing that others of this process tell, too: an outage of the server is one
    /// for all of them.
    #[must_use]
    pub fn telling(self, health: Arc<Health>) -> Self {
        Self { health, ..self }
    }

    /// How the watches are doing; stays valid while they run.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        self.health.clone()
    }

    /// Watches until cancelled, or until nobody listens. Changes of one kind come in order; kinds are independent of each other.
    /// A full channel holds up the streams, and nothing is lost.
    pub async fn run(self, changes: Sender<Change>, cancel: CancellationToken) {
        let mut watchers = JoinSet::new();
        let resources = self.watches.resources(&self.options);
        let streams: Vec<_> = resources.iter().map(|resource| resource.stream).collect();
        for resource in resources {
            let watcher =
                Watcher::new(resource, self.servers.clone(), self.health.clone(), changes.clone(), self.options.timing.clone());
            // Who gives addresses away must know what was given a moment ago, by whoever did so before.
            let watcher = if self.watches == Watches::Controller { watcher.beginning_at_the_store() } else { watcher };
            watchers.spawn(watcher.run());
        }
        drop(changes);
        // Dropping the set ends its tasks, wherever they are.
        let ended = cancel.run_until_cancelled(watchers.join_next()).await;
        if let Some(Some(Err(error))) = ended {
            // One stream that stands still for ever would be worse than none: the loop sees the end of all, and so does the operator.
            tracing::error!(%error, "a watch has died");
        }
        watchers.shutdown().await;
        streams.into_iter().for_each(|stream| self.health.unregister(stream));
    }
}
