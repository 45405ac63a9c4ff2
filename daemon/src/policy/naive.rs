//! The rules a second time, straight from the text (kube-proxy 1.2, 1.3, 3.2, 3.3), without a thought for speed. Where it takes a
//! branch it says so, so that a run can prove that it took them all. For property tests here and in other packages (feature
//! `arbitrary`); what it refuses are the addresses that [`super::arbitrary`] makes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Context;
use super::arbitrary::NEVER_SERVED;
use crate::model::TrafficPolicy::Local;
use crate::model::{Endpoint, EndpointSlice, Family, Service, ServicePortSpec, ServiceType};
use crate::table::{FrontendAddress, FrontendKind, PortId};

/// Names of the branches taken, and how often.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<&'static str, u32>);

/// Every branch of the text.
pub const BRANCHES: &[&str] = &[
    "accessible by NodePort",
    "accessible by VIP",
    "accessible by externalIP",
    "accessible by hidden externalIP alone",
    "not accessible",
    "cluster list unused",
    "cluster list: fallback",
    "cluster list: fallback of hinted endpoints",
    "cluster list: nothing",
    "cluster list used by accessibility alone",
    "eTP Local: applies",
    "eTP Local: applies by externalIPs to type ClusterIP",
    "eTP Local: not accessible",
    "eTP Local: type does not count",
    "family off",
    "local list: fallback",
    "local list: fallback beside a ready remote",
    "local list: nothing",
    "local list: ready",
    "merge: only terminating",
    "merge: several living",
    "merge: terminating gives way",
    "mode: node",
    "mode: node although zones lead here too",
    "mode: node hints are incomplete",
    "mode: node hints lead elsewhere",
    "mode: none",
    "mode: zone",
    "mode: zone after node hints led elsewhere",
    "mode: zone hints are incomplete",
    "mode: zone hints lead elsewhere",
    "mode: zone label is missing",
    "no ClusterIP in this family",
    "skipped: ExternalName",
    "skipped: ExternalName with a ClusterIP",
    "skipped: headless",
    "traffic: ClusterIP, iTP Cluster",
    "traffic: ClusterIP, iTP Local",
    "traffic: external, eTP Cluster",
    "traffic: external, eTP Local, from a pod",
    "traffic: external, eTP Local, from outside",
    "traffic: external, eTP Local, from the node",
    "usable: elsewhere only",
    "usable: nothing",
    "usable: something",
];

/// Where a client is, as far as policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod, as the detector tells it.
    Pod,
    /// This node itself.
    Node,
    /// Anybody else.
    Outside,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pod, Self::Node, Self::Outside];
}

/// A Service port by the text.
#[derive(Debug)]
pub struct NaivePort {
    /// The frontends it asks for.
    pub kinds: BTreeMap<FrontendAddress, FrontendKind>,
    /// The cluster list.
    pub cluster: BTreeSet<SocketAddr>,
    /// The local list.
    pub local: BTreeSet<SocketAddr>,
    /// Some endpoint is usable.
    pub any_usable: bool,
    internal_local: bool,
    external_local: bool,
}

impl Coverage {
    /// Branches never taken.
    pub fn missed(&self) -> impl Iterator<Item = &'static str> {
        BRANCHES.iter().copied().filter(|branch| !self.0.contains_key(branch))
    }

    /// Adds what another run has taken.
    pub fn extend(&mut self, other: Self) {
        for (branch, times) in other.0 {
            *self.0.entry(branch).or_default() += times;
        }
    }

    fn hit(&mut self, branch: &'static str) {
        assert!(BRANCHES.contains(&branch), "{branch} is not listed");
        *self.0.entry(branch).or_default() += 1;
    }

    /// `condition`, noted if it holds.
    fn when(&mut self, condition: bool, branch: &'static str) -> bool {
        if condition {
            self.hit(branch);
        }
        condition
    }
}

/// What a Service asks of this node, by the text.
pub fn ports(service: &Service, slices: &[EndpointSlice], context: &Context, seen: &mut Coverage) -> BTreeMap<PortId, NaivePort> {
    let mut ports = BTreeMap::new();
    if seen.when(service.headless, "skipped: headless") {
        return ports;
    }
    if seen.when(service.kind == ServiceType::ExternalName, "skipped: ExternalName") {
        seen.when(!service.cluster_ips.is_empty(), "skipped: ExternalName with a ClusterIP");
        return ports;
    }
    for family in [Family::V4, Family::V6] {
        if seen.when(family == Family::V6 && context.ipv6_off, "family off") {
            continue;
        }
        let mut own = service.cluster_ips.iter().filter(|ip| ip.is_ipv4() == (family == Family::V4));
        let Some(cluster_ip) = own.next() else {
            seen.hit("no ClusterIP in this family");
            continue;
        };
        for spec in &service.ports {
            let id = PortId { service: service.key.clone(), name: spec.name.clone(), protocol: spec.protocol, family };
            ports.insert(id, one_port(service, spec, family, *cluster_ip, slices, context, seen));
        }
    }
    ports
}

