//! The controller of a directory of manifests: between the source and the sync loop, without an API server.
//!
//! There is no status to be written, so a Service gets its address on its way: what reaches the loop is what an API server would have
//! told after the status was written, and in the same commit. What a manifest has in its status counts as what somebody wrote there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender};

use super::intake::Intake;
use super::words;
use crate::loadbalancer::allocator::{self, PoolReport, Serving, Settled, WantedStatus};
use crate::metrics::AllocatorMetrics;
use crate::model::load_balancer::{Home, IpMode};
use crate::model::{ObjectKey, Service, ServiceKey};
use crate::source::{Change, Kind, Object};

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
}

impl Beside {
    /// One that has been told nothing yet.
    #[must_use]
    pub fn new(class: Option<compact_str::CompactString>, home: Home, metrics: Arc<AllocatorMetrics>) -> Self {
        let intake = Intake::new(allocator::Options { class }, home, &LISTED);
        Self { intake, granted: BTreeMap::new(), pools: BTreeMap::new(), metrics }
    }

    /// Hands on everything, with addresses, until one of the two sides is gone.
    pub async fn run(mut self, mut from: Receiver<Change>, to: Sender<Change>) {
        while let Some(change) = from.recv().await {
            if to.send(self.pass(change)).await.is_err() {
                return;
            }
        }
    }

    /// One change, with what follows from it.
    pub fn pass(&mut self, mut change: Change) -> Change {
        self.overlay(&mut change);
        self.intake.take(&change);
        let mut changed = BTreeSet::new();
        // What is granted is told to the allocator as it would be by an API server; by then it has nothing to add. A second round is
        // one too many only if that should ever not be so.
        for _ in 0..4 {
            let settled = self.intake.settle();
            if !self.take(settled, &mut changed) {
                break;
            }
        }
        self.granted.retain(|key, _| self.intake.service(key).is_some());
        self.present(&mut change, &mut changed);
        let more = changed.iter().filter_map(|key| self.intake.service(key)).map(|(kind, service)| applied(kind, service));
        let mut more = more.peekable();
        match change {
            change if more.peek().is_none() => change,
            Change::Together(mut changes) => {
                changes.extend(more);
                Change::Together(changes)
            }
            change => Change::Together(std::iter::once(change).chain(more).collect()),
        }
    }

    /// Takes over what was decided; whether anything was.
    fn take(&mut self, settled: Settled, changed: &mut BTreeSet<ServiceKey>) -> bool {
        let Settled { services, pools, events } = settled;
        events.into_iter().for_each(|event| words::log(&words::remark(event)));
        let decided = !services.is_empty();
        for change in services {
            let Some((kind, service)) = self.intake.service(&change.service) else { continue };
            let service = Arc::new(with_status(service, &change.wanted));
            self.intake.set_service(kind, service);
            self.granted.insert(change.service.clone(), change.wanted);
            changed.insert(change.service);
        }
        for unannounced in self.intake.unannounced() {
            words::log(&words::unannounced(&unannounced));
        }
        if !pools.is_empty() || self.pools.keys().any(|key| !self.intake.has_pool(key)) {
            self.pools.retain(|key, _| self.intake.has_pool(key));
            self.pools.extend(pools.into_iter().map(|report| (report.pool.clone(), report)));
            let counts = self.pools.values().filter_map(|report| Some((report.pool.name(), report.counts?)));
            self.metrics.tell_pools(counts, self.pools.values().any(|report| report.serving != Serving::Latest));
        }
        decided
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
