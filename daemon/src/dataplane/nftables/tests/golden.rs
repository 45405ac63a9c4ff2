//! What `nft list` shows of us, word for word, and that stock nft can load it again.

use std::process::Command;

use super::fixtures::{everything, node, node_ports, put};
use super::namespace::{in_namespace, list, nft, reloaded, run};
use crate::dataplane::Dataplane;
use crate::dataplane::nftables::{HOLD_TABLE, NatHold, NftablesPlane};
use crate::netlink::nft::KernelNft;
use crate::table::{NodePortAddresses, NodeState, ServiceTable};

fn kernel_plane() -> NftablesPlane {
    NftablesPlane::new(Box::new(KernelNft::open().unwrap()))
}

#[test]
fn empty_table_lists_as_recorded_and_reloads_the_same() {
    in_namespace(|| {
        let mut table = ServiceTable::default();
        table.set_node(node());
        put(&mut table, []);
        kernel_plane().load(&table).unwrap();
        let listing = list();
        insta::assert_snapshot!("empty", listing);
        assert_eq!(reloaded(listing.clone()), listing);
    });
}

#[test]
fn everything_lists_as_recorded() {
    in_namespace(|| {
        kernel_plane().load(&everything()).unwrap();
        insta::assert_snapshot!("everything", in_order(&list()));
    });
}

/// What the recipe leaves out is the hold, and the rules that learn IPv6 clients: nft 1.0.6 prints them and aborts as it reads them.
#[test]
fn a_ruleset_saved_beside_a_daemon_loads_again_after_sed() {
    let docs = include_str!("../../../../../docs/nftables.md");
    let recipe = docs.lines().find_map(|line| line.trim().strip_prefix("nft list ruleset | ")).expect("the docs have a recipe");
    let (recipe, _) = recipe.split_once(" > ").expect("it writes a file");
    in_namespace(move || {
        let hold = NatHold::take().unwrap();
        kernel_plane().load(&everything()).unwrap();
        let saved = run(Command::new("sh").args(["-c", recipe]), &nft(&["-s", "list", "ruleset"], ""));
        let before: Vec<_> = list().lines().filter(|line| !line.contains("update @affinity-6")).map(str::to_owned).collect();
        assert_eq!(list().lines().count() - before.len(), 2, "nothing else is lost");
        nft(&["-f", "-"], &format!("flush ruleset\n{saved}"));
        assert_eq!(in_order(&list()), in_order(&before.join("\n")));
        assert!(nft(&["list", "tables"], "").contains(HOLD_TABLE), "the hold is the daemon's, and stays");
        drop(hold);
        assert!(!nft(&["list", "tables"], "").contains(HOLD_TABLE));
        nft(&["-f", "-"], &format!("flush ruleset\n{saved}"));
    });
}

/// A process of the node may ask 127.0.0.1, and nobody else may.
#[test]
fn localhost_is_served_behind_a_guard() {
    in_namespace(|| {
        let all = NodePortAddresses { match_all: true, ..node_ports(&["192.0.2.1", "127.0.0.1"]) };
        let mut table = ServiceTable::default();
        table.set_node(NodeState { node_ports_v4: all, ..node() });
        put(&mut table, []);
        kernel_plane().load(&table).unwrap();
        let listing = list();
        let chain = |name: &str| {
            let lines = listing.lines().skip_while(|line| line.trim() != format!("chain {name} {{")).skip(1);
            lines.take_while(|line| line.trim() != "}").map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            chain("localnet-guard"),
            ["type filter hook prerouting priority dstnat - 10; policy accept;", "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",]
        );
        assert_eq!(
            chain("services-4")[1..],
            ["ip daddr != 127.0.0.0/8 fib daddr type local goto node-ports-4", "ip daddr 127.0.0.1 goto node-ports-4",]
        );
        assert_eq!(reloaded(listing.clone()), listing);
    });
}

/// Elements of hash sets come in an order of the kernel's own.
fn in_order(listing: &str) -> String {
    let mut out = String::new();
    let mut lines = listing.lines();
    while let Some(line) = lines.next() {
        let Some((before, rest)) = line.split_once("elements = { ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let mut text = rest.trim().to_owned();
        while !text.ends_with('}') {
            text.push(' ');
            text.push_str(lines.next().unwrap_or("}").trim());
        }
        let mut elements: Vec<&str> = text.trim_end_matches('}').split(", ").map(str::trim).collect();
        elements.sort_unstable();
        out.push_str(&format!("{before}elements = {{ {} }}\n", elements.join(", ").replace(",,", ",")));
    }
    out
}
