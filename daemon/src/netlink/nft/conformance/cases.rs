//! The rules, one by one.

use std::ffi::CStr;
use std::time::Duration;

use nix::errno::Errno;

use super::*;
use crate::netlink::nft::abi::DATA_TYPE_VERDICT;
use crate::netlink::nft::{BaseChain, ChainKind, ChainPolicy, ChainSpec, Hook, Verdict};

macro_rules! conformance {
    ($($case:ident)*) => {
        mod fake { $(#[test] fn $case() { super::on_fake(super::$case); })* }
        mod small_fake { $(#[test] fn $case() { super::on_small_fake(super::$case); })* }
        mod kernel { $(#[test] fn $case() { super::on_kernel(super::KernelNftOptions::default(), super::$case); })* }
        mod strict_kernel { $(#[test] fn $case() { super::on_kernel(super::STRICT, super::$case); })* }
    };
}

conformance! {
    tables_come_and_go
    sets_are_listed_as_they_were_made
    equal_objects_may_be_added_again_and_others_not
    elements_may_be_added_again_with_the_same_data_only
    deleting_what_is_missing_is_refused
    destroying_what_is_missing_is_not
    one_batch_replaces
    a_refused_batch_changes_nothing
    every_refused_message_is_told
    a_full_set_refuses_the_element_above
    rules_need_what_they_refer_to
    what_is_referred_to_stays
    a_missing_set_or_table_is_refused
    seventy_thousand_elements
    the_limit_is_the_limit
    keyed_gets_leave_out_what_is_missing
    ranges_over_a_concatenation
    verdict_maps_hold_their_chains
    timeouts_need_their_flag
    a_stale_generation_is_refused
    elements_must_have_the_sets_shape
    anonymous_sets_need_their_rule
    base_chains_have_their_hooks
    nftnl_writes_into_the_batch
    an_empty_batch_is_no_transaction
    names_may_be_as_long_as_the_kernels
}

fn with_map(door: &mut dyn NftDoor) {
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &map("m"));
        batch.add_elements(TABLE, "m").push(Element::pair(&number(1), &number(10))).push(Element::pair(&number(2), &number(20)));
    })
    .unwrap();
}

fn content(door: &mut dyn NftDoor) -> Vec<(u32, u32)> {
    pairs(&door.dump(TABLE, "m").unwrap())
}

fn tables_come_and_go(door: &mut dyn NftDoor) {
    assert!(!door.table_exists(TABLE).unwrap());
    commit(door, |batch| batch.add_table(TABLE, Some(b"layout 1"))).unwrap();
    commit(door, |batch| batch.add_table(TABLE, None)).unwrap();
    let table = door.table(TABLE).unwrap().unwrap();
    assert_eq!(table.userdata.as_deref(), Some(&b"layout 1"[..]), "adding it again leaves it as it is");
    commit(door, |batch| batch.delete_table(TABLE)).unwrap();
    let refusal = refused_once(door, |batch| batch.delete_table(TABLE));
    assert_eq!((refusal.subject.as_str(), refusal.errno), ("delete table conformance", Errno::ENOENT));
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.delete_table(TABLE);
        batch.add_table(TABLE, Some(b"layout 2"));
        batch.add_set(TABLE, &set("s"));
    })
    .unwrap();
    assert_ne!(door.table(TABLE).unwrap().unwrap().handle, table.handle);
    commit(door, |batch| batch.delete_table(TABLE)).unwrap();
    assert!(!door.table_exists(TABLE).unwrap());
    assert!(door.sets(TABLE).unwrap().is_empty());
    assert!(door.chains(TABLE).unwrap().is_empty());
    assert!(door.rules(TABLE).unwrap().is_empty());
}

fn sets_are_listed_as_they_were_made(door: &mut dyn NftDoor) {
    let spec = SetSpec {
        name: "affinity".into(),
        key_type: 0x1c_c344,
        key_len: 16,
        data: Some((0x1cd, 8)),
        flags: SetFlags { timeout: true, dynamic: true, map: true, ..SetFlags::default() },
        size: Some(65_536),
        timeout: Some(Duration::from_secs(10_800)),
        userdata: Some(b"\x00\x04abc\x00".to_vec()),
        ..SetSpec::default()
    };
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &spec);
        batch.add_set(TABLE, &SetSpec { size: None, ..set("plain") });
    })
    .unwrap();
    let mut sets = door.sets(TABLE).unwrap();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    let [affinity, plain] = &sets[..] else { panic!("{sets:?}") };
    assert_eq!(
        (affinity.key_type, affinity.key_len, affinity.data, affinity.flags, affinity.size, affinity.timeout, &affinity.userdata),
        (spec.key_type, spec.key_len, spec.data, spec.flags, spec.size, spec.timeout, &spec.userdata)
    );
    assert_eq!((plain.name.as_str(), plain.data, plain.flags, plain.size), ("plain", None, SetFlags::default(), None));
    commit(door, |batch| {
        batch.add_elements(TABLE, "plain").push(Element::key(&number(1)));
    })
    .unwrap();
    let plain = door.sets(TABLE).unwrap().into_iter().find(|set| set.name == "plain").unwrap();
    assert!(matches!(plain.count, None | Some(1)), "{plain:?}");
}

