//! The daemon's sync loop in this process, driven through its channel as a source does, on the real kernel of a namespace.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use sheave::config::{Options, SourceOptions};
use sheave::daemon::{Control, Inputs, Outputs, Reporter, SyncLoop, Watchman};
use sheave::dataplane::nftables::NftablesPlane;
use sheave::health::{ProxyHealth, STALE_AFTER};
use sheave::netlink::nft::{KernelNft, NftDoor as _};
use sheave::netlink::route::LocalAddresses;
use sheave::source::{Change, Kind, Mark};
use sheave::table::Published;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::objects::{Decoder, Document};
use crate::proxy::NODE;

/// As the daemon has it.
const CHANGES_QUEUED: usize = 1024;
/// Nothing of a healthy loop takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The stream of the bench's own marks.
const STREAM: &str = "bench";

/// A running loop. Dropping it ends it and waits for its end: the namespace goes with its last user, and what comes next is to find the
/// kernel's memory as it was.
pub(super) struct Driver {
    changes: mpsc::Sender<Change>,
    marks: watch::Receiver<Vec<Mark>>,
    cancel: CancellationToken,
    /// The loop's. `None` once it was waited for.
    thread: Option<JoinHandle<()>>,
    /// Waits for marks.
    runtime: tokio::runtime::Runtime,
    marked: u64,
    /// Kept open: a loop whose inputs have ended, ends.
    _control: mpsc::Sender<Control>,
    _addresses: watch::Sender<LocalAddresses>,
}

impl Driver {
    /// Starts a loop in this thread's namespace, with the monitor beside it as in the daemon: being told of commits has its price,
    /// and the daemon pays it.
    pub(super) fn start() -> Result<Self> {
        let door = KernelNft::open().context("opening nf_tables")?;
        let (changes, changes_in) = mpsc::channel(CHANGES_QUEUED);
        let (control, control_in) = mpsc::channel(64);
        let (addresses, addresses_in) = watch::channel(LocalAddresses::new());
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let watchman = Watchman::start(door.port_id(), control.clone(), health.clone()).context("watching the table")?;
        let outputs = Outputs {
            published: Arc::new(Published::default()),
            marks: watch::Sender::new(Vec::new()),
            reporter: Reporter::default(),
            stale_flows: None,
            metrics: Arc::default(),
            health,
        };
        let marks = outputs.marks.subscribe();
        let cancel = CancellationToken::new();
        let sync_loop =
            SyncLoop::new(Arc::new(options()), Box::new(NftablesPlane::new(Box::new(door))), outputs).watched_by(watchman);
        let inputs = Inputs { changes: changes_in, control: control_in, addresses: addresses_in };
        let running = sync_loop.run(inputs, cancel.clone());
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().context("making a runtime");
        let own = runtime()?;
        let thread = std::thread::Builder::new().name("sync".into());
        let thread = Some(thread.spawn(move || own.block_on(running)).context("starting the loop")?);
        Ok(Self { changes, marks, cancel, thread, runtime: runtime()?, marked: 0, _control: control, _addresses: addresses })
    }

    /// Lists objects as a source does that has just begun, and waits until they are in the kernel.
    pub(super) fn fill(&mut self, documents: impl Iterator<Item = Document>, decoder: &mut Decoder) -> Result<()> {
        const KINDS: [Kind; 5] = [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice];
        for kind in KINDS {
            self.send(Change::Listing(kind))?;
        }
        for document in documents {
            self.send(decoder.change(&document)?)?;
        }
        let complete = KINDS.map(Change::Listed);
        self.apply(complete).map(drop)
    }

    /// Puts changes into the loop's channel and waits until the kernel has acknowledged all of them.
    pub(super) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<Duration> {
        self.marked += 1;
        let point = self.marked.to_string();
        let sent = Instant::now();
        for change in changes {
            self.send(change)?;
        }
        self.send(Change::Mark(Mark { stream: STREAM, point: point.clone() }))?;
        let (marks, runtime) = (&mut self.marks, &self.runtime);
        let reached = |marks: &Vec<Mark>| marks.iter().any(|mark| mark.stream == STREAM && mark.point == point);
        let waited =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, marks.wait_for(reached)).await.map(|seen| seen.is_ok()) });
        match waited {
            Ok(true) => Ok(sent.elapsed()),
            Ok(false) => Err(anyhow!("the sync loop has ended")),
            Err(_) => Err(anyhow!("the sync loop did not reach mark {point} within {PATIENCE:?}")),
        }
    }

    fn send(&self, change: Change) -> Result<()> {
        self.changes.blocking_send(change).map_err(|_| anyhow!("the sync loop has ended"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.cancel.cancel();
        // A loop that panicked has said so.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn options() -> Options {
    // The source is never read: the bench is it.
    Options::new(NODE.into(), SourceOptions::Manifests(PathBuf::new()))
}
