//! One rule, written so that it reads like its line in `nft list`.

use std::net::IpAddr;

use crate::model::Family;

use super::expr::{Expr, Rejection, SetRef, Verdict, Word};

/// A field that a rule may test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// `ip saddr`
    Saddr,
    /// `ip daddr`
    Daddr,
    /// `meta l4proto`
    Proto,
    /// `th dport`
    Dport,
    /// `ct original ip daddr`
    OriginalDaddr,
    /// `ct original proto-dst`
    OriginalDport,
}

/// What a packet is addressed to: the key of a frontend.
pub(crate) const FRONTEND: &[Field] = &[Field::Daddr, Field::Proto, Field::Dport];
/// The key of a NodePort.
pub(crate) const NODE_PORT: &[Field] = &[Field::Proto, Field::Dport];
/// What the connection was addressed to before DNAT.
pub(crate) const ORIGINAL_FRONTEND: &[Field] = &[Field::OriginalDaddr, Field::Proto, Field::OriginalDport];
/// Likewise, at a NodePort.
pub(crate) const ORIGINAL_NODE_PORT: &[Field] = &[Field::Proto, Field::OriginalDport];

/// A rule being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    family: Family,
    /// The rule already tests for the family. In an `inet` table nft does so before the first look into the IP header.
    guarded: bool,
    exprs: Vec<Expr>,
}

/// A finished rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSpec(pub(crate) Vec<Expr>);

const START: Word = Word(0);
const IPS_DST_NAT: u32 = 1 << 5;
const NF_CT_STATE_BIT_INVALID: u32 = 1 << 0;
const NF_CT_STATE_BIT_NEW: u32 = 1 << 3;
const NF_CT_STATE_BIT_UNTRACKED: u32 = 1 << 6;
const RTN_LOCAL: u32 = 2;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO_REQUEST: u8 = 128;
const NDISC_REDIRECT: u8 = 137;
const NFTA_FIB_F_SADDR: u32 = 1 << 0;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;

/// Starts a rule for packets of this family.
pub(crate) fn line(family: Family) -> Line {
    Line { family, guarded: false, exprs: Vec::with_capacity(8) }
}

/// 32-bit words of an address.
pub(crate) fn address_words(family: Family) -> u32 {
    u32::from(family.bits()) / 32
}

impl Line {
    /// `KEY @set`
    pub(crate) fn in_set(self, key: &[Field], set: String) -> Self {
        self.load(key, START).lookup(set, None, false)
    }

    /// `KEY != @set`
    pub(crate) fn not_in_set(self, key: &[Field], set: String) -> Self {
        self.load(key, START).lookup(set, None, true)
    }

    /// `meta nfproto ipv4`
    pub(crate) fn of_family(mut self) -> Self {
        self.guard();
        self
    }

    /// `meta l4proto { tcp, udp, sctp }`
    pub(crate) fn of_transports(self) -> Self {
        let mut line = self.load(&[Field::Proto], START);
        line.exprs.push(Expr::Lookup { set: SetRef::Transports, from: START, into: None, inverted: false });
        line
    }

    /// `meta l4proto tcp`
    pub(crate) fn tcp(self) -> Self {
        self.of_protocol(libc::IPPROTO_TCP)
    }

    /// `meta l4proto icmp`, or `meta l4proto ipv6-icmp`.
    pub(crate) fn icmp(self) -> Self {
        let protocol = if self.family == Family::V4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
        self.of_protocol(protocol)
    }

    /// `icmp type echo-request`, or `icmpv6 type echo-request`.
    pub(crate) fn echo_request(self) -> Self {
        let kind = if self.family == Family::V4 { ICMP_ECHO } else { ICMPV6_ECHO_REQUEST };
        self.icmp_type(kind)
    }

    /// `icmpv6 type nd-redirect`
    pub(crate) fn nd_redirect(self) -> Self {
        self.icmp_type(NDISC_REDIRECT)
    }

    /// `ct state new`
    pub(crate) fn new_connection(self) -> Self {
        self.ct_bit(libc::NFT_CT_STATE.cast_unsigned(), NF_CT_STATE_BIT_NEW)
    }