fn equal_objects_may_be_added_again_and_others_not(door: &mut dyn NftDoor) {
    let chain = ChainSpec { name: "c".into(), ..ChainSpec::default() };
    let write = |batch: &mut Batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &set("s"));
        batch.add_chain(TABLE, &chain);
    };
    commit(door, write).unwrap();
    commit(door, write).unwrap();
    assert_eq!((door.sets(TABLE).unwrap().len(), door.chains(TABLE).unwrap().len()), (1, 1));
}

fn elements_may_be_added_again_with_the_same_data_only(door: &mut dyn NftDoor) {
    with_map(door);
    commit(door, |batch| {
        batch.add_elements(TABLE, "m").push(Element::pair(&number(1), &number(10)));
    })
    .unwrap();
    let refusal = refused_once(door, |batch| {
        let mut elements = batch.add_elements(TABLE, "m");
        elements.push(Element::pair(&number(3), &number(30)));
        elements.push(Element::pair(&number(2), &number(21)));
        elements.push(Element::pair(&number(4), &number(40)));
    });
    assert_eq!(refusal.subject, "add element conformance m");
    assert!(is_clash(refusal.errno), "{refusal}");
    let element = refusal.element.unwrap();
    assert_eq!((element.index, element.key), (1, number(2).to_vec()));
    let refusal = refused_once(door, |batch| {
        batch.create_elements(TABLE, "m").push(Element::pair(&number(1), &number(10)));
    });
    assert_eq!(refusal.errno, Errno::EEXIST);
    assert_eq!(content(door), [(1, 10), (2, 20)]);
}

fn deleting_what_is_missing_is_refused(door: &mut dyn NftDoor) {
    with_map(door);
    let refusal = refused_once(door, |batch| {
        batch.delete_elements(TABLE, "m").push(Element::key(&number(1))).push(Element::key(&number(7)));
    });
    assert_eq!(refusal.to_string(), "delete element conformance m #1 00000007: ENOENT: No such file or directory");
    let refusals = refused(door, |batch| {
        batch.delete_set(TABLE, "none");
        batch.delete_chain(TABLE, "none");
        batch.flush_chain(TABLE, "none");
        batch.flush_set(TABLE, "none");
        batch.delete_rule(TABLE, "none", 1);
    });
    let told: Vec<_> = refusals.iter().map(|refusal| (refusal.subject.as_str(), refusal.errno)).collect();
    let subjects = ["delete set", "delete chain", "flush chain", "flush set", "delete rule"];
    let expected: Vec<_> = subjects.iter().map(|what| (format!("{what} conformance none"), Errno::ENOENT)).collect();
    assert_eq!(told, expected.iter().map(|(subject, errno)| (subject.as_str(), *errno)).collect::<Vec<_>>());
    assert_eq!(content(door), [(1, 10), (2, 20)]);
}

