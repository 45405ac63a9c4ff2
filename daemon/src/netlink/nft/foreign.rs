//! What others have in nf_tables: tables, chains and rules of every family, iptables-nft's among them.
//!
//! Read to find what kube-proxy left and what stands in the way of a Service; never on the way of a change. Of a rule only those
//! expressions are read that say where it sends a packet and what it looks for.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::abi::{self, chain, element as elem, expression as expr, msg, rule, set as setattr, table as tab};
use super::door::DoorError;
use super::element::{OwnedElement, OwnedVerdict};
use super::kernel::KernelNft;
use crate::model::Family;
use crate::netlink::attr::{self, Fields};
use crate::netlink::condition::{Condition, Interface};
use crate::netlink::message::{Message, NLM_F_DUMP};
use crate::netlink::socket::single;

/// Family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableFamily(u8);

/// A table of anybody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignTable {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
}

/// A chain of anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// Where it is.
    pub table: ForeignTable,
    /// Its name.
    pub name: String,
    /// Where packets enter, for a base chain.
    pub base: Option<BaseInfo>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseInfo {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// `enum nf_inet_hooks`: prerouting is 0, postrouting 4.
    pub hook: u32,
    /// Its place among the chains of the hook; lower runs first.
    pub priority: i32,
    /// Drops what no rule of its accepted.
    pub drops: bool,
}

/// A rule of anybody's, in the order of its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignRule {
    /// The chain it is in.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// What it is made of.
    pub expressions: Vec<Expression>,
}

/// One expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// What becomes of the packet.
    Verdict(Verdict),
    /// A map of this name says what becomes of the packet.
    VerdictMap(String),
    /// Loads bytes of the network header.
    NetworkHeader {
        /// The first byte.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Loads bytes of the transport header.
    TransportHeader {
        /// The first byte.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// Loads something about the packet: `enum nft_meta_keys`.
    Meta(u32),
    /// What was loaded must be this.
    Compare(Vec<u8>),
    /// What was loaded must be something else.
    Differs(Vec<u8>),
    /// Keeps some bits of what was loaded.
    Mask(Vec<u8>),
    /// Loads the state of the packet's connection.
    ConnectionState,
    /// Gives the packet the address of the interface that it leaves by.
    Masquerade,
    /// Gives the packet another source or destination.
    Nat,
    /// An extension of iptables that looks at the packet.
    Match {
        /// As in `iptables -m`.
        name: String,
        /// Its arguments, as the kernel keeps them.
        info: Vec<u8>,
    },
    /// An extension of iptables that does something to the packet, as in `iptables -j`.
    Target(String),
    /// Anything else, by its kernel name.
    Other(String),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is dropped.
    Drop,
    /// It goes on to the next hook.
    Accept,
    /// It goes through this chain: `jump` or `goto`.
    To(String),
    /// It goes back to where the chain was jumped to.
    Return,
    /// `continue`, `queue`.
    Other,
}

impl TableFamily {
    /// IPv4: iptables-nft's tables among others.
    pub const IPV4: Self = Self(abi::NFPROTO_IPV4);
    /// IPv6.
    pub const IPV6: Self = Self(abi::NFPROTO_IPV6);
    /// Both.
    pub const INET: Self = Self(abi::NFPROTO_INET);

    /// `enum nfproto`.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            abi::NFPROTO_INET => "inet",
            abi::NFPROTO_IPV4 => "ip",
            abi::NFPROTO_ARP => "arp",
            abi::NFPROTO_NETDEV => "netdev",
            abi::NFPROTO_BRIDGE => "bridge",
            abi::NFPROTO_IPV6 => "ip6",
            other => return write!(f, "family {other}"),
        })
    }
}

impl ForeignTable {
    /// A table by its name in `nft list tables`.
    #[must_use]
    pub fn new(family: TableFamily, name: &str) -> Self {
        Self { family, name: name.to_owned() }
    }
}

impl fmt::Display for ForeignTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

