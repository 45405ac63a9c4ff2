//! Staging and commit: what was asked for becomes what is.
//!
//! ```text
//! staged -> claims of the staged Services -> whose outcome changes by that? -> settle those, port by port -> Delta, notices
//! ```
//! Who gets what is known before the first port is settled, so that the settling of one Service never depends on another's.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Entry, PortEntry, ServiceTable, Staged, Unmet};
use crate::model::ServiceKey;
use crate::policy::{Desired, DesiredPort, Seniority};
use crate::table::claims::{Claim, Claimant};
use crate::table::refusal::Refusal;
use crate::table::slots::{BackendSet, SetChange};
use crate::table::types::{Backend, Frontend, FrontendAddress, FrontendKind, HealthCheck, Tenancy};
use crate::table::{Delta, NodeState, Notice, PortChange, Scope, ServicePort};

/// What one commit did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Committed {
    /// For the planes. Empty if nothing changed for them.
    pub delta: Delta,
    /// Notices that hold from now on, by Service.
    pub notices_raised: Vec<Notice>,
    /// Notices that held until now. One whose text changes (another holder, say) is cleared and raised.
    pub notices_cleared: Vec<Notice>,
    /// Services whose [`crate::table::HealthCheck`] came, went or changed. No plane has to do with it.
    pub health_checks: Vec<ServiceKey>,
    /// Services whose [`Tenancy`] came, went or changed. That is no plane's business either.
    pub tenancies: Vec<ServiceKey>,
}

/// A Service to settle: what it asks for.
#[derive(Default)]
struct Wanted {
    ports: Vec<WantedPort>,
    refused: Vec<Notice>,
}

struct WantedPort {
    claimant: Arc<Claimant>,
    desired: DesiredPort,
}

/// A Service port before and after, in the table or not.
struct Change {
    before: Option<Arc<ServicePort>>,
    after: Option<Arc<ServicePort>>,
    cluster: SetChange,
    local: SetChange,
}

// === Staging ===

impl ServiceTable {
    /// Stages a Service as policy wants it, `None` if it is gone.
    pub fn set_service(&mut self, key: ServiceKey, service: Option<(Desired, Seniority)>) {
        let service = service.map(|(desired, seniority)| (in_order(desired), seniority));
        self.staged.services.insert(key, service);
    }

    /// Stages the ClusterIPs of a Service that another proxy serves, none if it is gone.
    pub fn set_foreign(&mut self, key: ServiceKey, mut addresses: Vec<IpAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        self.staged.foreign.insert(key, addresses);
    }

    /// Stages how a Service's load balancer asks this node. Nearly all have nothing to ask, and cost nothing here.
    pub fn set_health_check(&mut self, key: &ServiceKey, check: Option<HealthCheck>) {
        let staged = &mut self.staged.health_checks;
        if check.is_some() || self.health_checks.contains_key(key) || staged.contains_key(key) {
            staged.insert(key.clone(), check);
        }
    }

    /// Stages what announcing a Service's VIPs takes to know. Nothing for nearly all, as above.
    pub fn set_tenancy(&mut self, key: &ServiceKey, tenancy: Option<Tenancy>) {
        let staged = &mut self.staged.tenancies;
        if tenancy.is_some() || self.tenancies.contains_key(key) || staged.contains_key(key) {
            staged.insert(key.clone(), tenancy.map(Arc::new));
        }
    }

    /// Stages the node's own state.
    pub fn set_node(&mut self, node: NodeState) {
        self.staged.node = Some(node);
    }
}

// === Commit ===

impl ServiceTable {
    /// Puts in force what is staged. Costs what was staged and the Services whose conflicts it decides otherwise, whatever the size
    /// of the table.
    ///
    /// A first fill of 250,000 backends makes a delta of 30 MB that no plane wants, since planes load first: commit every few
    /// hundred Services then, and drop the deltas.
    pub fn commit(&mut self) -> Committed {
        let Staged { services, foreign, health_checks, tenancies, node } = std::mem::take(&mut self.staged);
        for (key, addresses) in foreign {
            self.own_foreign(key, addresses);
        }
        let mut work = BTreeMap::new();
        for (key, service) in services {
            let wanted = self.wanted(&key, service);
            self.stake(&key, &wanted);
            work.insert(key, wanted);
        }
        for key in self.claims.settle(&self.addresses.take_reowned()) {
            work.entry(key).or_insert_with_key(|key| self.services.get(key).map(Entry::wanted).unwrap_or_default());
        }

        let mut committed = Committed::default();
        for (key, wanted) in work {
            self.settle(key, wanted, &mut committed);
        }
        committed.health_checks = settle_aside(&mut self.health_checks, health_checks);
        committed.tenancies = settle_aside(&mut self.tenancies, tenancies);
        committed.delta.addresses = self.addresses.take_changes();
        committed.delta.hairpins = self.hairpins.take_changes();
        if let Some(node) = node.filter(|node| *node != *self.node) {
            let before = std::mem::replace(&mut self.node, Arc::new(node));
            committed.delta.node = Some((before, self.node.clone()));
        }
        if !committed.delta.is_empty() {
            self.generation += 1;
        }
        committed.delta.generation = self.generation;
        committed
    }

