//! A Kubernetes API server for tests: real HTTP, in this process, in the words of the real one.
//!
//! ```text
//!  client ── HTTP ──▶ serve ──▶ route ──▶ list | watch | cluster (write) ──▶ store
//!                       │ faults            ▲ history, bytes                  │
//!  test ──▶ ApiServer ──┴───────────────────┴─────────────────────────────────┘
//! ```
//!
//! It answers the exchanges of `tests/recordings` (kube-apiserver v1.36.2) as the real one did; a test replays them all. What it
//! deliberately does not do:
//! - TLS (unless [`Tls`] stands before it), authorisation, admission webhooks, garbage collection, controllers (nobody makes
//!   EndpointSlices of Pods);
//! - managedFields: server-side apply merges and knows no owners;
//! - pruning, but of custom resources with a schema: unknown fields are kept, and of the real validation only what a data plane's
//!   tests lean on is here;
//! - waiting 3 s before it refuses a version that it has not reached (`blockTimeout` of the watch cache);
//! - create on update: a PUT of an object that is not there is 404;
//! - Events of the core group and of events.k8s.io are two collections.
//!
//! The server has a runtime on a thread of its own, so that it can be used from any test or benchmark and takes no time from the
//! runtime under test. That thread lives in the network namespace of whoever started it.

mod allocator;
mod body;
mod cluster;
mod definition;
mod discovery;
mod fault;
mod gate;
mod handle;
mod list;
pub mod load;
pub mod manifests;
mod patch;
mod resource;
mod route;
mod rules;
mod schema;
mod selector;
mod serve;
mod service;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod typed;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;
use socket2::SockRef;
use tokio_util::sync::CancellationToken;

pub use definition::DefinitionError;
pub use fault::{Cut, Effect, Fault, Refusal};
pub use manifests::ManifestError;
pub use resource::Resource;
pub use route::Verb;
pub use status::Status;
pub use store::Window;
pub use tls::{Tls, TlsError};

use cluster::Cluster;
use fault::Faults;
use gate::Gate;
use store::TableId;
use watch::CutOrder;

/// How a server is set up. The default serves a fresh cluster on a free port of 127.0.0.1, to everyone.
#[derive(Debug)]
pub struct Config {
    /// Where to listen, if not on 127.0.0.1: a listener may have been bound inside of a network namespace.
    pub listener: Option<TcpListener>,
    /// The bearer token that every request must carry.
    pub token: Option<String>,
    /// Networks of the ServiceCIDR `kubernetes`; the first one's family is the cluster's own.
    pub service_cidrs: Vec<IpNet>,
    /// How much of the past can be watched from.
    pub window: Window,
    /// Time between the bookmarks of a watch.
    pub bookmark_interval: Duration,
    /// Custom resources, as CustomResourceDefinitions would register them.
    pub resources: Vec<Resource>,
    /// MetalLB's definitions (`manifests/crds`) are installed. Without, whoever asks for its objects is told 404, until
    /// [`ApiServer::install_metallb`].
    pub metallb: bool,
}

/// A running server. Dropping it ends it, with all connections.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    listener: TcpListener,
    address: SocketAddr,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// What was awaited did not come.
#[derive(Debug, thiserror::Error)]
#[error("not within {0:?}: {1}")]
pub struct TimedOut(pub Duration, pub String);

/// What the handle, the connections and the watches share.
#[derive(Debug)]
pub(crate) struct Shared {
    token: Option<String>,
    bookmark_interval: Duration,
    cluster: Mutex<Cluster>,
    faults: Mutex<Faults>,
    counts: Mutex<Counts>,
    /// Goes up with everything that a test may wait for.
    activity: tokio::sync::watch::Sender<u64>,
    cuts: tokio::sync::broadcast::Sender<CutOrder>,
    gate: Gate,
    /// Cancelled to close the connections that are open; then replaced.
    connections: Mutex<CancellationToken>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By verb and full resource name.
    requests: BTreeMap<(Verb, String), u64>,
    watches: BTreeMap<usize, usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: None,
            token: None,
            service_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16))],
            window: Window::default(),
            bookmark_interval: Duration::from_secs(60),
            resources: Vec::new(),
            metallb: false,
        }
    }
}

/// A lock whose holder panicked still guards whole values: every write ends in one insert.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        lock(&self.cluster)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    fn connections(&self) -> CancellationToken {
        lock(&self.connections).clone()
    }

    fn active(&self) {
        self.activity.send_modify(|count| *count += 1);
    }

    fn count(&self, verb: Verb, resource: &Resource) {
        *lock(&self.counts).requests.entry((verb, resource.name())).or_default() += 1;
        self.active();
    }

    fn watch_began(&self, table: TableId) {
        *lock(&self.counts).watches.entry(table.index()).or_default() += 1;
        self.active();
    }

    fn watch_ended(&self, table: TableId) {
        if let Some(count) = lock(&self.counts).watches.get_mut(&table.index()) {
            *count -= 1;
        }
        self.active();
    }
}

impl ApiServer {
    /// Starts a server with what every cluster has: its namespaces, the ServiceCIDR and the Service `kubernetes`.
    ///
    /// # Errors
    /// Where the address cannot be bound, or no thread started.
    pub fn start(config: Config) -> io::Result<Self> {
        let Config { listener, token, service_cidrs, window, bookmark_interval, resources, metallb } = config;
        let listener = listener.map_or_else(|| TcpListener::bind(("127.0.0.1", 0)), Ok)?;
        listener.set_nonblocking(false)?;
        let address = listener.local_addr()?;
        let mut cluster = Cluster::new(Resource::all_builtin(), window);
        for resource in resources {
            cluster.store.register(resource);
        }
        let shared = Arc::new(Shared {
            token,
            bookmark_interval,
            cluster: Mutex::new(cluster),
            faults: Mutex::default(),
            counts: Mutex::default(),
            activity: tokio::sync::watch::Sender::new(0),
            cuts: tokio::sync::broadcast::Sender::new(64),
            gate: Gate::new(),
            connections: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (sender, accepted) = tokio::sync::mpsc::unbounded_channel();
        let serve = serve::serve(shared.clone(), accepted, stop.clone());
        let mut server = Self { shared: shared.clone(), listener: listener.try_clone()?, address, stop, threads: Vec::new() };
        server.spawn("apiserver", move || runtime.block_on(serve))?;
        server.spawn("apiserver-door", move || serve::accept(&shared.gate, &listener, &sender))?;
        server.furnish(&service_cidrs).map_err(io::Error::other)?;
        if metallb {
            server.install_metallb();
        }
        Ok(server)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    fn furnish(&self, cidrs: &[IpNet]) -> Result<(), Status> {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            self.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))?;
        }
        let networks: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": networks}});
        self.apply(&cidr)?;
        // The cluster's first address is the API server's own.
        let first = cidrs.first().and_then(|network| network.hosts().find(|host| *host != network.network()));
        let port = json!({"name": "https", "port": 443, "targetPort": self.address.port(), "protocol": "TCP"});
        let own = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {"clusterIP": first, "ports": [port]}});
        self.apply(&own).map(drop)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.gate.set(gate::State::Gone);
        // Wakes the thread that accepts. A listener that is closed already has woken it before.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Read);
        for thread in self.threads.drain(..) {
            // A panic of a server's thread was printed by the thread itself.
            let _ = thread.join();
        }
    }
}
