//! Metrics: kube-proxy's by their names, types, labels and buckets, and our own.
//!
//! ```text
//! sync loop, threads, servers ── counters where things happen ──► Book ──► /metrics
//! watches, queues, /proc ─────── looked at when somebody asks ──►
//! ```
//! `docs/metrics.md` is written from the book; a test compares the two.

mod allocator;
mod book;
mod controller;
mod exposition;
mod process;
mod reference;
mod server;
mod speaker;
mod sync;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

pub use self::allocator::AllocatorMetrics;
use self::book::{Book, request_seconds, seconds};
pub(crate) use self::book::{Labelled, PerFamily};
pub use self::controller::ControllerMetrics;
pub(crate) use self::controller::ControllerScrapes;
use self::process::ProcessMetrics;
pub(crate) use self::server::{Admin, AdminParts};
pub use self::speaker::SpeakerMetrics;
pub(crate) use self::sync::SyncMetrics;
use crate::source::kube::{self, Asked, Meter, StreamState};

/// All metrics of the process.
pub struct Metrics {
    pub(crate) sync: SyncMetrics,
    pub(crate) flows: FlowMetrics,
    pub(crate) probes: ProbeMetrics,
    pub(crate) listeners: ListenerMetrics,
    /// Changes that wait for the loop, and room for more.
    pub(crate) queue: QueueMetrics,
    /// Of `/healthz`.
    pub(crate) problems: Gauge,
    /// Settings of the kernel that were asked for and are not made.
    pub(crate) kernel_settings_missed: Gauge,
    /// Of feature gate `AllowServiceExternalIPs`.
    pub(crate) external_ips_allowed: Gauge,
    /// Chains of others that drop what is forwarded from and to pods.
    pub(crate) chains_in_the_way: Gauge,
    /// Of `--controller`; nothing but zeros without it.
    pub(crate) allocator: Arc<AllocatorMetrics>,
    /// Of VIPs that are announced here.
    pub(crate) speaker: Arc<SpeakerMetrics>,
    watches: WatchMetrics,
    client: ClientMetrics,
    process: ProcessMetrics,
    book: Book,
    refresh: Mutex<Vec<Refresh>>,
}

/// Brings gauges up to date before they are told.
type Refresh = Box<dyn Fn(&Metrics) + Send>;

/// Of the thread that looks for stale flows.
#[derive(Debug)]
pub(crate) struct FlowMetrics {
    /// A dump and the deletions after it.
    pub(crate) duration: PerFamily<Histogram>,
    pub(crate) deleted: PerFamily<Counter>,
    pub(crate) failures: PerFamily<Counter>,
}

/// Of the health server.
#[derive(Debug)]
pub(crate) struct ProbeMetrics {
    pub(crate) healthz: Labelled<1, Counter>,
    pub(crate) livez: Labelled<1, Counter>,
}

/// Of whatever listens.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    /// Addresses that answer for a healthCheckNodePort.
    pub(crate) health_check_node_ports: Gauge,
    /// By server.
    pub(crate) bind_failures: Labelled<1, Counter>,
}

/// Of the channel from the source to the loop.
#[derive(Debug)]
pub(crate) struct QueueMetrics {
    pub(crate) length: Gauge,
    pub(crate) capacity: Gauge,
}

/// Of the watches; taken from [`kube::Health`].
#[derive(Debug)]
struct WatchMetrics {
    up: Labelled<1, Gauge>,
    lists: Labelled<1, Counter>,
    failures: Labelled<1, Counter>,
}

