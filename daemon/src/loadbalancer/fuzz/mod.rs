//! What reads bytes of others in the load balancer, each as a function of any bytes: it must come back, and what it asserts must hold.
//!
//! `fuzz/` at the top of the repository calls these from `cargo fuzz` (libFuzzer, nightly Rust); the tests here call them with real
//! bytes and changed ones, on stable Rust, for a few seconds. Nothing else uses them.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::allocator::{Allocator, Options};
use super::announcer::interface::Interface;
use super::announcer::responder::{Heard, hear};
use super::announcer::{arp, ndp};
use crate::model::Interner;
use crate::netlink::mac::Mac;
use crate::source::decode::{Decoded, from_json};
use crate::source::{Kind, Object};

pub use super::membership::fuzz::{fuzz_datagram, fuzz_facts, fuzz_sealed};

/// Kinds whose objects the load balancer reads, in the order in which [`fuzz_object`] counts them.
pub const KINDS: [Kind; 6] =
    [Kind::Service, Kind::ForeignService, Kind::AddressPool, Kind::Advertisement, Kind::Peer, Kind::Namespace];

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// A frame as ARP: what is understood is written and understood again, and an answer is an answer.
///
/// # Panics
/// That is a finding.
pub fn fuzz_arp(frame: &[u8]) {
    if let Ok((head, packet)) = arp::Packet::parse(frame) {
        assert_eq!(arp::Packet::parse(&packet.to(head.destination)).map(|(_, again)| again), Ok(packet));
        let answer = packet.answer(OURS);
        let answer = arp::Packet::parse(&answer).expect("our own answer");
        assert_eq!((answer.1.sender_mac, answer.1.operation), (OURS, arp::Operation::Reply));
    }
    respond(frame, [8, 6]);
}

/// A frame as neighbour discovery: the answer to what is understood can be understood.
///
/// # Panics
/// That is a finding.
pub fn fuzz_ndp(frame: &[u8]) {
    if let Ok((head, message)) = ndp::Message::parse(frame) {
        assert!(!message.target.is_multicast() && !message.target.is_unspecified());
        if message.kind == ndp::Kind::Solicitation {
            let answer = message.answer(OURS, message.target, head.source);
            let (_, answer) = ndp::Message::parse(&answer).expect("our own answer");
            assert_eq!((answer.target, answer.link_layer), (message.target, Some(OURS)));
        }
    }
    respond(frame, [0x86, 0xdd]);
}

/// As the announcer does, with every address announced: nothing of ours is ever answered, or taken for somebody else's claim.
fn respond(frame: &[u8], ethertype: [u8; 2]) {
    let mut frame = frame.to_vec();
    if let Some(kind) = frame.get_mut(12..14) {
        kind.copy_from_slice(&ethertype);
    }
    let (link_local, name) = ("fe80::1".parse().ok(), "eth0".into());
    let interface = Interface { index: 2, name, mac: OURS, v4: true, v6: true, link_local, carrier_changes: 0 };
    match hear(&frame, &interface, |_| true, |mac| mac == OURS) {
        Some(Heard::Claim(_, mac)) => assert_ne!(mac, OURS),
        Some(Heard::Question(..)) => assert_ne!(frame.get(6..12), Some(&OURS.0[..])),
        None => {}
    }
}

/// The text of one entry of `spec.addresses` of an IPAddressPool: one range, first to last, or a problem.
///
/// # Panics
/// That is a finding.
pub fn fuzz_pool_addresses(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let object = serde_json::json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": { "addresses": [text] } });
    if let Ok(Decoded::Object(Object::AddressPool(pool))) =
        from_json(Kind::AddressPool, object.to_string().as_bytes(), &mut Interner::default())
    {
        assert!(pool.ranges.len() == 1 || !pool.problems.is_empty(), "{text:?} is neither a range nor a problem");
        for range in &pool.ranges {
            assert!(range.first() <= range.last() && range.contains(range.first()) && range.contains(range.last()));
        }
        allocate(vec![Object::AddressPool(pool)]);
    }
}

/// What a person writes in a label selector or in an annotation, as JSON: the first byte says which object it is put into.
///
/// # Panics
/// That is a finding.
pub fn fuzz_service_wish(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let annotation = match which % 6 {
        0 => "metallb.io/loadBalancerIPs",
        1 => "metallb.io/address-pool",
        2 => "metallb.io/allow-shared-ip",
        3 => "metallb.universe.tf/loadBalancerIPs",
        4 => "metallb.io/ip-allocated-from-pool",
        _ => "metallb.universe.tf/allow-shared-ip",
    };
    let service = serde_json::json!({
        "metadata": { "name": "s", "namespace": "n", "uid": "u", "annotations": { annotation: text } },
        "spec": { "type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{ "port": 80 }] },
    });
    let pool = serde_json::json!({
        "metadata": { "name": "p", "namespace": "m" }, "spec": { "addresses": ["10.9.0.0/29", "fd00::/125"] },
    });
    let selector = serde_json::json!({
        "metadata": { "name": "a", "namespace": "m" },
        "spec": { "nodeSelectors": [{ "matchExpressions": [{ "key": text, "operator": "In", "values": [text] }] }], "interfaces": [text] },
    });
    let objects = [(Kind::AddressPool, pool), (Kind::Service, service), (Kind::Advertisement, selector)];
    let decoded = objects.iter().filter_map(|(kind, object)| decode(*kind, object.to_string().as_bytes()));
    allocate(decoded.collect());
}

/// An object as a server or a person may write it; the first byte says of which of [`KINDS`]. What can be read is allocated for.
///
/// # Panics
/// That is a finding.
pub fn fuzz_object(bytes: &[u8]) {
    let Some((kind, json)) = bytes.split_first() else { return };
    let kind = KINDS[usize::from(*kind) % KINDS.len()];
    allocate(decode(kind, json).into_iter().collect());
}

fn decode(kind: Kind, json: &[u8]) -> Option<Object> {
    match from_json(kind, json, &mut Interner::default()) {
        Ok(Decoded::Object(object)) => Some(object),
        Ok(Decoded::NotOurs { .. }) | Err(_) => None,
    }
}

/// Whatever is told, the allocator comes to a decision, and to no other when it is asked again.
fn allocate(objects: Vec<Object>) {
    let mut allocator = Allocator::new(Options::default());
    for object in objects {
        match object {
            Object::AddressPool(pool) => allocator.set_pool(Arc::new(*pool)),
            Object::Service(service) | Object::ForeignService(service) => allocator.set_service(Arc::new(*service)),
            Object::Namespace(namespace) => allocator.set_namespace(*namespace),
            Object::Advertisement(_) | Object::Peer(_) | Object::EndpointSlice(_) | Object::Node(_) | Object::ServiceCidr(_) => {}
        }
    }
    allocator.complete();
    allocator.settle();
    let again = allocator.settle();
    assert!(again.services.is_empty() && again.events.is_empty(), "decided twice: {again:?}");
}
