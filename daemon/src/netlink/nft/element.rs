//! The element codec.

use std::time::Duration;

use super::abi::element as elem;
use crate::netlink::attr::{self, Attrs, Fields};

/// An element to be written or deleted. `Element { key, ..Element::default() }` is enough for a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// The key, every field of a concatenation padded to 4 bytes.
    pub key: &'a [u8],
    /// The last key of a range, inclusive, for an interval set over a concatenation. An interval set over a single field takes
    /// two elements instead, the second beyond the range and with `interval_end`.
    pub key_end: Option<&'a [u8]>,
    /// What a map gives.
    pub data: Option<&'a [u8]>,
    /// What a verdict map gives.
    pub verdict: Option<Verdict<'a>>,
    /// How long it lives, where the set allows it.
    pub timeout: Option<Duration>,
    /// How much of that is left, to carry an element over.
    pub expiration: Option<Duration>,
    /// Ends the range that the element before it opened.
    pub interval_end: bool,
    /// nft's comment.
    pub userdata: Option<&'a [u8]>,
}

/// What a rule or a verdict map decides (`enum nft_verdicts`, and netfilter's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Let it go on to the next base chain.
    Accept,
    /// Throw it away.
    Drop,
    /// Back to the caller.
    Return,
    /// Call a chain.
    Jump(&'a str),
    /// Go to a chain and do not come back.
    Goto(&'a str),
}

/// An element as the kernel tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedElement {
    /// See [`Element::key`].
    pub key: Vec<u8>,
    /// See [`Element::key_end`].
    pub key_end: Option<Vec<u8>>,
    /// See [`Element::data`].
    pub data: Option<Vec<u8>>,
    /// See [`Element::verdict`].
    pub verdict: Option<OwnedVerdict>,
    /// Its own timeout, or the set's.
    pub timeout: Option<Duration>,
    /// What is left of it.
    pub expiration: Option<Duration>,
    /// See [`Element::interval_end`].
    pub interval_end: bool,
    /// nft's comment.
    pub userdata: Option<Vec<u8>>,
}

/// A [`Verdict`] as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedVerdict {
    /// `NF_DROP` 0, `NF_ACCEPT` 1, `NFT_JUMP` -3, `NFT_GOTO` -4, `NFT_RETURN` -5.
    pub code: i32,
    /// Of a jump or goto.
    pub chain: Option<String>,
}

impl<'a> Element<'a> {
    /// An element of a set.
    #[must_use]
    pub fn key(key: &'a [u8]) -> Self {
        Self { key, ..Self::default() }
    }

    /// An element of a map.
    #[must_use]
    pub fn pair(key: &'a [u8], data: &'a [u8]) -> Self {
        Self { key, data: Some(data), ..Self::default() }
    }

    /// Writes it as one entry of `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub(super) fn write(&self, buffer: &mut Vec<u8>) {
        match *self {
            // What a load consists of: in four pieces, where nest by nest takes three times the instructions.
            Self {
                key,
                key_end: None,
                data,
                verdict: None,
                timeout: None,
                expiration: None,
                interval_end: false,
                userdata: None,
            } if is_short(key) && data.is_none_or(is_short) => write_pair(key, data, buffer),
            _ => self.write_nests(buffer),
        }
    }

    fn write_nests(&self, buffer: &mut Vec<u8>) {
        let Self { key, key_end, data, verdict, timeout, expiration, interval_end, userdata } = *self;
        attr::nest(buffer, super::abi::LIST_ELEM, |buffer| {
            if interval_end {
                attr::put_u32_be(buffer, elem::FLAGS, elem::FLAG_INTERVAL_END);
            }
            attr::nest(buffer, elem::KEY, |buffer| attr::put(buffer, elem::DATA_VALUE, key));
            if let Some(end) = key_end {
                attr::nest(buffer, elem::KEY_END, |buffer| attr::put(buffer, elem::DATA_VALUE, end));
            }
            if let Some(data) = data {
                attr::nest(buffer, elem::DATA, |buffer| attr::put(buffer, elem::DATA_VALUE, data));
            }
            if let Some(verdict) = verdict {
                attr::nest(buffer, elem::DATA, |buffer| verdict.write(buffer));
            }
            if let Some(timeout) = timeout {
                attr::put_u64_be(buffer, elem::TIMEOUT, milliseconds(timeout));
            }
            if let Some(expiration) = expiration {
                attr::put_u64_be(buffer, elem::EXPIRATION, milliseconds(expiration));
            }
            if let Some(userdata) = userdata {
                attr::put(buffer, elem::USERDATA, userdata);
            }
        });
    }
}

