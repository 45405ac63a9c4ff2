//! Settings of the kernel and of this process that kube-proxy makes at its start (kube-proxy 6.7): what is wanted is decided in
//! [`wanted`], which is pure; [`Sysctls`] compares and writes.
//!
//! Nothing here is worth a crash: a container without `privileged` has a read-only /proc/sys, and a network namespace that is not
//! the first one may not set the size of the connection table, which all share. Whoever cannot write is told what stays as it is, and
//! the [`Keeper`] looks again until it is as wanted, whoever made it so.

#[cfg(test)]
mod tests;

mod keeper;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::localnet;
use crate::config::{ConntrackSettings, DetectLocal, KernelSettings, Options};
use crate::model::Family;

pub(super) use self::keeper::{Keeper, LOOK_AGAIN, problem};

/// `/proc/sys`, and what else is a file of one line.
pub(super) struct Sysctls {
    proc_sys: PathBuf,
    /// Buckets of the connection table, which is a parameter of the module and not of a namespace.
    hashsize: PathBuf,
    /// The list of CPUs that are online, of this machine and not of a cgroup.
    cpus: PathBuf,
    /// Of this process.
    oom_score: PathBuf,
}

/// What is not as it was asked to be, as it was told: each matter once while it lasts, and once when it is over. Kept for the life of
/// the process, which may see many configurations; clones are the same. `K` names a matter: a text of its own where it has no other name.
#[derive(Clone, Default)]
pub(super) struct Amiss<K = &'static str>(Arc<Mutex<BTreeMap<K, String>>>);

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its name as `sysctl` has it.
    pub(super) name: &'static str,
    pub(super) value: u64,
}

/// One that was asked for and is not made.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be set to {value} ({source}): it stays as it is")]
pub(super) struct Missed {
    /// As `sysctl` has it.
    pub(super) name: &'static str,
    value: u64,
    #[source]
    source: io::Error,
}

/// Whether this process has changed its own score. Kept for its life, which may see many configurations; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnScore(Arc<AtomicBool>);

/// What came of one setting.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was so already.
    Same,
    /// It was this before.
    Changed(u64),
}

const MAX: &str = "net.netfilter.nf_conntrack_max";
/// Buckets of the connection table: a parameter of the module, not a sysctl.
const HASHSIZE: &str = "nf_conntrack.hashsize";
/// More than this is not asked for by the number of CPUs (kube-proxy's `getConntrackMax`).
const MOST: u64 = 1 << 20;
/// As the configuration names it.
const OOM_SCORE: &str = "oomScoreAdj";
/// On: the kernel routes packets from and to 127.0.0.0/8 on every device (Documentation/networking/ip-sysctl.rst).
pub(super) const ROUTE_LOCALNET: &str = "net.ipv4.conf.all.route_localnet";

/// Makes every setting, and returns those that cannot be made.
pub(super) fn make(options: &Options, sysctls: &Sysctls) -> Vec<Missed> {
    let mut missed = Vec::new();
    for setting in wanted(&options.kernel.conntrack, sysctls.cpus()) {
        let made = sysctls.make(setting);
        let made = if setting.name == MAX { made.and_then(|()| sysctls.make_room(setting.value)) } else { made };
        missed.extend(made.err());
    }
    missed
}

/// What is amiss beside those, by name: the score of this process, which is nobody else's matter, and what is not ours to set here and
/// makes Services work for fewer than they should, or for more.
pub(super) fn look_beside(options: &Options, sysctls: &Sysctls, own: &OwnScore) -> BTreeMap<&'static str, String> {
    let mut matters = BTreeMap::new();
    let score = options.kernel.oom_score_adj;
    match sysctls.set_oom_score(score) {
        Ok(is_changed) => {
            own.0.fetch_or(is_changed, Ordering::Relaxed);
        }
        // kube-proxy wants it for everybody, and in silence: a container with few privileges is none the worse. Unless it was us who
        // took it away from there.
        Err(text) if score == KernelSettings::USUAL_OOM_SCORE && !own.0.load(Ordering::Relaxed) => tracing::debug!("{text}"),
        Err(text) => {
            matters.insert(OOM_SCORE, text);
        }
    }
    if !options.localhost_node_ports
        && let Some(text) = localnet::unguarded(sysctls)
    {
        matters.insert(ROUTE_LOCALNET, text.to_owned());
    }
    for name in forwarding(options).filter(|name| sysctls.read(name) == Some(0)) {
        let text =
            format!("{name} is 0: this node forwards nothing, so that Services work for its own processes only; set it to 1");
        matters.insert(name, text);
    }
    matters
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
    // The kernel counts seconds, and at zero of them a flow would be forgotten at once.
    let timeouts = timeouts.map(|(name, value)| Setting { name, value: value.as_secs().max(1) });
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

