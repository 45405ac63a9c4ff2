//! The groups in which an interface is asked for IPv6 addresses (RFC 4291, 2.7.1), joined while we announce one of theirs.
//!
//! Two things are needed. The network card has to let the group's MAC through: a membership of the packet socket, which needs no
//! IPv6 on the interface. And switches that look into MLD (RFC 4541) send a group only to those who reported it: the kernel reports
//! for a socket that joined it (RFC 3810), which is done where the interface has IPv6, and is no condition for anything else.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::ndp;
use crate::netlink::mac::Mac;

/// The groups joined through one packet socket. They end with it.
#[derive(Debug, Default)]
pub(super) struct Groups {
    joined: BTreeMap<Mac, Option<Report>>,
    /// The kernel counts a socket's groups against `net.core.optmem_max`, a few hundred: as many sockets as it takes.
    reporters: Vec<Socket>,
}

/// A group that is reported to switches.
#[derive(Debug)]
struct Report {
    group: Ipv6Addr,
    reporter: usize,
}

impl Groups {
    /// Joins and leaves until the groups are those of these addresses. A group that several addresses share is left with the last.
    pub(super) fn follow(&mut self, socket: BorrowedFd<'_>, interface: u32, addresses: &[Ipv6Addr]) -> Result<(), Errno> {
        let wanted: BTreeMap<Mac, Ipv6Addr> =
            addresses.iter().map(|address| (ndp::solicited_node_mac(*address), ndp::solicited_node(*address))).collect();
        let gone: Vec<Mac> = self.joined.keys().filter(|mac| !wanted.contains_key(mac)).copied().collect();
        for mac in gone {
            // An interface that is gone has left its groups.
            let _ = set_membership(socket, interface, libc::PACKET_DROP_MEMBERSHIP, mac);
            if let Some(Some(Report { group, reporter })) = self.joined.remove(&mac) {
                let _ = self.reporters[reporter].leave_multicast_v6(&group, interface);
            }
        }
        for (mac, group) in wanted {
            if !self.joined.contains_key(&mac) {
                set_membership(socket, interface, libc::PACKET_ADD_MEMBERSHIP, mac)?;
                let report = self.report(group, interface);
                self.joined.insert(mac, report);
            }
        }
        Ok(())
    }

    fn report(&mut self, group: Ipv6Addr, interface: u32) -> Option<Report> {
        // The last one, and if it is full, a new one.
        for fresh in [false, true] {
            if fresh || self.reporters.is_empty() {
                self.reporters.push(Socket::new(Domain::IPV6, Type::DGRAM, None).ok()?);
            }
            let reporter = self.reporters.len() - 1;
            match self.reporters[reporter].join_multicast_v6(&group, interface) {
                Ok(()) => return Some(Report { group, reporter }),
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS)) => {}
                Err(error) => {
                    tracing::debug!(%group, interface, %error, "group not reported to switches");
                    return None;
                }
            }
        }
        None
    }
}

fn set_membership(socket: BorrowedFd<'_>, interface: u32, option: i32, mac: Mac) -> Result<(), Errno> {
    let [a, b, c, d, e, f] = mac.0;
    let request = libc::packet_mreq {
        mr_ifindex: i32::try_from(interface).map_err(|_| Errno::ENODEV)?,
        mr_type: 0, // PACKET_MR_MULTICAST
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    // SAFETY: the request is of the length given, and outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            ptr::from_ref(&request).cast(),
            super::socket::length_of::<libc::packet_mreq>(),
        )
    };
    Errno::result(outcome).map(drop)
}
