//! EndpointSlices (reference: kube-proxy v1.36.2, `pkg/proxy/endpointslicecache.go`).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

use super::field::{Field, First, List, Text};
use super::problems::{Author, Problems, cut};
use super::service::{port_number, protocol};
use super::wire::{self, Document};
use super::{DecodeError, Decoded, address, key, spelling, timestamp};
use crate::model::{Conditions, Endpoint, EndpointSlice, Family, Hints, Interner, ObjectKey, Problem, ServiceKey, SlicePort};
use crate::source::{Kind, Object};

/// A slice without the label, or with an empty one, which is somebody else's as long as it is meant so.
const OF_NOBODY: &str = "not given: the slice belongs to no Service and is left out";

pub(super) fn decode(author: Author, document: Document<'_, impl Sized>, names: &mut Interner) -> Result<Decoded, DecodeError> {
    let mut problems = Problems::of(author);
    let metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let key = key(Kind::EndpointSlice, &metadata)?;
    let labels = problems.take(format_args!("metadata.labels"), metadata.labels).unwrap_or_default();
    let Some(service) = owner(&key, labels, &mut problems) else {
        return Ok(Decoded::NotOurs { key, problems: problems.into_vec() });
    };
    let Some(family) = family(document.address_type, &mut problems) else {
        return Ok(Decoded::NotOurs { key, problems: problems.into_vec() });
    };
    let annotations = problems.take(format_args!("metadata.annotations"), metadata.annotations).unwrap_or_default();
    let field = format_args!("metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]");
    let trigger_time = problems.take(field, annotations.trigger_time).and_then(|text| {
        let nanoseconds = timestamp(&text).and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        if nanoseconds.is_none() {
            problems.note(field, format!("{:?} is not a time (RFC 3339): ignored", cut(&text)));
        }
        nanoseconds
    });

    let ports = ports(document.ports, &mut problems);
    let list = problems.take(format_args!("endpoints"), document.endpoints).unwrap_or_default();
    let mut endpoints = Vec::with_capacity(list.len());
    for (place, entry) in list.into_iter().enumerate() {
        endpoints.extend(endpoint(place, entry, family, names, &mut problems));
    }
    Ok(Decoded::Object(Object::EndpointSlice(Box::new(EndpointSlice {
        key,
        service,
        family,
        ports,
        endpoints: endpoints.into_boxed_slice(),
        trigger_time,
        problems: problems.into_vec(),
    }))))
}

/// Whether this is what makes a slice nobody's. An API server lets such slices in, and may hold many.
pub(crate) fn is_of_nobody(problem: &Problem) -> bool {
    problem.reason == OF_NOBODY
}

/// The Service by label. A slice of several clusters (KEP-1645) has a label of its own instead, and is meant so.
fn owner(key: &ObjectKey, labels: wire::Labels<'_>, problems: &mut Problems) -> Option<ServiceKey> {
    let path = format_args!("metadata.labels[kubernetes.io/service-name]");
    let name = match labels.service_name {
        name @ Field::Wrong(_) => problems.take(path, name)?,
        name => name.into_value().unwrap_or_default(),
    };
    if name.is_empty() {
        if !labels.multicluster_service_name.0 {
            problems.note(path, OF_NOBODY);
        }
        return None;
    }
    if name.contains('/') {
        problems.note(path, format!("{:?} is not the name of a Service: the slice is left out", cut(&name)));
        return None;
    }
    Some(ServiceKey::new(key.namespace(), &name))
}

/// Of the three types, FQDN is of no use to kube-proxy either.
fn family(address_type: Field<Text<'_>>, problems: &mut Problems) -> Option<Family> {
    let path = format_args!("addressType");
    if address_type == Field::Absent {
        problems.note(path, "not given: the slice is left out");
        return None;
    }
    match &*problems.take(path, address_type)? {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        "FQDN" => None,
        other => {
            problems.note(path, format!("{:?} is not IPv4, IPv6 or FQDN: the slice is left out", cut(other)));
            None
        }
    }
}

