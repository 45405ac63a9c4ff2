//! The loop: what changed is decided anew, and the announcer is told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::conflicts::Conflicts;
use super::decide::{Decision, Decisions, Quiet, Situation, decide, vips};
use super::interfaces;
use super::told::{Saying, Told};
use super::words;
use super::{Rules, SpeakerOptions, Surroundings};
use crate::health::ProxyHealth;
use crate::loadbalancer::announcer::{Announcer, Event};
use crate::metrics::SpeakerMetrics;
use crate::model::ServiceKey;
use crate::netlink::links::Links;
use crate::retry::Retry;
use crate::table::{Follower, Published, ServiceState};

/// Pauses between attempts to start an announcer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(30);
/// While something about the announcer does not work, it is asked so often whether it still does not.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Names of problems in `/healthz`.
const ANNOUNCER: &str = "announcer";
const CONFLICTS: &str = "VIPs";

pub(super) struct Desk {
    options: SpeakerOptions,
    rules: watch::Receiver<Arc<Rules>>,
    published: Arc<Published>,
    follower: Follower,
    programmed: watch::Receiver<u64>,
    health: Arc<ProxyHealth>,
    metrics: Arc<SpeakerMetrics>,
    /// Services with VIPs.
    services: BTreeMap<ServiceKey, Arc<ServiceState>>,
    decisions: Decisions,
    told: Told,
    conflicts: Conflicts,
    /// Only while there is something that could be announced.
    voice: Option<Voice>,
    retry: Retry,
    retry_at: Option<Instant>,
    /// When the announcer is asked for its troubles again.
    ask_at: Option<Instant>,
}

/// An announcer, and what it says.
struct Voice {
    announcer: Arc<Announcer>,
    events: mpsc::Receiver<Event>,
    links: watch::Receiver<Arc<Links>>,
}

/// What made the loop wake up.
enum Woken {
    Rules,
    Services(BTreeSet<ServiceKey>),
    Programmed,
    Links,
    Event(Event),
    Time,
    /// The announcer's thread has ended, which it never should.
    Lost,
    /// Nobody is left who could say anything.
    End,
}

