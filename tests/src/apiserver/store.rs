//! What the server remembers: the objects, already in the bytes that go out, and a bounded history of their changes.
//!
//! An object is serialised once. Its resourceVersion is not in those bytes, because a DELETED event carries the version of the
//! deletion with the body of before; kind and apiVersion are not either, because the items of a list come without them. So one
//! allocation serves get, list and every watcher, and a list of 73 MB copies nothing per reader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use sheave::model::ObjectKey;
use tokio::sync::watch;

use super::resource::Resource;
use super::status::Status;

/// One version of one object.
#[derive(Debug)]
pub(super) struct Stored {
    /// `metadata.resourceVersion`.
    pub(super) version: u64,
    /// Everything after the version: `,"name":"web"},"spec":{..}}`, from inside metadata to the closing brace.
    rest: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the selectable fields that the object has, `metadata.name` and `metadata.namespace` among them.
    fields: Box<[(&'static str, Box<str>)]>,
}

/// One change of one object.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) key: ObjectKey,
    /// `None`: it was created.
    pub(super) old: Option<Arc<Stored>>,
    /// `None`: it was deleted.
    pub(super) new: Option<Arc<Stored>>,
}

/// How much of the past is kept, per resource.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Changes.
    pub events: usize,
    /// Bytes of superseded objects that only the history still holds.
    pub bytes: usize,
}

/// Objects by key: etcd's order, which is that of the keys' bytes.
pub(super) type Objects = BTreeMap<ObjectKey, Arc<Stored>>;

/// The objects of one resource.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) resource: Arc<Resource>,
    pub(super) objects: Objects,
    /// Ascending by version; each change's `old` is the state it replaced, so going back is undoing.
    history: VecDeque<Arc<Event>>,
    /// Sum of the `old` bodies in `history`.
    history_bytes: usize,
    /// States before this version cannot be told any more.
    compacted: u64,
    /// The newest change that is not in `history` any more. A running watch that has it is not disturbed by a compaction.
    forgotten: u64,
    /// The newest version of this resource, for watchers to wait on.
    latest: watch::Sender<u64>,
}

/// All tables under one version counter, as etcd has it.
#[derive(Debug)]
pub(super) struct Store {
    revision: u64,
    tables: Vec<Table>,
    window: Window,
}

/// Which table; handed out by [`Store::find`] and stable, because tables are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TableId(usize);

impl TableId {
    /// A number for maps that are kept beside the store.
    pub(super) fn index(self) -> usize {
        self.0
    }
}

impl Default for Window {
    /// Enough for any test; 64 MiB so that a churn of large slices does not eat the machine.
    fn default() -> Self {
        Self { events: 100_000, bytes: 64 << 20 }
    }
}

impl Stored {
    /// Serialises an object. Its own kind, apiVersion and resourceVersion are ignored: the resource and `version` say them.
    pub(super) fn new(resource: &Resource, version: u64, object: &Value) -> Self {
        let empty = Map::new();
        let object = object.as_object().unwrap_or(&empty);
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let mut rest = Vec::with_capacity(512);
        for (name, value) in metadata.iter().filter(|(name, _)| *name != "resourceVersion") {
            append_member(&mut rest, name, value);
        }
        rest.push(b'}');
        for (name, value) in object.iter().filter(|(name, _)| !matches!(name.as_str(), "metadata" | "kind" | "apiVersion")) {
            append_member(&mut rest, name, value);
        }
        rest.push(b'}');
        let labels = metadata.get("labels").and_then(Value::as_object).unwrap_or(&empty);
        let labels = labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect();
        let text = |name: &str| metadata.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let mut fields: Vec<(&'static str, Box<str>)> = Vec::new();
        fields.extend(text("name").map(|name| ("metadata.name", name.into())));
        fields.extend(text("namespace").map(|name| ("metadata.namespace", name.into())));
        let whole = Value::Null;
        for (field, pointer) in resource.fields {
            let (first, deeper) =
                pointer[1..].split_once('/').map_or((&pointer[1..], ""), |(first, _)| (first, &pointer[1 + first.len()..]));
            match object.get(first).unwrap_or(&whole).pointer(deeper) {
                Some(Value::String(text)) => fields.push((field, text.as_str().into())),
                Some(Value::Bool(flag)) => fields.push((field, flag.to_string().into())),
                _ => {}
            }
        }
        Self { version, rest: rest.into(), labels, fields: fields.into() }
    }

    /// An object from its serialised parts, for the load generator: `rest` begins inside metadata, after the resourceVersion.
    pub(super) fn from_parts(version: u64, rest: Bytes, labels: &[(&str, &str)], fields: &[(&'static str, &str)]) -> Self {
        let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let fields = fields.iter().map(|(k, v)| (*k, (*v).into())).collect();
        Self { version, rest, labels, fields }
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| &**value)
    }

    /// The serialised object behind its version.
    pub(super) fn rest(&self) -> &Bytes {
        &self.rest
    }

    /// What stands before [`Self::rest`]: `type_meta` is `"kind":..,"apiVersion":..,` or nothing.
    pub(super) fn head(type_meta: &str, version: u64) -> String {
        format!("{{{type_meta}\"metadata\":{{\"resourceVersion\":\"{version}\"")
    }

    /// The whole object.
    pub(super) fn to_bytes(&self, resource: &Resource) -> Bytes {
        [Self::head(&type_meta(resource), self.version).as_bytes(), &self.rest].concat().into()
    }

    /// The whole object as a value.
    pub(super) fn to_json(&self, resource: &Resource) -> Value {
        serde_json::from_slice(&self.to_bytes(resource)).unwrap_or_default()
    }
}

/// `"kind":"Service","apiVersion":"v1",`
pub(super) fn type_meta(resource: &Resource) -> String {
    format!("\"kind\":\"{}\",\"apiVersion\":\"{}\",", resource.kind, resource.api_version())
}

fn append_member(to: &mut Vec<u8>, name: &str, value: &Value) {
    to.push(b',');
    // Writing to a Vec cannot fail, and neither keys nor values can be unserialisable: they are JSON already.
    let _ = serde_json::to_writer(&mut *to, name);
    to.push(b':');
    let _ = serde_json::to_writer(to, value);
}

impl Table {
    fn new(resource: Resource, compacted: u64) -> Self {
        Self {
            resource: Arc::new(resource),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_bytes: 0,
            compacted,
            forgotten: 0,
            latest: watch::Sender::new(compacted),
        }
    }

    /// The objects of a namespace, or all with an empty one, in the order of their keys, from `start` on.
    pub(super) fn range<'a>(
        objects: &'a Objects,
        namespace: &str,
        start: &str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Stored>)> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = ObjectKey::new("", if start > prefix.as_str() { start } else { &prefix });
        objects.range(from..).take_while(move |(key, _)| key.as_str().starts_with(&prefix))
    }

