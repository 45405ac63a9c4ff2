//! What everybody but the sync loop reads: the state of each Service, replaced when it changes.
//!
//! Publishing costs the changed Services. A reader holds a lock for the clone of one pointer and reads an immutable value after
//! that, so neither a slow reader nor a reader of the whole holds up the loop.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};

use super::{Committed, HealthCheck, NodeState, Notice, ServicePort, ServiceTable, Tenancy};
use crate::model::ServiceKey;

/// The published state of all Services. Shared by reference; the sync loop writes, everybody reads.
#[derive(Debug)]
pub struct Published {
    shards: Box<[Mutex<Arc<Services>>]>,
    hasher: RandomState,
    generation: watch::Sender<u64>,
    node: watch::Sender<Arc<NodeState>>,
    followers: Mutex<Vec<Weak<Inbox>>>,
}

/// One Service as of its last change.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    /// Its name.
    pub key: ServiceKey,
    /// Generation of the table at which it was published. A change of notices alone is published under the present generation.
    pub generation: u64,
    /// Its ports that have a frontend, sorted by id.
    pub ports: Vec<Arc<ServicePort>>,
    /// What a person should know about it, sorted.
    pub notices: Vec<Notice>,
    /// How its load balancer asks this node, if it does.
    pub health_check: Option<HealthCheck>,
    /// What announcing its VIPs takes to know, if it has any.
    pub tenancy: Option<Arc<Tenancy>>,
}

/// Is told which Services changed, among those it wants to hear of. What it does not take in time is merged, so it never holds more
/// than there are Services.
#[derive(Debug)]
pub struct Follower {
    inbox: Arc<Inbox>,
}

struct Inbox {
    wants: Box<dyn Fn(&ServiceState) -> bool + Send + Sync>,
    changed: Mutex<BTreeSet<ServiceKey>>,
    filled: Notify,
}

/// A part of all Services, as it was at one moment.
#[derive(Clone, Debug)]
pub struct PublishedShard {
    /// Everything up to this generation is in it; what is being published right now may be, too.
    pub generation: u64,
    services: Arc<Services>,
}

type Services = HashMap<ServiceKey, Arc<ServiceState>>;

/// One Service on its way to the followers. What nobody else reads any more is freed with it, after all locks.
struct Replaced<'k> {
    key: &'k ServiceKey,
    before: Option<Arc<ServiceState>>,
    after: Option<Arc<ServiceState>>,
}

impl Published {
    /// At 50,000 Services a shard has 200: what a writer copies if a reader holds on to it (10 us), and what a reader of the whole
    /// sees at one moment.
    const SHARDS: usize = 1 << u8::BITS;

