//! The table of resources: everything the server knows of a kind is one row here.

use std::borrow::Cow;

use super::schema::Schema;

/// One resource: its names, its scope and the rules that its objects follow.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: Cow<'static, str>,
    /// Version: `v1`.
    pub version: Cow<'static, str>,
    /// Name in paths: `endpointslices`.
    pub plural: Cow<'static, str>,
    /// `EndpointSlice`.
    pub kind: Cow<'static, str>,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Has a `status` subresource: then a write of the object leaves the status alone, and the other way round.
    pub status: bool,
    /// Counts changes of its spec in `metadata.generation`.
    pub generation: bool,
    /// An update may come without a resourceVersion.
    pub unconditional: bool,
    /// Fields that a field selector may name besides `metadata.name` and `metadata.namespace`, and where they are (JSON pointer).
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// What an empty object of the kind prints after its metadata: the body of a bookmark.
    pub(super) empty: &'static str,
    /// Defaults, allocation and validation.
    pub(super) rules: Rules,
    /// Of a custom resource whose definition has one.
    pub(super) schema: Option<Schema>,
    /// A write of the status takes labels, annotations and all other metadata along. So do the strategies of the oldest kinds; custom
    /// resources and younger kinds put back what was there (`ResetObjectMetaForStatus`).
    pub(super) status_takes_metadata: bool,
}

/// Which defaults and checks a kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Addresses and ports are allocated.
    Service,
    EndpointSlice,
    Node,
    Namespace,
    ServiceCidr,
    /// Stored as given.
    None,
}

const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

const REGARDING_FIELDS: &[(&str, &str)] = &[
    ("regarding.kind", "/regarding/kind"),
    ("regarding.namespace", "/regarding/namespace"),
    ("regarding.name", "/regarding/name"),
    ("regarding.uid", "/regarding/uid"),
    ("reason", "/reason"),
    ("reportingController", "/reportingController"),
    ("type", "/type"),
];

impl Resource {
    /// A custom resource, as a CustomResourceDefinition would register it: stored as given, with a generation.
    #[must_use]
    pub fn custom(group: &str, version: &str, plural: &str, kind: &str, namespaced: bool, status: bool) -> Self {
        Self {
            group: Cow::Owned(group.to_owned()),
            version: Cow::Owned(version.to_owned()),
            plural: Cow::Owned(plural.to_owned()),
            kind: Cow::Owned(kind.to_owned()),
            namespaced,
            status,
            generation: true,
            unconditional: false,
            fields: &[],
            empty: "",
            rules: Rules::None,
            schema: None,
            status_takes_metadata: false,
        }
    }

    const fn builtin(group: &'static str, plural: &'static str, kind: &'static str) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed("v1"),
            plural: Cow::Borrowed(plural),
            kind: Cow::Borrowed(kind),
            namespaced: true,
            status: false,
            generation: false,
            unconditional: true,
            fields: &[],
            empty: "",
            rules: Rules::None,
            schema: None,
            status_takes_metadata: false,
        }
    }

    /// What every double serves: all that sheave reads or writes of Kubernetes' own API.
    pub(super) fn all_builtin() -> Vec<Self> {
        vec![
            Self {
                namespaced: false,
                status: true,
                empty: r#","spec":{},"status":{}"#,
                rules: Rules::Namespace,
                status_takes_metadata: true,
                ..Self::builtin("", "namespaces", "Namespace")
            },
            Self {
                namespaced: false,
                status: true,
                fields: &[("spec.unschedulable", "/spec/unschedulable")],
                empty: r#","spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"","systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"","kubeProxyVersion":"","operatingSystem":"","architecture":""}}"#,
                rules: Rules::Node,
                status_takes_metadata: true,
                ..Self::builtin("", "nodes", "Node")
            },
            Self {
                status: true,
                fields: &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")],
                empty: r#","spec":{},"status":{"loadBalancer":{}}"#,
                rules: Rules::Service,
                status_takes_metadata: true,
                ..Self::builtin("", "services", "Service")
            },
            Self { fields: EVENT_FIELDS, ..Self::builtin("", "events", "Event") },
            Self { fields: &[("type", "/type")], ..Self::builtin("", "secrets", "Secret") },
            Self::builtin("", "configmaps", "ConfigMap"),
            Self {
                generation: true,
                empty: r#","addressType":"","endpoints":null,"ports":null"#,
                rules: Rules::EndpointSlice,
                ..Self::builtin("discovery.k8s.io", "endpointslices", "EndpointSlice")
            },
            Self {
                namespaced: false,
                status: true,
                empty: r#","spec":{},"status":{}"#,
                rules: Rules::ServiceCidr,
                ..Self::builtin("networking.k8s.io", "servicecidrs", "ServiceCIDR")
            },
            Self { empty: r#","spec":{}"#, unconditional: false, ..Self::builtin("coordination.k8s.io", "leases", "Lease") },
            Self { fields: REGARDING_FIELDS, ..Self::builtin("events.k8s.io", "events", "Event") },
        ]
    }

    /// The resource as errors name it: `services`, `leases.coordination.k8s.io`.
    #[must_use]
    pub fn name(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `v1` or `group/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// True for the plural (`leases`) and for the full name (`leases.coordination.k8s.io`).
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some((plural, group)) => self.plural == plural && self.group == group,
            None => self.plural == name,
        }
    }
}
