//! Every way of changing the kernel, against the kernel.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::fixtures::{Port, cidrs, commit, everything, node, node_ports, put, stage};
use super::namespace::{in_namespace, list, nft};
use crate::dataplane::nftables::names::TABLE;
use crate::dataplane::nftables::{Limits, NftablesPlane, cleanup};
use crate::dataplane::{Damage, DamagedElement, Dataplane};
use crate::model::{Family, TrafficPolicy};
use crate::netlink::nft::{Batch, Element, KernelNft, KernelNftOptions, NftDoor};
use crate::table::{Detector, FrontendKind, NodePortAddresses, NodeState, ServiceTable};

/// All elements of our table by base name of the set, affinity left out. Empty sets are nothing.
pub(super) fn elements(door: &mut dyn NftDoor) -> BTreeMap<String, BTreeSet<String>> {
    let sets = door.sets(TABLE).unwrap();
    let mut all = BTreeMap::new();
    for set in sets.iter().filter(|set| !set.flags.anonymous && !set.name.starts_with("affinity")) {
        let elements = door.dump(TABLE, &set.name).unwrap();
        let text: BTreeSet<String> = elements
            .iter()
            .map(|element| {
                format!("{:02x?} {:02x?} {:02x?} {}", element.key, element.key_end, element.data, element.interval_end)
            })
            .collect();
        if !text.is_empty() {
            assert!(all.insert(base(&set.name), text).is_none(), "two instances of {} have elements", set.name);
        }
    }
    all
}

fn base(name: &str) -> String {
    name.split('.').next().unwrap_or(name).to_owned()
}

