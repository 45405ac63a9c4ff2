//! MetalLB's resources as we define them, and what the decoder reads of their objects: the same fields, neither more nor less.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sheave::model::Interner;
use sheave::source::decode::{self, Decoded};
use sheave::source::{Kind, Object};

use super::{manifests, objects};

fn definition(plural: &str) -> Value {
    let mut objects = objects(&manifests("crds").join(format!("{plural}.yaml"))).unwrap();
    assert_eq!(objects.len(), 1, "{plural}");
    objects.remove(0)
}

fn schema(plural: &str) -> Value {
    definition(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// An object of each kind that is read, with every field.
fn samples() -> [(Kind, &'static str, Value); 2] {
    let selectors = json!([{"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}]}]);
    let metadata = json!({"name": "x", "namespace": "metallb-system"});
    let pool = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata,
        "spec": {"addresses": ["10.0.0.0/24"], "autoAssign": false, "avoidBuggyIPs": true,
            "serviceAllocation": {"priority": 7, "namespaces": ["n"], "namespaceSelectors": selectors, "serviceSelectors": selectors}},
        "status": {"assignedIPv4": 1, "assignedIPv6": 2, "availableIPv4": 3, "availableIPv6": 4}
    });
    let advertisement = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": metadata,
        "spec": {"ipAddressPools": ["x"], "ipAddressPoolSelectors": selectors, "nodeSelectors": selectors, "interfaces": ["eth0"],
            "serviceSelectors": selectors, "preferredNodeSelectors": [{"weight": 1, "preference": selectors[0]}]},
        "status": {}
    });
    [(Kind::AddressPool, "ipaddresspools", pool), (Kind::Advertisement, "l2advertisements", advertisement)]
}

/// The object, and the fields that something is wrong with.
fn decoded(kind: Kind, value: &Value) -> (Object, Vec<String>) {
    let decoded = decode::from_json(kind, value.to_string().as_bytes(), &mut Interner::default()).unwrap();
    let object = if let Decoded::Object(object) = decoded { Some(object) } else { None }.unwrap();
    let problems = match &object {
        Object::AddressPool(pool) => Some(&pool.problems),
        Object::Advertisement(advertisement) => Some(&advertisement.problems),
        _ => None,
    };
    let fields = problems.unwrap().iter().map(|problem| problem.field.clone()).collect();
    (object, fields)
}

/// Paths of all properties, lists left out of them: `spec.nodeSelectors.matchLabels`.
fn properties(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        properties(inner, &path, found);
        properties(&inner["items"], &path, found);
        found.insert(path);
    }
}

/// The same of an object; what is in `matchLabels` is anybody's.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) if !path.ends_with("matchLabels") && path != "metadata" => {
            for (name, inner) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fields(inner, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, path, found)),
        _ => {}
    }
}

/// JSON pointers to everything in an object.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, inner)| (name.clone(), inner)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(place, inner)| (place.to_string(), inner)).collect(),
        _ => Vec::new(),
    };
    for (name, inner) in inner {
        let at = format!("{at}/{name}");
        pointers(inner, &at, found);
        found.push(at);
    }
}

/// As a problem names it: `spec.addresses[0]`.
fn field_of(pointer: &str) -> String {
    let mut field = String::new();
    for part in pointer.split('/').filter(|part| !part.is_empty()) {
        match part.parse::<usize>() {
            Ok(place) => field.push_str(&format!("[{place}]")),
            Err(_) if field.ends_with("matchLabels") => field.push_str(&format!("[{part}]")),
            Err(_) if field.is_empty() => field.push_str(part),
            Err(_) => field.push_str(&format!(".{part}")),
        }
    }
    field
}

#[test]
fn the_samples_have_every_field_of_the_schemas_and_no_other() {
    for (kind, plural, sample) in samples() {
        let (mut of_schema, mut of_sample) = (BTreeSet::new(), BTreeSet::new());
        properties(&schema(plural), "", &mut of_schema);
        fields(&sample, "", &mut of_sample);
        assert_eq!(of_schema, of_sample, "{plural}");
        assert_eq!(decoded(kind, &sample).1, [""; 0], "{plural}");
    }
}

