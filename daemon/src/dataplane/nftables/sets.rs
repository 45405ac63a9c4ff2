//! What the elements of each set look like, and how nft has to be told so that it lists them.

use std::time::Duration;

use crate::model::Family;
use crate::netlink::nft::{SetFlags, SetSpec};

use super::names::{Pool, Reach, SetId, SetKind};

/// Bytes of one element as we keep it: key, last key of a range, data, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) key: usize,
    /// The element is a range and has a last key as long as the first.
    pub(crate) range: bool,
    /// The element opens or closes an interval: one byte more, 1 where it closes.
    pub(crate) interval: bool,
    pub(crate) data: usize,
}

/// A field of a key or of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Address,
    Protocol,
    Port,
    /// The slot: a number in host byte order, declared through `numgen`.
    Slot,
}

/// Sets we size hold at least this many elements: 16 KiB of buckets each, and a small cluster never grows one.
pub(crate) const LEAST_SIZE: u32 = 1024;

/// Entries of an affinity map. A client beyond them is simply not sticky.
const AFFINITY_SIZE: u32 = 65_536;

/// How long a learnt entry lives unless its rule says otherwise, and it always does: three hours, as the API server's default.
const AFFINITY_TIMEOUT: Duration = Duration::from_secs(10_800);

impl Part {
    /// Number of nft's data type (`enum datatypes`) and bytes without padding.
    fn describe(self, family: Family) -> (u32, u32) {
        match (self, family) {
            (Self::Address, Family::V4) => (7, 4),
            (Self::Address, Family::V6) => (8, 16),
            (Self::Protocol, _) => (12, 1),
            (Self::Port, _) => (13, 2),
            (Self::Slot, _) => (4, 4),
        }
    }

    /// The expression by which `typeof` declares it (`expr_ops.build_udata` in nft): payload fields, meta and numgen.
    fn declaration(self, family: Family) -> Vec<u8> {
        const PAYLOAD: u32 = 7;
        const META: u32 = 9;
        const NUMGEN: u32 = 23;
        let payload = |header: u32, field: u32| expression(PAYLOAD, &[header, field]);
        match (self, family) {
            (Self::Address, Family::V4) => payload(12, 12),    // ip daddr
            (Self::Address, Family::V6) => payload(13, 9),     // ip6 daddr
            (Self::Port, _) => payload(11, 2),                 // th dport
            (Self::Protocol, _) => expression(META, &[16]),    // meta l4proto
            (Self::Slot, _) => expression(NUMGEN, &[1, 2, 0]), // numgen random mod 2
        }
    }
}

