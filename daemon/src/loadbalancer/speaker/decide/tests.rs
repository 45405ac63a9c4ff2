use serde_json::json;

use super::*;
use crate::model::load_balancer::{AddressPool, Advertisement, EXCLUDE_LABEL, Hosting};
use crate::model::{Interner, ObjectKey};
use crate::source::decode::{self, Decoded};
use crate::source::{Kind, Object};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 240));

/// A node with one interface, a pool that an advertisement is for, and one Service with an address of it.
struct Scene {
    rules: Rules,
    services: BTreeMap<ServiceKey, Arc<ServiceState>>,
    interfaces: Vec<NetworkInterface>,
    class: Option<&'static str>,
    programmed: u64,
    held: Decisions,
}

fn object(kind: Kind, object: &serde_json::Value) -> Object {
    match decode::from_json(kind, object.to_string().as_bytes(), &mut Interner::default()) {
        Ok(Decoded::Object(object)) => object,
        other => panic!("{other:?}"),
    }
}

fn pool(addresses: &[&str]) -> Arc<AddressPool> {
    let spec = json!({ "addresses": addresses });
    match object(Kind::AddressPool, &json!({ "metadata": { "name": "lan", "namespace": "lb" }, "spec": spec })) {
        Object::AddressPool(pool) => pool.into(),
        other => panic!("{other:?}"),
    }
}

fn advertisement(spec: &serde_json::Value) -> Arc<Advertisement> {
    match object(Kind::Advertisement, &json!({ "metadata": { "name": "all", "namespace": "lb" }, "spec": spec })) {
        Object::Advertisement(advertisement) => advertisement.into(),
        other => panic!("{other:?}"),
    }
}

fn on(nodes: &[&str]) -> Hosting {
    Hosting { any: !nodes.is_empty(), nodes: nodes.iter().map(|node| Arc::from(*node)).collect() }
}

fn tenancy() -> Tenancy {
    Tenancy {
        uid: "uid".into(),
        labels: Labels::default(),
        class: None,
        vips: vec![VIP],
        local: false,
        hosting_v4: on(&["b"]),
        hosting_v6: Hosting::default(),
    }
}

fn key(name: &str) -> ServiceKey {
    ObjectKey::new("default", name)
}

fn published(name: &str, generation: u64, tenancy: Tenancy) -> (ServiceKey, Arc<ServiceState>) {
    let tenancy = Some(Arc::new(tenancy));
    let state = ServiceState { key: key(name), generation, ports: Vec::new(), notices: Vec::new(), health_check: None, tenancy };
    (key(name), Arc::new(state))
}

impl Scene {
    fn new() -> Self {
        let pools = vec![pool(&["192.168.0.240-192.168.0.250"])];
        let interface = NetworkInterface {
            name: "eth0".into(),
            hardware: None,
            carrier: true,
            subnets: vec!["192.168.0.1/24".parse().unwrap()],
        };
        Self {
            rules: Rules { pools, advertisements: vec![advertisement(&json!({}))], node: None },
            services: [published("web", 1, tenancy())].into(),
            interfaces: vec![interface],
            class: None,
            programmed: 1,
            held: Decisions::new(),
        }
    }

    fn with(tenancy: Tenancy) -> Self {
        Self { services: [published("web", 1, tenancy)].into(), ..Self::new() }
    }

    fn decide(&self) -> Decisions {
        let Self { rules, services, interfaces, class, programmed, held } = self;
        decide(&Situation { node: "a", class: *class, rules, services, interfaces, programmed: *programmed, held })
    }

    fn outcome(&self) -> Option<Result<Interfaces, Quiet>> {
        self.decide().remove(&VIP).map(|decision| decision.outcome)
    }
}

