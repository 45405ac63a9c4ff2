//! What everybody but the sync loop reads: the state of each Service, replaced when it changes.
//!
//! Publishing costs the changed Services. A reader holds a lock for the clone of one pointer and reads an immutable value after
//! that, so neither a slow reader nor a reader of the whole holds up the loop.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Committed, Notice, ServicePort, ServiceTable};
use crate::model::ServiceKey;

/// The published state of all Services. Shared by reference; the sync loop writes, everybody reads.
#[derive(Debug)]
pub struct Published {
    shards: Box<[Mutex<Arc<Services>>]>,
    hasher: RandomState,
    generation: watch::Sender<u64>,
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
}

/// A part of all Services, as it was at one moment.
#[derive(Clone, Debug)]
pub struct PublishedShard {
    /// Everything up to this generation is in it; what is being published right now may be, too.
    pub generation: u64,
    services: Arc<Services>,
}

type Services = HashMap<ServiceKey, Arc<ServiceState>>;

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
        }
    }

    /// Publishes what a commit changed: its Services first, then the generation. Wakes subscribers if there is anything new,
    /// notices included.
    ///
    /// Services without a frontend and without a notice are not published.
    pub fn publish(&self, committed: &Committed, table: &ServiceTable) {
        let Committed { delta, notices_raised, notices_cleared } = committed;
        let ports = delta.ports.iter().flat_map(|change| change.before.iter().chain(&change.after)).map(|port| &port.id.service);
        let notices = notices_raised.iter().chain(notices_cleared).map(|notice| &notice.service);
        let changed: BTreeSet<&ServiceKey> = ports.chain(notices).collect();
        for &key in &changed {
            self.replace(key, ServiceState::of(key, table));
        }
        if !delta.is_empty() || !changed.is_empty() {
            self.generation.send_replace(table.generation());
        }
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

    /// One Service, if it has a frontend or a notice.
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

    fn replace(&self, key: &ServiceKey, state: Option<ServiceState>) {
        let state = state.map(Arc::new);
        let mut shard = self.shard(key);
        let services = Arc::make_mut(&mut shard);
        let replaced = match state {
            Some(state) => services.insert(key.clone(), state),
            None => services.remove(key),
        };
        drop(shard);
        // If nobody reads it any more it is freed here, after the lock.
        drop(replaced);
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
        let anything = !ports.is_empty() || !notices.is_empty();
        anything.then(|| Self { key: key.clone(), generation: table.generation(), ports, notices })
    }
}

impl PublishedShard {
    /// The Services, in no particular order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<ServiceState>> {
        self.services.values()
    }
}

/// A panic elsewhere leaves a shard whole: it is changed by one insert or remove.
fn lock(shard: &Mutex<Arc<Services>>) -> MutexGuard<'_, Arc<Services>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
