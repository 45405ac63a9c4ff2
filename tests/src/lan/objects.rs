//! The objects of a LAN's cluster.

use super::{Network, PORT};
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};
use sheave_lab::{Host, twin};
use std::net::IpAddr;

/// A Service of type LoadBalancer with its endpoints. Its ports are TCP and UDP.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    port: u16,
    vips: Vec<IpAddr>,
    local: bool,
    annotations: Map<String, Value>,
    labels: Map<String, Value>,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    addresses: [IpAddr; 2],
    node: Option<String>,
}

/// The namespace of the Services.
const NAMESPACE: &str = "default";

impl Service {
    /// One on [`PORT`], without addresses and endpoints: whoever hands out addresses gives it some.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            port: PORT,
            vips: Vec::new(),
            local: false,
            annotations: Map::new(),
            labels: Map::new(),
            endpoints: Vec::new(),
        }
    }

    /// On another port; its pods answer on [`PORT`] all the same.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// With another address in its status.
    #[must_use]
    pub fn vip(mut self, vip: IpAddr) -> Self {
        self.vips.push(vip);
        self
    }

    /// `externalTrafficPolicy: Local`.
    #[must_use]
    pub fn local(self) -> Self {
        Self { local: true, ..self }
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.into());
        self
    }

    /// With a ready endpoint: a pod, on this Node.
    #[must_use]
    pub fn endpoint(mut self, pod: &Host, node: Option<&str>) -> Self {
        let addresses = [pod.ipv4().into(), pod.ipv6().into()];
        self.endpoints.push(Endpoint { addresses, node: node.map(str::to_owned) });
        self
    }

    /// The Service and its slices, one for each family.
    #[must_use]
    pub fn documents(&self) -> Vec<Value> {
        vec![self.service(), self.slice("IPv4", 0), self.slice("IPv6", 1)]
    }

    fn service(&self) -> Value {
        let port = |protocol: &str| json!({ "name": protocol, "protocol": protocol.to_uppercase(), "port": self.port });
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": NAMESPACE, "name": self.name, "annotations": self.annotations, "labels": self.labels,
            },
            "spec": {
                "type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack", "selector": { "app": self.name },
                "ports": [port("tcp"), port("udp")],
                "externalTrafficPolicy": if self.local { "Local" } else { "Cluster" },
            },
        });
        if !self.vips.is_empty() {
            let entries: Vec<Value> = self.vips.iter().map(|vip| json!({ "ip": vip, "ipMode": "VIP" })).collect();
            service["status"] = json!({ "loadBalancer": { "ingress": entries } });
        }
        service
    }

    fn slice(&self, family: &str, place: usize) -> Value {
        let port = |protocol: &str| json!({ "name": protocol, "protocol": protocol.to_uppercase(), "port": PORT });
        let endpoint = |endpoint: &Endpoint| {
            let mut value = json!({ "addresses": [endpoint.addresses[place]], "conditions": { "ready": true } });
            if let Some(node) = &endpoint.node {
                value["nodeName"] = node.as_str().into();
            }
            value
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE, "name": format!("{}-{}", self.name, family.to_lowercase()),
                "labels": { "kubernetes.io/service-name": self.name },
            },
            "addressType": family,
            "ports": [port("tcp"), port("udp")],
            "endpoints": self.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    }
}

/// An IPAddressPool of just these addresses.
#[must_use]
pub fn pool(name: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<String> =
        addresses.iter().map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })).collect();
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": { "namespace": "metallb-system", "name": name }, "spec": { "addresses": addresses },
    })
}

/// An L2Advertisement.
#[must_use]
pub fn advertisement(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
        "metadata": { "namespace": "metallb-system", "name": name }, "spec": spec,
    })
}

/// The Node of a machine, with its address on the members' network, and these labels beside its name.
#[must_use]
pub fn node(host: &Host, labels: &[(&str, &str)]) -> Value {
    let [.., last] = host.ipv4().octets();
    let address = Network::Members.cable(last).address.addr();
    let internal = |ip: IpAddr| json!({ "type": "InternalIP", "address": ip });
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": host.name(), "labels": { "kubernetes.io/hostname": host.name() } },
        "status": {
            "addresses": [internal(address.into()), internal(twin(address).into())],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    for (key, value) in labels {
        node["metadata"]["labels"][key] = (*value).into();
    }
    node
}

/// The Secret that announcers share, as the controller makes it.
pub(super) fn gossip_key() -> Value {
    let key: [u8; 32] = rand::random();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "namespace": "kube-system", "name": "sheave-gossip" },
        "data": { "key": ByteString(key.to_vec()) },
    })
}