/// Chains with their rules as nft shows them, without instances.
pub(super) fn chains() -> BTreeMap<String, Vec<String>> {
    let without_instances = |line: &str| {
        let words = line.split(' ').map(|word| match word.rsplit_once('.') {
            Some((name, suffix)) if suffix.len() == 1 && !name.is_empty() => name.to_owned(),
            _ => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in list().lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            current = Some(base(name.trim_end_matches(" {")));
        } else if line == "}" {
            current = None;
        } else if let Some(name) = &current {
            chains.entry(name.clone()).or_default().push(without_instances(line));
        }
    }
    chains
}

pub(super) fn door() -> KernelNft {
    KernelNft::open().unwrap()
}

pub(super) fn plane() -> NftablesPlane {
    NftablesPlane::new(Box::new(door()))
}

/// What the plane has in force is what a load from scratch writes, rules and elements.
fn assert_as_loaded(table: &ServiceTable) {
    let mut door = door();
    let (elements_now, chains_now) = (elements(&mut door), chains());
    cleanup(&mut door).unwrap();
    plane().load(table).unwrap();
    assert_eq!(elements_now, elements(&mut door));
    assert_eq!(chains_now, chains());
}

#[test]
fn incremental_changes_end_where_a_load_would() {
    in_namespace(|| {
        let mut table = everything();
        let mut plane = plane();
        plane.load(&table).unwrap();
        let web = || Port::v4().cluster_ip("172.30.0.10", 80).node_port(30080, TrafficPolicy::Local);
        let lan = |kind| Some(Port::v4().at(kind, "192.0.2.240", 80, TrafficPolicy::Cluster).backends(2, 0));
        let steps: [(&str, Option<Port>); 13] = [
            ("lan", lan(FrontendKind::PoolVip)),
            ("lan", lan(FrontendKind::LoadBalancer)),
            ("lan", lan(FrontendKind::PoolVip)),
            ("lan-six", None),
            ("web", Some(web().backends(6, 2).sticky(10_800))),
            ("web", Some(web().backends(4, 1).sticky(10_800))),
            ("web", Some(web().backends(4, 1).sticky(30))),
            ("web", Some(web().backends(0, 0))),
            ("far", None),
            ("down", Some(Port::v4().cluster_ip("172.30.0.12", 80).node_port(30081, TrafficPolicy::Cluster).backends(9, 9))),
            ("api", Some(Port::v4().cluster_ip("172.30.0.11", 443).backends(300, 1))),
            ("six", None),
            (
                "far",
                Some(
                    Port::v4()
                        .at(FrontendKind::LoadBalancer, "198.51.100.2", 80, TrafficPolicy::Local)
                        .from(&["192.0.2.0/25"])
                        .backends(2, 2),
                ),
            ),
        ];
        for (name, port) in steps {
            let delta = put(&mut table, [(name, port)]);
            let commit = plane.apply(&delta, &table).unwrap();
            assert_eq!(commit.transactions, 1, "{name}: {commit:?}");
            assert!(commit.elements < 700, "{name}: {commit:?}");
        }
        plane.finish().unwrap();
        assert_as_loaded(&table);
    });
}

#[test]
fn a_node_change_rewrites_what_depends_on_it() {
    in_namespace(|| {
        let mut table = everything();
        let mut plane = plane();
        plane.load(&table).unwrap();
        let nodes = [
            NodeState { masquerade_all: true, ..node() },
            NodeState { detector: Detector::Interface("cni0".into()), ..node() },
            NodeState { detector: Detector::InterfacePrefix("veth".into()), ..node() },
            NodeState { detector: Detector::Off, ..node() },
            NodeState {
                detector: Detector::Cidrs(cidrs(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "255.0.0.0/8"])),
                ..node()
            },
            NodeState { node_ports_v4: node_ports(&["192.0.2.1", "192.0.2.7"]), service_cidrs: cidrs(&["0.0.0.0/0"]), ..node() },
            {
                let mut node = node();
                node.node_ports_v4.match_all = true;
                node.node_ports_v6.match_all = true;
                node
            },
            NodeState { node_ports_v4: node_ports(&["192.0.2.1", "127.0.0.1"]), ..node() },
            NodeState { echo_v4: "192.0.2.7".parse().ok(), echo_v6: None, ..node() },
            NodeState {
                node_ports_v4: NodePortAddresses { match_all: true, ..node_ports(&["192.0.2.1", "127.0.0.1"]) },
                ..node()
            },
        ];
        for node in nodes {
            table.set_node(node);
            let delta = commit(&mut table);
            assert_eq!(plane.apply(&delta, &table).unwrap().transactions, 1);
            let expected = (elements(&mut door()), chains());
            let mut other = super::kernel::plane();
            other.load(&table).unwrap();
            assert_eq!(expected, (elements(&mut door()), chains()));
            plane = other;
        }
    });
}

#[test]
fn a_second_load_takes_over_and_leaves_nothing_of_the_first() {
    in_namespace(|| {
        let table = everything();
        plane().load(&table).unwrap();
        let (first, rules) = (elements(&mut door()), chains());
        let names = |door: &mut KernelNft| door.sets(TABLE).unwrap().into_iter().map(|set| set.name).collect::<BTreeSet<_>>();
        let before = names(&mut door());
        plane().load(&table).unwrap();
        let after = names(&mut door());
        assert_eq!((first, rules), (elements(&mut door()), chains()));
        assert!(before.contains("endpoints-4") && !after.contains("endpoints-4"), "built beside the old one: {after:?}");
        assert!(after.contains("endpoints-4.b"), "{after:?}");
        let named = |names: &BTreeSet<String>| names.iter().filter(|name| !name.starts_with("__")).count();
        assert_eq!(named(&before), named(&after), "nothing stays behind");
        // And a third goes back to the first names.
        plane().load(&table).unwrap();
        assert_eq!(
            names(&mut door()).into_iter().filter(|n| !n.starts_with("__")).collect::<BTreeSet<_>>(),
            before.into_iter().filter(|n| !n.starts_with("__")).collect()
        );
    });
}