#[test]
fn every_field_of_a_schema_is_read() {
    for (kind, plural, sample) in samples() {
        let whole = decoded(kind, &sample).0;
        let mut found = Vec::new();
        pointers(&sample, "", &mut found);
        for pointer in found.iter().filter(|pointer| pointer.starts_with("/spec") || pointer.starts_with("/status/")) {
            let mut spoilt = sample.clone();
            let value = spoilt.pointer_mut(pointer).unwrap();
            *value = if value.is_boolean() { json!(5) } else { json!(true) };
            let (object, problems) = decoded(kind, &spoilt);
            assert_ne!(object, whole, "{plural}: {pointer} is not read");
            // A status that makes no sense is written anew, and is nobody's fault.
            let is_named = problems.iter().any(|field| *field == field_of(pointer));
            assert!(is_named || pointer.starts_with("/status"), "{plural}: {pointer} in {problems:?}");
        }
    }
}

/// Fields of these kinds, of the other one and of what else is decoded, put where the schema has none of that name: an API server would
/// have taken them out.
#[test]
fn nothing_is_read_that_no_schema_has() {
    let mut names: BTreeSet<String> =
        ["type", "selector", "clusterIP", "ports", "loadBalancerIP", "cidrs", "podCIDRs", "taints", "ip"]
            .map(str::to_owned)
            .into();
    for (_, _, sample) in samples() {
        let mut found = BTreeSet::new();
        fields(&sample, "", &mut found);
        names.extend(found.iter().filter_map(|path| path.rsplit('.').next()).map(str::to_owned));
    }
    for (kind, plural, sample) in samples() {
        let whole = decoded(kind, &sample);
        let mut places = vec![String::new()];
        pointers(&sample, "", &mut places);
        places.retain(|place| !place.starts_with("/metadata") && !place.ends_with("matchLabels"));
        for place in places.iter().filter(|place| sample.pointer(place).is_some_and(Value::is_object)) {
            for name in &names {
                let mut more = sample.clone();
                let members = more.pointer_mut(place).and_then(Value::as_object_mut).unwrap();
                if !members.contains_key(name) {
                    members.insert(name.clone(), json!([true]));
                    assert_eq!(decoded(kind, &more), whole, "{plural}: {place}/{name} is read");
                }
            }
        }
    }
}

#[test]
fn definitions_are_those_that_users_of_metallb_know() {
    let plurals = ["configurationstates", "ipaddresspools", "l2advertisements", "servicel2statuses"];
    let mut files: Vec<_> =
        std::fs::read_dir(manifests("crds")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, plurals.map(|plural| format!("{plural}.yaml")));
    for plural in plurals {
        let definition = definition(plural);
        assert_eq!(definition["metadata"]["name"], format!("{plural}.metallb.io"));
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(definition["spec"]["scope"], "Namespaced");
        let version = &definition["spec"]["versions"][0];
        assert_eq!((&version["name"], &version["served"], &version["storage"]), (&json!("v1beta1"), &json!(true), &json!(true)));
        assert!(version["subresources"]["status"].is_object(), "{plural}");
        every_field_is_described(&version["schema"]["openAPIV3Schema"], plural);
    }
    let columns = |plural: &str| {
        let definition = definition(plural);
        let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
        columns.iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(columns("ipaddresspools"), ["Auto Assign", "Avoid Buggy IPs", "Addresses"]);
    assert_eq!(columns("l2advertisements"), ["IPAddressPools", "IPAddressPool Selectors", "Interfaces", "Node Selectors"]);
    assert_eq!(columns("servicel2statuses"), ["Allocated Node", "Service Name", "Service Namespace"]);
    let status = &schema("servicel2statuses")["properties"]["status"]["properties"];
    for field in ["node", "serviceName", "serviceNamespace"] {
        assert_eq!(status[field]["x-kubernetes-validations"][0]["rule"], "self == oldSelf", "{field}");
    }
}

/// `kubectl explain` has nothing else to say.
fn every_field_is_described(schema: &Value, path: &str) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let is_usual = ["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str());
        assert!(is_usual || inner["description"].is_string(), "{path}");
        assert!(inner["type"].is_string(), "{path}");
        every_field_is_described(inner, &path);
        every_field_is_described(&inner["items"], &path);
    }
}
