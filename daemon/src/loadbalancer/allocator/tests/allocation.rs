//! Which address a Service gets: the order of pools and of addresses, and what can be asked for.

use super::*;

#[test]
fn lowest_first_in_the_order_in_which_a_pool_lists_its_ranges() {
    let mut world = World::new([pool("a", "10.0.1.254-10.0.1.255 10.0.0.0-10.0.0.1")]);
    for (name, expected) in [("s1", "10.0.1.254"), ("s2", "10.0.1.255"), ("s3", "10.0.0.0"), ("s4", "10.0.0.1"), ("s5", "")] {
        world.create(name, plain);
        assert_eq!(world.status(name), expected, "{name}");
    }
    world.delete("s2");
    assert_eq!(world.status("s5"), "10.0.1.255", "who waits gets what somebody released");
    assert_eq!(world.annotation("s5"), Some("a"));
}

#[test]
fn pools_by_name_and_what_each_is_for() {
    let pinned = |priority, name: &str, ip: &str| AddressPool {
        allocation: Some(ServiceAllocation { priority, ..Default::default() }),
        ..pool(name, ip)
    };
    let by_name = AddressPool { auto_assign: false, ..pool("a0-by-name", "10.0.0.1") };
    let mut world = World::new([
        by_name,
        pool("c", "10.0.0.9"),
        pool("b", "10.0.0.8"),
        pinned(0, "a1", "10.0.0.4"),
        pinned(7, "a2", "10.0.0.3"),
        pinned(2, "a3", "10.0.0.2"),
        pinned(-1, "a4", "10.0.0.5"),
    ]);
    for (name, expected) in [
        ("s1", "10.0.0.5"),
        ("s2", "10.0.0.2"),
        ("s3", "10.0.0.3"),
        ("s4", "10.0.0.4"),
        ("s5", "10.0.0.8"),
        ("s6", "10.0.0.9"),
        ("s7", ""),
    ] {
        world.create(name, plain);
        assert_eq!(world.status(name), expected, "{name}: by priority, none last; then those for everybody");
    }
    world.edit("s7", |_, request| request.pool = text("a0-by-name"));
    assert_eq!(world.status("s7"), "10.0.0.1");
}

#[test]
fn pinned_pools_are_for_their_namespaces_and_services() {
    let allocation = |names: &[&str], spaces: &[Selector], services: &[Selector]| ServiceAllocation {
        priority: 1,
        namespaces: names.iter().map(|&name| name.into()).collect(),
        namespace_selectors: spaces.to_vec(),
        service_selectors: services.to_vec(),
    };
    let (team, web, none) = (selector("team", "blue"), selector("app", "web"), selector("team", "nobody"));
    let by_name_label = selector("kubernetes.io/metadata.name", "default");
    for (names, spaces, services, admitted) in [
        (vec![], vec![], vec![], true),
        (vec!["default"], vec![], vec![], true),
        (vec!["other"], vec![], vec![], false),
        (vec!["other"], vec![team.clone()], vec![], true),
        (vec![], vec![team.clone()], vec![], true),
        (vec![], vec![none.clone()], vec![], false), // MetalLB: everybody, on request
        (vec![], vec![none.clone(), team.clone()], vec![], true),
        (vec![], vec![], vec![web.clone()], true),
        (vec![], vec![], vec![none.clone()], false),
        (vec![], vec![], vec![none.clone(), web.clone()], true),
        (vec!["default"], vec![], vec![none.clone()], false),
        (vec!["other"], vec![], vec![web.clone()], false),
        (vec![], vec![by_name_label], vec![], false),
    ] {
        let pinned = AddressPool { allocation: Some(allocation(&names, &spaces, &services)), ..pool("a", "10.0.0.1-10.0.0.9") };
        for asked in ["", "pool", "address"] {
            let mut world = World::new([pinned.clone()]);
            let labels = [("team", "blue")].into_iter().collect();
            world.allocator.set_namespace(NamespaceLabels { name: "default".into(), labels });
            world.create("s", |_, request| {
                request.labels = [("app", "web")].into_iter().collect();
                request.pool = text("a").filter(|_| asked == "pool");
                request.addresses = text("10.0.0.1").filter(|_| asked == "address");
            });
            let expected = if admitted { "10.0.0.1" } else { "" };
            assert_eq!(world.status("s"), expected, "{asked}: {:?}", pinned.allocation);
        }
    }
}

