use serde_json::{Value, json};

use super::*;
use crate::loadbalancer::allocator::{Event, Reason};
use crate::model::Interner;
use crate::source::decode::{self, Decoded};

const AWAITED: [Kind; 3] = [Kind::AddressPool, Kind::Peer, Kind::Service];

fn intake(home: Home) -> Intake {
    Intake::new(Options::default(), home, &AWAITED)
}

fn applied(kind: Kind, object: &Value) -> Change {
    match decode::from_json(kind, object.to_string().as_bytes(), &mut Interner::default()) {
        Ok(Decoded::Object(object)) => Change::Applied(object),
        other => panic!("{other:?}"),
    }
}

fn pool(namespace: &str, name: &str, addresses: &str) -> Change {
    let metadata = json!({ "name": name, "namespace": namespace });
    applied(Kind::AddressPool, &json!({ "metadata": metadata, "spec": { "addresses": [addresses] } }))
}

fn service(name: &str) -> Change {
    let spec =
        json!({ "type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{ "port": 80 }] });
    applied(Kind::Service, &json!({ "metadata": { "name": name, "uid": name }, "spec": spec }))
}

fn node(name: &str, address: &str) -> Change {
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": address }] });
    applied(Kind::Peer, &json!({ "metadata": { "name": name }, "status": status }))
}

impl Intake {
    fn list(&mut self, kind: Kind, objects: &[Change]) {
        self.take(&Change::Listing(kind));
        objects.iter().for_each(|object| self.take(object));
        self.take(&Change::Listed(kind));
    }

    /// What each of the Services holds.
    fn holds(&self, names: &[&str]) -> Vec<Option<String>> {
        let held = |name: &&str| self.allocator.held(&ObjectKey::new("default", name));
        names.iter().map(|name| held(name).map(|held| held.addresses[0].to_string())).collect()
    }
}

fn some(address: &str) -> Option<String> {
    Some(address.to_owned())
}

#[test]
fn nothing_is_decided_before_everything_that_matters_was_listed() {
    let mut intake = intake(Home::Detected);
    intake.list(Kind::Service, &[service("web")]);
    intake.list(Kind::AddressPool, &[pool("metallb-system", "lan", "10.0.0.1-10.0.0.2")]);
    assert_eq!(intake.settle(), Settled::default());
    assert!(!intake.is_complete());
    intake.list(Kind::Peer, &[node("a", "10.0.0.1")]);
    assert_eq!(intake.settle().services.len(), 1);
    assert_eq!(intake.holds(&["web"]), [some("10.0.0.2")], "the other one is a node's");
    // The node goes, and its address is free; it comes back, and is not.
    intake.take(&Change::Deleted(Kind::Peer, ObjectKey::new("", "a")));
    intake.take(&service("api"));
    intake.settle();
    assert_eq!(intake.holds(&["api"]), [some("10.0.0.1")]);
}

#[test]
fn an_address_of_two_nodes_is_free_when_both_are_gone() {
    let mut intake = intake(Home::Detected);
    intake.list(Kind::Service, &[service("web")]);
    intake.list(Kind::AddressPool, &[pool("metallb-system", "lan", "10.0.0.1/32")]);
    intake.list(Kind::Peer, &[node("a", "10.0.0.1"), node("b", "10.0.0.1")]);
    intake.settle();
    intake.take(&node("a", "10.0.0.7"));
    intake.settle();
    assert_eq!(intake.holds(&["web"]), [None]);
    intake.list(Kind::Peer, &[node("a", "10.0.0.7")]);
    intake.settle();
    assert_eq!(intake.holds(&["web"]), [some("10.0.0.1")], "a list that does not name it is as good as its deletion");
}

#[test]
fn a_pool_elsewhere_takes_no_address_away() {
    let mut intake = intake(Home::Detected);
    intake.list(Kind::Service, &[service("web")]);
    intake.list(Kind::Peer, &[]);
    intake.list(Kind::AddressPool, &[pool("lb", "lan", "10.0.0.1/32")]);
    intake.settle();
    assert_eq!(intake.namespace().expect("one").map(AsRef::as_ref), Some("lb"));
    for namespace in ["default", "metallb-system"] {
        intake.take(&pool(namespace, "mine", "10.9.0.0/16"));
        let settled = intake.settle();
        assert_eq!((settled.services, intake.holds(&["web"])), (Vec::new(), vec![some("10.0.0.1")]), "{namespace}");
    }
    // Its own pools are gone: now the usual one counts.
    intake.take(&Change::Deleted(Kind::AddressPool, ObjectKey::new("lb", "lan")));
    intake.settle();
    assert_eq!(intake.holds(&["web"]), [some("10.9.0.0")]);
}

#[test]
fn with_pools_in_several_namespaces_nothing_is_decided_until_it_is_said_which() {
    let mut intake = intake(Home::Detected);
    intake.list(Kind::Service, &[service("web")]);
    intake.list(Kind::Peer, &[]);
    intake.list(Kind::AddressPool, &[pool("a", "x", "10.0.0.1/32"), pool("b", "y", "10.0.0.2/32")]);
    assert_eq!(intake.settle(), Settled::default());
    assert!(intake.namespace().is_err() && !intake.is_complete());
    intake.take(&Change::Deleted(Kind::AddressPool, ObjectKey::new("a", "x")));
    intake.settle();
    assert_eq!(intake.holds(&["web"]), [some("10.0.0.2")]);
    let mut given = self::intake(Home::Given("a".into()));
    given.list(Kind::Service, &[service("web")]);
    given.list(Kind::Peer, &[]);
    given.list(Kind::AddressPool, &[pool("a", "x", "10.0.0.1/32"), pool("b", "y", "10.0.0.2/32")]);
    given.settle();
    assert_eq!(given.holds(&["web"]), [some("10.0.0.1")]);
}

#[test]
fn a_service_that_nobody_announces_is_named_once() {
    let advertisement = |pools: Value| {
        let metadata = json!({ "name": "l2", "namespace": "metallb-system" });
        applied(Kind::Advertisement, &json!({ "metadata": metadata, "spec": { "ipAddressPools": pools } }))
    };
    let mut intake = intake(Home::Detected);
    intake.list(Kind::Service, &[service("web")]);
    intake.list(Kind::Peer, &[]);
    intake.list(Kind::AddressPool, &[pool("metallb-system", "lan", "10.0.0.1/32")]);
    intake.settle();
    let named =
        |intake: &mut Intake| -> Vec<_> { intake.unannounced().into_iter().map(|it| it.service.key.to_string()).collect() };
    assert_eq!(named(&mut intake), ["default/web"]);
    intake.take(&service("web"));
    intake.settle();
    assert_eq!(named(&mut intake), Vec::<String>::new(), "once");
    intake.take(&advertisement(json!(["another"])));
    intake.settle();
    assert_eq!(named(&mut intake), Vec::<String>::new(), "still");
    intake.take(&advertisement(json!(["lan"])));
    intake.settle();
    assert_eq!(named(&mut intake), Vec::<String>::new());
    intake.take(&Change::Deleted(Kind::Advertisement, ObjectKey::new("metallb-system", "l2")));
    intake.settle();
    assert_eq!(named(&mut intake), ["default/web"], "again, having been over");
}

#[test]
fn a_service_that_becomes_another_proxys_keeps_its_address() {
    let mut intake = Intake::new(Options::default(), Home::Detected, &AWAITED);
    intake.list(Kind::Service, &[service("web")]);
    intake.list(Kind::Peer, &[]);
    intake.list(Kind::AddressPool, &[pool("metallb-system", "lan", "10.0.0.1/32")]);
    intake.settle();
    let Change::Applied(Object::Service(web)) = service("web") else { panic!("a Service") };
    intake.take(&Change::Applied(Object::ForeignService(web)));
    intake.take(&Change::Deleted(Kind::Service, ObjectKey::new("default", "web")));
    let Settled { events, .. } = intake.settle();
    assert_eq!(intake.holds(&["web"]), [some("10.0.0.1")]);
    assert!(!events.iter().any(|Event { reason, .. }| *reason == Reason::IpAllocated), "{events:?}");
}
