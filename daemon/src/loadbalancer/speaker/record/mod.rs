//! What a node that announces writes to the API server, and reads from it beside its watches: MetalLB's Events and ServiceL2Statuses, a
//! Lease while it holds a VIP, the Leases of others when it has to know whether they live, and the key of the membership.
//!
//! ```text
//! say ────────► Events on Services, as MetalLB's speaker            lease_of ──► another node's Lease, as far as it was seen
//! announced ──► ServiceL2Statuses of this node, and no others       api ───────► whether a fence can stand on the API
//! holds ──────► Lease `sheave-announcer-NODE`, with its claim       keys ──────► Secret `sheave-gossip`, followed
//! ```
//! Nothing of it is on the way of an answer on the LAN, and nothing of it is waited for: what cannot be written is tried again, told once
//! in the log and as long as it lasts in `/healthz`. A node that announces nothing writes nothing.

mod key;
mod lease;
mod own_node;
mod reach;
mod rivals;
mod statuses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use compact_str::CompactString;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::lease::{Keeper, Place};
use self::reach::Reach;
use self::rivals::Rivals;
use super::words::Word;
use crate::health::ProxyHealth;
use crate::loadbalancer::membership::Key;
use crate::loadbalancer::membership::fence::{Api, Claim};
use crate::metrics::SpeakerMetrics;
use crate::model::ServiceKey;
use crate::source::kube::{ApiServers, EventSink, EventSubject, Remark, Severity};

pub use self::rivals::Rival;

/// Who reports the Events: MetalLB's users look for them by this name.
const REPORTER: &str = "metallb-speaker";
/// What an Event says was done.
const ACTION: &str = "Announce";

/// Who writes, and where.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// Name of our Node.
    pub node: Arc<str>,
    /// Our own namespace, where the Leases and the Secret are.
    pub namespace: Arc<str>,
}

/// The services that a node announces, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The namespace of the pools, where ServiceL2Statuses are; `None`: there is no pool, or it is not known whose count.
    pub namespace: Option<Arc<str>>,
    /// Each Service, with the interfaces that it is restricted to; none: it is announced on all that can.
    pub services: BTreeMap<ServiceKey, BTreeSet<CompactString>>,
}

/// What the Lease of this node has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    claim: Claim,
    /// A VIP is held at all.
    any: bool,
}

/// Something that is wanted, counted, so that one can wait until it is so.
#[derive(Clone, Debug, Default)]
struct Wish<T> {
    number: u64,
    what: T,
}

/// Writes in the background, until the last clone is gone. Clones are the same one, and may be used from any runtime.
#[derive(Clone, Debug)]
pub struct Record {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    events: EventSink,
    announced: watch::Sender<Wish<Announced>>,
    announced_done: watch::Receiver<u64>,
    holding: watch::Sender<Wish<Option<Holding>>>,
    holding_done: watch::Receiver<u64>,
    closely: watch::Sender<bool>,
    api: watch::Receiver<Api>,
    keys: watch::Receiver<Vec<Key>>,
    rivals: Arc<Rivals>,
    /// Where requests are made: the runtime that [`Record::start`] was called on.
    runtime: Handle,
    /// Ends what runs in the background.
    _end: DropGuard,
}