fn destroying_what_is_missing_is_not(door: &mut dyn NftDoor) {
    if !door.has_destroy() {
        return;
    }
    with_map(door);
    commit(door, |batch| {
        batch.destroy_elements(TABLE, "m").push(Element::key(&number(7))).push(Element::key(&number(1)));
    })
    .unwrap();
    assert_eq!(content(door), [(2, 20)]);
}

fn one_batch_replaces(door: &mut dyn NftDoor) {
    with_map(door);
    let info = commit(door, |batch| {
        batch.delete_elements(TABLE, "m").push(Element::key(&number(1)));
        batch.add_elements(TABLE, "m").push(Element::pair(&number(1), &number(11)));
    })
    .unwrap();
    assert_eq!((info.elements, info.messages), (2, 2));
    assert_eq!(content(door), [(1, 11), (2, 20)]);
    commit(door, |batch| {
        batch.flush_set(TABLE, "m");
        batch.add_elements(TABLE, "m").push(Element::pair(&number(2), &number(22)));
    })
    .unwrap();
    assert_eq!(content(door), [(2, 22)]);
}

fn a_refused_batch_changes_nothing(door: &mut dyn NftDoor) {
    with_map(door);
    let before = door.generation().unwrap();
    refused(door, |batch| {
        batch.add_table("other", None);
        batch.add_set(TABLE, &set("s"));
        batch.add_chain(TABLE, &ChainSpec { name: "c".into(), ..ChainSpec::default() });
        add_rule(batch, "c", |buffer| lookup(buffer, "s", 0));
        batch.delete_elements(TABLE, "m").push(Element::key(&number(1)));
        batch.add_elements(TABLE, "m").push(Element::pair(&number(5), &number(50)));
        batch.flush_set(TABLE, "m");
        batch.delete_set(TABLE, "m");
        batch.delete_set(TABLE, "none");
    });
    refused(door, |batch| {
        batch.delete_table(TABLE);
        batch.add_table(TABLE, None);
        batch.delete_set(TABLE, "m");
    });
    assert_eq!(door.generation().unwrap(), before);
    assert!(!door.table_exists("other").unwrap());
    assert_eq!(door.sets(TABLE).unwrap().len(), 1);
    assert!(door.chains(TABLE).unwrap().is_empty());
    assert_eq!(content(door), [(1, 10), (2, 20)]);
}

fn every_refused_message_is_told(door: &mut dyn NftDoor) {
    with_map(door);
    let refusals = refused(door, |batch| {
        batch.delete_elements(TABLE, "m").push(Element::key(&number(8))).push(Element::key(&number(9)));
        batch.add_elements(TABLE, "m").push(Element::pair(&number(3), &number(30)));
        batch.delete_elements(TABLE, "m").push(Element::key(&number(3))).push(Element::key(&number(9)));
    });
    let indices: Vec<_> = refusals.iter().map(|refusal| refusal.element.as_ref().unwrap().index).collect();
    assert_eq!(indices, [0, 1], "one for each message, at its first bad element");
}

fn a_full_set_refuses_the_element_above(door: &mut dyn NftDoor) {
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &SetSpec { size: Some(3), ..map("m") });
        let mut elements = batch.add_elements(TABLE, "m");
        (0..3).for_each(|key| {
            elements.push(Element::pair(&number(key), &number(0)));
        });
    })
    .unwrap();
    let refusal = refused_once(door, |batch| {
        batch.add_elements(TABLE, "m").push(Element::pair(&number(2), &number(0))).push(Element::pair(&number(3), &number(0)));
    });
    assert_eq!((refusal.errno, refusal.element.unwrap().index), (Errno::ENFILE, 1));
    commit(door, |batch| {
        batch.delete_elements(TABLE, "m").push(Element::key(&number(0)));
        batch.add_elements(TABLE, "m").push(Element::pair(&number(3), &number(3)));
    })
    .unwrap();
    assert_eq!(content(door), [(1, 0), (2, 0), (3, 3)]);
}

