//! What sets and chains are made from.

use std::time::Duration;

use super::abi::set_flag;

/// A set or map to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetSpec {
    /// Its name, at most 255 bytes. `__set%d` or `__map%d` for an anonymous one: the kernel puts a number in.
    pub name: String,
    /// nft's data type of the key, 6 bits for each field of a concatenation. The kernel only keeps it, `nft list` needs it.
    pub key_type: u32,
    /// Bytes of the key; every field of a concatenation counts with its padding to 4.
    pub key_len: u32,
    /// Bytes of each field, without padding. Only for an interval set over a concatenation: it makes the kernel choose `pipapo`.
    pub key_fields: Vec<u32>,
    /// nft's data type and the bytes of what a map gives; type [`DATA_TYPE_VERDICT`](super::abi::DATA_TYPE_VERDICT) for a verdict map.
    pub data: Option<(u32, u32)>,
    /// What it can do.
    pub flags: SetFlags,
    /// How many elements it may have. With it the kernel takes the fixed hash, which fills four times faster than the growing one.
    pub size: Option<u32>,
    /// How long elements without a timeout of their own live. Milliseconds count, less does not.
    pub timeout: Option<Duration>,
    /// nft's comment and `typeof` declarations.
    pub userdata: Option<Vec<u8>>,
    /// A number, unique in the transaction, by which a rule or elements of the same transaction may refer to the set. An
    /// anonymous set has no other name yet. From 1 where a rule uses it: the kernel finds sets without a number by 0, and a rule
    /// whose set has the wrong name would get one of those.
    pub id: u32,
}

/// `enum nft_set_flags`, as far as we use them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetFlags {
    /// Elements are ranges.
    pub interval: bool,
    /// Elements have data. Implied by [`SetSpec::data`].
    pub map: bool,
    /// Elements may expire.
    pub timeout: bool,
    /// Rules may write elements (`dynamic`, `NFT_SET_EVAL`).
    pub dynamic: bool,
    /// Belongs to one rule and goes with it.
    pub anonymous: bool,
    /// Does not change once it is bound to a rule.
    pub constant: bool,
}

/// A chain to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainSpec {
    /// Its name, at most 255 bytes.
    pub name: String,
    /// Where it hangs; absent for a chain that is only jumped to.
    pub base: Option<BaseChain>,
    /// nft's comment.
    pub userdata: Option<Vec<u8>>,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Its type.
    pub kind: ChainKind,
    /// Its hook.
    pub hook: Hook,
    /// Its place among the chains of the hook; lower runs first.
    pub priority: i32,
    /// What happens to a packet that no rule decided.
    pub policy: ChainPolicy,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// `type filter`
    Filter,
    /// `type nat`: sees the first packet of a flow only.
    Nat,
    /// `type route`: reroutes what output changed.
    Route,
}

/// Hook of a base chain (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// To this node.
    Input = 1,
    /// Through this node.
    Forward = 2,
    /// From this node.
    Output = 3,
    /// After routing.
    Postrouting = 4,
}

/// Policy of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ChainPolicy {
    /// Let it go on.
    Accept = 1,
    /// Throw it away.
    Drop = 0,
}

impl SetSpec {
    /// The flags as the kernel has them.
    #[must_use]
    pub fn flag_bits(&self) -> u32 {
        let SetFlags { interval, map, timeout, dynamic, anonymous, constant } = self.flags;
        [
            (interval, set_flag::INTERVAL),
            (map || self.data.is_some(), set_flag::MAP),
            (timeout, set_flag::TIMEOUT),
            (dynamic, set_flag::EVAL),
            (anonymous, set_flag::ANONYMOUS),
            (constant, set_flag::CONSTANT),
            (self.key_fields.len() > 1, set_flag::CONCAT),
        ]
        .into_iter()
        .filter_map(|(wanted, bit)| wanted.then_some(bit))
        .sum()
    }
}

impl SetFlags {
    /// Reads the kernel's bits; those we never set are left out.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self {
            interval: bits & set_flag::INTERVAL != 0,
            map: bits & set_flag::MAP != 0,
            timeout: bits & set_flag::TIMEOUT != 0,
            dynamic: bits & set_flag::EVAL != 0,
            anonymous: bits & set_flag::ANONYMOUS != 0,
            constant: bits & set_flag::CONSTANT != 0,
        }
    }
}

impl ChainKind {
    /// As the kernel and `nft` spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}
