//! Looking, until it works; and once more after entries that had never been translated.
//!
//! Suspects stay pending until a look for their kind has gone through, and what is known later counts. During an outage new
//! suspects join those that wait: they do not bring the next attempt nearer.
//!
//! An untranslated entry is a client that talks to somebody else at the frontend's address. If that one's answer is under way
//! while the entry is deleted, it makes a new entry of the opposite direction, in which the client's datagrams are replies: and
//! replies meet no rule. So exactly these entries are looked for again, for as long as an answer may be under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Suspects;
use crate::daemon::outage::{Matter, Outage};
use crate::health::ProxyHealth;
use crate::model::{Family, Protocol};
use crate::netlink::conntrack::{Conntrack, Deleted, DumpInfo, Flow, Selection, Tuple};
use crate::netlink::nft::DoorError;

/// First pause after a look that failed.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Longest pause: for so long a client may talk into a hole although conntrack works again.
const AGAIN_AT_LATEST: Duration = Duration::from_secs(10);
/// First pause before the look for answers that were under way; each further one is twice as long.
const ANSWERS_AFTER: Duration = Duration::from_millis(50);
/// So many such looks: over 3.15 s, longer than any round trip, and a client that never pauses has several chances that its next
/// datagram comes before the next answer.
const ANSWER_LOOKS: u32 = 6;

const STALE_FLOWS: Matter =
    Matter { whose: "stale flows", fails: "stale flows not deleted", works: "stale flows are looked for" };

/// What connection tracking is asked here.
pub(super) trait FlowTable {
    fn dump(&mut self, selection: Selection, each: &mut dyn FnMut(&Flow)) -> Result<DumpInfo, DoorError>;
    fn delete(&mut self, flows: &[Flow]) -> Result<Deleted, DoorError>;
}

/// Deletes what is stale. It has no clock of its own: whoever drives it says what time it is.
#[derive(Debug)]
pub(super) struct Seeker<T> {
    table: T,
    pending: Suspects,
    outage: Outage,
    /// Not before this: the last look failed.
    retry_at: Option<Instant>,
    answers: Option<Answers>,
}

/// Answers that may be under way to clients whose untranslated entries were deleted.
#[derive(Debug)]
struct Answers {
    /// As the entries that they would make begin: from the frontend to the client.
    from: HashSet<Tuple>,
    looks: u32,
    due: Instant,
}

impl<T: FlowTable> Seeker<T> {
    pub(super) fn new(table: T, health: Arc<ProxyHealth>) -> Self {
        let outage = Outage::new(STALE_FLOWS, health, AGAIN_AFTER, AGAIN_AT_LATEST);
        Self { table, pending: Suspects::default(), outage, retry_at: None, answers: None }
    }

    pub(super) fn take_in(&mut self, suspects: Suspects) {
        self.pending.merge(suspects);
    }

    /// Does what is due at `now`, and says when there is something to do again without anybody asking.
    pub(super) fn look(&mut self, now: Instant) -> Option<Instant> {
        if self.retry_at.is_some_and(|at| now < at) {
            return self.retry_at;
        }
        let mut looks = 0;
        let mut failure = None;
        // One that fails keeps the others from nothing.
        for (family, protocol) in self.pending.kinds() {
            looks += 1;
            match self.delete_stale(family, protocol, now) {
                Ok(()) => self.pending.remove(family, protocol),
                Err(error) => failure = Some((family, protocol, error)),
            }
        }
        if let Some(mut answers) = self.answers.take_if(|answers| answers.due <= now) {
            looks += 1;
            match self.delete_answers(&answers.from) {
                Ok(()) => self.answers = answers.passed(now).then_some(answers),
                Err((family, error)) => {
                    self.answers = Some(answers);
                    failure = Some((family, Protocol::Udp, error));
                }
            }
        }
        if looks > 0 {
            self.conclude(failure, now);
        }
        self.retry_at.or(self.answers.as_ref().map(|answers| answers.due))
    }

    fn conclude(&mut self, failure: Option<(Family, Protocol, DoorError)>, now: Instant) {
        let Some((family, protocol, error)) = failure else {
            self.retry_at = None;
            self.outage.worked(now);
            return;
        };
        self.retry_at = Some(now + self.outage.failed(now, &format_args!("{protocol} over {family}: {error}")));
    }

    fn delete_stale(&mut self, family: Family, protocol: Protocol, now: Instant) -> Result<(), DoorError> {
        let mut stale = Vec::new();
        let selection = Selection { ipv6: family == Family::V6, protocol: protocol.number() };
        let (table, pending) = (&mut self.table, &self.pending);
        table.dump(selection, &mut |flow| {
            if pending.is_stale(flow) {
                stale.push(*flow);
            }
        })?;
        let deleted = table.delete(&stale)?.deleted;
        if deleted > 0 {
            tracing::info!(%family, deleted, "stale {protocol} flows deleted");
        }
        if protocol == Protocol::Udp {
            self.expect_answers(stale.iter().filter(|flow| !flow.is_translated()).map(|flow| flow.original.reversed()), now);
        }
        Ok(())
    }

    fn expect_answers(&mut self, from: impl Iterator<Item = Tuple>, now: Instant) {
        let mut from: HashSet<Tuple> = from.collect();
        if from.is_empty() {
            return;
        }
        from.extend(self.answers.take().map(|answers| answers.from).unwrap_or_default());
        self.answers = Some(Answers { from, looks: 0, due: now + ANSWERS_AFTER });
    }

    fn delete_answers(&mut self, from: &HashSet<Tuple>) -> Result<(), (Family, DoorError)> {
        for family in Family::ALL {
            let ipv6 = family == Family::V6;
            if !from.iter().any(|tuple| tuple.source.is_ipv6() == ipv6) {
                continue;
            }
            let mut made = Vec::new();
            let dumped = self.table.dump(Selection::udp(ipv6), &mut |flow| {
                if from.contains(&flow.original) && !flow.is_translated() {
                    made.push(*flow);
                }
            });
            let deleted = dumped.and_then(|_| self.table.delete(&made)).map_err(|error| (family, error))?.deleted;
            if deleted > 0 {
                tracing::info!(%family, deleted, "flows deleted that answers under way had made");
            }
        }
        Ok(())
    }
}

impl Answers {
    /// One look is done. Says whether there is to be another.
    fn passed(&mut self, now: Instant) -> bool {
        self.looks += 1;
        self.due = now + ANSWERS_AFTER * (1 << self.looks);
        self.looks < ANSWER_LOOKS
    }
}

impl FlowTable for Conntrack {
    fn dump(&mut self, selection: Selection, each: &mut dyn FnMut(&Flow)) -> Result<DumpInfo, DoorError> {
        Self::dump(self, selection, each)
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<Deleted, DoorError> {
        Self::delete(self, flows)
    }
}
