//! Load: clusters of any size, quickly, the same each time.
//!
//! Objects are written as bytes without passing through JSON values: 250,000 endpoints take well under a second and nothing but
//! their own 73 MB. Addresses follow from the numbers of Service and endpoint, so that a test can say what it expects.

mod shape;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::json;
use sheave::model::{Family, ObjectKey};

pub use shape::{EndpointAddress, Mix, Shape};

use super::allocator::Claim;
use super::cluster::Cluster;
use super::store::{Stored, TableId};
use super::{ApiServer, Status};
use shape::{CLUSTER_V4, CLUSTER_V6, NAMESPACE, ServiceShape, ServiceType};

/// Endpoints in one slice: the EndpointSlice controller's default.
const SLICE: u32 = 100;

/// Documents of one manifest file.
const PER_FILE: u32 = 500;

/// Why a load was not put in place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There are not so many addresses for its Services.
    #[error("{services} Services are more than the {limit} that the load has ClusterIPs for, from 10.96.16.0 on")]
    TooManyServices {
        /// Asked for.
        services: u32,
        /// The most there can be.
        limit: u32,
    },
    /// There are not so many addresses for its endpoints.
    #[error(
        "{endpoints} endpoints are more than the {limit} that the load has addresses for in 10.128.0.0/9: \
         {services} Services of {endpoints_per_service}"
    )]
    TooManyEndpoints {
        /// In all.
        endpoints: u64,
        /// The most there can be.
        limit: u32,
        /// Asked for.
        services: u32,
        /// Of each Service.
        endpoints_per_service: u32,
    },
    /// The server refused the namespace, a node or the ServiceCIDR.
    #[error("the server refused the load's surroundings")]
    Refused(#[from] Status),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A load on a server, and the changes made to it since.
#[derive(Debug)]
pub struct Load<'a> {
    server: &'a ApiServer,
    shape: Shape,
    services: TableId,
    slices: TableId,
    /// Endpoints that were replaced, by (Service, place): the number of the replacement.
    replaced: HashMap<(u32, u32), u32>,
    replacements: u32,
}

/// One changed endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointChange {
    /// The address that is gone.
    pub old: IpAddr,
    /// The address in its place.
    pub new: IpAddr,
    /// The resourceVersion of the change.
    pub version: u64,
}

impl<'a> Load<'a> {
    /// Puts a load on a server: its namespace, nodes, a ServiceCIDR where the server's own is too small, and all Services with
    /// their EndpointSlices.
    ///
    /// # Errors
    /// For a shape without room, and where the server refuses something.
    pub fn fill(server: &'a ApiServer, shape: Shape) -> Result<Self, LoadError> {
        shape.check()?;
        surroundings(server, &shape)?;
        let (services, slices) = (server.table("services")?, server.table("endpointslices")?);
        let mut load = Self { server, shape, services, slices, replaced: HashMap::new(), replacements: 0 };
        for service in 0..load.shape.services {
            load.add_service(service);
        }
        Ok(load)
    }

    /// Creates or replaces a Service of the shape, and its slices. May be beyond the shape's number of Services.
    pub fn add_service(&mut self, number: u32) {
        let mut cluster = self.server.shared.cluster();
        let service = self.shape.service(number);
        let (stored, claim) = stored_service(&mut cluster, &service);
        cluster.put_prepared(self.services, ObjectKey::new(NAMESPACE, &service.name), stored, claim);
        for family in self.shape.families() {
            for part in 0..self.shape.endpoints_per_service.div_ceil(SLICE) {
                self.put_slice(&mut cluster, &service, family, part);
            }
        }
        drop(cluster);
        self.server.shared.active();
    }

    /// Deletes a Service and its slices.
    pub fn remove_service(&mut self, number: u32) {
        let mut cluster = self.server.shared.cluster();
        let service = self.shape.service(number);
        cluster.remove_prepared(self.services, &ObjectKey::new(NAMESPACE, &service.name), &claim(&service));
        for family in self.shape.families() {
            for part in 0..self.shape.endpoints_per_service.div_ceil(SLICE) {
                let key = ObjectKey::new(NAMESPACE, &slice_name(&service, family, part));
                cluster.remove_prepared(self.slices, &key, &Claim::default());
            }
        }
        drop(cluster);
        self.server.shared.active();
    }

    /// Replaces one IPv4 endpoint of a Service by one that was never there, in turn. `None` for a shape without endpoints.
    pub fn change_endpoint(&mut self, number: u32) -> Option<EndpointChange> {
        let place = self.replacements.checked_rem(self.shape.endpoints_per_service)?;
        let service = self.shape.service(number);
        let old = self.endpoint(&service, place, Family::V4).address;
        self.replacements += 1;
        self.replaced.insert((number, place), self.replacements);
        let new = self.endpoint(&service, place, Family::V4).address;
        let mut cluster = self.server.shared.cluster();
        self.put_slice(&mut cluster, &service, Family::V4, place / SLICE);
        let version = cluster.store.revision();
        drop(cluster);
        self.server.shared.active();
        Some(EndpointChange { old, new, version })
    }

