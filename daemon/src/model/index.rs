//! Everything the sources have told us, folded into one picture, and what of it still has to reach the table.

pub(crate) mod held;
mod same;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::held::{Held, Sweep};
use self::slices::Slices;
use super::load_balancer::{AddressPool, AddressRange};
use super::{EndpointSlice, Node, ObjectKey, Problem, Service, ServiceCidr, ServiceKey};
use crate::source::{Change, Kind, Object};

/// The objects of all sources, owned by the sync loop.
///
/// [`Index::apply`] costs what the object costs, whatever else is held; only the end of a list ([`Change::Listed`]) walks all
/// objects of its kind. A complete list is mark and sweep: what was not named between [`Change::Listing`] and
/// [`Change::Listed`] is deleted by the latter and not a moment earlier, and a list that is cut off and begins again starts over.
#[derive(Debug, Default)]
pub struct Index {
    services: Held<Arc<Service>>,
    foreign: Held<Arc<Service>>,
    slices: Slices,
    cidrs: Held<ServiceCidr>,
    /// What is in the pools that our own load balancer hands out; all else about them is its own affair.
    pools: Held<Vec<AddressRange>>,
    /// Never taken away again: losing sight of our Node must not change a rule (kube-proxy 6.6: deletion is a log line).
    node: Option<Arc<Node>>,
    /// Whether we have been told which Node there is, or that there is none yet.
    node_listed: bool,
    pending: Dirty,
    problems: Vec<ObjectProblem>,
}

/// What changed since the last [`Index::take_dirty`], in a form that makes a storm of changes cost one evaluation per Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services of which the object or a slice changed, came or went. The value is the oldest
    /// [`EndpointSlice::trigger_time`] among the changed slices (nanoseconds since 1970): where the network programming latency
    /// of the Service starts. None is noted before [`Index::is_complete`], when every slice is news to us but to nobody else.
    pub services: HashMap<ServiceKey, Option<i64>>,
    /// Another proxy's Services whose ClusterIPs came, went or changed.
    pub foreign: HashSet<ServiceKey>,
    /// Our Node changed.
    pub node: bool,
    /// The set of ServiceCIDRs changed.
    pub service_cidrs: bool,
    /// What is in our pools changed.
    pub pools: bool,
}

/// A [`Problem`] and the object that has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectProblem {
    /// Kind of the object.
    pub kind: Kind,
    /// The object.
    pub key: ObjectKey,
    /// What is wrong with it.
    pub problem: Problem,
}

