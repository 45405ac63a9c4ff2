//! Fields that are no field but for their case: `nodeport`, `Ready`.
//!
//! An API server tells of every field that it does not know. Here they are passed over, since a later Kubernetes may know them; but one
//! that equals a field we read cannot mean anything else, and what it says would be missed: an endpoint that is not ready is served.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::documents::title;
use super::kinds;
use crate::config::tree::Tree;
use crate::source::Kind;

/// The fields of an object that are read, and those within; lists count as what they hold.
struct Fields(&'static [(&'static str, Fields)]);

/// A field that is read as it is, or in which nothing is looked for.
const PLAIN: Fields = Fields(&[]);

const METADATA: Fields = Fields(&[
    ("name", PLAIN),
    ("namespace", PLAIN),
    ("uid", PLAIN),
    ("creationTimestamp", PLAIN),
    ("labels", PLAIN),
    ("annotations", PLAIN),
]);

const SERVICE: Fields = Fields(&[
    ("apiVersion", PLAIN),
    ("kind", PLAIN),
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("type", PLAIN),
            ("clusterIP", PLAIN),
            ("clusterIPs", PLAIN),
            ("ipFamilies", PLAIN),
            ("externalName", PLAIN),
            ("externalIPs", PLAIN),
            ("loadBalancerSourceRanges", PLAIN),
            ("internalTrafficPolicy", PLAIN),
            ("externalTrafficPolicy", PLAIN),
            ("trafficDistribution", PLAIN),
            ("sessionAffinity", PLAIN),
            ("ipFamilyPolicy", PLAIN),
            ("loadBalancerClass", PLAIN),
            ("loadBalancerIP", PLAIN),
            ("selector", PLAIN),
            ("sessionAffinityConfig", Fields(&[("clientIP", Fields(&[("timeoutSeconds", PLAIN)]))])),
            ("healthCheckNodePort", PLAIN),
            (
                "ports",
                Fields(&[("name", PLAIN), ("protocol", PLAIN), ("port", PLAIN), ("nodePort", PLAIN), ("targetPort", PLAIN)]),
            ),
        ]),
    ),
    ("status", Fields(&[("loadBalancer", Fields(&[("ingress", Fields(&[("ip", PLAIN), ("ipMode", PLAIN)]))]))])),
]);

const ENDPOINT_SLICE: Fields = Fields(&[
    ("apiVersion", PLAIN),
    ("kind", PLAIN),
    ("metadata", METADATA),
    ("addressType", PLAIN),
    (
        "endpoints",
        Fields(&[
            ("addresses", PLAIN),
            ("conditions", Fields(&[("ready", PLAIN), ("serving", PLAIN), ("terminating", PLAIN)])),
            ("nodeName", PLAIN),
            ("hints", Fields(&[("forZones", Fields(&[("name", PLAIN)])), ("forNodes", Fields(&[("name", PLAIN)]))])),
        ]),
    ),
    ("ports", Fields(&[("name", PLAIN), ("protocol", PLAIN), ("port", PLAIN)])),
]);

/// `metav1.LabelSelector`.
const SELECTOR: Fields =
    Fields(&[("matchLabels", PLAIN), ("matchExpressions", Fields(&[("key", PLAIN), ("operator", PLAIN), ("values", PLAIN)]))]);

const ADDRESS_POOL: Fields = Fields(&[
    ("apiVersion", PLAIN),
    ("kind", PLAIN),
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("addresses", PLAIN),
            ("autoAssign", PLAIN),
            ("avoidBuggyIPs", PLAIN),
            (
                "serviceAllocation",
                Fields(&[
                    ("priority", PLAIN),
                    ("namespaces", PLAIN),
                    ("namespaceSelectors", SELECTOR),
                    ("serviceSelectors", SELECTOR),
                ]),
            ),
        ]),
    ),
]);

const ADVERTISEMENT: Fields = Fields(&[
    ("apiVersion", PLAIN),
    ("kind", PLAIN),
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("ipAddressPools", PLAIN),
            ("ipAddressPoolSelectors", SELECTOR),
            ("nodeSelectors", SELECTOR),
            ("interfaces", PLAIN),
            ("serviceSelectors", SELECTOR),
            ("preferredNodeSelectors", Fields(&[("weight", PLAIN), ("preference", SELECTOR)])),
        ]),
    ),
]);

/// Every field of all of them.
static KNOWN: LazyLock<HashSet<&[u8]>> = LazyLock::new(|| {
    let mut known = HashSet::new();
    let mut levels = vec![&SERVICE, &ENDPOINT_SLICE, &ADDRESS_POOL, &ADVERTISEMENT];
    while let Some(Fields(fields)) = levels.pop() {
        known.extend(fields.iter().map(|(name, _)| name.as_bytes()));
        levels.extend(fields.iter().map(|(_, within)| within));
    }
    known
});

