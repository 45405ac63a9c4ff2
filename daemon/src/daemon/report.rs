//! What the loop has to say to people: warnings in the log, Events on the objects. One line per matter, not per sync.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::misgivings::News;
use crate::dataplane::{Commit, Damage, PlaneError};
use crate::http_server::BindError;
use crate::model::{Index, ObjectKey, ObjectProblem, Problem, ServiceKey};
use crate::source::Kind;
use crate::source::decode::without_places;
use crate::source::kube::{EventSink, EventSubject, Remark, Severity};
use crate::table::Notice;

/// A commit that fails once is tried again at once, and nobody need hear of it; from so many in a row on it is an Event.
const FAILURES_WORTH_AN_EVENT: u32 = 3;
/// In an outage that lasts, the Event is repeated after this, which is when client-go's recorder would do it.
const EVENT_AGAIN: Duration = Duration::from_secs(30 * 60);

/// Cheap to clone; shared by the loop and whoever else has something to say.
#[derive(Clone)]
pub struct Reporter {
    events: Option<EventSink>,
    /// Our Node, on which Events about the daemon itself are.
    node: Arc<str>,
    commits: Arc<Mutex<FailedCommits>>,
    /// What was told to be replaced.
    replaced: Arc<Mutex<BTreeSet<String>>>,
}

/// Commits that failed since the last one that succeeded.
#[derive(Debug, Default)]
struct FailedCommits {
    count: u32,
    /// When an Event last said so.
    said: Option<Instant>,
}

impl Default for Reporter {
    /// A reporter that only logs.
    fn default() -> Self {
        Self { events: None, node: "".into(), commits: Arc::default(), replaced: Arc::default() }
    }
}

impl Reporter {
    /// A reporter that also writes Events, those about the daemon itself on this Node.
    #[must_use]
    pub fn with_events(events: EventSink, node: Arc<str>) -> Self {
        Self { events: Some(events), node, ..Self::default() }
    }

    /// The daemon has begun, in kube-proxy's words.
    pub(crate) fn starting(&self) {
        let event = Event { severity: Severity::Normal, reason: "Starting", action: "StartKubeProxy" };
        self.say(self.own_node(), event, String::new());
    }

    /// A server of ours cannot listen. It tries again until it can, or is the daemon's end (`bindAddressHardFail`). `reason` is
    /// kube-proxy's for the same.
    pub(crate) fn server_failed(&self, server: &str, reason: &'static str, error: &BindError, hard_fail: bool) {
        let text = with_causes(error);
        if hard_fail {
            tracing::error!("the {server} server does not listen, so the daemon ends, as bindAddressHardFail wants it: {text}");
        } else {
            tracing::warn!("the {server} server does not listen, trying again until it can: {text}");
        }
        let event = Event { severity: Severity::Warning, reason, action: "StartKubeproxy" };
        self.say(self.own_node(), event, format!("starting {server} server failed: {error}"));
    }

    /// This node, which was given back to kube-proxy, has neither a kube-proxy nor rules of one that serve any more.
    pub(super) fn returned(&self) {
        let text = "kube-proxy is gone from this node, with all of its rules that served, so nobody did: sheave serves it again";
        tracing::warn!("{text}");
        let event = Event { severity: Severity::Warning, reason: "KubeProxyGone", action: "Serve" };
        self.say(self.own_node(), event, text.to_owned());
    }

    /// What was kube-proxy's has come back after it was removed. It is left alone from now on.
    pub(crate) fn kube_proxy_out_of_sight(&self, found: &str) {
        let text = format!(
            "kube-proxy's rules were removed twice and are there again ({found}): a kube-proxy that cannot be seen from here writes them; \
             they stay, sheave's come first; stop it, then run `kube-proxy --cleanup`, or restart sheave"
        );
        tracing::warn!("{text}");
        let event = Event { severity: Severity::Warning, reason: "KubeProxyRuns", action: "Adopt" };
        self.say(self.own_node(), event, text);
    }

    /// Somebody else drops what is forwarded from and to pods, and has not done so before. The log has it already.
    pub(super) fn not_forwarded(&self, text: &str) {
        self.event(self.own_node(), "ForwardPolicyDrop", "Forward", text.to_owned());
    }

