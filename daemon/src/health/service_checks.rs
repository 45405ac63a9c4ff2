//! The servers of `healthCheckNodePort`: a load balancer asks each node whether a Service has endpoints there (kube-proxy 6.2).
//!
//! They follow what is published, and only as far as the kernel has it: a node that says yes must be able to keep the promise.
//! Unlike kube-proxy, which looks up the node's addresses once when it starts, they also follow those.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::HeaderValue;
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ProxyHealth;
use super::server::json;
use crate::daemon::Reporter;
use crate::http_server::{self, Answer, BindError, Reply, Request};
use crate::metrics::Metrics;
use crate::model::{Family, ServiceKey};
use crate::retry::Retry;
use crate::table::{HealthCheck, NodeState, Published, ServiceState};

/// A busy port is tried again after half a second at first, and every half minute at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Runs the servers.
pub(crate) struct ServiceChecks {
    published: Arc<Published>,
    context: Context,
    /// In force.
    checks: BTreeMap<(ServiceKey, Family), Check>,
}

/// Services that changed, as they are then: `None`, they are gone.
type Changed = Vec<(Option<Arc<ServiceState>>, ServiceKey)>;

/// What every server needs.
#[derive(Clone)]
struct Context {
    health: Arc<ProxyHealth>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
}

/// One Service in one family.
struct Check {
    answer: Arc<CheckAnswer>,
    port: NonZeroU16,
    uid: String,
    listeners: HashMap<SocketAddr, Listener>,
}

/// A task that listens at one address, or tries to.
struct Listener {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

struct CheckAnswer {
    key: ServiceKey,
    local: AtomicU32,
    health: Arc<ProxyHealth>,
}

/// The body. Clients parse it, some with grep: it is kube-proxy's to the letter.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'c> {
    service: Name<'c>,
    local_endpoints: u32,
    service_proxy_healthy: bool,
}

#[derive(Debug, Serialize)]
struct Name<'c> {
    namespace: &'c str,
    name: &'c str,
}

impl ServiceChecks {
    pub(crate) fn new(published: Arc<Published>, health: Arc<ProxyHealth>, metrics: Arc<Metrics>, reporter: Reporter) -> Self {
        Self { published, context: Context { health, metrics, reporter }, checks: BTreeMap::new() }
    }

    /// Follows the Services until cancelled; then all servers end.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let _ = cancel.run_until_cancelled(self.follow()).await;
        let ended: Vec<_> =
            std::mem::take(&mut self.checks).into_values().flat_map(|check| check.listeners.into_values()).collect();
        end(ended).await;
    }

    async fn follow(&mut self) {
        let follower = self.published.follow(|state| state.health_check.is_some());
        let mut programmed = self.context.health.programmed();
        let mut node = self.published.node();
        loop {
            tokio::select! {
                changed = follower.changed() => {
                    // What is waited for is what is acted on: by then there may be something newer, which comes by itself.
                    let changed: Changed = changed.into_iter().map(|key| (self.published.service(&key), key)).collect();
                    let of_states = changed.iter().flat_map(|(state, _)| state).map(|state| state.generation);
                    let generation = of_states.fold(self.published.generation(), u64::max);
                    // The loop is gone: nothing will be programmed any more.
                    if programmed.wait_for(|reached| *reached >= generation).await.is_err() {
                        return;
                    }
                    let state = node.borrow_and_update().clone();
                    self.update(&changed, &state).await;
                }
                Ok(()) = node.changed() => {
                    let state = node.borrow_and_update().clone();
                    self.update(&Changed::new(), &state).await;
                }
            }
        }
    }

    /// Brings the servers along: those of `changed` Services, and the addresses of all.
    async fn update(&mut self, changed: &Changed, node: &NodeState) {
        for (state, key) in changed {
            let wanted = state.as_ref().and_then(|state| state.health_check.as_ref());
            for family in Family::ALL {
                let local = wanted.and_then(|check| Some((check, check.local(family)?)));
                self.set(key, family, local).await;
            }
        }
        let mut ended = Vec::new();
        for ((_, family), check) in &mut self.checks {
            let wanted = addresses(node, *family, check.port);
            let gone: Vec<_> = check.listeners.keys().copied().filter(|address| !wanted.contains(address)).collect();
            ended.extend(gone.iter().filter_map(|address| check.listeners.remove(address)));
        }
        // All that end before any that begin: a port may have passed from one Service to another.
        end(ended).await;
        for ((_, family), check) in &mut self.checks {
            for address in addresses(node, *family, check.port) {
                let (answer, uid, context) = (&check.answer, &check.uid, &self.context);
                check.listeners.entry(address).or_insert_with(|| Listener::start(address, answer.clone(), uid.clone(), context));
            }
        }
    }

    /// What a Service wants in one family: its check, and the endpoints.
    async fn set(&mut self, key: &ServiceKey, family: Family, wanted: Option<(&HealthCheck, u32)>) {
        let place = (key.clone(), family);
        let Some((check, local)) = wanted else {
            if let Some(gone) = self.checks.remove(&place) {
                end(gone.listeners.into_values()).await;
            }
            return;
        };
        let present = self.checks.entry(place).or_insert_with(|| Check {
            answer: Arc::new(CheckAnswer { key: key.clone(), local: AtomicU32::new(0), health: self.context.health.clone() }),
            port: check.port,
            uid: check.uid.to_string(),
            listeners: HashMap::new(),
        });
        present.answer.local.store(local, Ordering::Relaxed);
        present.port = check.port;
        check.uid.as_str().clone_into(&mut present.uid);
    }
}

