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

/// Every field of all of them.
static KNOWN: LazyLock<HashSet<&[u8]>> = LazyLock::new(|| {
    let mut known = HashSet::new();
    let mut levels = vec![&SERVICE, &ENDPOINT_SLICE];
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
        let (service, slice) = (&SERVICE, &ENDPOINT_SLICE);
        let status = ["items", "code", "reason", "message", "details"];
        held::<wire::Document<'_>>(&[service, slice], &[], &status);
        held::<wire::Metadata<'_>>(&[service], &["metadata"], &["resourceVersion", "continue", "deletionTimestamp"]);
        held::<wire::Spec<'_>>(&[service], &["spec"], &["podCIDR", "podCIDRs", "taints", "cidrs"]);
        held::<wire::SessionAffinityConfig>(&[service], &["spec", "sessionAffinityConfig"], &[]);
        held::<wire::ClientIp>(&[service], &["spec", "sessionAffinityConfig", "clientIP"], &[]);
        held::<wire::Port<'_>>(&[service], &["spec", "ports"], &[]);
        held::<wire::Status<'_>>(&[service], &["status"], &["addresses"]);
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
