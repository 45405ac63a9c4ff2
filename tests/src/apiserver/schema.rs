//! The structural schema of a custom resource (apiextensions-apiserver): defaults, pruning and validation.
//!
//! Of OpenAPI what `manifests/crds` needs and no more, and of CEL the one rule `self == oldSelf`; patterns and formats are not looked at.
//! A keyword that is not known here is refused with the first object, rather than passed over.

use std::sync::Arc;

use serde_json::Value;

use super::status::Cause;

/// Keywords that constrain nothing, or that are looked at below.
const KNOWN: [&str; 18] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxLength",
    "maximum",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

/// A schema.
#[derive(Clone, Debug)]
pub(super) struct Schema(Arc<Value>);

impl Schema {
    /// Of a version of a CustomResourceDefinition: its `openAPIV3Schema`.
    pub(super) fn new(schema: Value) -> Self {
        Self(Arc::new(schema))
    }

    /// Takes out fields that the schema does not have, and puts in what it has by default. Metadata is everybody's.
    pub(super) fn prune(&self, object: &mut Value) {
        let Some(members) = object.as_object_mut() else { return };
        members.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata") || !self.property(name).is_null());
        for (name, value) in members.iter_mut().filter(|(name, _)| *name != "metadata") {
            prune(self.property(name), value);
        }
    }

    /// What is wrong with an object.
    pub(super) fn judge(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        judge(&self.0, object, old, "", &mut causes);
        causes
    }

    fn property(&self, name: &str) -> &Value {
        &self.0["properties"][name]
    }
}

fn prune(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(members) if schema["additionalProperties"].is_object() => {
            members.values_mut().for_each(|value| prune(&schema["additionalProperties"], value));
        }
        Value::Object(members) => {
            members.retain(|name, _| !schema["properties"][name].is_null());
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                if !schema["default"].is_null() && !members.contains_key(name) {
                    members.insert(name.clone(), schema["default"].clone());
                }
                if let Some(value) = members.get_mut(name) {
                    prune(schema, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(&schema["items"], item)),
        _ => {}
    }
}

fn judge(schema: &Value, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    let within = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let mut refuse = |why: String| causes.push(Cause::invalid(path, value, why));
    for (keyword, _) in schema.as_object().into_iter().flatten().filter(|(keyword, _)| !KNOWN.contains(&keyword.as_str())) {
        refuse(format!("the double does not know {keyword}"));
    }
    let wanted = schema["type"].as_str().unwrap_or_default();
    if !is_of_type(wanted, value) {
        return refuse(format!("{path} in body must be of type {wanted}"));
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        refuse(format!("supported values: {}", schema["enum"]));
    }
    let length = value.as_str().map(|text| text.chars().count() as u64);
    let bound = |keyword: &str| schema[keyword].as_u64();
    if length.zip(bound("maxLength")).is_some_and(|(length, most)| length > most)
        || length.zip(bound("minLength")).is_some_and(|(length, least)| length < least)
    {
        refuse(format!("{path} in body has a wrong length"));
    }
    let limit = |keyword: &str| schema[keyword].as_i64();
    if value.as_i64().zip(limit("maximum")).is_some_and(|(number, most)| number > most)
        || value.as_i64().zip(limit("minimum")).is_some_and(|(number, least)| number < least)
    {
        refuse(format!("{path} in body is out of bounds"));
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        match (rule["rule"].as_str(), old) {
            (Some("self == oldSelf"), Some(old)) if old != value => {
                refuse(rule["message"].as_str().unwrap_or("failed rule: self == oldSelf").to_owned());
            }
            (Some("self == oldSelf"), _) => {}
            (other, _) => refuse(format!("the double does not know the rule {other:?}")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value[name].is_null() {
            causes.push(Cause::required(within(name)));
        }
    }
    match value {
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| !path.is_empty() || *name != "metadata") {
                let old = old.map(|old| &old[name]).filter(|old| !old.is_null());
                let entry = &schema["properties"][name];
                let entry = if entry.is_null() { &schema["additionalProperties"] } else { entry };
                judge(entry, value, old, &within(name), causes);
            }
        }
        // Entries of a list have no old selves, as in Kubernetes where the list is atomic.
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                judge(&schema["items"], item, None, &format!("{path}[{place}]"), causes);
            }
        }
        _ => {}
    }
}

fn is_of_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}
