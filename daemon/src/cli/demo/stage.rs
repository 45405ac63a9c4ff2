//! The lab of the demo, and the daemon in it: the same binary, as a process of its own, fed from files.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use sheave_lab::{Host, Lab, Port, Process};

use crate::dataplane::nftables;
use crate::netlink::nft::KernelNft;
use crate::source::manifests;

const WEB: &str = include_str!("../../../../manifests/examples/web.yaml");
const EXAMPLES: [(&str, &str); 3] = [
    ("web.yaml", WEB),
    ("headless.yaml", include_str!("../../../../manifests/examples/headless.yaml")),
    ("external-name.yaml", include_str!("../../../../manifests/examples/external-name.yaml")),
];
/// The sandbox has an empty `/run` of its own, so this vanishes with it.
const DIRECTORY: &str = "/run/sheave-demo";
/// A kernel this slow is not worth a demonstration.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Stage {
    lab: Lab,
    /// The client pod.
    pub(super) pod: Host,
    /// The backends, by name.
    backends: Vec<Host>,
    daemon: Option<Daemon>,
}

struct Daemon {
    process: Process,
    /// Its lines, read by a thread: a line that does not come must not stop the clock.
    log: mpsc::Receiver<String>,
}

/// A line of the daemon's log, as far as it matters here.
#[derive(Deserialize)]
struct LogLine {
    mark: Option<String>,
}

impl Stage {
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::new()?;
        let pod = lab.pod("client-pod", "10.180.0.9")?;
        let backends =
            vec![lab.pod("pod-a", "10.180.0.1")?, lab.pod("pod-b", "10.180.0.2")?, lab.remote_pod("pod-c", "10.180.1.1")?];
        for backend in &backends {
            backend.serve(&[Port::tcp(8080)])?;
        }
        fs::create_dir_all(DIRECTORY).with_context(|| format!("making {DIRECTORY}"))?;
        for (name, content) in EXAMPLES {
            write(name, content)?;
        }
        Ok(Self { lab, pod, backends, daemon: None })
    }

    pub(super) fn node(&self) -> &Host {
        self.lab.node()
    }

    pub(super) fn client(&self) -> &Host {
        self.lab.client()
    }

    /// Starts `sheave run` on the node and waits until the examples are in the kernel.
    pub(super) fn start_daemon(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let mut command = sheave()?;
        command
            .args(["run", "--node-name", "test-node", "--cluster-cidr", "10.0.0.0/8,fd00:10::/32", "--log-format", "json"])
            // A load may turn out to change nothing, and is told all the same.
            // Nobody asks it, and it leaves nothing in /run.
            .args(["--log", "info,sheave::marks=debug", "--admin-socket", "none"])
            .arg(format!("--source=manifests={DIRECTORY}"))
            .stderr(Stdio::piped());
        let mut process = self.lab.node().spawn(command)?;
        let lines = BufReader::new(process.child().stderr.take().context("the daemon has no log")?).lines();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        self.daemon = Some(Daemon { process, log });
        self.await_synced()?;
        Ok(started.elapsed())
    }

    /// Rewrites the EndpointSlices as the API server would, and waits until that is in the kernel.
    pub(super) fn set_ready(&mut self, pod: &str, ready: bool) -> Result<Duration> {
        let host = self.backends.iter().find(|backend| backend.name() == pod).context("no such pod")?;
        let (v4, v6) = (format!("addresses: [{}]", host.ipv4()), format!("addresses: [\"{}\"]", host.ipv6()));
        let mut of_pod = false;
        let mut text = String::new();
        for line in WEB.lines() {
            of_pod = if line.contains("addresses:") { line.contains(&v4) || line.contains(&v6) } else { of_pod };
            let line = if of_pod { line.replace("ready: true", &format!("ready: {ready}")) } else { line.to_owned() };
            text.push_str(&line);
            text.push('\n');
        }
        let started = Instant::now();
        write("web.yaml", &text)?;
        self.await_synced()?;
        Ok(started.elapsed())
    }

    /// Waits for the daemon to say that the directory's present content is in the kernel.
    fn await_synced(&mut self) -> Result<()> {
        let wanted = manifests::digest(DIRECTORY)?;
        let daemon = self.daemon.as_mut().context("the daemon is not running")?;
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            let line = match daemon.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => bail!("sheave run ended:\n{seen}"),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("sheave run did not get there within {PATIENCE:?}; it said:\n{seen}")
                }
            };
            if let Ok(said) = serde_json::from_str::<LogLine>(&line)
                && said.mark.as_deref() == Some(&wanted)
            {
                return Ok(());
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }

    /// SIGTERM, and the end of the process.
    pub(super) fn stop_daemon(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.process.signal(nix::sys::signal::Signal::SIGTERM)?;
            daemon.process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// `sheave cleanup`, and what it says.
    pub(super) fn cleanup(&self) -> Result<String> {
        let program = executable()?;
        let finished = self.lab.node().exec(&program.to_string_lossy(), &["cleanup"])?;
        Ok(format!("{}{}", finished.stdout, finished.stderr).trim_end().to_owned())
    }

    /// Frontends in the node's kernel, counted there.
    pub(super) fn frontends(&self) -> Result<usize> {
        self.lab.node().run(|| {
            let mut door = KernelNft::open()?;
            Ok(nftables::frontends(&mut door)?)
        })?
    }
}

fn executable() -> Result<PathBuf> {
    std::env::current_exe().context("finding our own binary")
}

fn sheave() -> Result<Command> {
    Ok(Command::new(executable()?))
}

/// Replaces a file as editors and kubectl do: whole or not at all.
fn write(name: &str, content: &str) -> Result<()> {
    let (target, partial) = (format!("{DIRECTORY}/{name}"), format!("{DIRECTORY}/.{name}"));
    fs::write(&partial, content).and_then(|()| fs::rename(&partial, &target)).with_context(|| format!("writing {target}"))
}