    /// Generation of a commit that changes something.
    fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    fn own_foreign(&mut self, key: ServiceKey, addresses: Vec<IpAddr>) {
        for &ip in &addresses {
            self.addresses.own(ip, &key, true);
        }
        for ip in self.foreign.remove(&key).into_iter().flatten() {
            self.addresses.disown(ip, &key, true);
        }
        if !addresses.is_empty() {
            self.foreign.insert(key, addresses);
        }
    }

    /// Gives each port its claimant, the present one if it is the same.
    fn wanted(&self, key: &ServiceKey, service: Option<(Desired, Seniority)>) -> Wanted {
        let Some((Desired { ports, notices }, seniority)) = service else { return Wanted::default() };
        let present = self.services.get(key).map_or(&[][..], |entry| &entry.ports);
        let claimant = |desired: &DesiredPort| {
            let rank = present.binary_search_by(|entry| entry.port.id.cmp(&desired.id)).ok()?;
            let claimant = &present[rank].claimant;
            (claimant.seniority == seniority).then(|| claimant.clone())
        };
        let port = |desired: DesiredPort| {
            let claimant = claimant(&desired)
                .unwrap_or_else(|| Arc::new(Claimant { seniority: seniority.clone(), port: desired.id.clone() }));
            WantedPort { claimant, desired }
        };
        Wanted { ports: ports.into_iter().map(port).collect(), refused: notices }
    }

    /// Brings the claims of one Service up to date.
    fn stake(&mut self, key: &ServiceKey, wanted: &Wanted) {
        let present = self.services.get(key).map_or(&[][..], |entry| &entry.ports);
        if asks_the_same(present, wanted) {
            return;
        }
        let old = present.iter().flat_map(|entry| claims(&entry.claimant, entry.frontends()));
        let mut old: Vec<(FrontendAddress, Claim)> = old.collect();
        let new = wanted.ports.iter().flat_map(|port| claims(&port.claimant, &port.desired.frontends));
        let mut new: Vec<(FrontendAddress, Claim)> = new.collect();
        old.sort_unstable();
        new.sort_unstable();
        // First what comes: an address that moves between two ports of the Service is its ClusterIP throughout.
        for (address, claim) in new.iter().filter(|claim| old.binary_search(claim).is_err()) {
            self.claims.stake(*address, claim.clone());
            if let Some(ip) = address.ip().filter(|_| claim.kind == FrontendKind::ClusterIp) {
                self.addresses.own(ip, key, false);
            }
        }
        for (address, claim) in old.iter().filter(|claim| new.binary_search(claim).is_err()) {
            self.claims.withdraw(*address, claim);
            if let Some(ip) = address.ip().filter(|_| claim.kind == FrontendKind::ClusterIp) {
                self.addresses.disown(ip, key, false);
            }
        }
    }

    /// Decides one Service, all claims being known.
    fn settle(&mut self, key: ServiceKey, wanted: Wanted, committed: &mut Committed) {
        let before = self.services.remove(&key).unwrap_or_default();
        let mut after =
            Entry { notices: wanted.refused.clone(), refused: wanted.refused, ports: Vec::with_capacity(wanted.ports.len()) };
        let mut present = before.ports.into_iter().peekable();
        for wanted in wanted.ports {
            while let Some(gone) = next_below(&mut present, &wanted) {
                self.retire(&gone.port, committed);
            }
            let present = present.next_if(|entry| entry.port.id == wanted.desired.id);
            let (entry, change) = self.settle_port(present, wanted, &mut after.notices);
            self.record(change, committed);
            after.ports.push(entry);
        }
        for gone in present {
            self.retire(&gone.port, committed);
        }

        after.notices.sort_unstable();
        after.notices.dedup();
        let raised = after.notices.iter().filter(|notice| before.notices.binary_search(notice).is_err());
        committed.notices_raised.extend(raised.cloned());
        let cleared = before.notices.iter().filter(|notice| after.notices.binary_search(notice).is_err());
        committed.notices_cleared.extend(cleared.cloned());
        if !after.ports.is_empty() || !after.notices.is_empty() {
            self.services.insert(key, after);
        }
    }