    /// A server of ours listens that could not.
    pub(crate) fn server_listens(&self, server: &str, address: SocketAddr) {
        tracing::info!("the {server} server listens on {address} at last");
    }

    /// A healthCheckNodePort is answered that could not be.
    pub(crate) fn service_check_listens(&self, key: &ServiceKey, address: SocketAddr) {
        tracing::info!(object = %key, "healthCheckNodePort is answered on {address} at last");
    }

    /// Kernel settings that were asked for and cannot be made, each with the reason.
    pub(super) fn settings_missed(&self, missed: &[String]) {
        let event = Event { severity: Severity::Warning, reason: "FailedToSetKernelSettings", action: "StartKubeProxy" };
        self.say(self.own_node(), event, missed.join("; "));
    }

    /// A healthCheckNodePort cannot be answered.
    pub(crate) fn service_check_failed(&self, key: &ServiceKey, uid: &str, error: &BindError) {
        tracing::warn!(object = %key, "healthCheckNodePort is not answered, trying again until it can be: {}", with_causes(error));
        let subject = EventSubject { uid: some_uid(uid), ..other("v1", "Service", key.clone()) };
        let event = Event { severity: Severity::Warning, reason: "FailedToStartServiceHealthcheck", action: "Listen" };
        self.say(subject, event, format!("node {} failed to start healthcheck: {error}", self.node));
    }

    /// Fields left out of objects. The index hands out each once. Of an object only so many have an Event: one of each field before the
    /// second of any.
    pub(super) fn problems(&self, found: Vec<ObjectProblem>, index: &Index) {
        for ObjectProblem { kind, key, problem: Problem { field, reason } } in &found {
            tracing::warn!(object = %key, kind = %kind, field, "{reason}");
        }
        for ObjectProblem { kind, key, problem: Problem { field, reason } } in in_turn(found) {
            let subject = match kind {
                Kind::Service | Kind::ForeignService => service(&key, index),
                Kind::EndpointSlice => other("discovery.k8s.io/v1", "EndpointSlice", key),
                Kind::Node | Kind::Peer => node(key.name()),
                Kind::ServiceCidr => other("networking.k8s.io/v1", "ServiceCIDR", key),
                Kind::Namespace => other("v1", "Namespace", key),
                Kind::AddressPool => other("metallb.io/v1beta1", "IPAddressPool", key),
                Kind::Advertisement => other("metallb.io/v1beta1", "L2Advertisement", key),
            };
            self.event(subject, "InvalidField", "Ignored", format!("{field}: {reason}"));
        }
    }

    /// Conflicts and refusals that began or ended.
    pub(super) fn notices(&self, raised: Vec<Notice>, mut cleared: Vec<Notice>, index: &Index) {
        cleared.retain(|before| !raised.iter().any(|now| now.is_but_moved(before)));
        self.begun_and_ended(raised, cleared, "NotServed", index);
    }

    /// What a Service takes from somebody by being served.
    pub(super) fn misgivings(&self, News { raised, cleared }: News, index: &Index) {
        self.begun_and_ended(raised, cleared, "Served", index);
    }

    fn begun_and_ended(&self, raised: Vec<Notice>, cleared: Vec<Notice>, action: &'static str, index: &Index) {
        for Notice { service: key, reason, message, .. } in raised {
            tracing::warn!(object = %key, reason, "{message}");
            self.event(service(&key, index), reason, action, message);
        }
        for Notice { service: key, reason, message, .. } in cleared {
            tracing::info!(object = %key, reason, "no longer: {message}");
        }
    }

    /// A commit went well.
    pub(super) fn commit_succeeded(&self) {
        let FailedCommits { count, said } = std::mem::take(&mut *self.commits());
        if count > 0 {
            tracing::info!("the kernel takes our commits again");
        }
        if said.is_some() {
            let event = Event { severity: Severity::Normal, reason: "SyncedProxyRules", action: "SyncProxyRules" };
            self.say(self.own_node(), event, "the kernel takes our commits again".to_owned());
        }
    }

    /// What somebody else had made under our names, each once.
    pub(super) fn replaced(&self, commit: &Commit) {
        let mut said = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        for what in &commit.replaced {
            if said.insert(what.clone()) {
                tracing::warn!("somebody else made what has a name of ours: {what}; it is replaced");
            }
        }
    }

