//! One Service as the allocator knows it: what it asks for, what it holds, and what its status says.

use std::net::IpAddr;
use std::sync::Arc;

use super::refusal::{NoFamilies, Refusal};
use super::tidings::{Told, WantedStatus};
use super::wish::Wish;
use super::{Ips, Options, Placement};
use crate::model::load_balancer::{IngressAddress, IpMode};
use crate::model::{Service, ServiceType};

/// So many values of ours that a status may still come to show are remembered.
const ECHOES: usize = 8;

/// One Service.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) service: Arc<Service>,
    pub(super) wish: Wish,
    pub(super) held: Option<Placement>,
    /// We have had a say in its status; before, what it says is the truth.
    pub(super) judged: bool,
    /// What somebody else wrote into the status, until it is judged.
    pub(super) claim: Option<Ips>,
    /// It was ours, and its status has to be cleared for the last time.
    pub(super) clearing: bool,
    /// What of [`Entry::claim`] was told last.
    pub(super) overwritten: Option<Ips>,
    /// Why it lacks something.
    pub(super) lack: Option<Lack>,
    pub(super) told: Told,
    /// What was asked to be written, until the status says so or the Service changes.
    pub(super) asked: Option<WantedStatus>,
    /// Addresses that were asked to be written since the status last agreed: it may still show any of them.
    echoes: Vec<Ips>,
}

/// What a Service does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Anything, as long as its families cannot be told.
    Families(NoFamilies),
    /// What it asks for.
    Wish(Refusal),
    /// The second family, which it only prefers.
    Additional(Refusal),
}

/// Whose a Service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Ours.
    Ours,
    /// Another load balancer's, by its class.
    Anothers,
    /// No LoadBalancer.
    Nobodys,
}

impl Entry {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self {
            wish: Wish::of(&service),
            service,
            held: None,
            judged: false,
            claim: None,
            clearing: false,
            overwritten: None,
            lack: None,
            told: Told::default(),
            asked: None,
            echoes: Vec::new(),
        }
    }

    /// Another version of the same object. Whether others could get now what they could not before.
    pub(super) fn update(&mut self, service: Arc<Service>) -> bool {
        let (before, now) = (status_of(&self.service), status_of(&service));
        let wish = Wish::of(&service);
        let terms_changed = wish.terms != self.wish.terms;
        self.wish = wish;
        self.service = service;
        if now != before && !self.echoes.contains(&now) && !self.adopts_order(&now) {
            self.claim = Some(now.clone()).filter(|now| !now.is_empty());
        }
        if self.addresses() == now.as_slice() {
            self.echoes.clear();
        }
        self.clearing &= !self.is_clear();
        if self.asked.as_ref().is_some_and(|asked| self.differs(asked)) {
            self.asked = None;
        }
        terms_changed && self.held.is_some()
    }

    /// What it holds.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        self.held.as_ref().map_or(&[], |held| &held.addresses)
    }

    /// What its status says.
    pub(super) fn status(&self) -> Ips {
        status_of(&self.service)
    }

    /// The same addresses in another order are no other addresses.
    fn adopts_order(&mut self, now: &Ips) -> bool {
        let Some(held) = self.held.as_mut() else { return false };
        let same = held.addresses.len() == now.len() && held.addresses.iter().all(|ip| now.contains(ip));
        if same {
            held.addresses.clone_from(now);
        }
        same
    }

    pub(super) fn concern(&self, options: &Options) -> Concern {
        let class = self.service.load_balancer.as_ref().and_then(|request| request.class.as_ref());
        match self.service.kind {
            ServiceType::LoadBalancer if class == options.class.as_ref() => Concern::Ours,
            ServiceType::LoadBalancer => Concern::Anothers,
            ServiceType::ClusterIp | ServiceType::NodePort | ServiceType::ExternalName => Concern::Nobodys,
        }
    }

    /// The name of the pool in its annotation.
    pub(super) fn allocated_from(&self) -> Option<&str> {
        let request = self.service.load_balancer.as_ref()?;
        request.allocated_from.as_deref()
    }

    /// What its status should say; `None`: that is not for us to say.
    pub(super) fn wanted(&self, options: &Options, no_pools: bool) -> Option<WantedStatus> {
        let cleared = |ours: bool| ours.then(WantedStatus::default);
        match (self.concern(options), &self.held) {
            (Concern::Ours, Some(held)) => Some(WantedStatus {
                ingress: held.addresses.iter().map(|&ip| IngressAddress { ip, mode: self.mode(ip) }).collect(),
                pool: Some(held.pool.clone()),
            }),
            // Where nobody ever made a pool, Services without a class may be another load balancer's.
            (Concern::Ours, None) => cleared(!no_pools || self.clearing || self.allocated_from().is_some()),
            (Concern::Anothers, _) => cleared(self.clearing),
            (Concern::Nobodys, _) => cleared(self.clearing || self.allocated_from().is_some()),
        }
    }

    /// Whether the status says something else, by meaning.
    pub(super) fn differs(&self, wanted: &WantedStatus) -> bool {
        let Some(request) = &self.service.load_balancer else { return self.clearing };
        request.ingress != wanted.ingress || request.other_ingress || request.allocated_from.as_deref() != wanted.pool.as_deref()
    }

    /// It is to be written.
    pub(super) fn ask(&mut self, wanted: WantedStatus) {
        self.echoes.push(wanted.ingress.iter().map(|ingress| ingress.ip).collect());
        if self.echoes.len() > ECHOES {
            self.echoes.remove(0);
        }
        self.asked = Some(wanted);
    }

    /// A mode that somebody gave to one of its addresses is theirs to say (KEP-1860).
    fn mode(&self, ip: IpAddr) -> IpMode {
        let ingress = self.service.load_balancer.iter().flat_map(|request| &request.ingress);
        ingress.filter(|ingress| ingress.ip == ip).map(|ingress| ingress.mode).next().unwrap_or_default()
    }

    /// Nothing of ours is in the object.
    fn is_clear(&self) -> bool {
        self.service
            .load_balancer
            .as_ref()
            .is_none_or(|request| request.ingress.is_empty() && !request.other_ingress && request.allocated_from.is_none())
    }
}

impl Lack {
    /// Whether it could be had once somebody released an address or shared it on other terms.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Families(_) => false,
            Self::Wish(refusal) | Self::Additional(refusal) => refusal.may_pass(),
        }
    }
}

fn status_of(service: &Service) -> Ips {
    let ingress = service.load_balancer.iter().flat_map(|request| &request.ingress);
    ingress.map(|ingress| ingress.ip).collect()
}