    /// `ct state invalid,new,untracked`: what belongs to no connection that was let through before.
    pub(crate) fn of_no_connection(self) -> Self {
        let states = NF_CT_STATE_BIT_INVALID | NF_CT_STATE_BIT_NEW | NF_CT_STATE_BIT_UNTRACKED;
        self.ct_bit(libc::NFT_CT_STATE.cast_unsigned(), states)
    }

    /// `ct state invalid`
    pub(crate) fn invalid(self) -> Self {
        self.ct_bit(libc::NFT_CT_STATE.cast_unsigned(), NF_CT_STATE_BIT_INVALID)
    }

    /// `ct status dnat`
    pub(crate) fn translated(self) -> Self {
        self.ct_bit(libc::NFT_CT_STATUS.cast_unsigned(), IPS_DST_NAT)
    }

    /// `fib saddr type local`
    pub(crate) fn source_is_local(self) -> Self {
        self.fib_local(NFTA_FIB_F_SADDR, true)
    }

    /// `fib daddr type local`: some interface has it, be it loopback.
    pub(crate) fn on_an_interface(self) -> Self {
        self.fib_local(NFTA_FIB_F_DADDR, true)
    }

    /// `fib daddr type != local`
    pub(crate) fn on_no_interface(self) -> Self {
        self.fib_local(NFTA_FIB_F_DADDR, false)
    }

    /// `ip daddr != 127.0.0.0/8 fib daddr type local`: any address of the node that can be reached from elsewhere. A DNAT from
    /// loopback needs `route_localnet`, so loopback serves NodePorts only where it is asked for: [`Line::at_localhost`].
    pub(crate) fn destination_is_local(self) -> Self {
        self.destination_is_loopback(false).fib_local(NFTA_FIB_F_DADDR, true)
    }

    /// `ip daddr 127.0.0.1`
    pub(crate) fn at_localhost(mut self) -> Self {
        self.guard();
        let (base, offset) = (libc::NFT_PAYLOAD_NETWORK_HEADER.cast_unsigned(), self.offset_of(Field::Daddr));
        self.exprs.push(Expr::Payload { base, offset, len: 4, to: START });
        self.exprs.push(Expr::Compare { from: START, equal: true, to: std::net::Ipv4Addr::LOCALHOST.octets().to_vec() });
        self
    }

    /// `iifname != "lo" ip daddr 127.0.0.0/8`: what comes from elsewhere and has no business here.
    pub(crate) fn martian(mut self) -> Self {
        let mut lo = b"lo".to_vec();
        lo.resize(libc::IFNAMSIZ, 0);
        self.exprs.push(Expr::Meta { key: libc::NFT_META_IIFNAME.cast_unsigned(), to: START });
        self.exprs.push(Expr::Compare { from: START, equal: false, to: lo });
        self.destination_is_loopback(true)
    }

    fn destination_is_loopback(mut self, equal: bool) -> Self {
        self.guard();
        let (base, offset) = (libc::NFT_PAYLOAD_NETWORK_HEADER.cast_unsigned(), self.offset_of(Field::Daddr));
        let (len, loopback) = match self.family {
            Family::V4 => (1, vec![127]),
            Family::V6 => (16, std::net::Ipv6Addr::LOCALHOST.octets().to_vec()),
        };
        self.exprs.push(Expr::Payload { base, offset, len, to: START });
        self.exprs.push(Expr::Compare { from: START, equal, to: loopback });
        self
    }

    /// `iifname "name"`, or `iifname "prefix*"`.
    pub(crate) fn input_interface(self, name: &str, prefix: bool) -> Self {
        self.interface(libc::NFT_META_IIFNAME, name, prefix)
    }

    /// `oifname "name"`, or `oifname "prefix*"`.
    pub(crate) fn output_interface(self, name: &str, prefix: bool) -> Self {
        self.interface(libc::NFT_META_OIFNAME, name, prefix)
    }

    /// `iif 0`. By index: nft cannot read the empty name back.
    pub(crate) fn no_input_interface(mut self) -> Self {
        self.exprs.push(Expr::Meta { key: libc::NFT_META_IIF.cast_unsigned(), to: START });
        self.exprs.push(Expr::Compare { from: START, equal: true, to: vec![0; 4] });
        self
    }