    /// What a port gets of what it wants, and what changes by that.
    fn settle_port(&self, present: Option<PortEntry>, wanted: WantedPort, notices: &mut Vec<Notice>) -> (PortEntry, Change) {
        let WantedPort { claimant, desired } = wanted;
        let DesiredPort { id, frontends, cluster, local, any_usable, affinity, serving } = desired;
        let mut unmet = Unmet::default();
        let mut held = Vec::with_capacity(frontends.len());
        for frontend in frontends {
            match self.refusal(&frontend, &claimant) {
                None => held.push(frontend),
                Some(refusal) => {
                    notices.push(refusal.notice(&frontend, &claimant));
                    unmet.frontends.push(frontend);
                }
            }
        }

        let before = present.map(|entry| entry.port);
        let update = |scope, wanted: Vec<Backend>, unused: &mut Vec<Backend>| {
            let empty = BackendSet::default();
            let set = before.as_ref().map_or(&empty, |port| port.set(scope));
            if held.iter().any(|frontend| frontend.uses(scope)) {
                set.updated(&wanted, self.next_generation())
            } else {
                *unused = wanted;
                set.updated(&[], self.next_generation())
            }
        };
        let cluster = update(Scope::Cluster, cluster, &mut unmet.cluster);
        let local = update(Scope::Local, local, &mut unmet.local);

        let (cluster_set, local_set) = (cluster.set.clone(), local.set.clone());
        let after = ServicePort { id, frontends: held, cluster: cluster_set, local: local_set, any_usable, affinity, serving };
        // An equal port stays the same allocation: readers and planes may compare pointers.
        let after = match &before {
            Some(before) if **before == after => before.clone(),
            _ => Arc::new(after),
        };
        let unmet = (unmet != Unmet::default()).then(|| Box::new(unmet));
        (PortEntry { claimant, port: after.clone(), unmet }, Change { before, after: Some(after), cluster, local })
    }

    /// Why this port does not get this frontend, if it does not.
    fn refusal(&self, frontend: &Frontend, claimant: &Claimant) -> Option<Refusal<'_>> {
        if !self.is_open(&frontend.address, frontend.kind) {
            return frontend.address.ip().and_then(|ip| self.cluster_ip_of(ip)).map(Refusal::ClusterIpOf);
        }
        let strongest = self.claims.strongest(&frontend.address)?;
        (strongest.claimant.port != claimant.port).then_some(Refusal::Held(strongest))
    }

    fn retire(&mut self, port: &Arc<ServicePort>, committed: &mut Committed) {
        let cluster = port.cluster.updated(&[], self.next_generation());
        let local = port.local.updated(&[], self.next_generation());
        self.record(Change { before: Some(port.clone()), after: None, cluster, local }, committed);
    }

    /// Enters a change into everything that follows from the ports.
    fn record(&mut self, change: Change, committed: &mut Committed) {
        let Change { before, after, cluster, local } = change;
        let in_table = |port: &Arc<ServicePort>| !port.frontends.is_empty();
        let (before, after) = (before.filter(in_table), after.filter(in_table));
        match (&before, &after) {
            (None, None) => return,
            (Some(before), Some(after)) if Arc::ptr_eq(before, after) => return,
            (Some(before), None) => self.ports.remove(&before.id),
            (_, Some(after)) => self.ports.insert(after.id.clone(), after.clone()),
        };
        // Endpoints change far more often than addresses do.
        if !uses(before.as_ref()).eq(uses(after.as_ref())) {
            for (ip, kind) in uses(after.as_ref()) {
                self.addresses.hold(ip, kind);
            }
            for (ip, kind) in uses(before.as_ref()) {
                self.addresses.release(ip, kind);
            }
        }
        for &(ip, came) in cluster.local.iter().chain(&local.local) {
            self.hairpins.count(ip, came);
        }
        committed.delta.ports.push(PortChange { before, after, cluster: cluster.delta, local: local.delta });
    }
}

// === impl Entry ===

