//! From a request's path and query to what it asks for.

use http::Method;

use super::resource::Resource;

/// What is asked of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// One object.
    Get,
    /// A collection.
    List,
    /// A stream of changes.
    Watch,
    /// A new object.
    Create,
    /// A replaced object.
    Update,
    /// A changed object.
    Patch,
    /// One object less.
    Delete,
    /// All selected objects less.
    DeleteCollection,
}

/// A path below `/api/v1` or `/apis/group/version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) group: String,
    pub(super) version: String,
    /// Empty for the cluster's level.
    pub(super) namespace: String,
    pub(super) plural: String,
    /// Empty for the collection.
    pub(super) name: String,
    /// `status`, or empty.
    pub(super) subresource: String,
}

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl ResourcePath {
    /// `None` for a path that has not this shape.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/').map(percent_decode).collect::<Option<Vec<_>>>()?.into_iter();
        let group = match parts.next()?.as_str() {
            "api" => String::new(),
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut rest: Vec<String> = parts.collect();
        if rest.iter().any(String::is_empty) {
            return None;
        }
        // `namespaces/x` and `namespaces/x/status` are about the Namespace itself; anything longer is inside of it.
        let inside = rest.len() > 2 && rest[0] == "namespaces" && !(rest.len() == 3 && rest[2] == "status");
        let namespace = if inside { rest.drain(..2).nth(1)? } else { String::new() };
        let mut rest = rest.into_iter();
        let (plural, name, subresource) = (rest.next()?, rest.next().unwrap_or_default(), rest.next().unwrap_or_default());
        if rest.next().is_some() {
            return None;
        }
        Some(Self { group, version, namespace, plural, name, subresource })
    }

    /// The verb of this path, or `None` where the method does not fit.
    pub(super) fn verb(&self, method: &Method, query: &Query) -> Option<Verb> {
        Some(match (method.as_str(), self.name.is_empty()) {
            ("GET", true) if query.flag("watch") => Verb::Watch,
            ("GET", true) => Verb::List,
            ("GET", false) => Verb::Get,
            ("POST", true) => Verb::Create,
            ("PUT", false) => Verb::Update,
            ("PATCH", false) => Verb::Patch,
            ("DELETE", false) => Verb::Delete,
            ("DELETE", true) => Verb::DeleteCollection,
            _ => return None,
        })
    }

    /// A namespaced resource without a namespace can be listed only; a cluster's resource is never inside one.
    pub(super) fn fits(&self, resource: &Resource, verb: Verb) -> bool {
        let scope = if resource.namespaced {
            !self.namespace.is_empty() || (self.name.is_empty() && matches!(verb, Verb::List | Verb::Watch))
        } else {
            self.namespace.is_empty()
        };
        let subresource = match self.subresource.as_str() {
            "" => true,
            "status" => resource.status && matches!(verb, Verb::Get | Verb::Update | Verb::Patch),
            _ => false,
        };
        scope && subresource
    }
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let decode = |text: &str| percent_decode(&text.replace('+', " ")).unwrap_or_default();
        let pair =
            |part: &str| part.split_once('=').map_or_else(|| (decode(part), String::new()), |(k, v)| (decode(k), decode(v)));
        Self(query.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The value, empty where absent.
    pub(super) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }

    /// `true` and `1`, as Go's `ParseBool` takes them.
    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), "true" | "1" | "t" | "T" | "TRUE" | "True")
    }

    /// A number, absent and unreadable alike being none.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }
}

/// `None` where what comes out is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(hex.unwrap_or(byte));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Option<[String; 6]> {
        let ResourcePath { group, version, namespace, plural, name, subresource } = ResourcePath::parse(text)?;
        Some([group, version, namespace, plural, name, subresource])
    }

    #[test]
    fn paths_of_every_shape() {
        let words = |text: &str| Some(text.split('|').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap());
        assert_eq!(path("/api/v1/services"), words("|v1||services||"));
        assert_eq!(path("/api/v1/namespaces/shop/services/web/status"), words("|v1|shop|services|web|status"));
        assert_eq!(path("/api/v1/namespaces/shop"), words("|v1||namespaces|shop|"));
        assert_eq!(path("/api/v1/namespaces/shop/status"), words("|v1||namespaces|shop|status"));
        assert_eq!(
            path("/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"),
            words("discovery.k8s.io|v1|a|endpointslices||")
        );
        for not_a_resource in ["/", "/api", "/apis/x", "/healthz", "/api/v1//services", "/api/v1/services/a/b/c/d"] {
            assert_eq!(path(not_a_resource), None, "{not_a_resource}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("fieldSelector=spec.clusterIP%21%3DNone&labelSelector=a+in+(b%2Cc)&watch=1&limit=x&odd=%zz%");
        assert_eq!(query.get("fieldSelector"), "spec.clusterIP!=None");
        assert_eq!(query.get("labelSelector"), "a in (b,c)");
        assert!(query.flag("watch") && !query.flag("limit") && query.number("limit").is_none());
        assert_eq!(query.get("odd"), "%zz%");
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_breaks_the_parser(path in "[/a-z%.0-9é]{0,40}", query in "\\PC{0,40}") {
            ResourcePath::parse(&path);
            Query::parse(&query);
        }
    }
}