fn rules_need_what_they_refer_to(door: &mut dyn NftDoor) {
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_chain(TABLE, &ChainSpec { name: "c".into(), ..ChainSpec::default() });
    })
    .unwrap();
    let refusals = refused(door, |batch| {
        add_rule(batch, "c", |buffer| lookup(buffer, "none", 0));
        add_rule(batch, "c", |buffer| jump(buffer, "none"));
        add_rule(batch, "none", |_| {});
    });
    assert_eq!(refusals.len(), 3);
    assert!(refusals.iter().all(|refusal| refusal.errno == Errno::ENOENT && refusal.subject == "rule"), "{refusals:?}");
    assert!(door.rules(TABLE).unwrap().is_empty());
}

fn what_is_referred_to_stays(door: &mut dyn NftDoor) {
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &set("s"));
        batch.add_chain(TABLE, &ChainSpec { name: "callee".into(), ..ChainSpec::default() });
        batch.add_chain(TABLE, &ChainSpec { name: "caller".into(), ..ChainSpec::default() });
        add_rule(batch, "caller", |buffer| {
            lookup(buffer, "s", 0);
            jump(buffer, "callee");
        });
    })
    .unwrap();
    let rules = door.rules(TABLE).unwrap();
    assert_eq!((rules.len(), rules[0].chain.as_str()), (1, "caller"));
    let refusals = refused(door, |batch| {
        batch.delete_set(TABLE, "s");
        batch.delete_chain(TABLE, "callee");
    });
    assert_eq!(refusals.iter().map(|refusal| refusal.errno).collect::<Vec<_>>(), [Errno::EBUSY, Errno::EBUSY]);
    commit(door, |batch| batch.delete_rule(TABLE, "caller", rules[0].handle)).unwrap();
    commit(door, |batch| {
        add_rule(batch, "caller", |buffer| lookup(buffer, "s", 0));
        add_rule(batch, "caller", |buffer| jump(buffer, "callee"));
    })
    .unwrap();
    assert_eq!(door.rules(TABLE).unwrap().len(), 2);
    commit(door, |batch| {
        batch.flush_chain(TABLE, "caller");
        batch.delete_set(TABLE, "s");
        batch.delete_chain(TABLE, "callee");
    })
    .unwrap();
    assert_eq!(door.chains(TABLE).unwrap().len(), 1);
    assert!(door.sets(TABLE).unwrap().is_empty() && door.rules(TABLE).unwrap().is_empty());
}

fn a_missing_set_or_table_is_refused(door: &mut dyn NftDoor) {
    let refusals = refused(door, |batch| {
        batch.add_set("none", &set("s"));
        batch.add_elements("none", "s").push(Element::key(&number(1)));
        batch.add_table(TABLE, None);
        batch.add_elements(TABLE, "s").push(Element::key(&number(1)));
    });
    assert_eq!(refusals.iter().map(|refusal| refusal.errno).collect::<Vec<_>>(), [Errno::ENOENT; 3]);
    assert_eq!(door.dump(TABLE, "s").unwrap_err().errno(), Some(Errno::ENOENT));
    assert_eq!(door.get(TABLE, "s", &[&number(1)]).unwrap_err().errno(), Some(Errno::ENOENT));
}

