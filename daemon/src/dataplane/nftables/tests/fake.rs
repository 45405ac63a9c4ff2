//! Properties over many histories, against the kernel's rules in memory.

use std::collections::BTreeSet;

use nix::errno::Errno;
use proptest::prelude::*;

use super::fixtures::{Port, commit, everything, node, put, stage, stage_of_age};
use super::histories::history;
use super::kernel::elements;
use crate::dataplane::nftables::names::TABLE;
use crate::dataplane::nftables::{Limits, NftablesPlane, cleanup};
use crate::dataplane::{Damage, Dataplane, PlaneError};
use crate::netlink::nft::{FakeNft, NftDoor, OwnedElement};
use crate::table::{PortId, ServiceTable};

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened on the way, and however often a transaction failed, the kernel ends with what a load would write.
    #[test]
    fn histories_end_where_a_load_would(history in history(16), failures in proptest::collection::vec(0..12_u8, 16)) {
        let fake = FakeNft::new();
        let mut plane = NftablesPlane::new(Box::new(fake.another()));
        let mut table = ServiceTable::default();
        plane.load(&table).unwrap();
        for (step, failure) in history.into_iter().zip(failures) {
            let delta = step.stage(&mut table);
            if failure == 0 && !delta.is_empty() {
                fake.fail_next(Errno::ENOMEM);
                prop_assert!(plane.apply(&delta, &table).is_err());
                plane.load(&table).unwrap();
            } else {
                plane.apply(&delta, &table).unwrap();
            }
            if failure == 1 {
                plane.finish().unwrap();
            }
        }
        plane.finish().unwrap();
        let incremental = elements(&mut fake.another());
        cleanup(&mut fake.another()).unwrap();
        NftablesPlane::new(Box::new(fake.another())).load(&table).unwrap();
        prop_assert_eq!(incremental, elements(&mut fake.another()));
    }
}

#[test]
fn a_failed_load_leaves_what_was_there() {
    let fake = FakeNft::new();
    let mut table = everything();
    let mut plane = NftablesPlane::new(Box::new(fake.another()));
    plane.load(&table).unwrap();
    let rules = |chain: &str| fake.sets_of_chain(TABLE, chain);
    let (services, mut door) = (rules("services-4"), fake.another());
    put(&mut table, [("web", None)]);
    fake.fail_next(Errno::ENOMEM);
    let error = NftablesPlane::new(Box::new(fake.another())).load(&table).unwrap_err();
    assert!(matches!(&error, PlaneError::Kernel { call: "commit", .. }), "{error}");
    assert_eq!(rules("services-4"), services);
    assert!(elements(&mut door)["service-ips-4"].len() > 2);
    NftablesPlane::new(Box::new(fake.another())).load(&table).unwrap();
    assert!(rules("services-4").is_empty(), "the old chains are gone");
}

/// Wherever a load fails, what was in force stays, and nothing is left behind: a load is tried again for as long as it takes.
#[test]
fn a_load_that_fails_anywhere_leaves_nothing_behind() {
    let fake = FakeNft::new();
    // Many transactions, so that there are many places to fail at.
    fake.set_batch_limit(24_000);
    let table = everything();
    let loads = |fake: &FakeNft| NftablesPlane::new(Box::new(fake.another())).load(&table);
    loads(&fake).unwrap();
    let objects = |fake: &FakeNft| {
        let mut door = fake.another();
        (door.sets(TABLE).unwrap().len(), door.chains(TABLE).unwrap().len(), elements(&mut door))
    };
    let before = objects(&fake);
    let mut failures = 0;
    while failures < 1_000 {
        fake.fail_after(failures, Errno::ENOMEM);
        if loads(&fake).is_ok() {
            break;
        }
        assert_eq!(objects(&fake), before, "after a failure at commit {failures}");
        failures += 1;
    }
    assert!((5..1_000).contains(&failures), "{failures}");
}

#[test]
fn a_lost_answer_makes_the_next_change_a_load() {
    let fake = FakeNft::new();
    let mut table = everything();
    let mut plane = NftablesPlane::new(Box::new(fake.another()));
    plane.load(&table).unwrap();
    fake.lose_next_answer();
    let delta = put(&mut table, [("web", None)]);
    let error = plane.apply(&delta, &table).unwrap_err().to_string();
    assert!(error.starts_with("commit outcome unknown: "), "{error}");
    let delta = put(&mut table, [("api", None)]);
    plane.apply(&delta, &table).unwrap();
    let now = elements(&mut fake.another());
    NftablesPlane::new(Box::new(fake.another())).load(&table).unwrap();
    assert_eq!(now, elements(&mut fake.another()));
}

