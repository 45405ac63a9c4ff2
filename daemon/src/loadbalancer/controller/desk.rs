//! What the replica that leads does: everything that is told goes through the allocator, and what comes of it is written.
//!
//! ```text
//! changes ─► Intake ─► Allocator ─► WriteQueue ─► services/status, ipaddresspools/status, configurationstates, the gossip Secret
//!                              └──► Events, metrics
//! ```
//! All of it is one task. When the Lease is lost that task is dropped where it stands, and with it every write that has not been sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::configuration_state::{self, ConfigurationState};
use super::elector::Tenure;
use super::gossip_key::{self, GOSSIP_SECRET};
use super::health::{ControllerHealth, Role};
use super::intake::Intake;
use super::queue::{Outcome, Target, WriteQueue};
use super::status::{Edit, edit_pool, edit_service};
use super::vetting::{Answer, Vetting};
use super::words;
use crate::loadbalancer::allocator::{PoolReport, Serving, Settled, StatusChange};
use crate::loadbalancer::announcer::Prober;
use crate::metrics::AllocatorMetrics;
use crate::model::load_balancer::PoolCounts;
use crate::model::{ObjectKey, Service, ServiceKey};
use crate::source::Change;
use crate::source::kube::{ApiRequest, ApiServers, EventSink, RequestError};

/// Changes taken in before a decision, at most.
const MOST_CHANGES: usize = 4096;

/// The loop of the replica that leads.
pub(super) struct Desk {
    pub(super) intake: Intake,
    pub(super) writer: Writer,
    pub(super) events: EventSink,
    pub(super) metrics: Arc<AllocatorMetrics>,
    pub(super) health: Arc<ControllerHealth>,
    pub(super) queue: WriteQueue,
    pub(super) under_way: FuturesUnordered<BoxFuture<'static, (Target, Outcome)>>,
    /// How each pool stands.
    pub(super) pools: BTreeMap<ObjectKey, PoolReport>,
    /// What the ConfigurationState was last asked to say.
    pub(super) state: Option<ConfigurationState>,
    /// The first decision was made.
    pub(super) decided: bool,
    /// It was said that it cannot be told whose pools count.
    pub(super) told_ambiguous: bool,
    /// Asks the LAN.
    pub(super) prober: Option<Prober>,
    pub(super) vetting: Vetting,
    /// Services whose status is not written before it is known whether their addresses are free.
    pub(super) waiting: BTreeSet<ServiceKey>,
    /// A question to the LAN.
    pub(super) asking: Option<BoxFuture<'static, Answer>>,
}

/// How things are written.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) servers: Arc<ApiServers>,
    pub(super) tenure: Tenure,
    /// Our own namespace.
    pub(super) namespace: Arc<str>,
}

