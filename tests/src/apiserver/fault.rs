//! Faults: what goes wrong in the field, on demand of a test.

use std::time::Duration;

use super::resource::Resource;
use super::route::Verb;

/// Something to go wrong, with the requests it concerns. Without `verb` and `resource` it concerns all; without `times` for ever.
///
/// ```
/// # use sheave_tests::apiserver::{Effect, Fault, Verb};
/// let busy = Fault::new(Effect::Answer { code: 429, retry_after: Some(1) }).on(Verb::List, "endpointslices").times(2);
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    verb: Option<Verb>,
    resource: Option<String>,
    left: Option<u32>,
    effect: Effect,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An HTTP error instead of the answer: 429 as priority and fairness says it, any other as a Status.
    Answer {
        /// The status.
        code: u16,
        /// `Retry-After`, seconds.
        retry_after: Option<u32>,
    },
    /// The answer comes later.
    Delay(Duration),
    /// The connection is closed without an answer.
    HangUp,
    /// A watch ends after this many events, counting those of a streaming list and bookmarks.
    CutAfter {
        /// Events that still get through.
        events: usize,
        /// How it ends.
        how: Cut,
    },
    /// A list or a streaming list answers with the state at this resourceVersion, as a lagging cache does. A version that is no
    /// longer remembered has no effect.
    Stale {
        /// The version shown.
        version: u64,
    },
    /// A watch sends no bookmarks; the one that ends a streaming list's initial events is sent.
    DropBookmarks,
    /// A streaming list never says that its initial events are complete.
    DropInitialEventsEnd,
    /// Streaming lists are not to be had.
    RefuseStreamingLists(Refusal),
    /// A continue token has expired.
    ExpireContinue,
    /// A watch is told that its version is too old.
    ExpireWatch,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// As on a timeout: complete, the connection lives on.
    Clean,
    /// In the middle, the connection closed: what a restarting server or a proxy does.
    Abrupt,
}

/// The ways in which servers refuse a streaming list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 200, then an ERROR event: the store is too old for progress requests (recorded).
    ErrorEvent,
    /// 422: the feature gate WatchList is off.
    Invalid,
    /// 400: what some aggregated servers and proxies answer.
    BadRequest,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Fault {
    /// This effect, on every request that it can apply to.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self { verb: None, resource: None, left: None, effect }
    }

    /// Only on requests of this verb and resource (plural or full name).
    #[must_use]
    pub fn on(self, verb: Verb, resource: &str) -> Self {
        Self { verb: Some(verb), resource: Some(resource.to_owned()), ..self }
    }

    /// Only on requests of this resource.
    #[must_use]
    pub fn on_resource(self, resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..self }
    }

    /// Only on the next `times` requests concerned.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { left: Some(times), ..self }
    }

    fn concerns(&self, verb: Verb, resource: &Resource, request: &Traits) -> bool {
        let effect = match self.effect {
            Effect::Answer { .. } | Effect::Delay(_) | Effect::HangUp => true,
            Effect::CutAfter { .. } | Effect::DropBookmarks => verb == Verb::Watch,
            Effect::Stale { .. } => verb == Verb::List || request.streaming_list,
            Effect::DropInitialEventsEnd | Effect::RefuseStreamingLists(_) => request.streaming_list,
            Effect::ExpireContinue => request.continues,
            Effect::ExpireWatch => verb == Verb::Watch && !request.streaming_list,
        };
        effect && self.verb.is_none_or(|own| own == verb) && self.resource.as_ref().is_none_or(|own| resource.is_called(own))
    }
}

/// What of a request decides whether a fault can apply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traits {
    /// A watch with sendInitialEvents.
    pub(super) streaming_list: bool,
    /// A list with a continue token.
    pub(super) continues: bool,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The effects on this request, each fault's count going down by one.
    pub(super) fn take(&mut self, verb: Verb, resource: &Resource, request: Traits) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.0.retain_mut(|fault| {
            if fault.left == Some(0) {
                return false;
            }
            if fault.concerns(verb, resource, &request) {
                effects.push(fault.effect.clone());
                fault.left = fault.left.map(|left| left - 1);
            }
            fault.left != Some(0)
        });
        effects
    }
}
