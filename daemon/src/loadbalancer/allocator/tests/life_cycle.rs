//! What happens to an address when something changes around it.

use super::*;

fn write_status(request: &mut LoadBalancerRequest, ips: &[&str]) {
    request.ingress = ips.iter().map(|ip| IngressAddress { ip: address(ip), mode: IpMode::Vip }).collect();
}

#[test]
fn another_address_in_one_step_or_not_at_all() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9"), pool("b", "10.1.0.1")]);
    world.create("s", plain);
    let writes = world.writes;
    world.edit("s", |_, request| request.addresses = text("10.0.0.5"));
    assert_eq!((world.status("s").as_str(), world.writes), ("10.0.0.5", writes + 1), "never without an address");
    world.edit("s", |_, request| (request.addresses, request.pool) = (None, text("b")));
    assert_eq!((world.status("s").as_str(), world.annotation("s")), ("10.1.0.1", Some("b")));
    world.create("other", |_, request| request.address = text("10.0.0.7"));
    world.edit("s", |_, request| (request.addresses, request.pool) = (text("10.0.0.7"), None));
    assert_eq!(world.status("s"), "10.1.0.1", "somebody has it");
    world.delete("other");
    assert_eq!(world.status("s"), "10.0.0.7", "and now nobody");
    world.edit("s", |_, request| request.addresses = None);
    assert_eq!(world.status("s"), "10.0.0.7", "a wish that is gone moves nothing");
}

#[test]
fn whoever_waits_for_what_another_gives_up_gets_it_in_the_same_turn() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.2")]);
    world.create("one", plain);
    world.put(service("two", |_, request| request.address = text("10.0.0.1")));
    let mut one = world.services[&key("one")].clone();
    one.load_balancer.as_mut().unwrap().address = text("10.0.0.2");
    world.put(one);
    world.settle();
    assert_eq!((world.status("one"), world.status("two")), ("10.0.0.2".into(), "10.0.0.1".into()));
    assert_eq!(world.said("two"), ["IPAllocated: Assigned IP [\"10.0.0.1\"]"], "it is not told of a moment that nobody saw");
}

#[test]
fn no_load_balancer_any_more() {
    // What API servers do: class and status go with the type. And what older ones do: the status stays.
    for (class, status_stays) in [(None, false), (None, true), (text("x"), false), (text("x"), true)] {
        for restarted in [false, true] {
            let options = Options { class: class.clone() };
            let mut world = World { allocator: Allocator::new(options.clone()), options, ..World::default() };
            world.allocator.complete();
            world.put_pool(pool("a", "10.0.0.1"));
            world.create("s", |_, request| request.class = class.clone());
            world.create("waits", |_, request| request.class = class.clone());
            let mut edited = world.services[&key("s")].clone();
            edited.kind = ServiceType::ClusterIp;
            if status_stays {
                edited.load_balancer.as_mut().unwrap().class = None;
            } else {
                edited.load_balancer = None;
            }
            world.services.insert(edited.key.clone(), edited.clone());
            if restarted {
                world.restart();
            } else {
                world.put(edited);
            }
            world.settle();
            assert_eq!(world.status("s"), "", "{class:?} {status_stays} {restarted}");
            assert_eq!(world.annotation("s"), None, "{class:?} {status_stays} {restarted}");
            assert_eq!(world.status("waits"), "10.0.0.1", "{class:?} {status_stays} {restarted}");
        }
    }
}

#[test]
fn a_status_of_no_load_balancer_that_is_not_ours_stays() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.create("s", |service, request| {
        service.kind = ServiceType::ClusterIp;
        write_status(request, &["10.0.0.1"]);
    });
    assert_eq!((world.status("s").as_str(), world.writes), ("10.0.0.1", 0));
}