#[test]
fn a_vip_of_a_pool_is_announced_on_the_interfaces_of_its_advertisements() {
    let scene = Scene::new();
    assert_eq!(scene.outcome(), Some(Ok(Interfaces::All)));
    assert_eq!(vips(&scene.decide()), [Vip { address: VIP, interfaces: Vec::new() }]);
    let rules = Rules { advertisements: vec![advertisement(&json!({ "interfaces": ["eth1", "eth0"] }))], ..scene.rules.clone() };
    let named = Scene { rules, ..scene };
    assert_eq!(vips(&named.decide()), [Vip { address: VIP, interfaces: vec!["eth0".into(), "eth1".into()] }]);
}

#[test]
fn what_is_in_no_pool_or_of_another_class_is_nothing_of_ours() {
    let elsewhere = Tenancy { vips: vec!["192.168.0.9".parse().unwrap()], ..tenancy() };
    assert_eq!(Scene::with(elsewhere).decide(), Decisions::new());
    let of_a_class = Tenancy { class: Some("lb.example.org/l2".into()), ..tenancy() };
    assert_eq!(Scene::with(of_a_class.clone()).decide(), Decisions::new());
    assert_eq!(Scene { class: Some("lb.example.org/l2"), ..Scene::new() }.decide(), Decisions::new());
    assert!(matches!(Scene { class: Some("lb.example.org/l2"), ..Scene::with(of_a_class) }.outcome(), Some(Ok(_))));
}

#[test]
fn silence_has_its_reason() {
    let nowhere = Tenancy { hosting_v4: on(&[]), ..tenancy() };
    let only_there = Tenancy { local: true, ..tenancy() };
    let rules = |spec: serde_json::Value| Rules { advertisements: vec![advertisement(&spec)], ..Scene::new().rules };
    let excluded = json!({ "metadata": { "name": "a", "labels": { EXCLUDE_LABEL: "" } } });
    let Object::Peer(excluded) = object(Kind::Peer, &excluded) else { panic!("no Node") };
    let unplugged = NetworkInterface { carrier: false, ..Scene::new().interfaces.remove(0) };
    for (scene, quiet) in [
        (Scene::with(nowhere), Quiet::Nobody(Silence::NoEndpoints)),
        (Scene::with(only_there), Quiet::Unable(Exclusion::NoEndpoint)),
        (
            Scene { rules: rules(json!({ "serviceSelectors": [{ "matchLabels": { "app": "x" } }] })), ..Scene::new() },
            Quiet::Nobody(Silence::NoAdvertisement),
        ),
        (Scene { rules: rules(json!({ "interfaces": ["eth9"] })), ..Scene::new() }, Quiet::Unable(Exclusion::NoInterface)),
        (
            Scene { rules: Rules { node: Some(Arc::new(*excluded)), ..Scene::new().rules }, ..Scene::new() },
            Quiet::Unable(Exclusion::ExcludeLabel),
        ),
        (Scene { interfaces: vec![unplugged], ..Scene::new() }, Quiet::Unable(Exclusion::NoCarrier)),
        (Scene { programmed: 0, ..Scene::new() }, Quiet::Unprogrammed),
    ] {
        assert_eq!(scene.outcome(), Some(Err(quiet)));
        assert_eq!(vips(&scene.decide()), []);
    }
}

#[test]
fn what_is_announced_does_not_wait_for_the_kernel() {
    let scene = Scene::new();
    let held = scene.decide();
    let changed = [published("web", 2, tenancy())].into();
    assert_eq!(Scene { services: changed, held, ..scene }.outcome(), Some(Ok(Interfaces::All)));
}

#[test]
fn all_services_of_an_address_count_and_an_address_counts_once() {
    let twice = Tenancy { vips: vec![VIP, VIP], ..tenancy() };
    let without = Tenancy { hosting_v4: on(&[]), ..tenancy() };
    let scene = Scene { services: [published("web", 1, twice), published("api", 1, without)].into(), ..Scene::new() };
    let decision = scene.decide().remove(&VIP).expect("decided");
    assert_eq!(decision.outcome, Ok(Interfaces::All));
    assert_eq!(decision.tenants.keys().collect::<Vec<_>>(), [&key("api"), &key("web")]);
}
