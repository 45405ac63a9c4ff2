//! Writing everything: a new set of sets and chains beside what is there, then the turn-over.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::dataplane::{Commit, PlaneError};
use crate::model::Family;
use crate::netlink::nft::{Batch, ChainInfo, NftDoor, SetInfo, SetSpec};
use crate::table::{PortId, ServicePort, ServiceTable};

use super::affinity::Affinity;
use super::content::Content;
use super::names::{BySet, INSTANCES, Instances, LAYOUT, LAYOUT_PREFIX, SetId, SetKind, TABLE, instance_of};
use super::sets::LEAST_SIZE;
use super::skeleton::{Features, STEP_BYTES, Skeleton, add_table};
use super::transactions::Transactions;
use super::{Limits, Live, NftablesPlane, error, render};

/// What a load found in the kernel. Elements are not among it: nothing is dumped.
struct Found {
    sets: Vec<SetInfo>,
    chains: Vec<ChainInfo>,
}

/// Hook, priority and type of a base chain, as the kernel tells them; nothing for a regular chain.
type Place<'a> = Option<(u32, i32, &'a str)>;

/// Bytes of one set's definition; the longest notes and names included.
const SET_BYTES: usize = 512;

/// Bytes of flushing or deleting one object.
const DELETE_BYTES: usize = 128;

impl NftablesPlane {
    pub(super) fn load_table(&mut self, table: &ServiceTable) -> Result<Commit, PlaneError> {
        // Whatever goes wrong from here on, only another load knows what the kernel has.
        self.live = None;
        let found = Found::ask(&mut *self.door)?;
        let outcome = self.write(table, &found);
        match &outcome {
            Ok(_) => self.has_loaded = true,
            Err(error) => self.remove_debris(error, &found),
        }
        outcome
    }

    /// Removes what a load has written that then failed: it is tried again for as long as it takes, and each try would leave another
    /// copy of the table in the kernel's memory. Not where the turn-over may have happened: then this is what serves.
    fn remove_debris(&mut self, error: &PlaneError, before: &Found) {
        if error::may_have_happened(error) {
            return;
        }
        let chains: HashSet<&str> = before.chains.iter().map(|chain| chain.name.as_str()).chain([LAYOUT]).collect();
        let sets: HashSet<String> = before.sets.iter().map(|set| set.name.clone()).collect();
        let removed =
            Found::ask(&mut *self.door).and_then(|now| now.remove_rest(&mut Transactions::new(&mut *self.door), &chains, &sets));
        if let Err(error) = removed {
            tracing::debug!(%error, "what the failed load has written stays behind until the next one that succeeds");
        }
    }

    fn write(&mut self, table: &ServiceTable, found: &Found) -> Result<Commit, PlaneError> {
        let adopted = found.affinity();
        let mut names = Instances::at(found.free_instance(&adopted)?);
        names.exceptions.extend(&adopted);
        let adopted: Vec<SetId> = adopted.into_keys().collect();

        let (content, spoiled) = content(table, self.limits);
        let counts: BySet<usize> = content.sets().map(|set| (set, content.len(set))).collect();
        let features = Features::of(table.node()).with(counts.keys().copied());
        let sizes: BySet<u32> = features
            .sets()
            .filter(|set| set.is_sized())
            .map(|set| (set, size_for(counts.get(&set).copied().unwrap_or(0))))
            .collect();
        let skeleton = Skeleton::new(&features, &names);
        let replaced = found.strangers(&skeleton, !self.has_loaded);
        let mut affinity = Affinity::of(table, |id| spoiled.contains_key(id));

        let mut to = Transactions::new(&mut *self.door);
        add_table(&mut to.batch);
        for squatter in found.squatters(&skeleton, |wanted| wanted.is_none()) {
            remove_chain(&mut to.batch, squatter);
        }
        for set in features.sets().filter(|set| !adopted.contains(set)) {
            to.make_room(SET_BYTES)?;
            to.batch.add_set(TABLE, &set.spec(names.set(set), sizes.get(&set).copied()));
        }
        for step in skeleton.build_regular() {
            to.make_room(STEP_BYTES)?;
            step.write(&mut to.batch);
        }
        to.commit()?;
        // No packet comes through these chains yet, so filling disturbs nobody. Bound while the maps are empty: for each rule that draws
        // from a map, and there are sixteen, the kernel walks all of its elements (`nf_tables_bind_set`; for the later rules of a chain,
        // too, as profiled on Linux 6.18). With 250,000 endpoints that is 13 ms a rule; that every element which is added is checked
        // against the rule is 5 ms.
        for (set, column) in content.into_columns() {
            to.fill(&names.set(set), column.elements())?;
        }
        to.commit()?;
        affinity.sweep_all(adopted.iter().map(|set| set.family));
        for set in &adopted {
            // While the old rules still serve: what outlived its backend since the last process must not be used by the new ones.
            affinity.delete_dead(&mut to, *set, &names)?;
        }

        // The turn-over. Whatever has the name of a base chain and is another would make the kernel refuse it. Base chains that this
        // skeleton does not have would go on jumping to the old one: they go now.
        for squatter in found.squatters(&skeleton, |wanted| wanted.is_some()) {
            remove_chain(&mut to.batch, squatter);
        }
        for step in skeleton.turn_over() {
            step.write(&mut to.batch);
        }
        let kept: HashSet<&str> = skeleton.names().collect();
        for base in found.chains.iter().filter(|chain| chain.base.is_some() && !kept.contains(chain.name.as_str())) {
            remove_chain(&mut to.batch, &base.name);
        }
        to.commit()?;

        // From here on the load has succeeded. What is left behind is not used; if it cannot be removed now, the next load does.
        let ours: HashSet<String> = features.sets().map(|set| names.set(set)).collect();
        if let Err(error) = found.remove_rest(&mut to, &kept, &ours) {
            to.batch = Batch::new();
            tracing::warn!(%error, "sets of the previous load stay behind until the next one");
        }
        let commit = Commit { replaced, ..to.account() };
        // The sweep stays due: the old rules may have learnt more while we were writing.
        self.live = Some(Live { features, names, skeleton, counts, sizes, spoiled, affinity });
        Ok(commit)
    }
}

