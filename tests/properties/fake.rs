//! What a plane that followed every delta has in the kernel is what a plane has there that loaded the table once; and so is what a
//! plane has that came later and adopted. The kernel is one in memory, so there is time to look after every event.

use std::collections::{BTreeMap, BTreeSet};

use sheave::dataplane::Dataplane as _;
use sheave::dataplane::nftables::{NftablesPlane, TABLE};
use sheave::netlink::nft::{FakeNft, NftDoor as _};

use crate::history::{Node, Outcome};
use crate::run::run;

/// The table in the kernel, without the names of instances.
#[derive(Debug, Default, PartialEq)]
struct Content {
    sets: BTreeMap<String, BTreeSet<Element>>,
    /// For each rule of a chain the sets it looks into.
    chains: BTreeMap<String, Vec<BTreeSet<String>>>,
}

/// Key, last key of a range, data, end of an interval.
type Element = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>, bool);

/// `endpoints-4.c` is `endpoints-4` at some time; the kernel numbers anonymous sets as it likes.
pub(crate) fn base(name: &str) -> &str {
    match name.as_bytes() {
        [b'_', b'_', b's', b'e', b't', ..] => "{ }",
        [.., b'.', b'b'..=b'z'] => &name[..name.len() - 2],
        _ => name,
    }
}

impl Content {
    fn of(kernel: &FakeNft) -> Self {
        let mut door = kernel.clone();
        let mut content = Self::default();
        for set in door.sets(TABLE).unwrap().into_iter().filter(|set| !set.flags.anonymous) {
            let elements = door.dump(TABLE, &set.name).unwrap().into_iter();
            let elements = elements.map(|element| (element.key, element.key_end, element.data, element.interval_end)).collect();
            let twice = content.sets.insert(base(&set.name).to_owned(), elements);
            assert!(twice.is_none(), "two instances of {} are there", set.name);
        }
        for chain in door.chains(TABLE).unwrap() {
            let rules = kernel.sets_of_chain(TABLE, &chain.name).into_iter();
            let rules = rules.map(|sets| sets.iter().map(|set| base(set).to_owned()).collect()).collect();
            let twice = content.chains.insert(base(&chain.name).to_owned(), rules);
            assert!(twice.is_none(), "two instances of {} are there", chain.name);
        }
        content
    }

    /// The first few differences, in words: a whole content is longer than anybody reads.
    fn difference(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for name in self.sets.keys().chain(other.sets.keys()).collect::<BTreeSet<_>>() {
            match (self.sets.get(name), other.sets.get(name)) {
                (Some(one), Some(other)) => {
                    found.extend(one.difference(other).map(|element| format!("{name}: {element:02x?} is too much")));
                    found.extend(other.difference(one).map(|element| format!("{name}: {element:02x?} is missing")));
                }
                (one, _) => found.push(format!("set {name} {}", if one.is_some() { "is too much" } else { "is missing" })),
            }
        }
        for name in self.chains.keys().chain(other.chains.keys()).collect::<BTreeSet<_>>() {
            let (one, other) = (self.chains.get(name), other.chains.get(name));
            if one != other {
                found.push(format!("chain {name}: {one:?} and not {other:?}"));
            }
        }
        found.truncate(20);
        found
    }
}

fn assert_same(found: &FakeNft, expected: &FakeNft, what: &str) {
    let difference = Content::of(found).difference(&Content::of(expected));
    assert!(difference.is_empty(), "{what}:\n{}", difference.join("\n"));
}

#[test]
fn a_plane_that_followed_has_what_a_plane_has_that_loaded() {
    run(
        "fake",
        || (),
        |(), _, sequence| {
            let mut node = Node::new(sequence);
            let kernel = FakeNft::new();
            let mut plane = NftablesPlane::new(Box::new(kernel.clone()));
            let mut loaded = false;
            for step in &sequence.steps {
                match node.step(step, loaded) {
                    Outcome::Waiting => continue,
                    Outcome::Load => {
                        plane = NftablesPlane::new(Box::new(kernel.another()));
                        plane.load(node.reconciler.table()).unwrap();
                        loaded = true;
                    }
                    Outcome::Delta(reconciled) => {
                        plane.apply(&reconciled.committed.delta, node.reconciler.table()).unwrap();
                    }
                }
                plane.finish().unwrap();
                let fresh = FakeNft::new();
                NftablesPlane::new(Box::new(fresh.clone())).load(node.reconciler.table()).unwrap();
                assert_same(&kernel, &fresh, "followed, and loaded once");
            }
            if loaded {
                let followed = Content::of(&kernel);
                NftablesPlane::new(Box::new(kernel.another())).load(node.reconciler.table()).unwrap();
                let difference = Content::of(&kernel).difference(&followed);
                assert!(difference.is_empty(), "adopted, and before:\n{}", difference.join("\n"));
            }
        },
    );
}