/// The same in lower case.
static KNOWN_BUT_FOR_CASE: LazyLock<HashSet<Vec<u8>>> =
    LazyLock::new(|| KNOWN.iter().map(|name| name.to_ascii_lowercase()).collect());

/// Whether a file may hold such a field: nearly none does, and those are not read a second time. A word before a colon that is a field
/// but for its case is enough, wherever it stands.
pub(super) fn suspected(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b':', bytes).any(|colon| {
        let before = bytes[..colon].trim_ascii_end();
        let before = before.strip_suffix(b"\"").or_else(|| before.strip_suffix(b"'")).unwrap_or(before);
        let begin = before.iter().rposition(|byte| !byte.is_ascii_alphabetic()).map_or(0, |place| place + 1);
        let word = &before[begin..];
        // Exactly so first: nearly every word is, and needs no copy.
        !KNOWN.contains(word) && KNOWN_BUT_FOR_CASE.contains(&word.to_ascii_lowercase())
    })
}

/// A line for each field of a document, the items of a list included. `number` is the document's.
pub(super) fn in_document(document: &Tree, number: usize, say: &mut impl FnMut(String)) {
    let kind = document.get("kind").and_then(Tree::text).unwrap_or_default();
    match (kind.strip_suffix("List"), document.get("items")) {
        (Some(of), Some(Tree::List(items))) => {
            for (place, item) in items.iter().enumerate() {
                in_object(item, of, &format!("items[{place}]."), number, say);
            }
        }
        _ => in_object(document, kind, "", number, say),
    }
}

fn in_object(object: &Tree, kind: &str, path: &str, number: usize, say: &mut impl FnMut(String)) {
    let text = |key| object.get(key).and_then(Tree::text);
    let kind = text("kind").unwrap_or(kind);
    let fields = match kinds::recognise(text("apiVersion").unwrap_or_default(), kind) {
        Some(recognised) if recognised.kind == Kind::Service => SERVICE,
        Some(recognised) if recognised.kind == Kind::EndpointSlice => ENDPOINT_SLICE,
        Some(recognised) if recognised.kind == Kind::AddressPool => ADDRESS_POOL,
        Some(recognised) if recognised.kind == Kind::Advertisement => ADVERTISEMENT,
        _ => return,
    };
    let title = title(Some(kind), object.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Tree::text));
    within(object, &fields, path, &mut |path: &str, key: &str, meant: &str| {
        say(format!("{path}{key} of document {number}{title} is not read: did you mean {meant}?"));
    });
}

