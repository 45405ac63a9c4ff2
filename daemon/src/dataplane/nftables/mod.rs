//! The nftables plane, and `table inet sheave` of which it is the only writer.
//!
//! ```text
//! ServiceTable, Delta --render--> elements --apply--> one transaction
//!                                        \--load---> chunks into sets nobody refers to, then one transaction turns over
//! ```
//! Chains and rules (`skeleton`) are written once; every change of the API is set and map elements only, 6 us of kernel time at
//! 5,000 and at 50,000 frontends alike. Whatever must be replaced without a gap - at the start, after a restart, to repair, or
//! because a set is nearly full - is built beside what is in force, under other names ([`names`]), and one small transaction
//! makes the rules use it: no packet sees a half, no flow is cut, and there is no moment without rules.
//!
//! Deliberately not here: marks (masquerading is decided from the original tuple), verdict maps (one added element re-validates all
//! of them), dumps on the way of a change (the only ones are of affinity maps, in [`NftablesPlane::finish`]).

mod affinity;
mod apply;
mod content;
mod error;
mod hold;
mod load;
mod names;
mod owned_table;
mod render;
mod repair;
mod sets;
mod skeleton;
mod stand_by;
mod transactions;
mod whole;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::netlink::nft::{Batch, NftDoor};
use crate::table::{Delta, PortId, ServicePort, ServiceTable};

use super::{Commit, Damage, Dataplane, Fill, PlaneError, SetFill};
use affinity::Affinity;
use names::{BySet, Instances, SetId};
use skeleton::{Features, LARGEST_CLASS, Skeleton};

pub use hold::{HOLD_TABLE, NatHold, is_held};
pub use names::{LAYOUT, LOCALNET_TABLE, TABLE};
pub use skeleton::NAT_PRIORITY;
pub use stand_by::{STAND_BY_TABLE, StandBySign, is_left_over, stands_by};

/// Renders the ServiceTable into `table inet sheave`.
pub struct NftablesPlane {
    door: Box<dyn NftDoor>,
    limits: Limits,
    /// What the kernel has, as far as we know. `None` before the first load and after any failure: only a load can tell.
    live: Option<Live>,
    /// A load has succeeded in this process.
    has_loaded: bool,
    /// Service ports that the last good commit left out, and why: what the next one is compared with.
    left_out: BTreeMap<PortId, String>,
}

/// How much a set may have. A Service port that would exceed it spoils only itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements of one endpoint map. Each needs some 60 bytes of kernel memory and twice 8 of buckets.
    pub endpoints: usize,
    /// Backends of one Service port.
    pub backends: usize,
}

/// What the kernel has of us.
struct Live {
    features: Features,
    names: Instances,
    skeleton: Skeleton,
    /// Elements by set.
    counts: BySet<usize>,
    /// What sized sets were made for.
    sizes: BySet<u32>,
    /// Service ports that are in the table and not in the kernel, and why.
    spoiled: BTreeMap<PortId, String>,
    affinity: Affinity,
}

impl Default for Limits {
    /// Four million endpoints per map, some 300 MB of kernel memory, and the largest class.
    fn default() -> Self {
        Self { endpoints: 1 << 22, backends: LARGEST_CLASS as usize }
    }
}

impl NftablesPlane {
    /// A plane that has not looked at the kernel yet; the first [`Dataplane::load`] does.
    #[must_use]
    pub fn new(door: Box<dyn NftDoor>) -> Self {
        Self::with_limits(door, Limits::default())
    }

    /// The same, with limits of one's own.
    #[must_use]
    pub fn with_limits(door: Box<dyn NftDoor>, limits: Limits) -> Self {
        Self { door, limits, live: None, has_loaded: false, left_out: BTreeMap::new() }
    }

    /// Notes in the commit which Service ports it left out that were not before, and which it brought at last.
    fn compare_left_out(&mut self, mut commit: Commit, table: &ServiceTable) -> Commit {
        let Some(live) = self.live.as_ref().filter(|live| live.spoiled != self.left_out) else { return commit };
        let before = std::mem::replace(&mut self.left_out, live.spoiled.clone());
        let spoiled = live.spoiled.iter().filter(|(id, _)| !before.contains_key(id));
        commit.spoiled = spoiled.map(|(id, reason)| (id.clone(), reason.clone())).collect();
        // One that is gone has not recovered.
        let recovered = before.into_keys().filter(|id| !live.spoiled.contains_key(id) && table.port(id).is_some());
        commit.recovered = recovered.collect();
        commit
    }
}

