//! x_tables, the kernel's side of iptables-legacy: what a table has. Read only: a table is written whole or not at all, and what keeps
//! two writers apart is a lock file of iptables' own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::attr::{u16_at, u32_at};
use super::condition::{Condition, Interface};
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
    /// It goes on, or back, or to a queue.
    Other,
}

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, the same numbers in IPv6.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// `struct ipt_getinfo`, and where in it are the hooks that the table has, where their chains begin, where those end, and the size
/// of the entries.
const INFO: usize = 84;
const INFO_HOOKS: usize = 32;
const INFO_BEGIN: usize = 36;
const INFO_END: usize = 56;
const INFO_SIZE: usize = 80;
/// `enum nf_inet_hooks`, as iptables names the chains.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// `XT_TABLE_MAXNAMELEN`, with which both structures begin.
const NAME: usize = 32;
/// Where the entries begin in `struct ipt_get_entries`.
const ENTRIES: usize = 40;
/// `struct xt_entry_match` and `struct xt_entry_target`: the size, the name, the revision; then what the extension keeps.
const EXTENSION_NAME: usize = 2;
const EXTENSION_INFO: usize = 32;
/// The target of an entry that begins a chain somebody made, and the name of the one that ends the table.
const ERROR: &str = "ERROR";
/// `XT_STANDARD_TARGET`: a verdict, or the offset of the chain to go to.
const STANDARD: &str = "";
/// `-NF_DROP - 1`, `-NF_ACCEPT - 1`
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
/// A table that grows between the two questions is asked for again.
const ATTEMPTS: usize = 5;

/// Where things are in `struct ipt_entry`, or in `struct ip6t_entry`.
struct Layout {
    /// Bytes of an address. The source, the destination and the mask of each begin the structure.
    address: usize,
    /// The first byte of the name of the interface that a packet came in by, and of the other one. The masks come after both.
    interfaces: [usize; 2],
    protocol: usize,
    /// `IPT_INV_*`
    inverted: usize,
    /// Where it says where the target begins; where the next entry does comes after that.
    offsets: usize,
    /// The first match.
    matches: usize,
}

/// `IFNAMSIZ`, and how far behind a name its mask is.
const INTERFACE_NAME: usize = 16;
const INTERFACE_MASK: usize = 32;
/// What is asked for is not, of a source or a destination: `IPT_INV_SRCIP`, `IPT_INV_DSTIP`; of anything.
const NOT_SOURCE: u8 = 0x08;
const NOT_DESTINATION: u8 = 0x10;
const NOT_PROTOCOL: u8 = 0x40;
const NOT: u8 = 0x7f;

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

/// Walks the entries: a chain of the table's own begins where the table's description says and ends with its policy; one that somebody
/// made begins after an entry that names it, and ends with an entry that goes back.
fn parse(family: Family, info: &[u8], entries: &[u8]) -> Table {
    let layout = Layout::of(family);
    let hooks = u32_at(info, INFO_HOOKS).unwrap_or(0);
    let offsets = |from: usize| {
        let each = HOOKS.into_iter().enumerate().filter(move |(hook, _)| hooks & (1 << hook) != 0);
        each.filter_map(move |(hook, name)| Some((u32_at(info, from + 4 * hook)?, name))).collect::<BTreeMap<_, _>>()
    };
    let (begin, end) = (offsets(INFO_BEGIN), offsets(INFO_END));
    let found = walk(&layout, entries);
    let mut names: BTreeMap<u32, &str> = begin.clone();
    // A jump is to the first rule, which comes after the entry that has the name.
    names.extend(found.iter().filter_map(|(_, entry)| Some((entry.next?, entry.chain_name()?))));

    let mut table = Table::default();
    let mut chain = "";
    for (at, entry) in &found {
        chain = names.get(at).copied().unwrap_or(chain);
        let (name, info) = entry.target();
        if name == ERROR {
            if let Some(name) = entry.chain_name() {
                table.chains.push(Chain { name: name.to_owned(), policy: None });
            }
            continue;
        }
        let verdict = u32_at(info, 0).map_or(0, u32::cast_signed);
        let target = match (name, verdict) {
            (STANDARD, ACCEPT) => Target::Accept,
            (STANDARD, DROP) => Target::Drop,
            (STANDARD, offset) => {
                let to = u32::try_from(offset).ok().and_then(|offset| names.get(&offset));
                to.map_or(Target::Other, |name| Target::Chain((*name).to_owned()))
            }
            (name, _) => Target::Extension(name.to_owned()),
        };
        match end.get(at) {
            Some(name) => table.chains.push(Chain { name: (*name).to_owned(), policy: Some(target) }),
            None => table.rules.push(Rule { chain: chain.to_owned(), conditions: entry.conditions(), target }),
        }
    }
    table
}

/// One `struct ipt_entry`.
struct Entry<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
    /// Where the next one begins.
    next: Option<u32>,
}