impl Desk {
    /// Works until told to stop, or until the source ends. What is under way is brought to its end.
    pub(super) async fn run(mut self, mut changes: mpsc::Receiver<Change>, stop: CancellationToken) {
        loop {
            self.begin_writes();
            self.begin_asking();
            let again = self.vetting.next().filter(|_| self.asking.is_none()).map(Instant::from_std);
            let wake = [self.queue.wake(), again].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((target, outcome)) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.written(&target, &outcome);
                    continue;
                }
                answer = answered(&mut self.asking), if self.asking.is_some() => {
                    self.asking = None;
                    self.hear(answer);
                }
                change = changes.recv() => match change {
                    Some(change) => self.take_in(&change, &mut changes),
                    None => break,
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => continue,
            }
            self.decide();
        }
        while self.under_way.next().await.is_some() {}
    }

    fn take_in(&mut self, first: &Change, more: &mut mpsc::Receiver<Change>) {
        self.take(first);
        for _ in 1..MOST_CHANGES {
            match more.try_recv() {
                Ok(change) => self.take(&change),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self, change: &Change) {
        if matches!(change, Change::Applied(_) | Change::Deleted(..)) {
            self.metrics.updates.inc();
        }
        self.intake.take(change);
    }

    fn decide(&mut self) {
        let Settled { services, pools, events } = self.intake.settle();
        if !self.intake.is_complete() {
            self.tell_ambiguous();
            return;
        }
        if !std::mem::replace(&mut self.decided, true) {
            self.health.set(Role::Leading { listed: true });
            self.metrics.loaded();
        }
        for change in services {
            self.queue.wish(Target::Service(change.service));
        }
        self.take_reports(pools);
        for event in events {
            let remark = words::remark(event);
            words::log(&remark);
            self.events.say(remark);
        }
        for unannounced in self.intake.unannounced() {
            let remark = words::unannounced(&unannounced);
            words::log(&remark);
            self.events.say(remark);
        }
    }

    fn take_reports(&mut self, reports: Vec<PoolReport>) {
        let had = self.pools.len();
        self.pools.retain(|key, _| self.intake.has_pool(key));
        if reports.is_empty() && self.pools.len() == had {
            return;
        }
        for report in reports {
            if report.write {
                self.queue.wish(Target::Pool(report.pool.clone()));
            }
            self.pools.insert(report.pool.clone(), report);
        }
        let counts = self.pools.values().filter_map(|report| Some((report.pool.name(), report.counts?)));
        self.metrics.tell_pools(counts, self.pools.values().any(|report| report.serving != Serving::Latest));
        // Where nobody ever made a pool there is nobody to tell, and no key is needed.
        if self.state.is_none() {
            self.queue.wish(Target::GossipKey);
        }
        let state = ConfigurationState::of(self.pools.values());
        if self.state.as_ref() != Some(&state) {
            self.state = Some(state);
            self.queue.wish(Target::State);
        }
    }

    fn tell_ambiguous(&mut self) {
        let Err(error) = self.intake.namespace() else { return };
        if !std::mem::replace(&mut self.told_ambiguous, true) {
            tracing::error!("{error}: nothing is decided until --metallb-namespace says it");
        }
    }

    fn begin_writes(&mut self) {
        while let Some(target) = self.queue.next(Instant::now()) {
            match self.work(&target) {
                Some(work) => self.under_way.push(work),
                // It says what it should by now.
                None => _ = self.queue.done(&target, &Outcome::Needless, Instant::now()),
            }
        }
    }

    /// What is to be done now, which need not be what was asked for then.
    fn work(&mut self, target: &Target) -> Option<BoxFuture<'static, (Target, Outcome)>> {
        let writer = self.writer.clone();
        let work: BoxFuture<'static, Result<Outcome, RequestError>> = match target {
            Target::Service(key) => {
                let change = self.intake.outstanding(key)?;
                if !self.to_be_asked_for(&change).is_empty() {
                    self.waiting.insert(key.clone());
                    return None;
                }
                let (_, known) = self.intake.service(key)?;
                let known = known.clone();
                Box::pin(async move { writer.write_service(&change, &known).await })
            }
            Target::Pool(key) => {
                let (key, counts) = (key.clone(), self.pools.get(key)?.counts?);
                Box::pin(async move { writer.write_pool(&key, counts).await })
            }
            Target::State => {
                let (state, namespace) = (self.state.clone()?, self.intake.namespace().ok()??.clone());
                Box::pin(async move { writer.write_state(&state, &namespace).await })
            }
            Target::GossipKey => Box::pin(async move { writer.write_gossip_key().await }),
        };
        let target = target.clone();
        Some(Box::pin(async move {
            let outcome = match work.await {
                Ok(outcome) => outcome,
                Err(RequestError::Conflict { .. }) => Outcome::Stale,
                Err(error) => Outcome::Failed(error.to_string()),
            };
            (target, outcome)
        }))
    }

    /// What has to be asked for before this may be written.
    fn to_be_asked_for(&self, change: &StatusChange) -> Vec<IpAddr> {
        if self.prober.is_none() {
            return Vec::new();
        }
        self.vetting.unknown(self.intake.given_anew(change), Instant::now().into_std()).collect()
    }

    /// Asks for what Services wait for, or else for what others had a while ago.
    fn begin_asking(&mut self) {
        let Some(prober) = self.prober.clone().filter(|_| self.asking.is_none()) else { return };
        let outstanding = self.waiting.iter().filter_map(|key| self.intake.outstanding(key));
        let mut asked: BTreeSet<IpAddr> = outstanding.flat_map(|change| self.to_be_asked_for(&change)).collect();
        if asked.is_empty() {
            let (due, gone) = self.vetting.due(|ip| self.intake.covers(ip), Instant::now().into_std());
            gone.into_iter().for_each(|(ip, host)| self.intake.set_host(ip, host));
            asked.extend(due);
        }
        if !asked.is_empty() {
            self.asking = Some(Box::pin(Vetting::ask(prober, asked.into_iter().collect())));
        }
    }

    fn hear(&mut self, (asked, heard): Answer) {
        let changed = self.vetting.heard(&asked, heard, Instant::now().into_std());
        changed.into_iter().for_each(|(ip, host)| self.intake.set_host(ip, host));
        self.metrics.tell_occupied(self.vetting.taken());
        for key in std::mem::take(&mut self.waiting) {
            self.queue.wish(Target::Service(key));
        }
    }

    fn written(&mut self, target: &Target, outcome: &Outcome) {
        let first = self.queue.done(target, outcome, Instant::now());
        let what = match target {
            Target::Service(_) => "services",
            Target::Pool(_) => "ipaddresspools",
            Target::State => "configurationstates",
            Target::GossipKey => "secrets",
        };
        let how = match outcome {
            Outcome::Written => "written",
            Outcome::Needless => "needless",
            Outcome::Stale => "conflict",
            Outcome::Failed(_) => "failed",
        };
        self.metrics.writes.of([what, how]).inc();
        match (outcome, target) {
            (Outcome::Failed(why), target) => {
                self.metrics.update_errors.inc();
                if first {
                    tracing::warn!("not written, it is tried again: {why}");
                } else {
                    tracing::debug!(?target, "not written: {why}");
                }
            }
            (Outcome::Written, Target::Service(key)) => tracing::debug!("status of Service {key} written"),
            _ => {}
        }
    }
}

