//! The process whose rules are measured: sheave, or a kube-proxy.

mod log;

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sheave_lab::{Namespace, Process};
use tempfile::NamedTempFile;

use crate::daemon::{Daemon, Plane};
use crate::machine;
use crate::peer::{Access, KubeProxy};
use crate::program;
use log::Log;
pub(crate) use log::Sync;

/// Who serves a node.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    Sheave { daemon: Daemon, plane: Plane },
    KubeProxy(KubeProxy),
}

/// It, serving. Dropping it kills it and all that it started; its rules go with their namespace.
pub(crate) struct Proxy {
    process: Process,
    /// When it was spawned.
    pub(crate) started: Instant,
    log: Arc<Log>,
    /// Read by kube-proxy until its end.
    _configuration: Option<NamedTempFile>,
}

/// Name of the node under test.
pub(crate) const NODE: &str = "test-node";
/// Its address, as the lab has it.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
/// Holds every pod of the lab and of the load.
pub(crate) const CLUSTER_CIDR: &str = "10.128.0.0/9";
/// For what a proxy said before it ended to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For a line about something that was seen to have happened.
const PATIENCE: Duration = Duration::from_secs(30);

impl Server {
    /// As in the results.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sheave { plane, .. } => format!("sheave {}", plane.name()),
            Self::KubeProxy(peer) => format!("kube-proxy {} {}", peer.version, peer.mode.name()),
        }
    }

    /// Starts it on the node, against the API server there.
    pub(crate) fn start(&self, node: &Namespace, access: Access<'_>) -> Result<Proxy> {
        let (mut command, configuration) = match self {
            Self::Sheave { daemon, plane } => (daemon.command(*plane, access), None),
            Self::KubeProxy(peer) => {
                let (command, file) = peer.command(access, NODE, CLUSTER_CIDR)?;
                (command, Some(file))
            }
        };
        // The bench's own surroundings must not reach it: with a kubeconfig it would ask another cluster.
        for name in ["KUBECONFIG", "SHEAVE_LOG", "NODE_NAME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
            command.env_remove(name);
        }
        // Ctrl-C at a terminal goes to the whole group: the bench is to end first, and the kernel ends the proxy with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let mut process = node.spawn_contained(command).with_context(|| format!("starting {name}"))?;
        let (output, errors) = (process.child().stdout.take(), process.child().stderr.take());
        let log = Log::follow(output.context("it has no output")?, errors.context("it has no log")?)?;
        Ok(Proxy { process, started, log, _configuration: configuration })
    }
}

impl Proxy {
    /// Its end, with its last words, if it has ended.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        let ended = self.process.child().try_wait().context("asking for the proxy's end")?;
        if let Some(status) = ended {
            self.log.await_end(LAST_WORDS);
            bail!("the proxy ended ({status}) and {}", self.last_words());
        }
        Ok(())
    }

    /// Waits until it says that it has written so many Services. That of kube-proxy is not waited for: it says no such thing, and
    /// brings all Services at once.
    pub(crate) fn ensure_wrote(&self, server: &Server, services: u32) -> Result<()> {
        let Server::Sheave { .. } = server else { return Ok(()) };
        let synced = self.log.await_services(services.into(), PATIENCE);
        ensure!(synced >= services.into(), "the daemon wrote {synced} Services of {services}; it {}", self.last_words());
        Ok(())
    }

    /// The next sync that sheave tells of; it is known to have happened.
    pub(crate) fn next_sync(&mut self) -> Result<Sync> {
        let Some(sync) = self.log.next_sync(PATIENCE) else {
            self.ensure_running()?;
            bail!("no sync within {PATIENCE:?}; the daemon {}", self.last_words());
        };
        Ok(sync)
    }

    /// Syncs told of by now.
    pub(crate) fn further_syncs(&self) -> Vec<Sync> {
        self.log.further_syncs()
    }

    /// Processor time of sheave's loop so far: taking in objects, and syncs.
    pub(crate) fn loop_time(&self) -> Result<Duration> {
        let time = machine::thread_time(self.process.id(), "sync");
        time.with_context(|| format!("the daemon's loop has ended; it {}", self.last_words()))
    }

    /// Peak and present memory in MB, without that of programs it starts.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let id = self.process.id();
        let memory = machine::peak_rss_mb(id).zip(machine::rss_mb(id));
        memory.with_context(|| format!("the proxy has ended and {}", self.last_words()))
    }

    /// Processor time so far, with that of programs it started and that have ended.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        machine::process_time(self.process.id()).with_context(|| format!("the proxy has ended and {}", self.last_words()))
    }

    /// What it said last, as it stands behind its name.
    pub(crate) fn last_words(&self) -> String {
        program::said(&self.log.last_words())
    }
}
