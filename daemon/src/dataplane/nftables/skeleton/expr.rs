//! Expressions over libnftnl, for what the `nftnl` crate lacks: destination registers, concatenations, numgen, fib, dynset,
//! the original direction of `ct`, addresses and ports of `nat` from a map.

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use nftnl::Rule;
use nftnl::expr::Expression;
use nftnl_sys as sys;

/// A 32-bit word of the register file, 0..16. Fields of a concatenation occupy whole words, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u32);

/// One expression of a rule, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// `meta KEY` into a register (`NFT_META_*`).
    Meta { key: u32, to: Word },
    /// Bytes of the packet (`NFT_PAYLOAD_*_HEADER`).
    Payload { base: u32, offset: u32, len: u32, to: Word },
    /// `ct KEY`, of the original direction where `original` (`NFT_CT_*`).
    Ct { key: u32, original: bool, to: Word },
    /// `fib saddr type` or `fib daddr type` (`NFTA_FIB_F_*`).
    FibType { flags: u32, to: Word },
    /// `numgen random mod MODULUS`: drawn anew for every evaluation.
    Random { modulus: u32, to: Word },
    /// Equal or not to a constant. A prefix of the register is compared if the constant is shorter.
    Compare { from: Word, equal: bool, to: Vec<u8> },
    /// `register & MASK`, four bytes.
    Mask { word: Word, mask: u32 },
    /// Membership, or with `into` the map's data.
    Lookup { set: SetRef, from: Word, into: Option<Word>, inverted: bool },
    /// `jump`, `goto`, `return`, `drop`.
    Verdict(Verdict),
    /// A constant into a register.
    Constant { value: Vec<u8>, to: Word },
    /// `dnat ip to` address, and port if any, in registers (`NFPROTO_*`).
    Dnat { family: u32, address: Word, port: Option<Word> },
    /// `masquerade fully-random`.
    Masquerade,
    /// `reject`, in one way or another.
    Reject(Rejection),
    /// `update @map { key : data }` with a timeout in milliseconds.
    Update { map: String, key: Word, data: Word, timeout: u64 },
}

/// The set a look-up is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetRef {
    /// By name.
    Named(String),
    /// The anonymous `{ tcp, udp, sctp }`, written with the rule. nft 1.0.6 accepts `ct original proto-dst` in a concatenation
    /// only after a literal test for the protocol; a named set does not convince it.
    Transports,
}

/// Where a rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Jump(String),
    Goto(String),
    Return,
    Drop,
}

/// How a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// ICMP or ICMPv6 destination unreachable, with this code of the family's.
    Unreachable { code: u8 },
    /// TCP reset.
    Reset,
}

/// An [`Expr`] with the id that its rule's anonymous set has in this batch.
pub(crate) struct Bound<'a> {
    pub(crate) expr: &'a Expr,
    pub(crate) anonymous: u32,
}

const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFT_NAT_DNAT: u32 = 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
const NFT_REJECT_ICMP_UNREACH: u32 = 0;
const NFT_REJECT_TCP_RST: u32 = 1;
const IP_CT_DIR_ORIGINAL: u8 = 0;

impl Word {
    /// The register as user space numbers it: `NFT_REG_1..4` where 16 bytes start, `NFT_REG32_00..15` elsewhere, which is how nft
    /// writes them and therefore how it reads them back.
    fn register(self) -> u32 {
        if self.0.is_multiple_of(4) { 1 + self.0 / 4 } else { libc::NFT_REG32_00.cast_unsigned() + self.0 }
    }
}

impl SetRef {
    /// The name in the look-up expression.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Transports => "__set%d",
        }
    }
}

/// A libnftnl expression under construction.
struct Raw(NonNull<sys::nftnl_expr>);

