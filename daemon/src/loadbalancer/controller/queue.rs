//! What is to be written, one write of an object at a time, and when again what failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ObjectKey;
use crate::retry::Retry;

/// Writes under way at a time. An API server gives a client as many without letting it wait (`--max-mutating-requests-inflight` is 200
/// for everybody), and 5,000 Services are done in seconds.
const AT_A_TIME: usize = 8;
/// After a conflict, and after a failure, the pause before an object is tried again begins with this.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// It doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something that is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The status of a Service.
    Service(ObjectKey),
    /// The status of a pool.
    Pool(ObjectKey),
    /// The ConfigurationState.
    State,
    /// The Secret that announcers share.
    GossipKey,
}

/// How a write ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is written.
    Written,
    /// There was nothing to do: it says so already, or it is gone.
    Needless,
    /// It has changed meanwhile: what is to be written is to be decided again.
    Stale,
    /// It did not work.
    Failed(String),
}

/// The writes that are due, under way, or put off.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    ready: VecDeque<Target>,
    /// What is in `ready`.
    queued: BTreeSet<Target>,
    under_way: BTreeSet<Target>,
    /// Asked for again while it was under way.
    again: BTreeSet<Target>,
    /// By when they are due.
    put_off: BTreeSet<(Instant, Target)>,
    /// What is in `put_off`.
    waiting: BTreeSet<Target>,
    /// How often in a row it came to nothing.
    failures: BTreeMap<Target, Retry>,
}

impl WriteQueue {
    /// It is to be written. What is put off keeps its time: it failed a moment ago.
    pub(super) fn wish(&mut self, target: Target) {
        if self.under_way.contains(&target) {
            self.again.insert(target);
        } else if !self.waiting.contains(&target) && self.queued.insert(target.clone()) {
            self.ready.push_back(target);
        }
    }

    /// The next one to be begun, if there is room.
    pub(super) fn next(&mut self, now: Instant) -> Option<Target> {
        while self.put_off.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, target)) = self.put_off.pop_first()
        {
            self.waiting.remove(&target);
            self.wish(target);
        }
        if self.under_way.len() >= AT_A_TIME {
            return None;
        }
        let target = self.ready.pop_front()?;
        self.queued.remove(&target);
        self.under_way.insert(target.clone());
        Some(target)
    }

    /// One has ended. Whether it failed for the first time in a row.
    pub(super) fn done(&mut self, target: &Target, outcome: &Outcome, now: Instant) -> bool {
        self.under_way.remove(target);
        let again = self.again.remove(target);
        match outcome {
            Outcome::Written | Outcome::Needless => {
                self.failures.remove(target);
                if again {
                    self.wish(target.clone());
                }
                false
            }
            Outcome::Stale | Outcome::Failed(_) => {
                let first = !self.failures.contains_key(target);
                let retry = self.failures.entry(target.clone()).or_insert_with(|| Retry::new(FIRST_PAUSE, LONGEST_PAUSE));
                self.put_off.insert((now + retry.next(), target.clone()));
                self.waiting.insert(target.clone());
                first
            }
        }
    }

    /// When the next one that was put off is due.
    pub(super) fn wake(&self) -> Option<Instant> {
        // With no room there is nothing to be woken for: the end of a write does that.
        self.put_off.first().map(|(at, _)| *at).filter(|_| self.under_way.len() < AT_A_TIME)
    }

    /// Nothing is to be written any more.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.under_way.is_empty() && self.put_off.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target::Service(ObjectKey::new("default", name))
    }

    #[test]
    fn an_object_is_written_by_one_at_a_time_and_again_if_asked_for_meanwhile() {
        let mut queue = WriteQueue::default();
        let now = Instant::now();
        queue.wish(target("a"));
        queue.wish(target("a"));
        assert_eq!((queue.next(now), queue.next(now)), (Some(target("a")), None));
        queue.wish(target("a"));
        assert_eq!(queue.next(now), None);
        queue.done(&target("a"), &Outcome::Written, now);
        assert_eq!(queue.next(now), Some(target("a")));
        queue.done(&target("a"), &Outcome::Needless, now);
        assert!(queue.is_idle());
    }

    #[test]
    fn what_fails_is_put_off_longer_each_time_and_holds_up_nobody_else() {
        let mut queue = WriteQueue::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        queue.wish(target("a"));
        for round in 0..12 {
            assert_eq!(queue.next(now), Some(target("a")));
            assert_eq!(queue.done(&target("a"), &Outcome::Failed("no".into()), now), round == 0, "told once");
            queue.wish(target("a"));
            queue.wish(target("b"));
            assert_eq!(queue.next(now), Some(target("b")));
            queue.done(&target("b"), &Outcome::Written, now);
            assert_eq!(queue.next(now), None, "not before its time, whoever asks");
            let wake = queue.wake().expect("put off");
            pauses.push(wake - now);
            now = wake;
        }
        assert!(pauses[0] <= FIRST_PAUSE && pauses[11] >= LONGEST_PAUSE / 2, "{pauses:?}");
        assert_eq!(queue.next(now), Some(target("a")));
        queue.done(&target("a"), &Outcome::Written, now);
        assert!(queue.is_idle() && queue.failures.is_empty());
    }

    #[test]
    fn only_so_many_are_under_way() {
        let mut queue = WriteQueue::default();
        let now = Instant::now();
        (0..20).for_each(|number| queue.wish(target(&number.to_string())));
        let begun: Vec<_> = std::iter::from_fn(|| queue.next(now)).collect();
        assert_eq!(begun.len(), AT_A_TIME);
        queue.done(&begun[3], &Outcome::Written, now);
        assert_eq!(queue.next(now), Some(target("8")), "in the order in which they were asked for");
    }
}
