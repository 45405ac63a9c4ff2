//! Services (reference for every rule: kube-proxy v1.36.2, `pkg/proxy/serviceport.go`, `pkg/proxy/util`).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use compact_str::CompactString;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::field::{Field, List, Text};
use super::problems::{Author, Problems, cut};
use super::source_ranges::source_ranges;
use super::wire::{Document, Port, SessionAffinityConfig};
use super::{DecodeError, Identity, address, request, spelling, wishes};
use crate::model::{AffinityTimeout, Family, Problem, Protocol, Service, ServicePortSpec, ServiceType, TrafficPolicy};
use crate::source::Kind;

/// `v1.DefaultClientIPServiceAffinitySeconds`.
const DEFAULT_AFFINITY: AffinityTimeout = AffinityTimeout::new(10_800).expect("not zero");
/// `v1.MaxClientIPServiceAffinitySeconds`, one day.
const MAX_AFFINITY: u32 = 86_400;

/// A port of type NodePort that says of no port that it is its own.
const UNALLOCATED: &str = "no nodePort: nothing allocates one without an API server";

/// The ClusterIPs of a Service, or that it has none on purpose.
#[derive(Default)]
struct ClusterIps {
    addresses: SmallVec<[IpAddr; 2]>,
    headless: bool,
    /// Those of `ipFamilies`.
    families: SmallVec<[Family; 2]>,
}

