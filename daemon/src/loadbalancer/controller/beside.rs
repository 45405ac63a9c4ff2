//! The controller of a directory of manifests: between the source and the sync loop, without an API server.
//!
//! There is no status to be written, so a Service gets its address on its way: what reaches the loop is what an API server would have
//! told after the status was written, and in the same commit. What a manifest has in its status counts as what somebody wrote there.
//!
//! With a [`Prober`], an address that is given out anew is asked for on the LAN first; what comes meanwhile waits, for 60 ms. So a first
//! load is in one commit as well, and a restart takes no VIP out of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep_until;

use super::intake::Intake;
use super::vetting::{Answer, Vetting};
use super::words;
use crate::loadbalancer::allocator::{self, PoolReport, Serving, Settled, StatusChange, WantedStatus};
use crate::loadbalancer::announcer::Prober;
use crate::metrics::AllocatorMetrics;
use crate::model::load_balancer::{Home, IpMode};
use crate::model::{ObjectKey, Service, ServiceKey};
use crate::source::{Change, Kind, Object};

/// Questions to the LAN for one change, one after the other: each finds another address occupied. Then the rest has to wait.
const ROUNDS: usize = 64;
/// Services that were not given an address for that reason get the next chance after this, or with the next change.
const NEXT_CHANCE: Duration = Duration::from_secs(1);

/// What manifests list, of what matters here.
const LISTED: [Kind; 6] =
    [Kind::AddressPool, Kind::Advertisement, Kind::Peer, Kind::Namespace, Kind::Service, Kind::ForeignService];

/// Decides on the way.
#[derive(Debug)]
pub struct Beside {
    intake: Intake,
    /// What Services got that have nothing in their manifests' status.
    granted: BTreeMap<ServiceKey, WantedStatus>,
    pools: BTreeMap<ObjectKey, PoolReport>,
    metrics: Arc<AllocatorMetrics>,
    prober: Option<Prober>,
    vetting: Vetting,
    /// Services that are to have addresses of which it is not known yet whether they are free.
    waiting: BTreeSet<ServiceKey>,
}

impl Beside {
    /// One that has been told nothing yet.
    #[must_use]
    pub fn new(class: Option<compact_str::CompactString>, home: Home, metrics: Arc<AllocatorMetrics>) -> Self {
        let intake = Intake::new(allocator::Options { class }, home, &LISTED);
        Self {
            intake,
            granted: BTreeMap::new(),
            pools: BTreeMap::new(),
            metrics,
            prober: None,
            vetting: Vetting::default(),
            waiting: BTreeSet::new(),
        }
    }

    /// Asks the LAN for an address before it is given out.
    #[must_use]
    pub fn probing(self, prober: Prober) -> Self {
        Self { prober: Some(prober), ..self }
    }

    /// Hands on everything, with addresses, until one of the two sides is gone.
    pub async fn run(mut self, mut from: Receiver<Change>, to: Sender<Change>) {
        // Addresses that others have, asked for again: nothing waits for that.
        let mut looking: Option<BoxFuture<'static, Answer>> = None;
        loop {
            let change = tokio::select! {
                change = from.recv() => match change {
                    Some(change) => Some(change),
                    None => return,
                },
                answer = answered(&mut looking) => {
                    looking = None;
                    self.hear(answer);
                    None
                }
                () = until(self.wake()), if looking.is_none() => {
                    looking = self.look_again();
                    None
                }
            };
            if let Some(change) = self.pass_asking(change).await
                && to.send(change).await.is_err()
            {
                return;
            }
        }
    }

    /// One change, or what is known of addresses, with what follows from it. Who has not been asked for is asked for first.
    async fn pass_asking(&mut self, mut change: Option<Change>) -> Option<Change> {
        let mut changed = BTreeSet::new();
        if let Some(change) = &mut change {
            self.take_in(change);
        }
        let mut asked = self.decide(&mut changed);
        for _ in 0..ROUNDS {
            let Some(prober) = self.prober.clone().filter(|_| !asked.is_empty()) else { break };
            let answer = Vetting::ask(prober, asked.into_iter().collect()).await;
            self.hear(answer);
            asked = self.decide(&mut changed);
        }
        self.hand_on(change, changed)
    }

    /// One change, with what follows from it.
    #[cfg(test)]
    fn pass(&mut self, mut change: Change) -> Change {
        let mut changed = BTreeSet::new();
        self.take_in(&mut change);
        self.decide(&mut changed);
        self.hand_on(Some(change), changed).expect("it is there")
    }

    fn take_in(&mut self, change: &mut Change) {
        self.overlay(change);
        self.intake.take(change);
    }

    /// Decides, and gives away what is known to be free. What is returned has to be asked for.
    fn decide(&mut self, changed: &mut BTreeSet<ServiceKey>) -> BTreeSet<IpAddr> {
        // What is granted is told to the allocator as it would be by an API server; by then it has nothing to add. A second round is
        // one too many only if that should ever not be so.
        for _ in 0..4 {
            let settled = self.intake.settle();
            self.take(settled);
            if !self.grant(changed) {
                break;
            }
        }
        self.granted.retain(|key, _| self.intake.service(key).is_some());
        let outstanding = self.waiting.iter().filter_map(|key| self.intake.outstanding(key));
        outstanding.flat_map(|change| self.to_be_asked_for(&change)).collect()
    }

    /// What has to be asked for before this can be written.
    fn to_be_asked_for(&self, change: &StatusChange) -> Vec<IpAddr> {
        if self.prober.is_none() {
            return Vec::new();
        }
        self.vetting.unknown(self.intake.given_anew(change), Instant::now()).collect()
    }

