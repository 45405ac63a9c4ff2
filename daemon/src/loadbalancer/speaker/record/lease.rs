//! The Lease of this node: that it holds VIPs and how many members it hears, for those who do not hear it. Named
//! `sheave-announcer-NODE`, in our own namespace.
//!
//! Nothing is taken by it, so nobody waits for it to run out: it is a notice, and [`LeaseClock`] says when it is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::own_node::owner_references;
use super::reach::Reach;
use super::{Holding, Wish};
use crate::health::ProxyHealth;
use crate::loadbalancer::membership::fence::{Claim, LEAST_PAUSE, LeaseClock, RENEWAL};
use crate::metrics::SpeakerMetrics;
use crate::retry::Retry;
use crate::source::kube::{ApiRequest, ApiServers, RequestError};

/// For an answer: less than [`fence::PATIENCE`](crate::loadbalancer::membership::fence::PATIENCE), so that it is known in time that there
/// is none.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_500);
/// How many members the holder hears, itself among them.
const HEARD: &str = "sheave.dev/members-heard";
/// Between two questions, while somebody depends on the answer; and while the API is lost and nobody does.
const CLOSELY: Duration = Duration::from_millis(500);
const FROM_AFAR: Duration = Duration::from_secs(10);
/// Between two attempts to write what could not be written.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AT_LATEST: Duration = RENEWAL;
/// For so long it is told that another daemon writes this node's Lease.
const CONTESTED: Duration = Duration::from_secs(60);
/// Names of problems in `/healthz`.
const WRITING: &str = "announcer's lease";
const TWIN: &str = "node name";
/// Letters of a name in Kubernetes.
const LONGEST_NAME: usize = 253;

/// Whose Lease, and where.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) servers: Arc<ApiServers>,
    pub(super) namespace: Arc<str>,
    pub(super) node: Arc<str>,
}

/// Writes the Lease, and asks whether the API is there.
pub(super) struct Keeper {
    place: Place,
    /// Of no other process the same, so that two of one node notice each other.
    identity: String,
    wanted: watch::Receiver<Wish<Option<Holding>>>,
    done: watch::Sender<u64>,
    closely: watch::Receiver<bool>,
    reach: Arc<Reach>,
    health: Arc<ProxyHealth>,
    metrics: Arc<SpeakerMetrics>,
    clock: LeaseClock,
    /// What is wished for, and the number of the wish.
    holding: Wish<Option<Holding>>,
    /// The Lease as the server has it.
    there: Option<Value>,
    retry: Retry,
    not_before: Option<Instant>,
    asked: Option<Instant>,
    /// What is wished for has not been written, and has to be.
    pending: bool,
    /// This process has written it.
    wrote: bool,
    contested: Option<Instant>,
    told: Option<String>,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Write,
    Ask,
}

