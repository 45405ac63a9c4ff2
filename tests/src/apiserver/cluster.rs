//! Writing: what becomes of an object between a request and the store.

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use sheave::model::ObjectKey;

use super::allocator::{Allocator, Claim};
use super::patch::Patch;
use super::resource::{Resource, Rules};
use super::rules;
use super::service::{self, Admission};
use super::status::{Cause, Status};
use super::store::{Store, Stored, TableId, Window};
use super::typed;

/// The store and what it takes to write to it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) store: Store,
    allocator: Allocator,
    /// Drawn from for uids and generated names, so that a test sees the same ones each time.
    serial: u64,
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status, where that is a subresource.
    Object,
    /// The status alone.
    Status,
}

/// What a delete did.
#[derive(Debug)]
pub(super) enum Deleted {
    /// It is gone; this was its uid.
    Gone { uid: String },
    /// It waits for its finalizers.
    Pending(Arc<Stored>),
}

impl Cluster {
    pub(super) fn new(resources: Vec<Resource>, window: Window) -> Self {
        Self { store: Store::new(resources, window), allocator: Allocator::default(), serial: 0 }
    }

    /// Creates an object. `namespace` is the path's; the object may repeat it.
    pub(super) fn create(&mut self, id: TableId, namespace: &str, mut object: Value) -> Result<Arc<Stored>, Status> {
        let resource = self.store.resource(id);
        check_type(&resource, &object)?;
        clean(&mut object);
        metadata(&mut object)?;
        typed::check(&resource, &object)?;
        let metadata = metadata(&mut object)?;
        if metadata.contains_key("resourceVersion") {
            return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        check_namespace(&resource, namespace, metadata)?;
        if metadata.get("name").is_none_or(|name| name == "")
            && let Some(prefix) = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned)
        {
            metadata.insert("name".to_owned(), format!("{prefix}{}", self.suffix()).into());
        }
        let now = now();
        metadata.insert("uid".to_owned(), self.uid().into());
        metadata.insert("creationTimestamp".to_owned(), now.clone().into());
        if resource.generation {
            metadata.insert("generation".to_owned(), 1.into());
        }
        // A Node brings its status along (the kubelet registers itself so); of all others it is the status writer's alone.
        if resource.status && resource.rules != Rules::Node {
            remove(&mut object, "status");
        }
        rules::on_create(&resource, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(namespace, &name);
        if self.store.table(id).objects.contains_key(&key) {
            return Err(Status::already_exists(&resource, &name));
        }
        self.admit(&resource, &mut object, None, &now)?;
        let namespaces = self.store.called("namespaces");
        if let Some(namespaces) = namespaces.filter(|_| resource.namespaced) {
            self.store.get(namespaces, &ObjectKey::new("", namespace))?;
        }
        self.claim(&resource, None, Some(&object));
        Ok(self.store.put(id, key, &object))
    }

    /// Replaces an object, or its status.
    pub(super) fn update(&mut self, id: TableId, key: &ObjectKey, mut object: Value, part: Part) -> Result<Arc<Stored>, Status> {
        let resource = self.store.resource(id);
        check_type(&resource, &object)?;
        clean(&mut object);
        let stored = self.store.get(id, key)?.clone();
        let old = stored.to_json(&resource);
        metadata(&mut object)?;
        typed::check(&resource, &object)?;
        let metadata = metadata(&mut object)?;
        check_namespace(&resource, key.namespace(), metadata)?;
        let name = metadata.entry("name").or_insert_with(|| key.name().into());
        if name != key.name() {
            let url = key.name();
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({url})"
            )));
        }
        match metadata.get("resourceVersion").and_then(Value::as_str) {
            None | Some("") if resource.unconditional || part == Part::Status => {}
            None | Some("") => {
                let cause = Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
                return Err(Status::invalid(&resource, key.name(), &[cause]));
            }
            Some(version) if version == stored.version.to_string() => {}
            Some(_) => return Err(Status::conflict(&resource, key.name())),
        }
        if metadata.get("uid").is_some_and(|uid| *uid != old["metadata"]["uid"]) {
            return Err(Status::conflict(&resource, key.name()));
        }
        for field in
            ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"]
        {
            match &old["metadata"][field] {
                Value::Null => drop(metadata.remove(field)),
                value => drop(metadata.insert(field.to_owned(), value.clone())),
            }
        }
        let mut new = if part == Part::Status {
            let mut new = old.clone();
            new["status"] = object["status"].take();
            if resource.status_takes_metadata {
                new["metadata"] = object["metadata"].take();
            }
            new
        } else {
            if resource.status {
                match &old["status"] {
                    Value::Null => remove(&mut object, "status"),
                    status => object["status"] = status.clone(),
                }
            }
            object
        };
        remove_null(&mut new, "status");
        for name in ["kind", "apiVersion"] {
            new[name] = old[name].clone();
        }
        self.admit(&resource, &mut new, Some(&old), &now())?;
        if new == old {
            return Ok(stored);
        }
        if resource.generation && part == Part::Object && differs_in_spec(&old, &new) {
            new["metadata"]["generation"] = (old["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
        }
        self.claim(&resource, Some(&old), Some(&new));
        let waits = new["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        let stored = self.store.put(id, key.clone(), &new);
        if !waits && !new["metadata"]["deletionTimestamp"].is_null() {
            self.claim(&resource, Some(&new), None);
            self.store.remove(id, key);
        }
        Ok(stored)
    }

    /// Changes an object, or its status. True where it was created (by server-side apply).
    pub(super) fn patch(
        &mut self,
        id: TableId,
        key: &ObjectKey,
        patch: &Patch,
        part: Part,
    ) -> Result<(Arc<Stored>, bool), Status> {
        let resource = self.store.resource(id);
        let current = match (self.store.get(id, key), patch) {
            (Ok(stored), _) => stored.to_json(&resource),
            (Err(_), Patch::Apply(object)) if part == Part::Object => {
                let mut object = object.clone();
                metadata(&mut object)?.insert("name".to_owned(), key.name().into());
                return Ok((self.create(id, key.namespace(), object)?, true));
            }
            (Err(status), _) => return Err(status),
        };
        let mut object = current;
        patch.apply_to(&mut object);
        if object.is_object() {
            // A patch that can be read and leads to nonsense is invalid (`patchResource` of the apiserver's handlers).
            typed::check(&resource, &object).map_err(|status| {
                Status::invalid(&resource, key.name(), &[Cause::invalid("patch", &Value::Null, status.message)])
            })?;
        }
        Ok((self.update(id, key, object, part)?, false))
    }

    /// Deletes an object if the preconditions of the delete options hold; with finalizers it only begins to.
    pub(super) fn delete(&mut self, id: TableId, key: &ObjectKey, options: &Value) -> Result<Deleted, Status> {
        let resource = self.store.resource(id);
        let stored = self.store.get(id, key)?.clone();
        let mut object = stored.to_json(&resource);
        let conditions = &options["preconditions"];
        let holds = |wanted: &Value, actual: &Value| wanted.is_null() || wanted == actual;
        if !holds(&conditions["uid"], &object["metadata"]["uid"])
            || !holds(&conditions["resourceVersion"], &object["metadata"]["resourceVersion"])
        {
            return Err(Status::conflict(&resource, key.name()));
        }
        if object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty()) {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = now().into();
                object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
                return Ok(Deleted::Pending(self.store.put(id, key.clone(), &object)));
            }
            return Ok(Deleted::Pending(stored));
        }
        if resource.rules == Rules::Namespace {
            self.empty_namespace(key.name());
        }
        self.claim(&resource, Some(&object), None);
        self.store.remove(id, key);
        Ok(Deleted::Gone { uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned() })
    }

    /// Deletes what lives in a namespace, at once and whatever its finalizers say.
    fn empty_namespace(&mut self, namespace: &str) {
        let prefix = format!("{namespace}/");
        let inside = |store: &Store| -> Vec<(TableId, ObjectKey)> {
            let tables = store.tables().filter(|(_, table)| table.resource.namespaced);
            tables.flat_map(|(id, table)| table.objects.keys().map(move |key| (id, key.clone()))).collect()
        };
        for (id, key) in inside(&self.store).into_iter().filter(|(_, key)| key.as_str().starts_with(&prefix)) {
            let resource = self.store.resource(id);
            if let Some(old) = self.store.remove(id, &key) {
                self.claim(&resource, Some(&old.to_json(&resource)), None);
            }
        }
    }

    /// Stores an object as it is: no defaults, no checks. For tests of what a client does with nonsense.
    pub(super) fn put_unchecked(&mut self, id: TableId, object: &Value) -> Arc<Stored> {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        self.store.put(id, ObjectKey::new(text("namespace"), text("name")), object)
    }

    /// Stores an object that the load generator serialised, and takes the addresses and ports it holds.
    pub(super) fn put_prepared(&mut self, id: TableId, key: ObjectKey, stored: Stored, claim: Claim) {
        self.allocator.take(claim);
        self.store.put_stored(id, key, stored);
    }

    /// Gives back what a prepared object held, and deletes it.
    pub(super) fn remove_prepared(&mut self, id: TableId, key: &ObjectKey, claim: &Claim) {
        self.allocator.give_back(claim);
        self.store.remove(id, key);
    }

    /// A new uid, of the form of a random one.
    pub(super) fn uid(&mut self) -> String {
        let (high, low) = (self.draw(), self.draw());
        let variant = 0x8000 | (low >> 48 & 0x3fff);
        format!(
            "{:08x}-{:04x}-4{:03x}-{variant:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low & 0xffff_ffff_ffff
        )
    }

    fn suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.draw();
        (0..5)
            .map(|_| {
                let at = bits % 27;
                bits /= 27;
                char::from(ALPHABET.get(usize::try_from(at).unwrap_or(0)).copied().unwrap_or(b'b'))
            })
            .collect()
    }

    /// SplitMix64 over a counter.
    fn draw(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.serial;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Defaults, allocation and checks. On refusal nothing has changed.
    fn admit(&mut self, resource: &Resource, object: &mut Value, old: Option<&Value>, now: &str) -> Result<(), Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let refuse = |causes: &[Cause]| Err(Status::invalid(resource, &name, causes));
        rules::defaults(resource, object, now);
        if resource.rules != Rules::Service {
            let causes = rules::validate(resource, object, old);
            return if causes.is_empty() { Ok(()) } else { refuse(&causes) };
        }
        if let Some(old) = old {
            let type_before = &object["status"]["loadBalancer"]["ingress"];
            if !type_before.is_null() && object["spec"]["type"] != "LoadBalancer" && old["spec"]["type"] == object["spec"]["type"]
            {
                let why = "may only be used when `spec.type` is \"LoadBalancer\"";
                return refuse(&[Cause::forbidden("status.loadBalancer.ingress", why)]);
            }
            service::carry_over(object, old);
        }
        let causes = rules::validate(resource, object, old);
        if !causes.is_empty() {
            return refuse(&causes);
        }
        let networks = self.networks();
        let held = old.map(Claim::of).unwrap_or_default();
        self.allocator.give_back(&held);
        let result = Admission { networks: &networks, allocator: &mut self.allocator }.allocate(object);
        self.allocator.take(held);
        result.or_else(|cause| refuse(&[cause]))
    }

    /// Moves what a Service holds from its old self to its new one.
    fn claim(&mut self, resource: &Resource, old: Option<&Value>, new: Option<&Value>) {
        if resource.rules != Rules::Service {
            return;
        }
        if let Some(old) = old {
            self.allocator.give_back(&Claim::of(old));
        }
        if let Some(new) = new {
            Admission { networks: &[], allocator: &mut self.allocator }.commit(new);
        }
    }

    /// The networks of all ServiceCIDRs; the cluster's own come first.
    fn networks(&self) -> Vec<IpNet> {
        let Some(id) = self.store.called("servicecidrs") else { return Vec::new() };
        let table = self.store.table(id);
        let mut cidrs: Vec<(bool, Value)> = table
            .objects
            .iter()
            .map(|(key, stored)| (key.name() != "kubernetes", stored.to_json(&table.resource)["spec"]["cidrs"].take()))
            .collect();
        cidrs.sort_by_key(|(other, _)| *other);
        let lists = cidrs.into_iter().filter_map(|(_, list)| if let Value::Array(list) = list { Some(list) } else { None });
        lists.flatten().filter_map(|cidr| cidr.as_str()?.parse().ok()).collect()
    }
}

