//! ServiceL2Status (metallb.io/v1beta1): which node announces a Service, written by that node, as `kubectl get servicel2statuses -n
//! metallb-system` shows it. The shape and the labels are MetalLB v0.16's (reference: metallb-l2 1.3).
//!
//! Written in rounds. A round looks at what is there, once, and writes only what differs, so it mends whatever happened meanwhile and may
//! be repeated at any time; at rest there is none. Our own objects are known by their names, which are made of node and Service: what
//! another node wrote, or a MetalLB on this one, goes only when we announce the same Service, as MetalLB's new leader does it.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::watch;

use self::plan::{Step, plan};
use super::lease::how;
use super::own_node::owner_references;
use super::{Announced, Wish};
use crate::health::ProxyHealth;
use crate::metrics::SpeakerMetrics;
use crate::model::ServiceKey;
use crate::retry::Retry;
use crate::source::kube::{ApiRequest, ApiServers, RequestError};

/// Whose fields they are (server-side apply).
const MANAGER: &str = "sheave-announcer";
/// Writes under way at a time.
const AT_A_TIME: usize = 4;
/// Between two rounds at least: each costs a list.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// What an earlier life of this daemon has left stays for so long: most of it will be announced again.
const LEFTOVERS: Duration = Duration::from_secs(10);
/// Somebody may have deleted what we wrote.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// Pauses after a round in which something failed.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(120);
/// Between two looks whether MetalLB's definitions are there.
const ABSENT: Duration = Duration::from_secs(120);
/// Name of the problem in `/healthz`.
const PROBLEM: &str = "ServiceL2Status";

/// Keeps the ServiceL2Statuses of this node.
pub(super) struct Scribe {
    servers: Arc<ApiServers>,
    node: Arc<str>,
    wanted: watch::Receiver<Wish<Announced>>,
    done: watch::Sender<u64>,
    health: Arc<ProxyHealth>,
    metrics: Arc<SpeakerMetrics>,
    /// What this life of the daemon has announced: it may be taken away at once.
    ours: BTreeSet<ServiceKey>,
    /// From the first wish on.
    began: Option<Instant>,
    /// Where objects of ours may be. One more than the present namespace after a move.
    homes: BTreeSet<Arc<str>>,
    round_at: Option<Instant>,
    last_round: Option<Instant>,
    retry: Retry,
    told: bool,
}

/// How a round ended.
enum Round {
    /// Everything is as it should be; some leftovers stay for now.
    Done { leftovers: bool },
    /// There are no such objects on this server, or not in this namespace.
    Absent,
    /// Something was not written.
    Failed(RequestError),
}

