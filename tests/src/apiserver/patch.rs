//! The patch formats: JSON merge patch, strategic merge patch, and server-side apply without field ownership.

use serde_json::{Map, Value};

use super::status::Status;

/// A patch of an object.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// As a merge patch, but these lists are merged by key, and `$patch: delete` removes an entry.
    Strategic(Value),
    /// Merged like [`Self::Strategic`]; creates what is not there. Who owns which field is not tracked: a field that an applier
    /// leaves out stays.
    Apply(Value),
}

/// Lists that Kubernetes merges by a key, of the kinds served here. All other lists are replaced.
const MERGE_KEYS: &[(&str, &str)] =
    &[("ports", "port"), ("conditions", "type"), ("taints", "key"), ("addresses", "type"), ("ownerReferences", "uid")];

impl Patch {
    /// From a body and its content type.
    ///
    /// # Errors
    /// 415 for a format not known here (JSON patch), 400 for a body that cannot be parsed.
    pub(super) fn parse(content_type: &str, body: &[u8]) -> Result<Self, Status> {
        let unreadable = |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {error}"));
        let json = || serde_json::from_slice(body).map_err(|error| unreadable(&error));
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(Self::Merge(json()?)),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(json()?)),
            "application/apply-patch+yaml" => {
                let text = std::str::from_utf8(body).map_err(|error| unreadable(&error))?;
                Ok(Self::Apply(serde_saphyr::from_str(text).map_err(|error| unreadable(&error))?))
            }
            other => Err(Status::unsupported_media_type(other)),
        }
    }

    pub(super) fn apply_to(&self, target: &mut Value) {
        match self {
            Self::Merge(patch) => merge(target, patch, false),
            Self::Strategic(patch) | Self::Apply(patch) => merge(target, patch, true),
        }
    }
}

fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, value) in patch {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(name);
            }
            continue;
        }
        let merge_key = MERGE_KEYS.iter().find(|(list, _)| strategic && list == name).map(|(_, key)| *key);
        match (merge_key, target[name].as_array_mut(), value.as_array()) {
            (Some(key), Some(list), Some(entries)) if entries.iter().all(|entry| !entry[key].is_null()) => {
                merge_list(list, entries, key);
            }
            _ => merge(&mut target[name], value, strategic),
        }
    }
}

fn merge_list(list: &mut Vec<Value>, entries: &[Value], key: &str) {
    for entry in entries {
        let found = list.iter().position(|old| old[key] == entry[key]);
        match (found, entry["$patch"] == "delete") {
            (Some(at), true) => drop(list.remove(at)),
            (Some(at), false) => merge(&mut list[at], entry, true),
            (None, true) => {}
            (None, false) => list.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: &Patch) -> Value {
        patch.apply_to(&mut target);
        target
    }

    /// The table of RFC 7386, appendix A.
    #[test]
    fn the_examples_of_the_merge_patch_rfc() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            assert_eq!(patched(target.clone(), &Patch::Merge(patch.clone())), result, "{target} + {patch}");
        }
    }

    #[test]
    fn a_strategic_patch_merges_ports_by_number() {
        let target =
            json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}], "externalIPs": ["1.1.1.1"]}});
        let patch = json!({"spec": {"ports": [{"port": 81, "name": "c"}, {"port": 80, "$patch": "delete"}, {"port": 82}],
            "externalIPs": ["2.2.2.2"]}});
        let expected = json!({"spec": {"ports": [{"port": 81, "name": "c"}, {"port": 82}], "externalIPs": ["2.2.2.2"]}});
        assert_eq!(patched(target, &Patch::Strategic(patch)), expected);
    }
}
