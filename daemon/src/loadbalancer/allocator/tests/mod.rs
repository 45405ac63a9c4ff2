//! The allocator beside an API server that stores what it is told.

mod allocation;
mod dual_stack;
mod life_cycle;
mod naive;
mod pools;
mod properties;
mod scale;
mod sharing;
mod space;
mod telling;

use super::*;
use crate::model::load_balancer::{
    AddressRange, IngressAddress, IpFamilyPolicy, IpMode, LoadBalancerRequest, PoolCounts, ServiceAllocation,
};
use crate::model::{Family, Operator, Protocol, Requirement, Selector, ServiceType, TrafficPolicy, samples};

/// An allocator, and the objects as an API server has them.
#[derive(Default)]
struct World {
    allocator: Allocator,
    services: BTreeMap<ServiceKey, Service>,
    pools: BTreeMap<ObjectKey, AddressPool>,
    namespaces: BTreeMap<String, NamespaceLabels>,
    occupants: BTreeMap<IpAddr, Occupant>,
    options: Options,
    /// Events since they were last asked for.
    events: Vec<Event>,
    /// Statuses written, in all.
    writes: usize,
}

impl World {
    /// With these pools, everything listed.
    fn new(pools: impl IntoIterator<Item = AddressPool>) -> Self {
        let mut world = Self::default();
        world.allocator.complete();
        pools.into_iter().for_each(|pool| world.put_pool(pool));
        world.settle();
        world
    }

    /// Settles, stores what comes of it, and sees that the allocator has nothing to add once it knows.
    fn settle(&mut self) {
        let settled = self.allocator.settle();
        self.store(settled);
        let again = self.allocator.settle();
        assert_eq!(again.services, [], "a status that says what it should is not written");
        assert_eq!(again.events, [], "everything is said once");
        assert!(again.pools.iter().all(|report| !report.write), "{:?}", again.pools);
    }

    fn store(&mut self, settled: Settled) {
        self.events.extend(settled.events);
        for StatusChange { service, uid: _, wanted } in settled.services {
            self.writes += 1;
            let stored = self.services.get_mut(&service).unwrap();
            let request = stored.load_balancer.get_or_insert_default();
            request.ingress = wanted.ingress;
            request.other_ingress = false;
            request.allocated_from = wanted.pool;
            self.allocator.set_service(Arc::new(stored.clone()));
        }
        for report in settled.pools.into_iter().filter(|report| report.write) {
            let stored = self.pools.get_mut(&report.pool).unwrap();
            stored.counts = report.counts;
            self.allocator.set_pool(Arc::new(stored.clone()));
        }
    }

    /// Another allocator that knows the same objects, in the order of their names.
    fn restart(&mut self) {
        self.allocator = Allocator::new(self.options.clone());
        self.services.values().for_each(|service| self.allocator.set_service(Arc::new(service.clone())));
        assert_eq!(self.allocator.settle(), Settled::default(), "nothing before everything is listed");
        self.pools.values().for_each(|pool| self.allocator.set_pool(Arc::new(pool.clone())));
        self.namespaces.values().for_each(|namespace| self.allocator.set_namespace(namespace.clone()));
        self.occupants.iter().for_each(|(ip, occupant)| self.allocator.set_occupant(*ip, Some(occupant.clone())));
        self.allocator.complete();
    }

    fn put_pool(&mut self, pool: AddressPool) {
        self.allocator.set_pool(Arc::new(pool.clone()));
        self.pools.insert(pool.key.clone(), pool);
    }

    fn drop_pool(&mut self, name: &str) {
        let key = pool_key(name);
        self.pools.remove(&key);
        self.allocator.remove_pool(&key);
    }

    fn put(&mut self, service: Service) {
        self.allocator.set_service(Arc::new(service.clone()));
        self.services.insert(service.key.clone(), service);
    }

    /// Creates and settles.
    fn create(&mut self, name: &str, change: impl FnOnce(&mut Service, &mut LoadBalancerRequest)) {
        self.put(service(name, change));
        self.settle();
    }

    /// A person edits it.
    fn edit(&mut self, name: &str, change: impl FnOnce(&mut Service, &mut LoadBalancerRequest)) {
        let mut edited = self.services[&key(name)].clone();
        let mut request = edited.load_balancer.take().unwrap_or_default();
        change(&mut edited, &mut request);
        edited.load_balancer = Some(request);
        self.put(edited);
        self.settle();
    }

    fn delete(&mut self, name: &str) {
        self.services.remove(&key(name));
        self.allocator.remove_service(&key(name));
        self.settle();
    }

    fn occupy(&mut self, ip: &str, by: Option<Occupant>) {
        let ip = address(ip);
        self.allocator.set_occupant(ip, by.clone());
        match by {
            Some(by) => drop(self.occupants.insert(ip, by)),
            None => drop(self.occupants.remove(&ip)),
        }
        self.settle();
    }

    /// The addresses in its status, with blanks between.
    fn status(&self, name: &str) -> String {
        let ingress = self.services[&key(name)].load_balancer.iter().flat_map(|request| &request.ingress);
        ingress.map(|ingress| ingress.ip.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.services[&key(name)].load_balancer.as_ref()?.allocated_from.as_deref()
    }

    /// What was said of a Service or a pool since this was last asked.
    fn said(&mut self, name: &str) -> Vec<String> {
        let of = |event: &Event| match &event.about {
            Subject::Service(key, _) | Subject::Pool(key, _) => key.name() == name,
        };
        let (said, rest) = std::mem::take(&mut self.events).into_iter().partition(of);
        self.events = rest;
        said.into_iter().map(|event: Event| format!("{}: {}", event.reason, event.text)).collect()
    }
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn pool_key(name: &str) -> ObjectKey {
    ObjectKey::new("metallb-system", name)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn text(text: &str) -> Option<CompactString> {
    Some(text.into())
}

/// Ranges as in `10.0.0.0-10.0.0.9 fd00::1`.
fn pool(name: &str, ranges: &str) -> AddressPool {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        AddressRange::new(address(first), address(last)).unwrap()
    };
    AddressPool {
        key: pool_key(name),
        uid: format!("uid of {name}").into(),
        generation: 1,
        created: Some(1),
        labels: Labels::default(),
        ranges: ranges.split_whitespace().map(range).collect(),
        auto_assign: true,
        avoid_buggy_ips: false,
        allocation: None,
        counts: None,
        problems: Vec::new(),
    }
}

fn service(name: &str, change: impl FnOnce(&mut Service, &mut LoadBalancerRequest)) -> Service {
    let mut request = Box::new(LoadBalancerRequest { families: [Family::V4].into_iter().collect(), ..Default::default() });
    let mut service = Service { kind: ServiceType::LoadBalancer, ..samples::service(key(name), address("10.96.0.1")) };
    change(&mut service, &mut request);
    service.load_balancer = Some(request);
    service
}

/// A LoadBalancer Service of IPv4, without further wishes.
fn plain(_: &mut Service, _: &mut LoadBalancerRequest) {}

/// One of both families.
fn dual(policy: IpFamilyPolicy) -> impl Fn(&mut Service, &mut LoadBalancerRequest) {
    move |service, request| {
        service.cluster_ips = [address("10.96.0.1"), address("fd96::1")].into_iter().collect();
        request.families = Family::ALL.into_iter().collect();
        request.family_policy = policy;
    }
}

fn selector(label: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement { key: label.into(), operator: Operator::In(vec![value.into()]) }])
}

use crate::model::Labels;
