//! One suite for the kernel and its fake, so that what holds on the one holds on the other. The kernel takes it twice: as it is, and
//! as an older or stricter system would have it (acknowledgement on the last message, a small send buffer).

mod cases;
mod differential;

use nix::errno::Errno;

use super::abi::{self, element as elem, msg, rule};
use super::{
    Batch, CommitError, CommitInfo, Element, FakeNft, KernelNft, KernelNftOptions, NftDoor, OwnedElement, Refusal, SetFlags,
    SetSpec,
};
use crate::netlink::attr;
use crate::netlink::message::{self, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST};
use crate::netlink::testns::in_namespace;

const TABLE: &str = "conformance";

/// Old and strict: no answer to the end of a batch, and as much send buffer as anybody gets.
const STRICT: KernelNftOptions = KernelNftOptions {
    send_buffer: 64 << 10,
    receive_buffer: 64 << 10,
    force_buffers: false,
    probe_end_ack: false,
    probe_destroy: false,
};

fn on_fake(case: fn(&mut dyn NftDoor)) {
    case(&mut FakeNft::new());
}

fn on_small_fake(case: fn(&mut dyn NftDoor)) {
    let fake = FakeNft::new();
    fake.set_batch_limit(100_000);
    case(&mut fake.another());
}

fn on_kernel(options: KernelNftOptions, case: fn(&mut dyn NftDoor)) {
    in_namespace(|| case(&mut KernelNft::open_with(options).unwrap()));
}

fn commit(door: &mut dyn NftDoor, write: impl FnOnce(&mut Batch)) -> Result<CommitInfo, CommitError> {
    let mut batch = Batch::new();
    write(&mut batch);
    door.commit(batch)
}

/// Commits what must be refused.
fn refused(door: &mut dyn NftDoor, write: impl FnOnce(&mut Batch)) -> Vec<Refusal> {
    match commit(door, write) {
        Err(CommitError::Refused { refusals }) => refusals,
        other => panic!("not refused: {other:?}"),
    }
}

/// Commits what must be refused for one reason.
fn refused_once(door: &mut dyn NftDoor, write: impl FnOnce(&mut Batch)) -> Refusal {
    let mut refusals = refused(door, write);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals.remove(0)
}

/// A set of 4-byte keys.
fn set(name: &str) -> SetSpec {
    SetSpec { name: name.into(), key_type: 13, key_len: 4, size: Some(1 << 17), ..SetSpec::default() }
}

/// A map from 4-byte keys to 4 bytes.
fn map(name: &str) -> SetSpec {
    SetSpec { data: Some((13, 4)), flags: SetFlags { map: true, ..SetFlags::default() }, ..set(name) }
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

/// Key and data of a map's elements, sorted.
fn pairs(elements: &[OwnedElement]) -> Vec<(u32, u32)> {
    let read = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let pair = |element: &OwnedElement| (read(&element.key), element.data.as_deref().map_or(0, read));
    let mut pairs: Vec<_> = elements.iter().map(pair).collect();
    pairs.sort_unstable();
    pairs
}

/// A rule of these expressions; the subject of its errors is `rule`.
fn add_rule(batch: &mut Batch, chain: &str, expressions: impl FnOnce(&mut Vec<u8>)) {
    batch.raw("rule", |buffer, sequence| {
        let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND | message::NLM_F_ACK;
        let start = message::begin(buffer, msg::NEWRULE, flags, sequence, abi::NFPROTO_INET, 0);
        attr::put_text(buffer, rule::TABLE, TABLE);
        attr::put_text(buffer, rule::CHAIN, chain);
        attr::nest(buffer, rule::EXPRESSIONS, expressions);
        message::end(buffer, start);
    });
}

/// `meta mark @set`; `id` from 1 for a set that this transaction makes
fn lookup(buffer: &mut Vec<u8>, set: &str, id: u32) {
    expression(buffer, "meta", |buffer| {
        attr::put_u32_be(buffer, 1, 8); // NFTA_META_DREG, NFT_REG32_00
        attr::put_u32_be(buffer, 2, 3); // NFTA_META_KEY, NFT_META_MARK
    });
    expression(buffer, "lookup", |buffer| {
        attr::put_text(buffer, rule::LOOKUP_SET, set);
        attr::put_u32_be(buffer, 2, 8); // NFTA_LOOKUP_SREG
        if id > 0 {
            attr::put_u32_be(buffer, rule::LOOKUP_SET_ID, id);
        }
    });
}

/// `jump chain`
fn jump(buffer: &mut Vec<u8>, chain: &str) {
    expression(buffer, "immediate", |buffer| {
        attr::put_u32_be(buffer, 1, 0); // NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT
        attr::nest(buffer, rule::IMMEDIATE_DATA, |buffer| {
            attr::nest(buffer, elem::DATA_VERDICT, |buffer| {
                attr::put(buffer, elem::VERDICT_CODE, &(-3_i32).to_be_bytes());
                attr::put_text(buffer, elem::VERDICT_CHAIN, chain);
            });
        });
    });
}

fn expression(buffer: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    attr::nest(buffer, abi::LIST_ELEM, |buffer| {
        attr::put_text(buffer, rule::EXPR_NAME, name);
        attr::nest(buffer, rule::EXPR_DATA, data);
    });
}

/// Adds `count` elements to a map in as few batches as the door takes.
fn fill(door: &mut dyn NftDoor, name: &str, count: u32) {
    let limit = door.batch_limit();
    let mut next = 0;
    while next < count {
        let mut batch = Batch::new();
        let mut elements = batch.add_elements(TABLE, name);
        while next < count && elements.len() + 512 < limit {
            elements.push(Element::pair(&number(next), &number(next)));
            next += 1;
        }
        door.commit(batch).unwrap();
    }
}

/// What the kernel calls it when a key is there with other data: `EBUSY` in older ones.
fn is_clash(errno: Errno) -> bool {
    matches!(errno, Errno::EEXIST | Errno::EBUSY)
}
