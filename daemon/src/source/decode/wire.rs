//! Kubernetes objects as they come over the wire: only the fields that are read, each of them lenient.
//!
//! One [`Document`] serves all kinds, because a YAML file and a watch event say what they are only inside the object, in any order,
//! and because their fields do not get in each other's way. `managedFields`, often half of an object, is skipped like every other
//! unknown field, without an allocation.

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess};

use super::field::{Field, First, List, Pairs, Present, Shape, Text, object_shape};

/// Reads JSON. That it is UTF-8 is looked at once and for the whole: left to itself, serde_json looks at every string.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text),
        // What is not UTF-8 may be in a field that nobody reads.
        Err(_) => serde_json::from_slice(bytes),
    }
}

/// Any object: a Service, an EndpointSlice, a Node, an IPAddressPool, a Status ... `Items` is what to do with the items of a List.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a, Items: Shape<'de> + Default"))]
pub(crate) struct Document<'a, Items = Skipped> {
    #[serde(borrow)]
    pub(crate) api_version: Field<Text<'a>>,
    pub(crate) kind: Field<Text<'a>>,
    pub(crate) metadata: Field<Metadata<'a>>,
    pub(crate) spec: Field<Spec<'a>>,
    pub(crate) status: Field<Status<'a>>,
    // EndpointSlice
    pub(crate) address_type: Field<Text<'a>>,
    pub(crate) endpoints: Field<List<Endpoint<'a>>>,
    pub(crate) ports: Field<List<Port<'a>>>,
    // List
    pub(crate) items: Field<Items>,
    // Status
    pub(crate) code: Field<i64>,
    pub(crate) reason: Field<Text<'a>>,
    pub(crate) message: Field<Text<'a>>,
    pub(crate) details: Field<Details>,
}

/// A document that may be a `kind: List`. Lists do not nest: a type that contained itself would let the input choose how much of
/// the stack is used.
pub(crate) type Manifest<'a> = Document<'a, List<Document<'a>>>;

/// Not read, whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata<'a> {
    #[serde(borrow)]
    pub(crate) name: Field<Text<'a>>,
    pub(crate) namespace: Field<Text<'a>>,
    pub(crate) uid: Field<Text<'a>>,
    pub(crate) resource_version: Field<Text<'a>>,
    /// Of a list: the token for its next page.
    pub(crate) r#continue: Field<Text<'a>>,
    pub(crate) creation_timestamp: Field<Text<'a>>,
    pub(crate) deletion_timestamp: Field<Text<'a>>,
    pub(crate) generation: Field<i64>,
    pub(crate) labels: Field<Labels<'a>>,
    pub(crate) annotations: Field<Annotations<'a>>,
}

/// `details` of a Status.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Details {
    pub(crate) retry_after_seconds: Field<i64>,
}

/// All labels, and by name those that mean something to us.
#[derive(Debug, Default)]
pub(crate) struct Labels<'a> {
    /// `kubernetes.io/service-name`.
    pub(crate) service_name: Field<Text<'a>>,
    /// `multicluster.kubernetes.io/service-name`, of a slice of a Service of several clusters (KEP-1645), which has no `service-name`.
    pub(crate) multicluster_service_name: Present,
    /// `service.kubernetes.io/headless`.
    pub(crate) headless: Present,
    /// `service.kubernetes.io/service-proxy-name`.
    pub(crate) service_proxy_name: Present,
    /// `topology.kubernetes.io/zone`.
    pub(crate) zone: Field<Text<'a>>,
    /// Those and all others, in the order given: selectors ask for any of them.
    pub(crate) all: Pairs<'a>,
}

/// The annotations that mean something to us.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Annotations<'a> {
    #[serde(borrow, rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(crate) trigger_time: Field<Text<'a>>,
    /// On the bookmark that ends the first part of a streaming list (KEP-3157).
    #[serde(rename = "k8s.io/initial-events-end")]
    pub(crate) initial_events_end: Field<Text<'a>>,
    #[serde(rename = "service.kubernetes.io/topology-mode")]
    pub(crate) topology_mode: Field<Text<'a>>,
    /// What `topology-mode` was called before 1.27.
    #[serde(rename = "service.kubernetes.io/topology-aware-hints")]
    pub(crate) topology_aware_hints: Field<Text<'a>>,
    /// What `loadBalancerSourceRanges` was before it was a field.
    #[serde(rename = "service.beta.kubernetes.io/load-balancer-source-ranges")]
    pub(crate) source_ranges: Field<Text<'a>>,
    // What a Service asks of the load balancer, by MetalLB's prefix of today and by that of before 0.14.9.
    #[serde(rename = "metallb.io/loadBalancerIPs")]
    pub(crate) addresses: Field<Text<'a>>,
    #[serde(rename = "metallb.universe.tf/loadBalancerIPs")]
    pub(crate) old_addresses: Field<Text<'a>>,
    #[serde(rename = "metallb.io/address-pool")]
    pub(crate) pool: Field<Text<'a>>,
    #[serde(rename = "metallb.universe.tf/address-pool")]
    pub(crate) old_pool: Field<Text<'a>>,
    #[serde(rename = "metallb.io/allow-shared-ip")]
    pub(crate) sharing_key: Field<Text<'a>>,
    #[serde(rename = "metallb.universe.tf/allow-shared-ip")]
    pub(crate) old_sharing_key: Field<Text<'a>>,
    #[serde(rename = "metallb.io/ip-allocated-from-pool")]
    pub(crate) allocated_from: Field<Text<'a>>,
}