impl Keeper {
    pub(super) fn new(
        place: Place,
        (wanted, done, closely): (watch::Receiver<Wish<Option<Holding>>>, watch::Sender<u64>, watch::Receiver<bool>),
        reach: Arc<Reach>,
        (health, metrics): (Arc<ProxyHealth>, Arc<SpeakerMetrics>),
    ) -> Self {
        let identity = format!("{}_{:016x}", place.node, rand::random::<u64>());
        Self {
            place,
            identity,
            wanted,
            done,
            closely,
            reach,
            health,
            metrics,
            clock: LeaseClock::default(),
            holding: Wish::default(),
            there: None,
            retry: Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST),
            not_before: None,
            asked: None,
            pending: false,
            wrote: false,
            contested: None,
            told: None,
        }
    }

    /// Until nobody is left who wishes for anything.
    pub(super) async fn run(mut self) {
        loop {
            let (at, next) = match self.next(Instant::now()) {
                Some((at, next)) => (Some(at), Some(next)),
                None => (None, None),
            };
            let due = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.take_in(),
                    Err(_) => return,
                },
                changed = self.closely.changed() => if changed.is_err() { return },
                () = due => match next {
                    Some(Next::Write) => self.write().await,
                    Some(Next::Ask) => self.ask().await,
                    None => {}
                },
            }
        }
    }

    fn take_in(&mut self) {
        let wish = self.wanted.borrow_and_update().clone();
        if wish.what != self.holding.what {
            self.clock.changed();
            self.pending = true;
        }
        self.holding = wish;
        self.tell_done();
    }

    /// When what has to be done.
    fn next(&self, now: Instant) -> Option<(Instant, Next)> {
        let any = self.holding.what.as_ref().is_some_and(|holding| holding.any);
        let write = self.clock.due(any, now).map(|due| (self.not_before.map_or(due, |at| due.max(at)), Next::Write));
        let pause = match (*self.closely.borrow(), self.reach.is_lost()) {
            (true, _) => Some(CLOSELY),
            (false, true) => Some(FROM_AFAR),
            (false, false) => None,
        };
        let ask = pause.map(|pause| (self.asked.map_or(now, |asked| asked + pause), Next::Ask));
        [write, ask].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    async fn write(&mut self) {
        let Wish { number, what: Some(holding) } = self.holding.clone() else { return };
        let began = Instant::now();
        self.asked = Some(began);
        let outcome = self.put(&holding).await;
        self.reach.experienced(&outcome, began);
        self.metrics.wrote("leases", how(&outcome));
        match outcome {
            Ok(object) => {
                self.there = Some(object);
                self.clock.written(began);
                (self.pending, self.wrote) = (false, true);
                self.retry.reset();
                self.not_before = None;
                self.mended();
                tracing::trace!(number, any = holding.any, heard = holding.claim.heard, "lease written");
            }
            Err(error) => {
                // Whatever is there now is looked at before the next attempt.
                self.there = None;
                let pause = self.retry.next();
                let pause = if *self.closely.borrow() { pause.min(LEAST_PAUSE) } else { pause };
                self.not_before = Some(Instant::now() + pause);
                if !matches!(error, RequestError::Conflict { .. }) {
                    self.failed(&error);
                }
            }
        }
        self.tell_done();
    }

    /// Writes over what this process knows to be there; else looks first.
    async fn put(&mut self, holding: &Holding) -> Result<Value, RequestError> {
        let Place { servers, namespace, node } = self.place.clone();
        let path = path(&namespace, &node);
        let mut object = object(&namespace, holding, &self.identity, Timestamp::now());
        let there = match self.there.take() {
            Some(there) => Some(there),
            None => match servers.ask_within(ApiRequest::get(&*path), PATIENCE).await {
                Ok(there) => {
                    self.meet(&there);
                    Some(there)
                }
                Err(RequestError::NotFound { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        let request = match there {
            Some(there) => {
                object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
                object["metadata"]["ownerReferences"] = there["metadata"]["ownerReferences"].clone();
                object["spec"]["acquireTime"] = match &there["spec"]["acquireTime"] {
                    Value::String(time) if holding.any && is_held(&there) => time.as_str().into(),
                    _ => object["spec"]["renewTime"].clone(),
                };
                ApiRequest::put(path, &object)
            }
            None => {
                // A Lease without an owner is better than none.
                if let Ok(owners) = owner_references(&servers, &node).await {
                    object["metadata"]["ownerReferences"] = owners;
                }
                ApiRequest::post(leases(&namespace), &object)
            }
        };
        servers.ask_within(request, PATIENCE).await
    }

    /// Only whether it answers.
    async fn ask(&mut self) {
        let began = Instant::now();
        self.asked = Some(began);
        let path = path(&self.place.namespace, &self.place.node);
        let outcome = self.place.servers.ask_within(ApiRequest::get(path), PATIENCE).await;
        self.reach.experienced(&outcome, began);
    }

    /// The Lease was read. Who else writes it, beside us, is another daemon of this node's name.
    fn meet(&mut self, there: &Value) {
        let holder = there["spec"]["holderIdentity"].as_str().unwrap_or_default();
        // At first it is what an earlier life of ours has left.
        if self.wrote && !holder.is_empty() && holder != self.identity {
            let text = format!(
                "another daemon writes the lease of node {}, as {holder}: two processes run under one node name, and both may announce",
                self.place.node
            );
            if self.contested.replace(Instant::now()).is_none() {
                tracing::error!("{text}");
            }
            self.health.problem(TWIN, Some(text));
        }
    }

    fn failed(&mut self, error: &RequestError) {
        let text = error.to_string();
        if self.told.replace(text.clone()).is_none() {
            tracing::warn!("the lease of this announcer is not written, it is tried again until it is: {text}");
        }
        self.health.problem(WRITING, Some(text));
    }

    fn mended(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("the lease of this announcer is written again");
            self.health.problem(WRITING, None);
        }
        if self.contested.is_some_and(|last| last.elapsed() >= CONTESTED) {
            self.contested = None;
            self.health.problem(TWIN, None);
        }
    }

    /// Nothing of what is wished for is left to be written.
    fn tell_done(&self) {
        let any = self.holding.what.as_ref().is_some_and(|holding| holding.any);
        // Who never held anything has nothing to say.
        if !self.pending || self.clock.due(any, Instant::now()).is_none() {
            self.done.send_replace(self.holding.number);
        }
    }
}

impl Drop for Keeper {
    /// Nobody has a lease of ours to complain of any more.
    fn drop(&mut self) {
        self.health.problem(WRITING, None);
        self.health.problem(TWIN, None);
    }
}

/// As the metric has it.
pub(super) fn how<T>(outcome: &Result<T, RequestError>) -> &'static str {
    match outcome {
        Ok(_) => "written",
        Err(RequestError::Conflict { .. }) => "conflict",
        Err(_) => "failed",
    }
}

fn leases(namespace: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
}

/// The Lease of a node.
pub(super) fn path(namespace: &str, node: &str) -> String {
    format!("{}/{}", leases(namespace), name(node))
}

fn name(node: &str) -> String {
    let name = format!("sheave-announcer-{node}");
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let digest = digest(&SHA256, node.as_bytes());
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("sheave-announcer-{hex}")
}

/// One that says this. Of who holds nothing, nobody is the holder.
pub(super) fn object(namespace: &str, holding: &Holding, identity: &str, now: Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let Holding { claim: Claim { node, heard }, any } = holding;
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name(node),
            "namespace": namespace,
            "labels": { "app.kubernetes.io/name": "sheave" },
            "annotations": { HEARD: heard.to_string() },
        },
        "spec": {
            "holderIdentity": if *any { identity } else { "" },
            "leaseDurationSeconds": 2 * RENEWAL.as_secs() + 2,
            "acquireTime": now,
            "renewTime": now,
        },
    })
}

fn is_held(lease: &Value) -> bool {
    lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty())
}

/// What a node claims by its Lease, if it holds anything.
pub(super) fn claim_of(lease: &Value, node: &Arc<str>) -> Option<Claim> {
    let heard = lease["metadata"]["annotations"][HEARD].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    is_held(lease).then(|| Claim { node: node.clone(), heard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_longer_than_kubernetes_allows() {
        assert_eq!(name("a"), "sheave-announcer-a");
        let long = "n".repeat(LONGEST_NAME);
        assert_eq!(name(&long).len(), 17 + 32);
        assert_ne!(name(&long), name(&"m".repeat(LONGEST_NAME)));
    }

    #[test]
    fn it_says_how_many_are_heard_and_who_holds_nothing_is_no_holder() {
        let node: Arc<str> = "a".into();
        for (any, claim) in [(true, Some(Claim { node: node.clone(), heard: 3 })), (false, None)] {
            let holding = Holding { claim: Claim { node: node.clone(), heard: 3 }, any };
            let lease = object("kube-system", &holding, "a_1", Timestamp::UNIX_EPOCH);
            assert_eq!(claim_of(&lease, &node), claim);
            assert_eq!(lease["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
        }
    }
}