    /// Nothing yet, at generation 0.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: (0..Self::SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            generation: watch::Sender::new(0),
            node: watch::Sender::default(),
            followers: Mutex::default(),
        }
    }

    /// Publishes what a commit changed: its Services first, then the generation. Wakes subscribers if there is anything new,
    /// notices included. Followers hear of it last: who waits for the kernel to have what changed reads the generation then.
    ///
    /// Services without a frontend, a notice, a health check and a VIP are not published.
    pub fn publish(&self, committed: &Committed, table: &ServiceTable) {
        let Committed { delta, notices_raised, notices_cleared, health_checks, tenancies } = committed;
        let ports = delta.ports.iter().flat_map(|change| change.before.iter().chain(&change.after)).map(|port| &port.id.service);
        let notices = notices_raised.iter().chain(notices_cleared).map(|notice| &notice.service);
        let changed: BTreeSet<&ServiceKey> = ports.chain(notices).chain(health_checks).chain(tenancies).collect();
        if delta.node.is_some() {
            self.node.send_replace(table.node().clone());
        }
        let replaced: Vec<Replaced<'_>> =
            changed.iter().map(|&key| self.replace(key, ServiceState::of(key, table).map(Arc::new))).collect();
        if !delta.is_empty() || !changed.is_empty() {
            self.generation.send_replace(table.generation());
        }
        self.offer(&replaced);
    }

    /// The generation up to which everything is published.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Tells of every publication. The value is the generation, and may repeat where only notices changed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The node's own state, followed.
    #[must_use]
    pub fn node(&self) -> watch::Receiver<Arc<NodeState>> {
        self.node.subscribe()
    }

    /// Follows the Services that are wanted, were wanted before a change, or are wanted after it. It begins with all that are wanted
    /// now. Costs the writer one question for each changed Service.
    #[must_use]
    pub fn follow(&self, wants: impl Fn(&ServiceState) -> bool + Send + Sync + 'static) -> Follower {
        let inbox = Arc::new(Inbox { wants: Box::new(wants), changed: Mutex::default(), filled: Notify::new() });
        // Before the look at what there is: a change in between is told twice rather than never.
        let mut followers = lock(&self.followers);
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&inbox));
        drop(followers);
        for shard in self.shards() {
            shard.services().for_each(|state| inbox.offer(&state.key, None, Some(state)));
        }
        Follower { inbox }
    }

    /// One Service, if it has a frontend, a notice, a health check or a VIP.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<Arc<ServiceState>> {
        self.shard(key).get(key).cloned()
    }

    /// All Services, shard by shard. Each shard is of one moment; two shards may be of different ones, as their generations say.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = PublishedShard> {
        self.shards.iter().map(|shard| {
            let generation = self.generation();
            PublishedShard { generation, services: Arc::clone(&lock(shard)) }
        })
    }

    fn replace<'k>(&self, key: &'k ServiceKey, after: Option<Arc<ServiceState>>) -> Replaced<'k> {
        let mut shard = self.shard(key);
        let services = Arc::make_mut(&mut shard);
        let before = match &after {
            Some(state) => services.insert(key.clone(), Arc::clone(state)),
            None => services.remove(key),
        };
        Replaced { key, before, after }
    }

    fn offer(&self, replaced: &[Replaced<'_>]) {
        for follower in lock(&self.followers).iter().filter_map(Weak::upgrade) {
            for Replaced { key, before, after } in replaced {
                follower.offer(key, before.as_deref(), after.as_deref());
            }
        }
    }

    fn shard(&self, key: &ServiceKey) -> MutexGuard<'_, Arc<Services>> {
        let [shard, ..] = self.hasher.hash_one(key).to_ne_bytes();
        lock(&self.shards[usize::from(shard)])
    }
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

impl ServiceState {
    fn of(key: &ServiceKey, table: &ServiceTable) -> Option<Self> {
        let ports: Vec<_> = table.ports_of(key).cloned().collect();
        let notices = table.notices_of(key).to_vec();
        let health_check = table.health_check_of(key).cloned();
        let tenancy = table.tenancy_of(key).cloned();
        let anything = !ports.is_empty() || !notices.is_empty() || health_check.is_some() || tenancy.is_some();
        anything.then(|| Self { key: key.clone(), generation: table.generation(), ports, notices, health_check, tenancy })
    }
}

impl PublishedShard {
    /// The Services, in no particular order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<ServiceState>> {
        self.services.values()
    }
}

impl Follower {
    /// Takes the names of those that have changed so far.
    #[must_use]
    pub fn take(&self) -> BTreeSet<ServiceKey> {
        std::mem::take(&mut *lock(&self.inbox.changed))
    }

    /// Waits until some of the wanted Services have changed, and takes their names. Dropping the future loses none.
    pub async fn changed(&self) -> BTreeSet<ServiceKey> {
        loop {
            let changed = self.take();
            if !changed.is_empty() {
                return changed;
            }
            self.inbox.filled.notified().await;
        }
    }
}

impl Inbox {
    fn offer(&self, key: &ServiceKey, before: Option<&ServiceState>, after: Option<&ServiceState>) {
        if before.into_iter().chain(after).any(|state| (self.wants)(state)) {
            lock(&self.changed).insert(key.clone());
            self.filled.notify_one();
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("changed", &self.changed).finish_non_exhaustive()
    }
}

/// A panic elsewhere leaves what is locked whole: it is changed by one insert, remove or take.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
