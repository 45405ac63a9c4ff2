//! Others who make, change or own what has our names.

use super::fixtures::everything;
use super::kernel::{chains, door, plane};
use super::namespace::{in_namespace, nft};
use crate::dataplane::nftables::cleanup;
use crate::dataplane::nftables::names::TABLE;
use crate::dataplane::{Dataplane, PlaneError};
use crate::netlink::nft::{Batch, NftDoor};

#[test]
fn a_table_that_belongs_to_another_process_is_named_and_left_alone() {
    in_namespace(|| {
        let mut owner = door();
        let mut batch = Batch::new();
        batch.add_owned_table(TABLE);
        owner.commit(batch).unwrap();
        let refused = plane().load(&everything()).unwrap_err();
        assert!(matches!(refused, PlaneError::Owned { table: TABLE }), "{refused}");
        assert!(refused.to_string().contains("`nft list table inet sheave` shows whose it is"), "{refused}");
        let refused = cleanup(&mut door()).unwrap_err();
        assert!(matches!(refused, PlaneError::Owned { table: TABLE }), "{refused}");
        drop(owner);
        plane().load(&everything()).unwrap();
    });
}

#[test]
fn what_others_made_under_our_names_is_replaced_and_named() {
    in_namespace(|| {
        let table = everything();
        nft(&["-f", "-"], "table inet sheave { chain mine { type filter hook input priority 5; }; }");
        let commit = plane().load(&table).unwrap();
        assert_eq!(commit.replaced, ["all of table inet sheave, which sheave did not make"]);
        let (good, mut plane) = (chains(), plane());
        assert_eq!(plane.load(&table).unwrap().replaced, Vec::<String>::new(), "what sheave made");
        nft(&["delete", "chain", "inet", "sheave", "nat-output"], "");
        // The same name, hook and priority, and yet another chain.
        nft(&["add", "chain", "inet", "sheave", "nat-output", "{ type filter hook output priority -100; policy drop; }"], "");
        assert!(!plane.is_whole());
        let commit = plane.load(&table).unwrap();
        assert_eq!(commit.replaced, ["chain nat-output of table inet sheave"]);
        assert_eq!(chains(), good);
    });
}

#[test]
fn whatever_is_missing_or_added_shows_without_reading_elements() {
    in_namespace(|| {
        let table = everything();
        let mut plane = plane();
        plane.load(&table).unwrap();
        if door().sets(TABLE).unwrap().iter().all(|set| set.count.is_none()) {
            assert!(!plane.is_whole(), "a kernel that does not count (before Linux 6.16) cannot say so");
            return;
        }
        assert!(plane.is_whole());
        nft(&["-f", "-"], "table inet other { chain c { type nat hook output priority 0; tcp dport 1 accept; }; }");
        assert!(plane.is_whole(), "nothing to us");
        let listed = nft(&["-a", "list", "chain", "inet", "sheave", "unknown-4"], "");
        let first =
            listed.lines().find_map(|line| line.trim().strip_prefix("ip daddr")?.rsplit_once("# handle ")).expect("a rule").1;
        let exchange = format!("insert rule inet sheave unknown-4 accept\ndelete rule inet sheave unknown-4 handle {first}");
        for damage in [
            "delete element inet sheave service-ips-4 { 172.30.0.10 }",
            "add element inet sheave reject-4 { 172.30.0.99 . udp . 80 }",
            "add element inet sheave pods-4 { 192.0.2.0/24 }",
            "flush set inet sheave ranges-4",
            "add set inet sheave more { type ipv4_addr; }",
            "add chain inet sheave more",
            "add rule inet sheave services-4 accept",
            "flush chain inet sheave filter-forward",
            "add chain inet sheave filter-forward { policy drop; }",
            "add table inet sheave { flags dormant; }",
            &exchange,
            "delete table inet sheave",
        ] {
            nft(&["-f", "-"], damage);
            assert!(!plane.is_whole(), "{damage}");
            // From nothing, so that names and numbers are those of the first load.
            cleanup(&mut door()).unwrap();
            plane.load(&table).unwrap();
            assert!(plane.is_whole(), "after {damage}");
        }
    });
}
