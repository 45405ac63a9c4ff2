//! Events on objects: what `kubectl describe service` shows of us.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::connect::ApiServers;
use crate::model::ObjectKey;

/// Remarks that may wait. One more is dropped: an Event is a courtesy, and the log has it too.
const WAITING: usize = 256;
/// At most this many a second; client-go's default for everything it does.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// Of one object and reason so many notes have an Event each. What is said beyond them is in the log.
const NOTES_OF_ONE: usize = 16;
/// So many notes are known again when they are repeated. Then all begin anew, as after a restart.
const NOTES: usize = 512;
/// The reporting controller.
const CONTROLLER: &str = "sheave";

/// Posts Events (events.k8s.io/v1) in the background: bounded, rate limited, repetitions of a note counted in one Event's series.
#[derive(Clone, Debug)]
pub struct EventSink {
    remarks: Sender<Remark>,
}

/// Something to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// About what.
    pub subject: EventSubject,
    /// How bad it is.
    pub severity: Severity,
    /// One word in CamelCase, for machines: `InvalidField`.
    pub reason: &'static str,
    /// What was done, one word in CamelCase: `Ignored`.
    pub action: &'static str,
    /// For a person; cut at 1,024 bytes, the API's limit.
    pub note: String,
}

/// The object that an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventSubject {
    /// `v1`, `discovery.k8s.io/v1`.
    pub api_version: &'static str,
    /// `Service`, `EndpointSlice`, `Node`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid, where it is known; without it, `kubectl describe` does not find the Event.
    pub uid: Option<String>,
}

/// An Event's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// For information.
    Normal,
    /// Somebody should look at it.
    Warning,
}

impl EventSink {
    /// Starts the task that posts; it ends when cancelled, or when every sink is gone.
    #[must_use]
    pub fn spawn(servers: Arc<ApiServers>, node_name: &str, cancel: CancellationToken) -> Self {
        Self::reporting_as(CONTROLLER, servers, node_name, cancel)
    }

    /// The same in the name of another controller: MetalLB's users look for its Events by who reports them.
    #[must_use]
    pub fn reporting_as(controller: &str, servers: Arc<ApiServers>, instance: &str, cancel: CancellationToken) -> Self {
        let (remarks, receiver) = mpsc::channel(WAITING);
        let reporter = Reporter { controller: controller.into(), instance: Some(instance.to_owned()) };
        tokio::spawn(async move {
            cancel.run_until_cancelled(post(servers, reporter, receiver)).await;
        });
        Self { remarks }
    }

    /// Says it, some time soon. Never waits and never fails: what finds no room is dropped with a debug line.
    pub fn say(&self, remark: Remark) {
        if let Err(error) = self.remarks.try_send(remark) {
            debug!("event dropped: {error}");
        }
    }
}

#[cfg(test)]
impl EventSink {
    /// One that posts nothing: what is said is there to be looked at.
    pub(crate) fn recording() -> (Self, Receiver<Remark>) {
        let (remarks, receiver) = mpsc::channel(WAITING);
        (Self { remarks }, receiver)
    }
}

/// One recorder per note. A [`Recorder`] counts what has the same object and reason as a repetition of the first, whatever the note,
/// and what else is wrong with the object would be in no Event.
struct Recorders<R> {
    of: HashMap<(EventSubject, &'static str), Vec<(String, R)>>,
    notes: usize,
}

impl<R> Default for Recorders<R> {
    fn default() -> Self {
        Self { of: HashMap::new(), notes: 0 }
    }
}

impl<R> Recorders<R> {
    /// `None` for a note beyond the bound.
    fn of(&mut self, subject: &EventSubject, reason: &'static str, note: &str, new: impl FnOnce() -> R) -> Option<&R> {
        if self.notes >= NOTES {
            *self = Self::default();
        }
        let known = self.of.entry((subject.clone(), reason)).or_default();
        let place = known.iter().position(|(other, _)| other == note).unwrap_or_else(|| {
            if known.len() < NOTES_OF_ONE {
                known.push((note.to_owned(), new()));
                self.notes += 1;
                return known.len() - 1;
            }
            NOTES_OF_ONE
        });
        known.get(place).map(|(_, recorder)| recorder)
    }
}

async fn post(servers: Arc<ApiServers>, reporter: Reporter, mut remarks: Receiver<Remark>) {
    let (mut place, _) = servers.current();
    let mut recorders = Recorders::default();
    let mut pace = interval(Duration::from_secs(1) / PER_SECOND.get());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(Remark { subject, severity, reason, action, note }) = remarks.recv().await {
        // The series it counts are this process's; after a change of server they begin anew, which does no harm.
        let (now, _) = servers.current();
        if now != place {
            (place, recorders) = (now, Recorders::default());
        }
        let note = shortened(note);
        let recorder = recorders.of(&subject, reason, &note, || Recorder::new(servers.client(), reporter.clone()));
        let Some(recorder) = recorder else {
            debug!("event on {} dropped: it has {NOTES_OF_ONE} of reason {reason}", subject.key);
            continue;
        };
        pace.tick().await;
        let event =
            Event { type_: severity.into(), reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
        match timeout(
            Duration::from_secs(10),
            recorder.publish(&event, &subject.reference()).with_subscriber(NoSubscriber::new()),
        )
        .await
        {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("event on {} not posted: {}", subject.key, super::failure::reason(&error)),
            Err(_) => debug!("event on {} not posted: no answer", subject.key),
        }
    }
}

fn shortened(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(1024));
    note
}

impl EventSubject {
    fn reference(&self) -> ObjectReference {
        let Self { api_version, kind, key, uid } = self;
        let namespace = key.namespace();
        ObjectReference {
            api_version: Some((*api_version).to_owned()),
            kind: Some((*kind).to_owned()),
            name: Some(key.name().to_owned()),
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            uid: uid.clone(),
            ..ObjectReference::default()
        }
    }
}

impl From<Severity> for EventType {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Normal => Self::Normal,
            Severity::Warning => Self::Warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_has_its_own_recorder_up_to_a_bound() {
        let mut recorders = Recorders::default();
        let mut made = 0;
        let mut of = |service: usize, note: usize| {
            let key = ObjectKey::new("default", &format!("web-{service}"));
            let subject = EventSubject { api_version: "v1", kind: "Service", key, uid: None };
            let recorder = recorders.of(&subject, "InvalidField", &note.to_string(), || {
                made += 1;
                made
            });
            recorder.copied()
        };
        assert_eq!([of(0, 7), of(0, 8), of(0, 7), of(1, 7), of(0, 8)], [1, 2, 1, 3, 2].map(Some));
        let posted = (0..1_000).filter_map(|note| of(0, 1_000 + note)).count();
        assert_eq!(posted, NOTES_OF_ONE - 2, "nothing is counted as what it is not");
        assert_eq!([of(0, 7), of(0, 1_999)], [Some(1), None], "the first is known all the same");
        for service in 0..10 * NOTES {
            of(service, 0);
        }
        assert!(recorders.of.len() <= NOTES, "{}", recorders.of.len());
    }
}
