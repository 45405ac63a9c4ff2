//! A node, what is around it, and Services that ask for some of that.

use super::*;
use crate::config::Servers;
use crate::model::{Endpoint, ObjectKey, ServiceType, TrafficPolicy, samples};
use crate::policy::Context;
use crate::reconciler::{Purpose, Reconciler};
use crate::source::{Change, Object};

const OWN: &str = "192.168.0.2";

/// A node named `n`, and the Services of a test.
struct World {
    reconciler: Reconciler,
    misgivings: Misgivings,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

impl World {
    fn new() -> Self {
        let reconciler = Reconciler::new(Context { node_name: "n".into(), ..Context::default() });
        let mut world = Self { reconciler, misgivings: Misgivings::default() };
        world.surrounded_by(&["10.96.0.0/16"]);
        world
    }

    fn surrounded_by(&mut self, cidrs: &[&str]) {
        let at = |address: &str| Some(address.parse().unwrap());
        let servers =
            Servers { healthz: at("0.0.0.0:10256"), metrics: at("127.0.0.1:10249"), admin: None, bind_address_hard_fail: false };
        let options = Options { servers, ..Options::new("n".into(), SourceOptions::Manifests("".into())) };
        let local = ["127.0.0.1", OWN].map(ip).into_iter().collect();
        let state = NodeState { service_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(), ..NodeState::default() };
        self.misgivings.set_surroundings(Surroundings::new(&options, self.reconciler.index(), &local, &state));
    }

    /// What is raised, and how much is cleared.
    fn put(&mut self, services: impl IntoIterator<Item = Service>) -> (Vec<String>, usize) {
        for service in services {
            self.reconciler.apply(Change::Applied(Object::Service(Box::new(service))));
        }
        self.look()
    }

    fn look(&mut self) -> (Vec<String>, usize) {
        let dirty = self.reconciler.take_dirty();
        let changed = dirty.services.keys().cloned().collect();
        self.reconciler.reconcile(dirty, Purpose::Delta, |_, _| {});
        let News { raised, cleared } = self.misgivings.look(changed, self.reconciler.index(), self.reconciler.table());
        let mut raised: Vec<_> = raised.into_iter().map(|notice| format!("{} {}", notice.service, notice.message)).collect();
        raised.sort();
        (raised, cleared.len())
    }
}

#[test]
fn an_ordinary_service_gives_none_and_neither_does_loopback() {
    let mut world = World::new();
    assert_eq!(world.put([samples::service(key("web"), ip("10.96.0.1"))]), (vec![], 0));
    let own = Service { external_ips: vec![ip(OWN)], vips: vec![ip(OWN)], ..samples::service(key("ingress"), ip("10.96.0.2")) };
    assert_eq!(world.put([own]), (vec![], 0), "an externalIP that is the node's is what they are for");
}

#[test]
fn an_endpoint_that_is_its_own_services_cluster_ip_is_named_with_its_slice() {
    let mut world = World::new();
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<_> = addresses.iter().map(|address| samples::endpoint(ip(address))).collect();
        let slice = samples::slice(ObjectKey::new("default", "web-a"), key("web"), endpoints);
        Change::Applied(Object::EndpointSlice(Box::new(slice)))
    };
    world.reconciler.apply(slice(&["10.244.0.7", "10.96.0.1", "10.96.0.2"]));
    let (told, _) = world.put([samples::service(key("web"), ip("10.96.0.1")), samples::service(key("other"), ip("10.96.0.2"))]);
    let expected = "default/web endpoint 10.96.0.1 of EndpointSlice default/web-a: 10.96.0.1 is the ClusterIP of this very \
                    Service: what gets there goes nowhere, and it is served";
    assert_eq!(told, [expected]);
    world.reconciler.apply(slice(&["10.244.0.7", "10.96.0.2"]));
    assert_eq!(world.look(), (vec![], 1));
}

#[test]
fn a_cluster_ip_that_is_somebodys_is_named_once_and_until_it_is_not() {
    let mut world = World::new();
    let local = Endpoint { node: Some("n".into()), ..samples::endpoint(ip("10.244.0.7")) };
    let slice = samples::slice(ObjectKey::new("default", "web-a"), key("web"), [local]);
    world.reconciler.apply(Change::Applied(Object::EndpointSlice(Box::new(slice))));
    world.put([samples::service(key("web"), ip("10.96.0.1"))]);
    let of = |name: &str, address: &str| samples::service(key(name), ip(address));
    let (told, _) = world.put([of("node", OWN), of("pod", "10.244.0.7"), of("stray", "172.30.0.1")]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("default/node spec.clusterIP: 192.168.0.2 is an address of this node: "), "{told:?}");
    assert!(told[1].starts_with("default/pod spec.clusterIP: 10.244.0.7 is the address of a pod on this node: "), "{told:?}");
    assert!(told[2].starts_with("default/stray spec.clusterIP: 172.30.0.1 is in no ServiceCIDR (10.96.0.0/16): "), "{told:?}");
    assert_eq!(world.put([Service { affinity: std::num::NonZeroU32::new(9), ..of("node", OWN) }]), (vec![], 0));
    world.surrounded_by(&["10.96.0.0/16", "172.30.0.0/16"]);
    assert_eq!(world.look(), (vec![], 1), "another ServiceCIDR");
    world.surrounded_by(&[]);
    assert_eq!(world.look(), (vec![], 0), "where none is known, nothing is outside");
    assert_eq!(world.put([of("node", "10.96.0.9")]), (vec![], 1));
    world.reconciler.apply(Change::Deleted(crate::source::Kind::Service, key("pod")));
    assert_eq!(world.look(), (vec![], 1), "gone");
}