#[test]
fn a_namespace_that_nobody_declared_has_its_name_as_a_label() {
    let namespace_selectors = vec![selector("kubernetes.io/metadata.name", "default")];
    let allocation = Some(ServiceAllocation { namespace_selectors, ..Default::default() });
    let mut world = World::new([AddressPool { allocation, ..pool("a", "10.0.0.1") }]);
    world.create("s", plain);
    assert_eq!(world.status("s"), "10.0.0.1");
}

#[test]
fn a_namespace_label_that_changes_opens_and_closes_pools() {
    let namespace_selectors = vec![selector("team", "blue")];
    let allocation = Some(ServiceAllocation { namespace_selectors, ..Default::default() });
    let mut world = World::new([AddressPool { allocation, ..pool("a", "10.0.0.1") }]);
    world.create("s", plain);
    assert_eq!(world.status("s"), "");
    let mut label = |value: &str| {
        world
            .allocator
            .set_namespace(NamespaceLabels { name: "default".into(), labels: [("team", value)].into_iter().collect() });
        world.settle();
        world.status("s")
    };
    assert_eq!((label("blue"), label("red")), ("10.0.0.1".into(), String::new()));
}

#[test]
fn requests_in_every_spelling() {
    type Edit = fn(&mut LoadBalancerRequest);
    let cases: [(&str, Edit, &str); 12] = [
        ("annotation", |r| r.addresses = text("10.0.0.5"), "10.0.0.5"),
        ("blanks", |r| r.addresses = text("  10.0.0.5 "), "10.0.0.5"),
        ("mapped", |r| r.addresses = text("::ffff:10.0.0.5"), "10.0.0.5"),
        ("spec", |r| r.address = text("10.0.0.5"), "10.0.0.5"),
        ("empty annotation beside the spec", |r| (r.addresses, r.address) = (text(""), text("10.0.0.5")), "10.0.0.5"),
        ("pool", |r| r.pool = text("b"), "10.0.1.0"),
        ("empty pool", |r| r.pool = text(""), "10.0.0.0"),
        ("both agree", |r| (r.addresses, r.pool) = (text("10.0.1.3"), text("b")), "10.0.1.3"),
        ("a pool that is not automatic", |r| r.pool = text("m"), "10.0.2.0"),
        ("an address of it", |r| r.addresses = text("10.0.2.7"), "10.0.2.7"),
        ("an address .0", |r| r.addresses = text("10.0.0.0"), "10.0.0.0"),
        ("nothing", |_| (), "10.0.0.0"),
    ];
    for (case, edit, expected) in cases {
        let manual = AddressPool { auto_assign: false, ..pool("m", "10.0.2.0-10.0.2.9") };
        let mut world = World::new([pool("a", "10.0.0.0-10.0.0.9"), pool("b", "10.0.1.0-10.0.1.9"), manual]);
        world.create("s", |_, request| edit(request));
        assert_eq!(world.status("s"), expected, "{case}");
        assert_eq!(world.said("s"), [format!("IPAllocated: Assigned IP [\"{expected}\"]")], "{case}");
    }
}

