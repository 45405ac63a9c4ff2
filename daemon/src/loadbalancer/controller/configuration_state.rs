//! `ConfigurationState` (MetalLB v0.15.3): one object that says whether the pools can be used.
//!
//! Of its own Pod, as in MetalLB, it is no property: the owner of an object is in its namespace, and pools need not be in ours.

use serde_json::{Value, json};

use crate::loadbalancer::allocator::PoolReport;

/// Its name. The announcers have one each.
pub(super) const NAME: &str = "controller";
/// Whose fields they are (server-side apply).
pub(super) const MANAGER: &str = "poolReconciler";
/// The one condition there is.
const CONDITION: &str = "poolReconcilerValid";

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigurationState {
    /// What is wrong, a line for each pool; none: all pools are in use as they are.
    pub(super) errors: Vec<String>,
}

impl ConfigurationState {
    /// Of the pools that count.
    pub(super) fn of<'r>(reports: impl IntoIterator<Item = &'r PoolReport>) -> Self {
        let faulty = reports.into_iter().filter(|report| !report.faults.is_empty());
        let line = |report: &PoolReport| {
            let faults: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
            format!("IPAddressPool {}: {}", report.pool.name(), faults.join(", "))
        };
        Self { errors: faulty.map(line).collect() }
    }

    /// The object, without its status.
    pub(super) fn object(namespace: &str) -> Value {
        json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": "ConfigurationState",
            "metadata": {
                "name": NAME,
                "namespace": namespace,
                "labels": { "metallb.io/component-type": "controller" },
            },
        })
    }

    /// The object with the status that it should have; `None` where it has it. The time of the last transition is that of one: MetalLB
    /// writes it at every look.
    pub(super) fn status(&self, namespace: &str, there: &Value, now: jiff::Timestamp) -> Option<Value> {
        let (result, reason, truth) =
            if self.errors.is_empty() { ("Valid", "Reconciled", "True") } else { ("Invalid", "ConfigurationError", "False") };
        let summary = self.errors.join("\n");
        let known = there["status"]["conditions"].as_array().into_iter().flatten();
        let known = known.filter(|condition| condition["type"] == CONDITION).find(|condition| condition["status"] == truth);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let says = text(&there["status"]["result"]) == result && text(&there["status"]["errorSummary"]) == summary;
        if says && known.is_some_and(|condition| condition["reason"] == reason && text(&condition["message"]) == summary) {
            return None;
        }
        let since = known.and_then(|condition| condition["lastTransitionTime"].as_str().map(str::to_owned));
        let since = since.unwrap_or_else(|| now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let mut object = Self::object(namespace);
        object["status"] = json!({
            "result": result,
            "errorSummary": summary,
            "conditions": [{
                "type": CONDITION,
                "status": truth,
                "reason": reason,
                "message": summary,
                "lastTransitionTime": since,
            }],
        });
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_when_it_says_something_else_and_its_time_is_that_of_the_change() {
        let valid = ConfigurationState::default();
        let invalid = ConfigurationState { errors: vec!["IPAddressPool a: no".into()] };
        let at = |second: i64| jiff::Timestamp::from_second(second).expect("in range");
        let first = valid.status("lb", &Value::Null, at(0)).expect("there is none");
        assert_eq!(first["status"]["result"], "Valid");
        assert_eq!(first["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(valid.status("lb", &first, at(60)), None);
        let second = invalid.status("lb", &first, at(60)).expect("a change");
        let condition = &second["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("ConfigurationError")));
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:01:00Z");
        let more = ConfigurationState { errors: vec!["IPAddressPool b: no".into()] };
        let third = more.status("lb", &second, at(120)).expect("other words");
        assert_eq!(third["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:01:00Z", "still not valid");
        for nonsense in [json!(7), json!({ "status": [] }), json!({ "status": { "conditions": { "a": 1 } } })] {
            assert!(valid.status("lb", &nonsense, at(0)).is_some());
        }
    }
}