#[test]
fn an_external_ip_that_is_a_pods_is_named() {
    let mut world = World::new();
    let local = Endpoint { node: Some("n".into()), ..samples::endpoint(ip("10.244.0.7")) };
    let slice = samples::slice(ObjectKey::new("default", "web-a"), key("web"), [local]);
    world.reconciler.apply(Change::Applied(Object::EndpointSlice(Box::new(slice))));
    world.put([samples::service(key("web"), ip("10.96.0.1"))]);
    let thief = Service { external_ips: vec![ip("10.244.0.7")], ..samples::service(key("thief"), ip("10.96.0.2")) };
    let (told, _) = world.put([thief]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("default/thief spec.externalIPs: 10.244.0.7 is the address of a pod on this node: "), "{told:?}");
}

#[test]
fn a_node_port_that_is_shadowed_at_an_address_of_the_node_is_told_whoever_comes_first() {
    let node_port = || {
        let mut service = samples::service(key("old"), ip("10.96.0.1"));
        service.ports[0].node_port = 31_600;
        Service { kind: ServiceType::NodePort, ..service }
    };
    let taker = || {
        let mut service = samples::service(key("taker"), ip("10.96.0.2"));
        service.ports[0].port = 31_600;
        Service { external_ips: vec![ip(OWN)], ..service }
    };
    let told = "default/old spec.ports[0].nodePort: default/taker has 192.168.0.2, an address of this node: who asks there for \
                31600 gets that Service";
    let mut world = World::new();
    assert_eq!(world.put([node_port()]), (vec![], 0));
    assert_eq!(world.put([taker()]), (vec![told.to_owned()], 0));
    world.reconciler.apply(Change::Deleted(crate::source::Kind::Service, key("taker")));
    assert_eq!(world.look(), (vec![], 1));
    assert_eq!(world.put([taker()]), (vec![told.to_owned()], 0), "again");
    let mut world = World::new();
    assert_eq!(world.put([taker(), node_port()]), (vec![told.to_owned()], 0), "both at once");
}

#[test]
fn who_lost_an_address_takes_nothing_there() {
    let mut world = World::new();
    let holder = samples::service(key("holder"), ip(OWN));
    let mut loser = Service { external_ips: vec![ip(OWN)], ..samples::service(key("loser"), ip("10.96.0.2")) };
    loser.ports[0].port = 22;
    let (told, _) = world.put([holder, loser]);
    assert!(!told.iter().any(|line| line.contains("SSH")), "{told:?}");
}

#[test]
fn ports_at_which_the_daemon_answers_are_named() {
    let mut world = World::new();
    let node_port = |name: &str, address: &str, number| {
        let mut service = samples::service(key(name), ip(address));
        service.ports[0].node_port = number;
        service
    };
    let checked = Service {
        kind: ServiceType::LoadBalancer,
        external_traffic_policy: TrafficPolicy::Local,
        health_check_node_port: 31_000,
        ..samples::service(key("lb"), ip("10.96.0.1"))
    };
    let ssh = Service {
        external_ips: vec![ip(OWN)],
        ports: vec![samples::port("", Protocol::Tcp, 22)],
        ..samples::service(key("ssh"), ip("10.96.0.5"))
    };
    let services = [
        checked,
        node_port("a", "10.96.0.2", 10_256),
        node_port("b", "10.96.0.3", 10_249),
        node_port("c", "10.96.0.4", 31_000),
        node_port("d", "10.96.0.6", 22),
        ssh,
    ];
    let (told, _) = world.put(services);
    assert_eq!(
        told,
        [
            "default/a spec.ports[0].nodePort: 10256 is where this daemon answers /healthz: who asks there gets this Service",
            "default/b spec.ports[0].nodePort: 10249 is where this daemon answers /metrics: who asks there gets this Service",
            "default/c spec.ports[0].nodePort: 31000 is where this daemon answers the healthCheckNodePort of default/lb: who asks there gets this Service",
            "default/d spec.ports[0].nodePort: connections to 22 of this node go to this Service, and SSH gets none there",
            "default/d spec.ports[0].nodePort: default/ssh has 192.168.0.2, an address of this node: who asks there for 22 gets that Service",
            "default/lb spec.healthCheckNodePort: 31000 is a nodePort of default/c: a load balancer that asks there gets that Service",
            "default/ssh spec.externalIPs: connections to 192.168.0.2:22 on this node go to this Service, and SSH gets none",
        ]
    );
}

/// Whichever comes first, and whichever goes.
#[test]
fn the_other_party_of_a_port_is_told_as_well() {
    let checked = || Service {
        kind: ServiceType::LoadBalancer,
        external_traffic_policy: TrafficPolicy::Local,
        health_check_node_port: 31_000,
        ..samples::service(key("lb"), ip("10.96.0.1"))
    };
    let holding = || {
        let mut service = samples::service(key("c"), ip("10.96.0.4"));
        service.ports[0].node_port = 31_000;
        service
    };
    for order in [[checked(), holding()], [holding(), checked()]] {
        let mut world = World::new();
        let [first, second] = order;
        let (going, name) = (second.key.clone(), first.key.clone());
        assert_eq!(world.put([first]), (vec![], 0));
        assert_eq!(world.put([second]).0.len(), 2, "both");
        world.reconciler.apply(Change::Deleted(crate::source::Kind::Service, going));
        assert_eq!(world.look(), (vec![], 2), "{name} alone");
    }
}