fn seventy_thousand_elements(door: &mut dyn NftDoor) {
    const COUNT: u32 = 70_000;
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &map("m"));
    })
    .unwrap();
    fill(door, "m", COUNT);
    let elements = door.dump(TABLE, "m").unwrap();
    assert!(pairs(&elements).into_iter().eq((0..COUNT).map(|key| (key, key))));
    // The bad one is far behind the first message's end.
    let bad = 60_000;
    let fits = door.batch_limit() > 4 << 20;
    let refusal = refused_once(door, |batch| {
        let mut elements = batch.delete_elements(TABLE, "m");
        for key in (if fits { 0 } else { bad - 1_000 }..bad).chain([COUNT]) {
            elements.push(Element::key(&number(key)));
        }
    });
    let element = refusal.element.unwrap();
    assert_eq!((element.index, element.key), (u64::from(if fits { bad } else { 1_000 }), number(COUNT).to_vec()));
    assert_eq!(refusal.errno, Errno::ENOENT);
    commit(door, |batch| batch.flush_set(TABLE, "m")).unwrap();
    assert!(door.dump(TABLE, "m").unwrap().is_empty());
}

fn the_limit_is_the_limit(door: &mut dyn NftDoor) {
    let limit = door.batch_limit();
    if limit > 4 << 20 {
        return; // the strict kernel and the small fake are meant
    }
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &map("m"));
    })
    .unwrap();
    let batch_of = |bytes: usize| {
        let mut batch = Batch::new();
        let mut elements = batch.add_elements(TABLE, "m");
        let mut key = 0;
        while elements.len() <= bytes {
            elements.push(Element::pair(&number(key), &number(key)));
            key += 1;
        }
        (batch, key)
    };
    let (batch, count) = batch_of(limit);
    let bytes = batch.len();
    assert_eq!(door.commit(batch), Err(CommitError::TooLarge { bytes, limit }));
    assert!(door.dump(TABLE, "m").unwrap().is_empty());
    // One element less is within it.
    let mut batch = Batch::new();
    let mut elements = batch.add_elements(TABLE, "m");
    for key in 1..count - 1 {
        elements.push(Element::pair(&number(key), &number(key)));
    }
    let info = door.commit(batch).unwrap();
    assert!(info.bytes > limit - 80);
    assert_eq!(door.dump(TABLE, "m").unwrap().len(), usize::try_from(count - 2).unwrap());
}

fn keyed_gets_leave_out_what_is_missing(door: &mut dyn NftDoor) {
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &map("m"));
    })
    .unwrap();
    fill(door, "m", 1_000);
    let keys: Vec<_> = (0..200).map(|key| number(key * 7)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let found = door.get(TABLE, "m", &keys).unwrap();
    assert!(pairs(&found).into_iter().eq((0..200).map(|key| key * 7).filter(|key| *key < 1_000).map(|key| (key, key))));
    assert!(found.is_sorted_by_key(|element| element.key.clone()), "in the order of the keys");
    assert!(door.get(TABLE, "m", &[]).unwrap().is_empty());
}

fn ranges_over_a_concatenation(door: &mut dyn NftDoor) {
    let ranges = SetSpec {
        name: "r".into(),
        key_type: 7 << 6 | 7,
        key_len: 8,
        key_fields: vec![4, 4],
        flags: SetFlags { interval: true, ..SetFlags::default() },
        size: Some(100),
        ..SetSpec::default()
    };
    let (from, to) = ([10, 0, 0, 1, 192, 0, 2, 0], [10, 0, 0, 1, 192, 0, 2, 255]);
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &ranges);
        batch.add_elements(TABLE, "r").push(Element { key: &from, key_end: Some(&to), ..Element::default() });
    })
    .unwrap();
    let expected = OwnedElement { key: from.to_vec(), key_end: Some(to.to_vec()), ..OwnedElement::default() };
    assert_eq!(door.dump(TABLE, "r").unwrap(), [expected]);
    commit(door, |batch| {
        batch.delete_elements(TABLE, "r").push(Element { key: &from, key_end: Some(&to), ..Element::default() });
    })
    .unwrap();
    assert!(door.dump(TABLE, "r").unwrap().is_empty());

    let single = SetSpec { name: "one".into(), flags: SetFlags { interval: true, ..SetFlags::default() }, ..set("one") };
    commit(door, |batch| {
        batch.add_set(TABLE, &single);
        batch.add_elements(TABLE, "one").push(Element::key(&number(0x0a00_0000))).push(Element {
            key: &number(0x0a00_0100),
            interval_end: true,
            ..Element::default()
        });
    })
    .unwrap();
    let mut ends: Vec<_> =
        door.dump(TABLE, "one").unwrap().into_iter().map(|element| (element.key, element.interval_end)).collect();
    ends.retain(|(key, _)| key != &number(0)); // the kernel may put an end in front of everything
    ends.sort();
    assert_eq!(ends, [(number(0x0a00_0000).to_vec(), false), (number(0x0a00_0100).to_vec(), true)]);
}

