//! Who listens to nf_tables' events. Whether anybody does is asked of the whole machine, not of a network namespace
//! (`netlink_has_listeners()` in net/netlink/af_netlink.c has one bitmap per protocol), and with somebody there every transaction
//! everywhere writes its events. That makes a load take up to twice as long, so it belongs beside the numbers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// `NETLINK_NETFILTER`, linux/netlink.h.
const NETFILTER: &str = "12";
/// `NFNLGRP_NFTABLES` is group 7, bit 6; linux/netfilter/nfnetlink.h.
const NFTABLES: u64 = 1 << 6;

/// Sockets, in every network namespace that a process we may look at is in.
pub(crate) fn of_nf_tables() -> usize {
    let mut namespaces = BTreeSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes
        .filter(|process| fs::read_link(process.join("ns/net")).is_ok_and(|namespace| namespaces.insert(namespace)))
        .map(|process| listening(&sockets_beside(&process)))
        .sum()
}

fn sockets_beside(process: &Path) -> String {
    fs::read_to_string(process.join("net/netlink")).unwrap_or_default()
}

/// Columns of `/proc/net/netlink`: address, protocol, port ID, groups, and more.
fn listening(sockets: &str) -> usize {
    let listens = |line: &&str| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let protocol = columns.next();
        let groups = columns.nth(1).and_then(|groups| u64::from_str_radix(groups, 16).ok());
        protocol == Some(NETFILTER) && groups.is_some_and(|groups| groups & NFTABLES != 0)
    };
    sockets.lines().filter(listens).count()
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn one_who_listens_is_counted() {
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netfilter).unwrap();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, u32::try_from(NFTABLES).unwrap())).unwrap();
        assert!(of_nf_tables() >= 1);
    }

    #[test]
    fn others_are_not() {
        let table = "sk               Eth Pid        Groups   Rmem\n\
                     00000000a45d8b78 0   0          00000040 0\n\
                     000000008357fa58 12  77         00000004 0\n\
                     000000008357fa59 12  78         00000044 0\n\
                     cut";
        assert_eq!(listening(table), 1);
    }
}
