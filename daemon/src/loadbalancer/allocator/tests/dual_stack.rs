//! Two families: PreferDualStack and RequireDualStack over pools that have one, the other, both, and change.

use super::IpFamilyPolicy::{PreferDualStack, RequireDualStack};
use super::*;

const V4: &str = "10.0.0.1-10.0.0.9";
const V6: &str = "fd00::1-fd00::9";

#[test]
fn what_pools_offer_and_what_is_taken() {
    let both = format!("{V6} {V4}");
    for (pools, require, prefer, prefer_v6) in [
        (vec![V4], "", "10.0.0.1", "10.0.0.1"),
        (vec![V6], "", "fd00::1", "fd00::1"),
        (vec![&both], "10.0.0.1 fd00::1", "10.0.0.1 fd00::1", "10.0.0.1 fd00::1"),
        (vec![V4, V6], "", "10.0.0.1", "fd00::1"),
        (vec![V6, V4], "", "10.0.0.1", "fd00::1"),
        (vec!["10.1.0.1", &both], "10.0.0.1 fd00::1", "10.0.0.1 fd00::1", "10.0.0.1 fd00::1"),
    ] {
        let mut world = World::new(pools.iter().zip(["a", "b"]).map(|(ranges, name)| pool(name, ranges)));
        world.create("s", dual(RequireDualStack));
        assert_eq!(world.status("s"), require, "{pools:?}");
        world.delete("s");
        world.create("s", dual(PreferDualStack));
        assert_eq!(world.status("s"), prefer, "{pools:?}");
        world.delete("s");
        world.create("s", |service, request| {
            dual(PreferDualStack)(service, request);
            request.families.reverse();
        });
        assert_eq!(world.status("s"), prefer_v6, "{pools:?}: the primary family is IPv6");
    }
}

#[test]
fn a_second_family_comes_when_the_pool_has_it() {
    let mut world = World::new([pool("a", V4), pool("b", V6)]);
    world.create("s", dual(PreferDualStack));
    assert_eq!(world.status("s"), "10.0.0.1");
    assert_eq!(
        world.said("s"),
        [
            "IPAllocated: Assigned IP [\"10.0.0.1\"]",
            "AdditionalAssignFailed: cannot assign additional IP in PreferDualStack: no available IPs in pool \"a\" for IPv6 \
             IPFamily: it has none of this family"
        ]
    );
    world.put_pool(pool("a", &format!("{V4} fd01::1")));
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.1 fd01::1", "of the same pool, behind the first");
    assert_eq!(world.said("s"), ["IPAllocated: Assigned additional IP \"fd01::1\""]);
    // And when somebody releases one.
    world.create("second", dual(PreferDualStack));
    assert_eq!(world.status("second"), "10.0.0.2");
    world.delete("s");
    assert_eq!(world.status("second"), "10.0.0.2 fd01::1");
}

#[test]
fn a_pool_that_loses_a_family_takes_that_address_alone() {
    let both = format!("{V4} {V6}");
    for policy in [PreferDualStack, RequireDualStack] {
        let mut world = World::new([pool("a", &both)]);
        world.create("s", dual(policy));
        world.put_pool(pool("a", V4));
        world.settle();
        assert_eq!(world.status("s"), "10.0.0.1", "{policy:?}: what is still allowed stays");
        world.restart();
        world.settle();
        assert_eq!(world.status("s"), "10.0.0.1", "{policy:?}: also over a restart");
        world.put_pool(pool("b", "10.2.0.1 fd02::1"));
        world.settle();
        let expected = if policy == PreferDualStack { "10.0.0.1" } else { "10.2.0.1 fd02::1" };
        assert_eq!(world.status("s"), expected, "{policy:?}");
    }
}

#[test]
fn a_service_that_becomes_dual_stack_or_single_keeps_what_it_can() {
    let mut world = World::new([pool("a", &format!("{V4} {V6}"))]);
    world.create("other", plain);
    world.create("s", plain);
    world.delete("other");
    world.edit("s", dual(RequireDualStack));
    assert_eq!(world.status("s"), "10.0.0.2 fd00::1");
    world.edit("s", |service, request| {
        service.cluster_ips.truncate(1);
        request.family_policy = IpFamilyPolicy::SingleStack;
    });
    assert_eq!(world.status("s"), "10.0.0.2");
}

#[test]
fn without_cluster_ips_nothing_is_held() {
    let mut world = World::new([pool("a", &format!("{V4} {V6}"))]);
    world.create("s", dual(RequireDualStack));
    world.said("s");
    world.edit("s", |service, _| service.cluster_ips.truncate(1));
    assert_eq!(world.status("s"), "");
    let expected = ["not enough clusterips: Service requires dual stack but not enough clusterips [10.96.0.1]"];
    assert_eq!(world.said("s"), expected);
    world.edit("s", |service, _| service.cluster_ips.clear());
    assert_eq!(
        world.said("s"),
        ["noclusterIPsIPFamily: Failed to retrieve ClusterIPs IPFamily for \"default/s\": it has no ClusterIP"]
    );
    world.edit("s", dual(RequireDualStack));
    assert_eq!(world.status("s"), "10.0.0.1 fd00::1");
}

#[test]
fn requests_for_two_addresses() {
    let pools = || [pool("a", &format!("{V4} {V6}")), pool("b", "10.1.0.1 fd01::1")];
    for (asked, expected) in [
        ("10.0.0.5,fd00::5", "10.0.0.5 fd00::5"),
        ("fd00::5, 10.0.0.5", "fd00::5 10.0.0.5"),
        ("10.0.0.5,fd01::1", ""), // of two pools
        ("10.0.0.5", ""),
    ] {
        let mut world = World::new(pools());
        world.create("s", |service, request| {
            dual(PreferDualStack)(service, request);
            request.addresses = text(asked);
        });
        assert_eq!(world.status("s"), expected, "{asked}");
    }
    let mut world = World::new(pools());
    world.create("s", dual(PreferDualStack));
    let writes = world.writes;
    world.edit("s", |_, request| request.addresses = text("fd00::1,10.0.0.1"));
    assert_eq!((world.status("s").as_str(), world.writes), ("10.0.0.1 fd00::1", writes), "what it has already, in its order");
    world.edit("s", |_, request| request.addresses = text("fd00::3,10.0.0.1"));
    assert_eq!(world.status("s"), "fd00::3 10.0.0.1");
}

#[test]
fn both_addresses_are_of_one_pool() {
    let mut world = World::new([pool("a", &format!("{V4} {V6}"))]);
    world.create("s", dual(PreferDualStack));
    world.put_pool(pool("a", V4));
    world.put_pool(pool("b", V6));
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.1", "the pool was split by family");
    let said = world.said("s").join("\n");
    assert!(said.contains("\"fd00::1\" is of pool \"b\", and both addresses of a service are of one"), "{said}");
}