/// Every entry, with where it begins.
fn walk<'a>(layout: &'a Layout, entries: &'a [u8]) -> Vec<(u32, Entry<'a>)> {
    let mut found = Vec::new();
    let mut at = 0_usize;
    while let Some(length) = entries.get(at..).and_then(|rest| u16_at(rest, layout.offsets + 2)).map(usize::from) {
        let (Some(bytes), Ok(start)) = (entries.get(at..at + length), u32::try_from(at)) else { break };
        if length == 0 {
            break;
        }
        at += length;
        found.push((start, Entry { layout, bytes, next: u32::try_from(at).ok() }));
    }
    found
}

impl<'a> Entry<'a> {
    fn target(&self) -> (&'a str, &'a [u8]) {
        let target = u16_at(self.bytes, self.layout.offsets).and_then(|at| self.bytes.get(usize::from(at)..)).unwrap_or_default();
        (text(target, EXTENSION_NAME), target.get(EXTENSION_INFO..).unwrap_or_default())
    }

    /// The name of the chain that begins behind it, if one does.
    fn chain_name(&self) -> Option<&'a str> {
        let (name, info) = self.target();
        Some(text(info, 0)).filter(|chain| name == ERROR && *chain != ERROR && !chain.is_empty())
    }

    fn conditions(&self) -> Vec<Condition> {
        let Layout { address, interfaces, protocol, inverted, .. } = *self.layout;
        let inverted = self.bytes.get(inverted).copied().unwrap_or(0);
        let mut found = Vec::new();
        let network = |place: usize, not: u8, of: fn(IpNet) -> Condition| {
            let bytes = |place: usize| self.bytes.get(place * address..(place + 1) * address).unwrap_or_default();
            let (net, mask) = (bytes(place), bytes(place + 2));
            let known = || Condition::network(net, Some(mask), address).filter(|_| inverted & not == 0);
            mask.iter().any(|byte| *byte != 0).then(|| known().map_or(Condition::Other, of))
        };
        found.extend(network(0, NOT_SOURCE, Condition::Source));
        found.extend(network(1, NOT_DESTINATION, Condition::Destination));
        let by: [fn(Interface) -> Condition; 2] = [Condition::InputInterface, Condition::OutputInterface];
        for (at, of) in interfaces.into_iter().zip(by).filter(|(at, _)| self.bytes.get(*at).is_some_and(|first| *first != 0)) {
            let bytes = |at: usize| self.bytes.get(at..at + INTERFACE_NAME).unwrap_or_default();
            let compared = bytes(at + INTERFACE_MASK).iter().take_while(|mask| **mask != 0).count();
            found.push(Interface::compared_with(&bytes(at)[..compared]).map_or(Condition::Other, of));
        }
        match u16_at(self.bytes, protocol).unwrap_or(0) {
            0 => {}
            number if inverted & NOT_PROTOCOL == 0 => {
                found.push(u8::try_from(number).map_or(Condition::Other, Condition::Protocol));
            }
            _ => found.push(Condition::Other),
        }
        // Of interfaces, fragments and types of service: whatever it is, it is no plain question.
        if inverted & NOT & !(NOT_SOURCE | NOT_DESTINATION | NOT_PROTOCOL) != 0 {
            found.push(Condition::Other);
        }
        found.extend(self.extensions().filter_map(|(name, info)| Condition::of_extension(name, info)));
        found
    }

    /// Names and arguments of its matches.
    fn extensions(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let end = u16_at(self.bytes, self.layout.offsets).map_or(0, usize::from);
        let mut rest = self.bytes.get(self.layout.matches..end).unwrap_or_default();
        std::iter::from_fn(move || {
            let size = u16_at(rest, 0).map(usize::from).filter(|size| *size >= EXTENSION_INFO)?;
            let (extension, further) = rest.split_at_checked(size)?;
            rest = further;
            Some((text(extension, EXTENSION_NAME), &extension[EXTENSION_INFO..]))
        })
    }
}

impl Layout {
    fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self { address: 4, interfaces: [16, 32], protocol: 80, inverted: 83, offsets: 88, matches: 112 },
            Family::V6 => Self { address: 16, interfaces: [64, 80], protocol: 128, inverted: 132, offsets: 140, matches: 168 },
        }
    }
}

impl Table {
    /// The policy of a chain of the table's own.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Target> {
        self.chains.iter().find(|chain| chain.name == name)?.policy.as_ref()
    }
}

/// The text that begins there, without its end; nothing if it is none.
fn text(bytes: &[u8], at: usize) -> &str {
    let bytes = bytes.get(at..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::condition::{ESTABLISHED, INVALID};
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
                        rule("KUBE-SERVICES", &[], Target::Other),
                        rule("mine", &not_at_service, Target::Extension("REJECT".to_owned())),
                        rule("mine", &[Condition::States(INVALID)], Target::Drop),
                        rule("mine", &[], Target::Other),
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
