//! Which LoadBalancer Service gets which address: MetalLB's allocation, as a state machine without IO, clock or chance.
//!
//! ```text
//! pools, namespaces, Services, addresses in use elsewhere -> settle() -> statuses, counts, events
//! ```
//! The status of a Service is the only database. Nothing is decided before [`Allocator::complete`]; then what Services hold is taken
//! in first, oldest Service first, and only after that anything new is handed out. So a restart changes no status, and a second
//! allocator that is fed the same objects comes to the same.
//!
//! What a Service holds stays as long as the pools allow it. A wish that cannot be met changes nothing; one that can replaces the old
//! address by the new one in one step. Differences from MetalLB are in `docs/migration.md`.
//!
//! ```text
//! entry.rs    one Service and its status         pools.rs    which version of each pool is in force, and whom it admits
//! wish.rs     what it asks for                   space.rs    the free addresses of one pool
//! search.rs   which addresses it would get       ledger.rs   who holds what, and who may join
//! settle.rs   what is looked at, in which order  stock.rs    these three, kept in step
//! refusal.rs, words.rs, tidings.rs               why not; what is said of it; how it leaves here
//! ```

mod entry;
mod ledger;
mod pools;
mod refusal;
mod search;
mod settle;
mod space;
mod stock;
#[cfg(test)]
mod tests;
mod tidings;
mod wish;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;

use self::entry::Entry;
use self::settle::Before;
use self::stock::Stock;
use self::tidings::Told;
use crate::model::load_balancer::{AddressPool, NamespaceLabels};
use crate::model::{ObjectKey, Service, ServiceKey};

pub use pools::Fault;
pub use tidings::{Event, PoolReport, Reason, Serving, Settled, StatusChange, Subject, WantedStatus};

/// Addresses of one Service: one, or one of each family.
type Ips = SmallVec<[IpAddr; 2]>;

/// What does not change while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--lb-class`: only Services of this class; `None`: only those without one.
    pub class: Option<CompactString>,
}

/// Who has an address outside the load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// An address of this node.
    Node(Arc<str>),
    /// A host on the LAN answered for it: its link-layer address.
    Host([u8; 6]),
}

/// What a Service holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The pool, by name.
    pub pool: CompactString,
    /// One address, or one of each family, in the order of the status.
    pub addresses: SmallVec<[IpAddr; 2]>,
}

/// Pools, namespaces and Services in; statuses, counts and tidings out.
#[derive(Debug, Default)]
pub struct Allocator {
    options: Options,
    complete: bool,
    stock: Stock,
    /// Every Service that ever had to do with load balancers.
    entries: HashMap<ServiceKey, Entry>,
    /// To be looked at, whatever they hold.
    due: BTreeSet<ServiceKey>,
    /// All of them are.
    all_due: bool,
    /// Those that lack something which somebody else's release could give them.
    waiting: BTreeSet<ServiceKey>,
    /// Somebody released something, or shares it on other terms.
    freed: bool,
    /// What was said of pools, and how they stood then.
    told: BTreeMap<ObjectKey, (Told, Option<PoolReport>)>,
    /// Addresses in use elsewhere or pools changed: what is said of pools may be another.
    survey: bool,
}

// === Input ===

impl Allocator {
    /// One that knows of nothing, and decides nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Pools, namespaces, Services and addresses in use elsewhere have all been listed once. From now on [`Allocator::settle`] decides.
    pub fn complete(&mut self) {
        self.all_due |= !self.complete;
        self.complete = true;
    }

    /// A pool is there, or another version of it.
    pub fn set_pool(&mut self, pool: Arc<AddressPool>) {
        self.stock.pools.set(pool);
        self.survey = true;
    }

    /// A pool is gone.
    pub fn remove_pool(&mut self, key: &ObjectKey) {
        self.stock.pools.remove(key);
        self.survey = true;
    }

    /// A namespace is there, or has other labels.
    pub fn set_namespace(&mut self, namespace: NamespaceLabels) {
        let name = namespace.name.clone();
        if self.stock.pools.set_namespace(namespace) {
            self.due_in(&name);
        }
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.stock.pools.remove_namespace(name) {
            self.due_in(name);
        }
    }

    /// A Service is there, or another version of it. Those that are no matter of load balancers cost nothing.
    pub fn set_service(&mut self, service: Arc<Service>) {
        let key = service.key.clone();
        match self.entries.get_mut(&key) {
            Some(entry) if entry.service.uid == service.uid => self.freed |= entry.update(service),
            None if service.load_balancer.is_none() => return,
            _ => {
                // Another object of the same name has nothing of the first.
                self.remove_service(&key);
                self.entries.insert(key.clone(), Entry::new(service));
            }
        }
        self.due.insert(key);
    }

    /// A Service is gone, and what it held is free.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        self.due.remove(key);
        self.waiting.remove(key);
        if let Some(held) = self.entries.remove(key).and_then(|entry| entry.held) {
            self.stock.release(&held, key);
            self.freed = true;
        }
    }

    /// The address is in use outside the load balancer, or (`None`) no longer: it is not handed out, whatever the pools say. A Service
    /// whose status has it keeps it; one that it was only promised to, in a status not written yet, gets another. So an address may be
    /// probed between [`Allocator::settle`] and the write, and [`Allocator::outstanding`] says what is to be written then.
    pub fn set_occupant(&mut self, ip: IpAddr, occupant: Option<Occupant>) {
        if self.stock.set_occupant(ip, occupant) {
            self.survey = true;
            self.freed = true;
            self.due.extend(self.stock.users(ip).cloned());
        }
    }

    fn due_in(&mut self, namespace: &str) {
        self.due.extend(self.entries.keys().filter(|key| key.namespace() == namespace).cloned());
    }
}

// === Reading ===

impl Allocator {
    /// What a Service holds.
    #[must_use]
    pub fn held(&self, key: &ServiceKey) -> Option<&Placement> {
        self.entries.get(key)?.held.as_ref()
    }

    /// Whether the status of some Service has the address: then it has been handed out, and is announced.
    #[must_use]
    pub fn is_shown(&self, ip: IpAddr) -> bool {
        self.stock.users(ip).filter_map(|key| self.entries.get(key)).any(|entry| entry.status().contains(&ip))
    }

    /// What its status should say, if it says something else: for a write that failed, or had to wait.
    #[must_use]
    pub fn outstanding(&self, key: &ServiceKey) -> Option<StatusChange> {
        let entry = self.entries.get(key).filter(|_| self.complete)?;
        let wanted = entry.wanted(&self.options, self.stock.pools.is_empty())?;
        entry.differs(&wanted).then(|| StatusChange { service: key.clone(), uid: entry.service.uid.clone(), wanted })
    }
}

impl fmt::Display for Occupant {
    /// What it is: `an address of node a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "an address of node {name}"),
            Self::Host([a, b, c, d, e, g]) => write!(f, "answered for by {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
        }
    }
}