#[test]
fn pools_that_change_under_a_service() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("low", plain);
    world.create("high", |_, request| request.address = text("10.0.0.9"));
    world.said("low");
    world.said("high");
    let writes = world.writes;
    // An address that survives is not touched, only the name of its pool.
    world.put_pool(pool("a", "10.0.0.1-10.0.0.5"));
    world.put_pool(pool("b", "10.0.0.6-10.0.0.9"));
    world.settle();
    assert_eq!((world.status("low"), world.status("high")), ("10.0.0.1".into(), "10.0.0.9".into()));
    assert_eq!((world.annotation("low"), world.annotation("high")), (Some("a"), Some("b")));
    assert_eq!(world.writes, writes + 1);
    assert_eq!((world.said("low"), world.said("high")), (vec![], vec![]));
    // One that does not is replaced.
    world.put_pool(pool("a", "10.0.0.3-10.0.0.5"));
    world.settle();
    assert_eq!(world.status("low"), "10.0.0.3");
    assert_eq!(
        world.said("low"),
        [
            "ClearAssignment: current IP for \"default/low\" not allowed by config, will attempt for new IP assignment: \
             [\"10.0.0.1\"] is not allowed in config",
            "IPAllocated: Assigned IP [\"10.0.0.3\"]"
        ]
    );
    // Another pool will do.
    world.drop_pool("a");
    world.settle();
    assert_eq!((world.status("low").as_str(), world.annotation("low")), ("10.0.0.6", Some("b")));
}

#[test]
fn all_pools_removed() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("s", plain);
    world.drop_pool("a");
    world.settle();
    assert_eq!((world.status("s").as_str(), world.annotation("s")), ("", None));
    assert!(world.said("s").last().unwrap().ends_with("no available IPs: there is no IPAddressPool, create one"));
    world.put_pool(pool("a", "10.0.0.1-10.0.0.9"));
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.1");
}

#[test]
fn without_any_pool_statuses_of_others_stay() {
    let mut world = World::new([]);
    world.create("theirs", |_, request| write_status(request, &["192.0.2.1"]));
    assert_eq!((world.status("theirs").as_str(), world.writes), ("192.0.2.1", 0));
    world.create("ours", |_, request| {
        write_status(request, &["10.0.0.1"]);
        request.allocated_from = text("a");
    });
    assert_eq!(world.status("ours"), "");
    world.edit("theirs", |_, request| write_status(request, &["10.0.0.7"]));
    world.put_pool(pool("a", "10.0.0.1-10.0.0.9"));
    world.settle();
    assert_eq!((world.status("theirs").as_str(), world.status("ours").as_str()), ("10.0.0.7", "10.0.0.1"), "it is in a pool now");
}

#[test]
fn a_restart_with_an_exhausted_pool_changes_nothing() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.3")]);
    for name in ["e", "d", "c", "b", "a"] {
        world.create(name, plain);
    }
    let writes = world.writes;
    for _ in 0..5 {
        world.restart();
        world.settle();
        let statuses = ["e", "d", "c", "b", "a"].map(|name| world.status(name));
        assert_eq!(statuses, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "", ""].map(String::from));
    }
    assert_eq!(world.writes, writes);
}

#[test]
fn the_oldest_waits_first() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.create("holder", plain);
    for (name, created) in [("a", None), ("b", Some(30)), ("c", Some(10)), ("d", Some(20))] {
        world.create(name, |service, _| service.created = created);
    }
    world.delete("holder");
    for name in ["c", "d", "b", "a"] {
        assert_eq!(world.status(name), "10.0.0.1");
        world.delete(name);
    }
}

#[test]
fn another_object_of_the_same_name_is_another() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.2")]);
    world.create("s", |_, request| request.address = text("10.0.0.2"));
    world.put(Service { uid: "2".into(), ..service("s", plain) });
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.1");
}

#[test]
fn statuses_compare_by_meaning() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("s", |_, request| {
        request.ingress.push(IngressAddress { ip: address("10.0.0.5"), mode: IpMode::Proxy });
        request.allocated_from = text("a");
    });
    assert_eq!((world.status("s").as_str(), world.writes), ("10.0.0.5", 0), "whoever said Proxy had a reason");
    world.edit("s", |_, request| request.other_ingress = true);
    assert_eq!((world.status("s").as_str(), world.writes), ("10.0.0.5", 1), "a host name beside it is not ours");
    assert_eq!(world.services[&key("s")].load_balancer.as_ref().unwrap().ingress[0].mode, IpMode::Proxy);
    world.edit("s", |_, request| request.allocated_from = None);
    assert_eq!((world.annotation("s"), world.writes), (Some("a"), 2));
}

