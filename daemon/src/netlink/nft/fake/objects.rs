//! The fake's tables, sets, chains and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::errno::Errno;

use crate::netlink::attr::{Attrs, Fields};
use crate::netlink::nft::abi::{DATA_TYPE_VERDICT, rule as attrs, set as set_attr, set_flag};
use crate::netlink::nft::element::{OwnedElement, OwnedVerdict};
use crate::netlink::nft::reply::{ChainInfo, RuleInfo, SetInfo, TableInfo};
use crate::netlink::nft::spec::SetFlags;

/// `NFT_DATA_VALUE_MAXLEN`: of keys and data.
const VALUE_MAX: u32 = 64;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) handle: u64,
    pub(super) userdata: Option<Vec<u8>>,
    pub(super) sets: BTreeMap<String, Set>,
    pub(super) chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) info: SetInfo,
    /// The flags with those bits that [`SetInfo`] leaves out.
    pub(super) bits: u32,
    pub(super) elements: BTreeMap<Key, OwnedElement>,
}

/// What tells elements apart: in an interval set the end of one range may be the start of the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    key: Vec<u8>,
    end: Option<Vec<u8>>,
    interval_end: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) handle: u64,
    pub(super) base: Option<(u32, i32)>,
    pub(super) kind: String,
    pub(super) policy: Option<u32>,
    pub(super) userdata: Option<Vec<u8>>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rule {
    pub(super) handle: u64,
    pub(super) userdata: Option<Vec<u8>>,
    pub(super) sets: BTreeSet<String>,
    pub(super) chains: BTreeSet<String>,
}

/// What an expression refers to: a set by name and number, or a chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    Set { name: &'a str, id: Option<u32> },
    Chain(&'a str),
}

impl Table {
    pub(super) fn info(&self, name: &str) -> TableInfo {
        let uses = u32::try_from(self.sets.len() + self.chains.len()).unwrap_or(u32::MAX);
        TableInfo { name: name.to_owned(), handle: self.handle, uses, userdata: self.userdata.clone(), ..TableInfo::default() }
    }

    pub(super) fn chain_info(&self, name: &str) -> ChainInfo {
        let chain = self.chains.get(name).cloned().unwrap_or_default();
        let uses = u32::try_from(chain.rules.len() + self.jumps_to(name)).unwrap_or(u32::MAX);
        let kind = chain.base.map(|_| chain.kind);
        let Chain { handle, base, userdata, policy, .. } = chain;
        ChainInfo { name: name.to_owned(), handle, base, kind, policy, uses, userdata }
    }

    pub(super) fn rules(&self) -> Vec<RuleInfo> {
        let of_chain = |(name, chain): (&String, &Chain)| {
            let info = |rule: &Rule| RuleInfo { chain: name.clone(), handle: rule.handle, userdata: rule.userdata.clone() };
            chain.rules.iter().map(info).collect::<Vec<_>>()
        };
        self.chains.iter().flat_map(of_chain).collect()
    }

    /// Rules that refer to a set. Counted when asked: rules are few, and what is not kept needs no undoing.
    pub(super) fn uses_of_set(&self, name: &str) -> usize {
        self.chains.values().flat_map(|chain| &chain.rules).filter(|rule| rule.sets.contains(name)).count()
    }

    /// Rules and elements of verdict maps that jump to a chain from elsewhere.
    pub(super) fn jumps_to(&self, name: &str) -> usize {
        let others = self.chains.iter().filter(|(chain, _)| *chain != name).flat_map(|(_, chain)| &chain.rules);
        let elements = self.sets.values().filter(|set| set.is_verdict_map()).flat_map(|set| set.elements.values());
        let verdicts = elements.filter_map(|element| element.verdict.as_ref()?.chain.as_deref());
        others.filter(|rule| rule.chains.contains(name)).count() + verdicts.filter(|chain| *chain == name).count()
    }
}

impl Set {
    /// Reads `NFT_MSG_NEWSET` and looks whether it makes sense (`nf_tables_newset`). The handle is still to come.
    pub(super) fn parse(fields: &Fields<'_, 21>) -> Result<Self, Errno> {
        let bits = fields.u32_be(set_attr::FLAGS).unwrap_or(0);
        let known = set_flag::ANONYMOUS
            | set_flag::CONSTANT
            | set_flag::INTERVAL
            | set_flag::MAP
            | set_flag::TIMEOUT
            | set_flag::EVAL
            | set_flag::CONCAT;
        if bits & !known != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let desc: Fields<'_, 3> = fields.nest(set_attr::DESC);
        let data = fields.u32_be(set_attr::DATA_TYPE).map(|kind| (kind, fields.u32_be(set_attr::DATA_LEN).unwrap_or(0)));
        let key_len = fields.u32_be(set_attr::KEY_LEN).ok_or(Errno::EINVAL)?;
        let timeout = fields.u64_be(set_attr::TIMEOUT).map(Duration::from_millis);
        let data_fits = data.is_none_or(|(kind, length)| kind == DATA_TYPE_VERDICT || (1..=VALUE_MAX).contains(&length));
        let consistent = (1..=VALUE_MAX).contains(&key_len)
            && data_fits
            && data.is_some() == (bits & set_flag::MAP != 0)
            && (timeout.is_none() || bits & set_flag::TIMEOUT != 0)
            && (desc.walk(set_attr::DESC_CONCAT).count() > 1) == (bits & set_flag::CONCAT != 0);
        if !consistent {
            return Err(Errno::EINVAL);
        }
        let info = SetInfo {
            key_type: fields.u32_be(set_attr::KEY_TYPE).unwrap_or(0),
            key_len,
            data,
            flags: SetFlags::from_bits(bits),
            size: desc.u32_be(set_attr::DESC_SIZE).filter(|size| *size > 0),
            timeout,
            userdata: fields.bytes(set_attr::USERDATA).map(<[u8]>::to_vec),
            ..SetInfo::default()
        };
        Ok(Self { info, bits, elements: BTreeMap::new() })
    }

