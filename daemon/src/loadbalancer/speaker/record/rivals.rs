//! The Leases of other nodes: whether a member that is not heard lives all the same, and who of two yields.
//!
//! A renewal is one that was seen: the object has changed between two looks, and the time is that of the look, on our clock. Of the first
//! look there is nothing to compare with, so it goes by the time in the Lease, which is the other node's clock. Where that is wrong by more
//! than the seconds that matter here, a VIP has two answers, or none, until the next renewal is seen or missing (5 s).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::lease;
use super::reach::Reach;
use crate::loadbalancer::membership::fence::{Claim, LeaseSeen, RENEWAL};
use crate::source::kube::{ApiRequest, ApiServers, RequestError};

/// For so long an answer is good for whoever else asks.
const FRESH: Duration = Duration::from_millis(250);
/// Who renews does so every [`RENEWAL`]; one renewal may fail.
const EXPIRED: Duration = Duration::from_secs(2 * RENEWAL.as_secs() + 2);
/// Leases that are remembered: more than there are members.
const MOST: usize = 512;

/// What another node's Lease says, if it is renewed and says that a VIP is held; else nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rival {
    /// When it was renewed last.
    pub seen: LeaseSeen,
    /// What it claims.
    pub claim: Option<Claim>,
}

/// The Leases of others, as far as they were looked at.
#[derive(Debug)]
pub(super) struct Rivals {
    servers: Arc<ApiServers>,
    namespace: Arc<str>,
    reach: Arc<Reach>,
    known: Mutex<HashMap<Arc<str>, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    looked: Instant,
    sighting: Sighting,
}

/// A Lease over several looks. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sighting {
    /// What tells one writing of it from another; empty: none was seen.
    version: String,
    /// When it was written, as near as can be told; none: before this machine began.
    renewed: Option<Instant>,
    claim: Option<Claim>,
}

impl Rivals {
    pub(super) fn new(servers: Arc<ApiServers>, namespace: Arc<str>, reach: Arc<Reach>) -> Self {
        Self { servers, namespace, reach, known: Mutex::default() }
    }

    /// `None`: the API does not answer.
    pub(super) async fn look(&self, node: Arc<str>) -> Option<Rival> {
        let began = Instant::now();
        let before = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&node).cloned()
        };
        if let Some(known) = before.as_ref().filter(|known| began < known.looked + FRESH) {
            return Some(known.sighting.rival(began));
        }
        let path = lease::path(&self.namespace, &node);
        let outcome = self.servers.ask_within(ApiRequest::get(path), lease::PATIENCE).await;
        self.reach.experienced(&outcome, began);
        let object = match outcome {
            Ok(object) => Some(object),
            Err(RequestError::NotFound { .. }) => None,
            Err(error) => {
                tracing::debug!("the lease of {node} is not known: {error}");
                return None;
            }
        };
        let now = Instant::now();
        let mut sighting = before.map(|known| known.sighting).unwrap_or_default();
        sighting.look(&node, object.as_ref(), now, Timestamp::now());
        let rival = sighting.rival(now);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(node, Known { looked: now, sighting });
        Some(rival)
    }
}

impl Sighting {
    fn look(&mut self, node: &Arc<str>, object: Option<&Value>, now: Instant, clock: Timestamp) {
        let Some((object, claim)) = object.and_then(|object| Some((object, lease::claim_of(object, node)?))) else {
            *self = Self::default();
            return;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let version = format!("{} {}", text(&object["metadata"]["resourceVersion"]), text(&object["spec"]["renewTime"]));
        if version == self.version {
            return;
        }
        let age = if self.version.is_empty() {
            // Of a clock that is ahead of ours: just now.
            let written = text(&object["spec"]["renewTime"]).parse::<Timestamp>().unwrap_or(clock);
            Duration::try_from(clock.duration_since(written)).unwrap_or_default()
        } else {
            Duration::ZERO
        };
        *self = Self { version, renewed: now.checked_sub(age), claim: Some(claim) };
    }

    fn rival(&self, now: Instant) -> Rival {
        let renewed = self.renewed.filter(|renewed| now < *renewed + EXPIRED);
        Rival { seen: LeaseSeen { renewed }, claim: self.claim.clone().filter(|_| renewed.is_some()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadbalancer::speaker::record::Holding;

    fn lease(version: &str, written: i64, any: bool) -> Value {
        let claim = Claim { node: "b".into(), heard: 2 };
        let at = Timestamp::from_second(written).expect("in range");
        let mut object = lease::object("kube-system", &Holding { claim, any }, "b_1", at);
        object["metadata"]["resourceVersion"] = version.into();
        object
    }

    #[test]
    fn a_renewal_is_what_was_seen_to_change_and_the_first_look_goes_by_the_clocks() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let clock = |seconds: i64| Timestamp::from_second(1_000 + seconds).expect("in range");
        let node: Arc<str> = "b".into();
        let mut sighting = Sighting::default();
        sighting.look(&node, Some(&lease("1", 997, true)), after(10), clock(0));
        assert_eq!(sighting.rival(after(10)).seen.renewed, Some(after(7)));
        assert_eq!(sighting.rival(after(10)).claim, Some(Claim { node: "b".into(), heard: 2 }));
        sighting.look(&node, Some(&lease("1", 997, true)), after(11), clock(1));
        assert_eq!(sighting.rival(after(11)).seen.renewed, Some(after(7)), "it is the same one");
        // Its clock has nothing to say any more.
        sighting.look(&node, Some(&lease("2", 0, true)), after(12), clock(2));
        assert_eq!(sighting.rival(after(12)).seen.renewed, Some(after(12)));
        assert_eq!(sighting.rival(after(12) + EXPIRED), Rival::default(), "nobody renews it any more");
        sighting.look(&node, Some(&lease("3", 1_002, false)), after(13), clock(3));
        assert_eq!(sighting.rival(after(13)), Rival::default(), "it holds nothing, and says so");
        sighting.look(&node, Some(&lease("4", 5_000, true)), after(14), clock(4));
        assert_eq!(sighting.rival(after(14)).seen.renewed, Some(after(14)), "a clock that is ahead");
        let mut late = Sighting::default();
        late.look(&node, Some(&lease("5", 900, true)), after(200), clock(0));
        assert_eq!(late.rival(after(200)), Rival::default(), "it was dead when it was looked at first");
        sighting.look(&node, None, after(15), clock(5));
        assert_eq!(sighting.rival(after(15)), Rival::default());
    }

    #[test]
    fn nonsense_claims_nothing() {
        for object in [
            Value::Null,
            serde_json::json!(7),
            serde_json::json!({ "spec": [] }),
            serde_json::json!({ "spec": { "holderIdentity": "x" } }),
        ] {
            let mut sighting = Sighting::default();
            sighting.look(&"b".into(), Some(&object), Instant::now(), Timestamp::UNIX_EPOCH);
            let rival = sighting.rival(Instant::now());
            assert!(rival.claim.is_none_or(|claim| claim.heard == 0), "{object}");
        }
    }
}