fn verdict_maps_hold_their_chains(door: &mut dyn NftDoor) {
    let verdicts = SetSpec { data: Some((DATA_TYPE_VERDICT, 0)), ..map("v") };
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_chain(TABLE, &ChainSpec { name: "c".into(), ..ChainSpec::default() });
        batch.add_set(TABLE, &verdicts);
        batch
            .add_elements(TABLE, "v")
            .push(Element { key: &number(1), verdict: Some(Verdict::Goto("c")), ..Element::default() })
            .push(Element { key: &number(2), verdict: Some(Verdict::Drop), ..Element::default() });
    })
    .unwrap();
    let mut elements = door.dump(TABLE, "v").unwrap();
    elements.sort_by(|a, b| a.key.cmp(&b.key));
    let verdicts: Vec<_> = elements.iter().filter_map(|element| element.verdict.as_ref()).collect();
    assert_eq!((verdicts[0].code, verdicts[0].chain.as_deref()), (-4, Some("c")));
    assert_eq!((verdicts[1].code, verdicts[1].chain.as_deref()), (0, None));
    assert_eq!(refused_once(door, |batch| batch.delete_chain(TABLE, "c")).errno, Errno::EBUSY);
    let refusal = refused_once(door, |batch| {
        let missing = Element { key: &number(3), verdict: Some(Verdict::Jump("none")), ..Element::default() };
        batch.add_elements(TABLE, "v").push(missing);
    });
    assert_eq!((refusal.errno, refusal.element.unwrap().index), (Errno::ENOENT, 0));
    commit(door, |batch| {
        batch.delete_elements(TABLE, "v").push(Element::key(&number(1)));
        batch.delete_chain(TABLE, "c");
    })
    .unwrap();
}

fn timeouts_need_their_flag(door: &mut dyn NftDoor) {
    let hour = Duration::from_secs(3_600);
    let aging = SetSpec {
        timeout: Some(hour * 3),
        flags: SetFlags { timeout: true, dynamic: true, map: true, ..SetFlags::default() },
        ..map("aging")
    };
    let carried = Element { timeout: Some(hour * 2), expiration: Some(hour), ..Element::pair(&[0, 0, 0, 1], &[0; 4]) };
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &map("m"));
        batch.add_set(TABLE, &aging);
        batch.add_elements(TABLE, "aging").push(carried).push(Element::pair(&[0, 0, 0, 2], &[0; 4]));
    })
    .unwrap();
    let mut elements = door.dump(TABLE, "aging").unwrap();
    elements.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(elements[0].timeout, Some(hour * 2));
    let left = elements[0].expiration.unwrap();
    assert!(left <= hour && left > hour - Duration::from_secs(60), "{left:?}");
    assert!(elements[1].expiration.unwrap() > hour * 2, "the set's own");
    let refusal = refused_once(door, |batch| {
        batch.add_elements(TABLE, "m").push(carried);
    });
    assert_eq!(refusal.errno, Errno::EINVAL);
}