impl Raw {
    fn new(name: &CStr) -> Self {
        // SAFETY: `name` is a NUL-terminated name of an expression that libnftnl knows; the result is checked.
        match NonNull::new(unsafe { sys::nftnl_expr_alloc(name.as_ptr()) }) {
            Some(expr) => Self(expr),
            // A few bytes could not be had: what Rust's own collections do then.
            None => std::alloc::handle_alloc_error(std::alloc::Layout::new::<Expr>()),
        }
    }

    fn u32(self, attribute: u32, value: u32) -> Self {
        // SAFETY: the expression is alive and owned by us.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), narrow(attribute), value) };
        self
    }

    fn u8(self, attribute: u32, value: u8) -> Self {
        // SAFETY: as above.
        unsafe { sys::nftnl_expr_set_u8(self.0.as_ptr(), narrow(attribute), value) };
        self
    }

    fn u64(self, attribute: u32, value: u64) -> Self {
        // SAFETY: as above.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), narrow(attribute), value) };
        self
    }

    fn bytes(self, attribute: u32, value: &[u8]) -> Self {
        let len = u32::try_from(value.len()).expect("constants of rules have at most 16 bytes");
        // SAFETY: as above; libnftnl copies `len` bytes, which `value` has.
        unsafe { sys::nftnl_expr_set(self.0.as_ptr(), narrow(attribute), value.as_ptr().cast::<c_void>(), len) };
        self
    }

    fn str(self, attribute: u32, value: &str) -> Self {
        let value = CString::new(value).expect("names of our sets and chains have no NUL");
        // SAFETY: as above; libnftnl copies the string.
        unsafe { sys::nftnl_expr_set_str(self.0.as_ptr(), narrow(attribute), value.as_ptr()) };
        self
    }
}

/// libnftnl's attributes are small constants which bindgen types as `u32` and the functions take as `u16`.
fn narrow(attribute: u32) -> u16 {
    u16::try_from(attribute).expect("libnftnl's attributes are below 32")
}