impl Default for Sysctls {
    fn default() -> Self {
        Self {
            proc_sys: "/proc/sys".into(),
            hashsize: "/sys/module/nf_conntrack/parameters/hashsize".into(),
            cpus: "/sys/devices/system/cpu/online".into(),
            oom_score: "/proc/self/oom_score_adj".into(),
        }
    }
}

impl<K: Clone + Ord> Amiss<K> {
    /// These are, now. Returns those that have just begun.
    pub(super) fn are(&self, matters: BTreeMap<K, String>) -> BTreeSet<K> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, text) in &matters {
            if told.get(name) != Some(text) {
                tracing::warn!("{text}");
            }
        }
        for text in told.iter().filter(|(name, _)| !matters.contains_key(name)).map(|(_, text)| text) {
            tracing::info!("no longer: {text}");
        }
        let begun = matters.keys().filter(|name| !told.contains_key(name)).cloned().collect();
        *told = matters;
        begun
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Sysctls {
    /// Those below a directory.
    #[cfg(test)]
    pub(super) fn below(root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        Self { proc_sys: root.to_owned(), hashsize: at("hashsize"), cpus: at("online"), oom_score: at("oom_score_adj") }
    }

    /// Makes a setting as wanted. Says what was changed.
    pub(super) fn make(&self, setting: Setting) -> Result<(), Missed> {
        let Setting { name, value } = setting;
        let outcome = self.write(&self.path(name), value).map_err(|source| Missed { name, value, source })?;
        if let Outcome::Changed(before) = outcome {
            tracing::info!("{name} set to {value}, from {before}");
        }
        Ok(())
    }

    /// Whether a setting may be written, without writing it.
    pub(super) fn may_make(&self, setting: Setting) -> Result<(), Missed> {
        let Setting { name, value } = setting;
        let opened = fs::OpenOptions::new().write(true).open(self.path(name));
        opened.map(drop).map_err(|source| Missed { name, value, source })
    }

    /// Lower than what it has needs CAP_SYS_RESOURCE; without it the process is no worse off than any other. Says whether it was another.
    fn set_oom_score(&self, score: i32) -> Result<bool, String> {
        let before = fs::read_to_string(&self.oom_score).unwrap_or_default();
        if before.trim() == score.to_string() {
            return Ok(false);
        }
        fs::write(&self.oom_score, score.to_string())
            .map(|()| true)
            .map_err(|error| format!("{OOM_SCORE} cannot be set to {score} ({error}): it stays at {}", before.trim()))
    }

    /// Buckets enough for so many connections: four to a bucket. With fewer, the chains are long if the table fills.
    fn make_room(&self, connections: u64) -> Result<(), Missed> {
        let value = connections / 4;
        if number(&self.hashsize).is_ok_and(|buckets| buckets >= value) {
            return Ok(());
        }
        fs::write(&self.hashsize, value.to_string()).map_err(|source| Missed { name: HASHSIZE, value, source })
    }

    /// CPUs that are online. `available_parallelism` would be those of a cgroup's quota, and the connection table is the machine's.
    fn cpus(&self) -> u64 {
        let online = fs::read_to_string(&self.cpus).ok().and_then(|list| cpus_in(list.trim()));
        online.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from) as u64)
    }

    pub(super) fn read(&self, name: &str) -> Option<u64> {
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

/// How many CPUs a list such as `0-3,8` names (Documentation/admin-guide/cputopology.rst).
fn cpus_in(list: &str) -> Option<u64> {
    let ranges = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    ranges.sum()
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
