//! Who of several leads: one Lease, by the rules of client-go (`tools/leaderelection`, v0.36), as a decision without IO or clock.
//!
//! Clocks of different machines are never compared. A candidate counts from when it saw the record change last, by its own clock; the
//! times in the record are for people. kube-lease-manager, which would be at hand, decides by the times in the record and by the owner
//! of fields (server-side apply); beside replicas that run client-go's algorithm, and in the tools that show it, that is another thing.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long what lasts. The defaults are those of every Kubernetes component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    /// A candidate takes over when it has seen no renewal for so long. Whole seconds, at least one.
    pub duration: Duration,
    /// The holder gives up when it could not renew for so long; less than `duration`, so that it has stopped before another begins.
    pub renew_deadline: Duration,
    /// Between two attempts, to renew or to take over.
    pub retry_period: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry_period: Duration::from_secs(2) }
    }
}

/// Times of which nothing good would come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseTimingError {
    /// Two would lead at once.
    #[error("the lease duration must be longer than the renew deadline")]
    Duration,
    /// One late answer would cost the leadership. client-go wants this factor, the greatest pause between two attempts.
    #[error("the renew deadline must be longer than 1.2 times the retry period")]
    Deadline,
    /// The record counts seconds.
    #[error("the lease duration must be whole seconds, at least one, and no pause may be zero")]
    Seconds,
}

/// What one candidate knows of the Lease.
#[derive(Debug)]
pub(super) struct Candidate {
    /// `holderIdentity`.
    identity: String,
    /// Namespace and name of the Lease.
    place: (String, String),
    timing: LeaseTiming,
    observed: Option<Observed>,
}

/// The Lease as it was last seen.
#[derive(Debug)]
struct Observed {
    object: Value,
    /// When its record was seen to change.
    at: Instant,
}

impl LeaseTiming {
    /// Judges them as client-go does.
    ///
    /// # Errors
    /// See [`LeaseTimingError`].
    pub fn check(self) -> Result<(), LeaseTimingError> {
        let Self { duration, renew_deadline, retry_period } = self;
        if duration <= renew_deadline {
            return Err(LeaseTimingError::Duration);
        }
        if renew_deadline <= retry_period.mul_f64(1.2) {
            return Err(LeaseTimingError::Deadline);
        }
        if duration.subsec_nanos() != 0 || duration.is_zero() || retry_period.is_zero() {
            return Err(LeaseTimingError::Seconds);
        }
        Ok(())
    }
}

impl Candidate {
    pub(super) fn new(identity: String, namespace: &str, name: &str, timing: LeaseTiming) -> Self {
        Self { identity, place: (namespace.to_owned(), name.to_owned()), timing, observed: None }
    }

    pub(super) fn timing(&self) -> LeaseTiming {
        self.timing
    }

    /// The Lease was read, or written.
    pub(super) fn observe(&mut self, object: Value, now: Instant) {
        let known = self.observed.take().filter(|known| known.object["spec"] == object["spec"]);
        let at = known.map_or(now, |known| known.at);
        self.observed = Some(Observed { object, at });
    }

    /// There is no Lease.
    pub(super) fn observe_none(&mut self) {
        self.observed = None;
    }

    /// Who holds it, as far as is known; empty: nobody.
    pub(super) fn holder(&self) -> &str {
        self.observed.as_ref().and_then(|observed| observed.object["spec"]["holderIdentity"].as_str()).unwrap_or_default()
    }

    pub(super) fn is_ours(&self) -> bool {
        self.holder() == self.identity
    }

    /// Whether it may be taken: nobody holds it, or its holder has not renewed it for as long as the record says.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        let Some(Observed { object, at }) = &self.observed else { return true };
        let seconds = object["spec"]["leaseDurationSeconds"].as_u64().unwrap_or_default();
        self.holder().is_empty() || self.is_ours() || *at + Duration::from_secs(seconds.min(u32::MAX.into())) <= now
    }

    /// The Lease with us as its holder, from `now` on: to be created where there is none, else to be replaced in this very version.
    pub(super) fn claim(&self, now: Timestamp) -> Claim {
        let now = micro_time(now);
        let (namespace, name) = &self.place;
        let seconds = self.timing.duration.as_secs();
        match &self.observed {
            None => Claim::Create(json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": name, "namespace": namespace },
                "spec": {
                    "holderIdentity": self.identity,
                    "leaseDurationSeconds": seconds,
                    "acquireTime": now,
                    "renewTime": now,
                    "leaseTransitions": 0,
                },
            })),
            Some(observed) => {
                let spec = &observed.object["spec"];
                let transitions = spec["leaseTransitions"].as_u64().unwrap_or_default();
                let (acquired, transitions) = if self.is_ours() {
                    (spec["acquireTime"].clone(), transitions)
                } else {
                    (now.clone().into(), transitions.saturating_add(1))
                };
                Claim::Replace(observed.with_spec(&json!({
                    "holderIdentity": self.identity,
                    "leaseDurationSeconds": seconds,
                    "acquireTime": acquired,
                    "renewTime": now,
                    "leaseTransitions": transitions,
                })))
            }
        }
    }

    /// The Lease as one leaves it that goes: anybody may take it at once. `None` where it is not ours.
    pub(super) fn release(&self, now: Timestamp) -> Option<Value> {
        let observed = self.observed.as_ref().filter(|_| self.is_ours())?;
        let now = micro_time(now);
        let transitions = &observed.object["spec"]["leaseTransitions"];
        Some(observed.with_spec(&json!({
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        })))
    }
}