impl Expression for Bound<'_> {
    fn to_expr(&self, _rule: &Rule<'_>) -> NonNull<sys::nftnl_expr> {
        let raw = match self.expr {
            Expr::Meta { key, to } => {
                Raw::new(c"meta").u32(sys::NFTNL_EXPR_META_KEY, *key).u32(sys::NFTNL_EXPR_META_DREG, to.register())
            }
            Expr::Payload { base, offset, len, to } => Raw::new(c"payload")
                .u32(sys::NFTNL_EXPR_PAYLOAD_BASE, *base)
                .u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset)
                .u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len)
                .u32(sys::NFTNL_EXPR_PAYLOAD_DREG, to.register()),
            Expr::Ct { key, original, to } => {
                let raw = Raw::new(c"ct").u32(sys::NFTNL_EXPR_CT_KEY, *key).u32(sys::NFTNL_EXPR_CT_DREG, to.register());
                if *original { raw.u8(sys::NFTNL_EXPR_CT_DIR, IP_CT_DIR_ORIGINAL) } else { raw }
            }
            Expr::FibType { flags, to } => Raw::new(c"fib")
                .u32(sys::NFTNL_EXPR_FIB_FLAGS, *flags)
                .u32(sys::NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE)
                .u32(sys::NFTNL_EXPR_FIB_DREG, to.register()),
            Expr::Random { modulus, to } => Raw::new(c"numgen")
                .u32(sys::NFTNL_EXPR_NG_DREG, to.register())
                .u32(sys::NFTNL_EXPR_NG_MODULUS, *modulus)
                .u32(sys::NFTNL_EXPR_NG_TYPE, libc::NFT_NG_RANDOM.cast_unsigned()),
            Expr::Compare { from, equal, to } => {
                let op = if *equal { libc::NFT_CMP_EQ } else { libc::NFT_CMP_NEQ };
                Raw::new(c"cmp")
                    .u32(sys::NFTNL_EXPR_CMP_SREG, from.register())
                    .u32(sys::NFTNL_EXPR_CMP_OP, op.cast_unsigned())
                    .bytes(sys::NFTNL_EXPR_CMP_DATA, to)
            }
            Expr::Mask { word, mask } => Raw::new(c"bitwise")
                .u32(sys::NFTNL_EXPR_BITWISE_SREG, word.register())
                .u32(sys::NFTNL_EXPR_BITWISE_DREG, word.register())
                .u32(sys::NFTNL_EXPR_BITWISE_LEN, 4)
                .bytes(sys::NFTNL_EXPR_BITWISE_MASK, &mask.to_ne_bytes())
                .bytes(sys::NFTNL_EXPR_BITWISE_XOR, &[0; 4]),
            Expr::Lookup { set, from, into, inverted } => {
                let mut raw = Raw::new(c"lookup")
                    .u32(sys::NFTNL_EXPR_LOOKUP_SREG, from.register())
                    .str(sys::NFTNL_EXPR_LOOKUP_SET, set.name());
                if *set == SetRef::Transports {
                    raw = raw.u32(sys::NFTNL_EXPR_LOOKUP_SET_ID, self.anonymous);
                }
                if let Some(into) = into {
                    raw = raw.u32(sys::NFTNL_EXPR_LOOKUP_DREG, into.register());
                }
                if *inverted { raw.u32(sys::NFTNL_EXPR_LOOKUP_FLAGS, libc::NFT_LOOKUP_F_INV.cast_unsigned()) } else { raw }
            }
            Expr::Verdict(verdict) => {
                let raw = Raw::new(c"immediate").u32(sys::NFTNL_EXPR_IMM_DREG, libc::NFT_REG_VERDICT.cast_unsigned());
                let code = |raw: Raw, code: i32| raw.u32(sys::NFTNL_EXPR_IMM_VERDICT, code.cast_unsigned());
                match verdict {
                    Verdict::Jump(chain) => code(raw, libc::NFT_JUMP).str(sys::NFTNL_EXPR_IMM_CHAIN, chain),
                    Verdict::Goto(chain) => code(raw, libc::NFT_GOTO).str(sys::NFTNL_EXPR_IMM_CHAIN, chain),
                    Verdict::Return => code(raw, libc::NFT_RETURN),
                    Verdict::Drop => code(raw, libc::NF_DROP),
                }
            }
            Expr::Constant { value, to } => {
                Raw::new(c"immediate").u32(sys::NFTNL_EXPR_IMM_DREG, to.register()).bytes(sys::NFTNL_EXPR_IMM_DATA, value)
            }
            Expr::Dnat { family, address, port } => {
                let raw = Raw::new(c"nat")
                    .u32(sys::NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT)
                    .u32(sys::NFTNL_EXPR_NAT_FAMILY, *family)
                    .u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, address.register());
                if let Some(port) = port { raw.u32(sys::NFTNL_EXPR_NAT_REG_PROTO_MIN, port.register()) } else { raw }
            }
            Expr::Masquerade => Raw::new(c"masq").u32(sys::NFTNL_EXPR_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
            Expr::Reject(Rejection::Unreachable { code }) => Raw::new(c"reject")
                .u32(sys::NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_ICMP_UNREACH)
                .u8(sys::NFTNL_EXPR_REJECT_CODE, *code),
            Expr::Reject(Rejection::Reset) => {
                Raw::new(c"reject").u32(sys::NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_TCP_RST).u8(sys::NFTNL_EXPR_REJECT_CODE, 0)
            }
            Expr::Update { map, key, data, timeout } => Raw::new(c"dynset")
                .str(sys::NFTNL_EXPR_DYNSET_SET_NAME, map)
                .u32(sys::NFTNL_EXPR_DYNSET_OP, libc::NFT_DYNSET_OP_UPDATE.cast_unsigned())
                .u32(sys::NFTNL_EXPR_DYNSET_SREG_KEY, key.register())
                .u32(sys::NFTNL_EXPR_DYNSET_SREG_DATA, data.register())
                .u64(sys::NFTNL_EXPR_DYNSET_TIMEOUT, *timeout),
        };
        raw.0
    }
}