#[test]
fn requests_that_cannot_be_met_say_why() {
    type Edit = fn(&mut LoadBalancerRequest);
    let cases: [(Edit, &str); 14] = [
        (|r| r.addresses = text("10.0.0.5,"), "invalid metallb.io/loadBalancerIPs: \"10.0.0.5,\""),
        (|r| r.addresses = text("ten"), "invalid metallb.io/loadBalancerIPs: \"ten\""),
        (|r| r.addresses = text("fe80::1%eth0"), "invalid metallb.io/loadBalancerIPs: \"fe80::1%eth0\""),
        (|r| r.address = text("10.0.0.05"), "invalid spec.loadBalancerIP \"10.0.0.05\""),
        (|r| r.addresses = text("10.0.0.5,10.0.0.6"), "[\"10.0.0.5\" \"10.0.0.6\"] has the same family"),
        (|r| r.addresses = text("10.0.0.5,fd00::1,fd00::2"), "more than two addresses [\"10.0.0.5\" \"fd00::1\" \"fd00::2\"]"),
        (
            |r| (r.addresses, r.address) = (text("10.0.0.5"), text("10.0.0.5")),
            "service can not have both metallb.io/loadBalancerIPs and svc.Spec.LoadBalancerIP",
        ),
        (|r| r.addresses = text("192.0.2.1"), "[\"192.0.2.1\"] is not allowed in config"),
        (|r| r.addresses = text("10.0.3.255"), "[\"10.0.3.255\"] is not allowed in config"), // avoidBuggyIPs
        (
            |r| r.address = text("fd00::1"),
            "requested loadBalancer IP(s) [\"fd00::1\"] does not match the ipFamily of the service",
        ),
        (
            |r| (r.address, r.pool) = (text("10.0.0.5"), text("b")),
            "requested loadBalancer IP(s) [\"10.0.0.5\"] is not compatible with requested address pool b",
        ),
        (|r| r.pool = text("nowhere"), "unknown pool \"nowhere\""),
        (|r| r.pool = text("others"), "pool others not compatible for ip assignment"),
        (|r| r.address = text("10.0.4.1"), "pool others not compatible for ip assignment"),
    ];
    for (edit, why) in cases {
        let allocation = Some(ServiceAllocation { namespaces: vec!["other".into()], ..Default::default() });
        let mut world = World::new([
            pool("a", "10.0.0.0-10.0.0.9"),
            pool("b", "10.0.1.0-10.0.1.9"),
            AddressPool { avoid_buggy_ips: true, ..pool("c", "10.0.3.0-10.0.3.255 fd00::1-fd00::2") },
            AddressPool { allocation, ..pool("others", "10.0.4.1") },
        ]);
        world.create("new", |_, request| edit(request));
        assert_eq!(world.status("new"), "");
        assert_eq!(world.said("new"), [format!("AllocationFailed: Failed to allocate IP for \"default/new\": {why}")]);

        // The same of one that has an address: it keeps it.
        world.create("old", plain);
        assert_eq!(world.said("old"), ["IPAllocated: Assigned IP [\"10.0.0.0\"]"]);
        world.edit("old", |_, request| edit(request));
        assert_eq!(world.status("old"), "10.0.0.0", "{why}");
        let unreadable =
            ["invalid", "service can", "more than", "[\"10.0.0.5\" \"10.0.0.6\"]"].iter().any(|start| why.starts_with(start));
        let said = if unreadable {
            format!("LoadBalancerFailed: invalid requested loadbalancer IPs: {why}; [\"10.0.0.0\"] stays")
        } else {
            format!("AllocationFailed: Failed to allocate IP for \"default/old\": {why}; [\"10.0.0.0\"] stays")
        };
        assert_eq!(world.said("old"), [said]);
        world.restart();
        world.settle();
        assert_eq!((world.status("new"), world.status("old")), (String::new(), "10.0.0.0".into()), "{why}");
    }
}

