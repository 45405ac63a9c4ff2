//! A file or a directory of ordinary Kubernetes YAML or JSON, watched: Services, and pools for their addresses, without a cluster.
//!
//! The selectors that an API server would apply are applied here. Objects get what a person expects of a manifest: the API
//! server's defaults, the namespace `default`, and a [`Problem`](crate::model::Problem) where only an allocator could fill a gap.
//!
//! What was understood stays in force until something better is there: a file that stops being YAML, cannot be read or is emptied
//! keeps its last good version until its name is gone, and a path that disappears as a whole (a mount that went away looks the
//! same) keeps everything. An empty directory is empty. A file that is rewritten in place can be met half-written if another one
//! changes at that moment; replace files by rename. For users: `docs/manifests.md`.

mod ages;
mod documents;
mod files;
mod kinds;
mod misspelt;
mod parse;
mod store;
mod watch;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::store::Store;
pub(crate) use self::watch::{PathWatch, until_there};
use super::Change;

/// The stream of this source's [`Mark`](super::Mark)s.
pub const STREAM: &str = "manifests";

/// What of the manifests is delivered.
#[derive(Clone, Debug, Default)]
pub struct ManifestOptions {
    /// Our node's name: of Node documents, only this one counts.
    pub node_name: Arc<str>,
    /// Also deliver headless Services and their slices, for DNS. kube-proxy's selectors leave them out.
    pub headless: bool,
}

/// Watches `path` until cancelled and tells its objects, then its changes, each load in one [`Change::Together`] that ends with a mark of
/// [`STREAM`] whose point is the [`digest`] of what was read. The task ends when it is cancelled or nobody listens any more.
pub fn spawn(path: PathBuf, options: ManifestOptions, changes: Sender<Change>, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        cancel.run_until_cancelled(run(path, options, changes)).await;
    })
}

/// What identifies the present contents of a path of manifests: equal to the point of the mark that follows their load.
///
/// # Errors
/// The path cannot be read.
pub fn digest(path: impl AsRef<Path>) -> io::Result<String> {
    let path = path.as_ref();
    files::read(path, &files::list(path)?).map(|contents| files::digest_of(&contents))
}

async fn run(path: PathBuf, options: ManifestOptions, changes: Sender<Change>) {
    let mut watch = PathWatch::new(path.clone());
    let mut store = Store::new(options);
    let mut unreadable = false;
    loop {
        watch.arm();
        let (returned, armed, loaded) = match load(path.clone(), watch, store).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // Only a panic of ours could do this, and then the state is lost with it: nothing further can be told.
                tracing::error!("reading manifests of {} failed: {error}", path.display());
                return;
            }
        };
        (store, watch) = (returned, armed);
        match loaded {
            Ok(batch) => {
                if std::mem::take(&mut unreadable) {
                    info!("{} is readable again", path.display());
                }
                if !batch.is_empty() && changes.send(Change::Together(batch)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut unreadable, true) {
                    warn!("manifests of {} cannot be read ({error}): what is in force stays, waiting for it", path.display());
                }
            }
        }
        watch.changed().await;
    }
}

type Loaded = (Store, PathWatch, io::Result<Vec<Change>>);

/// Reads and decodes on a thread that may block.
async fn load(path: PathBuf, mut watch: PathWatch, mut store: Store) -> Result<Loaded, tokio::task::JoinError> {
    tokio::task::spawn_blocking(move || {
        let loaded = files::list(&path).and_then(|files| {
            watch.arm_targets(&files);
            let contents = files::read(&path, &files)?;
            watch.expect_attributes(contents.values().any(|found| found.bytes.is_err()));
            Ok(store.load(&contents))
        });
        (store, watch, loaded)
    })
    .await
}