    /// The oldest version that can still be told.
    pub(super) fn oldest(&self) -> u64 {
        self.compacted
    }

    /// The objects as they were at `version`, or `None` where that is forgotten.
    pub(super) fn at(&self, version: u64) -> Option<Objects> {
        if version < self.compacted {
            return None;
        }
        let mut objects = self.objects.clone();
        for event in self.history.iter().rev().take_while(|event| event.version > version) {
            match &event.old {
                Some(old) => objects.insert(event.key.clone(), old.clone()),
                None => objects.remove(&event.key),
            };
        }
        Some(objects)
    }

    /// Up to `limit` changes after `version`, for a watch that runs; `None` where some of them are forgotten.
    pub(super) fn after(&self, version: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        if version < self.forgotten {
            return None;
        }
        let first = self.history.partition_point(|event| event.version <= version);
        Some(self.history.range(first..).take(limit).cloned().collect())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    fn forget_until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let Some(event) = self.history.pop_front() else { break };
            self.history_bytes -= event.old.as_ref().map_or(0, |old| old.rest.len());
            self.compacted = event.version;
            self.forgotten = event.version;
        }
    }
}

impl Store {
    pub(super) fn new(resources: Vec<Resource>, window: Window) -> Self {
        // etcd starts at revision 1.
        Self { revision: 1, tables: resources.into_iter().map(|resource| Table::new(resource, 1)).collect(), window }
    }