/// A port without a name or a number means "all ports", which a Service port cannot match: kube-proxy passes over it, too.
fn ports(list: Field<List<wire::Port<'_>>>, problems: &mut Problems) -> Vec<SlicePort> {
    let list = problems.take(format_args!("ports"), list).unwrap_or_default();
    let mut ports = Vec::with_capacity(list.len());
    let mut names = HashSet::with_capacity(list.len());
    for (place, entry) in list.into_iter().enumerate() {
        let Some(entry) = problems.element(format_args!("ports[{place}]"), entry) else { continue };
        let path = format_args!("ports[{place}].port");
        let (Some(name), Some(number)) =
            (problems.take(format_args!("ports[{place}].name"), entry.name), problems.take(path, entry.port))
        else {
            continue;
        };
        let Some(port) = port_number(number) else {
            problems.note(path, format!("{number} is not a port number: this port is left out"));
            continue;
        };
        let Some(protocol) = protocol(format_args!("ports[{place}].protocol"), entry.protocol, problems) else { continue };
        let name = CompactString::from(name);
        if !names.insert(name.clone()) {
            problems.note(
                format_args!("ports[{place}].name"),
                format!("{:?} is the name of a port before it, which an API server refuses; both are used", cut(&name)),
            );
        }
        spelling::note_no_label(format_args!("ports[{place}].name"), &name, problems);
        ports.push(SlicePort { name, protocol, port });
    }
    ports
}

fn endpoint(
    place: usize,
    entry: Field<wire::Endpoint<'_>>,
    family: Family,
    names: &mut Interner,
    problems: &mut Problems,
) -> Option<Endpoint> {
    // null is an endpoint without anything in it.
    let entry = match entry {
        Field::Absent => wire::Endpoint::default(),
        given => problems.take(format_args!("endpoints[{place}]"), given)?,
    };
    let address = first_address(place, entry.addresses, family, problems)?;
    let conditions = problems.take(format_args!("endpoints[{place}].conditions"), entry.conditions).unwrap_or_default();
    let mut condition =
        |name, field, default| problems.take(format_args!("endpoints[{place}].conditions.{name}"), field).unwrap_or(default);
    // serving does not follow ready when it is absent: upstream's nil is true, too.
    let conditions = Conditions {
        ready: condition("ready", conditions.ready, true),
        serving: condition("serving", conditions.serving, true),
        terminating: condition("terminating", conditions.terminating, false),
    };
    let node = problems.take(format_args!("endpoints[{place}].nodeName"), entry.node_name).filter(|node| !node.is_empty());
    let hints = problems.take(format_args!("endpoints[{place}].hints"), entry.hints).and_then(|hints| {
        let zones = hinted(format_args!("endpoints[{place}].hints.forZones"), hints.for_zones, names, problems);
        let nodes = hinted(format_args!("endpoints[{place}].hints.forNodes"), hints.for_nodes, names, problems);
        (!zones.is_empty() || !nodes.is_empty()).then(|| Box::new(Hints { zones, nodes }))
    });
    Some(Endpoint { address, conditions, node: node.map(|node| names.intern(&node)), hints })
}

/// The address that counts, which is the first, as for kube-proxy.
fn first_address(place: usize, addresses: Field<First<Text<'_>>>, family: Family, problems: &mut Problems) -> Option<IpAddr> {
    let path = format_args!("endpoints[{place}].addresses");
    let (first, more) = match addresses {
        Field::Absent => (Field::Absent, 0),
        given => problems.take(path, given).map(|First { first, more }| (first, more))?,
    };
    if first == Field::Absent {
        problems.note(path, "no address: this endpoint is left out");
        return None;
    }
    let first_path = format_args!("endpoints[{place}].addresses[0]");
    let text = problems.take(first_path, first)?;
    let Some((address, spelling)) = address::spelt_ip(&text).filter(|(address, _)| Family::of(*address) == family) else {
        problems.note(first_path, format!("{:?} is not an address of {family}: this endpoint is left out", cut(&text)));
        return None;
    };
    if let Some(what) = address::special(address) {
        problems.note(first_path, format!("{address} is {what}: this endpoint is left out"));
        return None;
    }
    // From here on without its place: it is served, and what is said of it must not be news whenever the list has another order.
    spelling::note_sloppy(format_args!("endpoints"), &text, (address, spelling), problems);
    if let Some(what) = address::unanswered(address) {
        let why = format!("{address} is {what}, at which no pod answers; an API server takes it, and it is served");
        problems.note(format_args!("endpoints"), why);
    }
    if more > 0 {
        problems.note(path, format!("{} addresses: only the first is used", more + 1));
    }
    Some(address)
}

fn hinted(
    path: super::problems::Path<'_>,
    list: Field<List<wire::Named<'_>>>,
    names: &mut Interner,
    problems: &mut Problems,
) -> Vec<Arc<str>> {
    let list = problems.take(path, list).unwrap_or_default();
    let mut hinted = Vec::with_capacity(list.len());
    for entry in list {
        let name = problems.element(path, entry).and_then(|entry| problems.take(path, entry.name));
        hinted.extend(name.map(|name| names.intern(&name)));
    }
    hinted
}
