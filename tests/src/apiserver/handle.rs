//! The test's own hand on the server: objects without HTTP, faults, counters, and waiting for things to happen.

use std::collections::BTreeSet;
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sheave::model::ObjectKey;
use socket2::SockRef;

use super::cluster::Part;
use super::fault::{Cut, Fault};
use super::gate::State;
use super::patch::Patch;
use super::resource::Resource;
use super::route::Verb;
use super::status::Status;
use super::store::TableId;
use super::watch::CutOrder;
use super::{ApiServer, ManifestError, TimedOut, lock, manifests};

/// Queue of the kernel for connections that are not accepted yet.
const BACKLOG: i32 = 1024;

// === Objects ===

impl ApiServer {
    /// `http://address`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The version of the last change of anything.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.cluster().store.revision()
    }

    /// Serves another resource, as creating its CustomResourceDefinition does.
    pub fn register(&self, resource: Resource) {
        self.shared.cluster().store.register(resource);
    }

    /// Serves MetalLB's objects, as `kubectl apply -f manifests/crds` does. Does nothing where they are served.
    pub fn install_metallb(&self) {
        Resource::metallb().into_iter().for_each(|resource| self.register(resource));
        self.shared.active();
    }

    /// Creates or replaces an object, JSON or of a Kubernetes type, its status included. Its namespace is `default` where it names
    /// none, and is created where it is not there.
    ///
    /// # Errors
    /// What an HTTP client would be told: 404 for a kind that is not served, 422 for an object that is not valid.
    pub fn apply(&self, object: &impl Serialize) -> Result<Value, Status> {
        let mut object = serde_json::to_value(object).map_err(|error| Status::bad_request(error.to_string()))?;
        let mut cluster = self.shared.cluster();
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let unknown = || Status::new(404, "NotFound", format!("no resource of kind {kind:?} in {api_version:?} is served"));
        let table = cluster.store.find_kind(&api_version, &kind).ok_or_else(unknown)?;
        let resource = cluster.store.resource(table);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let namespace = match object["metadata"]["namespace"].as_str() {
            _ if !resource.namespaced => String::new(),
            None | Some("") => "default".to_owned(),
            Some(namespace) => namespace.to_owned(),
        };
        if resource.namespaced
            && let Some(namespaces) = cluster.store.called("namespaces")
            && cluster.store.get(namespaces, &ObjectKey::new("", &namespace)).is_err()
        {
            cluster.create(namespaces, "", serde_json::json!({"metadata": {"name": namespace}}))?;
        }
        let status = object["status"].clone();
        let key = ObjectKey::new(&namespace, &name);
        let current = if name.is_empty() { None } else { cluster.store.get(table, &key).ok().map(|stored| stored.version) };
        let mut stored = match current {
            Some(version) => {
                if object["metadata"]["resourceVersion"].is_null() {
                    object["metadata"]["resourceVersion"] = version.to_string().into();
                }
                cluster.update(table, &key, object, Part::Object)?
            }
            None => cluster.create(table, &namespace, object)?,
        };
        if resource.status && !status.is_null() {
            let mut with_status = stored.to_json(&resource);
            let key = ObjectKey::new(&namespace, with_status["metadata"]["name"].as_str().unwrap_or_default());
            with_status["status"] = status;
            stored = cluster.update(table, &key, with_status, Part::Status)?;
        }
        drop(cluster);
        self.shared.active();
        Ok(stored.to_json(&resource))
    }

    /// Stores an object as it is, without defaults or checks, to see what a client does with nonsense.
    ///
    /// # Errors
    /// 404 for a kind that is not served.
    pub fn apply_unchecked(&self, object: &Value) -> Result<(), Status> {
        let text = |name: &str| object[name].as_str().unwrap_or_default();
        let mut cluster = self.shared.cluster();
        let table = cluster.store.find_kind(text("apiVersion"), text("kind"));
        cluster.put_unchecked(table.ok_or_else(|| Status::new(404, "NotFound", "no such kind is served"))?, object);
        drop(cluster);
        self.shared.active();
        Ok(())
    }

    /// Changes an object by a merge patch. `resource` is a plural (`services`), a full name, or either with `/status`.
    ///
    /// # Errors
    /// What an HTTP client would be told.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: Value) -> Result<Value, Status> {
        let (resource, part) =
            resource.strip_suffix("/status").map_or((resource, Part::Object), |resource| (resource, Part::Status));
        let table = self.table(resource)?;
        let mut cluster = self.shared.cluster();
        let (stored, _) = cluster.patch(table, &ObjectKey::new(namespace, name), &Patch::Merge(patch), part)?;
        let row = cluster.store.resource(table);
        drop(cluster);
        self.shared.active();
        Ok(stored.to_json(&row))
    }

    /// An object, if it is there.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let table = self.table(resource).ok()?;
        let cluster = self.shared.cluster();
        let stored = cluster.store.get(table, &ObjectKey::new(namespace, name)).ok()?;
        Some(stored.to_json(&cluster.store.table(table).resource))
    }

    /// All objects of a resource, in the order of their keys; none of a resource that is not served.
    #[must_use]
    pub fn list(&self, resource: &str) -> Vec<Value> {
        let Ok(table) = self.table(resource) else { return Vec::new() };
        let cluster = self.shared.cluster();
        let rows = cluster.store.table(table);
        rows.objects.values().map(|stored| stored.to_json(&rows.resource)).collect()
    }

    /// Deletes an object; one with finalizers only begins to go.
    ///
    /// # Errors
    /// What an HTTP client would be told.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<(), Status> {
        let table = self.table(resource)?;
        self.shared.cluster().delete(table, &ObjectKey::new(namespace, name), &Value::Null)?;
        self.shared.active();
        Ok(())
    }

    /// Applies a file of manifests, or all of a directory; returns how many objects there were. ServiceCIDRs come first: the Services
    /// beside them, in whatever file, have addresses of theirs.
    ///
    /// # Errors
    /// Names the file that could not be read, parsed, or was refused. What came before it is applied.
    pub fn apply_manifests(&self, path: &Path) -> Result<usize, ManifestError> {
        let mut objects = manifests::read(path)?;
        objects.sort_by_key(|(_, object)| object["kind"] != "ServiceCIDR");
        for (path, object) in &objects {
            let refused = |status| ManifestError::Refused { path: path.clone(), source: Box::new(status) };
            self.apply(object).map_err(refused)?;
        }
        Ok(objects.len())
    }

    /// The table of a plural or full name.
    pub(super) fn table(&self, resource: &str) -> Result<TableId, Status> {
        let found = self.shared.cluster().store.called(resource);
        found.ok_or_else(|| Status::new(404, "NotFound", format!("no resource {resource:?} is served")))
    }
}