#[test]
fn debris_and_a_foreign_layout_are_replaced() {
    in_namespace(|| {
        let old = "table inet sheave {
            map endpoints-4 { type ipv4_addr : ipv4_addr; }
            map affinity-4 { type ipv4_addr : ipv4_addr; }
            chain old { ip daddr 192.0.2.4 drop; }
            chain ours { type filter hook input priority 5; jump old; }
        }";
        nft(&["-f", "-"], old);
        nft(&["-f", "-"], "table inet other { set keep { type ipv4_addr; }; }");
        let table = everything();
        plane().load(&table).unwrap();
        assert!(!chains().contains_key("old") && !chains().contains_key("ours"));
        assert_as_loaded(&table);
        assert!(nft(&["list", "tables"], "").contains("table inet other"));
    });
}

#[test]
fn learnt_affinity_survives_a_restart_and_only_dead_entries_go() {
    in_namespace(|| learnt_affinity_survives(KernelNftOptions::default()));
}

/// As before Linux 6.3, where an entry that has expired meanwhile makes the kernel refuse the deletion of all.
#[test]
fn learnt_affinity_survives_a_restart_without_destroy() {
    in_namespace(|| learnt_affinity_survives(KernelNftOptions { probe_destroy: false, ..KernelNftOptions::default() }));
}

fn learnt_affinity_survives(options: KernelNftOptions) {
    let plane = || NftablesPlane::new(Box::new(KernelNft::open_with(options).unwrap()));
    {
        let sticky = |count| Some(Port::v4().cluster_ip("172.30.0.10", 80).backends(count, 0).sticky(600));
        let mut table = ServiceTable::default();
        table.set_node(node());
        put(
            &mut table,
            [("web", sticky(3)), ("other", Some(Port::v4().cluster_ip("172.30.0.20", 80).backends(3, 0).sticky(600)))],
        );
        let mut first = plane();
        first.load(&table).unwrap();
        let learn = |entries: &str| nft(&["add", "element", "inet", "sheave", "affinity-4", entries], "");
        learn("{ 192.0.2.50 . 172.30.0.10 . tcp . 80 timeout 10m : 10.0.0.2 . 8080 }");
        learn("{ 192.0.2.51 . 172.30.0.10 . tcp . 80 timeout 10m : 10.0.0.1 . 8080 }");
        learn("{ 192.0.2.50 . 172.30.0.20 . tcp . 80 timeout 10m : 10.0.0.2 . 8080 }");
        let clients = || -> BTreeSet<(u8, u8)> {
            door().dump(TABLE, "affinity-4").unwrap().iter().map(|entry| (entry.key[3], entry.key[7])).collect()
        };
        assert_eq!(clients().len(), 3);

        // A backend leaves: its frontend is suspended in the same transaction, and only its own client goes.
        let delta = put(&mut table, [("web", sticky(2))]);
        first.apply(&delta, &table).unwrap();
        assert_eq!(elements(&mut door())["sticky-suspended-4"].len(), 1);
        assert_eq!(clients().len(), 3);
        first.finish().unwrap();
        assert!(!elements(&mut door()).contains_key("sticky-suspended-4"));
        assert_eq!(clients(), BTreeSet::from([(51, 10), (50, 20)]));
        assert_eq!(first.finish().unwrap().transactions, 0, "nothing is left to do");

        // A restart keeps the map, and throws out what died while nobody looked.
        stage(&mut table, "web", sticky(1));
        commit(&mut table);
        let mut next = plane();
        next.load(&table).unwrap();
        assert_eq!(clients(), BTreeSet::from([(50, 20)]));
        assert!(door().sets(TABLE).unwrap().iter().any(|set| set.name == "affinity-4"));
        next.finish().unwrap();
        assert_eq!(clients(), BTreeSet::from([(50, 20)]));

        // No affinity any more: its entries go too, so that they cannot come back to life later.
        let delta = put(&mut table, [("other", Some(Port::v4().cluster_ip("172.30.0.20", 80).backends(3, 0)))]);
        next.apply(&delta, &table).unwrap();
        next.finish().unwrap();
        assert_eq!(clients(), BTreeSet::new());
    }
}