/// `spec` of a Service, a Node, a ServiceCIDR, an IPAddressPool or an L2Advertisement.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec<'a> {
    // Service
    #[serde(borrow)]
    pub(crate) r#type: Field<Text<'a>>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Field<Text<'a>>,
    #[serde(rename = "clusterIPs")]
    pub(crate) cluster_ips: Field<List<Text<'a>>>,
    pub(crate) ip_families: Field<List<Text<'a>>>,
    pub(crate) external_name: Field<Text<'a>>,
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: Field<List<Text<'a>>>,
    pub(crate) load_balancer_source_ranges: Field<List<Text<'a>>>,
    pub(crate) internal_traffic_policy: Field<Text<'a>>,
    pub(crate) external_traffic_policy: Field<Text<'a>>,
    pub(crate) traffic_distribution: Field<Text<'a>>,
    pub(crate) session_affinity: Field<Text<'a>>,
    pub(crate) session_affinity_config: Field<SessionAffinityConfig>,
    pub(crate) health_check_node_port: Field<i64>,
    pub(crate) ports: Field<List<Port<'a>>>,
    pub(crate) selector: Field<Pairs<'a>>,
    pub(crate) ip_family_policy: Field<Text<'a>>,
    pub(crate) load_balancer_class: Field<Text<'a>>,
    #[serde(rename = "loadBalancerIP")]
    pub(crate) load_balancer_ip: Field<Text<'a>>,
    // Node
    pub(crate) unschedulable: Field<bool>,
    #[serde(rename = "podCIDR")]
    pub(crate) pod_cidr: Field<Text<'a>>,
    #[serde(rename = "podCIDRs")]
    pub(crate) pod_cidrs: Field<List<Text<'a>>>,
    pub(crate) taints: Field<List<Taint<'a>>>,
    // ServiceCIDR
    pub(crate) cidrs: Field<List<Text<'a>>>,
    // IPAddressPool
    pub(crate) addresses: Field<List<Text<'a>>>,
    pub(crate) auto_assign: Field<bool>,
    #[serde(rename = "avoidBuggyIPs")]
    pub(crate) avoid_buggy_ips: Field<bool>,
    pub(crate) service_allocation: Field<ServiceAllocation<'a>>,
    // L2Advertisement
    pub(crate) ip_address_pools: Field<List<Text<'a>>>,
    pub(crate) ip_address_pool_selectors: Field<List<LabelSelector<'a>>>,
    pub(crate) node_selectors: Field<List<LabelSelector<'a>>>,
    pub(crate) interfaces: Field<List<Text<'a>>>,
    pub(crate) service_selectors: Field<List<LabelSelector<'a>>>,
    pub(crate) preferred_node_selectors: Field<List<Preference<'a>>>,
}

/// `status` of a Service, a Node or an IPAddressPool. (That of a Status object is a string, which nobody asks for.)
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status<'a> {
    #[serde(borrow)]
    pub(crate) load_balancer: Field<LoadBalancer<'a>>,
    pub(crate) addresses: Field<List<NodeAddress<'a>>>,
    pub(crate) conditions: Field<List<StatusCondition<'a>>>,
    #[serde(rename = "assignedIPv4")]
    pub(crate) assigned_v4: Field<i64>,
    #[serde(rename = "assignedIPv6")]
    pub(crate) assigned_v6: Field<i64>,
    #[serde(rename = "availableIPv4")]
    pub(crate) available_v4: Field<i64>,
    #[serde(rename = "availableIPv6")]
    pub(crate) available_v6: Field<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancer<'a> {
    #[serde(borrow)]
    pub(crate) ingress: Field<List<Ingress<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Ingress<'a> {
    #[serde(borrow)]
    pub(crate) ip: Field<Text<'a>>,
    pub(crate) ip_mode: Field<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub(crate) client_ip: Field<ClientIp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ClientIp {
    pub(crate) timeout_seconds: Field<i64>,
}

/// A port of a Service or of a slice.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Port<'a> {
    #[serde(borrow)]
    pub(crate) name: Field<Text<'a>>,
    pub(crate) protocol: Field<Text<'a>>,
    pub(crate) port: Field<i64>,
    pub(crate) node_port: Field<i64>,
    /// Only of a Service, and only to be judged: the slices say where traffic goes.
    pub(crate) target_port: Field<TargetPort<'a>>,
}

