//! From what is there to what should be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::model::{ObjectKey, ServiceKey};

const NODE: &str = "metallb.io/node";
const SERVICE_NAME: &str = "metallb.io/service-name";
const SERVICE_NAMESPACE: &str = "metallb.io/service-namespace";
/// Letters of a label's value.
const LONGEST_VALUE: usize = 63;

/// What has to be done.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Objects of ours are there that nobody asked for and that may not be removed yet.
    pub(super) leftovers: bool,
}

/// A write.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// There is none; it has no status before it is told.
    Make { name: String, object: Value, status: Value },
    /// It is there and says something else, or nothing.
    Tell { name: String, status: Value },
    /// It is ours and not wanted any more, or another's for a Service that we announce.
    Remove { name: String },
}

/// What is to be written by a node that announces these Services, where these objects are there. `may_go` says of a Service that is not
/// announced whether our object for it may be removed now.
pub(super) fn plan(
    node: &str,
    namespace: &str,
    services: &BTreeMap<ServiceKey, BTreeSet<CompactString>>,
    there: &[Value],
    may_go: impl Fn(&ServiceKey) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let mut missing: BTreeMap<String, &ServiceKey> = services.keys().map(|service| (name(node, service), service)).collect();
    for object in there {
        let (Some(found), Some(service)) = (object["metadata"]["name"].as_str(), service_of(object)) else { continue };
        let is_ours = found == name(node, &service);
        match services.get(&service) {
            Some(interfaces) if is_ours => {
                missing.remove(found);
                let expected = status(node, &service, interfaces);
                if !says(&object["status"], &expected) {
                    plan.steps.push(Step::Tell { name: found.to_owned(), status: with_status(namespace, found, &expected) });
                }
            }
            Some(_) => plan.steps.push(Step::Remove { name: found.to_owned() }),
            None if is_ours && may_go(&service) => plan.steps.push(Step::Remove { name: found.to_owned() }),
            None => plan.leftovers |= is_ours,
        }
    }
    for (name, service) in missing {
        let status = status(node, service, &services[service]);
        let labels = json!({ NODE: label(node), SERVICE_NAME: service.name(), SERVICE_NAMESPACE: service.namespace() });
        let mut object = head(namespace, &name);
        object["metadata"]["labels"] = labels;
        object["spec"] = json!({});
        let status = with_status(namespace, &name, &status);
        plan.steps.push(Step::Make { name, object, status });
    }
    plan
}

/// Of node and Service, so that a repeated request makes no second object. It looks like the generated ones of MetalLB.
fn name(node: &str, service: &ServiceKey) -> String {
    let digest = digest(&SHA256, format!("{node}#{service}").as_bytes());
    let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("l2-{hex}")
}

/// By its labels, which it has before it has a status.
fn service_of(object: &Value) -> Option<ServiceKey> {
    let labels = &object["metadata"]["labels"];
    Some(ObjectKey::new(labels[SERVICE_NAMESPACE].as_str()?, labels[SERVICE_NAME].as_str()?))
}

/// As much of a node's name as a label can hold.
fn label(node: &str) -> &str {
    node[..node.floor_char_boundary(LONGEST_VALUE)].trim_end_matches(['.', '-', '_'])
}

fn status(node: &str, service: &ServiceKey, interfaces: &BTreeSet<CompactString>) -> Value {
    let mut status = json!({ "node": node, "serviceName": service.name(), "serviceNamespace": service.namespace() });
    if !interfaces.is_empty() {
        status["interfaces"] = interfaces.iter().map(|name| json!({ "name": name })).collect();
    }
    status
}

/// By meaning: no interfaces are an empty list of them, and the order of interfaces is none.
fn says(status: &Value, expected: &Value) -> bool {
    let interfaces = |status: &Value| -> BTreeSet<String> {
        let all = status["interfaces"].as_array().into_iter().flatten();
        all.filter_map(|interface| interface["name"].as_str().map(str::to_owned)).collect()
    };
    let same = |field: &str| status[field] == expected[field];
    ["node", "serviceName", "serviceNamespace"].into_iter().all(same) && interfaces(status) == interfaces(expected)
}

fn head(namespace: &str, name: &str) -> Value {
    let metadata = json!({ "name": name, "namespace": namespace });
    json!({ "apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status", "metadata": metadata })
}