pub(super) fn decode(author: Author, document: Document<'_, impl Sized>) -> Result<Service, DecodeError> {
    let mut problems = Problems::of(author);
    let mut metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let Identity { key, uid, created } = Identity::read(Kind::Service, &mut metadata, &mut problems)?;
    spelling::note_no_label(format_args!("metadata.name"), key.name(), &mut problems);
    let spec = problems.take(format_args!("spec"), document.spec).unwrap_or_default();
    let status = problems.take(format_args!("status"), document.status).unwrap_or_default();

    let kind = service_type(spec.r#type, &mut problems);
    let ClusterIps { addresses, headless, families: asked_families } =
        cluster_ips(spec.cluster_ip, spec.cluster_ips, spec.ip_families, &mut problems);
    let served = !headless && kind != ServiceType::ExternalName;
    let annotations = problems.take(format_args!("metadata.annotations"), metadata.annotations).unwrap_or_default();
    let families = addresses.iter().copied().map(Family::of).collect::<SmallVec<[Family; 2]>>();
    let ingress = problems
        .take(format_args!("status.loadBalancer"), status.load_balancer)
        .and_then(|balancer| problems.take(format_args!("status.loadBalancer.ingress"), balancer.ingress))
        .unwrap_or_default();
    let ingress = request::ingress(ingress, &mut problems);
    let vips = ingress.vips();
    let source_ranges =
        source_ranges(spec.load_balancer_source_ranges, annotations.source_ranges, &families, &vips, &mut problems);
    wishes::note_unknown(annotations.topology_mode, annotations.topology_aware_hints, spec.traffic_distribution, &mut problems);
    let asked = request::Asked {
        class: spec.load_balancer_class,
        address: spec.load_balancer_ip,
        family_policy: spec.ip_family_policy,
        selector: spec.selector,
        labels: problems.take(format_args!("metadata.labels"), metadata.labels).unwrap_or_default().all,
        addresses: request::Annotation { new: annotations.addresses, old: annotations.old_addresses },
        pool: request::Annotation { new: annotations.pool, old: annotations.old_pool },
        sharing_key: request::Annotation { new: annotations.sharing_key, old: annotations.old_sharing_key },
        allocated_from: annotations.allocated_from,
    };
    let is_balanced = kind == ServiceType::LoadBalancer || ingress.is_given;
    let load_balancer = is_balanced.then(|| Box::new(request::request(asked, &asked_families, ingress, &mut problems)));
    let external_name = problems.take(format_args!("spec.externalName"), spec.external_name).filter(|name| !name.is_empty());

    Ok(Service {
        key,
        uid,
        created,
        kind,
        cluster_ips: addresses,
        headless,
        external_name: external_name.map(Into::into),
        external_ips: addresses_of("spec.externalIPs", spec.external_ips, &mut problems),
        vips,
        source_ranges,
        internal_traffic_policy: traffic_policy("spec.internalTrafficPolicy", spec.internal_traffic_policy, &mut problems),
        external_traffic_policy: traffic_policy("spec.externalTrafficPolicy", spec.external_traffic_policy, &mut problems),
        affinity: affinity(spec.session_affinity, spec.session_affinity_config, &mut problems),
        health_check_node_port: port_or_none(
            format_args!("spec.healthCheckNodePort"),
            spec.health_check_node_port,
            &mut problems,
        ),
        ports: ports(spec.ports, kind, served, &mut problems),
        load_balancer,
        problems: problems.into_vec(),
    })
}

fn service_type(field: Field<Text<'_>>, problems: &mut Problems) -> ServiceType {
    let path = format_args!("spec.type");
    match problems.take(path, field).as_deref() {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => {
            problems.note(path, format!("{:?} is not a type of Service: treated as ClusterIP", cut(other)));
            ServiceType::ClusterIp
        }
    }
}

/// A ClusterIP's family is its place in `ipFamilies`, where that is given (`GetClusterIPByFamily`); else what it looks like.
///
/// The API server keeps `clusterIP`, `clusterIPs` and `ipFamilies` in step. Where a manifest gives only some of them, what is there
/// counts: kube-proxy would ignore a `clusterIP` beside `ipFamilies` without `clusterIPs`.
fn cluster_ips(
    single: Field<Text<'_>>,
    many: Field<List<Text<'_>>>,
    families: Field<List<Text<'_>>>,
    problems: &mut Problems,
) -> ClusterIps {
    let single = problems.take(format_args!("spec.clusterIP"), single).filter(|ip| !ip.is_empty());
    let many = problems.take(format_args!("spec.clusterIPs"), many).unwrap_or_default();
    let families = families_of(families, problems);
    let first = many.first().and_then(Field::get);
    let headless = single.as_deref() == Some("None") || first.is_some_and(|ip| ip == "None");
    if let (Some(single), Some(first)) = (&single, first)
        && single != first
        && address::ip(single).is_none_or(|single| address::ip(first) != Some(single))
    {
        let counts = if headless { "the Service is headless" } else { "spec.clusterIPs counts" };
        let why = format!(
            "{:?} is not {:?}, which spec.clusterIPs begins with and an API server demands here; {counts}",
            cut(single),
            cut(first)
        );
        problems.note(format_args!("spec.clusterIP"), why);
    }
    let asked_families = families.iter().flatten().copied().collect();
    if headless {
        return ClusterIps { headless: true, families: asked_families, ..ClusterIps::default() };
    }
    let is_single = many.is_empty();
    let many = if is_single { single.map(Field::Is).into_iter().collect() } else { many };

    let mut addresses = SmallVec::new();
    for (place, text) in many.into_iter().enumerate() {
        let in_list = format_args!("spec.clusterIPs[{place}]");
        let path = if is_single { format_args!("spec.clusterIP") } else { in_list };
        let Some(address) = problems.element(path, text).and_then(|text| parsed_ip(path, &text, problems)) else { continue };
        // No ServiceCIDR has any of these. Served, it would take from the node what it reaches itself by, port by port.
        if let Some(what) = address::unfit(address) {
            problems.note(path, format!("{address} is {what}, which cannot be a Service's: ignored"));
            continue;
        }
        let family = Family::of(address);
        let promised = match families.get(place) {
            None => families.is_empty(),
            Some(promised) => promised.is_none_or(|promised| promised == family),
        };
        if !promised {
            problems.note(path, format!("{address} is {family}, which spec.ipFamilies does not say at this place: ignored"));
        } else if addresses.iter().any(|&other| Family::of(other) == family) {
            problems.note(path, format!("{address} is a second address of {family}: ignored"));
        } else {
            addresses.push(address);
        }
    }
    ClusterIps { addresses, headless: false, families: asked_families }
}

/// `ipFamilies`, place by place; `None` where it says nothing that is a family. The address there goes by what it looks like: only a
/// manifest can be that wrong, and its author has said which address is meant.
fn families_of(list: Field<List<Text<'_>>>, problems: &mut Problems) -> SmallVec<[Option<Family>; 2]> {
    let list = problems.take(format_args!("spec.ipFamilies"), list).unwrap_or_default();
    let mut families = SmallVec::with_capacity(list.len());
    for (place, name) in list.into_iter().enumerate() {
        let path = format_args!("spec.ipFamilies[{place}]");
        families.push(match problems.element(path, name).as_deref() {
            None => None,
            Some("IPv4") => Some(Family::V4),
            Some("IPv6") => Some(Family::V6),
            Some(other) => {
                problems.note(path, format!("{:?} is neither IPv4 nor IPv6: ignored", cut(other)));
                None
            }
        });
    }
    families
}

pub(super) fn parsed_ip(path: super::problems::Path<'_>, text: &str, problems: &mut Problems) -> Option<IpAddr> {
    let address = spelling::ip(path, text, problems);
    if address.is_none() {
        problems.note(path, format!("{:?} is not an IP address: ignored", cut(text)));
    }
    address
}

fn addresses_of(field: &str, list: Field<List<Text<'_>>>, problems: &mut Problems) -> Vec<IpAddr> {
    let list = problems.take(format_args!("{field}"), list).unwrap_or_default();
    let mut addresses = Vec::with_capacity(list.len());
    for (place, text) in list.into_iter().enumerate() {
        let path = format_args!("{field}[{place}]");
        addresses.extend(problems.element(path, text).and_then(|text| parsed_ip(path, &text, problems)));
    }
    addresses
}

/// CIDRs of a list. White space around them is trimmed: the annotation this field replaced was written `a, b`.
pub(super) fn networks(field: &str, list: Field<List<Text<'_>>>, problems: &mut Problems) -> Vec<IpNet> {
    let list = problems.take(format_args!("{field}"), list).unwrap_or_default();
    let mut networks = Vec::with_capacity(list.len());
    for (place, text) in list.into_iter().enumerate() {
        let path = format_args!("{field}[{place}]");
        let Some(text) = problems.element(path, text) else { continue };
        match spelling::cidr(path, text.trim(), problems) {
            Some(network) => networks.push(network),
            None => problems.note(path, format!("{:?} is not a CIDR: ignored", cut(&text))),
        }
    }
    networks
}

fn traffic_policy(field: &str, policy: Field<Text<'_>>, problems: &mut Problems) -> TrafficPolicy {
    let path = format_args!("{field}");
    match problems.take(path, policy).as_deref() {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.note(path, format!("{:?} is neither Cluster nor Local: treated as Cluster", cut(other)));
            TrafficPolicy::Cluster
        }
    }
}