#[test]
fn a_set_grows_before_the_commit_that_needs_it() {
    in_namespace(|| {
        let mut table = ServiceTable::default();
        table.set_node(node());
        put(&mut table, [("a", Some(Port::v4().cluster_ip("172.30.0.1", 80).backends(500, 0)))]);
        let mut plane = plane();
        plane.load(&table).unwrap();
        let size = |name: &str| door().sets(TABLE).unwrap().into_iter().find(|set| base(&set.name) == name).unwrap().size;
        assert_eq!(size("endpoints-4"), Some(1024));
        let delta = put(&mut table, [("b", Some(Port::v4().cluster_ip("172.30.0.2", 80).backends(600, 0)))]);
        plane.apply(&delta, &table).unwrap();
        assert_eq!(size("endpoints-4"), Some(3072));
        // More than one transaction's worth of frontends, more than a class usually has, and back.
        let delta = put(&mut table, [("c", Some(Port::v4().cluster_ip("172.30.0.3", 80).backends(9000, 0)))]);
        plane.apply(&delta, &table).unwrap();
        assert!(chains().contains_key("pick-16384-4"));
        let delta = put(&mut table, [("b", None), ("c", Some(Port::v4().cluster_ip("172.30.0.3", 80).backends(8999, 0)))]);
        plane.apply(&delta, &table).unwrap();
        assert_as_loaded(&table);
    });
}

#[test]
fn a_small_send_buffer_is_enough() {
    in_namespace(|| {
        let options = KernelNftOptions { force_buffers: false, send_buffer: 212_992, ..KernelNftOptions::default() };
        let mut table = everything();
        let many =
            |count| Some(Port::v4().cluster_ip("172.30.1.1", 80).node_port(31000, TrafficPolicy::Cluster).backends(count, 3));
        put(&mut table, [("many", many(8000))]);
        let small = KernelNft::open_with(options).unwrap();
        assert!(small.batch_limit() < 600_000, "{}", small.batch_limit());
        let mut plane = NftablesPlane::new(Box::new(small));
        plane.load(&table).unwrap();
        // Too large for one transaction: a load in disguise.
        let delta =
            put(&mut table, [("many", many(1)), ("more", Some(Port::v4().cluster_ip("172.30.1.2", 80).backends(20_000, 3)))]);
        plane.apply(&delta, &table).unwrap();
        let delta = put(&mut table, [("more", None)]);
        plane.apply(&delta, &table).unwrap();
        assert_eq!(elements(&mut door())["endpoints-4"].len(), 23);
    });
}

#[test]
fn damage_is_mended_element_by_element() {
    in_namespace(|| {
        let table = everything();
        let mut plane = plane();
        plane.load(&table).unwrap();
        let intact = elements(&mut door());
        let mut damaged = Vec::new();
        for set in door().sets(TABLE).unwrap().into_iter().filter(|set| !set.flags.anonymous && set.data.is_none()) {
            for element in door().dump(TABLE, &set.name).unwrap().into_iter().take(1) {
                damaged.push(DamagedElement { set: set.name.clone(), key: element.key.clone(), removed: true });
            }
        }
        for damage in damaged.iter().filter(|damage| !["pods-4", "pods-6", "ranges-4"].contains(&damage.set.as_str())) {
            if damage.set.starts_with("service-cidrs") {
                continue;
            }
            let mut batch = Batch::new();
            batch.delete_elements(TABLE, &damage.set).push(Element::key(&damage.key));
            door().commit(batch).unwrap();
        }
        nft(&["delete", "element", "inet", "sheave", "pods-4", "{ 10.0.0.0/8 }"], "");
        nft(&["add", "element", "inet", "sheave", "service-ips-4", "{ 9.9.9.9 }"], "");
        nft(&["delete", "element", "inet", "sheave", "endpoints-4", "{ 172.30.0.10 . tcp . 80 . 2 : 10.0.0.2 . 8080 }"], "");
        nft(&["add", "element", "inet", "sheave", "endpoints-4", "{ 172.30.0.10 . tcp . 80 . 2 : 6.6.6.6 . 66 }"], "");
        damaged.push(DamagedElement { set: "service-ips-4".into(), key: vec![9, 9, 9, 9], removed: false });
        let slot = [vec![172, 30, 0, 10, 6, 0, 0, 0, 0, 80, 0, 0], 2_u32.to_ne_bytes().to_vec()].concat();
        damaged.push(DamagedElement { set: "endpoints-4".into(), key: slot, removed: false });
        assert_ne!(elements(&mut door()), intact);
        let commit = plane.repair(&Damage::Elements(damaged), &table).unwrap();
        assert_eq!(commit.transactions, 1);
        assert_eq!(elements(&mut door()), intact);

        nft(&["flush", "ruleset"], "");
        plane.repair(&Damage::Structure("table deleted".into()), &table).unwrap();
        assert_eq!(elements(&mut door()), intact);
    });
}

