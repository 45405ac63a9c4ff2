use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::netlink::attr;
use crate::netlink::message;
use crate::netlink::testns::in_namespace;

fn ip(commands: &str) {
    for command in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let output = Command::new("ip").args(command.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {command}: {output:?}");
    }
}

/// Looks until this holds; each look waits for the kernel to tell something.
fn wait_until(monitor: &mut LinkMonitor, holds: impl Fn(&Links) -> bool) -> BTreeSet<u32> {
    let mut changed = BTreeSet::new();
    for _ in 0..1000 {
        changed.append(&mut monitor.look().unwrap());
        if holds(monitor.links()) {
            return changed;
        }
        crate::netlink::socket::wait_for(monitor.as_fd(), std::time::Duration::from_secs(5)).unwrap();
    }
    panic!("{:#?}", monitor.links());
}

#[test]
fn interfaces_are_listed_and_each_change_is_told() {
    in_namespace(|| {
        ip("link add left type veth peer name right
            address add 192.0.2.1/24 dev left");
        let mut monitor = LinkMonitor::open().unwrap();
        let a = monitor.links().named("left").unwrap().clone();
        assert_eq!((a.kind.as_str(), a.up, a.carrier, a.broadcast, a.arp, a.master), ("veth", false, false, true, true, None));
        assert_eq!(a.addresses, [LinkAddress { net: "192.0.2.1/24".parse().unwrap(), tentative: false }]);
        assert_eq!(monitor.links().named("lo").unwrap().mac, None, "no host's address");
        assert_eq!(monitor.look().unwrap(), BTreeSet::new());

        ip("link set right up
            link set left up");
        // Both are told, with the carrier and, when it is known to be nobody else's, the link-local address.
        let usable = |links: &Links, name: &str| {
            let link = links.named(name).unwrap();
            let known = |address: &LinkAddress| address.net.addr().is_ipv6() && !address.tentative;
            link.up && link.carrier && link.addresses.iter().any(known)
        };
        let changed = wait_until(&mut monitor, |links| usable(links, "left") && usable(links, "right"));
        assert!(changed.contains(&a.index));

        ip("link set left address 02:00:00:00:00:aa
            address del 192.0.2.1/24 dev left
            link add bridge type bridge
            link set left master bridge");
        let changed = wait_until(&mut monitor, |links| links.named("left").is_some_and(|link| link.master.is_some()));
        let (a, br) = (monitor.links().named("left").unwrap(), monitor.links().named("bridge").unwrap());
        assert_eq!((a.master, a.mac), (Some(br.index), Some(Mac([2, 0, 0, 0, 0, 0xaa]))));
        assert!(a.addresses.iter().all(|address| address.net.addr().is_ipv6()), "{:?}", a.addresses);
        assert!(changed.contains(&br.index));

        // The bridge tells of the port that leaves it as of a deletion.
        ip("link set left nomaster
            link set left down
            link set left name moved
            link set moved arp off");
        wait_until(&mut monitor, |links| links.named("moved").is_some_and(|link| link.master.is_none() && !link.arp));

        ip("link del moved");
        wait_until(&mut monitor, |links| links.named("right").is_none() && links.named("moved").is_none());
    });
}

#[test]
fn a_carrier_that_was_lost_for_a_moment_is_told() {
    in_namespace(|| {
        ip("link add left type veth peer name right
            link set left up
            link set right up");
        let mut monitor = LinkMonitor::open().unwrap();
        wait_until(&mut monitor, |links| links.named("left").is_some_and(|link| link.carrier));
        let before = monitor.links().named("left").unwrap().clone();
        ip("link set right down
            link set right up");
        wait_until(&mut monitor, |links| {
            links.named("left").is_some_and(|link| link.carrier && link.carrier_changes > before.carrier_changes)
        });
    });
}

#[test]
fn changes_that_were_lost_are_made_up_for() {
    in_namespace(|| {
        ip("link add left type veth peer name right");
        let mut monitor = LinkMonitor::open().unwrap();
        // A buffer in which next to nothing has room, and nobody reads.
        nix::sys::socket::setsockopt(&monitor.events, nix::sys::socket::sockopt::RcvBuf, &1).unwrap();
        let commands: String = (0..100).map(|number| format!("address add 198.51.100.{number}/32 dev left\n")).collect();
        ip(&commands);
        ip("link del left
            link add fresh type veth peer name other");
        let changed = monitor.look().unwrap();
        assert_eq!(*monitor.links(), LinkMonitor::open().unwrap().links);
        let z = monitor.links().named("fresh").unwrap().index;
        assert!(changed.contains(&z) && changed.len() >= 4, "{changed:?}");
    });
}

fn message(kind: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    single(kind, 0, header[0], |bytes| {
        bytes.truncate(message::HEADER);
        bytes.extend_from_slice(header);
        for (kind, payload) in attributes {
            attr::put(bytes, *kind, payload);
        }
    })
}

fn applied(bytes: &[u8], links: &mut Links) -> Vec<u32> {
    Messages::new(bytes).filter_map(|message| links.apply(&message)).collect()
}

/// `struct ifinfomsg`: family, hardware, index, flags.
fn link_message(family: u8, hardware: u8, index: u8, flags: u8, attributes: &[(u16, &[u8])], kind: u16) -> Vec<u8> {
    let header = [family, 0, hardware, 0, index, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0];
    message(kind, &header, attributes)
}

#[test]
fn what_kernels_with_more_in_them_say_is_understood() {
    let mut links = Links::default();
    let mut info = Vec::new();
    attr::put_text(&mut info, abi::INFO_KIND, "vlan");
    attr::nest(&mut info, abi::INFO_DATA, |data| attr::put(data, abi::VLAN_ID, &100_u16.to_ne_bytes()));
    let mac: &[u8] = &[2, 0, 0, 0, 0, 1];
    let five: &[u8] = &5_u32.to_ne_bytes();
    let attributes = [
        (abi::NAME, &b"bond0.100\0"[..]),
        (abi::MAC, mac),
        (abi::PARENT, five),
        (abi::CARRIER, &[1]),
        (abi::OPERSTATE, &[6]),
        (abi::INFO, &info),
    ];
    assert_eq!(applied(&link_message(0, 1, 9, 3, &attributes, abi::NEWLINK), &mut links), [9]);
    let vlan = links.get(9).unwrap().clone();
    assert_eq!((vlan.kind.as_str(), vlan.vlan, vlan.parent), ("vlan", Some(100), Some(5)));
    assert_eq!((vlan.up, vlan.carrier, vlan.mac), (true, true, Some(Mac([2, 0, 0, 0, 0, 1]))));

    // A radio's message, a bridge's, and the same once more change nothing.
    let radio = [(abi::NAME, &b"bond0.100\0"[..]), (abi::WIRELESS, &[0; 8][..])];
    assert_eq!(applied(&link_message(0, 1, 9, 0, &radio, abi::NEWLINK), &mut links), [] as [u32; 0]);
    assert_eq!(applied(&link_message(7, 1, 9, 0, &attributes, abi::DELLINK), &mut links), [] as [u32; 0]);
    assert_eq!(applied(&link_message(0, 1, 9, 3, &attributes, abi::NEWLINK), &mut links), [] as [u32; 0]);
    assert_eq!(links.get(9), Some(&vlan));

    // A carrier without readiness (a bond whose members are not up), and no Ethernet.
    let mut waiting = attributes;
    waiting[4] = (abi::OPERSTATE, &[3]);
    assert_eq!(applied(&link_message(0, 32, 9, 3, &waiting, abi::NEWLINK), &mut links), [9]);
    assert_eq!(links.get(9).map(|link| (link.carrier, link.mac)), Some((false, None)));
    assert_eq!(applied(&link_message(0, 32, 9, 3, &[], abi::DELLINK), &mut links), [9]);
    assert_eq!(links, Links::default());
}

#[test]
fn a_duplicate_address_is_nobodys() {
    let mut links: Links = [Link { index: 9, ..Link::default() }].into_iter().collect();
    let address: &[u8] = &"fe80::1".parse::<Ipv6Addr>().unwrap().octets();
    let mut tell = |kind, flags: u32| {
        let header = [10, 64, 0, 253, 9, 0, 0, 0];
        applied(&message(kind, &header, &[(abi::ADDRESS, address), (abi::FLAGS, &flags.to_ne_bytes())]), &mut links);
        links.get(9).unwrap().addresses.iter().map(|address| (address.net.to_string(), address.tentative)).collect::<Vec<_>>()
    };
    assert_eq!(tell(abi::NEWADDR, abi::TENTATIVE), [("fe80::1/64".to_owned(), true)]);
    assert_eq!(tell(abi::NEWADDR, 0), [("fe80::1/64".to_owned(), false)]);
    assert_eq!(tell(abi::NEWADDR, abi::TENTATIVE | abi::DUPLICATE), []);
    assert_eq!(tell(abi::NEWADDR, 0), [("fe80::1/64".to_owned(), false)]);
    assert_eq!(tell(abi::DELADDR, 0), []);
}

proptest! {
    #[test]
    fn no_message_makes_the_reader_panic(
        kind in 16..23_u16,
        header in prop::collection::vec(any::<u8>(), 4..20),
        attributes in prop::collection::vec((0..40_u16, prop::collection::vec(any::<u8>(), 0..20)), 0..6),
        cut in 0..4_usize,
    ) {
        let attributes: Vec<(u16, &[u8])> = attributes.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
        let mut bytes = message(kind, &header, &attributes);
        bytes.truncate(bytes.len() - cut);
        message::end(&mut bytes, 0);
        let mut links: Links = (0..3).map(|index| Link { index, ..Link::default() }).collect();
        applied(&bytes, &mut links);
    }
}