    pub(super) fn info(&self) -> SetInfo {
        SetInfo { count: Some(u32::try_from(self.elements.len()).unwrap_or(u32::MAX)), ..self.info.clone() }
    }

    pub(super) fn is_verdict_map(&self) -> bool {
        self.info.data.is_some_and(|(kind, _)| kind == DATA_TYPE_VERDICT)
    }

    pub(super) fn is_anonymous(&self) -> bool {
        self.bits & set_flag::ANONYMOUS != 0
    }

    pub(super) fn is_over_full(&self) -> bool {
        self.info.size.is_some_and(|size| self.elements.len() > usize::try_from(size).unwrap_or(usize::MAX))
    }

    /// Whether an element has the shape that the set asks for.
    pub(super) fn admits(&self, element: &OwnedElement) -> bool {
        let key_len = usize::try_from(self.info.key_len).unwrap_or(usize::MAX);
        let keys = element.key.len() == key_len && element.key_end.as_ref().is_none_or(|end| end.len() == key_len);
        let data = match (self.info.data, element.interval_end) {
            (None, _) | (Some(_), true) => element.data.is_none() && element.verdict.is_none(),
            (Some((DATA_TYPE_VERDICT, _)), false) => element.verdict.is_some() && element.data.is_none(),
            (Some((_, length)), false) => {
                element.verdict.is_none()
                    && element.data.as_ref().is_some_and(|data| u32::try_from(data.len()).is_ok_and(|len| len == length))
            }
        };
        let times = self.info.flags.timeout || (element.timeout.is_none() && element.expiration.is_none());
        let ends = self.info.flags.interval || (!element.interval_end && element.key_end.is_none());
        keys && data && times && ends
    }

    /// See [`FakeNft::learn`](super::FakeNft::learn). `update` keeps the data of what is there.
    pub(super) fn learn(&mut self, element: &OwnedElement) -> bool {
        let key = Key::of(element);
        if !self.elements.contains_key(&key) {
            self.elements.insert(key.clone(), element.clone());
            if self.is_over_full() {
                self.elements.remove(&key);
                return false;
            }
        }
        true
    }
}

impl Key {
    pub(super) fn of(element: &OwnedElement) -> Self {
        Self { key: element.key.clone(), end: element.key_end.clone(), interval_end: element.interval_end }
    }

    pub(super) fn plain(key: &[u8]) -> Self {
        Self { key: key.to_vec(), end: None, interval_end: false }
    }
}

/// Everything that a rule's expressions refer to, by walking `NFTA_RULE_EXPRESSIONS`.
pub(super) fn references(expressions: &[u8]) -> impl Iterator<Item = Reference<'_>> {
    Attrs::new(expressions).filter_map(|entry| {
        let expression: Fields<'_, 3> = Fields::parse(entry.payload);
        let data = expression.bytes(attrs::EXPR_DATA).unwrap_or_default();
        let set = |name, id| {
            let fields: Fields<'_, 12> = Fields::parse(data);
            Some(Reference::Set { name: fields.text(name)?, id: fields.u32_be(id) })
        };
        match expression.text(attrs::EXPR_NAME)? {
            "lookup" => set(attrs::LOOKUP_SET, attrs::LOOKUP_SET_ID),
            "dynset" => set(attrs::DYNSET_SET_NAME, attrs::DYNSET_SET_ID),
            "objref" => set(attrs::OBJREF_SET_NAME, attrs::OBJREF_SET_ID),
            "immediate" => verdict_chain(Fields::<'_, 3>::parse(data).bytes(attrs::IMMEDIATE_DATA)?),
            _ => None,
        }
    })
}

fn verdict_chain(data: &[u8]) -> Option<Reference<'_>> {
    use crate::netlink::nft::abi::element::{DATA_VERDICT, VERDICT_CHAIN};
    OwnedVerdict::parse(data)?;
    Fields::<'_, 3>::parse(data).nest::<4>(DATA_VERDICT).text(VERDICT_CHAIN).map(Reference::Chain)
}