    fn interface(mut self, key: libc::c_int, name: &str, prefix: bool) -> Self {
        let mut wanted = name.as_bytes().to_vec();
        if !prefix {
            wanted.resize(libc::IFNAMSIZ, 0);
        }
        self.exprs.push(Expr::Meta { key: key.cast_unsigned(), to: START });
        self.exprs.push(Expr::Compare { from: START, equal: true, to: wanted });
        self
    }

    /// `dnat ip to KEY . numgen random mod MODULUS map @map`
    pub(crate) fn dnat_drawn(self, key: &[Field], modulus: u32, map: String) -> RuleSpec {
        let slot = Word(self.width(key));
        let mut line = self.load(key, START);
        line.exprs.push(Expr::Random { modulus, to: slot });
        line.dnat_from(map)
    }

    /// `dnat ip to KEY map @map`
    pub(crate) fn dnat_known(self, key: &[Field], map: String) -> RuleSpec {
        self.load(key, START).dnat_from(map)
    }

    /// `dnat ip to ADDRESS`
    pub(crate) fn dnat_to(mut self, address: IpAddr) -> RuleSpec {
        let value = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        self.exprs.push(Expr::Constant { value, to: START });
        let family = u32::from(self.nfproto());
        self.end(Expr::Dnat { family, address: START, port: None })
    }

    /// `update @map { ip saddr . ORIGINAL_FRONTEND timeout T : ip daddr . th dport }`: the client and what it asked for, towards
    /// what it was given.
    pub(crate) fn learn(self, map: String, timeout: u64) -> RuleSpec {
        let key = [Field::Saddr, Field::OriginalDaddr, Field::Proto, Field::OriginalDport];
        // Data right behind the key: an IPv6 key and its data need 15 of the 16 words, so there is no room to align them.
        let data = Word(self.width(&key));
        let mut line = self.load(&key, START).load(&[Field::Daddr, Field::Dport], data);
        line.exprs.push(Expr::Update { map, key: START, data, timeout });
        RuleSpec(line.exprs)
    }

    pub(crate) fn jump(self, chain: String) -> RuleSpec {
        self.end(Expr::Verdict(Verdict::Jump(chain)))
    }

    pub(crate) fn goto(self, chain: String) -> RuleSpec {
        self.end(Expr::Verdict(Verdict::Goto(chain)))
    }

    pub(crate) fn leave(self) -> RuleSpec {
        self.end(Expr::Verdict(Verdict::Return))
    }

    pub(crate) fn drop(self) -> RuleSpec {
        self.end(Expr::Verdict(Verdict::Drop))
    }

    /// ICMP port unreachable.
    pub(crate) fn reject(self) -> RuleSpec {
        let code = if self.family == Family::V4 { 3 } else { 4 };
        self.end(Expr::Reject(Rejection::Unreachable { code }))
    }

    /// What a host says of a protocol that it does not speak: ICMP protocol unreachable. Of ICMPv6's words for it (parameter problem,
    /// RFC 8200, section 4) the kernel's `reject` has none: port unreachable.
    pub(crate) fn reject_protocol(self) -> RuleSpec {
        match self.family {
            Family::V4 => self.of_family().end(Expr::Reject(Rejection::Unreachable { code: 2 })),
            Family::V6 => self.of_family().reject(),
        }
    }

    /// TCP reset.
    pub(crate) fn reset(self) -> RuleSpec {
        self.end(Expr::Reject(Rejection::Reset))
    }

    /// `masquerade fully-random`
    pub(crate) fn masquerade(self) -> RuleSpec {
        self.end(Expr::Masquerade)
    }

    fn end(mut self, expr: Expr) -> RuleSpec {
        self.exprs.push(expr);
        RuleSpec(self.exprs)
    }

    fn nfproto(&self) -> u8 {
        let family = if self.family == Family::V4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
        u8::try_from(family).expect("netfilter families are below 16")
    }

