//! Objects of one kind, and the mark and sweep of complete lists.

use std::collections::HashMap;

use crate::model::ObjectKey;

/// Objects of one kind by key.
#[derive(Debug)]
pub(crate) struct Held<V> {
    items: HashMap<ObjectKey, Seen<V>>,
    pub(crate) sweep: Sweep,
}

/// The state of a kind's complete lists.
///
/// Every list has a number; an object carries the number of the list during or after which it was last applied. Beginning a
/// list is therefore free, and so is beginning it again. One that never ends leaves the old objects in force.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Wraps; only equality with objects of the same kind counts.
    list: u32,
    listed: bool,
}

#[derive(Debug)]
struct Seen<V> {
    value: V,
    list: u32,
}

impl<V> Held<V> {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&V> {
        self.items.get(key).map(|seen| &seen.value)
    }

    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.items.values().map(|seen| &seen.value)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&ObjectKey, &V)> {
        self.items.iter().map(|(key, seen)| (key, &seen.value))
    }

    pub(crate) fn insert(&mut self, key: ObjectKey, value: V) {
        self.items.insert(key, Seen { value, list: self.sweep.list() });
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<V> {
        self.items.remove(key).map(|seen| seen.value)
    }

    /// Keys that the running list has not named.
    pub(crate) fn unseen(&self) -> Vec<ObjectKey> {
        self.sweep.unseen(self.items.iter().map(|(key, seen)| (key, seen.list)))
    }
}

impl<V> Default for Held<V> {
    fn default() -> Self {
        Self { items: HashMap::new(), sweep: Sweep::default() }
    }
}

impl Sweep {
    /// A list begins, or begins again.
    pub(crate) fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
    }

    /// The list is complete.
    pub(crate) fn end(&mut self) {
        self.listed = true;
    }

    /// What an object applied now carries.
    pub(crate) fn list(&self) -> u32 {
        self.list
    }

    /// Some list has been completed.
    pub(crate) fn listed(&self) -> bool {
        self.listed
    }

    /// Keys of those that carry another list's number. While no list is running there are none: the end of the last one removed
    /// them, so an end without a beginning is harmless.
    pub(crate) fn unseen<'a>(&self, items: impl Iterator<Item = (&'a ObjectKey, u32)>) -> Vec<ObjectKey> {
        items.filter(|(_, list)| *list != self.list).map(|(key, _)| key.clone()).collect()
    }
}