fn a_stale_generation_is_refused(door: &mut dyn NftDoor) {
    let before = door.generation().unwrap();
    let mut batch = Batch::at_generation(before);
    batch.add_table(TABLE, None);
    door.commit(batch).unwrap();
    assert_eq!(door.generation().unwrap(), before + 1);
    let mut batch = Batch::at_generation(before);
    batch.add_table("late", None);
    let error = door.commit(batch).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ERESTART));
    assert!(error.to_string().starts_with("commit: transaction: ERESTART"), "{error}");
    assert!(!door.table_exists("late").unwrap());
}

fn elements_must_have_the_sets_shape(door: &mut dyn NftDoor) {
    with_map(door);
    commit(door, |batch| batch.add_set(TABLE, &set("s"))).unwrap();
    let refusals = refused(door, |batch| {
        batch.add_elements(TABLE, "m").push(Element::pair(&number(3), &number(3))).push(Element::pair(&[1, 2, 3], &number(3)));
        batch.add_elements(TABLE, "m").push(Element::pair(&number(4), &[1, 2, 3]));
        batch.add_elements(TABLE, "m").push(Element::key(&number(4)));
        batch.add_elements(TABLE, "s").push(Element::pair(&number(4), &number(4)));
    });
    let told: Vec<_> = refusals.iter().map(|refusal| (refusal.errno, refusal.element.as_ref().map(|e| e.index))).collect();
    assert_eq!(told, [(Errno::EINVAL, Some(1)), (Errno::EINVAL, Some(0)), (Errno::EINVAL, Some(0)), (Errno::EINVAL, Some(0))]);
}

fn anonymous_sets_need_their_rule(door: &mut dyn NftDoor) {
    let flags = SetFlags { anonymous: true, constant: true, ..SetFlags::default() };
    let anonymous = SetSpec { name: "__set%d".into(), flags, id: 7, ..set("") };
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_chain(TABLE, &ChainSpec { name: "c".into(), ..ChainSpec::default() });
        batch.add_set(TABLE, &SetSpec { name: "__set%d".into(), ..anonymous.clone() });
        batch.add_elements(TABLE, "__set%d").of_set_id(7).push(Element::key(&number(6)));
        add_rule(batch, "c", |buffer| lookup(buffer, "__set%d", 7));
    })
    .unwrap();
    let sets = door.sets(TABLE).unwrap();
    assert_eq!((sets.len(), sets[0].name.as_str()), (1, "__set0"));
    assert_eq!(door.dump(TABLE, "__set0").unwrap().len(), 1);
    let refusal = refused_once(door, |batch| {
        batch.add_elements(TABLE, "__set0").push(Element::key(&number(17)));
    });
    assert_eq!(refusal.errno, Errno::EBUSY, "constant once it is bound");
    commit(door, |batch| batch.flush_chain(TABLE, "c")).unwrap();
    assert!(door.sets(TABLE).unwrap().is_empty(), "goes with its rule");
    let refusal = refused_once(door, |batch| batch.add_set(TABLE, &anonymous));
    assert_eq!((refusal.subject.as_str(), refusal.errno), ("add set conformance __set%d, or the transaction", Errno::EINVAL));
}

