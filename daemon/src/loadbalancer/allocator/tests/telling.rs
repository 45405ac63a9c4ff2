//! What a person is told: every reason for silence, each once, with a next step.

use super::*;

#[test]
fn why_there_is_no_address() {
    let others = AddressPool {
        allocation: Some(ServiceAllocation { namespaces: vec!["other".into()], ..Default::default() }),
        ..pool("others", "10.9.0.1")
    };
    let by_name = AddressPool { auto_assign: false, ..pool("by-name", "10.8.0.1") };
    let invalid =
        AddressPool { problems: vec![crate::model::Problem { field: "f".into(), reason: "r".into() }], ..pool("bad", "") };
    for (pools, why) in [
        (vec![], "there is no IPAddressPool, create one"),
        (vec![pool("full", "")], "pool \"full\" has none of the family; add addresses of the family to one"),
        (vec![others.clone()], "pool \"others\" is for other services (serviceAllocation); create one for this service"),
        (
            vec![by_name.clone(), others.clone()],
            "pool \"by-name\" has autoAssign off, pool \"others\" is for other services (serviceAllocation); name one in the annotation \
             metallb.io/address-pool, or create another",
        ),
        (vec![invalid], "pool \"bad\" is not valid (see its events); mend one"),
        (vec![pool("v6", "fd00::1")], "pool \"v6\" has none of the family; add addresses of the family to one"),
    ] {
        let mut world = World::new(pools);
        world.create("s", plain);
        assert_eq!(
            world.said("s"),
            [format!("AllocationFailed: Failed to allocate IP for \"default/s\": no available IPs: {why}")]
        );
    }
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.create("s", plain);
    world.create("t", plain);
    let why = "no available IPs: pool \"a\" is full; add addresses to one, or release some";
    assert_eq!(world.said("t"), [format!("AllocationFailed: Failed to allocate IP for \"default/t\": {why}")]);
    world.create("u", |_, request| request.pool = text("a"));
    let why = "no available IPs in pool \"a\" for IPv4 IPFamily: all are in use, add addresses to it or release some";
    assert_eq!(world.said("u"), [format!("AllocationFailed: Failed to allocate IP for \"default/u\": {why}")]);
}

#[test]
fn said_once_and_again_after_it_was_over() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.create("s", plain);
    world.create("t", plain);
    assert_eq!(world.said("t").len(), 1);
    world.edit("t", |_, request| request.labels = [("a", "b")].into_iter().collect());
    world.create("u", plain);
    world.delete("u");
    assert_eq!(world.said("t"), [""; 0]);
    world.delete("s");
    assert_eq!(world.said("t"), ["IPAllocated: Assigned IP [\"10.0.0.1\"]"]);
    world.drop_pool("a");
    world.settle();
    assert_eq!(world.said("t").len(), 2, "cleared, and nothing else to be had");
}

#[test]
fn annotations_of_the_old_prefix() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    world.create("s", |_, request| request.deprecated_prefix = true);
    let deprecated = "deprecatedAnnotation: annotations of metallb.universe.tf/ are deprecated, write metallb.io/ instead";
    assert_eq!(world.said("s"), ["IPAllocated: Assigned IP [\"10.0.0.1\"]", deprecated]);
    world.edit("s", |_, request| request.labels = [("a", "b")].into_iter().collect());
    assert_eq!(world.said("s"), [""; 0]);
}

#[test]
fn what_a_person_wrote_is_repeated_within_reason() {
    let mut world = World::new([pool("a", "10.0.0.1")]);
    let long = "ä".repeat(100_000);
    world.create("s", |_, request| request.addresses = Some(long.as_str().into()));
    world.create("t", |_, request| request.pool = Some(long.as_str().into()));
    for name in ["s", "t"] {
        let said = world.said(name);
        assert!(said[0].len() < 512, "{name}: {} bytes", said[0].len());
    }
}

#[test]
fn names_and_types_of_events_are_those_that_people_filter_by() {
    for (reason, name, warning) in [
        (Reason::IpAllocated, "IPAllocated", false),
        (Reason::AllocationFailed, "AllocationFailed", true),
        (Reason::ClearAssignment, "ClearAssignment", false),
        (Reason::AdditionalAssignFailed, "AdditionalAssignFailed", false),
        (Reason::LoadBalancerFailed, "LoadBalancerFailed", true),
        (Reason::NotEnoughClusterIps, "not enough clusterips", true),
        (Reason::NoClusterIpFamily, "noclusterIPsIPFamily", true),
        (Reason::DeprecatedAnnotation, "deprecatedAnnotation", true),
    ] {
        assert_eq!((reason.as_str(), reason.is_warning()), (name, warning));
    }
}
