//! The loop: what changed is decided anew, and the announcer is told, and then the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::account::{Account, Accountant, Books};
use super::caution::{Bearing, Claimant};
use super::company::{Company, Gathering};
use super::conflicts::{Conflicts, OfMembers};
use super::decide::{Decision, Decisions, Quiet, Situation, decide, next_try, vips};
use super::field::Entrant;
use super::holdings::Holdings;
use super::interfaces;
use super::probing::Probing;
use super::record::Announced;
use super::summary::{by_service, elsewhere, told_by_metrics};
use super::told::{Saying, Told};
use super::words;
use super::{Rules, SpeakerOptions, Surroundings};
use crate::health::ProxyHealth;
use crate::loadbalancer::announcer::conflict::{Alarm, Claim};
use crate::loadbalancer::announcer::{Announcer, Event, ProbeError, Prober};
use crate::loadbalancer::election::{Arrival, Presence};
use crate::loadbalancer::membership::{Departure, HandOver, NetworkInterface, State};
use crate::metrics::SpeakerMetrics;
use crate::model::ServiceKey;
use crate::netlink::links::Links;
use crate::retry::Retry;
use crate::table::{Follower, Published, ServiceState};

/// For so long at the most a daemon that ends goes on answering until its successors do: less than any `terminationGracePeriodSeconds`
/// that leaves room for one at all.
pub const HAND_OVER: Duration = Duration::from_secs(5);

/// Pauses between attempts to start an announcer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(30);
/// While something about the announcer does not work, it is asked so often whether it still does not.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Between two times that the others are told what is announced here: a thousand VIPs are twenty datagrams to each of them.
const PACE: Duration = Duration::from_millis(20);
/// What is written at the end, that nothing is held any more, is waited for so long.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// Names of problems in `/healthz`.
const ANNOUNCER: &str = "announcer";
const CONFLICTS: &str = "VIPs";
const MEMBERS: &str = "membership";
const FENCE: &str = "announcing";

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
    company: Company,
    field: Vec<Entrant>,
    /// Enough is known of everybody else.
    settled: bool,
    interfaces: Vec<NetworkInterface>,
    /// The kernel has what this node serves. Before that nobody is told that it could announce.
    ready: bool,
    decisions: Decisions,
    holdings: Holdings,
    /// What an earlier life of this daemon held was taken up, or this one has told others of itself.
    resumed: bool,
    told: Told,
    conflicts: Conflicts,
    /// Claims that may be looked at again.
    of_members: OfMembers,
    accountant: Accountant,
    account: watch::Sender<Arc<Account>>,
    /// Only while there is something that could be announced.
    voice: Option<Voice>,
    retry: Retry,
    retry_at: Option<Instant>,
    /// When the announcer is asked for its troubles again.
    ask_at: Option<Instant>,
    /// When it is decided anew although nothing was heard.
    decide_at: Option<Instant>,
    departure: Option<oneshot::Receiver<Departure>>,
    /// While this daemon ends, for its VIPs.
    leaving: Option<HandOver>,
    /// As it was told last.
    bearing: Bearing,
    /// The others are told of us: see [`Desk::decide`].
    tells: bool,
    published_at: Option<Instant>,
    /// When the rest is told.
    publish_at: Option<Instant>,
    /// Of the controller beside us.
    allocating: Option<Prober>,
    /// Where somebody else than this process gives out addresses, without asking the LAN.
    prober: Option<Prober>,
    probing: Probing,
    asking: Option<BoxFuture<'static, Answer>>,
}

/// What was asked for, and who has it.
type Answer = (Vec<IpAddr>, Result<Vec<Claim>, ProbeError>);

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
    Company,
    Links,
    Event(Event),
    Probed(Answer),
    Time,
    /// The announcer's thread has ended, which it never should.
    Lost,
    Departure(Departure),
    /// Nobody is left who could say anything.
    End,
}