impl KernelNft {
    /// The tables of every family.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn all_tables(&mut self) -> Result<Vec<ForeignTable>, DoorError> {
        let request = single(msg::GETTABLE, NLM_F_DUMP, abi::NFPROTO_UNSPEC, |_| {});
        self.ask("list tables", "of all families", &request, |message, found| {
            let fields: Fields<'_, 8> = message.fields();
            found.extend((message.kind == msg::NEWTABLE).then(|| table_of(message, &fields)).flatten());
        })
    }

    /// The chains of every table.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn all_chains(&mut self) -> Result<Vec<ForeignChain>, DoorError> {
        let request = single(msg::GETCHAIN, NLM_F_DUMP, abi::NFPROTO_UNSPEC, |_| {});
        self.ask("list chains", "of all families", &request, |message, found| found.extend(ForeignChain::parse(message)))
    }

    /// The rules of a table, chain by chain in their order; none where there is no such table.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn rules_in(&mut self, table: &ForeignTable) -> Result<Vec<ForeignRule>, DoorError> {
        let request = single(msg::GETRULE, NLM_F_DUMP, table.family.number(), |request| {
            attr::put_text(request, rule::TABLE, &table.name);
        });
        let parse = |message: &Message<'_>, found: &mut Vec<ForeignRule>| found.extend(ForeignRule::parse(message, table));
        super::kernel::absent_is_empty(self.ask("list rules", &table.to_string(), &request, parse))
    }

    /// The elements of a set or map; none where there is no such set.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn elements_in(&mut self, table: &ForeignTable, set: &str) -> Result<Vec<OwnedElement>, DoorError> {
        let request = single(msg::GETSETELEM, NLM_F_DUMP, table.family.number(), |request| {
            attr::put_text(request, elem::LIST_TABLE, &table.name);
            attr::put_text(request, elem::LIST_SET, set);
        });
        let parse = |message: &Message<'_>, found: &mut Vec<OwnedElement>| {
            if message.kind == msg::NEWSETELEM {
                let fields: Fields<'_, 4> = message.fields();
                found.extend(OwnedElement::parse_list(fields.bytes(elem::LIST_ELEMENTS).unwrap_or_default()));
            }
        };
        super::kernel::absent_is_empty(self.ask("dump set", &format!("{table} {set}"), &request, parse))
    }

    /// Their keys.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn keys_in(&mut self, table: &ForeignTable, set: &str) -> Result<Vec<Vec<u8>>, DoorError> {
        Ok(self.elements_in(table, set)?.into_iter().map(|element| element.key).collect())
    }

    /// Names of the sets and maps of a table of any family; none where there is no such table.
    ///
    /// # Errors
    /// See [`DoorError`].
    pub fn set_names_in(&mut self, table: &ForeignTable) -> Result<Vec<String>, DoorError> {
        let request = single(msg::GETSET, NLM_F_DUMP, table.family.number(), |request| {
            attr::put_text(request, setattr::TABLE, &table.name);
        });
        let parse = |message: &Message<'_>, found: &mut Vec<String>| {
            let fields: Fields<'_, 3> = message.fields();
            if message.kind == msg::NEWSET && table_of(message, &fields).as_ref() == Some(table) {
                found.extend(fields.text(setattr::NAME).map(str::to_owned));
            }
        };
        super::kernel::absent_is_empty(self.ask("list sets", &table.to_string(), &request, parse))
    }
}

impl ForeignChain {
    fn parse(message: &Message<'_>) -> Option<Self> {
        let fields: Fields<'_, 13> = message.fields();
        let hook: Fields<'_, 3> = fields.nest(chain::HOOK);
        let base = || {
            Some(BaseInfo {
                kind: fields.text(chain::TYPE).unwrap_or_default().to_owned(),
                hook: hook.u32_be(chain::HOOK_HOOKNUM)?,
                priority: hook.u32_be(chain::HOOK_PRIORITY)?.cast_signed(),
                drops: fields.u32_be(chain::POLICY) == Some(0),
            })
        };
        (message.kind == msg::NEWCHAIN).then_some(())?;
        Some(Self { table: table_of(message, &fields)?, name: fields.text(chain::NAME)?.to_owned(), base: base() })
    }
}