/// `intstr.IntOrString`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TargetPort<'a> {
    Number(i64),
    /// Of a container's port.
    Name(Text<'a>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Endpoint<'a> {
    #[serde(borrow)]
    pub(crate) addresses: Field<First<Text<'a>>>,
    pub(crate) conditions: Field<Conditions>,
    pub(crate) node_name: Field<Text<'a>>,
    pub(crate) hints: Field<Hints<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Field<bool>,
    pub(crate) serving: Field<bool>,
    pub(crate) terminating: Field<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Hints<'a> {
    #[serde(borrow)]
    pub(crate) for_zones: Field<List<Named<'a>>>,
    pub(crate) for_nodes: Field<List<Named<'a>>>,
}

/// An object of which only the name is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named<'a> {
    #[serde(borrow)]
    pub(crate) name: Field<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Taint<'a> {
    #[serde(borrow)]
    pub(crate) key: Field<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress<'a> {
    #[serde(borrow)]
    pub(crate) r#type: Field<Text<'a>>,
    pub(crate) address: Field<Text<'a>>,
}

/// One of `status.conditions`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatusCondition<'a> {
    #[serde(borrow)]
    pub(crate) r#type: Field<Text<'a>>,
    pub(crate) status: Field<Text<'a>>,
}

/// `spec.serviceAllocation` of a pool.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceAllocation<'a> {
    pub(crate) priority: Field<i64>,
    #[serde(borrow)]
    pub(crate) namespaces: Field<List<Text<'a>>>,
    pub(crate) namespace_selectors: Field<List<LabelSelector<'a>>>,
    pub(crate) service_selectors: Field<List<LabelSelector<'a>>>,
}

/// `metav1.LabelSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LabelSelector<'a> {
    #[serde(borrow)]
    pub(crate) match_labels: Field<Pairs<'a>>,
    pub(crate) match_expressions: Field<List<Expression<'a>>>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Expression<'a> {
    #[serde(borrow)]
    pub(crate) key: Field<Text<'a>>,
    pub(crate) operator: Field<Text<'a>>,
    pub(crate) values: Field<List<Text<'a>>>,
}

/// One of `spec.preferredNodeSelectors` of an L2Advertisement.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Preference<'a> {
    pub(crate) weight: Field<i64>,
    #[serde(borrow)]
    pub(crate) preference: Field<LabelSelector<'a>>,
}

impl<'de: 'a, 'a> Shape<'de> for Labels<'a> {
    const WANTED: &'static str = "an object";

    /// One of ours that is there twice is an error, as for derived code; of any other the last one counts.
    fn from_object<A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        const SERVICE_NAME: &str = "kubernetes.io/service-name";
        const ZONE: &str = "topology.kubernetes.io/zone";
        let Some(all) = Pairs::from_object(object)? else { return Ok(None) };
        let mut labels = Self { all, ..Self::default() };
        for (key, value) in &labels.all.0 {
            match key.as_ref() {
                SERVICE_NAME if labels.service_name == Field::Absent => labels.service_name = value.clone(),
                SERVICE_NAME => return Err(A::Error::duplicate_field(SERVICE_NAME)),
                ZONE if labels.zone == Field::Absent => labels.zone = value.clone(),
                ZONE => return Err(A::Error::duplicate_field(ZONE)),
                "multicluster.kubernetes.io/service-name" => labels.multicluster_service_name = Present(true),
                "service.kubernetes.io/headless" => labels.headless = Present(true),
                "service.kubernetes.io/service-proxy-name" => labels.service_proxy_name = Present(true),
                _ => {}
            }
        }
        Ok(Some(labels))
    }
}

impl<'de: 'a, 'a, Items: Shape<'de> + Default> Shape<'de> for Document<'a, Items> {
    const WANTED: &'static str = "an object";

    fn from_object<A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(object)).map(Some)
    }
}

impl Shape<'_> for Skipped {
    const WANTED: &'static str = "nothing";
}

impl<'de: 'a, 'a> Shape<'de> for TargetPort<'a> {
    const WANTED: &'static str = "a number or a name";

    fn from_borrowed(text: &'de str) -> Option<Self> {
        Some(Self::Name(Text::Borrowed(text)))
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Self::Name(Text::Owned(text.to_owned())))
    }

    fn from_number(value: i64) -> Option<Self> {
        Some(Self::Number(value))
    }
}

object_shape!(
    borrowing Metadata, Annotations, Spec, Status, LoadBalancer, Ingress, Port, Endpoint, Hints, Named, Taint, NodeAddress,
        StatusCondition, ServiceAllocation, LabelSelector, Expression, Preference;
    owning Details, SessionAffinityConfig, ClientIp, Conditions
);