    fn guard(&mut self) {
        if !self.guarded {
            self.guarded = true;
            self.exprs.push(Expr::Meta { key: libc::NFT_META_NFPROTO.cast_unsigned(), to: START });
            self.exprs.push(Expr::Compare { from: START, equal: true, to: vec![self.nfproto()] });
        }
    }

    /// Loads fields into consecutive words.
    fn load(mut self, key: &[Field], mut to: Word) -> Self {
        if key.iter().any(|field| matches!(field, Field::Saddr | Field::Daddr)) {
            self.guard();
        }
        for field in key {
            let words = self.width(&[*field]);
            let expr = self.field(*field, to);
            self.exprs.push(expr);
            to = Word(to.0 + words);
        }
        self
    }

    fn field(&self, field: Field, to: Word) -> Expr {
        let ct = |key: libc::c_int| Expr::Ct { key: key.cast_unsigned(), original: true, to };
        match field {
            Field::Saddr | Field::Daddr => Expr::Payload {
                base: libc::NFT_PAYLOAD_NETWORK_HEADER.cast_unsigned(),
                offset: self.offset_of(field),
                len: address_words(self.family) * 4,
                to,
            },
            Field::Dport => Expr::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER.cast_unsigned(), offset: 2, len: 2, to },
            Field::Proto => Expr::Meta { key: libc::NFT_META_L4PROTO.cast_unsigned(), to },
            // With the family in the key, so that the original address is known even where the rule has no family test.
            Field::OriginalDaddr if self.family == Family::V4 => ct(libc::NFT_CT_DST_IP),
            Field::OriginalDaddr => ct(libc::NFT_CT_DST_IP6),
            Field::OriginalDport => ct(libc::NFT_CT_PROTO_DST),
        }
    }

    /// Where an address is in the IP header (RFC 791, RFC 8200).
    fn offset_of(&self, field: Field) -> u32 {
        match (self.family, field) {
            (Family::V4, Field::Saddr) => 12,
            (Family::V4, _) => 16,
            (Family::V6, Field::Saddr) => 8,
            (Family::V6, _) => 24,
        }
    }

    /// Words that a key occupies.
    fn width(&self, key: &[Field]) -> u32 {
        key.iter()
            .map(|field| match field {
                Field::Saddr | Field::Daddr | Field::OriginalDaddr => address_words(self.family),
                Field::Proto | Field::Dport | Field::OriginalDport => 1,
            })
            .sum()
    }

    fn lookup(mut self, set: String, into: Option<Word>, inverted: bool) -> Self {
        self.exprs.push(Expr::Lookup { set: SetRef::Named(set), from: START, into, inverted });
        self
    }

    fn dnat_from(self, map: String) -> RuleSpec {
        let (family, port) = (u32::from(self.nfproto()), Word(address_words(self.family)));
        self.lookup(map, Some(START), false).end(Expr::Dnat { family, address: START, port: Some(port) })
    }

    fn ct_bit(mut self, key: u32, bit: u32) -> Self {
        self.exprs.push(Expr::Ct { key, original: false, to: START });
        self.exprs.push(Expr::Mask { word: START, mask: bit });
        self.exprs.push(Expr::Compare { from: START, equal: false, to: vec![0; 4] });
        self
    }

    fn fib_local(mut self, flags: u32, equal: bool) -> Self {
        self.exprs.push(Expr::FibType { flags, to: START });
        self.exprs.push(Expr::Compare { from: START, equal, to: RTN_LOCAL.to_ne_bytes().to_vec() });
        self
    }

    fn of_protocol(self, protocol: libc::c_int) -> Self {
        let mut line = self.load(&[Field::Proto], START);
        let number = u8::try_from(protocol).expect("the protocols of our rules are below 256");
        line.exprs.push(Expr::Compare { from: START, equal: true, to: vec![number] });
        line
    }

    /// In the order in which nft tests it, or it could not tell what the byte means.
    fn icmp_type(self, kind: u8) -> Self {
        let mut line = self.of_family().icmp();
        let base = libc::NFT_PAYLOAD_TRANSPORT_HEADER.cast_unsigned();
        line.exprs.push(Expr::Payload { base, offset: 0, len: 1, to: START });
        line.exprs.push(Expr::Compare { from: START, equal: true, to: vec![kind] });
        line
    }
}
