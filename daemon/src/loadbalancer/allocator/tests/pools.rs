//! Which version of a pool is in force, and what is told of the others.

use super::*;
use crate::model::Problem;

fn broken(name: &str, ranges: &str) -> AddressPool {
    let problem = Problem { field: "spec.addresses[1]".into(), reason: "\"x\" is no range".into() };
    AddressPool { generation: 2, problems: vec![problem], ..pool(name, ranges) }
}

fn report(world: &mut World, name: &str) -> PoolReport {
    let settled = world.allocator.settle();
    let report = settled.pools.iter().find(|report| report.pool.name() == name).unwrap().clone();
    world.store(settled);
    report
}

#[test]
fn a_broken_pool_spoils_only_itself_and_its_last_good_version_stays() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9"), pool("b", "10.1.0.1")]);
    world.create("s", plain);
    world.put_pool(broken("a", "10.2.0.1"));
    let report = report(&mut world, "a");
    assert_eq!(report.serving, Serving::LastGood(1));
    assert_eq!(report.faults.len(), 1);
    world.settle();
    assert_eq!(
        world.said("a"),
        ["InvalidPool: spec.addresses[1]: \"x\" is no range; the version before it stays in force until that is mended"]
    );
    assert_eq!(world.status("s"), "10.0.0.1");
    world.create("t", plain);
    assert_eq!(world.status("t"), "10.0.0.2", "it also goes on handing out");
    world.put_pool(AddressPool { generation: 3, ..pool("a", "10.0.0.1-10.0.0.4") });
    world.settle();
    assert_eq!((world.status("s"), world.said("a")), ("10.0.0.1".into(), vec![]));
}

#[test]
fn over_a_restart_services_of_a_broken_pool_keep_what_they_have() {
    let mut world = World::new([pool("a", "10.0.0.1-10.0.0.9"), pool("b", "10.1.0.1-10.1.0.9")]);
    world.create("s", plain);
    world.put_pool(broken("a", "10.2.0.1"));
    world.settle();
    let writes = world.writes;
    world.restart();
    world.settle();
    assert_eq!((world.status("s").as_str(), world.annotation("s"), world.writes), ("10.0.0.1", Some("a"), writes));
    world.create("t", plain);
    assert_eq!(world.status("t"), "10.1.0.1", "nobody knows what else is in it");
    world.put_pool(pool("c", "10.0.0.1-10.0.0.2"));
    world.create("u", |_, request| request.pool = text("c"));
    assert_eq!(world.status("u"), "10.0.0.2", "and what is kept is in use");
    assert_eq!(world.annotation("s"), Some("c"), "it belongs to whoever has it now");
    world.drop_pool("c");
    world.put_pool(pool("a", "10.0.0.3"));
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.3", "now it is known");
}

#[test]
fn of_pools_that_overlap_the_one_that_was_there_stays() {
    let mut world = World::new([pool("m", "10.0.0.1-10.0.0.9")]);
    world.create("s", plain);
    world.put_pool(AddressPool { created: Some(2), ..pool("a", "10.0.0.9-10.0.0.20") });
    assert_eq!(report(&mut world, "a").serving, Serving::Nothing);
    assert_eq!(
        world.said("a"),
        [
            "InvalidPool: its range 10.0.0.9-10.0.0.20 overlaps with 10.0.0.1-10.0.0.9 of pool \"m\"; nothing of it is used until that \
             is mended"
        ]
    );
    assert_eq!((world.said("m"), world.status("s")), (vec![], "10.0.0.1".into()), "told on the one that loses");
    world.restart();
    world.settle();
    assert_eq!(world.said("a").len(), 1, "the older one also after a restart");
    world.said("m");
    world.drop_pool("m");
    world.settle();
    assert_eq!(world.status("s"), "10.0.0.9", "the other comes into its own");
}

