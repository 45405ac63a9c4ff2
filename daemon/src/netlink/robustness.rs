//! Whatever comes in, no reader panics; and what the writers wrote, the readers read.

use nix::errno::Errno;
use proptest::prelude::*;

use super::attr::{self, Attrs, Fields};
use super::conntrack::Flow;
use super::message::{self, Messages};
use super::nft::abi::{self, msg};
use super::nft::{Batch, CommitError, Element, FakeNft, MonitorEvent, NftDoor, OwnedElement, SetSpec};

const TABLE: &str = "t";

/// Bytes that look like messages: small lengths and known types are likely.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let header = (0..64_u32, prop_oneof![msg::NEWTABLE..=msg::DESTROYSETELEM, 0..0x200_u16], any::<u16>());
    let attribute = (0..40_u16, 0..26_u16, prop::collection::vec(any::<u8>(), 0..24));
    let message = (header, prop::collection::vec(attribute, 0..4)).prop_map(|((length, kind, flags), attributes)| {
        let mut bytes = Vec::new();
        let start = message::begin(&mut bytes, kind, flags, 1, abi::NFPROTO_INET, 0);
        for (length, kind, payload) in attributes {
            let at = bytes.len();
            attr::put(&mut bytes, kind, &payload);
            if length < 8 {
                bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
            }
        }
        message::end(&mut bytes, start);
        if length < 20 {
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
        }
        bytes
    });
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(message, 0..5).prop_map(|all| all.concat())]
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in datagram()) {
        let attributes: Vec<_> = Attrs::new(&bytes).collect();
        prop_assert!(attributes.len() <= bytes.len() / attr::HEADER);
        for message in Messages::new(&bytes) {
            prop_assert!(message.payload.len() < bytes.len());
            let _ = message.acknowledgement();
            let _ = MonitorEvent::parse(&message, TABLE);
            let _ = Flow::parse(&message);
        }
        let _ = OwnedElement::parse(&bytes);
        let fields: Fields<'_, 5> = Fields::parse(&bytes);
        for kind in 0..8 {
            let _ = (fields.text(kind), fields.u8(kind), fields.u16_be(kind), fields.u64_be(kind), fields.u32_ne(kind));
        }
    }

    /// As a message among others: the fake reads what a batch holds.
    #[test]
    fn no_message_makes_the_fake_panic(bytes in datagram()) {
        let mut fake = FakeNft::new();
        let mut batch = Batch::new();
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &SetSpec { name: "s".into(), key_len: 4, ..SetSpec::default() });
        fake.commit(batch).expect("a table and a set");
        let mut batch = Batch::new();
        batch.raw("noise", |buffer, _| buffer.extend_from_slice(&bytes));
        let before = fake.generation().unwrap();
        if let Err(CommitError::Refused { refusals }) = fake.commit(batch) {
            prop_assert!(!refusals.is_empty());
            prop_assert_eq!(fake.generation().unwrap(), before);
        }
    }

    #[test]
    fn what_is_written_is_read(
        key in prop::collection::vec(any::<u8>(), 1..64),
        data in prop::option::of(prop::collection::vec(any::<u8>(), 1..64)),
        seconds in prop::option::of(0..100_000_u64),
        interval_end: bool,
    ) {
        let timeout = seconds.map(std::time::Duration::from_secs);
        let element = Element { key: &key, data: data.as_deref(), timeout, interval_end, ..Element::default() };
        let mut batch = Batch::new();
        batch.add_elements(TABLE, "s").push(element);
        let fake = FakeNft::new();
        fake.record();
        let error = fake.another().commit(batch).unwrap_err();
        prop_assert_eq!(error.errno(), Some(Errno::ENOENT), "no such set; but the bytes are recorded");
        let bytes = fake.recorded().concat();
        let message = Messages::new(&bytes).find(|message| message.kind == msg::NEWSETELEM).unwrap();
        let list = message.fields::<4>().bytes(abi::element::LIST_ELEMENTS).unwrap();
        let read: Vec<_> = OwnedElement::parse_list(list).collect();
        prop_assert_eq!(read, [OwnedElement { key, data, timeout, interval_end, ..OwnedElement::default() }]);
    }
}

#[test]
fn answers_are_read_with_and_without_their_extras() {
    // nlmsgerr of -17 for sequence 5, capped, with a text and an offset.
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&2_u16.to_ne_bytes()); // NLMSG_ERROR
    bytes.extend_from_slice(&0x300_u16.to_ne_bytes()); // NLM_F_CAPPED | NLM_F_ACK_TLVS
    bytes.extend_from_slice(&5_u32.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(-17_i32).to_ne_bytes());
    bytes.extend_from_slice(&[200, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]); // the request's header: 200 bytes
    attr::put_text(&mut bytes, 1, "no room");
    attr::put(&mut bytes, 2, &160_u32.to_ne_bytes());
    message::end(&mut bytes, 0);
    let answer = Messages::new(&bytes).next().unwrap().acknowledgement().unwrap();
    assert_eq!((answer.errno, answer.sequence, answer.offset, answer.text.as_deref()), (17, 5, Some(160), Some("no room")));
    for cut in 36..bytes.len() {
        let mut cut = bytes[..cut].to_vec();
        message::end(&mut cut, 0);
        assert_eq!(Messages::new(&cut).next().unwrap().acknowledgement().unwrap().errno, 17);
    }
}
