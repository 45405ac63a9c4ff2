use std::process::Command;

use super::*;
use crate::netlink::condition::ESTABLISHED;
use crate::netlink::nft::{Batch, NftDoor as _};
use crate::netlink::testns::in_namespace;

const RULESET: &str = "
    table ip nat {
        set s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
        chain A { }
        chain PREROUTING {
            type nat hook prerouting priority -100; policy accept;
            ip daddr 172.30.0.41 tcp dport 80 counter jump A
            counter accept
        }
        chain POSTROUTING { type nat hook postrouting priority 100; meta mark & 0x4000 != 0 masquerade; }
    }
    table ip6 filter {
        chain FORWARD {
            type filter hook forward priority 0; policy drop;
            ip6 daddr fd00:172:30::41 drop
            ct state invalid drop
            ct state established accept
        }
    }
    table inet nat { }";

/// Stock nft, with one script or question.
fn nft(script: &str) -> String {
    let output = Command::new("nft").arg(script).output().expect("nft is installed");
    assert!(output.status.success(), "nft {script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn open() -> KernelNft {
    nft(RULESET);
    KernelNft::open().unwrap()
}

#[test]
fn tables_and_chains_of_every_family_are_told_apart() {
    in_namespace(|| {
        let mut door = open();
        let names: Vec<String> = door.all_tables().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["ip nat", "ip6 filter", "inet nat"]);
        let chains = door.all_chains().unwrap();
        let base = |name: &str| chains.iter().find(|chain| chain.name == name).unwrap().base.clone();
        assert_eq!(base("A"), None);
        assert_eq!(base("PREROUTING"), Some(BaseInfo { kind: "nat".to_owned(), hook: 0, priority: -100, drops: false }));
        assert_eq!(base("FORWARD"), Some(BaseInfo { kind: "filter".to_owned(), hook: 2, priority: 0, drops: true }));
        let mut keys = door.keys_in(&ForeignTable::new(TableFamily::IPV4, "nat"), "s").unwrap();
        keys.sort();
        assert_eq!(keys, [[192, 0, 2, 1], [192, 0, 2, 2]]);
        assert_eq!(door.set_names_in(&ForeignTable::new(TableFamily::IPV4, "nat")).unwrap(), ["s"]);
        let absent = ForeignTable::new(TableFamily::IPV6, "nat");
        assert!(door.keys_in(&absent, "s").unwrap().is_empty() && door.rules_in(&absent).unwrap().is_empty());
        assert!(door.keys_in(&ForeignTable::new(TableFamily::IPV4, "nat"), "t").unwrap().is_empty());
    });
}

#[test]
fn a_map_of_verdicts_is_told_from_other_lookups() {
    in_namespace(|| {
        let mut door = open();
        nft("table ip nat { chain D {
            ip daddr @s accept
            tcp dport vmap { 80 : goto A }
            tcp dport 81 dnat to numgen random mod 1 map { 0 : 192.0.2.3 }
        }; }");
        let rules = door.rules_in(&ForeignTable::new(TableFamily::IPV4, "nat")).unwrap();
        let maps: Vec<_> = rules.iter().filter(|rule| rule.chain == "D").map(ForeignRule::verdict_map).collect();
        let [None, Some(map), None] = maps[..] else { panic!("{maps:?}") };
        let elements = door.elements_in(&ForeignTable::new(TableFamily::IPV4, "nat"), map).unwrap();
        assert_eq!(elements[0].verdict.as_ref().and_then(|verdict| verdict.chain.as_deref()), Some("A"));
    });
}

#[test]
fn rules_say_where_they_send_and_what_they_look_for() {
    in_namespace(|| {
        let mut door = open();
        let nat = door.rules_in(&ForeignTable::new(TableFamily::IPV4, "nat")).unwrap();
        let [jump, accept, masquerade] = &nat[..] else { panic!("{nat:?}") };
        assert_eq!((jump.target(), jump.destination()), (Some("A"), Some(IpAddr::from([172, 30, 0, 41]))));
        assert!(!jump.is_unconditional() && accept.is_unconditional() && accept.ends_with(&Verdict::Accept));
        assert!(masquerade.masquerades() && !masquerade.is_unconditional() && !jump.masquerades());
        let filter = door.rules_in(&ForeignTable::new(TableFamily::IPV6, "filter")).unwrap();
        assert_eq!(filter[0].destination(), Some("fd00:172:30::41".parse().unwrap()));
        let invalid: Vec<bool> = filter.iter().map(ForeignRule::is_about_invalid).collect();
        assert_eq!(invalid, [false, true, false]);
        assert!(filter[1].ends_with(&Verdict::Drop));
    });
}

/// In a table of both families nft asks which it is before it asks for an address.
#[test]
fn an_address_says_which_family_it_is_of() {
    in_namespace(|| {
        let mut door = open();
        nft("table inet filter { chain FORWARD {
            ip saddr 10.244.0.0/16 accept
            ip6 daddr fd00:10:244::/56 ip6 saddr fd00::1 accept
            meta nfproto ipv4 accept
            meta nfproto ipv6 ct state established accept
            ip protocol tcp accept
        }; }");
        let rules = door.rules_in(&ForeignTable::new(TableFamily::INET, "filter")).unwrap();
        let found: Vec<_> = rules.iter().map(ForeignRule::conditions).collect();
        let net = |text: &str| text.parse().unwrap();
        assert_eq!(
            found,
            [
                vec![Condition::Source(net("10.244.0.0/16"))],
                vec![Condition::Destination(net("fd00:10:244::/56")), Condition::Source(net("fd00::1/128"))],
                vec![Condition::Other],
                vec![Condition::States(ESTABLISHED), Condition::Other],
                vec![Condition::Protocol(6), Condition::Other],
            ]
        );
    });
}

/// One transaction for several families; and none at all, if anybody wrote since we looked.
#[test]
fn what_is_named_goes_and_nothing_of_the_same_name_elsewhere() {
    in_namespace(|| {
        let mut door = open();
        let removal = |door: &mut KernelNft, generation| {
            let rules = door.rules_in(&ForeignTable::new(TableFamily::IPV4, "nat")).unwrap();
            let mut batch = Batch::at_generation(generation);
            batch.set_family(TableFamily::IPV4);
            batch.delete_rule("nat", "PREROUTING", rules[0].handle);
            batch.delete_chain("nat", "A");
            batch.set_family(TableFamily::IPV6);
            batch.delete_table("filter");
            batch
        };
        let generation = door.generation().unwrap();
        nft("add table inet newcomer");
        let batch = removal(&mut door, generation);
        assert_eq!(door.commit(batch).unwrap_err().errno(), Some(nix::errno::Errno::ERESTART));
        let generation = door.generation().unwrap();
        let batch = removal(&mut door, generation);
        door.commit(batch).unwrap();
        assert_eq!(nft("list tables"), "table ip nat\ntable inet nat\ntable inet newcomer\n");
        let left = nft("list table ip nat");
        assert!(!left.contains("chain A") && left.contains("accept") && left.contains("masquerade"), "{left}");
    });
}