// === Faults ===

impl ApiServer {
    /// Puts a fault in force, in addition to others.
    pub fn inject(&self, fault: Fault) {
        self.shared.faults().add(fault);
    }

    /// Ends all faults. Watches that began under one keep it.
    pub fn clear_faults(&self) {
        self.shared.faults().clear();
    }

    /// Ends the watches of a resource, or all, now.
    pub fn cut_streams(&self, resource: Option<&str>, how: Cut) {
        let table = resource.and_then(|name| self.table(name).ok());
        if resource.is_none() || table.is_some() {
            // Nobody to hear it is no error: there is no watch then.
            let _ = self.shared.cuts.send(CutOrder { table, how });
        }
    }

    /// Closes all connections now, whatever they carry.
    pub fn cut_connections(&self) {
        std::mem::take(&mut *lock(&self.shared.connections)).cancel();
    }

    /// Closes the listening socket: new connections are refused by the kernel. Those that are open live on.
    ///
    /// # Errors
    /// Where the kernel does not want to.
    pub fn refuse_connections(&self) -> std::io::Result<()> {
        self.shared.gate.set(State::Closed);
        // A listening socket that is shut down for reading stops to listen (Linux `inet_shutdown`), and can be made to again, in
        // the network namespace that it was made in. Closing it and binding another would depend on the caller's namespace.
        SockRef::from(&self.listener).shutdown(Shutdown::Read)
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// Where the port was taken by somebody else in the meantime.
    pub fn accept_connections(&self) -> std::io::Result<()> {
        let socket = SockRef::from(&self.listener);
        // With the end of listening, the kernel takes back a port that it chose itself, though getsockname still tells it; one that
        // was named is kept, and binding it again is EINVAL.
        match socket.bind(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => {}
        }
        socket.listen(BACKLOG)?;
        self.shared.gate.set(State::Open);
        Ok(())
    }

    /// Forgets the past: watches and lists from any version before now are told 410, and so is a running watch that has not yet read
    /// all changes.
    pub fn compact(&self) {
        self.shared.cluster().store.compact();
    }
}

// === Watching the clients ===

impl ApiServer {
    /// Requests so far, of a verb and a resource (plural or full name).
    #[must_use]
    pub fn requests(&self, verb: Verb, resource: &str) -> u64 {
        let Ok(table) = self.table(resource) else { return 0 };
        let name = self.shared.cluster().store.resource(table).name();
        lock(&self.shared.counts).requests.get(&(verb, name)).copied().unwrap_or(0)
    }

    /// Requests so far that would change something, of whatever resource.
    #[must_use]
    pub fn writes(&self) -> u64 {
        let counts = lock(&self.shared.counts);
        let writes = counts.requests.iter().filter(|((verb, _), _)| !matches!(verb, Verb::Get | Verb::List | Verb::Watch));
        writes.map(|(_, times)| times).sum()
    }

    /// What has been asked for so far: verbs, and full names of resources. The test's own hand is not counted.
    #[must_use]
    pub fn asked_for(&self) -> BTreeSet<(Verb, String)> {
        lock(&self.shared.counts).requests.keys().cloned().collect()
    }

    /// Watches of a resource that are open now.
    #[must_use]
    pub fn open_watches(&self, resource: &str) -> usize {
        let Ok(table) = self.table(resource) else { return 0 };
        lock(&self.shared.counts).watches.get(&table.index()).copied().unwrap_or(0)
    }

    /// Waits until `look` finds something, looking again after each request, each change, and each watch that began or ended.
    ///
    /// # Errors
    /// After `timeout`, with `what` was awaited.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let mut activity = self.shared.activity.subscribe();
        let found = async {
            loop {
                activity.borrow_and_update();
                if let Some(found) = look(self) {
                    return Some(found);
                }
                activity.changed().await.ok()?;
            }
        };
        tokio::time::timeout(timeout, found).await.ok().flatten().ok_or_else(|| TimedOut(timeout, what.to_owned()))
    }
}
