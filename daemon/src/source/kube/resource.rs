//! What is asked of the API server: paths, selectors and parameters. Those of a service proxy are exactly as kube-proxy v1.36.2 asks
//! (`cmd/kube-proxy/app/server.go`); those of the load balancer are what MetalLB v0.16.1 reads.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::KubeOptions;
use crate::source::Kind;

/// One resource that is watched.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) kind: Kind,
    /// Name of the stream, in marks, logs and metrics.
    pub(super) stream: &'static str,
    path: Cow<'static, str>,
    labels: &'static str,
    fields: String,
    /// Objects per page of a list. Pages are for the server's sake; ours are cut into objects as they arrive.
    page: u32,
    /// What it means that a server does not have it.
    pub(super) absence: Absence,
}

/// What it means that a server does not have a resource (404).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// Every server has it.
    Failure,
    /// A server of an older version, which has none of it.
    Older,
    /// Its CustomResourceDefinition is not installed, or not any more, and may be at any time.
    NotInstalled {
        /// Objects that were there are taken for gone, once the server has said so twice. Otherwise they stay until there is a list
        /// again: who deletes definitions (`helm uninstall metallb` does) must not silence what is announced.
        is_end: bool,
    },
}

/// Which objects of a cluster are watched, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watches {
    /// What a service proxy serves, and what it has to know of its own node.
    #[default]
    ServiceProxy,
    /// What tells a node whether it may announce addresses, and which: pools and L2Advertisements.
    Announcer,
    /// Our own Node as a candidate for announcing: where advertisements select by labels.
    OwnPeer,
    /// All Nodes: what a node that may announce has to know of the others. For such nodes alone: a Node changes every five minutes at
    /// least, and 5,000 of them that watch each other would make the server send 83,000 events a second.
    Peers,
    /// What giving addresses to Services takes: all Services, whoever's and of whatever class, pools, L2Advertisements, Namespaces and
    /// Nodes. Services of a class or a proxy of somebody's own are among them because what they hold, nobody else may be given.
    Controller,
}

/// Where a list is to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From<'a> {
    /// Whatever the server's watch cache holds, however old: the cheapest, and enough at start.
    Cache,
    /// At least as new as this version: never back in time, even with another server.
    NotOlderThan(&'a str),
    /// The store itself.
    Store,
}

impl Watches {
    /// Everything that is watched.
    pub(super) fn resources(self, options: &KubeOptions) -> Vec<Resource> {
        let everyones = |kind, stream, path| Resource {
            kind,
            stream,
            path: Cow::Borrowed(path),
            labels: "",
            fields: String::new(),
            page: 500,
            absence: Absence::Failure,
        };
        match self {
            Self::ServiceProxy => service_proxy(options).into(),
            Self::Announcer => metallb(options, false).into(),
            Self::OwnPeer => vec![Resource {
                fields: format!("metadata.name={}", options.node_name),
                ..everyones(Kind::Peer, "own-peer", "/api/v1/nodes")
            }],
            Self::Peers => vec![everyones(Kind::Peer, "peers", "/api/v1/nodes")],
            Self::Controller => {
                let [pools, advertisements] = metallb(options, true);
                vec![
                    pools,
                    advertisements,
                    everyones(Kind::Peer, "peers", "/api/v1/nodes"),
                    everyones(Kind::Namespace, "namespaces", "/api/v1/namespaces"),
                    everyones(Kind::Service, "services", "/api/v1/services"),
                ]
            }
        }
    }
}

/// MetalLB's own objects: of one namespace, where it is given. Else all of them, since in which namespace they are is only seen so; this
/// takes leave to list and watch them in the whole cluster (docs/decisions/metallb-namespace.md).
fn metallb(options: &KubeOptions, is_end: bool) -> [Resource; 2] {
    let resource = |kind, stream: &'static str| Resource {
        kind,
        stream,
        path: match &options.metallb_namespace {
            Some(namespace) => format!("/apis/metallb.io/v1beta1/namespaces/{namespace}/{stream}").into(),
            None => format!("/apis/metallb.io/v1beta1/{stream}").into(),
        },
        labels: "",
        fields: String::new(),
        page: 500,
        absence: Absence::NotInstalled { is_end },
    };
    [resource(Kind::AddressPool, "ipaddresspools"), resource(Kind::Advertisement, "l2advertisements")]
}

/// As kube-proxy.
fn service_proxy(options: &KubeOptions) -> [Resource; 5] {
    let not_headless = if options.headless { "" } else { "spec.clusterIP!=None" };
    let resource = |kind, stream, path, labels, fields: &str, page| Resource {
        kind,
        stream,
        path: Cow::Borrowed(path),
        labels,
        fields: fields.to_owned(),
        page,
        absence: Absence::Failure,
    };
    let slices = if options.headless { "" } else { "!service.kubernetes.io/headless" };
    [
        resource(Kind::Node, "nodes", "/api/v1/nodes", "", &format!("metadata.name={}", options.node_name), 500),
        Resource {
            absence: Absence::Older,
            ..resource(Kind::ServiceCidr, "servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", "", "", 500)
        },
        resource(
            Kind::ForeignService,
            "foreign-services",
            "/api/v1/services",
            "service.kubernetes.io/service-proxy-name",
            not_headless,
            500,
        ),
        resource(Kind::Service, "services", "/api/v1/services", "!service.kubernetes.io/service-proxy-name", not_headless, 500),
        resource(Kind::EndpointSlice, "endpointslices", "/apis/discovery.k8s.io/v1/endpointslices", slices, "", 100),
    ]
}