/// All elements of the table, without the Service ports that do not fit.
fn content(table: &ServiceTable, limits: Limits) -> (Content, BTreeMap<PortId, String>) {
    let (mut content, mut spoiled) = ports_that_fit(table.ports(), limits);
    if !spoiled.is_empty() {
        // Which ones they are must not change from load to load, as the order of a hash map does. Whether all fit does not depend
        // on the order, so that nobody else pays for sorting.
        let mut ports: Vec<_> = table.ports().collect();
        ports.sort_by_cached_key(|port| table.seniority(&port.id));
        (content, spoiled) = ports_that_fit(ports.into_iter(), limits);
    }
    common(table, |_| true, &mut content);
    (content, spoiled)
}

/// What these Service ports have, first come, first served; and who came too late.
fn ports_that_fit<'t>(ports: impl Iterator<Item = &'t Arc<ServicePort>>, limits: Limits) -> (Content, BTreeMap<PortId, String>) {
    let mut content = Content::default();
    let mut spoiled = BTreeMap::new();
    for port in ports {
        match limits.refuse(port, |set| content.len(set)) {
            Some(reason) => {
                spoiled.insert(port.id.clone(), reason);
            }
            None => render::port(port, &mut content),
        }
    }
    (content, spoiled)
}

/// What a set has if it is written from scratch. For growing one: cost follows the table, memory the set.
pub(super) fn content_of(wanted: SetId, table: &ServiceTable, spoiled: &BTreeMap<PortId, String>) -> Content {
    let mut content = Content::default();
    for port in table.ports().filter(|port| port.id.family == wanted.family && !spoiled.contains_key(&port.id)) {
        render::port(port, &mut |set: SetId, record: &[u8]| {
            if set == wanted {
                content.push(set, record);
            }
        });
    }
    common(table, |set| set == wanted, &mut content);
    content
}

/// Elements that no Service port owns alone.
fn common(table: &ServiceTable, wanted: impl Fn(SetId) -> bool, content: &mut Content) {
    let mut put = |set: SetId, record: &[u8]| {
        if wanted(set) {
            content.push(set, record);
        }
    };
    for (ip, used) in table.addresses() {
        render::address(ip, used, &mut put);
    }
    for ip in table.hairpins() {
        render::hairpin(ip, &mut put);
    }
    render::node_addresses(table.node(), &mut put);
    render::networks(table.node(), &mut put);
}

/// Room for half as much again: a set is grown at three quarters, and growing one costs a walk over the table. Three quarters of a
/// power of two, because the kernel makes `roundup_pow_of_two(size * 4 / 3)` buckets (`nft_hash_buckets`): a power of two would
/// get twice the buckets that it can use, and each rule that binds to a map visits all of them, full or empty.
pub(super) fn size_for(elements: usize) -> u32 {
    let buckets = u32::try_from(elements.saturating_mul(2)).ok().and_then(u32::checked_next_power_of_two).unwrap_or(1 << 31);
    (buckets / 4 * 3).max(LEAST_SIZE)
}

impl Found {
    fn ask(door: &mut dyn NftDoor) -> Result<Self, PlaneError> {
        let sets = door.sets(TABLE).map_err(error::door)?;
        let chains = door.chains(TABLE).map_err(error::door)?;
        Ok(Self { sets: sets.into_iter().filter(|set| !set.flags.anonymous).collect(), chains })
    }