/// Needs no padding, and no nest around it outgrows its length field. True of every key and data of ours.
fn is_short(value: &[u8]) -> bool {
    value.len().is_multiple_of(4) && value.len() < 1024
}

/// An entry of a key and perhaps data, both [short](is_short): all lengths are known beforehand.
fn write_pair(key: &[u8], data: Option<&[u8]>, buffer: &mut Vec<u8>) {
    let value = |payload: &[u8]| attr::HEADER + payload.len();
    let nest = |payload: &[u8]| attr::HEADER + value(payload);
    let entry = attr::HEADER + nest(key) + data.map_or(0, nest);
    let heads = [
        attr::nest_header(entry, super::abi::LIST_ELEM),
        attr::nest_header(nest(key), elem::KEY),
        attr::header(value(key), elem::DATA_VALUE),
    ];
    buffer.extend_from_slice(heads.as_flattened());
    buffer.extend_from_slice(key);
    if let Some(data) = data {
        let heads = [attr::nest_header(nest(data), elem::DATA), attr::header(value(data), elem::DATA_VALUE)];
        buffer.extend_from_slice(heads.as_flattened());
        buffer.extend_from_slice(data);
    }
}

impl Verdict<'_> {
    /// `enum nft_verdicts` and `NF_ACCEPT`, `NF_DROP`.
    fn code(self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    /// Writes `NFTA_DATA_VERDICT`.
    fn write(self, buffer: &mut Vec<u8>) {
        attr::nest(buffer, elem::DATA_VERDICT, |buffer| {
            attr::put(buffer, elem::VERDICT_CODE, &self.code().to_be_bytes());
            if let Self::Jump(chain) | Self::Goto(chain) = self {
                attr::put_text(buffer, elem::VERDICT_CHAIN, chain);
            }
        });
    }
}

impl OwnedElement {
    /// Reads one entry of `NFTA_SET_ELEM_LIST_ELEMENTS`. `None` without a key, as the kernel's catch-all elements are: we have none.
    #[must_use]
    pub fn parse(entry: &[u8]) -> Option<Self> {
        let fields: Fields<'_, 12> = Fields::parse(entry);
        let value = |kind| fields.nest::<3>(kind).bytes(elem::DATA_VALUE).map(<[u8]>::to_vec);
        Some(Self {
            key: value(elem::KEY)?,
            key_end: value(elem::KEY_END),
            data: value(elem::DATA),
            verdict: OwnedVerdict::parse(fields.bytes(elem::DATA).unwrap_or_default()),
            timeout: fields.u64_be(elem::TIMEOUT).map(Duration::from_millis),
            expiration: fields.u64_be(elem::EXPIRATION).map(Duration::from_millis),
            interval_end: fields.u32_be(elem::FLAGS).unwrap_or(0) & elem::FLAG_INTERVAL_END != 0,
            userdata: fields.bytes(elem::USERDATA).map(<[u8]>::to_vec),
        })
    }

    /// Reads all entries of `NFTA_SET_ELEM_LIST_ELEMENTS`.
    pub fn parse_list(list: &[u8]) -> impl Iterator<Item = Self> + '_ {
        Attrs::new(list).filter_map(|entry| Self::parse(entry.payload))
    }
}

impl OwnedVerdict {
    /// Reads the verdict of a data nest, if that is what it holds.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let verdict: Fields<'_, 4> = Fields::<'_, 3>::parse(data).nest(elem::DATA_VERDICT);
        let code = verdict.bytes(elem::VERDICT_CODE)?.try_into().ok().map(i32::from_be_bytes)?;
        Some(Self { code, chain: verdict.text(elem::VERDICT_CHAIN).map(str::to_owned) })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_in_one_piece_is_the_entry_nest_by_nest() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1400).collect();
        let lengths = [0, 1, 4, 7, 12, 28, 64, 1020, 1024, 1400];
        for key in lengths {
            for data in [None].into_iter().chain(lengths.map(Some)) {
                let element = Element { key: &bytes[..key], data: data.map(|length| &bytes[..length]), ..Element::default() };
                let (mut quick, mut nested) = (Vec::new(), Vec::new());
                element.write(&mut quick);
                element.write_nests(&mut nested);
                assert_eq!(quick, nested, "key of {key}, data of {data:?}");
            }
        }
    }
}
