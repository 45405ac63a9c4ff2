//! Settings of the kernel and of this process that kube-proxy makes at its start (kube-proxy 6.7): what is wanted is decided in
//! [`wanted`], which is pure; [`Sysctls`] compares and writes.
//!
//! Nothing here is worth a crash: a container without `privileged` has a read-only /proc/sys, and a network namespace that is not
//! the first one may not set the size of the connection table, which all share. Whoever cannot write is told what stays as it is.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{ConntrackSettings, DetectLocal, KernelSettings, Options};
use crate::model::Family;

/// `/proc/sys`, and what else is a file of one line.
pub(super) struct Sysctls {
    proc_sys: PathBuf,
    /// Buckets of the connection table, which is a parameter of the module and not of a namespace.
    hashsize: PathBuf,
}

/// `route_localnet`, while NodePorts are served at 127.0.0.1: without it the kernel sends nothing from a loopback address, and takes
/// nothing for one, on any device but `lo`.
#[derive(Default)]
pub(super) struct Localnet {
    sysctls: Sysctls,
    on: bool,
    /// It was off before us.
    ours: bool,
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its name as `sysctl` has it.
    name: &'static str,
    value: u64,
}

/// What came of one setting.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was so already.
    Same,
    /// It was this before.
    Changed(u64),
}

const MAX: &str = "net.netfilter.nf_conntrack_max";
/// More than this is not asked for by the number of CPUs (kube-proxy's `getConntrackMax`).
const MOST: u64 = 1 << 20;
const ROUTE_LOCALNET: &str = "net.ipv4.conf.all.route_localnet";

/// Makes every setting, and warns of those that cannot be made.
pub(super) fn apply(options: &Options, sysctls: &Sysctls) {
    let KernelSettings { oom_score_adj, conntrack } = &options.kernel;
    set_oom_score(*oom_score_adj);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    for setting in wanted(conntrack, cpus) {
        let made = sysctls.make(setting);
        if setting.name == MAX && made {
            sysctls.make_room(setting.value);
        }
    }
    if !options.localhost_node_ports && sysctls.read(ROUTE_LOCALNET) == Some(1) {
        tracing::warn!(
            "{ROUTE_LOCALNET} is 1 and nobody needs it here (kube-proxy's iptables mode leaves it): neighbours may reach services that listen at 127.0.0.1 only; set it to 0"
        );
    }
    for family in forwarding(options) {
        if sysctls.read(family) == Some(0) {
            tracing::warn!(
                "{family} is 0: this node forwards nothing, so that Services work for its own processes only; set it to 1"
            );
        }
    }
}

/// What the conntrack section asks for. Zero asks for nothing.
fn wanted(conntrack: &ConntrackSettings, cpus: u64) -> Vec<Setting> {
    let ConntrackSettings { max_per_core, min, tcp_established, tcp_close_wait, udp, udp_stream, tcp_be_liberal } = *conntrack;
    let scaled = u64::from(max_per_core) * cpus;
    // Above the bound `min` is not looked at, not even a larger one.
    let max = if scaled > MOST { MOST } else { scaled.max(min.into()) };
    let max = (max_per_core > 0).then_some(Setting { name: MAX, value: max });
    let timeouts = [
        ("net.netfilter.nf_conntrack_tcp_timeout_established", tcp_established),
        ("net.netfilter.nf_conntrack_tcp_timeout_close_wait", tcp_close_wait),
        ("net.netfilter.nf_conntrack_udp_timeout", udp),
        ("net.netfilter.nf_conntrack_udp_timeout_stream", udp_stream),
    ];
    let timeouts = timeouts.into_iter().filter(|(_, value)| *value > Duration::ZERO);
    let timeouts = timeouts.map(|(name, value)| Setting { name, value: value.as_secs() });
    let liberal = tcp_be_liberal.then_some(Setting { name: "net.netfilter.nf_conntrack_tcp_be_liberal", value: 1 });
    max.into_iter().chain(timeouts).chain(liberal).collect()
}

/// What has to be on for pods to be reached through this node. IPv6 only where the pods are known to have it.
fn forwarding(options: &Options) -> impl Iterator<Item = &'static str> {
    let v6 = match &options.detect_local {
        DetectLocal::ClusterCidr(cidrs) => cidrs.iter().any(|cidr| Family::of(cidr.addr()) == Family::V6),
        DetectLocal::NodeCidr | DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => false,
    };
    ["net.ipv4.ip_forward"].into_iter().chain(v6.then_some("net.ipv6.conf.all.forwarding"))
}

/// Lower than what it has needs CAP_SYS_RESOURCE; without it the process is no worse off than any other.
fn set_oom_score(score: i32) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::debug!(%error, score, "oomScoreAdj cannot be set");
    }
}

impl Default for Sysctls {
    fn default() -> Self {
        Self { proc_sys: "/proc/sys".into(), hashsize: "/sys/module/nf_conntrack/parameters/hashsize".into() }
    }
}

impl Localnet {
    /// Turns it on or off again. The rules that keep others from 127.0.0.0/8 are in force whenever it is on: on comes after them,
    /// off before they go.
    pub(super) fn follow(&mut self, wanted: bool) {
        if wanted == self.on {
            return;
        }
        self.on = wanted;
        if wanted {
            self.ours = self.sysctls.read(ROUTE_LOCALNET) == Some(0);
            self.sysctls.make(Setting { name: ROUTE_LOCALNET, value: 1 });
        } else if std::mem::take(&mut self.ours) {
            self.sysctls.make(Setting { name: ROUTE_LOCALNET, value: 0 });
        }
    }
}

impl Sysctls {
    /// Whether a setting is as wanted now. Says what was changed, or that it could not be.
    fn make(&self, setting: Setting) -> bool {
        let Setting { name, value } = setting;
        match self.write(&self.path(name), value) {
            Ok(Outcome::Same) => true,
            Ok(Outcome::Changed(before)) => {
                tracing::info!("{name} set to {value}, from {before}");
                true
            }
            Err(error) => {
                tracing::warn!("{name} cannot be set to {value} ({error}): it stays as it is");
                false
            }
        }
    }

    /// Buckets enough for so many connections: four to a bucket.
    fn make_room(&self, connections: u64) {
        let wanted = connections / 4;
        let enough = number(&self.hashsize).is_ok_and(|buckets| buckets >= wanted);
        if !enough && let Err(error) = fs::write(&self.hashsize, wanted.to_string()) {
            let path = self.hashsize.display();
            tracing::warn!("{path} cannot be set to {wanted} ({error}): long chains in the connection table, if it fills");
        }
    }

    fn read(&self, name: &str) -> Option<u64> {
        number(&self.path(name)).ok()
    }

    fn write(&self, path: &Path, value: u64) -> io::Result<Outcome> {
        let before = number(path)?;
        if before == value {
            return Ok(Outcome::Same);
        }
        fs::write(path, value.to_string())?;
        Ok(Outcome::Changed(before))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.proc_sys.join(name.replace('.', "/"))
    }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