/// Where a family's servers listen: everywhere, unless NodePorts are restricted to some addresses.
fn addresses(node: &NodeState, family: Family, port: NonZeroU16) -> BTreeSet<SocketAddr> {
    let served = node.node_ports(family);
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let at = |ip: IpAddr| SocketAddr::new(ip, port.get());
    if served.match_all { BTreeSet::from([at(any)]) } else { served.addresses.iter().copied().map(at).collect() }
}

async fn end(listeners: impl IntoIterator<Item = Listener>) {
    let tasks: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            listener.cancel.cancel();
            listener.task
        })
        .collect();
    for task in tasks {
        // A task that panicked listens no more, either.
        let _ = task.await;
    }
}

impl Listener {
    fn start(address: SocketAddr, answer: Arc<CheckAnswer>, uid: String, context: &Context) -> Self {
        let cancel = CancellationToken::new();
        let (until, context) = (cancel.clone(), context.clone());
        let task = tokio::spawn(async move {
            let whose = format!("healthCheckNodePort of {} at {address}", answer.key);
            let failed = AtomicBool::new(false);
            let told = |error: &BindError, first: bool| {
                failed.store(true, Ordering::Relaxed);
                context.metrics.listeners.bind_failures.of(["healthCheckNodePort"]).inc();
                context.health.problem(&whose, Some(error.to_string()));
                if first {
                    context.reporter.service_check_failed(&answer.key, &uid, error);
                }
            };
            let retry = Retry::new(RETRY.0, RETRY.1);
            if let Some(listener) = http_server::listen(address, false, retry, &until, told).await {
                context.health.problem(&whose, None);
                if failed.load(Ordering::Relaxed) {
                    context.reporter.service_check_listens(&answer.key, address);
                }
                let gauge = &context.metrics.listeners.health_check_node_ports;
                gauge.inc();
                http_server::serve(listener, answer, until).await;
                gauge.dec();
            } else {
                context.health.problem(&whose, None);
            }
        });
        Self { cancel, task }
    }
}

impl Answer for CheckAnswer {
    /// Whatever the path and the method: load balancers ask in many ways.
    fn answer(&self, _: &Request<'_>) -> Reply {
        let local_endpoints = self.local.load(Ordering::Relaxed);
        // Liveness: a node that is about to go answers for its Services until it has gone.
        let service_proxy_healthy = self.health.look().is_alive();
        let status = if local_endpoints > 0 && service_proxy_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let service = Name { namespace: self.key.namespace(), name: self.key.name() };
        let mut reply =
            json(status, &Body { service, local_endpoints, service_proxy_healthy }, PrettyFormatter::with_indent(b"\t"));
        reply.headers_mut().insert("X-Load-Balancing-Endpoint-Weight", HeaderValue::from(local_endpoints));
        reply
    }
}