/// How a Lease is taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Claim {
    Create(Value),
    /// With its `resourceVersion`: somebody who was quicker is not overwritten.
    Replace(Value),
}

impl Observed {
    fn with_spec(&self, spec: &Value) -> Value {
        let metadata = &self.object["metadata"];
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec })
    }
}

/// `metav1.MicroTime`.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn candidate(identity: &str) -> Candidate {
        Candidate::new(identity.to_owned(), "kube-system", "sheave-controller", LeaseTiming::default())
    }

    /// What an API server makes of a claim.
    fn stored(claim: Claim, version: &str) -> Value {
        let (Claim::Create(mut object) | Claim::Replace(mut object)) = claim;
        object["metadata"]["resourceVersion"] = version.into();
        object
    }

    #[test]
    fn a_lease_is_taken_over_when_it_was_not_seen_to_change_for_its_duration() {
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let first = stored(a.claim(NOW), "1");
        assert_eq!(first["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
        a.observe(first.clone(), start);
        assert!(a.is_ours() && a.is_free(start));
        b.observe(first.clone(), start);
        assert!(!b.is_free(after(14)));
        // Read again, it is no other record.
        b.observe(first, after(14));
        assert!(b.is_free(after(15)));
        let renewed = stored(a.claim(NOW + Duration::from_secs(10)), "2");
        b.observe(renewed, after(14));
        assert!(!b.is_free(after(28)) && b.is_free(after(29)), "counted from when it was seen, not from what it says");
        let Claim::Replace(taken) = b.claim(NOW) else { panic!("there is one") };
        assert_eq!((taken["metadata"]["resourceVersion"].as_str(), &taken["spec"]["leaseTransitions"]), (Some("2"), &json!(1)));
    }

    #[test]
    fn a_lease_that_was_released_is_free_at_once() {
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let now = Instant::now();
        assert_eq!(a.release(NOW), None);
        a.observe(stored(a.claim(NOW), "1"), now);
        let released = a.release(NOW).expect("it is ours");
        assert_eq!(released["spec"]["leaseDurationSeconds"], 1);
        b.observe(released, now);
        assert!(b.is_free(now) && b.holder().is_empty());
    }

    #[test]
    fn a_record_of_nonsense_is_free_and_does_no_harm() {
        let mut a = candidate("a");
        let now = Instant::now();
        for spec in [json!(null), json!(7), json!({ "holderIdentity": 3, "leaseDurationSeconds": "x" })] {
            a.observe(json!({ "metadata": { "resourceVersion": "1" }, "spec": spec }), now);
            assert!(a.is_free(now));
            assert!(matches!(a.claim(NOW), Claim::Replace(_)));
        }
        a.observe(json!({ "spec": { "holderIdentity": "b", "leaseDurationSeconds": u64::MAX } }), now);
        assert!(!a.is_free(now));
        a.observe_none();
        assert!(matches!(a.claim(NOW), Claim::Create(_)));
    }

    #[test]
    fn times_are_judged_as_client_go_does() {
        let seconds = |[duration, renew_deadline, retry_period]: [u64; 3]| LeaseTiming {
            duration: Duration::from_secs(duration),
            renew_deadline: Duration::from_secs(renew_deadline),
            retry_period: Duration::from_secs(retry_period),
        };
        for (times, expected) in [
            ([15, 10, 2], Ok(())),
            ([10, 10, 2], Err(LeaseTimingError::Duration)),
            ([15, 2, 2], Err(LeaseTimingError::Deadline)),
            ([15, 10, 0], Err(LeaseTimingError::Seconds)),
        ] {
            assert_eq!(seconds(times).check(), expected, "{times:?}");
        }
        let uneven = LeaseTiming { duration: Duration::from_millis(10_500), ..seconds([15, 10, 2]) };
        assert_eq!(uneven.check(), Err(LeaseTimingError::Seconds));
    }
}