    /// The endpoint at a place of a Service, as it is now.
    fn endpoint(&self, service: &ServiceShape, place: u32, family: Family) -> EndpointAddress {
        let replacement = self.replaced.get(&(service.number, place)).filter(|_| family == Family::V4);
        self.shape.endpoint(service.number, place, family, replacement.copied())
    }

    fn put_slice(&self, cluster: &mut Cluster, service: &ServiceShape, family: Family, part: u32) {
        let name = slice_name(service, family, part);
        let uid = cluster.uid();
        let endpoints = (part * SLICE..self.shape.endpoints_per_service.min((part + 1) * SLICE))
            .map(|place| self.endpoint(service, place, family));
        let rest = slice_body(service, family, &name, Some(&uid), endpoints);
        let labels =
            [("kubernetes.io/service-name", service.name.as_str()), ("endpointslice.kubernetes.io/managed-by", MANAGED_BY)];
        let fields = [("metadata.name", name.as_str()), ("metadata.namespace", NAMESPACE)];
        let stored = Stored::from_parts(0, rest.into(), &labels, &fields);
        cluster.put_prepared(self.slices, ObjectKey::new(NAMESPACE, &name), stored, Claim::default());
    }
}

const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

/// Namespace, nodes and networks.
fn surroundings(server: &ApiServer, shape: &Shape) -> Result<(), Status> {
    for object in shape.surroundings() {
        server.apply(&object)?;
    }
    Ok(())
}

impl Shape {
    /// The objects around the Services: namespace, nodes, and the ServiceCIDR that holds their ClusterIPs.
    #[must_use]
    pub fn surroundings(&self) -> Vec<serde_json::Value> {
        let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
        let mut cidrs = vec![CLUSTER_V4.to_string()];
        if self.dual_stack {
            cidrs.push(CLUSTER_V6.to_string());
        }
        objects.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "load"},
            "spec": {"cidrs": cidrs}}));
        for node in 0..self.nodes {
            let labels = json!({"topology.kubernetes.io/zone": shape::zone(node)});
            let status = json!({"addresses": [{"type": "InternalIP", "address": shape::node_address(node)}]});
            objects.push(json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": shape::node(node), "labels": labels}, "status": status}));
        }
        objects
    }

    /// Writes the load as manifests into a directory, for a source that reads files. JSON documents are YAML documents too.
    ///
    /// # Errors
    /// For a shape without room, and for a file that cannot be written.
    pub fn write_manifests(&self, directory: &Path) -> Result<(), LoadError> {
        self.check()?;
        let write = |name: String, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map_err(|source| LoadError::Write { path, source })
        };
        let documents: Vec<String> = self.surroundings().iter().map(|object| format!("---\n{object}\n")).collect();
        write("00-cluster.yaml".to_owned(), &documents.concat())?;
        for first in (0..self.services).step_by(usize::try_from(PER_FILE).unwrap_or(usize::MAX)) {
            let mut text = String::new();
            for number in first..self.services.min(first + PER_FILE) {
                self.write_service(&mut text, number);
            }
            write(format!("services-{first:06}.yaml"), &text)?;
        }
        Ok(())
    }

    /// The Service as JSON, as an API server serves it.
    #[must_use]
    pub fn service_document(&self, number: u32) -> String {
        document("Service", "v1", &service_body(&self.service(number), Some(&uid(number))))
    }

    /// One of its EndpointSlices, as an API server serves it, with these endpoints. [`Shape::places`] are those that belong there.
    #[must_use]
    pub fn slice_document(
        &self,
        number: u32,
        family: Family,
        part: u32,
        endpoints: impl Iterator<Item = EndpointAddress>,
    ) -> String {
        let service = self.service(number);
        let name = slice_name(&service, family, part);
        document("EndpointSlice", "discovery.k8s.io/v1", &slice_body(&service, family, &name, Some(&uid(number)), endpoints))
    }

    /// How many EndpointSlices a Service has in each family.
    #[must_use]
    pub fn parts(&self) -> u32 {
        self.endpoints_per_service.div_ceil(SLICE)
    }

    /// Places of the endpoints of one EndpointSlice.
    #[must_use]
    pub fn places(&self, part: u32) -> std::ops::Range<u32> {
        part * SLICE..self.endpoints_per_service.min((part + 1) * SLICE)
    }

    fn write_service(&self, text: &mut String, number: u32) {
        let service = self.service(number);
        let mut put = |document: String| {
            let _ = writeln!(text, "---\n{document}");
        };
        put(document("Service", "v1", &service_body(&service, None)));
        for family in self.families() {
            for part in 0..self.parts() {
                let name = slice_name(&service, family, part);
                let endpoints = self.places(part).map(|place| self.endpoint(number, place, family, None));
                put(document("EndpointSlice", "discovery.k8s.io/v1", &slice_body(&service, family, &name, None, endpoints)));
            }
        }
    }
}