#[test]
fn errors_say_what_to_do() {
    for (errno, expected) in [
        (Errno::EPERM, "permission to change nftables: run as root or with CAP_NET_ADMIN"),
        (Errno::EOPNOTSUPP, "nf_tables in this kernel: load the modules nf_tables"),
    ] {
        let fake = FakeNft::new();
        fake.fail_next(errno);
        let error = NftablesPlane::new(Box::new(fake)).load(&everything()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn small_batches_suffice_for_any_load() {
    let fake = FakeNft::new();
    fake.set_batch_limit(24_000);
    let mut table = everything();
    put(&mut table, [("many", Some(Port::v4().cluster_ip("172.30.1.1", 80).backends(3000, 0)))]);
    let commit = NftablesPlane::new(Box::new(fake.another())).load(&table).unwrap();
    assert!(commit.transactions > 10, "{commit:?}");
    let small = elements(&mut fake.another());
    fake.set_batch_limit(1 << 26);
    NftablesPlane::new(Box::new(fake.another())).load(&table).unwrap();
    assert_eq!(small, elements(&mut fake.another()));
}

#[test]
fn sticky_clients_of_other_backends_and_frontends_keep_their_entries() {
    use crate::model::TrafficPolicy::Local;
    use crate::table::FrontendKind::LoadBalancer;
    let fake = FakeNft::new();
    let port = |count, local| {
        let port = Port::v4().cluster_ip("172.30.0.10", 80).at(LoadBalancer, "198.51.100.1", 80, Local).node_port(30080, Local);
        Some(port.backends(count, local).sticky(60))
    };
    let mut table = ServiceTable::default();
    table.set_node(node());
    put(&mut table, [("web", port(4, 2))]);
    let mut plane = NftablesPlane::new(Box::new(fake.another()));
    plane.load(&table).unwrap();
    let learn = |client: [u8; 4], daddr: [u8; 4], port: u16, backend: u8| {
        let [high, low] = port.to_be_bytes();
        let key = [&client[..], &daddr, &[6, 0, 0, 0, high, low, 0, 0]].concat();
        let data = vec![10, 0, 0, backend, 0x1f, 0x90, 0, 0];
        assert!(fake.learn(TABLE, "affinity-4", &OwnedElement { key, data: Some(data), ..OwnedElement::default() }));
    };
    let (pod, outside) = ([10, 0, 5, 5], [203, 0, 113, 5]);
    learn(pod, [198, 51, 100, 1], 80, 3); // from the cluster set, whatever the policy
    learn(outside, [198, 51, 100, 1], 80, 1);
    learn(outside, [192, 0, 2, 1], 30080, 1);
    learn(outside, [192, 0, 2, 1], 30080 + 1, 1); // nobody's: it is not being swept
    learn(pod, [172, 30, 0, 10], 80, 1);
    // The backend 10.0.0.1 is no longer local: still one of the cluster set, none for clients from outside.
    let delta = put(&mut table, [("web", port(4, 1))]);
    plane.apply(&delta, &table).unwrap();
    assert_eq!(elements(&mut fake.another())["sticky-suspended-4"].len(), 2, "VIP and NodePort, not the ClusterIP");
    plane.finish().unwrap();
    let mut left: Vec<Vec<u8>> =
        fake.another().dump(TABLE, "affinity-4").unwrap().into_iter().map(|e| e.key[..8].to_vec()).collect();
    left.sort();
    let kept = |client: [u8; 4], daddr: [u8; 4]| [client, daddr].concat();
    assert_eq!(left, [kept(pod, [172, 30, 0, 10]), kept(pod, [198, 51, 100, 1]), kept(outside, [192, 0, 2, 1])]);
}

#[test]
fn unknown_sets_in_a_report_of_damage_mean_a_load() {
    let fake = FakeNft::new();
    let table = everything();
    let mut plane = NftablesPlane::new(Box::new(fake.another()));
    plane.load(&table).unwrap();
    let stranger = crate::dataplane::DamagedElement { set: "stranger".into(), key: vec![1], removed: false };
    let commit = plane.repair(&Damage::Elements(vec![stranger]), &table).unwrap();
    assert!(commit.transactions > 1, "{commit:?}");
}

/// A node drain takes a backend from every sticky Service at once: more suspensions than the set was made for, and more than a small
/// send buffer takes in one transaction.
#[test]
fn a_thousand_sticky_frontends_that_lose_a_backend_at_once_are_all_suspended_and_released() {
    const SERVICES: u16 = 2_000;
    let fake = FakeNft::new();
    let mut table = ServiceTable::default();
    let staged = |table: &mut ServiceTable, backends| {
        for number in 0..SERVICES {
            let port = Port::v4().cluster_ip(&format!("172.30.{}.{}", number / 250, number % 250), 80);
            stage(table, &format!("web-{number}"), Some(port.backends(backends, 0).sticky(60)));
        }
        commit(table)
    };
    staged(&mut table, 2);
    let mut plane = NftablesPlane::new(Box::new(fake.another()));
    plane.load(&table).unwrap();
    let delta = staged(&mut table, 1);
    plane.apply(&delta, &table).unwrap();
    let suspended = |fake: &FakeNft| {
        let all = elements(&mut fake.another());
        all.iter().filter(|(set, _)| set.starts_with("sticky-suspended-4")).map(|(_, elements)| elements.len()).sum::<usize>()
    };
    assert_eq!(suspended(&fake), usize::from(SERVICES));
    fake.set_batch_limit(100_000);
    plane.finish().unwrap();
    assert_eq!(suspended(&fake), 0);
}

fn names<'a>(ids: impl IntoIterator<Item = &'a PortId>) -> Vec<&'a str> {
    ids.into_iter().map(|id| id.service.name()).collect()
}

/// The table keeps its ports in a hash map, whose order is another in every process.
#[test]
fn of_ports_that_do_not_all_fit_every_load_takes_the_same() {
    for _ in 0..8 {
        let mut table = ServiceTable::default();
        for number in 0..20 {
            let port = Port::v4().cluster_ip(&format!("172.30.0.{number}"), 80).backends(10, 0);
            stage_of_age(&mut table, &format!("s{number:02}"), 100 - number, port);
        }
        commit(&mut table);
        let fake = FakeNft::new();
        let mut plane = NftablesPlane::with_limits(Box::new(fake), Limits { endpoints: 100, backends: 90 });
        let spoiled = plane.load(&table).unwrap().spoiled;
        // The younger the higher its number of creation: the first ten of these names.
        let expected: Vec<String> = (0..10).map(|number| format!("s{number:02}")).collect();
        assert_eq!(names(spoiled.iter().map(|(id, _)| id)), expected);
    }
}

#[test]
fn who_does_not_fit_is_let_in_when_others_make_room_and_each_turn_is_told_once() {
    let fake = FakeNft::new();
    let mut table = ServiceTable::default();
    table.set_node(node());
    let port = |ip: &str, count| Some(Port::v4().cluster_ip(ip, 80).backends(count, 0).sticky(60));
    let limits = Limits { endpoints: 100, backends: 90 };
    let mut plane = NftablesPlane::with_limits(Box::new(fake.another()), limits);
    plane.load(&table).unwrap();
    let mut apply = |services: Vec<(&str, Option<Port>)>| {
        for (name, port) in services {
            stage(&mut table, name, port);
        }
        let delta = commit(&mut table);
        let done = plane.apply(&delta, &table).unwrap();
        plane.finish().unwrap();
        let spoiled = names(done.spoiled.iter().map(|(id, _)| id)).concat();
        let present = elements(&mut fake.another()).get("endpoints-4").map_or(0, BTreeSet::len);
        (spoiled, names(&done.recovered).concat(), present)
    };
    let told = |spoiled: &str, recovered: &str, present| (spoiled.to_owned(), recovered.to_owned(), present);
    assert_eq!(apply(vec![("a", port("172.30.0.1", 60)), ("b", port("172.30.0.2", 50))]), told("b", "", 60));
    assert_eq!(apply(vec![("c", port("172.30.0.3", 30))]), told("", "", 90), "b does not fit as before, and was told");
    assert_eq!(apply(vec![("a", port("172.30.0.1", 20))]), told("", "b", 100));
    assert_eq!(apply(vec![("b", port("172.30.0.2", 51))]), told("b", "", 50), "it grew");
    // By name it is looked at before the one that makes room in the same delta.
    assert_eq!(apply(vec![("b", port("172.30.0.2", 60)), ("c", None)]), told("", "b", 80));
    assert_eq!(apply(vec![("d", port("172.30.0.4", 30))]), told("d", "", 80));
    assert_eq!(apply(vec![("d", None)]), told("", "", 80), "gone is not recovered");
    assert_eq!(elements(&mut fake.another()).get("sticky-60-4").map(BTreeSet::len), Some(2));
}
