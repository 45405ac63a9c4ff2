//! The daemon under test: a process of its own, its log, its memory.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use sheave_lab::{Namespace, Process};

use super::stage::NODE;
use crate::machine;

/// For the daemon to say that something happened which did happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Subject {
    process: Process,
    /// When it was spawned.
    pub(super) started: Instant,
    log: mpsc::Receiver<Line>,
    /// What it said, for a person who has to find out why it ended.
    said: String,
}

/// What the daemon says of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sync {
    /// Services that were evaluated.
    pub(super) services: u64,
    /// Elements written, deletions included.
    pub(super) elements: u64,
    /// From the loop's first look at the dirty Services to the kernel's acknowledgement.
    pub(super) whole: Duration,
    /// Of that, in the kernel.
    pub(super) kernel: Duration,
}

/// A line of the log.
struct Line {
    text: String,
    sync: Option<Sync>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    message: String,
    #[serde(default)]
    services: u64,
    #[serde(default)]
    elements: u64,
    #[serde(default)]
    whole_us: u64,
    #[serde(default)]
    kernel_us: u64,
}

impl Subject {
    /// Starts `sheave run` on the node, against the double.
    pub(super) fn start(node: &Namespace, api_server: &str) -> Result<Self> {
        let program = program()?;
        let mut command = Command::new(&program);
        command
            .args(["run", "--source", "kube", "--api-server", api_server, "--node-name", NODE])
            .args(["--cluster-cidr", "10.128.0.0/9", "--log-format", "json"])
            // The bench's own surroundings must not reach the daemon: with a kubeconfig it would ask another cluster.
            .env_remove("KUBECONFIG")
            .env_remove("SHEAVE_LOG")
            .env_remove("NODE_NAME")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = node.spawn(command).with_context(|| format!("starting {}", program.display()))?;
        let stderr = process.child().stderr.take().context("the daemon has no log")?;
        let (lines, log) = mpsc::channel();
        std::thread::spawn(move || read_log(stderr, &lines));
        Ok(Self { process, started, log, said: String::new() })
    }

    /// The next sync that the daemon tells of.
    pub(super) fn next_sync(&mut self) -> Result<Sync> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.said.push_str(&line.text);
                    if let Some(sync) = line.sync {
                        return Ok(sync);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("no sync within {PATIENCE:?}; the daemon said:\n{}", self.said),
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("sheave run ended:\n{}", self.said),
            }
        }
    }

    /// Syncs told of by now.
    pub(super) fn further_syncs(&mut self) -> Vec<Sync> {
        std::iter::from_fn(|| self.log.try_recv().ok()).filter_map(|line| line.sync).collect()
    }

    /// Processor time of the loop's thread so far: taking in objects, and syncs.
    pub(super) fn loop_time(&self) -> Result<Duration> {
        machine::thread_time(self.process.id(), "sync")
            .with_context(|| format!("the loop of sheave run has ended:\n{}", self.said))
    }

    /// Peak and present memory, in MB.
    pub(super) fn memory(&self) -> Result<(f64, f64)> {
        let id = self.process.id();
        machine::peak_rss_mb(id).zip(machine::rss_mb(id)).with_context(|| format!("sheave run has ended:\n{}", self.said))
    }
}

/// `sheave` beside this binary: built together, measured together.
fn program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?.with_file_name("sheave");
    if !program.is_file() {
        bail!("{} is not there: build it with `cargo build --release -p sheave -p sheave-bench`", program.display());
    }
    Ok(program)
}

fn read_log(stderr: ChildStderr, lines: &mpsc::Sender<Line>) {
    for text in BufReader::new(stderr).lines().map_while(Result::ok) {
        let sync = sync_of(&text);
        if lines.send(Line { text: text + "\n", sync }).is_err() {
            return;
        }
    }
}

fn sync_of(line: &str) -> Option<Sync> {
    let record: Record = serde_json::from_str(line).ok()?;
    (record.message == "synced").then(|| Sync {
        services: record.services,
        elements: record.elements,
        whole: Duration::from_micros(record.whole_us),
        kernel: Duration::from_micros(record.kernel_us),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_read_from_the_log_and_nothing_else_is_one() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"synced","generation":2,"services":5001,
            "elements":265000,"transactions":56,"policy_us":1,"encode_us":2,"kernel_us":300000,"whole_us":400000,"target":"x"}"#;
        let sync = sync_of(line).unwrap();
        assert_eq!((sync.services, sync.elements), (5_001, 265_000));
        assert_eq!((sync.kernel, sync.whole), (Duration::from_millis(300), Duration::from_millis(400)));
        assert_eq!(sync_of(r#"{"message":"sheave starts","node":"n"}"#), None);
        assert_eq!(sync_of("thread 'sync' panicked"), None);
    }
}
