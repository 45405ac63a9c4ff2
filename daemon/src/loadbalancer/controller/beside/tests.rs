use std::collections::BTreeSet;

use super::*;
use crate::loadbalancer::announcer::conflict::Claim;
use crate::metrics::ControllerMetrics;
use crate::model::Interner;
use crate::netlink::mac::Mac;
use crate::source::decode::{self, Decoded};

use serde_json::{Value, json};

const KINDS: [Kind; 7] = [
    Kind::Peer,
    Kind::Namespace,
    Kind::AddressPool,
    Kind::Advertisement,
    Kind::ForeignService,
    Kind::Service,
    Kind::EndpointSlice,
];

fn beside() -> Beside {
    Beside::new(None, Home::Detected, ControllerMetrics::new().allocator())
}

fn object(kind: Kind, object: &Value) -> Change {
    match decode::from_json(kind, object.to_string().as_bytes(), &mut Interner::default()) {
        Ok(Decoded::Object(object)) => Change::Applied(object),
        other => panic!("{other:?}"),
    }
}

fn pool(addresses: &str) -> Change {
    let metadata = json!({ "name": "lan", "namespace": "metallb-system" });
    object(Kind::AddressPool, &json!({ "metadata": metadata, "spec": { "addresses": [addresses] } }))
}

fn service(name: &str, status: &Value) -> Change {
    let spec =
        json!({ "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{ "port": 80 }] });
    let metadata = json!({ "name": name, "creationTimestamp": "2026-01-01T00:00:00Z" });
    object(Kind::Service, &json!({ "metadata": metadata, "spec": spec, "status": status }))
}

/// A first load: complete lists of everything.
fn load(objects: &[(Kind, Change)]) -> Change {
    let mut changes = Vec::new();
    for kind in KINDS {
        changes.push(Change::Listing(kind));
        changes.extend(objects.iter().filter(|(of, _)| *of == kind).map(|(_, change)| change.clone()));
        changes.push(Change::Listed(kind));
    }
    Change::Together(changes)
}

/// The Services in a change with their VIPs, each once.
fn told(change: &Change) -> Vec<(String, Vec<String>)> {
    let mut told = Vec::new();
    let mut clone = change.clone();
    each_service(&mut clone, &mut |service| {
        let vips = service.vips.iter().map(ToString::to_string).collect();
        told.push((service.key.name().to_owned(), vips));
    });
    let names: BTreeSet<_> = told.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), told.len(), "one is told twice: {told:?}");
    told
}

fn expected(services: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    services.iter().map(|(name, vips)| ((*name).to_owned(), vips.iter().map(|vip| (*vip).to_owned()).collect())).collect()
}

#[test]
fn a_service_has_its_address_in_the_load_that_brings_it() {
    let mut beside = beside();
    let first = beside.pass(load(&[
        (Kind::AddressPool, pool("10.0.0.240-10.0.0.241")),
        (Kind::Service, service("web", &json!({}))),
        (Kind::Service, service("kept", &json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.241" }] } }))),
    ]));
    assert_eq!(told(&first), expected(&[("web", &["10.0.0.240"]), ("kept", &["10.0.0.241"])]));
    // A manifest that is touched does not know its address.
    let again = beside.pass(service("web", &json!({})));
    assert_eq!(told(&again), expected(&[("web", &["10.0.0.240"])]));
}

#[test]
fn what_follows_for_others_is_in_the_same_commit() {
    let mut beside = beside();
    beside.pass(load(&[
        (Kind::AddressPool, pool("10.0.0.240/32")),
        (Kind::Service, service("first", &json!({}))),
        (Kind::Service, service("second", &json!({}))),
    ]));
    let gone = Change::Deleted(Kind::Service, ObjectKey::new("default", "first"));
    let after = beside.pass(gone.clone());
    let Change::Together(changes) = &after else { panic!("{after:?}") };
    assert_eq!(changes[0], gone);
    assert_eq!(told(&after), expected(&[("second", &["10.0.0.240"])]));
    // A pool that moves takes its Services along, which are in no file that changed.
    let moved = beside.pass(pool("10.0.0.7/32"));
    assert_eq!(told(&moved), expected(&[("second", &["10.0.0.7"])]));
    let none = beside.pass(Change::Deleted(Kind::AddressPool, ObjectKey::new("metallb-system", "lan")));
    assert_eq!(told(&none), expected(&[("second", &[])]));
}

#[test]
fn nothing_is_changed_before_everything_was_listed() {
    let mut beside = beside();
    let early = service("web", &json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } }));
    assert_eq!(beside.pass(early.clone()), early);
}

/// Without interfaces nobody is asked; what is heard is said here.
fn asking() -> Beside {
    beside().probing(Prober::default())
}

fn decide(beside: &mut Beside) -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let mut changed = BTreeSet::new();
    let asked = beside.decide(&mut changed);
    let told = beside.hand_on(None, changed).map(|change| told(&change)).unwrap_or_default();
    (asked.iter().map(ToString::to_string).collect(), told)
}

fn hear(beside: &mut Beside, asked: &str, taken: bool) {
    let address: IpAddr = asked.parse().unwrap();
    let claim = Claim { address, mac: Mac([2, 0, 0, 0, 0, 9]), interface: "eth0".into() };
    beside.hear((vec![address], Ok(taken.then_some(claim).into_iter().collect())));
}

#[test]
fn an_address_of_another_host_is_not_given_out_before_it_is_free() {
    let mut beside = asking();
    let mut first = load(&[
        (Kind::AddressPool, pool("10.0.0.240-10.0.0.241")),
        (Kind::Service, service("web", &json!({}))),
        (Kind::Service, service("kept", &json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.241" }] } }))),
    ]);
    beside.take_in(&mut first);
    let kept = expected(&[("kept", &["10.0.0.241"])]);
    assert_eq!(decide(&mut beside), (vec!["10.0.0.240".to_owned()], kept), "what a status says is not asked for");
    hear(&mut beside, "10.0.0.240", true);
    assert_eq!(decide(&mut beside), (vec![], vec![]), "there is no other");
    beside.take_in(&mut pool("10.0.0.240-10.0.0.242"));
    assert_eq!(decide(&mut beside).0, ["10.0.0.242"]);
    hear(&mut beside, "10.0.0.242", false);
    assert_eq!(decide(&mut beside), (vec![], expected(&[("web", &["10.0.0.242"])])));
    beside.take_in(&mut service("next", &json!({})));
    assert_eq!(decide(&mut beside), (vec![], vec![]));
    hear(&mut beside, "10.0.0.240", false);
    assert_eq!(decide(&mut beside), (vec![], expected(&[("next", &["10.0.0.240"])])), "it has just been asked for");
}

#[tokio::test]
async fn who_can_ask_nobody_gives_out_in_the_load_that_brings_a_service() {
    // The namespace of the tests may have interfaces: none of them is asked on.
    let nowhere = Prober::new(crate::loadbalancer::announcer::exclusions::Exclusions::new(&["."]).unwrap());
    let (to, from) = tokio::sync::mpsc::channel(1);
    let (out, mut told_of) = tokio::sync::mpsc::channel(1);
    tokio::spawn(beside().probing(nowhere).run(from, out));
    let objects = [(Kind::AddressPool, pool("10.0.0.240/32")), (Kind::Service, service("web", &json!({})))];
    to.send(load(&objects)).await.unwrap();
    assert_eq!(told(&told_of.recv().await.unwrap()), expected(&[("web", &["10.0.0.240"])]));
}