impl Dataplane for NftablesPlane {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn load(&mut self, table: &ServiceTable) -> Result<Commit, PlaneError> {
        let commit = self.load_table(table).map_err(|error| error::explain(&mut *self.door, error, &[TABLE]))?;
        Ok(self.compare_left_out(commit, table))
    }

    fn apply(&mut self, delta: &Delta, table: &ServiceTable) -> Result<Commit, PlaneError> {
        let commit = self.apply_delta(delta, table).map_err(|error| error::explain(&mut *self.door, error, &[TABLE]))?;
        Ok(self.compare_left_out(commit, table))
    }

    fn repair(&mut self, damage: &Damage, table: &ServiceTable) -> Result<Commit, PlaneError> {
        let commit = self.repair_damage(damage, table).map_err(|error| error::explain(&mut *self.door, error, &[TABLE]))?;
        Ok(self.compare_left_out(commit, table))
    }

    fn is_whole(&mut self) -> bool {
        let Some(live) = &self.live else { return false };
        live.is_whole(&mut *self.door).unwrap_or_else(|error| {
            tracing::debug!(%error, "whether the table is whole cannot be told");
            false
        })
    }

    fn finish(&mut self) -> Result<Commit, PlaneError> {
        self.finish_affinity()
    }

    fn fill(&self) -> Fill {
        let Some(live) = &self.live else { return Fill::default() };
        let size = |set: &SetId| live.sizes.get(set).map(|size| usize::try_from(*size).unwrap_or(usize::MAX));
        let fill = |(set, elements): (&SetId, &usize)| SetFill { name: set.to_string(), elements: *elements, size: size(set) };
        Fill { sets: live.counts.iter().map(fill).collect(), not_programmed: live.spoiled.len() }
    }
}

/// Deletes `table inet sheave` with all that is in it, and a hold and a sign that nobody has any more; nothing else. Says whether there was one.
///
/// What translates goes first, and the rest in a transaction of its own: a packet that is on its way between the two hooks is still
/// masqueraded, where other rules take over (`sheave migrate back`).
///
/// # Errors
/// See [`PlaneError`].
pub fn cleanup(door: &mut dyn NftDoor) -> Result<bool, PlaneError> {
    let mut translating = Batch::new();
    let chains = door.chains(TABLE).map_err(error::door)?;
    for chain in chains.iter().filter(|chain| chain.base.is_some() && skeleton::TRANSLATING.contains(&chain.name.as_str())) {
        translating.flush_chain(TABLE, &chain.name);
        translating.delete_chain(TABLE, &chain.name);
    }
    door.commit(translating).map_err(error::commit)?;
    let mut batch = Batch::new();
    for table in [TABLE, HOLD_TABLE] {
        if door.table_exists(table).map_err(error::door)? {
            batch.delete_table(table);
        }
    }
    if is_left_over(door, STAND_BY_TABLE).map_err(error::door)? {
        batch.delete_table(STAND_BY_TABLE);
    }
    if batch.is_empty() {
        return Ok(false);
    }
    door.commit(batch).map_err(|refused| error::explain(door, error::commit(refused), &[TABLE, HOLD_TABLE]))?;
    Ok(true)
}

/// Frontends that the kernel can dispatch, of all families and kinds: elements of the class sets, counted there.
///
/// # Errors
/// See [`PlaneError`].
pub fn frontends(door: &mut dyn NftDoor) -> Result<usize, PlaneError> {
    let mut count = 0;
    for set in door.sets(TABLE).map_err(error::door)? {
        if set.name.starts_with("class-") || set.name.starts_with("node-class-") {
            count += door.dump(TABLE, &set.name).map_err(error::door)?.len();
        }
    }
    Ok(count)
}

impl Limits {
    /// Why this Service port cannot be rendered beside maps of these counts, if it cannot.
    fn refuse(self, port: &ServicePort, count: impl Fn(SetId) -> usize) -> Option<String> {
        let most = port.cluster.len().max(port.local.len());
        if most > self.backends {
            return Some(format!("{most} backends are above the limit of {}", self.backends));
        }
        let mut wanted = BySet::<usize>::default();
        for frontend in &port.frontends {
            for (pool, scope) in render::pools(frontend) {
                *wanted.entry(names::SetKind::Endpoints(pool).of(frontend.address.family())).or_default() +=
                    port.set(scope).len();
            }
        }
        wanted.into_iter().find(|(set, more)| count(*set) + more > self.endpoints).map(|(set, more)| {
            format!("map {set} has {} elements, {more} more are above the limit of {}", count(set), self.endpoints)
        })
    }
}