    /// Service ports that do not fit into the kernel, and those that do at last. The plane tells each change once.
    pub(super) fn fitting(&self, commit: &Commit, index: &Index) {
        for (port, reason) in &commit.spoiled {
            tracing::warn!(object = %port.service, port = %port, "not programmed: {reason}");
            self.event(service(&port.service, index), "NotProgrammed", "NotServed", format!("{port}: {reason}"));
        }
        for port in &commit.recovered {
            tracing::info!(object = %port.service, port = %port, "programmed: there is room for it now");
        }
    }

    /// A change was refused; the whole table is written at once.
    pub(super) fn refused(&self, plane: &str, error: &PlaneError) {
        tracing::warn!(plane, "a change was refused, the whole table is written: {}", with_causes(error));
    }

    /// A commit failed at `now` and will be tried again: one error in the log for an outage, the rest at debug, and an Event on the
    /// Node if it goes on.
    pub(super) fn commit_failed(&self, plane: &str, error: &PlaneError, wait: Duration, now: Instant) {
        let text = with_causes(error);
        let mut commits = self.commits();
        commits.count = commits.count.saturating_add(1);
        let due = commits.said.is_none_or(|said| now.saturating_duration_since(said) >= EVENT_AGAIN);
        if commits.count >= FAILURES_WORTH_AN_EVENT && due {
            commits.said = Some(now);
            self.event(self.own_node(), "FailedToSyncProxyRules", "SyncProxyRules", text.clone());
        }
        if commits.count > 1 {
            tracing::debug!(plane, retry_ms = wait.as_millis(), "still failing: {text}");
        } else {
            tracing::error!(
                plane,
                retry_ms = wait.as_millis(),
                "the kernel keeps its last good rules, the whole table is tried again: {text}"
            );
        }
    }

    /// Somebody else's change was undone.
    pub(super) fn repaired(&self, damage: &Damage, commit: &Commit) {
        let what = match damage {
            Damage::Structure(what) => what.clone(),
            Damage::Elements(elements) => format!("{} elements changed by somebody else", elements.len()),
        };
        tracing::warn!(elements = commit.elements, transactions = commit.transactions, "table repaired: {what}");
    }
}

impl Reporter {
    fn event(&self, subject: EventSubject, reason: &'static str, action: &'static str, note: String) {
        self.say(subject, Event { severity: Severity::Warning, reason, action }, note);
    }

    fn say(&self, subject: EventSubject, event: Event, note: String) {
        if let Some(events) = &self.events {
            let Event { severity, reason, action } = event;
            events.say(Remark { subject, severity, reason, action, note });
        }
    }

    fn commits(&self) -> MutexGuard<'_, FailedCommits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own_node(&self) -> EventSubject {
        node(&self.node)
    }
}

/// The words of an Event that are the same each time.
#[derive(Clone, Copy)]
struct Event {
    severity: Severity,
    reason: &'static str,
    action: &'static str,
}

/// The first problem of each field of each object, then the second of each, and so on.
fn in_turn(mut found: Vec<ObjectProblem>) -> Vec<ObjectProblem> {
    let mut met = HashMap::new();
    found.sort_by_cached_key(|ObjectProblem { kind, key, problem }| {
        let turn = met.entry((*kind, key.clone(), without_places(&problem.field))).or_insert(0_usize);
        *turn += 1;
        *turn
    });
    found
}

fn service(key: &ServiceKey, index: &Index) -> EventSubject {
    let uid = index.service(key).and_then(|service| some_uid(&service.uid));
    EventSubject { uid, ..other("v1", "Service", key.clone()) }
}

/// A Node's Events carry its name as uid: that is what kubelet and kube-proxy write and what `kubectl describe node` looks for.
fn node(name: &str) -> EventSubject {
    EventSubject { uid: some_uid(name), ..other("v1", "Node", ObjectKey::new("", name)) }
}

fn some_uid(uid: &str) -> Option<String> {
    (!uid.is_empty()).then(|| uid.to_owned())
}

fn other(api_version: &'static str, kind: &'static str, key: ObjectKey) -> EventSubject {
    EventSubject { api_version, kind, key, uid: None }
}

/// An error with all its causes on one line. A cause that an error's own text names already is not told twice.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