/// `metav1.Time`: whole seconds, UTC.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether anything but metadata and status changed.
fn differs_in_spec(old: &Value, new: &Value) -> bool {
    let spec = |object: &Value| {
        let mut object = object.clone();
        remove(&mut object, "metadata");
        remove(&mut object, "status");
        object
    };
    spec(old) != spec(new)
}

fn remove(object: &mut Value, name: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(name);
    }
}

fn remove_null(object: &mut Value, name: &str) {
    if object[name].is_null() {
        remove(object, name);
    }
}

fn check_type(resource: &Resource, object: &Value) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled: not an object",
            resource.kind, resource.version
        )));
    }
    for (name, expected) in [("kind", resource.kind.to_string()), ("apiVersion", resource.api_version())] {
        if let Some(given) = object[name].as_str().filter(|given| !given.is_empty() && *given != expected) {
            let what = if name == "kind" { "kind" } else { "API version" };
            return Err(Status::bad_request(format!(
                "the {what} in the data ({given}) does not match the expected {what} ({expected})"
            )));
        }
    }
    Ok(())
}

/// Takes out what the server does not keep: nulls, and managedFields, which this double does not track.
fn clean(object: &mut Value) {
    fn prune(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|_, value| !value.is_null());
                members.values_mut().for_each(prune);
            }
            Value::Array(items) => items.iter_mut().for_each(prune),
            _ => {}
        }
    }
    prune(object);
    remove(&mut object["metadata"], "managedFields");
    remove_null(object, "metadata");
}

fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().ok_or_else(|| Status::bad_request("metadata is not an object"))
}

/// The object's namespace is the path's.
fn check_namespace(resource: &Resource, namespace: &str, metadata: &mut Map<String, Value>) -> Result<(), Status> {
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    if resource.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    } else {
        metadata.remove("namespace");
    }
    Ok(())
}
