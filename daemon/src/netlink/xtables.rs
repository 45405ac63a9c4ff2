//! x_tables, the kernel's side of iptables-legacy: what a table has. Read only: a table is written whole or not at all, and what keeps
//! two writers apart is a lock file of iptables' own.

mod entries;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use self::entries::parse;
use super::attr::u32_at;
use super::condition::Condition;
use crate::model::Family;

/// A table as it is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its chains, built-in ones among them.
    pub chains: Vec<Chain>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// What becomes of packets that no rule decided; a chain that somebody made has none.
    pub policy: Option<Target>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// What it looks for.
    pub conditions: Vec<Condition>,
    /// What becomes of a packet that has all of it.
    pub target: Target,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It goes on to the next hook.
    Accept,
    /// It is dropped.
    Drop,
    /// It goes through this chain.
    Chain(String),
    /// An extension has it, as in `iptables -j`.
    Extension(String),
    /// It goes back to where the chain was jumped to.
    Return,
    /// It goes on, or to a queue.
    Other,
}

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
/// A table that grows between the two questions is asked for again.
const ATTEMPTS: usize = 5;

/// A table that exists.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`; `ENOENT` without such a table.
pub fn table(family: Family, table: &str) -> io::Result<Table> {
    let socket = open(family)?;
    for _ in 0..ATTEMPTS {
        let mut info = named(table, INFO);
        get(&socket, family, GET_INFO, &mut info)?;
        let size = u32_at(&info, INFO_SIZE).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let mut entries = named(table, ENTRIES + size);
        entries[NAME..NAME + 4].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
        match get(&socket, family, GET_ENTRIES, &mut entries) {
            Ok(()) => return Ok(parse(family, &info, &entries[ENTRIES..])),
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

impl Table {
    /// The policy of a chain of the table's own.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Target> {
        self.chains.iter().find(|chain| chain.name == name)?.policy.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::condition::{ESTABLISHED, INVALID, Interface};
    use super::*;
    use crate::netlink::testns::in_namespace;

    #[test]
    fn chains_and_rules_are_read_from_the_kernel() {
        in_namespace(|| {
            let families = [
                (Family::V4, "iptables-legacy", "10.96.0.1/32", "10.0.0.0/12"),
                (Family::V6, "ip6tables-legacy", "fd00:96::1/128", "fd00:10::/44"),
            ];
            for (family, tool, service, pods) in families {
                let run = |line: &str| Command::new(tool).args(line.split(' ')).status().is_ok_and(|status| status.success());
                if !run("-N KUBE-SERVICES") {
                    eprintln!("skipped: no {tool} here, or no x_tables in this kernel");
                    continue;
                }
                assert!(run("-N mine") && run("-P FORWARD DROP"));
                assert!(run("-A FORWARD -m comment --comment x -j KUBE-SERVICES"));
                assert!(run(&format!("-A KUBE-SERVICES -d {service} -p tcp -m tcp --dport 80 -j mine")));
                assert!(run(&format!("-A mine ! -d {service} -i lo -j REJECT")));
                assert!(run("-A mine -m conntrack --ctstate INVALID -j DROP"));
                assert!(run("-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"));
                assert!(run(&format!("-A FORWARD -s {pods} -j ACCEPT")));
                assert!(run("-A FORWARD -o lxc+ -m mark --mark 0x10000/0x30000 -j ACCEPT"));
                let interface = |bytes: &[u8]| Interface::compared_with(bytes).unwrap();
                let marked_for_pods =
                    [Condition::OutputInterface(interface(b"lxc")), Condition::Mark { value: 0x10000, mask: 0x30000 }];
                let table = table(family, "filter").unwrap();
                let chains: Vec<_> = table.chains.iter().map(|chain| (chain.name.as_str(), chain.policy.clone())).collect();
                assert_eq!(
                    chains,
                    [
                        ("INPUT", Some(Target::Accept)),
                        ("FORWARD", Some(Target::Drop)),
                        ("OUTPUT", Some(Target::Accept)),
                        ("KUBE-SERVICES", None),
                        ("mine", None),
                    ]
                );
                let rule = |chain: &str, conditions: &[Condition], target| Rule {
                    chain: chain.to_owned(),
                    conditions: conditions.to_vec(),
                    target,
                };
                let to = |name: &str| Target::Chain(name.to_owned());
                let at_service =
                    [Condition::Destination(service.parse().unwrap()), Condition::Protocol(6), Condition::DestinationPort(80)];
                let not_at_service = [Condition::Other, Condition::InputInterface(interface(b"lo\0"))];
                assert_eq!(
                    table.rules,
                    [
                        rule("FORWARD", &[], to("KUBE-SERVICES")),
                        rule("FORWARD", &[Condition::States(ESTABLISHED)], Target::Accept),
                        rule("FORWARD", &[Condition::Source(pods.parse().unwrap())], Target::Accept),
                        rule("FORWARD", &marked_for_pods, Target::Accept),
                        rule("KUBE-SERVICES", &at_service, to("mine")),
                        rule("KUBE-SERVICES", &[], Target::Return),
                        rule("mine", &not_at_service, Target::Extension("REJECT".to_owned())),
                        rule("mine", &[Condition::States(INVALID)], Target::Drop),
                        rule("mine", &[], Target::Return),
                    ]
                );
                assert_eq!(super::table(family, "absent").unwrap_err().raw_os_error(), Some(libc::ENOENT));
            }
        });
    }

    #[test]
    fn bytes_that_make_no_sense_end_the_walk() {
        for family in Family::ALL {
            for byte in [0_u8, 1, 0x70, 0xff] {
                assert!(parse(family, &[byte; INFO], &[byte; 500]).chains.is_empty());
            }
        }
    }
}
