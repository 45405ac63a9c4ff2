//! Elements by the set they belong to, packed: a quarter of a million of them are 6 MB here.

use std::collections::BTreeMap;

use crate::netlink::nft::Element;
use crate::table::Backend;

use super::names::SetId;
use super::render::{Sink, SlotRecord};
use super::sets::Shape;

/// Elements of one set, one after the other, each as long as the set's [`Shape`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    shape: Shape,
    bytes: Vec<u8>,
}

/// Elements of many sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    columns: BTreeMap<SetId, Column>,
}

/// What happens to one set in a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// All elements go first: for interval sets, which are short and must not overlap on the way.
    pub(crate) flush: bool,
    pub(crate) delete: Column,
    pub(crate) add: Column,
}

/// What happens to many sets in a transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    sets: BTreeMap<SetId, Change>,
}

impl Shape {
    /// Bytes of one element.
    pub(crate) fn len(self) -> usize {
        self.key * if self.range { 2 } else { 1 } + usize::from(self.interval) + self.data
    }

    /// An element's bytes as the kernel's door takes them.
    pub(crate) fn element(self, record: &[u8]) -> Element<'_> {
        let (key, rest) = record.split_at(self.key);
        if self.range {
            return Element { key, key_end: Some(rest), ..Element::default() };
        }
        if self.interval {
            return Element { key, interval_end: rest == [1], ..Element::default() };
        }
        Element { key, data: (self.data > 0).then_some(rest), ..Element::default() }
    }
}

impl Column {
    pub(crate) fn new(set: SetId) -> Self {
        Self { shape: set.shape(), bytes: Vec::new() }
    }

    pub(crate) fn push(&mut self, record: &[u8]) {
        debug_assert_eq!(record.len(), self.shape.len(), "an element of another set");
        self.bytes.extend_from_slice(record);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.shape.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.shape.len())
    }

    pub(crate) fn elements(&self) -> impl Iterator<Item = Element<'_>> {
        self.records().map(|record| self.shape.element(record))
    }
}

impl Content {
    pub(crate) fn push(&mut self, set: SetId, record: &[u8]) {
        self.column(set).push(record);
    }

    fn column(&mut self, set: SetId) -> &mut Column {
        self.columns.entry(set).or_insert_with(|| Column::new(set))
    }

    pub(crate) fn len(&self, set: SetId) -> usize {
        self.columns.get(&set).map_or(0, Column::len)
    }

    /// Sets that have elements, in the order of loading.
    pub(crate) fn sets(&self) -> impl Iterator<Item = SetId> {
        self.columns.keys().copied()
    }

    /// Hands out the columns in the order of loading; each is freed when the caller is done with it.
    pub(crate) fn into_columns(self) -> impl Iterator<Item = (SetId, Column)> {
        self.columns.into_iter()
    }
}

impl Sink for Content {
    fn put(&mut self, set: SetId, record: &[u8]) {
        self.push(set, record);
    }

    fn put_slots(&mut self, mut slots: SlotRecord, backends: impl ExactSizeIterator<Item = Backend>) {
        if backends.len() > 0 {
            let column = self.column(slots.set());
            (0_u32..).zip(backends).for_each(|(place, backend)| column.push(slots.at(place, backend)));
        }
    }
}

impl Changes {
    fn of(&mut self, set: SetId) -> &mut Change {
        self.sets.entry(set).or_insert_with(|| Change { flush: false, delete: Column::new(set), add: Column::new(set) })
    }

    pub(crate) fn add(&mut self, set: SetId, record: &[u8]) {
        self.of(set).add.push(record);
    }

    pub(crate) fn delete(&mut self, set: SetId, record: &[u8]) {
        self.of(set).delete.push(record);
    }

    pub(crate) fn flush(&mut self, set: SetId) {
        self.of(set).flush = true;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SetId, &Change)> {
        self.sets.iter().map(|(set, change)| (*set, change))
    }

    pub(crate) fn get(&self, set: SetId) -> Option<&Change> {
        self.sets.get(&set)
    }

    pub(crate) fn remove(&mut self, set: SetId) {
        self.sets.remove(&set);
    }

    /// How many elements a set has afterwards.
    pub(crate) fn count_after(&self, set: SetId, before: usize) -> usize {
        let Some(change) = self.sets.get(&set) else { return before };
        let kept = if change.flush { 0 } else { before.saturating_sub(change.delete.len()) };
        kept + change.add.len()
    }
}