#[test]
fn addresses_that_confuse_old_routers_are_left_out() {
    let mut world = World::new([AddressPool { avoid_buggy_ips: true, ..pool("a", "10.0.0.254-10.0.1.1") }]);
    for (name, expected) in [("s1", "10.0.0.254"), ("s2", "10.0.1.1"), ("s3", "")] {
        world.create(name, plain);
        assert_eq!(world.status(name), expected);
    }
    let counts = world.pools[&pool_key("a")].counts;
    assert_eq!(counts, Some(PoolCounts { assigned_v4: 2, ..Default::default() }));
    // Set while a Service has one: it moves.
    let mut world = World::new([pool("a", "10.0.0.255-10.0.1.1")]);
    world.create("s1", plain);
    world.said("s1");
    world.put_pool(AddressPool { avoid_buggy_ips: true, ..pool("a", "10.0.0.255-10.0.1.1") });
    world.settle();
    assert_eq!(world.status("s1"), "10.0.1.1");
    assert_eq!(
        world.said("s1"),
        [
            "ClearAssignment: current IP for \"default/s1\" not allowed by config, will attempt for new IP assignment: \
             [\"10.0.0.255\"] is not allowed in config",
            "IPAllocated: Assigned IP [\"10.0.1.1\"]"
        ]
    );
}

#[test]
fn only_services_of_our_class() {
    for (ours, theirs, served) in
        [(None, None, true), (None, text("x"), false), (text("x"), None, false), (text("x"), text("x"), true)]
    {
        let options = Options { class: ours };
        let mut world = World { allocator: Allocator::new(options.clone()), options, ..World::default() };
        world.allocator.complete();
        world.put_pool(pool("a", "10.0.0.1"));
        world.create("s", |_, request| request.class = theirs.clone());
        assert_eq!(world.status("s"), if served { "10.0.0.1" } else { "" }, "{:?} {theirs:?}", world.options);
        let said = world.said("s");
        assert_eq!(said[0].starts_with("OtherLoadBalancerClass: left to the"), !served, "{said:?}");
        assert_eq!(said.len(), 1);
    }
}

#[test]
fn what_another_load_balancer_wrote_into_its_own_service_stays() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.create("s", |_, request| {
        request.class = text("x");
        request.ingress.push(IngressAddress { ip: address("192.0.2.1"), mode: IpMode::Vip });
        request.allocated_from = text("of another MetalLB");
    });
    assert_eq!((world.status("s").as_str(), world.writes), ("192.0.2.1", 0));
    assert_eq!(world.said("s"), [""; 0], "somebody serves it");
}

#[test]
fn addresses_in_use_elsewhere_are_not_handed_out() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.3")]);
    world.occupy("10.0.0.1", Some(Occupant::Node("n1".into())));
    world.occupy("10.0.0.2", Some(Occupant::Host([2, 0, 0, 0, 0, 0xa])));
    assert_eq!(
        world.said("a"),
        [
            "AddressInUse: \"10.0.0.1\" is an address of node n1: not handed out",
            "AddressInUse: \"10.0.0.1\" is an address of node n1, \"10.0.0.2\" is answered for by 02:00:00:00:00:0a: not handed out"
        ]
    );
    world.create("s1", plain);
    assert_eq!(world.status("s1"), "10.0.0.3");
    assert_eq!(world.pools[&pool_key("a")].counts, Some(PoolCounts { assigned_v4: 1, ..Default::default() }));
    world.create("s2", |_, request| request.address = text("10.0.0.1"));
    assert_eq!(
        world.said("s2"),
        [
            "AllocationFailed: Failed to allocate IP for \"default/s2\": \"10.0.0.1\" is in use outside the load balancer: it is an \
          address of node n1"
        ]
    );
    world.occupy("10.0.0.1", None);
    assert_eq!(world.status("s2"), "10.0.0.1", "who waits is asked again");

    // Somebody takes one that a Service has: it stays, and both are told.
    world.said("a");
    world.occupy("10.0.0.3", Some(Occupant::Host([2, 0, 0, 0, 0, 0xb])));
    assert_eq!(world.status("s1"), "10.0.0.3");
    let said = world.said("s1");
    assert!(
        said[1].starts_with("AddressInUse: \"10.0.0.3\" is in use outside the load balancer as well: it is answered"),
        "{said:?}"
    );
    world.restart();
    world.settle();
    assert_eq!(world.status("s1"), "10.0.0.3");
    world.delete("s1");
    world.create("s3", plain);
    assert_eq!(world.status("s3"), "", "not to the next one");
}