fn within(tree: &Tree, Fields(fields): &Fields, path: &str, say: &mut impl FnMut(&str, &str, &str)) {
    match tree {
        Tree::Null | Tree::Scalar(_) => {}
        Tree::List(items) => {
            let path = path.trim_end_matches('.');
            items.iter().enumerate().for_each(|(place, item)| within(item, &Fields(fields), &format!("{path}[{place}]."), say));
        }
        Tree::Object(entries) => {
            for (key, value) in entries {
                match fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)) {
                    Some((name, inner)) if name == key => within(value, inner, &format!("{path}{key}."), say),
                    Some((name, _)) => say(path, key, name),
                    None => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::source::decode::wire;

    #[test]
    fn only_a_name_that_differs_by_case_is_suspected() {
        for text in ["nodeport: 1", "{Ready: false}", r#"{"externalips" : []}"#, "a:\n  'ClusterIP': x", "Kind: Service"] {
            assert!(suspected(text.as_bytes()), "{text}");
        }
        for text in
            ["", ":", "ready: true\nnodePort: 1\nclusterIPs: []", "Ready", "app: READY", "# of ports", "myready: 1", "fd00::1"]
        {
            assert!(!suspected(text.as_bytes()), "{text}");
        }
    }

    /// Those of `spec`: a status is written by controllers.
    fn is_the_schemas(schema: &serde_json::Value, Fields(fields): &Fields, path: &str) {
        let schema = if schema["items"].is_null() { schema } else { &schema["items"] };
        let mut names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let of_schema: Vec<_> = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, of_schema, "{path}");
        for (name, inner) in *fields {
            is_the_schemas(&schema["properties"][name], inner, &format!("{path}.{name}"));
        }
    }

    #[test]
    fn metallbs_fields_are_those_of_our_definitions() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
        for (plural, Fields(fields)) in [("ipaddresspools", ADDRESS_POOL), ("l2advertisements", ADVERTISEMENT)] {
            let text = std::fs::read_to_string(directory.join(format!("{plural}.yaml"))).expect("it is there");
            let definition: serde_json::Value = serde_saphyr::from_str(&text).expect("it is YAML");
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let (_, spec) = fields.iter().find(|(name, _)| *name == "spec").expect("all have one");
            is_the_schemas(schema, spec, plural);
        }
    }

    /// The fields of an object on the wire, and what they are here: `within` leads to them, and `other` are not of these kinds, or are
    /// nobody's to write.
    fn held<'a, T: serde::Deserialize<'a>>(of: &[&Fields], within: &[&str], other: &[&str]) {
        let mut listed = BTreeSet::new();
        for Fields(top) in of {
            let mut fields = *top;
            for step in within {
                let found = fields.iter().find(|(name, _)| name == step);
                let Some((_, Fields(next))) = found else { panic!("no {step} in {within:?}") };
                fields = next;
            }
            listed.extend(fields.iter().map(|(name, _)| *name));
        }
        listed.extend(other);
        assert_eq!(listed, fields_of::<T>(), "{within:?}");
    }

    /// What serde's derived code asks for.
    fn fields_of<'a, T: serde::Deserialize<'a>>() -> BTreeSet<&'static str> {
        struct Asked<'f>(&'f mut BTreeSet<&'static str>);

        impl<'de> serde::Deserializer<'de> for Asked<'_> {
            type Error = serde::de::value::Error;

            fn deserialize_struct<V: serde::de::Visitor<'de>>(
                self,
                _name: &'static str,
                fields: &'static [&'static str],
                _visitor: V,
            ) -> Result<V::Value, Self::Error> {
                self.0.extend(fields);
                Err(serde::de::Error::custom("only asked"))
            }

            fn deserialize_any<V: serde::de::Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
                Err(serde::de::Error::custom("no object"))
            }

            serde::forward_to_deserialize_any! {
                bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
                tuple tuple_struct map enum identifier ignored_any
            }
        }

        let mut fields = BTreeSet::new();
        assert!(T::deserialize(Asked(&mut fields)).is_err());
        assert!(!fields.is_empty(), "it is an object");
        fields
    }

    #[test]
    fn what_is_read_is_what_is_listed_here() {
        let (service, slice, pool, advertisement) = (&SERVICE, &ENDPOINT_SLICE, &ADDRESS_POOL, &ADVERTISEMENT);
        let status = ["items", "code", "reason", "message", "details"];
        held::<wire::Document<'_>>(&[service, slice, pool, advertisement], &[], &status);
        held::<wire::Metadata<'_>>(
            &[service],
            &["metadata"],
            &["resourceVersion", "continue", "deletionTimestamp", "generation"],
        );
        let of_nodes = ["podCIDR", "podCIDRs", "taints", "cidrs", "unschedulable"];
        held::<wire::Spec<'_>>(&[service, pool, advertisement], &["spec"], &of_nodes);
        held::<wire::ServiceAllocation<'_>>(&[pool], &["spec", "serviceAllocation"], &[]);
        held::<wire::Preference<'_>>(&[advertisement], &["spec", "preferredNodeSelectors"], &[]);
        held::<wire::LabelSelector<'_>>(&[advertisement], &["spec", "nodeSelectors"], &[]);
        held::<wire::Expression<'_>>(&[advertisement], &["spec", "nodeSelectors", "matchExpressions"], &[]);
        held::<wire::SessionAffinityConfig>(&[service], &["spec", "sessionAffinityConfig"], &[]);
        held::<wire::ClientIp>(&[service], &["spec", "sessionAffinityConfig", "clientIP"], &[]);
        held::<wire::Port<'_>>(&[service], &["spec", "ports"], &[]);
        let of_others = ["addresses", "conditions", "assignedIPv4", "assignedIPv6", "availableIPv4", "availableIPv6"];
        held::<wire::Status<'_>>(&[service], &["status"], &of_others);
        held::<wire::LoadBalancer<'_>>(&[service], &["status", "loadBalancer"], &[]);
        held::<wire::Ingress<'_>>(&[service], &["status", "loadBalancer", "ingress"], &[]);
        held::<wire::Port<'_>>(&[slice], &["ports"], &["nodePort", "targetPort"]);
        held::<wire::Endpoint<'_>>(&[slice], &["endpoints"], &[]);
        held::<wire::Conditions>(&[slice], &["endpoints", "conditions"], &[]);
        held::<wire::Hints<'_>>(&[slice], &["endpoints", "hints"], &[]);
        for hint in ["forZones", "forNodes"] {
            held::<wire::Named<'_>>(&[slice], &["endpoints", "hints", hint], &[]);
        }
    }

    #[test]
    fn no_two_fields_differ_by_case_alone() {
        assert_eq!(KNOWN.len(), KNOWN_BUT_FOR_CASE.len());
    }
}