/// Of the requests to API servers, as client-go counts them.
#[derive(Debug)]
struct ClientMetrics {
    requests: Labelled<3, Counter>,
    duration: Labelled<2, Histogram>,
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut book = Book::default();
        let book = &mut book;
        let sync = SyncMetrics::new(book);
        let flows = FlowMetrics::new(book);
        let probes = ProbeMetrics {
            healthz: book.labelled(
                "kubeproxy_proxy_healthz_total",
                ["code"],
                "Cumulative proxy healthz HTTP status",
                Counter::default,
            ),
            livez: book.labelled("kubeproxy_proxy_livez_total", ["code"], "Cumulative proxy livez HTTP status", Counter::default),
        };
        let listeners = ListenerMetrics {
            health_check_node_ports: book.one(
                "sheave_health_check_listeners",
                "Addresses at which a healthCheckNodePort of some Service is answered",
                Gauge::default,
            ),
            bind_failures: book.labelled(
                "sheave_listen_failures_total",
                ["server"],
                "Attempts to listen that failed: healthz, metrics or healthCheckNodePort; they are repeated until one succeeds",
                Counter::default,
            ),
        };
        let queue = QueueMetrics {
            length: book.one("sheave_queue_length", "Changes that wait for the sync loop", Gauge::default),
            capacity: book.one("sheave_queue_capacity", "Changes that may wait; then the source waits", Gauge::default),
        };
        let problems = book.one(
            "sheave_problems",
            "Things that are out of order at present: the number of problems in /healthz, which names them",
            Gauge::default,
        );
        let kernel_settings_missed = book.one(
            "sheave_kernel_settings_missed",
            "Kernel settings that the configuration asks for and that cannot be made; each is one of the problems",
            Gauge::default,
        );
        // The one gate that means something here, at its stage of Kubernetes v1.36 (KEP-5707).
        let external_ips_allowed = book
            .labelled(
                "kubernetes_feature_enabled",
                ["name", "stage"],
                "1 for a feature gate that is on, else 0; AllowServiceExternalIPs is the only one there is here",
                Gauge::<i64>::default,
            )
            .of(["AllowServiceExternalIPs", "DEPRECATED"]);
        let chains_in_the_way = book.one(
            "sheave_forward_chains_dropping",
            "Chains that drop what is forwarded from and to pods, and that nobody has made accept it; together one of the problems",
            Gauge::default,
        );
        let allocator = Arc::new(AllocatorMetrics::new(book));
        let speaker = Arc::new(SpeakerMetrics::new(book));
        let watches = WatchMetrics::new(book);
        let client = ClientMetrics::new(book);
        let process = ProcessMetrics::new(book);
        build_info(book);
        let book = std::mem::take(book);
        Self {
            sync,
            flows,
            probes,
            listeners,
            queue,
            problems,
            kernel_settings_missed,
            external_ips_allowed,
            chains_in_the_way,
            allocator,
            speaker,
            watches,
            client,
            process,
            book,
            refresh: Mutex::default(),
        }
    }

    /// Those of VIPs that are announced here.
    #[must_use]
    pub fn speaker(&self) -> Arc<SpeakerMetrics> {
        self.speaker.clone()
    }

    /// Calls this before each scrape, to set what is cheaper looked at then than kept up to date.
    pub(crate) fn before_each_scrape(&self, refresh: impl Fn(&Self) + Send + 'static) {
        self.refreshers().push(Box::new(refresh));
    }

    /// Everything as of now, in the Prometheus text format 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        self.process.refresh();
        self.speaker.refresh();
        for refresh in self.refreshers().iter() {
            refresh(self);
        }
        self.book.text()
    }

    /// Takes over how the watches are doing.
    pub(crate) fn watches(&self, health: &kube::Health) {
        self.watches.tell(health);
    }

    fn refreshers(&self) -> std::sync::MutexGuard<'_, Vec<Refresh>> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn build_info(book: &mut Book) {
    let info =
        book.labelled("sheave_build_info", ["version"], "1, with the version of this program as a label", Gauge::<i64>::default);
    info.of([env!("CARGO_PKG_VERSION")]).set(1);
}

impl FlowMetrics {
    fn new(book: &mut Book) -> Self {
        Self {
            duration: book.per_family(
                "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                "ReconcileConntrackFlowsLatency in seconds: one look for stale flows, deletions included",
                seconds,
            ),
            deleted: book.per_family(
                "kubeproxy_conntrack_reconciler_deleted_entries_total",
                "Cumulative conntrack flows deleted by conntrack reconciler",
                Counter::default,
            ),
            failures: book.per_family(
                "sheave_conntrack_failures_total",
                "Looks for stale flows that failed; they are repeated until one works",
                Counter::default,
            ),
        }
    }
}

impl WatchMetrics {
    fn new(book: &mut Book) -> Self {
        Self {
            up: book.labelled(
                "sheave_watch_up",
                ["stream"],
                "1 while the watch follows the API server, 0 while it is starting or failing; what it delivered stays in force",
                Gauge::default,
            ),
            lists: book.labelled(
                "sheave_watch_lists_total",
                ["stream"],
                "Complete lists that the watch has delivered",
                Counter::default,
            ),
            failures: book.labelled(
                "sheave_watch_failures_total",
                ["stream"],
                "Failed attempts of the watch to follow the API server",
                Counter::default,
            ),
        }
    }
}

impl WatchMetrics {
    fn tell(&self, health: &kube::Health) {
        let Self { up, lists, failures } = self;
        for stream in health.streams() {
            let live = matches!(stream.state, StreamState::Live | StreamState::Absent);
            up.of([stream.stream]).set(live.into());
            lists.of([stream.stream]).inner().store(stream.lists, Ordering::Relaxed);
            failures.of([stream.stream]).inner().store(stream.failures, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        self.up.clear();
        self.lists.clear();
        self.failures.clear();
    }
}

impl ClientMetrics {
    fn asked(&self, request: &Asked<'_>) {
        let Asked { method, host, code, took } = *request;
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.requests.of([&code, host, method]).inc();
        self.duration.of([host, method]).observe(took.as_secs_f64());
    }

    fn new(book: &mut Book) -> Self {
        Self {
            requests: book.labelled(
                "rest_client_requests_total",
                ["code", "host", "method"],
                "Number of HTTP requests to the API server, by status code (or <error>), host and method",
                Counter::default,
            ),
            duration: book.labelled(
                "rest_client_request_duration_seconds",
                ["host", "verb"],
                "Request latency in seconds, until the head of the answer, by host and verb",
                request_seconds,
            ),
        }
    }
}

impl Meter for Metrics {
    fn asked(&self, request: &Asked<'_>) {
        self.client.asked(request);
    }
}