fn with_status(namespace: &str, name: &str, status: &Value) -> Value {
    let mut object = head(namespace, name);
    object["status"] = status.clone();
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    type Wanted = BTreeMap<ServiceKey, BTreeSet<CompactString>>;

    fn wanted(services: &[(&str, &[&str])]) -> Wanted {
        let of = |(name, interfaces): &(&str, &[&str])| {
            (ObjectKey::new("default", name), interfaces.iter().copied().map(CompactString::from).collect())
        };
        services.iter().map(of).collect()
    }

    /// What a server has after these steps.
    fn carry_out(there: &[Value], steps: &[Step]) -> Vec<Value> {
        let mut after: BTreeMap<String, Value> = there
            .iter()
            .map(|object| (object["metadata"]["name"].as_str().expect("a name").to_owned(), object.clone()))
            .collect();
        for step in steps {
            match step {
                Step::Make { name, object, status } => {
                    let mut object = object.clone();
                    object["status"] = status["status"].clone();
                    assert!(after.insert(name.clone(), object).is_none(), "{name} was there");
                }
                Step::Tell { name, status } => after.get_mut(name).expect("it is there")["status"] = status["status"].clone(),
                Step::Remove { name } => drop(after.remove(name).expect("it is there")),
            }
        }
        after.into_values().collect()
    }

    fn settle(node: &str, services: &Wanted, there: &[Value]) -> Vec<Value> {
        let after = carry_out(there, &plan(node, "lb", services, there, |_| true).steps);
        assert_eq!(plan(node, "lb", services, &after, |_| true), Plan::default(), "nothing is left to do");
        after
    }

    #[test]
    fn each_service_has_one_object_that_says_node_and_interfaces() {
        let there = settle("a", &wanted(&[("web", &[]), ("api", &["eth0", "eth1"])]), &[]);
        assert_eq!(there.len(), 2);
        let web = there.iter().find(|object| object["status"]["serviceName"] == "web").expect("it is there");
        assert_eq!(web["status"], json!({ "node": "a", "serviceName": "web", "serviceNamespace": "default" }));
        let labels = json!({ NODE: "a", SERVICE_NAME: "web", SERVICE_NAMESPACE: "default" });
        assert_eq!(web["metadata"]["labels"], labels);
        assert!(web["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("l2-") && name.len() == 19));
        // Other interfaces are told, and a Service that is not announced any more is taken away.
        let there = settle("a", &wanted(&[("api", &["eth1"])]), &there);
        assert_eq!(there.len(), 1);
        assert_eq!(there[0]["status"]["interfaces"], json!([{ "name": "eth1" }]));
    }

    #[test]
    fn who_takes_over_removes_what_others_said_of_that_service_and_nothing_else() {
        let both = wanted(&[("web", &[]), ("api", &[])]);
        let mut there = settle("a", &both, &[]);
        there.push(json!({ "metadata": { "name": "l2-x7k2p", "labels": {
            NODE: "b", SERVICE_NAME: "web", SERVICE_NAMESPACE: "default" } } }));
        there.push(json!({ "metadata": { "name": "l2-odd" } }));
        let there = settle("b", &wanted(&[("web", &[])]), &there);
        let said: Vec<_> = there.iter().map(|object| (&object["status"]["node"], &object["status"]["serviceName"])).collect();
        assert!(said.contains(&(&json!("a"), &json!("api"))) && said.contains(&(&json!("b"), &json!("web"))), "{said:?}");
        assert_eq!(there.len(), 3, "and the one that says of no Service what it is about");
    }

    #[test]
    fn leftovers_stay_until_they_may_go() {
        let there = settle("a", &wanted(&[("web", &[]), ("api", &[])]), &[]);
        let kept = plan("a", "lb", &wanted(&[("web", &[])]), &there, |_| false);
        assert_eq!(kept, Plan { steps: Vec::new(), leftovers: true });
        assert_eq!(plan("b", "lb", &Wanted::new(), &there, |_| true), Plan::default(), "another's are no leftovers of ours");
    }

    #[test]
    fn a_long_node_name_makes_a_label_that_is_one() {
        assert_eq!(label("node-a"), "node-a");
        let long = format!("{}.example", "n".repeat(62));
        assert_eq!(label(&long), "n".repeat(62));
    }

    #[test]
    fn an_object_that_has_no_status_yet_is_told_and_nonsense_is_passed_over() {
        let services = wanted(&[("web", &[])]);
        let mut there = settle("a", &services, &[]);
        there[0]["status"] = Value::Null;
        assert!(matches!(plan("a", "lb", &services, &there, |_| true).steps[..], [Step::Tell { .. }]));
        for nonsense in [json!(7), json!({ "metadata": { "name": 7, "labels": [] } }), json!({ "status": { "interfaces": {} } })]
        {
            assert_eq!(plan("a", "lb", &Wanted::new(), &[nonsense], |_| true), Plan::default());
        }
    }
}