#[test]
fn a_port_that_does_not_fit_spoils_only_itself() {
    in_namespace(|| {
        let mut table = ServiceTable::default();
        table.set_node(node());
        let port = |ip: &str, count| Some(Port::v4().cluster_ip(ip, 80).backends(count, 0));
        put(&mut table, [("a", port("172.30.0.1", 60))]);
        let limits = Limits { endpoints: 100, backends: 90 };
        let mut plane = NftablesPlane::with_limits(Box::new(door()), limits);
        plane.load(&table).unwrap();
        let delta =
            put(&mut table, [("b", port("172.30.0.2", 50)), ("c", port("172.30.0.3", 91)), ("d", port("172.30.0.4", 10))]);
        let mut spoiled = plane.apply(&delta, &table).unwrap().spoiled;
        spoiled.sort();
        assert_eq!(spoiled.iter().map(|(id, _)| id.service.name()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(elements(&mut door())["endpoints-4"].len(), 70);
        // There is room now, and the other has become smaller.
        let delta = put(&mut table, [("a", None), ("c", port("172.30.0.3", 20))]);
        let commit = plane.apply(&delta, &table).unwrap();
        assert_eq!(commit.spoiled, []);
        assert_eq!(commit.recovered.iter().map(|id| id.service.name()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(commit.transactions, 1);
        assert_eq!(elements(&mut door())["endpoints-4"].len(), 80);
        assert_as_loaded(&table);
    });
}

#[test]
fn cleanup_removes_our_table_only() {
    in_namespace(|| {
        nft(&["add", "table", "inet", "other"], "");
        assert!(!cleanup(&mut door()).unwrap());
        plane().load(&everything()).unwrap();
        assert!(cleanup(&mut door()).unwrap());
        assert_eq!(nft(&["list", "tables"], "").trim(), "table inet other");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn histories_end_where_a_load_would(history in super::histories::history(12)) {
        in_namespace(move || {
            let mut table = ServiceTable::default();
            let mut plane = plane();
            plane.load(&table).unwrap();
            for step in history {
                let delta = step.stage(&mut table);
                plane.apply(&delta, &table).unwrap();
            }
            plane.finish().unwrap();
            assert_as_loaded(&table);
        });
    }
}

#[test]
fn families_are_apart() {
    in_namespace(|| {
        let mut table = ServiceTable::default();
        table.set_node(node());
        put(&mut table, [("six", Some(Port::new(Family::V6).cluster_ip("fd00:30::a", 80).backends(3, 1)))]);
        plane().load(&table).unwrap();
        assert!(
            elements(&mut door())
                .keys()
                .filter(|name| name.contains("class") || name.contains("endpoints"))
                .all(|name| name.ends_with('6'))
        );
    });
}
