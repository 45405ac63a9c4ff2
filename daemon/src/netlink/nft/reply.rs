//! What the kernel tells of its tables, sets, chains and rules.

use std::time::Duration;

use super::abi::{chain, msg, rule, set, table as tab};
use super::spec::SetFlags;
use crate::netlink::attr::Fields;
use crate::netlink::message::Message;

/// A table of family `inet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// The kernel's number for it. A table deleted and made anew has another one.
    pub handle: u64,
    /// Chains and sets in it.
    pub uses: u32,
    /// What its maker left in it.
    pub userdata: Option<Vec<u8>>,
    /// The port of the socket that alone may change it, and that it goes with.
    pub owner: Option<u32>,
    /// Its chains are unhooked (`flags dormant`).
    pub dormant: bool,
}

/// A set or map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// See [`SetSpec::key_type`](super::SetSpec::key_type).
    pub key_type: u32,
    /// See [`SetSpec::key_len`](super::SetSpec::key_len).
    pub key_len: u32,
    /// See [`SetSpec::data`](super::SetSpec::data).
    pub data: Option<(u32, u32)>,
    /// What it can do.
    pub flags: SetFlags,
    /// How many elements it may have.
    pub size: Option<u32>,
    /// How many it has, where the kernel says so (6.16 and newer).
    pub count: Option<u32>,
    /// How long its elements live.
    pub timeout: Option<Duration>,
    /// nft's comment and `typeof` declarations.
    pub userdata: Option<Vec<u8>>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// Hook (`enum nf_inet_hooks`) and priority of a base chain.
    pub base: Option<(u32, i32)>,
    /// `filter`, `nat` or `route`, for a base chain.
    pub kind: Option<String>,
    /// What a base chain does with packets at its end: `NF_DROP` (0) or `NF_ACCEPT` (1).
    pub policy: Option<u32>,
    /// Its rules, and the jumps to it.
    pub uses: u32,
    /// nft's comment.
    pub userdata: Option<Vec<u8>>,
}

/// A rule, in the order of its chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleInfo {
    /// The chain it is in.
    pub chain: String,
    /// The kernel's number for it.
    pub handle: u64,
    /// nft's comment.
    pub userdata: Option<Vec<u8>>,
}

impl TableInfo {
    /// Reads `NFT_MSG_NEWTABLE`.
    pub(super) fn parse(message: &Message<'_>) -> Option<Self> {
        let fields: Fields<'_, 8> = expect(message, msg::NEWTABLE)?;
        Some(Self {
            name: fields.text(tab::NAME)?.to_owned(),
            handle: fields.u64_be(tab::HANDLE).unwrap_or(0),
            uses: fields.u32_be(tab::USE).unwrap_or(0),
            userdata: fields.bytes(tab::USERDATA).map(<[u8]>::to_vec),
            owner: fields.u32_be(tab::OWNER),
            dormant: fields.u32_be(tab::FLAGS).is_some_and(|flags| flags & tab::FLAG_DORMANT != 0),
        })
    }
}

impl SetInfo {
    /// Reads `NFT_MSG_NEWSET`, if it is of this table.
    pub(super) fn parse(message: &Message<'_>, table: &str) -> Option<Self> {
        let fields: Fields<'_, 21> = expect(message, msg::NEWSET)?;
        let size = fields.nest::<3>(set::DESC).u32_be(set::DESC_SIZE).filter(|size| *size > 0);
        (fields.text(set::TABLE)? == table).then_some(())?;
        Some(Self {
            name: fields.text(set::NAME)?.to_owned(),
            handle: fields.u64_be(set::HANDLE).unwrap_or(0),
            key_type: fields.u32_be(set::KEY_TYPE).unwrap_or(0),
            key_len: fields.u32_be(set::KEY_LEN).unwrap_or(0),
            data: fields.u32_be(set::DATA_TYPE).map(|kind| (kind, fields.u32_be(set::DATA_LEN).unwrap_or(0))),
            flags: SetFlags::from_bits(fields.u32_be(set::FLAGS).unwrap_or(0)),
            size,
            count: fields.u32_be(set::COUNT),
            timeout: fields.u64_be(set::TIMEOUT).map(Duration::from_millis),
            userdata: fields.bytes(set::USERDATA).map(<[u8]>::to_vec),
        })
    }
}

impl ChainInfo {
    /// Hook, priority and type of a base chain.
    #[must_use]
    pub fn place(&self) -> Option<(u32, i32, &str)> {
        let (hook, priority) = self.base?;
        Some((hook, priority, self.kind.as_deref().unwrap_or_default()))
    }

    /// Reads `NFT_MSG_NEWCHAIN`, if it is of this table.
    pub(super) fn parse(message: &Message<'_>, table: &str) -> Option<Self> {
        let fields: Fields<'_, 13> = expect(message, msg::NEWCHAIN)?;
        let hook: Fields<'_, 3> = fields.nest(chain::HOOK);
        let priority = hook.u32_be(chain::HOOK_PRIORITY).map(u32::cast_signed);
        (fields.text(chain::TABLE)? == table).then_some(())?;
        Some(Self {
            name: fields.text(chain::NAME)?.to_owned(),
            handle: fields.u64_be(chain::HANDLE).unwrap_or(0),
            base: hook.u32_be(chain::HOOK_HOOKNUM).zip(priority),
            kind: fields.text(chain::TYPE).map(str::to_owned),
            policy: fields.u32_be(chain::POLICY),
            uses: fields.u32_be(chain::USE).unwrap_or(0),
            userdata: fields.bytes(chain::USERDATA).map(<[u8]>::to_vec),
        })
    }
}

impl RuleInfo {
    /// Reads `NFT_MSG_NEWRULE`, if it is of this table.
    pub(super) fn parse(message: &Message<'_>, table: &str) -> Option<Self> {
        let fields: Fields<'_, 12> = expect(message, msg::NEWRULE)?;
        (fields.text(rule::TABLE)? == table).then_some(())?;
        Some(Self {
            chain: fields.text(rule::CHAIN)?.to_owned(),
            handle: fields.u64_be(rule::HANDLE).unwrap_or(0),
            userdata: fields.bytes(rule::USERDATA).map(<[u8]>::to_vec),
        })
    }
}

fn expect<'a, const N: usize>(message: &Message<'a>, kind: u16) -> Option<Fields<'a, N>> {
    (message.kind == kind && message.family() == Some(super::abi::NFPROTO_INET)).then(|| message.fields())
}