impl ForeignRule {
    fn parse(message: &Message<'_>, table: &ForeignTable) -> Option<Self> {
        let fields: Fields<'_, 12> = message.fields();
        (message.kind == msg::NEWRULE && table_of(message, &fields).as_ref() == Some(table)).then_some(())?;
        let expressions = fields.walk(rule::EXPRESSIONS).map(|entry| Expression::parse(&Fields::parse(entry.payload)));
        Some(Self {
            chain: fields.text(rule::CHAIN)?.to_owned(),
            handle: fields.u64_be(rule::HANDLE).unwrap_or(0),
            expressions: expressions.collect(),
        })
    }

    /// The chain that it sends packets to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.expressions.iter().find_map(|expression| match expression {
            Expression::Verdict(Verdict::To(chain)) => Some(chain.as_str()),
            _ => None,
        })
    }

    /// The map that says which chain it sends packets to.
    #[must_use]
    pub fn verdict_map(&self) -> Option<&str> {
        self.expressions.iter().find_map(|expression| match expression {
            Expression::VerdictMap(map) => Some(map.as_str()),
            _ => None,
        })
    }

    /// Whether it ends with this verdict.
    #[must_use]
    pub fn ends_with(&self, verdict: &Verdict) -> bool {
        self.expressions.iter().any(|expression| matches!(expression, Expression::Verdict(is) if is == verdict))
    }

    /// Whether it masquerades, in nftables' or in iptables' words.
    #[must_use]
    pub fn masquerades(&self) -> bool {
        self.expressions.iter().any(|expression| match expression {
            Expression::Masquerade => true,
            Expression::Target(name) => name == "MASQUERADE",
            _ => false,
        })
    }

    /// Whether it has nothing to look for: neither a comparison nor a match of iptables but a comment.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        !self.expressions.iter().any(|expression| match expression {
            Expression::Match { name, .. } => name != "comment",
            Expression::Compare(_) | Expression::Differs(_) | Expression::VerdictMap(_) => true,
            Expression::Other(name) => name != "counter",
            _ => false,
        })
    }

    /// Whether it is about packets that belong to no connection (`ct state invalid`, `-m conntrack --ctstate INVALID`).
    #[must_use]
    pub fn is_about_invalid(&self) -> bool {
        /// `NF_CT_STATE_INVALID_BIT` and `XT_CONNTRACK_STATE_INVALID`.
        const INVALID: u8 = 1;
        /// `state_mask`, a `u16`, of `struct xt_conntrack_mtinfo3`.
        const STATE_MASK: usize = 150;
        let mut of_state = false;
        self.expressions.iter().any(|expression| match expression {
            Expression::ConnectionState => {
                of_state = true;
                false
            }
            // Both masks are in host order, in which the bit may be at either end.
            Expression::Mask(mask) => {
                let mask: Option<[u8; 4]> = mask.as_slice().try_into().ok();
                std::mem::take(&mut of_state) && mask.is_some_and(|mask| u32::from_ne_bytes(mask) & u32::from(INVALID) != 0)
            }
            Expression::Match { name, info } => {
                let mask = info.get(STATE_MASK..STATE_MASK + 2).and_then(|mask| mask.try_into().ok()).map(u16::from_ne_bytes);
                name == "conntrack" && mask == Some(u16::from(INVALID))
            }
            _ => false,
        })
    }

    /// Whether it refuses the packet and says so, in nftables' or in iptables' words.
    #[must_use]
    pub fn rejects(&self) -> bool {
        self.expressions.iter().any(|expression| match expression {
            Expression::Other(name) => name == REJECT,
            Expression::Target(name) => name == "REJECT",
            _ => false,
        })
    }

    /// Whether it gives the packet another destination, in nftables' or in iptables' words.
    #[must_use]
    pub fn translates(&self) -> bool {
        self.expressions.iter().any(|expression| match expression {
            Expression::Nat => true,
            Expression::Target(name) => name == "DNAT",
            _ => false,
        })
    }

    /// What it looks for. That its packets are of a family is said by an address of that family, too: in a table of both, nft asks for
    /// the family before it does for an address.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let (mut found, mut families) = (Vec::new(), Vec::new());
        let (mut loaded, mut mask) = (None, None);
        for expression in &self.expressions {
            match expression {
                Expression::NetworkHeader { .. }
                | Expression::TransportHeader { .. }
                | Expression::Meta(_)
                | Expression::ConnectionState => (loaded, mask) = (Some(expression), None),
                Expression::Mask(bits) => mask = Some(bits.as_slice()),
                Expression::Compare(value) => match family(loaded, value) {
                    Some(family) => families.push(family),
                    None => found.push(equal(loaded.take(), mask, value)),
                },
                Expression::Differs(value) => found.push(differs(loaded.take(), mask, value)),
                Expression::Match { name, info } => found.extend(Condition::of_extension(name, info)),
                Expression::Verdict(_) | Expression::Masquerade | Expression::Nat | Expression::Target(_) => {}
                Expression::Other(name) if ["counter", "immediate", REJECT].contains(&name.as_str()) => {}
                Expression::VerdictMap(_) | Expression::Other(_) => found.push(Condition::Other),
            }
        }
        families.retain(|family| !found.iter().any(|condition| is_of(condition, *family)));
        found.extend(families.iter().map(|_| Condition::Other));
        found
    }

    /// The one destination address that it looks for, of either family.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        // Where the destination is in the header: `struct iphdr`, `struct ipv6hdr`.
        self.expressions.windows(2).find_map(|pair| match pair {
            [Expression::NetworkHeader { offset: 16, length: 4 }, Expression::Compare(bytes)] => {
                Some(IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?))
            }
            [Expression::NetworkHeader { offset: 24, length: 16 }, Expression::Compare(bytes)] => {
                Some(IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?))
            }
            _ => None,
        })
    }
}