fn one_port(
    service: &Service,
    spec: &ServicePortSpec,
    family: Family,
    cluster_ip: IpAddr,
    slices: &[EndpointSlice],
    context: &Context,
    seen: &mut Coverage,
) -> NaivePort {
    let in_family = |list: &[IpAddr]| list.iter().copied().filter(|ip| Family::of(*ip) == family).collect::<Vec<_>>();
    let (vips, external_ips) = (in_family(&service.vips), in_family(&service.external_ips));

    // Weakest first, so that a stronger kind overwrites.
    let mut kinds = BTreeMap::new();
    if spec.node_port != 0 {
        let address = FrontendAddress::NodePort { family, protocol: spec.protocol, port: spec.node_port };
        kinds.insert(address, FrontendKind::NodePort);
    }
    let mut add = |ip, kind| {
        kinds.insert(FrontendAddress::Ip { ip, protocol: spec.protocol, port: spec.port }, kind);
    };
    let refused = |ip: &IpAddr| NEVER_SERVED.contains(ip) || context.api_servers.contains(ip);
    if !context.external_ips_denied {
        external_ips.iter().filter(|ip| !refused(ip)).for_each(|ip| add(*ip, FrontendKind::ExternalIp));
    }
    for vip in vips.iter().filter(|ip| !refused(ip)) {
        let pooled = context.pools.iter().any(|pool| pool.contains(*vip));
        add(*vip, if pooled { FrontendKind::PoolVip } else { FrontendKind::LoadBalancer });
    }
    add(cluster_ip, FrontendKind::ClusterIp);

    // "externally accessible = nodePort != 0, or any VIP-mode LB IP, or any externalIP"
    let by_node_port = seen.when(spec.node_port != 0, "accessible by NodePort");
    let by_vip = seen.when(!vips.is_empty(), "accessible by VIP");
    let by_external_ip = seen.when(!external_ips.is_empty(), "accessible by externalIP");
    seen.when(by_external_ip && context.external_ips_denied && !by_node_port && !by_vip, "accessible by hidden externalIP alone");
    let accessible = by_node_port || by_vip || by_external_ip;
    seen.when(!accessible, "not accessible");

    // "Local counts only if Service type is LoadBalancer or NodePort, or ClusterIP with externalIPs"
    let internal_local = service.internal_traffic_policy == Local;
    let external_local = service.external_traffic_policy == Local
        && match service.kind {
            ServiceType::LoadBalancer | ServiceType::NodePort => true,
            _ => seen.when(!service.external_ips.is_empty(), "eTP Local: applies by externalIPs to type ClusterIP"),
        };
    seen.when(service.external_traffic_policy == Local && !external_local, "eTP Local: type does not count");
    seen.when(external_local && !accessible, "eTP Local: not accessible");

    // "Uses-cluster = iTP is not Local or externally accessible", "Uses-local = iTP Local, or (eTP Local and externally accessible)"
    let uses_cluster = !internal_local || seen.when(accessible, "cluster list used by accessibility alone");
    let uses_local = internal_local || seen.when(external_local && accessible, "eTP Local: applies");

    let endpoints = merged(slices, spec, family, seen);
    let is_here = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(&*context.node_name);
    let ready: Vec<_> = endpoints.iter().filter(|(_, endpoint)| endpoint.conditions.ready).collect();
    let draining: Vec<_> =
        endpoints.iter().filter(|(_, endpoint)| endpoint.conditions.serving && endpoint.conditions.terminating).collect();

    let mut cluster = BTreeSet::new();
    if !uses_cluster {
        seen.hit("cluster list unused");
    } else {
        cluster = by_hints(&ready, context, seen);
        if cluster.is_empty() {
            assert!(ready.is_empty(), "hints must not hide all ready endpoints");
            cluster = draining.iter().map(|(address, _)| *address).collect();
            seen.hit(if cluster.is_empty() { "cluster list: nothing" } else { "cluster list: fallback" });
            seen.when(
                draining.iter().any(|(_, endpoint)| endpoint.hints.is_some()),
                "cluster list: fallback of hinted endpoints",
            );
        }
    }

    let mut local = BTreeSet::new();
    if uses_local {
        local = ready.iter().filter(|(_, endpoint)| is_here(endpoint)).map(|(address, _)| *address).collect();
        if local.is_empty() {
            local = draining.iter().filter(|(_, endpoint)| is_here(endpoint)).map(|(address, _)| *address).collect();
            seen.hit(if local.is_empty() { "local list: nothing" } else { "local list: fallback" });
            seen.when(!local.is_empty() && !ready.is_empty(), "local list: fallback beside a ready remote");
        } else {
            seen.hit("local list: ready");
        }
    }

    // "any-usable = (uses-cluster and cluster list non-empty) or (uses-local and there is, anywhere in the cluster, ...)"
    let any_usable = (uses_cluster && !cluster.is_empty()) || (uses_local && !(ready.is_empty() && draining.is_empty()));
    seen.hit(if any_usable { "usable: something" } else { "usable: nothing" });
    seen.when(any_usable && cluster.is_empty() && local.is_empty(), "usable: elsewhere only");
    NaivePort { kinds, cluster, local, any_usable, internal_local, external_local }
}