fn base_chains_have_their_hooks(door: &mut dyn NftDoor) {
    let base = |name: &str, kind, hook, priority| ChainSpec {
        name: name.into(),
        base: Some(BaseChain { kind, hook, priority, policy: ChainPolicy::Accept }),
        userdata: None,
    };
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_chain(TABLE, &base("nat-prerouting", ChainKind::Nat, Hook::Prerouting, -100));
        batch.add_chain(TABLE, &base("filter-forward", ChainKind::Filter, Hook::Forward, 0));
        batch.add_chain(TABLE, &ChainSpec { name: "c".into(), base: None, userdata: Some(b"\x00\x02c\x00".to_vec()) });
    })
    .unwrap();
    let mut chains = door.chains(TABLE).unwrap();
    chains.sort_by(|a, b| a.name.cmp(&b.name));
    let listed: Vec<_> = chains.iter().map(|chain| (chain.name.as_str(), chain.base, chain.userdata.is_some())).collect();
    assert_eq!(listed, [("c", None, true), ("filter-forward", Some((2, 0)), false), ("nat-prerouting", Some((0, -100)), false)]);
    let refusals = refused(door, |batch| {
        batch.add_chain(TABLE, &base("nat-forward", ChainKind::Nat, Hook::Forward, 0));
        batch.add_chain(TABLE, &base("nat-early", ChainKind::Nat, Hook::Prerouting, -200));
        batch.add_chain(TABLE, &base("filter-forward", ChainKind::Filter, Hook::Forward, 1));
        add_rule(batch, "c", |buffer| jump(buffer, "filter-forward"));
    });
    let mut told: Vec<_> = refusals.iter().map(|refusal| refusal.errno).collect();
    // Another priority for a chain that is there: Linux 6.1 says that it exists, 6.18 that this is not supported.
    if told.get(2) == Some(&Errno::EEXIST) {
        told[2] = Errno::EOPNOTSUPP;
    }
    assert_eq!(told, [Errno::EOPNOTSUPP; 4]);
}

fn nftnl_writes_into_the_batch(door: &mut dyn NftDoor) {
    fn name(bytes: &[u8]) -> &CStr {
        CStr::from_bytes_with_nul(bytes).unwrap()
    }
    let table = nftnl::Table::new(name(b"conformance\0"), nftnl::ProtoFamily::Inet);
    let chain = nftnl::Chain::new(name(b"caller\0"), &table);
    let callee = nftnl::Chain::new(name(b"callee\0"), &table);
    let mut rule = nftnl::Rule::new(&chain);
    rule.add_expr(&nftnl::expr::Verdict::Jump { chain: name(b"callee\0").to_owned() });
    commit(door, |batch| {
        batch.nftnl("table", &table, nftnl::MsgType::Add);
        batch.nftnl("chain callee", &callee, nftnl::MsgType::Add);
        batch.nftnl("chain caller", &chain, nftnl::MsgType::Add);
        batch.nftnl("rule caller #0", &rule, nftnl::MsgType::Add);
        batch.add_set(TABLE, &set("s"));
    })
    .unwrap();
    assert_eq!(door.rules(TABLE).unwrap().len(), 1);
    assert_eq!(refused_once(door, |batch| batch.delete_chain(TABLE, "callee")).errno, Errno::EBUSY);
    let refusal = refused_once(door, |batch| {
        batch.delete_table(TABLE);
        batch.add_table(TABLE, None);
        batch.nftnl("rule caller #0", &rule, nftnl::MsgType::Add);
    });
    assert_eq!((refusal.subject.as_str(), refusal.errno), ("rule caller #0", Errno::ENOENT));
}

fn an_empty_batch_is_no_transaction(door: &mut dyn NftDoor) {
    let before = door.generation().unwrap();
    assert_eq!(door.commit(Batch::new()), Ok(CommitInfo::default()));
    assert_eq!(door.generation().unwrap(), before);
}

fn names_may_be_as_long_as_the_kernels(door: &mut dyn NftDoor) {
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    commit(door, |batch| {
        batch.add_table(TABLE, None);
        batch.add_set(TABLE, &set(&longest));
    })
    .unwrap();
    assert_eq!(door.sets(TABLE).unwrap()[0].name, longest);
    let refusal = refused_once(door, |batch| batch.add_set(TABLE, &set(&longer)));
    assert!(matches!(refusal.errno, Errno::ERANGE | Errno::EINVAL), "{refusal}");
    refused_once(door, |batch| batch.add_set(TABLE, &set(&"n".repeat(100_000))));
}