/// The expression that refuses.
const REJECT: &str = "reject";
/// `NFT_META_MARK`
const MARK: u32 = 3;
/// `NFT_RETURN`
const RETURN: i32 = -5;

/// The family that a comparison asks for.
fn family(loaded: Option<&Expression>, value: &[u8]) -> Option<Family> {
    /// `NFT_META_NFPROTO`
    const NFPROTO: u32 = 15;
    match (loaded, value) {
        (Some(Expression::Meta(NFPROTO)), &[abi::NFPROTO_IPV4]) => Some(Family::V4),
        (Some(Expression::Meta(NFPROTO)), &[abi::NFPROTO_IPV6]) => Some(Family::V6),
        _ => None,
    }
}

/// Whether only packets of this family can have it.
fn is_of(condition: &Condition, family: Family) -> bool {
    match condition {
        Condition::Source(net) | Condition::Destination(net) => Family::of(net.addr()) == family,
        _ => false,
    }
}

/// What it means that something is equal to a value.
fn equal(loaded: Option<&Expression>, mask: Option<&[u8]>, value: &[u8]) -> Condition {
    /// `enum nft_meta_keys`
    const IIFNAME: u32 = 6;
    const OIFNAME: u32 = 7;
    const L4PROTO: u32 = 16;
    let network = |length, of: fn(IpNet) -> Condition| Condition::network(value, mask, length).map(of);
    let known = match (loaded, value) {
        // Where addresses are in `struct iphdr` and in `struct ipv6hdr`.
        (Some(Expression::NetworkHeader { offset: 12, .. }), _) => network(4, Condition::Source),
        (Some(Expression::NetworkHeader { offset: 16, .. }), _) => network(4, Condition::Destination),
        (Some(Expression::NetworkHeader { offset: 8, .. }), _) => network(16, Condition::Source),
        (Some(Expression::NetworkHeader { offset: 24, .. }), _) => network(16, Condition::Destination),
        (Some(Expression::NetworkHeader { offset: 9, length: 1 } | Expression::Meta(L4PROTO)), &[protocol]) => {
            Some(Condition::Protocol(protocol))
        }
        (Some(Expression::TransportHeader { offset: 2, length: 2 }), &[high, low]) if mask.is_none() => {
            Some(Condition::DestinationPort(u16::from_be_bytes([high, low])))
        }
        (Some(Expression::Meta(MARK)), _) => {
            let mask = mask.map_or(Some(u32::MAX), word);
            word(value).zip(mask).map(|(value, mask)| Condition::Mark { value, mask })
        }
        (Some(Expression::Meta(IIFNAME)), _) => Interface::compared_with(value).map(Condition::InputInterface),
        (Some(Expression::Meta(OIFNAME)), _) => Interface::compared_with(value).map(Condition::OutputInterface),
        _ => None,
    };
    known.unwrap_or(Condition::Other)
}

