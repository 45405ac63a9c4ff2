//! A kube-proxy for the lab: the rules that it writes, loaded with stock tools, a process of its name, and somebody on its ports.

use crate::fixture::Cluster;
use anyhow::{Context as _, ensure};
use sheave_lab::{Host, Process};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tempfile::TempDir;

/// How kube-proxy was configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Nftables,
    /// With the backend of iptables that writes nf_tables.
    IptablesNft,
    /// With the one that writes x_tables.
    IptablesLegacy,
}

/// A process that is called kube-proxy, and its ports. Dropping it ends both; its rules stay, as kube-proxy's do.
pub(super) struct KubeProxy {
    process: Process,
    _ports: Ports,
    _program: TempDir,
}

/// kube-proxy's ports, or somebody who tries to have them, as kube-proxy does.
pub(super) struct Ports {
    /// Dropped to say that it is over.
    end: Option<mpsc::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

/// Where kube-proxy answers about itself.
const PORTS: [(Ipv4Addr, u16); 2] = [(Ipv4Addr::UNSPECIFIED, 10256), (Ipv4Addr::LOCALHOST, 10249)];
const ANSWERS_WITHIN: Duration = Duration::from_millis(20);
/// Somebody who connects and asks nothing must not hold up the end of a test.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it tries to. kube-proxy takes 5 s.
const AGAIN: Duration = Duration::from_secs(1);

const NFTABLES: &str = include_str!("kube-proxy.nft");
const IPTABLES: [&str; 2] = [include_str!("kube-proxy.iptables"), include_str!("kube-proxy.ip6tables")];

impl KubeProxy {
    /// Starts the process in the node's network. Who asks it for its metrics gets no answer.
    pub(super) fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::with(cluster, Ports::hold(cluster)?)
    }

    /// The same, with these metrics.
    pub(super) fn telling(cluster: &Cluster, metrics: &'static str) -> anyhow::Result<Self> {
        Self::with(cluster, Ports::tell(cluster, metrics)?)
    }

    fn with(cluster: &Cluster, ports: Ports) -> anyhow::Result<Self> {
        let (process, program) = namesake(cluster.node())?;
        Ok(Self { process, _ports: ports, _program: program })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}

/// A process called kube-proxy, and its program.
pub(super) fn namesake(host: &Host) -> anyhow::Result<(Process, TempDir)> {
    let program = tempfile::tempdir()?;
    let path = program.path().join("kube-proxy");
    fs::copy("/bin/sleep", &path).context("a program to be called kube-proxy")?;
    let mut command = Command::new(&path);
    command.arg("600").stdin(Stdio::null());
    Ok((host.spawn(command)?, program))
}

impl Ports {
    /// Has them on the node, or else as soon as they are free.
    pub(super) fn hold(cluster: &Cluster) -> anyhow::Result<Self> {
        let node: Host = (**cluster.node()).clone();
        let (mut held, mut wanted) = (Vec::new(), PORTS.to_vec());
        let mut take = move || -> anyhow::Result<()> {
            node.run(|| {
                wanted.retain(|at| TcpListener::bind(at).map(|listener| held.push(listener)).is_err());
            })?;
            Ok(())
        };
        take()?;
        let (end, ended) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            while ended.recv_timeout(AGAIN) == Err(mpsc::RecvTimeoutError::Timeout) {
                if take().is_err() {
                    return;
                }
            }
        });
        Ok(Self { end: Some(end), holder: Some(holder) })
    }
}

impl Ports {
    /// Answers everybody on the port of the metrics with the same text.
    fn tell(cluster: &Cluster, metrics: &'static str) -> anyhow::Result<Self> {
        let listener = cluster.node().run(|| TcpListener::bind(PORTS[1]))??;
        listener.set_nonblocking(true)?;
        let (end, ended) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            while ended.recv_timeout(ANSWERS_WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
                while let Ok((mut peer, _)) = listener.accept() {
                    let length = metrics.len();
                    // Somebody who has gone wants no answer.
                    let _ = peer
                        .set_nonblocking(false)
                        .and_then(|()| peer.set_read_timeout(Some(PATIENCE)))
                        .and_then(|()| peer.read(&mut [0; 4096]));
                    let _ = write!(peer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{metrics}");
                }
            }
        });
        Ok(Self { end: Some(end), holder: Some(holder) })
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(holder) = self.holder.take() {
            // A panic of its own would have said so.
            let _ = holder.join();
        }
    }
}

impl Mode {
    /// Writes the rules of `web`, `decoy` and `idle`.
    pub(super) fn write_rules(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Nftables => cluster.nft(NFTABLES).map(drop),
            Self::IptablesNft => restore(cluster, ["iptables-nft-restore", "ip6tables-nft-restore"]),
            Self::IptablesLegacy => restore(cluster, ["iptables-legacy-restore", "ip6tables-legacy-restore"]),
        }
    }
}

fn restore(cluster: &Cluster, tools: [&str; 2]) -> anyhow::Result<()> {
    for (tool, rules) in tools.iter().zip(IPTABLES) {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), rules)?;
        run(cluster, tool, &["--noflush", text(file.path())])?;
    }
    Ok(())
}

/// Runs a tool on the node, which must succeed.
pub(super) fn run(cluster: &Cluster, tool: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let done = cluster.node().exec(tool, arguments)?;
    ensure!(done.status.success(), "{tool} {arguments:?}: {}", done.stderr);
    Ok(done.stdout)
}

/// Everything in nf_tables, without what packets count.
pub(super) fn ruleset(cluster: &Cluster) -> anyhow::Result<String> {
    run(cluster, "nft", &["-s", "list", "ruleset"])
}

/// What others than sheave have in nf_tables, line by line: tables, chains and rules. Not the tables of iptables and their built-in
/// chains, which its tools make at the first question and nobody removes, and not KUBE-FIREWALL, which is kubelet's.
pub(super) fn foreign(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let (mut table, mut block) = (String::new(), String::new());
    for line in ruleset(cluster)?.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {").to_owned();
            block.clear();
            lines.push(format!("table {table}"));
        } else if let Some(name) = line.strip_prefix('\t').filter(|line| line.ends_with('{') && !line.starts_with('\t')) {
            block = name.trim_end_matches(" {").to_owned();
            lines.push(format!("{table}: {block}"));
        } else if line.starts_with("\t\t") {
            if line.trim_start().starts_with("type ") && line.contains(" hook ") && is_iptables(&table) {
                lines.pop();
            } else {
                lines.push(format!("{table}: {block}: {}", line.trim()));
            }
        }
    }
    lines.retain(|line| {
        let table = line.strip_prefix("table ");
        !line.contains("inet sheave") && !line.contains("chain KUBE-FIREWALL") && !table.is_some_and(is_iptables)
    });
    Ok(lines)
}

fn is_iptables(table: &str) -> bool {
    table
        .split_once(' ')
        .is_some_and(|(family, name)| ["ip", "ip6"].contains(&family) && ["nat", "filter", "mangle"].contains(&name))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