#[test]
fn a_version_that_overlaps_leaves_the_one_before_in_force() {
    let mut world = World::new([pool("a", "10.0.0.1"), pool("b", "10.1.0.1-10.1.0.9")]);
    world.create("s", |_, request| request.pool = text("b"));
    world.put_pool(AddressPool { generation: 2, ..pool("a", "10.1.0.5-10.2.0.0") });
    assert_eq!(report(&mut world, "a").serving, Serving::LastGood(1));
    assert_eq!(world.status("s"), "10.1.0.1");
    world.create("t", plain);
    assert_eq!(world.status("t"), "10.0.0.1");
    // What it waits for is given up.
    world.put_pool(pool("b", "10.1.0.1-10.1.0.4"));
    world.settle();
    assert_eq!(world.status("s"), "10.1.0.1");
    assert_eq!(world.status("t"), "10.1.0.5", "and the new version counts");
}

#[test]
fn addresses_pass_between_pools_in_one_turn() {
    let mut world = World::new([pool("a", "10.0.0.1"), pool("b", "10.1.0.1")]);
    world.create("s", plain);
    let writes = world.writes;
    world.put_pool(pool("a", "10.1.0.1"));
    world.put_pool(pool("b", "10.0.0.1"));
    world.settle();
    assert_eq!((world.status("s").as_str(), world.annotation("s"), world.writes), ("10.0.0.1", Some("b"), writes + 1));
    assert_eq!((world.said("a"), world.said("b")), (vec![], vec![]));
}

#[test]
fn bad_input_has_a_stated_outcome() {
    for (pools, serving) in [
        (vec![pool("a", "10.0.0.1-10.0.0.9 10.0.0.5")], Serving::Nothing),
        (vec![pool("a", "10.0.0.5 10.0.0.1-10.0.0.9")], Serving::Nothing),
        (vec![pool("a", "10.0.0.1 10.0.0.1")], Serving::Nothing),
        (vec![pool("a", "")], Serving::Latest),
        (
            vec![AddressPool { key: ObjectKey::new("z", "a"), created: None, ..pool("a", "10.0.0.1") }, pool("a", "10.1.0.1")],
            Serving::Latest,
        ),
        (vec![pool("a", "10.0.0.1"), AddressPool { created: Some(0), ..pool("b", "10.0.0.1") }], Serving::Nothing),
        (vec![pool("b", "10.0.0.1"), AddressPool { created: None, ..pool("a", "10.0.0.1") }], Serving::Nothing),
        (vec![pool("b", "10.0.0.1"), pool("a", "10.0.0.1")], Serving::Latest),
    ] {
        let mut world = World::default();
        world.allocator.complete();
        pools.iter().cloned().for_each(|pool| world.put_pool(pool));
        let settled = world.allocator.settle();
        let report = settled.pools.iter().find(|report| report.pool == pool_key("a")).unwrap();
        assert_eq!(report.serving, serving, "{pools:?}");
        assert_eq!(report.counts.is_some(), serving != Serving::Nothing);
    }
}

#[test]
fn counts_are_written_when_they_change() {
    let endless = pool("a", "10.0.0.0-10.0.0.255 fd00::-fd00::ffff:ffff:ffff:ffff");
    let mut world = World::new([endless]);
    let counts = |world: &World| world.pools[&pool_key("a")].counts.unwrap();
    let empty = PoolCounts { assigned_v4: 0, assigned_v6: 0, available_v4: 256, available_v6: i64::MAX };
    assert_eq!(counts(&world), empty);
    world.create("s", dual(IpFamilyPolicy::RequireDualStack));
    assert_eq!(counts(&world), PoolCounts { assigned_v4: 1, assigned_v6: 1, available_v4: 255, ..empty });
    world.delete("s");
    assert_eq!(counts(&world), empty);
    world.restart();
    assert!(world.allocator.settle().pools.iter().all(|report| !report.write), "as the object says");
}

#[test]
fn who_lost_to_a_version_that_lost_as_well_wins_after_all() {
    let mut world = World::new([pool("d", "10.0.0.28-10.0.0.30")]);
    world.put_pool(pool("a", "10.0.0.0 10.0.0.23-10.0.0.28"));
    world.put_pool(AddressPool { generation: 2, ..pool("d", "10.0.0.0") });
    let settled = world.allocator.settle();
    let serving: Vec<_> = settled.pools.iter().map(|report| (report.pool.name(), report.serving)).collect();
    assert_eq!(serving, [("a", Serving::Nothing), ("d", Serving::Latest)]);
}