impl Desk {
    pub(super) fn new(
        options: SpeakerOptions,
        surroundings: Surroundings,
        departure: oneshot::Receiver<Departure>,
    ) -> (Self, watch::Receiver<Arc<Account>>) {
        let Surroundings { rules, cluster, published, health, metrics, prober: allocating } = surroundings;
        let (account, accounts) = watch::channel(Arc::new(Account { node: options.node.clone(), ..Account::default() }));
        let prober = cluster.as_ref().map(|_| Prober::new(options.announcer.exclusions.clone()));
        let desk = Self {
            company: Company::new(options.node.clone(), cluster, options.port, options.membership),
            options,
            rules,
            follower: published.follow(|state| state.tenancy.is_some()),
            published,
            programmed: health.programmed(),
            health,
            metrics,
            services: BTreeMap::new(),
            field: Vec::new(),
            settled: false,
            interfaces: Vec::new(),
            ready: false,
            decisions: Decisions::new(),
            holdings: Holdings::default(),
            resumed: false,
            told: Told::default(),
            conflicts: Conflicts::default(),
            of_members: OfMembers::default(),
            accountant: Accountant::default(),
            account,
            voice: None,
            retry: Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST),
            retry_at: None,
            ask_at: None,
            decide_at: None,
            departure: Some(departure),
            leaving: None,
            bearing: Bearing::Free,
            tells: false,
            published_at: None,
            publish_at: None,
            allocating,
            prober,
            probing: Probing::default(),
            asking: None,
        };
        (desk, accounts)
    }

    pub(super) async fn run(mut self) {
        loop {
            match self.woken().await {
                Woken::End => return,
                Woken::Event(event) => {
                    self.hear(event).await;
                    // A thousand VIPs that move are a thousand of these, and are told together.
                    while let Some(event) = self.voice.as_mut().and_then(|voice| voice.events.try_recv().ok()) {
                        self.hear(event).await;
                    }
                    self.publish().await;
                }
                Woken::Probed(answer) => {
                    self.hear_answer(answer);
                    self.decide().await;
                }
                Woken::Services(changed) => {
                    changed.into_iter().for_each(|key| self.look_up(key));
                    self.decide().await;
                }
                Woken::Rules | Woken::Programmed | Woken::Links => self.decide().await,
                Woken::Company => {
                    self.decide().await;
                    let company = &self.company;
                    for alarm in self.of_members.overtaken(|mac| company.is_heard(mac), Instant::now()) {
                        self.hear_claim(alarm).await;
                    }
                }
                Woken::Lost => self.lose().await,
                Woken::Departure(Departure::Restart) => return self.company.depart(Departure::Restart).await,
                Woken::Departure(Departure::Leave) => self.leave().await,
                Woken::Time => {
                    let now = Instant::now();
                    if self.retry_at.take_if(|at| *at <= now).is_some() || self.decide_at.is_some_and(|at| at <= now) {
                        self.decide().await;
                    } else if self.publish_at.is_some_and(|at| at <= now) {
                        self.publish().await;
                    }
                }
            }
            if self.is_gone() {
                return self.say_goodbye().await;
            }
            self.look_after();
        }
    }

    async fn woken(&mut self) -> Woken {
        let deadline = self.leaving.as_ref().map(HandOver::deadline);
        let next = [self.retry_at, self.ask_at, self.decide_at, self.publish_at, self.conflicts.next_end(), deadline];
        let next = next.into_iter().flatten().min();
        let waits = self.decisions.values().any(|decision| decision.outcome == Err(Quiet::Unprogrammed)) || !self.ready;
        let (events, links) = match &mut self.voice {
            Some(Voice { events, links, .. }) => (Some(events), Some(links)),
            None => (None, None),
        };
        tokio::select! {
            changed = self.rules.changed() => if changed.is_ok() { Woken::Rules } else { Woken::End },
            changed = self.follower.changed() => Woken::Services(changed),
            Ok(()) = self.programmed.changed(), if waits => Woken::Programmed,
            () = self.company.changed() => Woken::Company,
            event = said(events) => event.map_or(Woken::Lost, Woken::Event),
            Ok(()) = moved(links) => Woken::Links,
            answer = answered(&mut self.asking) => {
                self.asking = None;
                Woken::Probed(answer)
            }
            departure = asked(self.departure.as_mut()) => {
                self.departure = None;
                // Whoever could ask is gone, and has cancelled us.
                departure.map_or(Woken::End, Woken::Departure)
            }
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

    async fn decide(&mut self) {
        let now = Instant::now();
        self.decide_at = None;
        let programmed = *self.programmed.borrow_and_update();
        // In this order: what is in the kernel has been published before.
        self.ready |= self.health.look().updated.is_some();
        self.follower.take().into_iter().for_each(|key| self.look_up(key));
        let rules = self.rules.borrow_and_update().clone();
        if !self.company.follow(&rules, now).await {
            if self.voice.take().is_some() {
                tracing::info!("nothing is announced: there is no pool, or no L2Advertisement that selects this node, any more");
            }
            (self.retry_at, self.ask_at) = (None, None);
            (self.field, self.interfaces) = (Vec::new(), Vec::new());
            self.put_in_force(Decisions::new(), &rules, now);
            self.publish().await;
            return;
        }
        if self.voice.is_none() && self.retry_at.is_none() {
            self.start();
        }
        let Some(voice) = &mut self.voice else { return };
        let links = voice.links.borrow_and_update().clone();
        self.interfaces = interfaces::candidates(&links, &self.options.announcer.exclusions);
        self.holdings.expire(now);
        self.resume(now);
        let own = self.options.node.clone();
        let ours = |vip| self.decisions.get(&vip).is_some_and(|decision| decision.is_ours(&own));
        let disputed = self.company.look_at_disputes(ours, now);
        let presence = if self.leaving.is_some() { Presence::Leaving } else { Presence::Present };
        let facts = self.holdings.facts(self.interfaces.clone());
        let Gathering { field, settled, bearing, first_taking, next } = self.company.gather(&rules, facts, presence, now);
        let mut decisions = decide(&Situation {
            class: self.options.class.as_deref(),
            options: self.options.election,
            rules: &rules,
            services: &self.services,
            field: &field,
            settled,
            bearing: &bearing,
            ceded: &|vip| self.company.ceded(vip),
            first_taking,
            programmed,
            before: &self.decisions,
        });
        (self.field, self.settled) = (field, settled && self.ready);
        if let Some(allocating) = &self.allocating {
            allocating.set_fellows(self.company.macs());
        }
        let probe_again = self.keep_back(&mut decisions, now);
        self.decide_at =
            [next, disputed, next_try(&decisions), self.holdings.next_expiry(), probe_again].into_iter().flatten().min();
        self.bear(bearing);
        self.put_in_force(decisions, &rules, now);
        // A daemon that starts tells nothing before it knows what the others hold: until then they go by what it told last.
        self.tells = self.company.has_told() || (self.company.view().settled && self.ready);
        self.resumed |= self.tells;
        self.publish().await;
        if let Some(leaving) = &mut self.leaving {
            leaving.observe(&*self.company.view().members);
        }
    }

    /// Keeps back what nobody is known to have until the LAN was asked; says when it is to be asked again.
    fn keep_back(&mut self, decisions: &mut Decisions, now: Instant) -> Option<Instant> {
        let prober = self.prober.clone()?;
        let is_held = |vip| self.field.iter().any(|entrant| entrant.holds(vip).is_some());
        let kept = self.probing.keep_back(decisions, is_held, now);
        if self.asking.is_none() {
            let due = self.probing.due(&kept, now);
            if !due.is_empty() {
                self.asking = Some(Box::pin(async move {
                    let heard = prober.ask(due.clone()).await;
                    (due, heard)
                }));
            }
        }
        // While somebody is being asked, the answer wakes us.
        self.probing.next().filter(|_| self.asking.is_none())
    }

    /// Who cannot ask announces, as MetalLB does.
    fn hear_answer(&mut self, (asked, heard): Answer) {
        let now = Instant::now();
        let claims = heard.unwrap_or_else(|error| {
            tracing::warn!("announcing without having asked the LAN whether another host has the VIP: {error}");
            Vec::new()
        });
        // An announcer that has it is no conflict: its word is still under way, or it is not heard, which the fence decides about.
        let strangers = claims.into_iter().filter(|claim| matches!(self.company.claimed(claim), Claimant::Stranger));
        let strangers: Vec<Claim> = strangers.collect();
        for claim in &strangers {
            self.metrics.conflict(claim.address, 1);
            self.conflicts.heard(claim.clone(), now);
        }
        self.probing.heard(&asked, &strangers, now);
    }

    /// Takes up what an earlier life of this daemon held, as the others remember it.
    fn resume(&mut self, now: Instant) {
        let Some(remembered) = self.company.view().remembered.clone().filter(|_| !self.resumed) else { return };
        self.resumed = true;
        if !remembered.holds.is_empty() {
            tracing::info!(
                vips = remembered.holds.len(),
                "taking up the VIPs that this node held before its daemon was restarted"
            );
            self.holdings.resume(&remembered, now);
        }
    }

    /// Tells the others, and whoever reads the account. At once, unless it was done a moment ago: then in a moment.
    async fn publish(&mut self) {
        let now = Instant::now();
        let earliest = self.published_at.map(|last| last + PACE).filter(|earliest| now < *earliest);
        self.publish_at = earliest;
        if earliest.is_some() {
            return;
        }
        self.published_at = Some(now);
        if self.tells {
            self.company.tell(self.holdings.told(self.interfaces.clone())).await;
        }
        self.keep_account();
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

    async fn lose(&mut self) {
        tracing::error!("the announcer has died, so nothing is announced until there is another");
        self.voice = None;
        self.health.problem(ANNOUNCER, Some("it has died".to_owned()));
        let now = Instant::now();
        self.retry_at = Some(now + self.retry.next());
        let rules = self.rules.borrow().clone();
        self.put_in_force(Decisions::new(), &rules, now);
        self.interfaces.clear();
        self.publish().await;
    }

    fn put_in_force(&mut self, decisions: Decisions, rules: &Rules, now: Instant) {
        let own = &self.options.node;
        let sayings = self.told.decided(own, self.is_spokesman(), &decisions);
        let (before, wanted) = (vips(&self.decisions), vips(&decisions));
        if let Some(voice) = self.voice.as_ref().filter(|_| before != wanted) {
            voice.announcer.set(wanted);
        }
        self.metrics.announced(own, &told_by_metrics(&self.decisions), &told_by_metrics(&decisions));
        self.holdings.follow(&decisions, self.ready, now);
        self.decisions = decisions;
        if let Some(record) = self.company.record().filter(|_| self.ready) {
            let (namespace, services) = (rules.namespace.clone(), by_service(&self.decisions));
            let others = elsewhere(&services, &self.decisions, &self.field);
            record.announced(Announced { namespace, services, others });
        }
        self.company.note(!self.holdings.is_empty());
        // Who ends has nothing to say any more of what it does not announce.
        if self.leaving.is_none() {
            self.say(sayings);
        }
    }

    /// Of those that live one speaks for all of them, about what nobody announces. Who does not know enough says nothing.
    fn is_spokesman(&self) -> bool {
        let first = self.field.iter().filter(|entrant| entrant.is_present()).map(|entrant| &entrant.node.name).min();
        let knows = self.settled && self.bearing == Bearing::Free && self.company.quorum().lost_since.is_none();
        knows && first.is_none_or(|first| *first == self.options.node)
    }

    fn keep_account(&mut self) {
        let account = self.accountant.account(
            &Books {
                node: &self.options.node,
                decisions: &self.decisions,
                field: &self.field,
                members: &self.company.view().members,
                holdings: &self.holdings,
                announcer: self.voice.as_ref().map(|voice| &*voice.announcer),
            },
            Timestamp::now(),
        );
        self.account.send_if_modified(|known| {
            let news = **known != account;
            if news {
                *known = Arc::new(account);
            }
            news
        });
    }

    async fn hear(&mut self, event: Event) {
        let node = self.options.node.clone();
        let sayings = match event {
            Event::Announced { address, interfaces, after } => {
                tracing::info!(vip = %address, interfaces = interfaces.join(","), after_ms = after.as_millis(), "announced");
                self.holdings.was_heard(address);
                let decision = self.of(address);
                self.took(decision.as_ref(), address, after);
                decision.map(|decision| self.told.announced(address, &node, &decision)).unwrap_or_default()
            }
            Event::Silent(address) => {
                self.holdings.was_silenced(address);
                self.of(address).map(|decision| self.told.unheard(address, &node, &decision)).unwrap_or_default()
            }
            Event::Conflict(alarm) => return self.hear_claim(alarm).await,
        };
        self.say(sayings);
    }

    /// How long it took: since the decision, and since whoever had it was found to be gone.
    fn took(&self, decision: Option<&Decision>, vip: IpAddr, after: Duration) {
        self.metrics.took(after);
        let Some(decision) = decision else { return };
        let gone = self.field.iter().filter(|entrant| entrant.holds(vip).is_some()).filter_map(|entrant| match entrant.state? {
            State::Gone { since, .. } => Some(since.elapsed()),
            _ => None,
        });
        let inherited = decision.arrival == Arrival::Inherited;
        self.metrics.arrived(inherited, gone.min().filter(|_| inherited));
    }

    async fn hear_claim(&mut self, alarm: Alarm) {
        let Alarm { claim, times } = &alarm;
        match self.company.claimed(claim) {
            Claimant::Heard(_) => {
                // Where it is to have the VIP, it has said what it should.
                if self.decisions.get(&claim.address).is_some_and(|decision| decision.is_ours(&self.options.node)) {
                    self.of_members.heard(alarm, Instant::now());
                }
            }
            Claimant::Yielded(name) => {
                tracing::warn!(vip = %claim.address, "node {name:?} announces it, which is not heard and goes first: it is left to it");
                self.decide().await;
            }
            Claimant::Defied(name) => {
                tracing::warn!(vip = %claim.address, "node {name:?} announces it, which is not heard and has to give way");
                if let Some(voice) = &self.voice {
                    voice.announcer.announce_again([claim.address]);
                }
            }
            Claimant::Stranger => {
                self.metrics.conflict(claim.address, *times);
                let word = words::conflict(&alarm);
                let tenants = self.of(claim.address).map(|decision| decision.tenants).unwrap_or_default();
                self.conflicts.heard(alarm.claim, Instant::now());
                self.say(tenants.into_keys().map(|service| (service, word.clone())).collect());
            }
        }
    }

    /// What was decided of a VIP that is announced here.
    fn of(&self, address: IpAddr) -> Option<Decision> {
        self.decisions.get(&address).filter(|decision| decision.outcome.is_ok()).cloned()
    }

    /// This daemon ends: its VIPs go to others, and are answered for here until they are there.
    async fn leave(&mut self) {
        self.company.depart(Departure::Leave).await;
        self.leaving = Some(HandOver::new([], Instant::now(), HAND_OVER));
        self.decide().await;
        let moving: Vec<IpAddr> = vips(&self.decisions).into_iter().map(|vip| vip.address).collect();
        if !moving.is_empty() {
            tracing::info!(vips = moving.len(), "handing over the VIPs of this node before its daemon ends");
        }
        self.leaving = Some(HandOver::new(moving, Instant::now(), HAND_OVER));
    }

    /// Everything is handed over, or it has taken too long.
    fn is_gone(&self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let over = leaving.is_over(Instant::now()) || self.holdings.is_empty();
        if over && leaving.waiting().len() > 0 && !self.holdings.is_empty() {
            let left: Vec<String> = leaving.waiting().map(|vip| vip.to_string()).collect();
            tracing::warn!("ending although nobody has taken over {}", left.join(", "));
        }
        over
    }

    /// Nobody answers here any more, and what is written says so.
    async fn say_goodbye(mut self) {
        self.voice = None;
        let Some(record) = self.company.record().cloned() else { return };
        let namespace = self.rules.borrow().namespace.clone();
        record.announced(Announced { namespace, ..Announced::default() });
        self.company.note(false);
        if tokio::time::timeout(LAST_WRITES, record.settled()).await.is_err() {
            tracing::debug!("not everything was written before the end");
        }
    }

    /// What keeps this node from announcing at all, each time once.
    fn bear(&mut self, bearing: Bearing) {
        if self.bearing == bearing {
            return;
        }
        let problem = match &bearing {
            Bearing::Free => None,
            Bearing::Withdrawn => Some(Quiet::Withdrawn.to_string()),
            Bearing::Yielding(rival) => {
                Some(format!("node {rival:?} lives although it is not heard, and hears more of the others"))
            }
        };
        match &problem {
            Some(problem) => tracing::warn!("no VIP is announced here: {problem}"),
            None => tracing::info!("VIPs may be announced here again"),
        }
        self.health.problem(FENCE, problem.map(|problem| format!("no VIP is announced here: {problem}")));
        self.bearing = bearing;
    }

    /// Problems that come and go by themselves.
    fn look_after(&mut self) {
        let now = Instant::now();
        let decisions = &self.decisions;
        let is_concerned =
            |address| decisions.get(&address).is_some_and(|decision| matches!(decision.outcome, Ok(_) | Err(Quiet::Occupied(_))));
        self.conflicts.retain(is_concerned, now);
        self.health.problem(CONFLICTS, self.conflicts.problem());
        self.health.problem(MEMBERS, self.company.problem());
        self.metrics.members(self.company.handle(), &self.company.view().members);
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
            if let Some(record) = self.company.record() {
                let tenancy = self.services.get(&service).and_then(|state| state.tenancy.as_ref());
                record.say(&service, tenancy.map_or("", |tenancy| &tenancy.uid), &word);
            }
        }
    }
}

impl Drop for Desk {
    /// A daemon that is built anew tells of its own troubles.
    fn drop(&mut self) {
        self.metrics.announced(&self.options.node, &told_by_metrics(&self.decisions), &BTreeSet::new());
        self.metrics.members(None, &[]);
        for problem in [ANNOUNCER, CONFLICTS, MEMBERS, FENCE] {
            self.health.problem(problem, None);
        }
    }
}

async fn said(events: Option<&mut mpsc::Receiver<Event>>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn answered(asking: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

async fn moved(links: Option<&mut watch::Receiver<Arc<Links>>>) -> Result<(), watch::error::RecvError> {
    match links {
        Some(links) => links.changed().await,
        None => std::future::pending().await,
    }
}

async fn asked(departure: Option<&mut oneshot::Receiver<Departure>>) -> Option<Departure> {
    match departure {
        Some(departure) => departure.await.ok(),
        None => std::future::pending().await,
    }
}

async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}
