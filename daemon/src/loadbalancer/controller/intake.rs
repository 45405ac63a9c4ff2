//! From what a source tells to what the allocator decides upon.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::loadbalancer::allocator::{Allocator, Occupant, Options, Settled, StatusChange};
use crate::model::load_balancer::{AddressPool, Advertisement, Ambiguous, Home, PeerNode};
use crate::model::{ObjectKey, Service, ServiceKey};
use crate::netlink::mac::Mac;
use crate::source::{Change, Kind, Object};

/// Everything that decides about addresses, as it was told.
#[derive(Debug)]
pub(super) struct Intake {
    allocator: Allocator,
    /// Kinds that must have been listed before anything is decided.
    awaited: Vec<Kind>,
    sweeps: HashMap<Kind, Sweep>,
    /// Those that have, or had, to do with load balancers.
    services: BTreeMap<ServiceKey, Known>,
    pools: BTreeMap<ObjectKey, Arc<AddressPool>>,
    advertisements: BTreeMap<ObjectKey, Arc<Advertisement>>,
    /// Which nodes have which address.
    occupants: BTreeMap<IpAddr, BTreeSet<Arc<str>>>,
    addresses: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// Which other hosts of the LAN answer for which address.
    hosts: BTreeMap<IpAddr, Mac>,
    home: Home,
    /// The namespace whose pools count, once it is known.
    namespace: Result<Option<Arc<str>>, Ambiguous>,
    /// Pools that the allocator has not been told of yet.
    pools_due: BTreeSet<ObjectKey>,
    /// Services to be looked at for who announces them.
    unsettled: BTreeSet<ServiceKey>,
    /// All of them are.
    all_unsettled: bool,
    /// Services of which it was said that nobody announces them.
    silent: BTreeSet<ServiceKey>,
}

/// A Service, and as what it was told.
#[derive(Debug)]
struct Known {
    kind: Kind,
    service: Arc<Service>,
}

/// What is there of one kind.
#[derive(Debug, Default)]
struct Sweep {
    known: BTreeSet<ObjectKey>,
    /// While a list is being told: what it has not named yet.
    unnamed: Option<BTreeSet<ObjectKey>>,
}

/// A Service with an address that no L2Advertisement is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unannounced {
    pub(super) service: Arc<Service>,
    /// Where its address is from.
    pub(super) pool: String,
}

impl Intake {
    /// `awaited` are the kinds that the source lists, of those that matter here.
    pub(super) fn new(options: Options, home: Home, awaited: &[Kind]) -> Self {
        let namespace = match &home {
            Home::Given(namespace) => Some(namespace.clone()),
            Home::Detected => None,
        };
        Self {
            allocator: Allocator::new(options),
            awaited: awaited.to_vec(),
            sweeps: HashMap::new(),
            services: BTreeMap::new(),
            pools: BTreeMap::new(),
            advertisements: BTreeMap::new(),
            occupants: BTreeMap::new(),
            addresses: BTreeMap::new(),
            hosts: BTreeMap::new(),
            home,
            namespace: Ok(namespace),
            pools_due: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            all_unsettled: false,
            silent: BTreeSet::new(),
        }
    }

    /// Takes in what a source tells. Kinds that decide nothing here are passed over.
    pub(super) fn take(&mut self, change: &Change) {
        match change {
            Change::Listing(kind) => {
                let sweep = self.sweeps.entry(*kind).or_default();
                sweep.unnamed = Some(sweep.known.clone());
            }
            Change::Listed(kind) => {
                let unnamed = self.sweeps.entry(*kind).or_default().unnamed.take();
                unnamed.unwrap_or_default().iter().for_each(|key| self.remove(*kind, key));
                self.awaited.retain(|awaited| awaited != kind);
            }
            Change::Applied(object) => self.apply(object),
            Change::Deleted(kind, key) => self.remove(*kind, key),
            Change::Together(changes) => changes.iter().for_each(|change| self.take(change)),
            Change::Mark(_) => {}
        }
    }

    /// A Service as it is now: of its own accord, or because what was asked for has been written. Most are no matter of load balancers,
    /// and are not kept.
    pub(super) fn set_service(&mut self, kind: Kind, service: Arc<Service>) {
        if service.load_balancer.is_none() && !self.services.contains_key(&service.key) {
            return;
        }
        self.unsettled.insert(service.key.clone());
        self.allocator.set_service(service.clone());
        self.services.insert(service.key.clone(), Known { kind, service });
    }

