//! The process whose rules are measured, and what it says.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use sheave_lab::{Namespace, Process};
use tempfile::NamedTempFile;

use crate::machine;
use crate::peer::{Access, KubeProxy};

/// A plane of sheave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plane {
    Nftables,
}

/// Who serves a node.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    Sheave(Plane),
    KubeProxy(KubeProxy),
}

/// It, serving. Dropping it kills it; its rules go with their namespace.
pub(crate) struct Proxy {
    process: Process,
    /// When it was spawned.
    pub(crate) started: Instant,
    log: Arc<Log>,
    /// Read by kube-proxy until its end.
    _configuration: Option<NamedTempFile>,
}

/// The last lines it said, and how many Services its largest sync had.
#[derive(Default)]
struct Log {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    last: VecDeque<String>,
    synced: u64,
    /// It will say no more.
    ended: bool,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    message: String,
    #[serde(default)]
    services: u64,
}

/// Name of the node under test.
pub(crate) const NODE: &str = "test-node";
/// Its address, as the lab has it.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 2);
/// Holds every pod of the lab and of the load.
const CLUSTER_CIDR: &str = "10.128.0.0/9";
/// Lines to show when it fails.
const KEPT: usize = 12;
/// For what a proxy said before it ended to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For a line about something that was seen to have happened.
const PATIENCE: Duration = Duration::from_secs(30);

impl Plane {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
        }
    }
}

impl Server {
    /// As in the results.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Sheave(plane) => format!("sheave {}", plane.name()),
            Self::KubeProxy(peer) => format!("kube-proxy {} {}", peer.version, peer.mode.name()),
        }
    }

    /// Starts it on the node, against the API server there.
    pub(crate) fn start(&self, node: &Namespace, access: Access<'_>) -> Result<Proxy> {
        let (mut command, configuration) = match self {
            Self::Sheave(plane) => (sheave(*plane, access)?, None),
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
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let mut process = node.spawn(command).with_context(|| format!("starting {program}"))?;
        let stderr = process.child().stderr.take().context("it has no log")?;
        let log = Arc::new(Log::default());
        let writer = log.clone();
        thread::Builder::new().name("log".into()).spawn(move || writer.follow(stderr)).context("reading its log")?;
        Ok(Proxy { process, started, log, _configuration: configuration })
    }
}

impl Proxy {
    /// Its end, with its last words, if it has ended.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        let ended = self.process.child().try_wait().context("asking for the proxy's end")?;
        if let Some(status) = ended {
            // What it said is on its way still; a child of its own may hold the other end open.
            let more = |said: &mut Said| !said.ended;
            let _ = self.log.more.wait_timeout_while(self.log.said(), LAST_WORDS, more);
            bail!("the proxy ended ({status}):\n{}", self.last_words());
        }
        Ok(())
    }

    /// Waits until it says that it has written so many Services. That of kube-proxy is not waited for: it says no such thing, and
    /// brings all Services at once.
    pub(crate) fn ensure_wrote(&self, server: &Server, services: u32) -> Result<()> {
        let Server::Sheave(_) = server else { return Ok(()) };
        let enough = |said: &mut Said| said.synced < u64::from(services);
        let (said, _) =
            self.log.more.wait_timeout_while(self.log.said(), PATIENCE, enough).unwrap_or_else(PoisonError::into_inner);
        let synced = said.synced;
        drop(said);
        ensure!(synced >= services.into(), "the daemon wrote {synced} Services of {services}:\n{}", self.last_words());
        Ok(())
    }

    /// Peak and present memory in MB, without that of programs it starts.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let id = self.process.id();
        let memory = machine::peak_rss_mb(id).zip(machine::rss_mb(id));
        memory.with_context(|| format!("the proxy has ended:\n{}", self.last_words()))
    }

    /// Processor time so far, with that of programs it started and that have ended.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        machine::process_time(self.process.id()).with_context(|| format!("the proxy has ended:\n{}", self.last_words()))
    }

    pub(crate) fn last_words(&self) -> String {
        self.log.said().last.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Log {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, source: impl Read) {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            let record: Option<Record> = serde_json::from_str(&line).ok();
            let mut said = self.said();
            if let Some(record) = record.filter(|record| record.message == "synced") {
                said.synced = said.synced.max(record.services);
            }
            said.last.push_back(line);
            if said.last.len() > KEPT {
                said.last.pop_front();
            }
            drop(said);
            self.more.notify_all();
        }
        self.said().ended = true;
        self.more.notify_all();
    }
}

/// `sheave run`, of the binary beside this one: built together, measured together.
fn sheave(plane: Plane, access: Access<'_>) -> Result<Command> {
    let program: PathBuf = std::env::current_exe().context("finding this program")?.with_file_name("sheave");
    ensure!(
        program.is_file(),
        "{} is not there: build it with `cargo build --release -p sheave -p sheave-bench`",
        program.display()
    );
    let mut command = Command::new(program);
    command.args(["run", "--source", "kube", "--node-name", NODE, "--plane", plane.name()]).args([
        "--cluster-cidr",
        CLUSTER_CIDR,
        "--log-format",
        "json",
    ]);
    match access {
        Access::Double(url) => command.args(["--api-server", url]),
        Access::Kubeconfig(file) => command.arg("--kubeconfig").arg(file),
    };
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_keeps_its_end_and_the_largest_sync() {
        let log = Log::default();
        let lines = (0..20).map(|n| format!(r#"{{"message":"synced","services":{n}}}"#));
        let text: Vec<String> = lines.chain(["not json".to_owned(), r#"{"message":"other","services":99}"#.to_owned()]).collect();
        log.follow(text.join("\n").as_bytes());
        let said = log.said();
        assert_eq!((said.synced, said.last.len()), (19, KEPT));
        assert!(said.last.back().unwrap().contains("other"));
    }
}