impl Record {
    /// Begins, on the runtime of the caller, which needs IO and time; ends when cancelled, too. Nothing is asked for but the key.
    #[must_use]
    pub fn start(
        servers: Arc<ApiServers>,
        options: RecordOptions,
        health: Arc<ProxyHealth>,
        metrics: Arc<SpeakerMetrics>,
        cancel: &CancellationToken,
    ) -> Self {
        let RecordOptions { node, namespace } = options;
        // What was said goes out, even if nothing follows.
        let events = EventSink::reporting_as(REPORTER, servers.clone(), &node, cancel.clone());
        let cancel = cancel.child_token();
        let (announced, announced_done) = (watch::Sender::default(), watch::Sender::new(0));
        let (holding, holding_done) = (watch::Sender::default(), watch::Sender::new(0));
        let (closely, keys) = (watch::Sender::new(false), watch::Sender::new(Vec::new()));
        let reach = Arc::new(Reach::default());
        let rivals = Arc::new(Rivals::new(servers.clone(), namespace.clone(), reach.clone()));
        let shared = Shared {
            events,
            announced_done: announced_done.subscribe(),
            holding_done: holding_done.subscribe(),
            api: reach.subscribe(),
            keys: keys.subscribe(),
            rivals,
            runtime: Handle::current(),
            _end: cancel.clone().drop_guard(),
            announced,
            holding,
            closely,
        };
        let scribe = statuses::Scribe::new(
            (servers.clone(), node.clone()),
            (shared.announced.subscribe(), announced_done),
            (health.clone(), metrics.clone()),
        );
        let keeper = Keeper::new(
            Place { servers: servers.clone(), namespace: namespace.clone(), node },
            (shared.holding.subscribe(), holding_done, shared.closely.subscribe()),
            reach,
            (health.clone(), metrics),
        );
        let key = key::follow(servers, namespace, keys, health);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(scribe.run()));
        tokio::spawn(cancel.clone().run_until_cancelled_owned(keeper.run()));
        tokio::spawn(cancel.run_until_cancelled_owned(key));
        Self { shared: Arc::new(shared) }
    }

    /// Says it as an Event on a Service, some time soon: five a second, 256 wait, and what is said beyond them is in the log alone.
    pub fn say(&self, service: &ServiceKey, uid: &str, word: &Word) {
        let Word { reason, is_warning, text } = word;
        let uid = (!uid.is_empty()).then(|| uid.to_owned());
        let subject = EventSubject { api_version: "v1", kind: "Service", key: service.clone(), uid };
        let severity = if *is_warning { Severity::Warning } else { Severity::Normal };
        self.shared.events.say(Remark { subject, severity, reason, action: ACTION, note: text.clone() });
    }

    /// All that this node announces, from now on. The ServiceL2Statuses follow. Until the first call nothing is looked at; what an
    /// earlier life of this daemon has left, and this one does not announce, goes some seconds after it.
    pub fn announced(&self, all: Announced) {
        wish(&self.shared.announced, all);
    }

    /// What the Lease has to say from now on, and whether a VIP is held. It is written when that changes, and every 5 s while one is
    /// held; that none is held any more is written once.
    pub fn holds(&self, claim: Claim, any: bool) {
        wish(&self.shared.holding, Some(Holding { claim, any }));
    }

    /// Whether something depends on what [`Self::api`] says just now, as when most members are lost. Then the API is asked twice a second,
    /// and an answer is known after 1.5 s. At other times it is known by the renewals of the Lease, and where there are none, not at all.
    pub fn watch_closely(&self, closely: bool) {
        self.shared.closely.send_if_modified(|known| std::mem::replace(known, closely) != closely);
    }

    /// Whether Leases can be written and read, which is what a fence can stand on: a server that answers anything else, or refuses this,
    /// is none. Reachable until the first request fails.
    #[must_use]
    pub fn api(&self) -> watch::Receiver<Api> {
        self.shared.api.clone()
    }

    /// What the Lease of another node says. Asked at most every 250 ms; in between the answer is the last one. `None`: the API does not
    /// answer.
    pub async fn lease_of(&self, node: &str) -> Option<Rival> {
        let (rivals, node) = (self.shared.rivals.clone(), Arc::<str>::from(node));
        // The connection belongs to that runtime.
        self.shared.runtime.spawn(async move { rivals.look(node).await }).await.ok().flatten()
    }

    /// The keys of the membership: sealed is with the first, opened with any. None until the Secret was seen; never fewer than there
    /// were because it is gone.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<Vec<Key>> {
        self.shared.keys.clone()
    }

    /// Waits until everything is written that was wished for so far, for as long as that takes: bound it.
    pub async fn settled(&self) {
        let announced = self.shared.announced.borrow().number;
        let holding = self.shared.holding.borrow().number;
        let (mut statuses, mut lease) = (self.shared.announced_done.clone(), self.shared.holding_done.clone());
        // A task that is gone writes nothing more.
        let _ = statuses.wait_for(|done| *done >= announced).await;
        let _ = lease.wait_for(|done| *done >= holding).await;
    }
}

/// Wishes for it, unless that is what was wished for last.
fn wish<T: PartialEq>(place: &watch::Sender<Wish<T>>, what: T) {
    place.send_if_modified(|known| {
        // The first one is one, even if it is for nothing.
        let news = known.number == 0 || known.what != what;
        if news {
            *known = Wish { number: known.number + 1, what };
        }
        news
    });
}