/// What it means that something is not a value: `ct state` and `meta mark` ask whether any of some bits is set.
fn differs(loaded: Option<&Expression>, mask: Option<&[u8]>, value: &[u8]) -> Condition {
    match (loaded, mask.and_then(word)) {
        (Some(Expression::ConnectionState), Some(mask)) if value == [0; 4] => Condition::States(mask),
        (Some(Expression::Meta(MARK)), Some(bit)) if value == [0; 4] && bit.is_power_of_two() => {
            Condition::Mark { value: bit, mask: bit }
        }
        _ => Condition::Other,
    }
}

/// A register, which is in host order.
fn word(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

impl Expression {
    fn parse(fields: &Fields<'_, 3>) -> Self {
        let name = fields.text(rule::EXPR_NAME).unwrap_or_default();
        let data: Fields<'_, 8> = fields.nest(rule::EXPR_DATA);
        let value = |kind| data.nest::<3>(kind).bytes(elem::DATA_VALUE).map(<[u8]>::to_vec).unwrap_or_default();
        let text = |kind| data.text(kind).unwrap_or_default().to_owned();
        match name {
            "immediate" => match Verdict::parse(&data) {
                Some(verdict) => Self::Verdict(verdict),
                None => Self::Other(name.to_owned()),
            },
            "payload" => {
                let number = |kind| data.u32_be(kind).unwrap_or(0);
                let (offset, length) = (number(expr::PAYLOAD_OFFSET), number(expr::PAYLOAD_LEN));
                match number(expr::PAYLOAD_BASE) {
                    expr::NETWORK_HEADER => Self::NetworkHeader { offset, length },
                    expr::TRANSPORT_HEADER => Self::TransportHeader { offset, length },
                    _ => Self::Other(name.to_owned()),
                }
            }
            // One that sets something has no register to load into.
            "meta" if data.bytes(expr::META_DREG).is_some() => Self::Meta(data.u32_be(expr::META_KEY).unwrap_or(u32::MAX)),
            "cmp" => match data.u32_be(expr::CMP_OP) {
                Some(expr::EQUAL) => Self::Compare(value(expr::CMP_DATA)),
                Some(expr::DIFFERENT) => Self::Differs(value(expr::CMP_DATA)),
                _ => Self::Other(name.to_owned()),
            },
            "bitwise" => Self::Mask(value(expr::BITWISE_MASK)),
            "ct" if data.u32_be(expr::CT_KEY) == Some(expr::CT_STATE) => Self::ConnectionState,
            "lookup" if data.u32_be(expr::LOOKUP_DREG) == Some(expr::VERDICT_REGISTER) => {
                Self::VerdictMap(text(expr::LOOKUP_SET))
            }
            "masq" => Self::Masquerade,
            "nat" => Self::Nat,
            "match" => {
                Self::Match { name: text(expr::XT_NAME), info: data.bytes(expr::XT_INFO).map(<[u8]>::to_vec).unwrap_or_default() }
            }
            "target" => Self::Target(text(expr::XT_NAME)),
            other => Self::Other(other.to_owned()),
        }
    }
}

impl Verdict {
    fn parse(immediate: &Fields<'_, 8>) -> Option<Self> {
        let OwnedVerdict { code, chain } = OwnedVerdict::parse(immediate.bytes(rule::IMMEDIATE_DATA)?)?;
        Some(match (code, chain) {
            (_, Some(chain)) => Self::To(chain),
            (0, None) => Self::Drop,
            (1, None) => Self::Accept,
            (RETURN, None) => Self::Return,
            _ => Self::Other,
        })
    }
}

/// Attribute 1 names the table in every message.
fn table_of<const N: usize>(message: &Message<'_>, fields: &Fields<'_, N>) -> Option<ForeignTable> {
    Some(ForeignTable::new(TableFamily(message.family()?), fields.text(tab::NAME)?))
}

#[cfg(test)]
mod tests;
