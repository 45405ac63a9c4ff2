//! `allow-shared-ip`.

use super::*;

/// A Service with a sharing key and a port.
fn shared(key: &'static str, port: u16) -> impl Fn(&mut Service, &mut LoadBalancerRequest) {
    move |service, request| {
        request.sharing_key = text(key);
        service.ports = vec![samples::port("", Protocol::Tcp, port)];
    }
}

/// With `externalTrafficPolicy: Local`.
fn local(key: &'static str, port: u16, selector: &'static str) -> impl Fn(&mut Service, &mut LoadBalancerRequest) {
    move |service, request| {
        shared(key, port)(service, request);
        service.external_traffic_policy = TrafficPolicy::Local;
        request.selector = selector.into();
    }
}

#[test]
fn who_may_be_on_one_address() {
    type Change = Box<dyn Fn(&mut Service, &mut LoadBalancerRequest)>;
    let udp = |service: &mut Service, request: &mut LoadBalancerRequest| {
        shared("k", 80)(service, request);
        service.ports = vec![samples::port("", Protocol::Udp, 80)];
    };
    let cases: Vec<(&str, Change, Change, bool)> = vec![
        ("other ports", Box::new(shared("k", 80)), Box::new(shared("k", 81)), true),
        ("other protocols", Box::new(shared("k", 80)), Box::new(udp), true),
        ("the same port", Box::new(shared("k", 80)), Box::new(shared("k", 80)), false),
        ("other keys", Box::new(shared("k", 80)), Box::new(shared("l", 81)), false),
        ("no key", Box::new(shared("", 80)), Box::new(shared("", 81)), false),
        ("one has none", Box::new(shared("k", 80)), Box::new(shared("", 81)), false),
        ("Local, one selector", Box::new(local("k", 80, "app=web")), Box::new(local("k", 81, "app=web")), true),
        ("Local, two selectors", Box::new(local("k", 80, "app=web")), Box::new(local("k", 81, "app=api")), false),
        ("Local and Cluster", Box::new(local("k", 80, "app=web")), Box::new(shared("k", 81)), false),
        // MetalLB lets these two share.
        ("Local without a selector, and Cluster", Box::new(local("k", 80, "")), Box::new(shared("k", 81)), false),
        ("Local without selectors", Box::new(local("k", 80, "")), Box::new(local("k", 81, "")), true),
    ];
    for (case, first, second, together) in cases {
        let mut world = World::new([pool("a", "10.0.0.1-10.0.0.2")]);
        world.create("one", &*first);
        world.create("two", &*second);
        assert_eq!(world.status("two"), if together { "10.0.0.1" } else { "10.0.0.2" }, "{case}");
        let in_use = if together { 1 } else { 2 };
        assert_eq!(world.pools[&pool_key("a")].counts.unwrap().assigned_v4, in_use, "{case}: an address counts once");
        world.restart();
        world.settle();

        let mut world = World::new([pool("a", "10.0.0.1")]);
        world.create("one", &*first);
        world.create("two", |service, request| {
            second(service, request);
            request.address = text("10.0.0.1");
        });
        assert_eq!(world.status("two"), if together { "10.0.0.1" } else { "" }, "{case}, on request");
        assert_eq!(world.status("one"), "10.0.0.1");
        world.restart();
        world.settle();
        world.delete("one");
        assert_eq!(world.status("two"), "10.0.0.1", "{case}: it is free now");
    }
}

#[test]
fn the_words_for_it() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    for (name, port) in [("one", 80), ("two", 81)] {
        world.create(name, shared("k", port));
    }
    let ask = |request: &mut LoadBalancerRequest| request.address = text("10.0.0.1");
    world.create("three", |_, request| ask(request));
    assert_eq!(
        world.said("three"),
        [
            "AllocationFailed: Failed to allocate IP for \"default/three\": can't change sharing key for \"default/three\", address \
          also in use by default/one,default/two"
        ]
    );
    world.create("four", |service, request| {
        shared("k", 81)(service, request);
        ask(request);
    });
    assert_eq!(
        world.said("four"),
        ["AllocationFailed: Failed to allocate IP for \"default/four\": port TCP/81 is already in use on \"10.0.0.1\""]
    );
    world.edit("two", |service, _| service.ports[0].port = 82);
    assert_eq!(world.status("four"), "10.0.0.1", "a port that somebody gives up wakes who waits for it");
}

#[test]
fn a_lower_free_address_goes_before_one_to_share() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("other", plain);
    world.create("one", shared("k", 80));
    world.delete("other");
    world.create("two", shared("k", 81));
    assert_eq!(world.status("two"), "10.0.0.1");
    world.create("three", shared("k", 82));
    assert_eq!(world.status("three"), "10.0.0.1", "the lowest it can share");
    world.create("four", shared("k", 81));
    assert_eq!(world.status("four"), "10.0.0.2", "its port is taken on the lowest");
}

#[test]
fn a_sole_owner_changes_key_and_ports_in_place() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("one", shared("k", 80));
    for change in [shared("l", 80), shared("l", 81), shared("", 81), shared("k", 80)] {
        world.edit("one", change);
        assert_eq!(world.status("one"), "10.0.0.1");
    }
    world.create("two", shared("k", 81));
    assert_eq!(world.status("two"), "10.0.0.1", "the index of keys follows");
}

#[test]
fn who_changes_among_several_loses_and_comes_back_when_the_others_follow() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    for (name, port) in [("one", 80), ("two", 81)] {
        world.create(name, |service, request| {
            shared("k", port)(service, request);
            request.selector = "app=web".into();
            request.address = text("10.0.0.1");
        });
    }
    world.edit("one", |service, _| service.external_traffic_policy = TrafficPolicy::Local);
    assert_eq!((world.status("one").as_str(), world.status("two").as_str()), ("", "10.0.0.1"));
    let said = world.said("one");
    assert!(said[1].starts_with("ClearAssignment: ") && said[2].starts_with("AllocationFailed: "), "{said:?}");
    world.edit("two", |service, _| service.external_traffic_policy = TrafficPolicy::Local);
    assert_eq!((world.status("one").as_str(), world.status("two").as_str()), ("10.0.0.1", "10.0.0.1"));
}

#[test]
fn those_who_change_together_stay_together() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    for (name, port) in [("one", 80), ("two", 81)] {
        world.create(name, shared("k", port));
    }
    let writes = world.writes;
    for (name, port) in [("one", 80), ("two", 81)] {
        let mut edited = world.services[&key(name)].clone();
        let mut request = edited.load_balancer.take().unwrap();
        local("m", port, "app=web")(&mut edited, &mut request);
        edited.load_balancer = Some(request);
        world.put(edited);
    }
    world.settle();
    assert_eq!((world.status("one"), world.status("two")), ("10.0.0.1".into(), "10.0.0.1".into()));
    assert_eq!(world.writes, writes);
}

#[test]
fn across_namespaces() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("one", shared("k", 80));
    let other = ServiceKey::new("elsewhere", "one");
    world.put(Service { key: other.clone(), ..service("one", shared("k", 81)) });
    world.settle();
    assert_eq!(world.allocator.held(&other).unwrap().addresses[..], [address("10.0.0.1")]);
}