impl Entry {
    /// What the Service asks for, put together again. Only for a Service whose conflicts are decided anew without being staged.
    fn wanted(&self) -> Wanted {
        Wanted { ports: self.ports.iter().map(PortEntry::wanted).collect(), refused: self.refused.clone() }
    }
}

impl PortEntry {
    /// The frontends it asks for: those it has, then those it has not.
    fn frontends(&self) -> impl Iterator<Item = &Frontend> {
        self.port.frontends.iter().chain(self.unmet.iter().flat_map(|unmet| &unmet.frontends))
    }

    fn wanted(&self) -> WantedPort {
        let ServicePort { id, frontends: _, cluster, local, any_usable, affinity, serving } = &*self.port;
        let mut frontends: Vec<Frontend> = self.frontends().cloned().collect();
        frontends.sort_unstable_by_key(|frontend| frontend.address);
        let unmet = self.unmet.as_deref();
        let backends = |set: &BackendSet, unused: Option<&Vec<Backend>>| match unused {
            Some(unused) if !unused.is_empty() => unused.clone(),
            _ => set.sorted().collect(),
        };
        let desired = DesiredPort {
            id: id.clone(),
            frontends,
            cluster: backends(cluster, unmet.map(|unmet| &unmet.cluster)),
            local: backends(local, unmet.map(|unmet| &unmet.local)),
            any_usable: *any_usable,
            affinity: *affinity,
            serving: serving.clone(),
        };
        WantedPort { claimant: self.claimant.clone(), desired }
    }
}

/// Puts in force what no plane has to do with; names the Services for which it makes a difference.
fn settle_aside<T: PartialEq>(in_force: &mut HashMap<ServiceKey, T>, staged: BTreeMap<ServiceKey, Option<T>>) -> Vec<ServiceKey> {
    let mut changed = Vec::new();
    for (key, value) in staged {
        if in_force.get(&key) != value.as_ref() {
            match value {
                Some(value) => in_force.insert(key.clone(), value),
                None => in_force.remove(&key),
            };
            changed.push(key);
        }
    }
    changed
}

/// Policy promises this order. It is made sure here because an array merged out of order would be a wrong rule in the kernel;
/// looking costs nothing where the promise is kept.
fn in_order(mut desired: Desired) -> Desired {
    sort_unique(&mut desired.ports, |a, b| a.id.cmp(&b.id));
    for port in &mut desired.ports {
        sort_unique(&mut port.frontends, |a, b| a.address.cmp(&b.address));
        sort_unique(&mut port.cluster, |a, b| a.address.cmp(&b.address));
        sort_unique(&mut port.local, |a, b| a.address.cmp(&b.address));
    }
    desired
}

/// Sorts; of equals the first stays.
fn sort_unique<T>(list: &mut Vec<T>, order: impl Fn(&T, &T) -> Ordering) {
    if !list.is_sorted_by(|a, b| order(a, b).is_lt()) {
        list.sort_by(&order);
        list.dedup_by(|later, first| order(later, first).is_eq());
    }
}

/// Nothing to claim and nothing to withdraw. The usual case: it was endpoints that changed.
fn asks_the_same(present: &[PortEntry], wanted: &Wanted) -> bool {
    let same = |(entry, port): (&PortEntry, &WantedPort)| {
        let asked = |frontend: &Frontend| (frontend.address, frontend.kind);
        Arc::ptr_eq(&entry.claimant, &port.claimant) && entry.frontends().map(asked).eq(port.desired.frontends.iter().map(asked))
    };
    present.len() == wanted.ports.len() && present.iter().zip(&wanted.ports).all(same)
}

fn claims<'a>(
    claimant: &'a Arc<Claimant>,
    frontends: impl IntoIterator<Item = &'a Frontend> + 'a,
) -> impl Iterator<Item = (FrontendAddress, Claim)> + 'a {
    let claim = |frontend: &Frontend| (frontend.address, Claim { kind: frontend.kind, claimant: claimant.clone() });
    frontends.into_iter().map(claim)
}

fn next_below(present: &mut Peekable<impl Iterator<Item = PortEntry>>, wanted: &WantedPort) -> Option<PortEntry> {
    present.next_if(|entry| entry.port.id < wanted.desired.id)
}

/// The addresses of its frontends, and what each is used as.
fn uses(port: Option<&Arc<ServicePort>>) -> impl Iterator<Item = (IpAddr, FrontendKind)> {
    let frontends = port.into_iter().flat_map(|port| &port.frontends);
    frontends.filter_map(|frontend| Some((frontend.address.ip()?, frontend.kind)))
}