    /// Adds a resource, as creating its CustomResourceDefinition does. One that is there already stays.
    pub(super) fn register(&mut self, resource: Resource) {
        if self.find(&resource.group, &resource.version, &resource.plural).is_none() {
            self.tables.push(Table::new(resource, self.revision));
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<TableId> {
        let same = |r: &Resource| r.group == group && r.version == version && r.plural == plural;
        self.tables.iter().position(|table| same(&table.resource)).map(TableId)
    }

    /// The table of an object by its own words.
    pub(super) fn find_kind(&self, api_version: &str, kind: &str) -> Option<TableId> {
        let same = |r: &Resource| r.kind == kind && r.api_version() == api_version;
        self.tables.iter().position(|table| same(&table.resource)).map(TableId)
    }

    /// The table by plural or full name.
    pub(super) fn called(&self, name: &str) -> Option<TableId> {
        self.tables.iter().position(|table| table.resource.is_called(name)).map(TableId)
    }

    pub(super) fn table(&self, id: TableId) -> &Table {
        &self.tables[id.0]
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = (TableId, &Table)> {
        self.tables.iter().enumerate().map(|(index, table)| (TableId(index), table))
    }

    pub(super) fn resource(&self, id: TableId) -> Arc<Resource> {
        self.tables[id.0].resource.clone()
    }

    pub(super) fn get(&self, id: TableId, key: &ObjectKey) -> Result<&Arc<Stored>, Status> {
        let table = &self.tables[id.0];
        table.objects.get(key).ok_or_else(|| Status::not_found(&table.resource, key.name()))
    }

    /// Writes an object under the next version.
    pub(super) fn put(&mut self, id: TableId, key: ObjectKey, object: &Value) -> Arc<Stored> {
        let stored = Stored::new(&self.tables[id.0].resource, self.revision + 1, object);
        self.put_stored(id, key, stored)
    }

    /// Writes an object that was serialised for the next version.
    pub(super) fn put_stored(&mut self, id: TableId, key: ObjectKey, mut stored: Stored) -> Arc<Stored> {
        stored.version = self.revision + 1;
        let stored = Arc::new(stored);
        let old = self.tables[id.0].objects.insert(key.clone(), stored.clone());
        self.commit(id, key, old, Some(stored.clone()));
        stored
    }

    pub(super) fn remove(&mut self, id: TableId, key: &ObjectKey) -> Option<Arc<Stored>> {
        let old = self.tables[id.0].objects.remove(key)?;
        self.commit(id, key.clone(), Some(old.clone()), None);
        Some(old)
    }

    fn commit(&mut self, id: TableId, key: ObjectKey, old: Option<Arc<Stored>>, new: Option<Arc<Stored>>) {
        self.revision += 1;
        let version = self.revision;
        let window = self.window;
        let table = &mut self.tables[id.0];
        table.history_bytes += old.as_ref().map_or(0, |old| old.rest.len());
        table.history.push_back(Arc::new(Event { version, key, old, new }));
        table.forget_until(|table| table.history.len() <= window.events && table.history_bytes <= window.bytes);
        table.latest.send_replace(version);
    }

    /// Forgets every change so far, as etcd's compaction and a watch cache's overrun do.
    pub(super) fn compact(&mut self) {
        let revision = self.revision;
        for table in &mut self.tables {
            table.forget_until(|table| table.history.is_empty());
            table.compacted = revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn leases() -> (Store, TableId) {
        let store = Store::new(Resource::all_builtin(), Window::default());
        let id = store.called("leases").unwrap();
        (store, id)
    }

    fn names(objects: &Objects) -> Vec<(String, u64)> {
        objects.iter().map(|(key, stored)| (key.to_string(), stored.version)).collect()
    }

    proptest! {
        /// Every remembered state can be told, and applying the changes after it leads to the present.
        #[test]
        fn the_past_is_what_it_was(ops in prop::collection::vec((0_u8..6, any::<bool>()), 1..60), window in 1_usize..40) {
            let (mut store, id) = leases();
            store.window.events = window;
            let mut states = vec![(store.revision(), Vec::new())];
            for (name, present) in ops {
                let key = ObjectKey::new("ns", &format!("l{name}"));
                if present {
                    store.put(id, key, &json!({"metadata": {"name": format!("l{name}")}}));
                } else {
                    store.remove(id, &key);
                }
                states.push((store.revision(), names(&store.table(id).objects)));
            }
            for (version, state) in states {
                let table = store.table(id);
                match table.at(version) {
                    None => prop_assert!(version < table.oldest()),
                    Some(mut objects) => {
                        prop_assert_eq!(names(&objects), state);
                        for event in table.after(version, usize::MAX).unwrap() {
                            match &event.new {
                                Some(new) => objects.insert(event.key.clone(), new.clone()),
                                None => objects.remove(&event.key),
                            };
                        }
                        prop_assert_eq!(names(&objects), names(&table.objects));
                    }
                }
            }
            prop_assert!(store.table(id).history.len() <= window);
        }
    }

    #[test]
    fn the_bytes_of_the_past_are_bounded() {
        let (mut store, id) = leases();
        store.window.bytes = 10_000;
        for n in 0..100 {
            store.put(
                id,
                ObjectKey::new("ns", "l"),
                &json!({"metadata": {"name": "l"}, "spec": {"filler": "x".repeat(900), "n": n}}),
            );
        }
        let table = store.table(id);
        assert!(table.history_bytes <= 10_000 && table.history.len() < 12, "{} bytes", table.history_bytes);
        assert!(table.at(2).is_none() && table.at(store.revision()).is_some());
    }

    #[test]
    fn an_object_reads_back_as_it_was_written() {
        let (store, id) = leases();
        let resource = store.resource(id);
        let object = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
            "metadata": {"name": "a\"b", "labels": {"x": "y"}, "resourceVersion": "7"}, "spec": {"holderIdentity": "ü"}});
        assert_eq!(Stored::new(&resource, 7, &object).to_json(&resource), object);
        let bare = Stored::new(&resource, 3, &json!({}));
        assert_eq!(bare.to_json(&resource)["metadata"], json!({"resourceVersion": "3"}));
    }
}