fn affinity(kind: Field<Text<'_>>, config: Field<SessionAffinityConfig>, problems: &mut Problems) -> Option<AffinityTimeout> {
    let path = format_args!("spec.sessionAffinity");
    match problems.take(path, kind).as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            problems.note(path, format!("{:?} is neither None nor ClientIP: no affinity", cut(other)));
            return None;
        }
    }
    let path = format_args!("spec.sessionAffinityConfig.clientIP.timeoutSeconds");
    let config = problems.take(format_args!("spec.sessionAffinityConfig"), config).unwrap_or_default();
    let client_ip = problems.take(format_args!("spec.sessionAffinityConfig.clientIP"), config.client_ip).unwrap_or_default();
    let Some(seconds) = problems.take(path, client_ip.timeout_seconds) else { return Some(DEFAULT_AFFINITY) };
    let timeout = u32::try_from(seconds).ok().filter(|&seconds| seconds <= MAX_AFFINITY).and_then(AffinityTimeout::new);
    if timeout.is_none() {
        problems
            .note(path, format!("{seconds} is not between 1 and {MAX_AFFINITY}: the default of {DEFAULT_AFFINITY} s is used"));
    }
    timeout.or(Some(DEFAULT_AFFINITY))
}

/// A port field of which 0 means none.
fn port_or_none(path: super::problems::Path<'_>, field: Field<i64>, problems: &mut Problems) -> u16 {
    let number = problems.take(path, field).unwrap_or(0);
    u16::try_from(number).unwrap_or_else(|_| {
        problems.note(path, format!("{number} is not a port number: ignored"));
        0
    })
}

