//! The same in the real kernel, as stock `nft` reads it back: a namespace whose plane followed every delta, and one whose plane
//! loaded, once, a table that was filled at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::json;
use sheave::dataplane::Dataplane as _;
use sheave::dataplane::nftables::{self, NftablesPlane};
use sheave::model::Family;
use sheave::netlink::nft::KernelNft;
use sheave::table::{Frontend, FrontendAddress, Scope, ServiceTable};
use sheave_lab::Namespace;

use crate::history::{Node, Outcome};
use crate::listing::{Listing, Slots};
use crate::run::run;

/// Every so many sequences one is read back after every event.
const CLOSELY: u32 = 100;

/// Two namespaces for the sequences of one thread; the table goes between two of them.
struct Bench {
    followed: Namespace,
    loaded: Namespace,
}

impl Bench {
    fn new() -> Self {
        Self { followed: Namespace::new("followed").unwrap(), loaded: Namespace::new("loaded").unwrap() }
    }

    /// Reads both back.
    fn compare(&self, node: &Node) {
        let rebuilt = node.rebuilt();
        plane(&self.loaded).load(&rebuilt).unwrap();
        let (followed, loaded) = (Listing::of(&self.followed), Listing::of(&self.loaded));
        followed.assert_sound();
        loaded.assert_sound();
        assert_endpoints_are_the_tables(&followed, node.reconciler.table());
        assert_endpoints_are_the_tables(&loaded, &rebuilt);
        let differences = followed.differences(&loaded);
        assert!(differences.is_empty(), "followed, and loaded at once:\n{}", differences.join("\n"));
        clear(&self.loaded);
    }
}

pub(crate) fn plane(namespace: &Namespace) -> NftablesPlane {
    NftablesPlane::new(Box::new(door(namespace)))
}

pub(crate) fn door(namespace: &Namespace) -> KernelNft {
    namespace.run(KernelNft::open).unwrap().unwrap()
}

pub(crate) fn clear(namespace: &Namespace) {
    nftables::cleanup(&mut door(namespace)).unwrap();
}

/// The endpoint maps hold the table's sets, slot by slot, under every frontend that draws from them, and nothing else.
fn assert_endpoints_are_the_tables(listing: &Listing, table: &ServiceTable) {
    for family in [Family::V4, Family::V6] {
        let digit = if family == Family::V4 { 4 } else { 6 };
        for (map, is_node, is_local) in [
            ("endpoints", false, false),
            ("local-endpoints", false, true),
            ("node-endpoints", true, false),
            ("node-local-endpoints", true, true),
        ] {
            let mut expected: BTreeMap<String, Slots> = BTreeMap::new();
            for port in table.ports().filter(|port| port.id.family == family) {
                for frontend in &port.frontends {
                    let Some(scope) = scope(frontend, is_local).filter(|_| is_node == frontend.address.ip().is_none()) else {
                        continue;
                    };
                    let slots = port.set(scope).slots().iter().map(|slot| backend(slot.address()));
                    let slots: Slots = (0..).zip(slots).collect();
                    if !slots.is_empty() {
                        expected.insert(key(&frontend.address), slots);
                    }
                }
            }
            let name = format!("{map}-{digit}");
            assert_eq!(listing.slots(&name), expected, "{name}, and the table");
        }
    }
}

fn scope(frontend: &Frontend, is_local: bool) -> Option<Scope> {
    match is_local {
        false => Some(frontend.scope()),
        true => frontend.splits_by_source().then_some(Scope::Local),
    }
}

/// A frontend as `nft -j` writes it.
fn key(address: &FrontendAddress) -> String {
    let protocol = address.protocol().to_string().to_lowercase();
    match address.ip() {
        Some(ip) => json!([ip.to_string(), protocol, address.port()]).to_string(),
        None => json!([protocol, address.port()]).to_string(),
    }
}

fn backend(address: SocketAddr) -> String {
    json!({"concat": [address.ip().to_string(), address.port()]}).to_string()
}

#[test]
fn stock_nft_reads_what_a_plane_that_loaded_has() {
    run("kernel", Bench::new, |bench, number, sequence| {
        // A sequence that failed may have left its table behind.
        clear(&bench.followed);
        clear(&bench.loaded);
        let mut node = Node::new(sequence);
        let mut follower = plane(&bench.followed);
        let mut loaded = false;
        for step in &sequence.steps {
            match node.step(step, loaded) {
                Outcome::Waiting => continue,
                Outcome::Load => {
                    follower = plane(&bench.followed);
                    follower.load(node.reconciler.table()).unwrap();
                    loaded = true;
                }
                Outcome::Delta(reconciled) => {
                    follower.apply(&reconciled.committed.delta, node.reconciler.table()).unwrap();
                }
            }
            follower.finish().unwrap();
            if number.is_multiple_of(CLOSELY) {
                bench.compare(&node);
            }
        }
        if loaded {
            bench.compare(&node);
        }
        clear(&bench.followed);
    });
}
