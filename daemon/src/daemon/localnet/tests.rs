use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// What outlives a daemon.
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
}

impl Node {
    fn with(before: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("net/ipv4/conf/all");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("route_localnet"), before).unwrap();
        Self { root, kept: Kept::default() }
    }

    fn daemon(&self) -> Localnet {
        Localnet::new(Sysctls::below(self.root.path()), Box::new(self.kept.clone()))
    }

    fn value(&self) -> String {
        fs::read_to_string(self.root.path().join("net/ipv4/conf/all/route_localnet")).unwrap().trim().to_owned()
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
        // One that was on is somebody else's, and our rules go now: somebody has to be told.
        assert_eq!(localnet.follow(false), after == "1");
        assert_eq!(node.value(), after);
        assert!(!node.kept.was_off());
    }
}

#[test]
fn a_restart_knows_what_it_was_before() {
    let node = Node::with("0");
    node.daemon().follow(true);
    let mut second = node.daemon();
    second.follow(true);
    assert_eq!(node.value(), "1");
    assert!(!node.daemon().follow(false), "the third one serves nothing at 127.0.0.1");
    assert_eq!(node.value(), "0");
}

/// A container's /proc/sys.
#[test]
fn what_cannot_be_set_is_not_ours() {
    let node = Node { root: tempfile::tempdir().unwrap(), kept: Kept::default() };
    node.daemon().follow(true);
    assert!(!node.kept.was_off());
}
