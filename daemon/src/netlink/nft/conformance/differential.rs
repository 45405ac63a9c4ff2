//! The same random transactions to the kernel and to the fake, over a world so small that they collide all the time: the same
//! outcome, the same refusals at the same elements, and the same content after each.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::netlink::nft::ChainSpec;

/// Full at three, so that `ENFILE` happens.
const SIZE: u32 = 3;

/// One refusal: subject, place and key of the element, reason.
type Told = (String, Option<(u64, Vec<u8>)>, Errno);

/// Sets with their elements, chains with their number of uses, and the chains of the rules.
type Content = (Vec<(String, Vec<(u32, u32)>)>, Vec<(String, u32)>, Vec<String>);

#[derive(Clone, Copy, Debug)]
enum Op {
    AddTable,
    DeleteTable,
    AddSet(u8),
    DeleteSet(u8),
    FlushSet(u8),
    Add { set: u8, first: (u8, u8), second: (u8, u8), exclusive: bool },
    Delete { set: u8, first: u8, second: u8, destroy: bool },
    AddChain(u8),
    DeleteChain(u8),
    FlushChain(u8),
    AddLookup { chain: u8, set: u8 },
    AddJump { chain: u8, target: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let set = 0..2_u8;
    let pair = (0..5_u8, 0..2_u8);
    prop_oneof![
        2 => Just(Op::AddTable),
        1 => Just(Op::DeleteTable),
        6 => set.clone().prop_map(Op::AddSet),
        2 => set.clone().prop_map(Op::DeleteSet),
        2 => set.clone().prop_map(Op::FlushSet),
        14 => (set.clone(), pair.clone(), pair, prop::bool::weighted(0.2))
            .prop_map(|(set, first, second, exclusive)| Op::Add { set, first, second, exclusive }),
        8 => (set.clone(), 0..5_u8, 0..5_u8, any::<bool>())
            .prop_map(|(set, first, second, destroy)| Op::Delete { set, first, second, destroy }),
        5 => (0..3_u8).prop_map(Op::AddChain),
        2 => (0..3_u8).prop_map(Op::DeleteChain),
        2 => (0..3_u8).prop_map(Op::FlushChain),
        4 => (0..3_u8, set).prop_map(|(chain, set)| Op::AddLookup { chain, set }),
        // Upwards only: the fake does not look for loops.
        4 => (0..3_u8, 0..3_u8).prop_filter_map("a loop", |(chain, target)| (chain < target).then_some(Op::AddJump { chain, target })),
    ]
}

fn write(batch: &mut Batch, op: Op, has_destroy: bool) {
    let set_name = |set: u8| format!("m{set}");
    let chain_name = |chain: u8| format!("c{chain}");
    match op {
        Op::AddTable => batch.add_table(TABLE, None),
        Op::DeleteTable => batch.delete_table(TABLE),
        Op::AddSet(set) => batch.add_set(TABLE, &SetSpec { size: Some(SIZE), ..map(&set_name(set)) }),
        Op::DeleteSet(set) => batch.delete_set(TABLE, &set_name(set)),
        Op::FlushSet(set) => batch.flush_set(TABLE, &set_name(set)),
        Op::Add { set, first, second, exclusive } => {
            let name = set_name(set);
            let mut elements = if exclusive { batch.create_elements(TABLE, &name) } else { batch.add_elements(TABLE, &name) };
            for (key, data) in [first, second] {
                elements.push(Element::pair(&number(key.into()), &number(data.into())));
            }
        }
        Op::Delete { set, first, second, destroy } => {
            let name = set_name(set);
            let mut elements =
                if destroy && has_destroy { batch.destroy_elements(TABLE, &name) } else { batch.delete_elements(TABLE, &name) };
            elements.push(Element::key(&number(first.into()))).push(Element::key(&number(second.into())));
        }
        Op::AddChain(chain) => batch.add_chain(TABLE, &ChainSpec { name: chain_name(chain), ..ChainSpec::default() }),
        Op::DeleteChain(chain) => batch.delete_chain(TABLE, &chain_name(chain)),
        Op::FlushChain(chain) => batch.flush_chain(TABLE, &chain_name(chain)),
        Op::AddLookup { chain, set } => add_rule(batch, &chain_name(chain), |buffer| lookup(buffer, &set_name(set), 0)),
        Op::AddJump { chain, target } => add_rule(batch, &chain_name(chain), |buffer| jump(buffer, &chain_name(target))),
    }
}

/// What a transaction did, with the words that differ between kernels taken out.
fn outcome(door: &mut dyn NftDoor, ops: &[Op], has_destroy: bool) -> Vec<Told> {
    match commit(door, |batch| ops.iter().for_each(|op| write(batch, *op, has_destroy))) {
        Ok(_) => Vec::new(),
        Err(CommitError::Refused { refusals }) => {
            let told = |refusal: Refusal| {
                let subject = refusal.subject.trim_end_matches(", or the transaction").to_owned();
                let errno = if is_clash(refusal.errno) { Errno::EEXIST } else { refusal.errno };
                (subject, refusal.element.map(|element| (element.index, element.key)), errno)
            };
            refusals.into_iter().map(told).collect()
        }
        Err(other) => panic!("{other}"),
    }
}

/// All there is.
fn content(door: &mut dyn NftDoor) -> Content {
    let names: Vec<_> = door.sets(TABLE).unwrap().into_iter().map(|set| set.name).collect();
    let mut sets: Vec<_> = names.into_iter().map(|name| (name.clone(), pairs(&door.dump(TABLE, &name).unwrap()))).collect();
    let mut chains: Vec<_> = door.chains(TABLE).unwrap().into_iter().map(|chain| (chain.name, chain.uses)).collect();
    let mut rules: Vec<_> = door.rules(TABLE).unwrap().into_iter().map(|rule| rule.chain).collect();
    sets.sort();
    chains.sort();
    rules.sort();
    (sets, chains, rules)
}

#[test]
fn the_fake_does_what_the_kernel_does() {
    in_namespace(|| {
        let transactions = prop::collection::vec(prop::collection::vec(op(), 1..8), 1..8);
        let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
        let mut kernel = KernelNft::open().unwrap();
        let has_destroy = kernel.has_destroy();
        let kernel = RefCell::new(kernel); // proptest's closure is not FnMut
        runner
            .run(&transactions, |transactions| {
                let (mut kernel, mut fake) = (kernel.borrow_mut(), FakeNft::new());
                for door in [&mut *kernel as &mut dyn NftDoor, &mut fake] {
                    commit(door, |batch| {
                        batch.add_table(TABLE, None);
                        batch.delete_table(TABLE);
                        batch.add_table(TABLE, None);
                    })
                    .unwrap();
                }
                for ops in &transactions {
                    let expected = outcome(&mut *kernel, ops, has_destroy);
                    prop_assert_eq!(outcome(&mut fake, ops, has_destroy), expected, "kernel on the right: {:?}", ops);
                    prop_assert_eq!(content(&mut fake), content(&mut *kernel), "kernel on the right: {:?}", ops);
                }
                Ok(())
            })
            .unwrap();
    });
}
