//! What stock `nft` says of our table, without what does not matter: handles, instances, the order of hash sets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sheave::dataplane::nftables::TABLE;
use sheave_lab::Namespace;

use crate::fake::base;

/// The table as `nft -j list table` tells it.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Elements by set: the key as JSON text, and what a map gives.
    pub(crate) sets: BTreeMap<String, BTreeMap<String, String>>,
    /// Type, flags and timeout of each set.
    kinds: BTreeMap<String, String>,
    /// Chains with hook and priority, and their rules in order.
    chains: BTreeMap<String, Vec<String>>,
}

/// Backends of a frontend in one endpoint map, by slot.
pub(crate) type Slots = BTreeMap<u64, String>;

impl Listing {
    pub(crate) fn of(namespace: &Namespace) -> Self {
        let listed = namespace.exec("nft", &["-j", "list", "table", "inet", TABLE]).unwrap();
        assert!(listed.status.success(), "nft: {}", listed.stderr);
        let json: Value = serde_json::from_str(&listed.stdout).unwrap();
        let mut listing = Self::default();
        for object in json["nftables"].as_array().unwrap() {
            for (kind, object) in object.as_object().unwrap() {
                match kind.as_str() {
                    "set" | "map" => listing.set(object),
                    "chain" => {
                        let twice = listing.chains.insert(name(object), vec![without(object, &["handle", "name"])]);
                        assert!(twice.is_none(), "two instances of chain {} are there", name(object));
                    }
                    "rule" => {
                        listing.chains.get_mut(base(object["chain"].as_str().unwrap())).unwrap().push(text(&object["expr"]));
                    }
                    _ => {}
                }
            }
        }
        listing
    }

    fn set(&mut self, object: &Value) {
        let (name, mut elements) = (name(object), BTreeMap::new());
        for element in object["elem"].as_array().into_iter().flatten() {
            let (key, data) = match element {
                Value::Array(pair) => (&pair[0], text(&pair[1])),
                key => (key, String::new()),
            };
            let twice = elements.insert(text(key), data);
            assert!(twice.is_none(), "{name} has {key} twice");
        }
        self.kinds.insert(name.clone(), without(object, &["handle", "name", "elem", "size"]));
        let twice = self.sets.insert(name, elements);
        assert!(twice.is_none(), "two instances of set {} are there", object["name"]);
    }

    /// An endpoint map, frontend by frontend.
    pub(crate) fn slots(&self, map: &str) -> BTreeMap<String, Slots> {
        let mut frontends: BTreeMap<String, Slots> = BTreeMap::new();
        for (key, backend) in &self.sets[map] {
            let key: Value = serde_json::from_str(key).unwrap();
            let (slot, frontend) = key["concat"].as_array().unwrap().split_last().unwrap();
            frontends.entry(text(&frontend.into())).or_default().insert(slot.as_u64().unwrap(), backend.clone());
        }
        frontends
    }

    /// Asserts what is true of any table: slots are dense, and every frontend with backends is in the class of their number and in no
    /// other.
    pub(crate) fn assert_sound(&self) {
        for map in self.sets.keys().filter(|name| is_endpoints(name)) {
            let slots = self.slots(map);
            for (frontend, slots) in &slots {
                assert!(slots.keys().copied().eq(0..slots.len() as u64), "{map}: {frontend} has slots {slots:?}");
                let distinct: BTreeSet<&String> = slots.values().collect();
                assert_eq!(distinct.len(), slots.len(), "{map}: {frontend} has a backend twice: {slots:?}");
            }
            let expected = slots.iter().map(|(frontend, slots)| (frontend.clone(), slots.len().next_power_of_two()));
            let (prefix, family) = map.split_once("endpoints-").unwrap();
            let mut classes = Vec::new();
            for (name, elements) in &self.sets {
                let class = name.strip_prefix(prefix).and_then(|name| name.strip_prefix("class-")?.split_once('-'));
                let Some((class, _)) = class.filter(|(_, of)| *of == family) else { continue };
                classes.extend(elements.keys().map(|key| (frontend_of(key), class.parse().unwrap())));
            }
            classes.sort();
            assert!(
                expected.clone().eq(classes.iter().cloned()),
                "{map}: classes {classes:?}, and not {:?}",
                expected.collect::<Vec<_>>()
            );
        }
    }

    /// The first differences from a table that was loaded at once. Slots may be others; whom they lead to may not.
    pub(crate) fn differences(&self, loaded: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut note = |what: &str, ours: Option<&dyn std::fmt::Debug>, theirs: Option<&dyn std::fmt::Debug>| {
            found.push(format!("{what}:\n  {ours:?}, and loaded at once\n  {theirs:?}"));
        };
        for name in self.sets.keys().chain(loaded.sets.keys()).collect::<BTreeSet<_>>() {
            let both = self.sets.get(name).zip(loaded.sets.get(name));
            match both {
                Some(_) if is_endpoints(name) => {
                    let backends = |listing: &Self| -> BTreeMap<String, BTreeSet<String>> {
                        let slots = listing.slots(name).into_iter();
                        slots.map(|(frontend, slots)| (frontend, slots.into_values().collect())).collect()
                    };
                    let (ours, theirs) = (backends(self), backends(loaded));
                    if ours != theirs {
                        note(name, Some(&ours), Some(&theirs));
                    }
                }
                Some((ours, theirs)) if ours != theirs => note(name, Some(ours), Some(theirs)),
                Some(_) => {}
                None => note(name, self.sets.get(name).map(|set| set as _), loaded.sets.get(name).map(|set| set as _)),
            }
            if let (Some(ours), Some(theirs)) = (self.kinds.get(name), loaded.kinds.get(name))
                && ours != theirs
            {
                note(name, Some(ours), Some(theirs));
            }
        }
        for name in self.chains.keys().chain(loaded.chains.keys()).collect::<BTreeSet<_>>() {
            let (ours, theirs) = (self.chains.get(name), loaded.chains.get(name));
            if ours != theirs {
                note(name, ours.map(|rules| rules as _), theirs.map(|rules| rules as _));
            }
        }
        found.truncate(5);
        found
    }
}

fn is_endpoints(name: &str) -> bool {
    name.contains("endpoints-")
}

/// A key of a class set as [`Listing::slots`] names frontends.
fn frontend_of(key: &str) -> String {
    let key: Value = serde_json::from_str(key).unwrap();
    text(&key["concat"])
}

fn name(object: &Value) -> String {
    base(object["name"].as_str().unwrap()).to_owned()
}

fn without(object: &Value, fields: &[&str]) -> String {
    let kept = object.as_object().unwrap().iter().filter(|(field, _)| !fields.contains(&field.as_str()));
    text(&Value::Object(kept.map(|(field, value)| (field.clone(), value.clone())).collect::<Map<_, _>>()))
}

/// JSON text in which no name tells an instance, and no anonymous set an order.
fn text(value: &Value) -> String {
    plain(value).to_string()
}

fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => base(text).into(),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let mut value = plain(value);
                if let (true, Some(list)) = (name == "set", value.as_array_mut()) {
                    list.sort_by_key(Value::to_string);
                }
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}