#[test]
fn what_somebody_else_writes_counts_if_the_pools_allow_it() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.create("s", plain);
    world.said("s");
    world.edit("s", |_, request| write_status(request, &["10.0.0.7"]));
    assert_eq!(world.status("s"), "10.0.0.7");
    world.create("next", plain);
    assert_eq!(world.status("next"), "10.0.0.1", "the first is free again");
    world.said("s");
    for _ in 0..3 {
        world.edit("s", |_, request| write_status(request, &["192.0.2.1"]));
        assert_eq!(world.status("s"), "10.0.0.7", "written back");
    }
    let said = world.said("s");
    assert!(said[0].starts_with("StatusOverwritten: somebody else wrote [\"192.0.2.1\"] into the status, "), "{said:?}");
    assert_eq!(said.len(), 1, "once, however long they fight");
    world.edit("s", |_, request| write_status(request, &["10.0.0.1"]));
    assert_eq!(world.status("s"), "10.0.0.7", "an address that another Service has");
    world.edit("s", |_, request| write_status(request, &[]));
    assert_eq!(world.status("s"), "10.0.0.7");
}

#[test]
fn an_echo_of_our_own_is_nobody_elses_word() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9")]);
    world.put(service("s", plain));
    let first = world.allocator.settle();
    assert_eq!(first.services.len(), 1);
    // Before that write is seen, a person asks for another address; then the echo of the first write comes in.
    let asks = |request: &mut LoadBalancerRequest| request.address = text("10.0.0.5");
    world.put(service("s", |_, request| asks(request)));
    let second = world.allocator.settle();
    assert_eq!(second.services[0].wanted.ingress[0].ip, address("10.0.0.5"));
    world.put(service("s", |_, request| {
        asks(request);
        write_status(request, &["10.0.0.1"]);
        request.allocated_from = text("a");
    }));
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.5");
    assert!(world.said("s").iter().all(|said| !said.starts_with("StatusOverwritten")));
}

#[test]
fn a_write_that_failed_can_be_asked_for() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.put(service("s", plain));
    let settled = world.allocator.settle();
    assert_eq!(world.allocator.settle(), Settled::default(), "not twice by itself");
    assert_eq!(world.allocator.outstanding(&key("s")).as_ref(), settled.services.first());
    world.store(settled);
    assert_eq!(world.allocator.outstanding(&key("s")), None);
}

#[test]
fn a_promise_that_a_probe_disproves_is_taken_back_before_it_is_written() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.3")]);
    world.create("s", plain);
    let probe = |world: &mut World, ip: &str| {
        let promised = world.allocator.settle();
        assert_eq!(promised.services[0].wanted.ingress[0].ip, address(ip));
        world.allocator.set_occupant(address(ip), Some(Occupant::Host([2, 0, 0, 0, 0, 1])));
        world.settle();
    };
    // A new Service gets the next one.
    world.put(service("t", plain));
    probe(&mut world, "10.0.0.2");
    assert_eq!(world.status("t"), "10.0.0.3");
    // One that asked for another keeps what it is served by.
    world.allocator.set_occupant(address("10.0.0.2"), None);
    let mut asks = world.services[&key("s")].clone();
    asks.load_balancer.as_mut().unwrap().address = text("10.0.0.2");
    world.put(asks);
    probe(&mut world, "10.0.0.2");
    assert_eq!(world.status("s"), "10.0.0.1");
    assert!(world.said("s").last().unwrap().ends_with("[\"10.0.0.1\"] stays"));
    assert_eq!(world.allocator.outstanding(&key("s")), None);
    world.occupy("10.0.0.2", None);
    assert_eq!(world.status("s"), "10.0.0.2");
}