    /// Decides. Nothing before everything that matters was listed, and as long as it cannot be told whose pools count.
    pub(super) fn settle(&mut self) -> Settled {
        if !self.awaited.is_empty() {
            return Settled::default();
        }
        self.find_home();
        if !matches!(self.namespace, Ok(Some(_))) {
            return Settled::default();
        }
        for key in std::mem::take(&mut self.pools_due) {
            match self.pools.get(&key).filter(|_| self.counts(&key)) {
                Some(pool) => self.allocator.set_pool(pool.clone()),
                None => self.allocator.remove_pool(&key),
            }
        }
        self.allocator.complete();
        let settled = self.allocator.settle();
        self.unsettled.extend(settled.services.iter().map(|change| change.service.clone()));
        settled
    }

    /// Services that have an address which no L2Advertisement is for, those that were not named before. What MetalLB's users ask for
    /// most: the address is there, and nobody answers for it.
    pub(super) fn unannounced(&mut self) -> Vec<Unannounced> {
        let services: Vec<_> = if std::mem::take(&mut self.all_unsettled) {
            self.unsettled.clear();
            self.services.keys().cloned().collect()
        } else {
            std::mem::take(&mut self.unsettled).into_iter().collect()
        };
        let mut found = Vec::new();
        for key in services {
            match self.services.get(&key).and_then(|known| self.lacks_advertisement(&known.service)) {
                None => _ = self.silent.remove(&key),
                Some(unannounced) => {
                    if self.silent.insert(key) {
                        found.push(unannounced);
                    }
                }
            }
        }
        found
    }

    fn lacks_advertisement(&self, service: &Arc<Service>) -> Option<Unannounced> {
        let held = self.allocator.held(&service.key)?;
        let request = service.load_balancer.as_ref()?;
        let pool = self.pools.values().find(|pool| pool.key.name() == held.pool && self.counts(&pool.key));
        let advertised = |advertisement: &Arc<Advertisement>| {
            advertisement.problems.is_empty()
                && self.counts(&advertisement.key)
                && pool.is_none_or(|pool| advertisement.selects_pool(&held.pool, &pool.labels))
                && advertisement.selects_service(&request.labels)
        };
        let unannounced = || Unannounced { service: service.clone(), pool: held.pool.to_string() };
        (!self.advertisements.values().any(advertised)).then(unannounced)
    }

    /// What a Service's status should say, if it says something else.
    pub(super) fn outstanding(&self, key: &ServiceKey) -> Option<StatusChange> {
        self.allocator.outstanding(key)
    }

    /// Of what a status should say, the addresses that no status says yet: those are given out anew.
    pub(super) fn given_anew<'s>(&'s self, change: &'s StatusChange) -> impl Iterator<Item = IpAddr> + 's {
        change.wanted.ingress.iter().map(|ingress| ingress.ip).filter(|ip| !self.allocator.is_shown(*ip))
    }

    /// Another host of the LAN has the address, or (`None`) no longer.
    pub(super) fn set_host(&mut self, ip: IpAddr, host: Option<Mac>) {
        match host {
            Some(mac) => drop(self.hosts.insert(ip, mac)),
            None => drop(self.hosts.remove(&ip)),
        }
        self.tell_occupant(ip);
    }

    /// Whether a pool that counts has the address.
    pub(super) fn covers(&self, ip: IpAddr) -> bool {
        let mut pools = self.pools.values().filter(|pool| self.counts(&pool.key));
        pools.any(|pool| pool.ranges.iter().any(|range| range.contains(ip)))
    }

    /// A Service as it was told last.
    pub(super) fn service(&self, key: &ServiceKey) -> Option<(Kind, &Arc<Service>)> {
        self.services.get(key).map(|known| (known.kind, &known.service))
    }

    /// The namespace whose pools count; `None` before it is known.
    pub(super) fn namespace(&self) -> Result<Option<&Arc<str>>, &Ambiguous> {
        self.namespace.as_ref().map(Option::as_ref)
    }

    /// Everything that matters was listed, and decisions are made.
    pub(super) fn is_complete(&self) -> bool {
        self.awaited.is_empty() && matches!(self.namespace, Ok(Some(_)))
    }

    /// Whether this pool is there and counts.
    pub(super) fn has_pool(&self, key: &ObjectKey) -> bool {
        self.pools.contains_key(key) && self.counts(key)
    }

    fn counts(&self, key: &ObjectKey) -> bool {
        matches!(&self.namespace, Ok(Some(namespace)) if **namespace == *key.namespace())
    }