/// What comes of a question under way.
async fn answered(asking: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

impl Writer {
    async fn write_service(&self, change: &StatusChange, known: &Service) -> Result<Outcome, RequestError> {
        let key = &change.service;
        let path = format!("/api/v1/namespaces/{}/services/{}", key.namespace(), key.name());
        let Some(object) = self.read(&path).await? else { return Ok(Outcome::Needless) };
        self.carry_out(edit_service(object, change, known), &path).await
    }

    async fn write_pool(&self, key: &ObjectKey, counts: PoolCounts) -> Result<Outcome, RequestError> {
        let path = format!("/apis/metallb.io/v1beta1/namespaces/{}/ipaddresspools/{}", key.namespace(), key.name());
        let Some(object) = self.read(&path).await? else { return Ok(Outcome::Needless) };
        self.carry_out(edit_pool(object, counts), &path).await
    }

    async fn write_state(&self, state: &ConfigurationState, namespace: &str) -> Result<Outcome, RequestError> {
        let all = format!("/apis/metallb.io/v1beta1/namespaces/{namespace}/configurationstates");
        let path = format!("{all}/{}", configuration_state::NAME);
        let there = match self.read(&path).await? {
            Some(there) => there,
            None => match self.write(ApiRequest::post(all, &ConfigurationState::object(namespace))).await {
                Ok(Some(made)) => made,
                Ok(None) => return Ok(Outcome::Stale),
                // This definition came with v0.15.3; without it, the Events on the pools say the same.
                Err(RequestError::NotFound { .. }) => return Ok(Outcome::Needless),
                Err(error) => return Err(error),
            },
        };
        let Some(status) = state.status(namespace, &there, Timestamp::now()) else { return Ok(Outcome::Needless) };
        let applied = self.write(ApiRequest::apply(&format!("{path}/status"), configuration_state::MANAGER, &status)).await?;
        Ok(applied.map_or(Outcome::Stale, |_| Outcome::Written))
    }

    async fn write_gossip_key(&self) -> Result<Outcome, RequestError> {
        let all = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        if self.read(&format!("{all}/{GOSSIP_SECRET}")).await?.is_some() {
            return Ok(Outcome::Needless);
        }
        let made = self.write(ApiRequest::post(all, &gossip_key::secret(&self.namespace))).await?;
        if made.is_some() {
            tracing::info!("Secret {}/{GOSSIP_SECRET} is made, with a new key for the announcers", self.namespace);
        }
        Ok(made.map_or(Outcome::Stale, |_| Outcome::Written))
    }

    async fn carry_out(&self, edit: Edit, path: &str) -> Result<Outcome, RequestError> {
        match edit {
            Edit::Nothing | Edit::Gone => Ok(Outcome::Needless),
            Edit::Stale => Ok(Outcome::Stale),
            Edit::Write(object) => {
                let written = self.write(ApiRequest::put(format!("{path}/status"), &object)).await?;
                Ok(written.map_or(Outcome::Stale, |_| Outcome::Written))
            }
        }
    }

    /// An object, if it is there.
    async fn read(&self, path: &str) -> Result<Option<serde_json::Value>, RequestError> {
        match self.servers.ask(ApiRequest::get(path)).await {
            Ok(object) => Ok(Some(object)),
            Err(RequestError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes, if we may at this moment.
    async fn write(&self, request: ApiRequest) -> Result<Option<serde_json::Value>, RequestError> {
        if !self.tenure.lasts() {
            return Ok(None);
        }
        self.servers.ask(request).await.map(Some)
    }
}