/// "A non-terminating entry always overrides; a terminating one never overrides an existing one." Among equals, where upstream's winner
/// is undefined, ours is the most usable, then the first by node and hints.
fn merged<'a>(
    slices: &'a [EndpointSlice],
    spec: &ServicePortSpec,
    family: Family,
    seen: &mut Coverage,
) -> Vec<(SocketAddr, &'a Endpoint)> {
    let mut entries: BTreeMap<SocketAddr, Vec<&Endpoint>> = BTreeMap::new();
    for slice in slices {
        for port in &slice.ports {
            if slice.family == family && port.name == spec.name && port.protocol == spec.protocol {
                for endpoint in &slice.endpoints {
                    entries.entry(SocketAddr::new(endpoint.address, port.port)).or_default().push(endpoint);
                }
            }
        }
    }
    let choose = |(address, all): (SocketAddr, Vec<&'a Endpoint>)| {
        let living: Vec<_> = all.iter().copied().filter(|endpoint| !endpoint.conditions.terminating).collect();
        if all.len() > 1 {
            seen.hit(match living.len() {
                0 => "merge: only terminating",
                1 => "merge: terminating gives way",
                _ => "merge: several living",
            });
        }
        let mut rest = if living.is_empty() { all } else { living };
        rest.sort_by_key(|endpoint| {
            let hints = endpoint.hints.as_ref().map(|hints| (hints.zones.clone(), hints.nodes.clone()));
            (!endpoint.conditions.ready, !endpoint.conditions.serving, endpoint.node.clone(), hints)
        });
        (address, rest[0])
    };
    entries.into_iter().map(choose).collect()
}

/// 3.2, 1: "Determine the topology mode from ready endpoints only".
fn by_hints(ready: &[&(SocketAddr, &Endpoint)], context: &Context, seen: &mut Coverage) -> BTreeSet<SocketAddr> {
    let nodes = |endpoint: &Endpoint| endpoint.hints.as_ref().map_or(Vec::new(), |hints| hints.nodes.clone());
    let zones = |endpoint: &Endpoint| endpoint.hints.as_ref().map_or(Vec::new(), |hints| hints.zones.clone());
    let matching = |names: &dyn Fn(&Endpoint) -> Vec<Arc<str>>, here: &Arc<str>| {
        ready.iter().filter(|(_, endpoint)| names(endpoint).contains(here)).map(|(address, _)| *address).collect::<BTreeSet<_>>()
    };

    let zone = context.zone.clone().unwrap_or_default();
    let all_have_zones = ready.iter().all(|(_, endpoint)| !zones(endpoint).is_empty());
    let zonal = if zone.is_empty() || !all_have_zones { BTreeSet::new() } else { matching(&zones, &zone) };

    let here = matching(&nodes, &context.node_name);
    let all_have_nodes = ready.iter().all(|(_, endpoint)| !nodes(endpoint).is_empty());
    if all_have_nodes && !here.is_empty() {
        seen.hit("mode: node");
        seen.when(!zonal.is_empty() && zonal != here, "mode: node although zones lead here too");
        return here;
    }
    let led_elsewhere = seen.when(all_have_nodes && !ready.is_empty(), "mode: node hints lead elsewhere");
    seen.when(!all_have_nodes && !here.is_empty(), "mode: node hints are incomplete");
    if !zonal.is_empty() {
        seen.hit("mode: zone");
        seen.when(led_elsewhere, "mode: zone after node hints led elsewhere");
        return zonal;
    }
    let labelled = !seen.when(zone.is_empty() && all_have_zones && !ready.is_empty(), "mode: zone label is missing");
    seen.when(
        !all_have_zones && ready.iter().any(|(_, endpoint)| zones(endpoint).contains(&zone)),
        "mode: zone hints are incomplete",
    );
    seen.when(labelled && all_have_zones && !ready.is_empty(), "mode: zone hints lead elsewhere");
    seen.when(!ready.is_empty(), "mode: none");
    ready.iter().map(|(address, _)| *address).collect()
}

impl NaivePort {
    /// The table of 3.3, row by row.
    pub fn served(&self, kind: FrontendKind, client: Client, seen: &mut Coverage) -> &BTreeSet<SocketAddr> {
        let (row, list) = match (kind, client) {
            (FrontendKind::ClusterIp, _) if self.internal_local => ("traffic: ClusterIP, iTP Local", &self.local),
            (FrontendKind::ClusterIp, _) => ("traffic: ClusterIP, iTP Cluster", &self.cluster),
            (_, _) if !self.external_local => ("traffic: external, eTP Cluster", &self.cluster),
            (_, Client::Pod) => ("traffic: external, eTP Local, from a pod", &self.cluster),
            (_, Client::Node) => ("traffic: external, eTP Local, from the node", &self.cluster),
            (_, Client::Outside) => ("traffic: external, eTP Local, from outside", &self.local),
        };
        seen.hit(row);
        list
    }
}