impl Resource {
    /// A list, or the next page of one. `paged` false asks for everything at once.
    pub(super) fn list(&self, from: From<'_>, paged: bool, next: Option<&str>) -> String {
        let mut query = self.query();
        if paged {
            query.add("limit", &self.page.to_string());
        }
        match (next, from) {
            (Some(token), _) => query.add("continue", token),
            (None, From::Cache) => query.add("resourceVersion", "0"),
            (None, From::NotOlderThan(version)) => {
                query.add("resourceVersion", version);
                query.add("resourceVersionMatch", "NotOlderThan");
            }
            (None, From::Store) => {}
        }
        query.uri
    }

    /// The least that tells the version of the store: one object, whatever its labels, since the store would look through all of them
    /// for one that has none of these. From the store itself: a cache answers with what it has.
    pub(super) fn version(&self) -> String {
        let mut query = self.query_of("");
        query.add("limit", "1");
        query.uri
    }

    /// A watch that begins with everything there is (KEP-3157) and goes on from there.
    pub(super) fn streaming_list(&self, from: From<'_>, seconds: u64) -> String {
        let mut query = self.watch_query(seconds);
        query.add("sendInitialEvents", "true");
        query.add("resourceVersionMatch", "NotOlderThan");
        match from {
            From::Cache => query.add("resourceVersion", "0"),
            From::NotOlderThan(version) => query.add("resourceVersion", version),
            From::Store => {}
        }
        query.uri
    }

    /// A watch of what has happened since a version.
    pub(super) fn watch(&self, version: &str, seconds: u64) -> String {
        let mut query = self.watch_query(seconds);
        query.add("resourceVersion", version);
        query.uri
    }

    fn watch_query(&self, seconds: u64) -> Query {
        let mut query = self.query();
        query.add("watch", "true");
        query.add("allowWatchBookmarks", "true");
        query.add("timeoutSeconds", &seconds.to_string());
        query
    }

    fn query(&self) -> Query {
        self.query_of(self.labels)
    }

    fn query_of(&self, labels: &str) -> Query {
        let mut query = Query { uri: self.path.clone().into_owned(), separator: '?' };
        if !self.fields.is_empty() {
            query.add("fieldSelector", &self.fields);
        }
        if !labels.is_empty() {
            query.add("labelSelector", labels);
        }
        query
    }
}

struct Query {
    uri: String,
    separator: char,
}

impl Query {
    /// Appends `key=value`, the value percent-encoded but for RFC 3986's unreserved characters.
    fn add(&mut self, key: &str, value: &str) {
        self.uri.push(std::mem::replace(&mut self.separator, '&'));
        self.uri.push_str(key);
        self.uri.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.uri.push(char::from(byte));
            } else {
                write!(self.uri, "%{byte:02X}").expect("a String takes everything");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_that_were_recorded() {
        let [nodes, _, foreign, services, slices] =
            service_proxy(&KubeOptions { node_name: "node-a".into(), ..KubeOptions::default() });
        assert_eq!(nodes.list(From::Store, false, None), "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-a");
        assert_eq!(
            services.list(From::Store, true, None),
            "/api/v1/services?fieldSelector=spec.clusterIP%21%3DNone&labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&limit=500"
        );
        assert_eq!(
            slices.streaming_list(From::Store, 4),
            "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless&watch=true&allowWatchBookmarks=true\
             &timeoutSeconds=4&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        );
        assert!(slices.list(From::Cache, true, Some("a+b=")).ends_with("&limit=100&continue=a%2Bb%3D"));
        assert!(foreign.watch("7", 300).contains("labelSelector=service.kubernetes.io%2Fservice-proxy-name&watch=true"));
        assert!(
            services.list(From::NotOlderThan("9"), true, None).ends_with("&resourceVersion=9&resourceVersionMatch=NotOlderThan")
        );
    }

    #[test]
    fn headless_services_are_asked_for_where_they_are_wanted() {
        for resource in service_proxy(&KubeOptions { headless: true, node_name: "n".into(), ..KubeOptions::default() }) {
            assert!(!resource.watch("1", 1).contains("headless") && !resource.watch("1", 1).contains("clusterIP"));
        }
    }

    #[test]
    fn the_load_balancer_asks_for_everything_but_in_one_namespace_if_one_is_given() {
        let asked = |watches: Watches, namespace: Option<&str>| {
            let options =
                KubeOptions { node_name: "n".into(), metallb_namespace: namespace.map(Into::into), ..KubeOptions::default() };
            let resources = watches.resources(&options);
            resources.iter().map(|resource| resource.list(From::Store, false, None)).collect::<Vec<_>>()
        };
        let group = "/apis/metallb.io/v1beta1";
        let everywhere = ["ipaddresspools", "l2advertisements"].map(|kind| format!("{group}/{kind}"));
        assert_eq!(asked(Watches::Announcer, None), everywhere);
        let given = ["ipaddresspools", "l2advertisements"].map(|kind| format!("{group}/namespaces/lb/{kind}"));
        assert_eq!(asked(Watches::Announcer, Some("lb")), given);
        assert_eq!(asked(Watches::Peers, None), ["/api/v1/nodes"]);
        assert_eq!(asked(Watches::OwnPeer, None), ["/api/v1/nodes?fieldSelector=metadata.name%3Dn"]);
        let core = ["nodes", "namespaces", "services"].map(|kind| format!("/api/v1/{kind}"));
        assert_eq!(asked(Watches::Controller, None), [&everywhere[..], &core].concat());
        assert_eq!(asked(Watches::Controller, Some("lb")), [&given[..], &core].concat());
    }
}
