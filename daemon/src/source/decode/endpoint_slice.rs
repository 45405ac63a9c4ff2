//! EndpointSlices (reference: kube-proxy v1.36.2, `pkg/proxy/endpointslicecache.go`).

use std::sync::Arc;

use super::field::{Field, First, List};
use super::problems::Problems;
use super::service::protocol;
use super::wire::{self, Document};
use super::{DecodeError, Decoded, address, key, timestamp};
use crate::model::{Conditions, Endpoint, EndpointSlice, Family, Hints, Interner, ServiceKey, SlicePort};
use crate::source::{Kind, Object};

pub(super) fn decode(document: Document<'_, impl Sized>, names: &mut Interner) -> Result<Decoded, DecodeError> {
    let mut problems = Problems::default();
    let metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let key = key(Kind::EndpointSlice, &metadata)?;
    let labels = problems.take(format_args!("metadata.labels"), metadata.labels).unwrap_or_default();
    let service = match labels.service_name.into_value() {
        Some(name) if !name.is_empty() && !name.contains('/') => ServiceKey::new(key.namespace(), &name),
        _ => return Ok(Decoded::NotOurs(key)),
    };
    let address_type = document.address_type;
    let family = match address_type.get().map(AsRef::as_ref) {
        Some("IPv4") => Family::V4,
        Some("IPv6") => Family::V6,
        // FQDN: kube-proxy has no use for names either.
        _ => return Ok(Decoded::NotOurs(key)),
    };
    let annotations = problems.take(format_args!("metadata.annotations"), metadata.annotations).unwrap_or_default();
    let field = format_args!("metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]");
    let trigger_time = problems.take(field, annotations.trigger_time).and_then(|text| {
        let nanoseconds = timestamp(&text).and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        if nanoseconds.is_none() {
            problems.note(field, format!("{text:?} is not a time (RFC 3339): ignored"));
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

/// A port without a name or a number ("all ports") is nothing a Service port could match, and skipped without a word, as upstream.
fn ports(list: Field<List<wire::Port<'_>>>, problems: &mut Problems) -> Vec<SlicePort> {
    let list = problems.take(format_args!("ports"), list).unwrap_or_default();
    let mut ports = Vec::with_capacity(list.len());
    for (place, entry) in list.into_iter().enumerate() {
        let Some(entry) = problems.take(format_args!("ports[{place}]"), entry) else { continue };
        let path = format_args!("ports[{place}].port");
        let (Some(name), Some(number)) =
            (problems.take(format_args!("ports[{place}].name"), entry.name), problems.take(path, entry.port))
        else {
            continue;
        };
        let Ok(port) = u16::try_from(number) else {
            problems.note(path, format!("{number} is not a port number: this port is left out"));
            continue;
        };
        let Some(protocol) = protocol(format_args!("ports[{place}].protocol"), entry.protocol, problems) else { continue };
        if port != 0 {
            ports.push(SlicePort { name: name.into(), protocol, port });
        }
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
    let entry = problems.take(format_args!("endpoints[{place}]"), entry)?;
    let First(first) = problems.take(format_args!("endpoints[{place}].addresses"), entry.addresses)?;
    let path = format_args!("endpoints[{place}].addresses[0]");
    let text = problems.take(path, first)?;
    let Some(address) = address::ip(&text).filter(|&address| Family::of(address) == family) else {
        problems.note(path, format!("{text:?} is not an address of {family}: this endpoint is left out"));
        return None;
    };
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

fn hinted(
    path: super::problems::Path<'_>,
    list: Field<List<wire::Named<'_>>>,
    names: &mut Interner,
    problems: &mut Problems,
) -> Vec<Arc<str>> {
    let list = problems.take(path, list).unwrap_or_default();
    let mut hinted = Vec::with_capacity(list.len());
    for entry in list {
        let name = problems.take(path, entry).and_then(|entry| problems.take(path, entry.name));
        hinted.extend(name.map(|name| names.intern(&name)));
    }
    hinted
}
