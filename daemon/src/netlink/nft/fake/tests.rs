use super::*;
use crate::netlink::nft::{Element, SetFlags, SetSpec};

const TABLE: &str = "t";

fn with_set(size: u32) -> FakeNft {
    let fake = FakeNft::new();
    let flags = SetFlags { timeout: true, dynamic: true, ..SetFlags::default() };
    let mut batch = Batch::new();
    batch.add_table(TABLE, None);
    batch.add_set(TABLE, &SetSpec { name: "s".into(), key_len: 1, size: Some(size), flags, ..SetSpec::default() });
    fake.another().commit(batch).unwrap();
    fake
}

fn adding(key: u8) -> Batch {
    let mut batch = Batch::new();
    batch.add_elements(TABLE, "s").push(Element::key(&[key]));
    batch
}

#[test]
fn fails_when_told_to_and_only_once() {
    let fake = with_set(10);
    let mut door = fake.another();
    fake.fail_next(Errno::ENOMEM);
    assert_eq!(door.commit(adding(1)).unwrap_err().to_string(), "commit: transaction: ENOMEM: Out of memory (told to fail)");
    assert_eq!(fake.count(TABLE, "s"), Some(0));
    door.commit(adding(1)).unwrap();
    assert_eq!(fake.count(TABLE, "s"), Some(1));
}

#[test]
fn a_lost_answer_is_a_commit_all_the_same() {
    let fake = with_set(10);
    fake.lose_next_answer();
    assert_eq!(fake.another().commit(adding(1)), Err(CommitError::Unknown { errno: Errno::ENOBUFS }));
    assert_eq!(fake.count(TABLE, "s"), Some(1));
}

#[test]
fn a_batch_without_its_end_is_dropped_without_a_word() {
    let fake = with_set(10);
    let mut batch = Batch::new();
    // A length beyond the buffer: nothing after it is seen, the end neither.
    batch.raw("noise", |buffer, _| buffer.extend_from_slice(&[255; 32]));
    assert_eq!(fake.another().commit(batch), Err(CommitError::Unknown { errno: Errno::ENOMSG }));
}

#[test]
fn packets_learn_until_the_set_is_full() {
    let fake = with_set(2);
    let element = |key| OwnedElement { key: vec![key], ..OwnedElement::default() };
    let generation = fake.another().generation().unwrap();
    assert_eq!([1, 1, 2, 3].map(|key| fake.learn(TABLE, "s", &element(key))), [true, true, true, false]);
    assert!(!fake.learn(TABLE, "none", &element(1)));
    assert_eq!(fake.another().generation().unwrap(), generation, "no transaction");
    assert_eq!(fake.another().get(TABLE, "s", &[&[3], &[1]]).unwrap(), [element(1)]);
}

#[test]
fn doors_of_one_namespace_have_ports_of_their_own() {
    let fake = with_set(2);
    let (mut one, other) = (fake.another(), fake.another());
    assert_ne!(one.port_id(), other.port_id());
    one.commit(adding(1)).unwrap();
    assert_eq!(other.count(TABLE, "s"), Some(1));
}
