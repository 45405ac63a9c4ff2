//! x_tables, the kernel's side of iptables-legacy: which chains a table has. Read only: a table is written whole or not at all, and
//! what keeps two writers apart is a lock file of iptables' own.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::attr::{u16_at, u32_at};
use crate::model::Family;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same numbers in IPv6.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `struct ipt_getinfo`, and where in it the size of the entries is.
const INFO: usize = 84;
const INFO_SIZE: usize = 80;
/// `XT_TABLE_MAXNAMELEN`, with which both structures begin.
const NAME: usize = 32;
/// Where the entries begin in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
/// `struct xt_error_target`: the size, the target's name, then that of the chain that begins here.
const TARGET_NAME: usize = 2;
const ERROR_NAME: usize = 32;
/// The target of an entry that begins a chain somebody made, and the name of the one that ends the table.
const ERROR: &[u8] = b"ERROR";
/// A table that grows between the two questions is asked for again.
const ATTEMPTS: usize = 5;

/// The chains of a table that exists, but for the built-in ones.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; `ENOENT` without such a table.
pub fn chains(family: Family, table: &str) -> io::Result<Vec<String>> {
    let socket = open(family)?;
    for _ in 0..ATTEMPTS {
        let mut info = named(table, INFO);
        get(&socket, family, GET_INFO, &mut info)?;
        let size = u32_at(&info, INFO_SIZE).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let mut entries = named(table, ENTRIES + size);
        entries[NAME..NAME + 4].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
        match get(&socket, family, GET_ENTRIES, &mut entries) {
            Ok(()) => return Ok(parse(family, &entries[ENTRIES..])),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// A datagram socket, of whatever protocol: the options belong to the family, and a raw one would need `CAP_NET_RAW`.
fn open(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// A structure that begins with the table's name.
fn named(table: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length.max(NAME)];
    let name = &table.as_bytes()[..table.len().min(NAME - 1)];
    bytes[..name.len()].copy_from_slice(name);
    bytes
}

fn get(socket: &OwnedFd, family: Family, option: i32, bytes: &mut [u8]) -> io::Result<()> {
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    let mut length = libc::socklen_t::try_from(bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
    // SAFETY: the kernel writes at most `length` bytes, which are there and this call's alone.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &mut length) };
    Errno::result(result)?;
    Ok(())
}

/// Walks `struct ipt_entry` or `struct ip6t_entry`: what a rule looks for, the offsets of its target and of the next entry, counters.
fn parse(family: Family, mut entries: &[u8]) -> Vec<String> {
    let offsets = match family {
        Family::V4 => 88,
        Family::V6 => 140,
    };
    let mut chains = Vec::new();
    while let (Some(target), Some(next)) = (u16_at(entries, offsets), u16_at(entries, offsets + 2)) {
        let entry = entries.get(..usize::from(next)).unwrap_or(entries);
        let target = entry.get(usize::from(target)..).unwrap_or_default();
        if text(target, TARGET_NAME) == Some(ERROR)
            && let Some(name) = text(target, ERROR_NAME).filter(|name| *name != ERROR)
        {
            chains.push(String::from_utf8_lossy(name).into_owned());
        }
        entries = match entries.get(usize::from(next)..) {
            Some(rest) if next > 0 => rest,
            _ => break,
        };
    }
    chains
}

/// The text that begins there, without its end.
fn text(bytes: &[u8], at: usize) -> Option<&[u8]> {
    bytes.get(at..)?.split(|byte| *byte == 0).next()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::netlink::testns::in_namespace;

    #[test]
    fn chains_that_somebody_made_are_read_from_the_kernel() {
        in_namespace(|| {
            for (family, tool) in [(Family::V4, "iptables-legacy"), (Family::V6, "ip6tables-legacy")] {
                let run = |line: &str| Command::new(tool).args(line.split(' ')).status().is_ok_and(|status| status.success());
                if !run("-t nat -N KUBE-SERVICES") {
                    eprintln!("skipped: no {tool} here, or no x_tables in this kernel");
                    continue;
                }
                assert!(run("-t nat -A PREROUTING -p tcp -m comment --comment x -j KUBE-SERVICES"));
                assert!(run("-t nat -N mine"));
                assert!(run("-t nat -A KUBE-SERVICES -p udp --dport 53 -j mine"));
                assert_eq!(chains(family, "nat").unwrap(), ["KUBE-SERVICES", "mine"]);
                assert_eq!(chains(family, "absent").unwrap_err().raw_os_error(), Some(libc::ENOENT));
            }
        });
    }

    #[test]
    fn bytes_that_make_no_sense_end_the_walk() {
        for family in Family::ALL {
            for byte in [0_u8, 1, 0x70, 0xff] {
                assert!(parse(family, &[byte; 500]).is_empty());
            }
        }
    }
}