    /// A namespace that is in use stays so as long as it has pools: one more pool elsewhere must not take every address from its Service.
    fn find_home(&mut self) {
        let in_use = self.pools.keys().any(|key| self.counts(key));
        if matches!(self.home, Home::Given(_)) || in_use {
            return;
        }
        let found = self.home.namespace(self.pools.keys());
        match (&self.namespace, found) {
            // Whose pools counted before still decides.
            (Ok(Some(_)), Err(_)) => {}
            (Ok(Some(before)), Ok(found)) if *before == found => {}
            (_, found) => {
                self.namespace = found.map(Some);
                self.pools_due.extend(self.pools.keys().cloned());
                self.all_unsettled = true;
            }
        }
    }

    fn apply(&mut self, object: &Object) {
        match object {
            Object::Service(service) => {
                self.name(Kind::Service, &service.key);
                self.set_service(Kind::Service, Arc::new((**service).clone()));
            }
            // Another proxy's to serve, but an address of ours may be asked for and held all the same.
            Object::ForeignService(service) => {
                self.name(Kind::ForeignService, &service.key);
                self.set_service(Kind::ForeignService, Arc::new((**service).clone()));
            }
            Object::AddressPool(pool) => {
                self.name(Kind::AddressPool, &pool.key);
                self.pools.insert(pool.key.clone(), Arc::new((**pool).clone()));
                self.pools_due.insert(pool.key.clone());
                self.all_unsettled = true;
            }
            Object::Advertisement(advertisement) => {
                self.name(Kind::Advertisement, &advertisement.key);
                self.advertisements.insert(advertisement.key.clone(), Arc::new((**advertisement).clone()));
                self.all_unsettled = true;
            }
            Object::Namespace(namespace) => {
                self.name(Kind::Namespace, &ObjectKey::new("", &namespace.name));
                self.allocator.set_namespace((**namespace).clone());
            }
            Object::Peer(node) => {
                let key = ObjectKey::new("", &node.name);
                self.name(Kind::Peer, &key);
                self.set_addresses(&key, node);
            }
            Object::EndpointSlice(_) | Object::Node(_) | Object::ServiceCidr(_) => {}
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(sweep) = self.sweeps.get_mut(&kind) {
            sweep.known.remove(key);
            if let Some(unnamed) = &mut sweep.unnamed {
                unnamed.remove(key);
            }
        }
        match kind {
            // One that has become another kind of Service is not gone.
            Kind::Service | Kind::ForeignService if self.services.get(key).is_some_and(|known| known.kind == kind) => {
                self.services.remove(key);
                self.silent.remove(key);
                self.allocator.remove_service(key);
            }
            Kind::AddressPool => {
                self.pools.remove(key);
                self.pools_due.insert(key.clone());
                self.all_unsettled = true;
            }
            Kind::Advertisement => {
                self.advertisements.remove(key);
                self.all_unsettled = true;
            }
            Kind::Namespace => self.allocator.remove_namespace(key.name()),
            Kind::Peer => {
                let before = self.addresses.remove(key).unwrap_or_default();
                before.into_iter().for_each(|ip| self.vacate(ip, key.name()));
            }
            Kind::Service | Kind::ForeignService | Kind::EndpointSlice | Kind::Node | Kind::ServiceCidr => {}
        }
    }

    /// It is there, and a list under way has named it.
    fn name(&mut self, kind: Kind, key: &ObjectKey) {
        let sweep = self.sweeps.entry(kind).or_default();
        sweep.known.insert(key.clone());
        if let Some(unnamed) = &mut sweep.unnamed {
            unnamed.remove(key);
        }
    }

    fn set_addresses(&mut self, key: &ObjectKey, node: &PeerNode) {
        let before = self.addresses.insert(key.clone(), node.addresses.clone()).unwrap_or_default();
        before.into_iter().filter(|ip| !node.addresses.contains(ip)).for_each(|ip| self.vacate(ip, &node.name));
        for &ip in &node.addresses {
            self.occupants.entry(ip).or_default().insert(node.name.clone());
            self.tell_occupant(ip);
        }
    }

    fn vacate(&mut self, ip: IpAddr, node: &str) {
        if let Some(nodes) = self.occupants.get_mut(&ip) {
            nodes.remove(node);
            if nodes.is_empty() {
                self.occupants.remove(&ip);
            }
            self.tell_occupant(ip);
        }
    }

    fn tell_occupant(&mut self, ip: IpAddr) {
        let node = self.occupants.get(&ip).and_then(|nodes| nodes.first()).map(|name| Occupant::Node(name.clone()));
        let host = || self.hosts.get(&ip).map(|mac| Occupant::Host(mac.0));
        self.allocator.set_occupant(ip, node.or_else(host));
    }
}

#[cfg(test)]
mod tests;