impl Index {
    /// Folds in one change. A change that makes no difference to rules, DNS or status marks nothing.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Listing(kind) => {
                if let Some(sweep) = self.sweep(kind) {
                    sweep.begin();
                }
            }
            Change::Applied(Object::Service(service)) => self.apply_service(*service),
            Change::Applied(Object::ForeignService(service)) => self.apply_foreign(*service),
            Change::Applied(Object::EndpointSlice(slice)) => self.apply_slice(*slice),
            Change::Applied(Object::Node(node)) => self.apply_node(*node),
            Change::Applied(Object::ServiceCidr(cidr)) => self.apply_cidr(*cidr),
            Change::Applied(Object::AddressPool(pool)) => self.apply_pool(*pool),
            // The load balancer's, who keeps them itself.
            Change::Applied(Object::Peer(_) | Object::Namespace(_) | Object::Advertisement(_)) => {}
            Change::Deleted(kind, key) => self.delete(kind, &key),
            Change::Listed(kind) => self.listed(kind),
            Change::Together(changes) => changes.into_iter().for_each(|change| self.apply(change)),
            // A mark is about the stream, not about objects: the sync loop keeps it until the commit that includes it.
            Change::Mark(_) => {}
        }
    }

    /// What changed since the last call.
    #[must_use]
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.pending)
    }

    /// Something has changed since the last [`Index::take_dirty`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Problems not reported before. One that an object had already when it was last applied is not told again, so a relist
    /// is silent. Foreign Services are not examined: their faults are another proxy's to report.
    #[must_use]
    pub fn take_problems(&mut self) -> Vec<ObjectProblem> {
        std::mem::take(&mut self.problems)
    }

    /// Services and EndpointSlices have each been listed completely at least once: only now may anything be removed from the kernel.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.services.sweep.listed() && self.slices.sweep.listed()
    }

    /// Everything else has been listed as well: our Node, the ServiceCIDRs and other proxies' Services. Without them rules would be
    /// wrong in the meantime: NodePorts open everywhere, nobody known as a pod, other proxies' ClusterIPs dropped.
    #[must_use]
    pub fn is_informed(&self) -> bool {
        self.node_listed && self.foreign.sweep.listed() && self.cidrs.sweep.listed()
    }

    /// The IPAddressPools have been listed, or the source has said that there are none.
    #[must_use]
    pub fn knows_pools(&self) -> bool {
        self.pools.sweep.listed()
    }

    /// One Service that is ours to serve.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All Services that are ours to serve, in no particular order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// One of another proxy's Services.
    #[must_use]
    pub fn foreign_service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.foreign.get(key)
    }

    /// All of another proxy's Services, in no particular order.
    pub fn foreign_services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.foreign.values()
    }

    /// The slices of a Service by ascending key, whether or not the Service itself is known.
    pub fn slices(&self, service: &ServiceKey) -> std::slice::Iter<'_, EndpointSlice> {
        self.slices.of(service).iter()
    }

    /// Number of slices held.
    #[must_use]
    pub fn slice_count(&self) -> usize {
        self.slices.len()
    }

    /// Our Node, as last seen.
    #[must_use]
    pub fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The ServiceCIDRs, in no particular order.
    pub fn service_cidrs(&self) -> impl ExactSizeIterator<Item = &ServiceCidr> {
        self.cidrs.values()
    }

    /// What is in each IPAddressPool, in no particular order.
    pub fn pools(&self) -> impl Iterator<Item = (&ObjectKey, &[AddressRange])> {
        self.pools.iter().map(|(key, ranges)| (key, &**ranges))
    }

    /// `None` for the Node, which is never swept away, and for what is not held here.
    fn sweep(&mut self, kind: Kind) -> Option<&mut Sweep> {
        match kind {
            Kind::Service => Some(&mut self.services.sweep),
            Kind::ForeignService => Some(&mut self.foreign.sweep),
            Kind::EndpointSlice => Some(&mut self.slices.sweep),
            Kind::ServiceCidr => Some(&mut self.cidrs.sweep),
            Kind::AddressPool => Some(&mut self.pools.sweep),
            Kind::Node | Kind::Peer | Kind::Namespace | Kind::Advertisement => None,
        }
    }

    fn apply_service(&mut self, service: Service) {
        let before = self.services.get(&service.key);
        let known = before.map_or(&[][..], |before| &before.problems);
        note_problems(&mut self.problems, Kind::Service, &service.key, known, &service.problems);
        if before.is_none_or(|before| !same::service(before, &service)) {
            self.pending.mark(&service.key, None);
        }
        self.services.insert(service.key.clone(), Arc::new(service));
    }

    fn apply_foreign(&mut self, service: Service) {
        let before = self.foreign.get(&service.key);
        if before.is_none_or(|before| before.cluster_ips != service.cluster_ips) {
            self.pending.foreign.insert(service.key.clone());
        }
        self.foreign.insert(service.key.clone(), Arc::new(service));
    }

    fn apply_slice(&mut self, slice: EndpointSlice) {
        let before = self.slices.get(&slice.key);
        let known = before.map_or(&[][..], |before| &before.problems);
        note_problems(&mut self.problems, Kind::EndpointSlice, &slice.key, known, &slice.problems);
        if before.is_none_or(|before| !same::slice(before, &slice)) {
            let left = before.map(|before| before.service.clone()).filter(|left| *left != slice.service);
            let news = slice.trigger_time.filter(|_| before.is_none_or(|before| before.trigger_time != slice.trigger_time));
            for service in left.iter().chain([&slice.service]) {
                self.mark_slice_change(service, news);
            }
        }
        self.slices.insert(slice);
    }

    fn apply_node(&mut self, node: Node) {
        let key = ObjectKey::new("", &node.name);
        let before = self.node.as_ref();
        let known = before.map_or(&[][..], |before| &before.problems);
        note_problems(&mut self.problems, Kind::Node, &key, known, &node.problems);
        self.pending.node |= before.is_none_or(|before| !same::node(before, &node));
        self.node = Some(Arc::new(node));
    }

    fn apply_cidr(&mut self, cidr: ServiceCidr) {
        let key = ObjectKey::new("", &cidr.name);
        let before = self.cidrs.get(&key);
        let known = before.map_or(&[][..], |before| &before.problems);
        note_problems(&mut self.problems, Kind::ServiceCidr, &key, known, &cidr.problems);
        self.pending.service_cidrs |= before.is_none_or(|before| before.cidrs != cidr.cidrs);
        self.cidrs.insert(key, cidr);
    }

    /// Problems are told by who hands out addresses, once in a cluster. A version that has any changes nothing: the VIPs are what they were.
    fn apply_pool(&mut self, pool: AddressPool) {
        let before = self.pools.get(&pool.key);
        let ranges = if pool.problems.is_empty() { pool.ranges } else { before.cloned().unwrap_or_default() };
        self.pending.pools |= before.map_or(&[][..], Vec::as_slice) != ranges;
        self.pools.insert(pool.key, ranges);
    }

    fn delete(&mut self, kind: Kind, key: &ObjectKey) {
        match kind {
            Kind::Service => {
                if self.services.remove(key).is_some() {
                    self.pending.mark(key, None);
                }
            }
            Kind::ForeignService => {
                if self.foreign.remove(key).is_some() {
                    self.pending.foreign.insert(key.clone());
                }
            }
            Kind::EndpointSlice => {
                if let Some(slice) = self.slices.remove(key) {
                    self.mark_slice_change(&slice.service, None);
                }
            }
            Kind::ServiceCidr => self.pending.service_cidrs |= self.cidrs.remove(key).is_some(),
            Kind::AddressPool => self.pending.pools |= self.pools.remove(key).is_some(),
            Kind::Node | Kind::Peer | Kind::Namespace | Kind::Advertisement => {}
        }
    }

    fn listed(&mut self, kind: Kind) {
        let gone = match kind {
            Kind::Service => self.services.unseen(),
            Kind::ForeignService => self.foreign.unseen(),
            Kind::EndpointSlice => self.slices.unseen(),
            Kind::ServiceCidr => self.cidrs.unseen(),
            Kind::AddressPool => self.pools.unseen(),
            Kind::Node | Kind::Peer | Kind::Namespace | Kind::Advertisement => Vec::new(),
        };
        for key in &gone {
            self.delete(kind, key);
        }
        match self.sweep(kind) {
            Some(sweep) => sweep.end(),
            None => self.node_listed |= kind == Kind::Node,
        }
    }

    /// Slices of a Service that is not there mean nothing until it comes, and then it marks itself.
    fn mark_slice_change(&mut self, service: &ServiceKey, trigger_time: Option<i64>) {
        if self.services.get(service).is_some() {
            let trigger_time = trigger_time.filter(|_| self.is_complete());
            self.pending.mark(service, trigger_time);
        }
    }
}

impl Dirty {
    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { services, foreign, node, service_cidrs, pools } = self;
        services.is_empty() && foreign.is_empty() && !node && !service_cidrs && !pools
    }

    fn mark(&mut self, service: &ServiceKey, trigger_time: Option<i64>) {
        if let Some(oldest) = self.services.get_mut(service) {
            *oldest = (*oldest).into_iter().chain(trigger_time).min();
        } else {
            self.services.insert(service.clone(), trigger_time);
        }
    }
}

/// Queues the problems that `known`, those of the object as it was held, does not have.
fn note_problems(queue: &mut Vec<ObjectProblem>, kind: Kind, key: &ObjectKey, known: &[Problem], found: &[Problem]) {
    let news = found.iter().filter(|problem| !known.contains(problem));
    queue.extend(news.map(|problem| ObjectProblem { kind, key: key.clone(), problem: problem.clone() }));
}