impl Desk {
    pub(super) fn new(options: SpeakerOptions, surroundings: Surroundings) -> Self {
        let Surroundings { rules, published, health, metrics } = surroundings;
        Self {
            options,
            rules,
            follower: published.follow(|state| state.tenancy.is_some()),
            published,
            programmed: health.programmed(),
            health,
            metrics,
            services: BTreeMap::new(),
            decisions: Decisions::new(),
            told: Told::default(),
            conflicts: Conflicts::default(),
            voice: None,
            retry: Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST),
            retry_at: None,
            ask_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.woken().await {
                Woken::End => return,
                Woken::Event(event) => self.hear(event),
                Woken::Services(changed) => {
                    changed.into_iter().for_each(|key| self.look_up(key));
                    self.decide();
                }
                Woken::Rules | Woken::Programmed | Woken::Links => self.decide(),
                Woken::Lost => self.lose(),
                Woken::Time => {
                    let now = Instant::now();
                    if self.retry_at.is_some_and(|at| at <= now) {
                        self.retry_at = None;
                        self.decide();
                    }
                }
            }
            self.look_after();
        }
    }

    async fn woken(&mut self) -> Woken {
        let next = [self.retry_at, self.ask_at, self.conflicts.next_end()].into_iter().flatten().min();
        let waits = self.decisions.values().any(|decision| decision.outcome == Err(Quiet::Unprogrammed));
        let (events, links) = match &mut self.voice {
            Some(Voice { events, links, .. }) => (Some(events), Some(links)),
            None => (None, None),
        };
        tokio::select! {
            changed = self.rules.changed() => if changed.is_ok() { Woken::Rules } else { Woken::End },
            changed = self.follower.changed() => Woken::Services(changed),
            Ok(()) = self.programmed.changed(), if waits => Woken::Programmed,
            event = said(events) => event.map_or(Woken::Lost, Woken::Event),
            Ok(()) = moved(links) => Woken::Links,
            () = until(next) => Woken::Time,
        }
    }

    /// What the sync loop says of a Service now.
    fn look_up(&mut self, key: ServiceKey) {
        match self.published.service(&key).filter(|state| state.tenancy.is_some()) {
            Some(state) => drop(self.services.insert(key, state)),
            None => drop(self.services.remove(&key)),
        }
    }

    fn decide(&mut self) {
        let rules = self.rules.borrow_and_update().clone();
        if !rules.announce_something() {
            if self.voice.take().is_some() {
                tracing::info!("nothing is announced: there is no pool or no L2Advertisement any more");
            }
            (self.retry_at, self.ask_at) = (None, None);
            self.put_in_force(Decisions::new());
            return;
        }
        if self.voice.is_none() && self.retry_at.is_none() {
            self.start();
        }
        let Some(voice) = &mut self.voice else { return };
        let links = voice.links.borrow_and_update().clone();
        let decisions = decide(&Situation {
            node: &self.options.node,
            class: self.options.class.as_deref(),
            rules: &rules,
            services: &self.services,
            interfaces: &interfaces::candidates(&links, &self.options.announcer.exclusions),
            programmed: *self.programmed.borrow_and_update(),
            held: &self.decisions,
        });
        self.put_in_force(decisions);
    }

    fn start(&mut self) {
        match Announcer::start(self.options.announcer.clone()) {
            Ok((announcer, events)) => {
                let (links, announcer) = (announcer.links(), Arc::new(announcer));
                self.metrics.follow(&announcer);
                self.voice = Some(Voice { announcer, events, links });
                self.retry.reset();
                self.health.problem(ANNOUNCER, None);
            }
            Err(error) => {
                let text = format!("cannot be started, so nothing is announced: {error}");
                tracing::warn!("the announcer {text}");
                self.health.problem(ANNOUNCER, Some(text));
                self.retry_at = Some(Instant::now() + self.retry.next());
            }
        }
    }

    fn lose(&mut self) {
        tracing::error!("the announcer has died, so nothing is announced until there is another");
        self.voice = None;
        self.health.problem(ANNOUNCER, Some("it has died".to_owned()));
        self.retry_at = Some(Instant::now() + self.retry.next());
        self.put_in_force(Decisions::new());
    }

    fn put_in_force(&mut self, decisions: Decisions) {
        let sayings = self.told.decided(&self.options.node, &decisions);
        let (before, now) = (vips(&self.decisions), vips(&decisions));
        if let Some(voice) = self.voice.as_ref().filter(|_| before != now) {
            voice.announcer.set(now);
        }
        self.metrics.announced(&self.options.node, &told_by_metrics(&self.decisions), &told_by_metrics(&decisions));
        self.decisions = decisions;
        self.say(sayings);
    }

    fn hear(&mut self, event: Event) {
        let node = self.options.node.clone();
        let sayings = match event {
            Event::Announced { address, interfaces, after } => {
                tracing::info!(vip = %address, interfaces = interfaces.join(","), after_ms = after.as_millis(), "announced");
                self.metrics.took(after);
                self.of(address).map(|decision| self.told.announced(address, &node, &decision)).unwrap_or_default()
            }
            Event::Silent(address) => {
                self.of(address).map(|decision| self.told.unheard(address, &node, &decision)).unwrap_or_default()
            }
            Event::Conflict(alarm) => {
                self.metrics.conflict(alarm.claim.address, alarm.times);
                let word = words::conflict(&alarm);
                let tenants = self.of(alarm.claim.address).map(|decision| decision.tenants).unwrap_or_default();
                self.conflicts.heard(alarm.claim, Instant::now());
                tenants.into_keys().map(|service| (service, word.clone())).collect()
            }
        };
        self.say(sayings);
    }

    /// What was decided of a VIP that is announced here.
    fn of(&self, address: IpAddr) -> Option<Decision> {
        self.decisions.get(&address).filter(|decision| decision.outcome.is_ok()).cloned()
    }

    /// Problems that come and go by themselves.
    fn look_after(&mut self) {
        let now = Instant::now();
        let decisions = &self.decisions;
        let is_announced = |address| decisions.get(&address).is_some_and(|decision| decision.outcome.is_ok());
        self.conflicts.retain(is_announced, now);
        self.health.problem(CONFLICTS, self.conflicts.problem());
        if let Some(voice) = &self.voice {
            let troubles = voice.announcer.troubles();
            self.ask_at = (!troubles.is_empty()).then(|| now + ASK_AGAIN);
            self.health.problem(ANNOUNCER, (!troubles.is_empty()).then(|| troubles.join("; ")));
        } else if self.retry_at.is_none() {
            self.health.problem(ANNOUNCER, None);
        }
    }

    fn say(&self, sayings: Vec<Saying>) {
        for (service, word) in sayings {
            let reason = word.reason;
            if word.is_warning {
                tracing::warn!(object = %service, reason, "{}", word.text);
            } else {
                tracing::info!(object = %service, reason, "{}", word.text);
            }
        }
    }
}

impl Drop for Desk {
    /// A daemon that is built anew tells of its own troubles.
    fn drop(&mut self) {
        self.metrics.announced(&self.options.node, &told_by_metrics(&self.decisions), &BTreeSet::new());
        self.health.problem(ANNOUNCER, None);
        self.health.problem(CONFLICTS, None);
    }
}

/// Services with the VIPs that are announced for them, as `metallb_speaker_announced` names them.
fn told_by_metrics(decisions: &Decisions) -> BTreeSet<(String, IpAddr)> {
    let announced = decisions.iter().filter(|(_, decision)| decision.outcome.is_ok());
    announced.flat_map(|(vip, decision)| decision.tenants.keys().map(|service| (service.to_string(), *vip))).collect()
}

async fn said(events: Option<&mut mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn moved(links: Option<&mut watch::Receiver<Arc<Links>>>) -> Result<(), watch::error::RecvError> {
    match links {
        Some(links) => links.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
