//! What `nft list` shows of us, word for word, and that stock nft can load it again.

use super::fixtures::{everything, node, put};
use super::namespace::{in_namespace, list, reloaded};
use crate::dataplane::Dataplane;
use crate::dataplane::nftables::NftablesPlane;
use crate::netlink::nft::KernelNft;
use crate::table::ServiceTable;

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