impl Scribe {
    pub(super) fn new(
        (servers, node): (Arc<ApiServers>, Arc<str>),
        (wanted, done): (watch::Receiver<Wish<Announced>>, watch::Sender<u64>),
        (health, metrics): (Arc<ProxyHealth>, Arc<SpeakerMetrics>),
    ) -> Self {
        Self {
            servers,
            node,
            wanted,
            done,
            health,
            metrics,
            ours: BTreeSet::new(),
            began: None,
            homes: BTreeSet::new(),
            round_at: None,
            last_round: None,
            retry: Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST),
            told: false,
        }
    }

    /// Until nobody is left who wishes for anything.
    pub(super) async fn run(mut self) {
        loop {
            let due = async {
                match self.round_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.take_in(),
                    Err(_) => return,
                },
                () = due => self.round().await,
            }
        }
    }

    fn take_in(&mut self) {
        let now = Instant::now();
        let wish = self.wanted.borrow_and_update().clone();
        self.homes.extend(wish.what.namespace.clone());
        self.ours.extend(wish.what.services.keys().cloned());
        let began = *self.began.get_or_insert(now);
        // As long as it announces nothing, all there is to do is to look for leftovers.
        let is_idle = self.ours.is_empty();
        if is_idle || self.homes.is_empty() {
            self.done.send_replace(wish.number);
        }
        if !self.homes.is_empty() {
            let earliest = if is_idle { began + LEFTOVERS } else { now };
            let at = self.last_round.map_or(earliest, |last| earliest.max(last + LEAST_PAUSE));
            self.round_at = Some(self.round_at.map_or(at, |before| before.min(at)));
        }
    }

    async fn round(&mut self) {
        let Wish { number, what: Announced { namespace, services } } = self.wanted.borrow().clone();
        self.last_round = Some(Instant::now());
        let mut result = Round::Done { leftovers: false };
        let nothing = Announced::default();
        for home in self.homes.clone() {
            let services = if Some(&home) == namespace.as_ref() { &services } else { &nothing.services };
            let moved = namespace.as_ref().is_some_and(|namespace| *namespace != home);
            match self.write(&home, services).await {
                Round::Done { leftovers: false } | Round::Absent if moved => _ = self.homes.remove(&home),
                Round::Done { leftovers: false } => {}
                other => result = other,
            }
        }
        let pause = match result {
            Round::Done { leftovers } => {
                self.mended();
                self.ours.retain(|service| services.contains_key(service));
                self.done.send_replace(number);
                let look_again = (!services.is_empty()).then_some(LOOK_AGAIN);
                let leftovers =
                    self.began.filter(|_| leftovers).map(|began| (began + LEFTOVERS).saturating_duration_since(Instant::now()));
                leftovers.or(look_again)
            }
            Round::Absent => {
                self.mended();
                self.done.send_replace(number);
                (!services.is_empty()).then_some(ABSENT)
            }
            Round::Failed(error) => {
                self.failed(&error);
                Some(self.retry.next())
            }
        };
        // Neither all at once after an outage, nor all at one time for ever.
        self.round_at = pause.map(|pause| Instant::now() + pause.mul_f64(rand::random_range(1.0..1.25)));
    }

    /// Looks at what is there, and writes what differs.
    async fn write(&self, namespace: &str, services: &BTreeMap<ServiceKey, BTreeSet<CompactString>>) -> Round {
        let all = format!("/apis/metallb.io/v1beta1/namespaces/{namespace}/servicel2statuses");
        let list = match self.servers.ask(ApiRequest::get(&*all)).await {
            Ok(list) => list,
            Err(RequestError::NotFound { .. }) => return Round::Absent,
            Err(error) => return Round::Failed(error),
        };
        let there = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let settled = self.began.is_some_and(|began| began.elapsed() >= LEFTOVERS);
        let plan = plan(&self.node, namespace, services, there, |service| settled || self.ours.contains(service));
        let owners = if plan.steps.iter().any(|step| matches!(step, Step::Make { .. })) {
            match owner_references(&self.servers, &self.node).await {
                Ok(owners) => owners,
                Err(error) => return Round::Failed(error),
            }
        } else {
            Value::Null
        };
        let carried_out = stream::iter(plan.steps).map(|step| self.carry_out(&all, step, &owners)).buffer_unordered(AT_A_TIME);
        let errors: Vec<RequestError> = carried_out.filter_map(|done| std::future::ready(done.err())).collect().await;
        match errors.into_iter().next() {
            Some(error) => Round::Failed(error),
            None => Round::Done { leftovers: plan.leftovers },
        }
    }

    async fn carry_out(&self, all: &str, step: Step, owners: &Value) -> Result<(), RequestError> {
        let done = match step {
            Step::Make { name, mut object, status } => {
                object["metadata"]["ownerReferences"] = owners.clone();
                match self.servers.ask(ApiRequest::post(all, &object)).await {
                    // Another daemon of this node's name was quicker, or our own request that we had no answer to.
                    Ok(_) | Err(RequestError::Conflict { .. }) => self.tell(all, &name, &status).await,
                    Err(error) => Err(error),
                }
            }
            Step::Tell { name, status } => self.tell(all, &name, &status).await,
            Step::Remove { name } => match self.servers.ask(ApiRequest::delete(format!("{all}/{name}"))).await {
                Ok(_) | Err(RequestError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            },
        };
        self.metrics.wrote("servicel2statuses", how(&done));
        done
    }

    async fn tell(&self, all: &str, name: &str, status: &Value) -> Result<(), RequestError> {
        self.servers.ask(ApiRequest::apply(&format!("{all}/{name}/status"), MANAGER, status)).await.map(drop)
    }

    fn failed(&mut self, error: &RequestError) {
        let hint = match error {
            RequestError::Refused { code: 403, .. } => "; see the ClusterRole sheave-announce",
            _ => "",
        };
        let text = format!("{error}{hint}");
        if std::mem::replace(&mut self.told, true) {
            tracing::debug!("ServiceL2Statuses: {text}");
        } else {
            tracing::warn!("ServiceL2Statuses are not written, it is tried again until they are; announcing goes on: {text}");
        }
        self.health.problem(PROBLEM, Some(text));
    }

    fn mended(&mut self) {
        self.retry.reset();
        if std::mem::take(&mut self.told) {
            tracing::info!("ServiceL2Statuses are written again");
            self.health.problem(PROBLEM, None);
        }
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.health.problem(PROBLEM, None);
    }
}