/// A Service that is `served` needs at least one.
fn ports(list: Field<List<Port<'_>>>, kind: ServiceType, served: bool, problems: &mut Problems) -> Vec<ServicePortSpec> {
    let is_empty = list == Field::Absent || list.get().is_some_and(Vec::is_empty);
    if is_empty && served {
        problems.note(format_args!("spec.ports"), "no ports: nothing of this Service is served");
    }
    let list = problems.take(format_args!("spec.ports"), list).unwrap_or_default();
    let several = list.len() > 1;
    let mut ports = Vec::with_capacity(list.len());
    let mut taken = Taken::default();
    for (place, entry) in list.into_iter().enumerate() {
        // null is a port without anything in it.
        let entry = match entry {
            Field::Absent => Some(Port::default()),
            given => problems.take(format_args!("spec.ports[{place}]"), given),
        };
        let Some(entry) = entry else { continue };
        let name = problems.take(format_args!("spec.ports[{place}].name"), entry.name).unwrap_or_default();
        let Some(protocol) = protocol(format_args!("spec.ports[{place}].protocol"), entry.protocol, problems) else { continue };
        let path = format_args!("spec.ports[{place}].port");
        if entry.port == Field::Absent {
            problems.note(path, "no port number: this port is left out");
            continue;
        }
        let Some(number) = problems.take(path, entry.port) else { continue };
        let Some(port) = port_number(number) else {
            problems.note(path, format!("{number} is not a port number: this port is left out"));
            continue;
        };
        let is_open = matches!(entry.node_port, Field::Absent | Field::Is(0));
        let node_port = port_or_none(format_args!("spec.ports[{place}].nodePort"), entry.node_port, problems);
        wishes::note_unmet_target(format_args!("spec.ports[{place}].targetPort"), entry.target_port, problems);
        let mut spec = ServicePortSpec { name: name.into(), protocol, port, node_port };
        if taken.take(place, &mut spec, several, problems) {
            spelling::note_no_label(format_args!("spec.ports[{place}].name"), &spec.name, problems);
            if spec.node_port != 0 && kind == ServiceType::ClusterIp {
                problems.note(
                    format_args!("spec.ports[{place}].nodePort"),
                    format!("{node_port} is given for type ClusterIP, which an API server refuses; it is served"),
                );
            }
            if is_open && kind == ServiceType::NodePort {
                problems.note_to_person(format_args!("spec.ports[{place}].nodePort"), UNALLOCATED);
            }
            ports.push(spec);
        }
    }
    ports
}

/// Whether this is what an API server would have filled in, which matters only where there is none.
pub(crate) fn is_unallocated(problem: &Problem) -> bool {
    problem.reason == UNALLOCATED
}

/// What ports of one Service must not share (`ValidateService` of `pkg/apis/core/validation`).
#[derive(Default)]
struct Taken {
    ids: HashSet<(CompactString, Protocol)>,
    names: HashSet<CompactString>,
    /// With the name of the first port that has it.
    numbers: HashMap<(u16, Protocol), CompactString>,
    /// Likewise.
    node_ports: HashMap<(u16, Protocol), CompactString>,
}

impl Taken {
    /// Whether the port can be kept. Everything downstream knows a port by (name, protocol), and of two with one number only one can be
    /// served: the first, be it of a nodePort alone. What else an API server would refuse is only said.
    fn take(&mut self, place: usize, port: &mut ServicePortSpec, several: bool, problems: &mut Problems) -> bool {
        let ServicePortSpec { name, protocol, port: number, node_port } = port;
        let path = format_args!("spec.ports[{place}].name");
        if self.ids.contains(&(name.clone(), *protocol)) {
            problems.note(path, format!("second {protocol} port named {:?}: this port is left out", cut(name)));
            return false;
        }
        if let Some(first) = self.numbers.get(&(*number, *protocol)) {
            let why = format!(
                "{protocol} port {number} is that of {:?} before it, which is served: {:?} is left out",
                cut(first),
                cut(name)
            );
            problems.note(format_args!("spec.ports[{place}].port"), why);
            return false;
        }
        self.ids.insert((name.clone(), *protocol));
        self.numbers.insert((*number, *protocol), name.clone());
        if *node_port != 0 {
            if let Some(first) = self.node_ports.get(&(*node_port, *protocol)) {
                let why = format!(
                    "{protocol} port {node_port} is that of {:?} before it, which is served: {:?} has none",
                    cut(first),
                    cut(name)
                );
                problems.note(format_args!("spec.ports[{place}].nodePort"), why);
                *node_port = 0;
            } else {
                self.node_ports.insert((*node_port, *protocol), name.clone());
            }
        }
        if several && name.is_empty() {
            problems.note(path, "no name, which an API server demands of a Service with several ports; it is served");
        } else if !self.names.insert(name.clone()) {
            problems.note(
                path,
                format!("{:?} is the name of a port before it, which an API server refuses; both are served", cut(name)),
            );
        }
        true
    }
}

/// A port number as the API counts them, from 1.
pub(super) fn port_number(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// Absent is TCP, the API server's default.
pub(super) fn protocol(path: super::problems::Path<'_>, field: Field<Text<'_>>, problems: &mut Problems) -> Option<Protocol> {
    if let Field::Wrong(found) = field {
        problems.note(path, format!("is {found}, not a string: this port is left out"));
        return None;
    }
    let text = field.into_value().unwrap_or(Text::Borrowed("TCP"));
    let protocol = Protocol::parse(&text);
    if protocol.is_none() {
        problems.note(path, format!("{:?} is not TCP, UDP or SCTP: this port is left out", cut(&text)));
    }
    protocol
}