    /// Chains that somebody else made under a name of this skeleton: with another hook or type, with one where ours has none, or
    /// without. The kernel would not let us have the name. `among` chooses by the hook that ours has.
    fn squatters<'f>(&'f self, skeleton: &'f Skeleton, among: impl Fn(Place<'_>) -> bool) -> impl Iterator<Item = &'f str> {
        let wanted = |name: &str| skeleton.places().find(|(ours, _)| *ours == name).map(|(_, place)| place);
        let squats = move |chain: &&ChainInfo| wanted(&chain.name).is_some_and(|place| among(place) && place != chain.place());
        self.chains.iter().filter(squats).map(|chain| chain.name.as_str())
    }

    /// What a person should know to be gone after this load, because it was in its way and not ours: a table that has our name and no
    /// layout of ours, at the first load of a process, and later chains under our names.
    fn strangers(&self, skeleton: &Skeleton, first: bool) -> Vec<String> {
        let is_layout = |name: &str| name.starts_with(LAYOUT_PREFIX);
        let empty = self.sets.is_empty() && self.chains.is_empty();
        if first && !empty && !self.chains.iter().any(|chain| is_layout(&chain.name)) {
            return vec![format!("all of table inet {TABLE}, which sheave did not make")];
        }
        self.squatters(skeleton, |_| true).map(|name| format!("chain {name} of table inet {TABLE}")).collect()
    }

    /// An instance that no object has. Not just "the other one": a load that failed leaves debris, and which of two is in force
    /// cannot be seen without reading rules.
    fn free_instance(&self, adopted: &BTreeMap<SetId, u8>) -> Result<u8, PlaneError> {
        let kept: HashSet<String> = adopted.iter().map(|(map, instance)| map.named(*instance)).collect();
        let sets = self.sets.iter().map(|set| &set.name).filter(|name| !kept.contains(*name));
        let chains = self.chains.iter().filter(|chain| chain.base.is_none() && chain.name != LAYOUT).map(|chain| &chain.name);
        let taken: BTreeSet<u8> = sets.chain(chains).map(|name| instance_of(name)).collect();
        (0..INSTANCES).find(|instance| !taken.contains(instance)).ok_or_else(|| PlaneError::Kernel {
            call: "load",
            subject: format!("table inet {TABLE}: debris of {INSTANCES} loads; delete the table"),
            source: nix::errno::Errno::EEXIST.into(),
        })
    }

    /// The affinity maps that are of the right make and stay as they are, under the names they have.
    fn affinity(&self) -> BTreeMap<SetId, u8> {
        let maps = Family::ALL.into_iter().map(|family| SetKind::Affinity.of(family));
        let found = |map: SetId| {
            let there = |instance: &u8| {
                let spec = map.spec(map.named(*instance), None);
                self.sets.iter().any(|set| same_make(set, &spec))
            };
            (0..INSTANCES).find(there)
        };
        maps.filter_map(|map| Some((map, found(map)?))).collect()
    }

    /// Removes every object that is not of the new skeleton, in transactions of their own: deleting 250,000 elements holds up
    /// packets for longer than anything else a load does.
    fn remove_rest(&self, to: &mut Transactions<'_>, chains: &HashSet<&str>, sets: &HashSet<String>) -> Result<(), PlaneError> {
        let rest = || {
            let regular = self.chains.iter().filter(|chain| chain.base.is_none());
            regular.map(|chain| chain.name.as_str()).filter(|name| !chains.contains(name))
        };
        for name in rest() {
            to.make_room(DELETE_BYTES)?;
            to.batch.flush_chain(TABLE, name);
        }
        for name in rest() {
            to.make_room(DELETE_BYTES)?;
            to.batch.delete_chain(TABLE, name);
        }
        to.commit()?;
        for set in self.sets.iter().filter(|set| !sets.contains(&set.name)) {
            to.make_room(DELETE_BYTES)?;
            to.batch.delete_set(TABLE, &set.name);
        }
        to.commit()
    }
}

fn remove_chain(batch: &mut Batch, name: &str) {
    batch.flush_chain(TABLE, name);
    batch.delete_chain(TABLE, name);
}

fn same_make(found: &SetInfo, spec: &SetSpec) -> bool {
    let SetSpec { name, key_type, key_len, key_fields: _, data, flags, size, timeout, userdata: _, id: _ } = spec;
    found.name == *name
        && found.key_type == *key_type
        && found.key_len == *key_len
        && found.data == *data
        && found.flags == *flags
        && found.size == *size
        && found.timeout == *timeout
}