impl SetId {
    fn key_parts(self) -> &'static [Part] {
        use Part::{Address, Port, Protocol, Slot};
        match self.kind {
            SetKind::Endpoints(pool) => match pool.reach() {
                Reach::Address => &[Address, Protocol, Port, Slot],
                Reach::NodePort => &[Protocol, Port, Slot],
            },
            SetKind::Affinity => &[Address, Address, Protocol, Port],
            SetKind::Ranges => &[Address, Protocol, Port, Address],
            SetKind::Hairpin => &[Address, Address],
            SetKind::Pods
            | SetKind::ServiceCidrs
            | SetKind::Foreign
            | SetKind::NodeIps
            | SetKind::Vips
            | SetKind::ClusterIps
            | SetKind::ServiceIps => &[Address],
            SetKind::Suspended | SetKind::Ranged | SetKind::Special => &[Address, Protocol, Port],
            SetKind::Sticky(reach, _)
            | SetKind::ExternalCluster(reach)
            | SetKind::ExternalLocal(reach)
            | SetKind::Reject(reach)
            | SetKind::Drop(reach) => frontend_parts(reach),
            SetKind::Class(pool, _) => frontend_parts(pool.reach()),
        }
    }

    fn data_parts(self) -> &'static [Part] {
        match self.kind {
            SetKind::Endpoints(_) | SetKind::Affinity => &[Part::Address, Part::Port],
            _ => &[],
        }
    }

    /// Bytes of its elements.
    pub(crate) fn shape(self) -> Shape {
        let padded = |parts: &[Part]| -> u32 { parts.iter().map(|part| part.describe(self.family).1.next_multiple_of(4)).sum() };
        Shape {
            key: padded(self.key_parts()) as usize,
            range: self.kind == SetKind::Ranges,
            interval: matches!(self.kind, SetKind::Pods | SetKind::ServiceCidrs),
            data: padded(self.data_parts()) as usize,
        }
    }

    /// Elements are counted against a size, which grows by replacing the set. Interval sets and the few addresses of a node need none.
    pub(crate) fn is_sized(self) -> bool {
        !self.shape().interval && !matches!(self.kind, SetKind::Ranges | SetKind::NodeIps | SetKind::Affinity)
    }

    /// What the kernel is told to make.
    pub(crate) fn spec(self, name: String, size: Option<u32>) -> SetSpec {
        let type_of = |parts: &[Part]| parts.iter().fold(0, |types, part| types << 6 | part.describe(self.family).0);
        let (key, data, shape) = (self.key_parts(), self.data_parts(), self.shape());
        let affinity = self.kind == SetKind::Affinity;
        let length = |bytes: usize| u32::try_from(bytes).expect("keys and data are below 100 bytes");
        SetSpec {
            name,
            key_type: type_of(key),
            key_len: length(shape.key),
            key_fields: if shape.range { key.iter().map(|part| part.describe(self.family).1).collect() } else { Vec::new() },
            data: (!data.is_empty()).then(|| (type_of(data), length(shape.data))),
            flags: SetFlags {
                interval: shape.interval || shape.range,
                map: !data.is_empty(),
                timeout: affinity,
                dynamic: affinity,
                ..SetFlags::default()
            },
            size: if affinity { Some(AFFINITY_SIZE) } else { size },
            timeout: affinity.then_some(AFFINITY_TIMEOUT),
            userdata: Some(self.userdata()),
            id: 0,
        }
    }

    /// nft's notes on a set (`enum nftnl_udata_set_types`), byte for byte as nft 1.0.6 writes them: without them it cannot list a
    /// slot, which has no data type of its own.
    fn userdata(self) -> Vec<u8> {
        const KEY_BYTEORDER: u8 = 0;
        const DATA_BYTEORDER: u8 = 1;
        const KEY_TYPEOF: u8 = 3;
        const DATA_TYPEOF: u8 = 4;
        const DATA_INTERVAL: u8 = 6;
        const CONCATENATION: u32 = 13;
        const BIG_ENDIAN: u32 = 2;

        let (key, data) = (self.key_parts(), self.data_parts());
        let typeof_declared = matches!(self.kind, SetKind::Endpoints(_));
        let declare = |parts: &[Part]| -> Vec<u8> {
            let fields = if typeof_declared { parts } else { &[] };
            let declared = (0_u8..).zip(fields).flat_map(|(place, part)| tlv(place, &part.declaration(self.family)));
            [tlv(0, &CONCATENATION.to_ne_bytes()), tlv(1, &declared.collect::<Vec<u8>>())].concat()
        };
        let byteorder: u32 = if key.len() == 1 { BIG_ENDIAN } else { 0 };
        let mut notes = tlv(KEY_BYTEORDER, &byteorder.to_ne_bytes());
        if !data.is_empty() {
            notes.extend(tlv(DATA_BYTEORDER, &0_u32.to_ne_bytes()));
        }
        if key.len() > 1 {
            notes.extend(tlv(KEY_TYPEOF, &declare(key)));
        }
        if !data.is_empty() {
            notes.extend(tlv(DATA_TYPEOF, &declare(data)));
            notes.extend(tlv(DATA_INTERVAL, &0_u32.to_ne_bytes()));
        }
        notes
    }

    /// Every set of a family that always exists, in the order of loading.
    pub(crate) fn permanent(family: Family) -> impl Iterator<Item = Self> {
        use SetKind as K;
        let by_reach = [K::ExternalCluster, K::ExternalLocal, K::Reject, K::Drop]
            .into_iter()
            .flat_map(|kind| [kind(Reach::Address), kind(Reach::NodePort)]);
        Pool::ALL
            .into_iter()
            .map(K::Endpoints)
            .chain([K::Affinity, K::Suspended, K::Pods, K::ServiceCidrs, K::Foreign, K::NodeIps, K::Hairpin])
            .chain(by_reach)
            .chain([K::Special, K::ClusterIps, K::ServiceIps])
            .map(move |kind| kind.of(family))
    }
}

fn frontend_parts(reach: Reach) -> &'static [Part] {
    match reach {
        Reach::Address => &[Part::Address, Part::Protocol, Part::Port],
        Reach::NodePort => &[Part::Protocol, Part::Port],
    }
}

/// One note: type, length, value (`struct nftnl_udata`).
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("nft's notes on our sets are below 100 bytes");
    [&[kind, length], value].concat()
}

/// An expression with its attributes, which are numbers.
fn expression(kind: u32, attributes: &[u32]) -> Vec<u8> {
    let attributes = (0_u8..).zip(attributes).flat_map(|(place, value)| tlv(place, &value.to_ne_bytes()));
    [tlv(0, &kind.to_ne_bytes()), tlv(1, &attributes.collect::<Vec<u8>>())].concat()
}
