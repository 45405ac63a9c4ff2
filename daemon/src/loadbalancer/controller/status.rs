//! The objects that are written, edited as JSON: what we do not know of them stays as it is.

use serde_json::{Map, Value, json};

use crate::loadbalancer::allocator::{StatusChange, WantedStatus};
use crate::model::load_balancer::{IngressAddress, IpMode, LoadBalancerRequest, PoolCounts};
use crate::model::{Interner, Service};
use crate::source::decode::{self, Decoded};
use crate::source::{Kind, Object};

/// The annotation that says which pool an address is from. Of the old prefix there is none.
const ALLOCATED_FROM: &str = "metallb.io/ip-allocated-from-pool";

/// What is to be done with an object that was read to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edit {
    /// It says already what it should.
    Nothing,
    /// It is another object than the one that was decided about.
    Gone,
    /// It has changed since the decision: that is to be made again, when the watch has told it as well.
    Stale,
    /// Write this.
    Write(Value),
}

/// A Service whose status is to be `change`, decided when it was `known`.
pub(super) fn edit_service(mut object: Value, change: &StatusChange, known: &Service) -> Edit {
    let Some(now) = service(&object) else { return Edit::Stale };
    if now.uid != change.uid {
        return Edit::Gone;
    }
    if says(now.load_balancer.as_deref(), &change.wanted) {
        return Edit::Nothing;
    }
    if !asks_the_same(&now, known) {
        return Edit::Stale;
    }
    let WantedStatus { ingress, pool } = &change.wanted;
    let balancer = member(&mut object, "status");
    let before = match balancer.remove("loadBalancer") {
        Some(Value::Object(mut before)) => match before.remove("ingress") {
            Some(Value::Array(before)) => before,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let entries: Vec<_> = ingress.iter().map(|wanted| entry(*wanted, &before)).collect();
    balancer.insert("loadBalancer".into(), if entries.is_empty() { json!({}) } else { json!({ "ingress": entries }) });
    let metadata = member(&mut object, "metadata");
    match pool {
        Some(pool) => {
            if !metadata.get("annotations").is_some_and(Value::is_object) {
                metadata.insert("annotations".into(), json!({}));
            }
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.insert(ALLOCATED_FROM.into(), pool.as_str().into());
            }
        }
        None => {
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(ALLOCATED_FROM);
            }
        }
    }
    Edit::Write(object)
}

/// A pool whose status is to tell these counts.
pub(super) fn edit_pool(mut object: Value, counts: PoolCounts) -> Edit {
    if pool_counts(&object) == Some(counts) {
        return Edit::Nothing;
    }
    let PoolCounts { assigned_v4, assigned_v6, available_v4, available_v6 } = counts;
    let status = member(&mut object, "status");
    for (name, count) in [
        ("assignedIPv4", assigned_v4),
        ("assignedIPv6", assigned_v6),
        ("availableIPv4", available_v4),
        ("availableIPv6", available_v6),
    ] {
        status.insert(name.into(), count.into());
    }
    Edit::Write(object)
}

/// Whether a status says what it should, by meaning: an absent mode is VIP.
fn says(request: Option<&LoadBalancerRequest>, wanted: &WantedStatus) -> bool {
    let Some(request) = request else { return wanted.ingress.is_empty() && wanted.pool.is_none() };
    request.ingress == wanted.ingress && !request.other_ingress && request.allocated_from == wanted.pool
}

/// Whether a decision about one is a decision about the other.
fn asks_the_same(one: &Service, other: &Service) -> bool {
    let asked = |service: &Service| {
        let Service { kind, cluster_ips, external_traffic_policy, ports, load_balancer, .. } = service;
        (*kind, cluster_ips.clone(), *external_traffic_policy, ports.clone(), load_balancer.clone())
    };
    asked(one) == asked(other)
}

/// One entry of `ingress`: what others wrote beside the address stays.
fn entry(wanted: IngressAddress, before: &[Value]) -> Value {
    let is_it = |entry: &&Value| entry["ip"].as_str().and_then(|ip| ip.parse().ok()) == Some(wanted.ip);
    let mut entry = before.iter().find(is_it).and_then(Value::as_object).cloned().unwrap_or_default();
    entry.insert("ip".into(), wanted.ip.to_string().into());
    // An API server of 1.30 or later would add it; one that is older drops it.
    let mode = match wanted.mode {
        IpMode::Vip => "VIP",
        IpMode::Proxy => "Proxy",
    };
    entry.insert("ipMode".into(), mode.into());
    entry.into()
}

/// A member that is an object, made so if it is anything else: what a server sends cannot be trusted to be one.
fn member<'o>(object: &'o mut Value, name: &str) -> &'o mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let slot = &mut object[name];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().expect("it was just made one")
}

fn service(object: &Value) -> Option<Service> {
    match decoded(Kind::Service, object)? {
        Object::Service(service) => Some(*service),
        _ => None,
    }
}

fn pool_counts(object: &Value) -> Option<PoolCounts> {
    match decoded(Kind::AddressPool, object)? {
        Object::AddressPool(pool) => pool.counts,
        _ => None,
    }
}

fn decoded(kind: Kind, object: &Value) -> Option<Object> {
    match decode::from_json(kind, object.to_string().as_bytes(), &mut Interner::default()) {
        Ok(Decoded::Object(object)) => Some(object),
        Ok(Decoded::NotOurs { .. }) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests;
