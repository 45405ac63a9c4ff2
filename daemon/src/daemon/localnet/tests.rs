use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::captured_log::Log;
use crate::health::STALE_AFTER;
use crate::netlink::nft::FakeNft;

/// What outlives a daemon, unless somebody flushes it.
#[derive(Clone, Default)]
struct Kept(Arc<AtomicBool>);

impl Memory for Kept {
    fn was_off(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn remember(&mut self, was_off: bool) {
        self.0.store(was_off, Ordering::Relaxed);
    }
}

/// A /proc/sys of our own, with the setting at this.
struct Node {
    root: tempfile::TempDir,
    kept: Kept,
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
    told: Amiss,
}

impl Node {
    fn with(before: &str) -> Self {
        let node = Self::without();
        fs::write(node.file(), before).unwrap();
        node
    }

    /// One without the setting.
    fn without() -> Self {
        let root = tempfile::tempdir().unwrap();
        let health = Arc::new(ProxyHealth::new(STALE_AFTER, false));
        let node = Self { root, kept: Kept::default(), health, metrics: Arc::new(Metrics::new()), told: Amiss::default() };
        fs::create_dir_all(node.file().parent().unwrap()).unwrap();
        node
    }

    fn sysctls(&self) -> Sysctls {
        Sysctls::below(self.root.path())
    }

    fn daemon(&self) -> Localnet {
        let memory = Box::new(self.kept.clone());
        Localnet::new(self.sysctls(), memory, self.health.clone(), self.metrics.clone(), self.told.clone())
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("net/ipv4/conf/all/route_localnet")
    }

    fn value(&self) -> String {
        fs::read_to_string(self.file()).unwrap().trim().to_owned()
    }

    fn problems(&self) -> Vec<String> {
        self.health.look().problems
    }
}

#[test]
fn it_is_set_while_it_is_needed_and_given_back_if_it_was_off() {
    for (before, after) in [("0", "0"), ("1", "1")] {
        let node = Node::with(before);
        let mut localnet = node.daemon();
        localnet.follow(false);
        assert_eq!(node.value(), before);
        localnet.follow(true);
        assert_eq!(node.value(), "1");
        localnet.follow(false);
        assert_eq!(node.value(), after);
        assert!(!node.kept.was_off());
        // One that was on is somebody else's, and our rules go now: somebody has to be told.
        assert_eq!(unguarded_but_for(&node.kept, &node.sysctls()).is_some(), after == "1");
    }
}

#[test]
fn a_restart_knows_what_it_was_before() {
    let node = Node::with("0");
    node.daemon().follow(true);
    let mut second = node.daemon();
    second.follow(true);
    assert_eq!(node.value(), "1");
    // The third one serves nothing at 127.0.0.1.
    node.daemon().follow(false);
    assert_eq!(node.value(), "0");
}

#[test]
fn one_that_is_off_already_is_nothing_to_remember() {
    let node = Node::with("0");
    node.kept.clone().remember(true);
    let _daemon = node.daemon();
    assert!(!node.kept.was_off(), "whoever turns it on from here on is somebody else");
}

/// `nft flush ruleset` takes the memory as well.
#[test]
fn what_a_flush_took_is_remembered_again() {
    let node = Node::with("0");
    let mut localnet = node.daemon();
    localnet.follow(true);
    node.kept.clone().remember(false);
    localnet.remember_again();
    assert!(node.kept.was_off());
    node.kept.clone().remember(false);
    localnet.follow(false);
    assert_eq!(node.value(), "0", "flushed at the last moment, this process still knows");

    let node = Node::with("1");
    let mut localnet = node.daemon();
    localnet.follow(true);
    localnet.remember_again();
    assert!(!node.kept.was_off(), "it was on before");
}

/// A container's /proc/sys, which somebody makes writable. A directory in the file's place is what not even root can write.
#[test]
fn what_cannot_be_set_is_a_problem_until_it_can() {
    let (log, _until) = Log::capture();
    let node = Node::without();
    fs::create_dir(node.file()).unwrap();
    let text = "net.ipv4.conf.all.route_localnet cannot be set to 1 (Is a directory (os error 21)): it stays as it is";
    let mut localnet = node.daemon();
    for _ in 0..2 {
        localnet.follow(true);
        assert_eq!(node.problems(), [format!("kernel setting net.ipv4.conf.all.route_localnet: {text}")]);
        assert!(!node.kept.was_off(), "it is not ours");
    }
    assert_eq!(node.metrics.kernel_settings_missed.get(), 1);
    // Another configuration, the same process.
    Localnet { metrics: Arc::new(Metrics::new()), ..node.daemon() }.follow(true);
    assert_eq!(log.lines(), [format!("WARN {text}")]);

    fs::remove_dir(node.file()).unwrap();
    fs::write(node.file(), "0").unwrap();
    localnet.follow(true);
    assert_eq!((node.value().as_str(), node.problems(), node.kept.was_off()), ("1", Vec::new(), true));
    assert_eq!(node.metrics.kernel_settings_missed.get(), 0);
    let changed = "INFO net.ipv4.conf.all.route_localnet set to 1, from 0".to_owned();
    assert_eq!(log.lines()[1..], [changed, format!("INFO no longer: {text}")]);
}

#[test]
fn what_is_not_wanted_any_more_is_no_problem() {
    let node = Node::without();
    let mut localnet = node.daemon();
    localnet.follow(true);
    assert_eq!(node.problems().len(), 1);
    localnet.follow(false);
    assert_eq!(node.problems(), Vec::<String>::new());
}

#[test]
fn one_that_cannot_be_set_back_stays_remembered() {
    let node = Node::with("0");
    let mut localnet = node.daemon();
    localnet.follow(true);
    fs::remove_file(node.file()).unwrap();
    localnet.follow(false);
    assert!(node.kept.was_off());
    assert_eq!(node.problems().len(), 1);
    fs::write(node.file(), "1").unwrap();
    localnet.follow(false);
    assert_eq!((node.value().as_str(), node.problems(), node.kept.was_off()), ("0", Vec::new(), false));
}

/// The memory says that the sync loop sets it back; nobody does that for `sheave cleanup`.
#[test]
fn a_command_looks_at_the_setting_alone() {
    let node = Node::with("1");
    node.kept.clone().remember(true);
    assert_eq!(unguarded_but_for(&node.kept, &node.sysctls()), None);
    assert_eq!(still_on(&node.sysctls()), Some(UNGUARDED));
}

/// As by `sheave migrate back` and the daemon at the same time.
#[test]
fn what_somebody_else_has_forgotten_is_forgotten() {
    let mut door = FakeNft::new();
    InKernel::write(&mut door, true).unwrap();
    InKernel::write(&mut door, false).unwrap();
    InKernel::write(&mut door, false).expect("there is nothing left to forget");
}
