//! Whether the table is as the last load left it, as far as can be told without reading elements.
//!
//! While a load writes nobody watches, and the kernel only says how many transactions there were, to whichever table. On a node
//! where others (a policy engine, another proxy's leftovers) write tables of their own, most loads would be done twice for nothing.
//! Listing sets, chains and rules costs the same whatever the number of elements (28 ms on a busy machine, not optimised), and the kernel
//! counts the elements of a set (Linux 6.16). Not seen is one element put in another's place, or a rule (`nft replace rule` keeps its
//! number), in sets and chains that are as old as the load.

use std::collections::HashMap;

use crate::netlink::nft::{DoorError, NftDoor, SetInfo};

use super::Live;
use super::names::{SetId, SetKind, TABLE};

impl Live {
    /// Asked right after a load. `false` also where the kernel does not count.
    pub(super) fn is_whole(&self, door: &mut dyn NftDoor) -> Result<bool, DoorError> {
        let hooked = door.table(TABLE)?.is_some_and(|table| !table.dormant);
        Ok(hooked && self.has_its_sets(door)? && self.has_its_chains(door)? && self.has_its_rules(door)?)
    }

    fn has_its_sets(&self, door: &mut dyn NftDoor) -> Result<bool, DoorError> {
        let found = door.sets(TABLE)?.into_iter().filter(|set| !set.flags.anonymous);
        let found: HashMap<String, SetInfo> = found.map(|set| (set.name.clone(), set)).collect();
        let mut expected = 0;
        for set in self.features.sets() {
            expected += 1;
            let Some(info) = found.get(&self.names.set(set)) else { return Ok(false) };
            if !self.has_its_number(set, info, door)? {
                return Ok(false);
            }
        }
        Ok(expected == found.len())
    }

    fn has_its_number(&self, set: SetId, info: &SetInfo, door: &mut dyn NftDoor) -> Result<bool, DoorError> {
        let shape = set.shape();
        let count = match set.kind {
            // Packets write it.
            SetKind::Affinity => return Ok(true),
            // How the kernel counts intervals depends on the kind of set it chose. These are short.
            _ if shape.interval || shape.range => door.dump(TABLE, &info.name)?.len(),
            _ => match info.count {
                Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
                None => return Ok(false),
            },
        };
        Ok(count == self.counts.get(&set).copied().unwrap_or(0))
    }

    fn has_its_chains(&self, door: &mut dyn NftDoor) -> Result<bool, DoorError> {
        let found = door.chains(TABLE)?;
        let ours: HashMap<_, _> = self.skeleton.places().collect();
        let is_ours = |chain: &crate::netlink::nft::ChainInfo| {
            let place = ours.get(chain.name.as_str());
            place.is_some_and(|place| *place == chain.place()) && chain.policy.is_none_or(|policy| policy == NF_ACCEPT)
        };
        Ok(found.len() == ours.len() && found.iter().all(is_ours))
    }

    /// A load writes all rules, in the order of the skeleton, and the kernel numbers them as they come: one that came later has a number
    /// that is out of order.
    fn has_its_rules(&self, door: &mut dyn NftDoor) -> Result<bool, DoorError> {
        let found = door.rules(TABLE)?;
        let mut handles: HashMap<&str, Vec<u64>> = HashMap::new();
        for rule in &found {
            handles.entry(&rule.chain).or_default().push(rule.handle);
        }
        let mut in_order = Vec::with_capacity(found.len());
        for (chain, rules) in self.skeleton.rule_counts() {
            let there = handles.get(chain).map_or(&[][..], Vec::as_slice);
            if there.len() != rules {
                return Ok(false);
            }
            in_order.extend_from_slice(there);
        }
        Ok(in_order.len() == found.len() && in_order.is_sorted())
    }
}

/// What our base chains say of packets at their end.
const NF_ACCEPT: u32 = 1;