/// An object with its type. A body begins with a comma, as it stands behind a resourceVersion on the wire.
fn document(kind: &str, api_version: &str, body: &str) -> String {
    let body = body.strip_prefix(',').unwrap_or(body);
    format!(r#"{{"apiVersion":"{api_version}","kind":"{kind}","metadata":{{{body}"#)
}

/// Of a document that no server has stored.
fn uid(number: u32) -> String {
    format!("00000000-0000-4000-9000-{number:012x}")
}

fn slice_name(service: &ServiceShape, family: Family, part: u32) -> String {
    format!("{}-{}-{part}", service.name, family.to_string().to_lowercase())
}

fn claim(service: &ServiceShape) -> Claim {
    let ports = [service.node_port, service.health_port].into_iter().flatten().map(|port| ("TCP".to_owned(), port));
    Claim { addresses: service.cluster_ips.clone(), ports: ports.collect() }
}

fn stored_service(cluster: &mut Cluster, service: &ServiceShape) -> (Stored, Claim) {
    let uid = cluster.uid();
    let cluster_ip = service.cluster_ips.first().map(ToString::to_string).unwrap_or_default();
    let fields = [
        ("metadata.name", service.name.as_str()),
        ("metadata.namespace", NAMESPACE),
        ("spec.clusterIP", cluster_ip.as_str()),
        ("spec.type", service.kind.name()),
    ];
    let rest = service_body(service, Some(&uid));
    (Stored::from_parts(0, rest.into(), &[("app", service.name.as_str())], &fields), claim(service))
}

/// The start of metadata after the resourceVersion.
fn metadata(text: &mut String, name: &str, uid: Option<&str>, generation: bool) {
    let _ = write!(text, r#","name":"{name}","namespace":"{NAMESPACE}""#);
    if let Some(uid) = uid {
        let _ = write!(text, r#","uid":"{uid}","creationTimestamp":"2026-01-01T00:00:00Z""#);
        if generation {
            text.push_str(r#","generation":1"#);
        }
    }
}

/// A list of addresses or families as JSON.
fn quoted<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.to_string())).collect();
    items.join(",")
}

fn service_body(service: &ServiceShape, uid: Option<&str>) -> String {
    let ServiceShape { name, kind, cluster_ips, node_port, health_port, vip, affinity, number: _ } = service;
    let mut text = String::with_capacity(700);
    metadata(&mut text, name, uid, false);
    let _ = write!(text, r#","labels":{{"app":"{name}"}}}},"spec":{{"selector":{{"app":"{name}"}},"#);
    let _ = write!(text, r#""ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":8080"#);
    if let Some(port) = node_port {
        let _ = write!(text, r#","nodePort":{port}"#);
    }
    let first = cluster_ips.first().map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, r#"}}],"clusterIP":"{first}","clusterIPs":[{}],"#, quoted(cluster_ips));
    let _ = write!(text, r#""ipFamilies":[{}],"#, quoted(cluster_ips.iter().map(|ip| Family::of(*ip))));
    let policy = if cluster_ips.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let _ = write!(text, r#""ipFamilyPolicy":"{policy}","internalTrafficPolicy":"Cluster","type":"{}","#, kind.name());
    match kind {
        ServiceType::LoadBalancer => {
            text.push_str(r#""externalTrafficPolicy":"Local","allocateLoadBalancerNodePorts":false,"#);
            if let Some(port) = health_port {
                let _ = write!(text, r#""healthCheckNodePort":{port},"#);
            }
        }
        ServiceType::NodePort => text.push_str(r#""externalTrafficPolicy":"Cluster","#),
        ServiceType::ClusterIp => {}
    }
    text.push_str(if *affinity {
        r#""sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":10800}}},"#
    } else {
        r#""sessionAffinity":"None"},"#
    });
    match vip {
        Some(vip) => {
            let _ = write!(text, r#""status":{{"loadBalancer":{{"ingress":[{{"ip":"{vip}","ipMode":"VIP"}}]}}}}}}"#);
        }
        None => text.push_str(r#""status":{"loadBalancer":{}}}"#),
    }
    text
}

fn slice_body(
    service: &ServiceShape,
    family: Family,
    name: &str,
    uid: Option<&str>,
    endpoints: impl Iterator<Item = EndpointAddress>,
) -> String {
    let owner = &service.name;
    let mut text = String::with_capacity(512 + endpoints.size_hint().0 * 300);
    metadata(&mut text, name, uid, true);
    let _ = write!(
        text,
        r#","labels":{{"endpointslice.kubernetes.io/managed-by":"{MANAGED_BY}","kubernetes.io/service-name":"{owner}"}}}},"addressType":"{family}","endpoints":["#
    );
    for (at, EndpointAddress { address, node, zone, id }) in endpoints.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(
            text,
            r#"{comma}{{"addresses":["{address}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"{node}","targetRef":{{"kind":"Pod","name":"{owner}-6f7c9d5b84-{id:08x}","namespace":"{NAMESPACE}","uid":"00000000-0000-4000-8000-{id:012x}"}},"zone":"{zone}"}}"#
        );
    }
    text.push_str(r#"],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}"#);
    text
}

#[cfg(test)]
mod tests;
