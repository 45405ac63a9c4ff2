//! The entries of a table, as the kernel hands them out: one after the other, whatever chain they are in.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Chain, Rule, Table, Target};
use crate::model::Family;
use crate::netlink::attr::{u16_at, u32_at};
use crate::netlink::condition::{Condition, Interface};

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

/// One `struct ipt_entry`.
struct Entry<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
    /// Where the next one begins.
    next: Option<u32>,
}

/// `enum nf_inet_hooks`, as iptables names the chains.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// Where in `struct ipt_getinfo` are the hooks that the table has, where their chains begin, and where those end.
const INFO_HOOKS: usize = 32;
const INFO_BEGIN: usize = 36;
const INFO_END: usize = 56;
/// `struct xt_entry_match` and `struct xt_entry_target`: the size, the name, the revision; then what the extension keeps.
const EXTENSION_NAME: usize = 2;
const EXTENSION_INFO: usize = 32;
/// The target of an entry that begins a chain somebody made, and the name of the one that ends the table.
const ERROR: &str = "ERROR";
/// `XT_STANDARD_TARGET`: a verdict, or the offset of the chain to go to.
const STANDARD: &str = "";
/// `-NF_DROP - 1`, `-NF_ACCEPT - 1`, `XT_RETURN`
const DROP: i32 = -1;
const ACCEPT: i32 = -2;
const RETURN: i32 = -5;
/// `IFNAMSIZ`, and how far behind a name its mask is.
const INTERFACE_NAME: usize = 16;
const INTERFACE_MASK: usize = 32;
/// What is asked for is not, of a source or a destination: `IPT_INV_SRCIP`, `IPT_INV_DSTIP`; of anything.
const NOT_SOURCE: u8 = 0x08;
const NOT_DESTINATION: u8 = 0x10;
const NOT_PROTOCOL: u8 = 0x40;
const NOT: u8 = 0x7f;

/// Walks the entries: a chain of the table's own begins where the table's description says and ends with its policy; one that somebody
/// made begins after an entry that names it, and ends with an entry that goes back.
pub(super) fn parse(family: Family, info: &[u8], entries: &[u8]) -> Table {
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
            (STANDARD, RETURN) => Target::Return,
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

/// The text that begins there, without its end; nothing if it is none.
fn text(bytes: &[u8], at: usize) -> &str {
    let bytes = bytes.get(at..).and_then(|rest| rest.split(|byte| *byte == 0).next()).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}