    /// The change with the Services that got something by it; nothing if there is neither.
    fn hand_on(&self, mut change: Option<Change>, mut changed: BTreeSet<ServiceKey>) -> Option<Change> {
        if let Some(change) = &mut change {
            self.present(change, &mut changed);
        }
        let more = changed.iter().filter_map(|key| self.intake.service(key)).map(|(kind, service)| applied(kind, service));
        let mut more = more.peekable();
        match change {
            change if more.peek().is_none() => change,
            Some(Change::Together(mut changes)) => {
                changes.extend(more);
                Some(Change::Together(changes))
            }
            change => Some(Change::Together(change.into_iter().chain(more).collect())),
        }
    }

    fn hear(&mut self, (asked, heard): Answer) {
        let changed = self.vetting.heard(&asked, heard, Instant::now());
        changed.into_iter().for_each(|(ip, host)| self.intake.set_host(ip, host));
        self.metrics.tell_occupied(self.vetting.taken());
    }

    fn look_again(&mut self) -> Option<BoxFuture<'static, Answer>> {
        let (due, gone) = self.vetting.due(|ip| self.intake.covers(ip), Instant::now());
        gone.into_iter().for_each(|(ip, host)| self.intake.set_host(ip, host));
        self.metrics.tell_occupied(self.vetting.taken());
        let prober = self.prober.clone().filter(|_| !due.is_empty())?;
        Some(Box::pin(Vetting::ask(prober, due)))
    }

    fn wake(&self) -> Option<Instant> {
        let chance = (!self.waiting.is_empty()).then(|| Instant::now() + NEXT_CHANCE);
        [self.vetting.next(), chance].into_iter().flatten().min()
    }

    /// Takes over what was decided.
    fn take(&mut self, settled: Settled) {
        let Settled { services, pools, events } = settled;
        events.into_iter().for_each(|event| words::log(&words::remark(event)));
        self.waiting.extend(services.into_iter().map(|change| change.service));
        for unannounced in self.intake.unannounced() {
            words::log(&words::unannounced(&unannounced));
        }
        if !pools.is_empty() || self.pools.keys().any(|key| !self.intake.has_pool(key)) {
            self.pools.retain(|key, _| self.intake.has_pool(key));
            self.pools.extend(pools.into_iter().map(|report| (report.pool.clone(), report)));
            let counts = self.pools.values().filter_map(|report| Some((report.pool.name(), report.counts?)));
            self.metrics.tell_pools(counts, self.pools.values().any(|report| report.serving != Serving::Latest));
        }
    }

    /// Gives Services what they are to have, unless it has to be asked for; whether any got something.
    fn grant(&mut self, changed: &mut BTreeSet<ServiceKey>) -> bool {
        let mut any = false;
        for key in std::mem::take(&mut self.waiting) {
            let Some(change) = self.intake.outstanding(&key) else { continue };
            if !self.to_be_asked_for(&change).is_empty() {
                self.waiting.insert(key);
                continue;
            }
            let Some((kind, service)) = self.intake.service(&key) else { continue };
            let service = Arc::new(with_status(service, &change.wanted));
            self.intake.set_service(kind, service);
            self.granted.insert(key.clone(), change.wanted);
            changed.insert(key);
            any = true;
        }
        any
    }

    /// Gives Services that come what they have got already: a manifest does not know it.
    fn overlay(&self, change: &mut Change) {
        each_service(change, &mut |service| {
            let request = service.load_balancer.as_ref();
            let is_bare = request.is_some_and(|request| request.ingress.is_empty() && !request.other_ingress);
            if let Some(granted) = self.granted.get(&service.key).filter(|_| is_bare) {
                *service = with_status(service, granted);
            }
        });
    }

    /// Services of the change as they are after it. Those are told then.
    fn present(&self, change: &mut Change, changed: &mut BTreeSet<ServiceKey>) {
        each_service(change, &mut |service| {
            if let Some((_, now)) = self.intake.service(&service.key) {
                changed.remove(&service.key);
                *service = Service::clone(now);
            }
        });
    }
}

/// What comes of a question under way.
async fn answered(looking: &mut Option<BoxFuture<'static, Answer>>) -> Answer {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn each_service(change: &mut Change, act: &mut impl FnMut(&mut Service)) {
    match change {
        Change::Applied(Object::Service(service) | Object::ForeignService(service)) => act(service),
        Change::Together(changes) => changes.iter_mut().for_each(|change| each_service(change, act)),
        Change::Applied(_) | Change::Listing(_) | Change::Listed(_) | Change::Deleted(..) | Change::Mark(_) => {}
    }
}

fn applied(kind: Kind, service: &Service) -> Change {
    let service = Box::new(service.clone());
    Change::Applied(if kind == Kind::ForeignService { Object::ForeignService(service) } else { Object::Service(service) })
}

/// The Service, once its status says this.
fn with_status(service: &Service, wanted: &WantedStatus) -> Service {
    let mut service = service.clone();
    if let Some(request) = &mut service.load_balancer {
        request.ingress.clone_from(&wanted.ingress);
        request.allocated_from.clone_from(&wanted.pool);
        request.other_ingress = false;
    }
    // KEP-1860: what somebody else translates is not served here.
    service.vips = wanted.ingress.iter().filter(|ingress| ingress.mode == IpMode::Vip).map(|ingress| ingress.ip).collect();
    service
}

#[cfg(test)]
mod tests;
