use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::table::fixtures::{backend, backends};

/// A set made in one go at generation 1.
fn set(list: &[&str]) -> BackendSet {
    BackendSet::default().updated(&backends(list), 1).set
}

fn places(set: &BackendSet) -> Vec<String> {
    set.slots().iter().map(|slot| format!("{slot:?}")).collect()
}

#[test]
fn a_slot_gives_back_what_was_put_in() {
    for text in ["10.0.0.1:80", "10.0.0.1:65535*", "[2001:db8::1]:53", "[::ffff:10.0.0.1]:80*"] {
        let slot = Slot::new(backend(text), 77);
        assert_eq!(slot.backend(), backend(text));
        assert_eq!(slot.id(), BackendId { address: backend(text).address, generation: 77 });
    }
}

#[test]
fn the_first_backends_take_their_places_in_order() {
    let change = BackendSet::default().updated(&backends(&["10.0.0.1:80", "10.0.0.2:80"]), 4);
    assert_eq!(places(&change.set), ["10.0.0.1:80@4", "10.0.0.2:80@4"]);
    assert_eq!(change.delta.writes[1], SlotWrite { slot: 1, before: None, after: Some(backend("10.0.0.2:80")) });
    assert_eq!(change.delta.added.len(), 2);
}

#[test]
fn a_newcomer_is_appended() {
    let change = set(&["10.0.0.2:80", "10.0.0.3:80"]).updated(&backends(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]), 2);
    assert_eq!(places(&change.set), ["10.0.0.2:80@1", "10.0.0.3:80@1", "10.0.0.1:80@2"]);
    assert_eq!(change.delta.writes.len(), 1);
}

#[test]
fn the_last_moves_into_the_hole_with_its_identity() {
    let change = set(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).updated(&backends(&["10.0.0.2:80", "10.0.0.3:80"]), 2);
    assert_eq!(places(&change.set), ["10.0.0.3:80@1", "10.0.0.2:80@1"]);
    let (one, three) = (Some(backend("10.0.0.1:80")), Some(backend("10.0.0.3:80")));
    let moved = [SlotWrite { slot: 0, before: one, after: three }, SlotWrite { slot: 2, before: three, after: None }];
    assert_eq!(change.delta.writes, moved);
    assert_eq!(change.delta.removed, [Slot::new(backend("10.0.0.1:80"), 1).id()]);
    assert_eq!(change.delta.added, []);
}

#[test]
fn a_replacement_takes_the_place_of_the_one_it_replaces() {
    let change =
        set(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).updated(&backends(&["10.0.0.1:80", "10.0.0.3:80", "10.0.0.4:80"]), 2);
    assert_eq!(places(&change.set), ["10.0.0.1:80@1", "10.0.0.4:80@2", "10.0.0.3:80@1"]);
    assert_eq!(change.delta.writes.len(), 1);
}

#[test]
fn becoming_local_is_no_write_and_no_new_identity() {
    let change = set(&["10.0.0.1:80", "10.0.0.2:80"]).updated(&backends(&["10.0.0.1:80", "10.0.0.2:80*"]), 2);
    assert_eq!(places(&change.set), ["10.0.0.1:80@1", "10.0.0.2:80@1 local"]);
    assert!(change.delta.is_empty());
    assert_eq!(change.local, [("10.0.0.2".parse().unwrap(), true)]);
}

#[test]
fn an_unchanged_set_shares_its_memory() {
    let old = set(&["10.0.0.1:80"]);
    let change = old.updated(&backends(&["10.0.0.1:80"]), 2);
    assert!(Arc::ptr_eq(&old.slots, &change.set.slots));
}

#[test]
fn coming_back_is_another_identity() {
    let gone = set(&["10.0.0.1:80"]).updated(&[], 2).set;
    assert!(gone.is_empty());
    assert_eq!(places(&gone.updated(&backends(&["10.0.0.1:80"]), 3).set), ["10.0.0.1:80@3"]);
}

/// What is wanted, by a number that stands for the address; the value says whether it is local.
fn wanted() -> impl Strategy<Value = BTreeMap<u8, bool>> {
    btree_map(0..24u8, any::<bool>(), 0..16)
}

/// Few addresses, and ports that sort otherwise than their text.
fn list(wanted: &BTreeMap<u8, bool>, v6: bool) -> Vec<Backend> {
    let ip = |n: u8| if v6 { IpAddr::V6(Ipv6Addr::from([n / 3; 16])) } else { IpAddr::from([10, 0, 0, n / 3]) };
    wanted.iter().map(|(&n, &local)| Backend { address: (ip(n), u16::from(n % 3) * 900).into(), local }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_history_gives_the_wanted_set_by_few_writes(history in prop::collection::vec(wanted(), 1..8), v6 in any::<bool>()) {
        let mut set = BackendSet::default();
        for (generation, wanted) in (1u64..).zip(&history) {
            let wanted = list(wanted, v6);
            let SetChange { set: new, delta, local } = set.updated(&wanted, generation);

            prop_assert_eq!(new.sorted().collect::<Vec<_>>(), wanted.clone());
            prop_assert_eq!(new.slots().iter().copied().collect::<BackendSet>(), new.clone());
            for (place, slot) in new.slots().iter().enumerate() {
                prop_assert_eq!(new.find(slot.address()), Some((index(place), slot)));
            }

            // The writes turn the old array into the new, in any order; here from the last to the first.
            let mut array: Vec<Option<SocketAddr>> = set.iter().map(|backend| Some(backend.address)).collect();
            array.resize(set.len().max(new.len()), None);
            for write in delta.writes.iter().rev() {
                let place = &mut array[write.slot as usize];
                prop_assert_eq!(*place, write.before.map(|backend| backend.address));
                *place = write.after.map(|backend| backend.address);
            }
            let now: Vec<_> = array.iter().copied().map_while(|place| place).collect();
            prop_assert!(array[now.len()..].iter().all(Option::is_none));
            prop_assert_eq!(now, new.iter().map(|backend| backend.address).collect::<Vec<_>>());

            let (a, r) = (delta.added.len(), delta.removed.len());
            prop_assert!(delta.writes.len() <= a.max(2 * r - a.min(2 * r)), "{} writes for +{a} -{r}", delta.writes.len());

            // Identities: those who stay keep theirs, all others are new.
            let ids = |set: &BackendSet| set.slots().iter().map(Slot::id).collect::<std::collections::HashSet<_>>();
            let (old_ids, new_ids) = (ids(&set), ids(&new));
            let old_addresses: BTreeSet<_> = set.iter().map(|backend| backend.address).collect();
            for id in &new_ids {
                prop_assert_eq!(old_addresses.contains(&id.address), old_ids.contains(id));
                prop_assert!(old_ids.contains(id) || id.generation == generation);
            }
            prop_assert_eq!(delta.added.iter().copied().collect::<std::collections::HashSet<_>>(), &new_ids - &old_ids);
            prop_assert_eq!(delta.removed.iter().copied().collect::<std::collections::HashSet<_>>(), &old_ids - &new_ids);

            let locals = |set: &BackendSet| set.iter().filter(|backend| backend.local).count();
            let came = local.iter().filter(|(_, came)| *came).count();
            prop_assert_eq!(locals(&set) + 2 * came, locals(&new) + local.len());
            set = new;
        }
    }
}
