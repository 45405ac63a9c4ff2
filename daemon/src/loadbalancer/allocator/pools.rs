//! Which version of each pool is in force, who may use it, and what is wrong with the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

use super::space::Space;
use crate::model::load_balancer::{AddressPool, AddressRange, NamespaceLabels, PoolCounts, ServiceAllocation};
use crate::model::{Family, Labels, ObjectKey, Problem, Service};

/// The label that the API server puts on every namespace, so that selectors can name one. A directory of manifests need not have
/// Namespaces at all: one that is not there is taken to have this label alone.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A pool with so many addresses left will never run out.
const ENDLESS: i64 = (1 << 62) - (1 << 32);

/// All pools. No two of those in force have an address in common.
#[derive(Debug, Default)]
pub(super) struct Pools {
    /// The latest version of each, good or bad.
    latest: BTreeMap<ObjectKey, Arc<AddressPool>>,
    /// What is wrong with the latest version of those that are not in force.
    faults: BTreeMap<ObjectKey, Vec<Fault>>,
    /// What is in force, by the name Services know.
    in_force: BTreeMap<CompactString, InForce>,
    /// First address of every range in force -> its last one, and whose it is.
    extents: BTreeMap<IpAddr, (IpAddr, CompactString)>,
    namespaces: BTreeMap<Arc<str>, Labels>,
    /// A pool came, went or changed.
    unsettled: bool,
}

/// One pool in force.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) pool: Arc<AddressPool>,
    pub(super) space: Space,
    /// How many of its addresses Services hold, IPv4 and IPv6.
    pub(super) assigned: [i64; 2],
}

/// Why the latest version of a pool is not in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The decoder could not make sense of a field.
    #[error("{0}")]
    Field(Problem),
    /// Two of its own ranges have an address in common.
    #[error("its ranges {one} and {other} overlap")]
    OverlapsItself {
        /// The one listed first.
        one: AddressRange,
        /// The other.
        other: AddressRange,
    },
    /// A range of it and one of another pool have an address in common, and the other pool was there first.
    #[error("its range {range} overlaps with {others} of pool {pool:?}")]
    Overlaps {
        /// Its own.
        range: AddressRange,
        /// The other pool's.
        others: AddressRange,
        /// The pool that keeps its addresses.
        pool: CompactString,
    },
    /// Services know a pool by its name alone, and in another namespace there is one of this name.
    #[error("pool {0} has the same name, by which Services know it")]
    NameTaken(ObjectKey),
}

/// What is tried as one: versions without a common address.
#[derive(Default)]
struct Draft<'a> {
    extents: BTreeMap<IpAddr, (IpAddr, &'a ObjectKey)>,
    names: BTreeMap<&'a str, &'a ObjectKey>,
}

// === Input ===

impl Pools {
    /// A pool is there, or another version of it. One in which nothing but our own counts changed is no change.
    pub(super) fn set(&mut self, pool: Arc<AddressPool>) {
        let same =
            self.latest.get(&pool.key).is_some_and(|known| AddressPool { counts: known.counts, ..(*pool).clone() } == **known);
        self.unsettled |= !same;
        self.latest.insert(pool.key.clone(), pool);
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.unsettled |= self.latest.remove(key).is_some();
    }

    /// Whether that is a change.
    pub(super) fn set_namespace(&mut self, namespace: NamespaceLabels) -> bool {
        let NamespaceLabels { name, labels } = namespace;
        let changed = self.namespaces.get(&name) != Some(&labels);
        self.namespaces.insert(name, labels);
        changed
    }

    /// Whether it was there.
    pub(super) fn remove_namespace(&mut self, name: &str) -> bool {
        self.namespaces.remove(name).is_some()
    }

    /// A pool came, went or changed since [`Pools::decide`].
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled
    }
}

// === What is in force ===

impl Pools {
    /// Decides what is in force from now on. All addresses are free then: the caller takes out what somebody has.
    ///
    /// The latest version of every pool, all of them at once, so that addresses can pass from one pool to another. A version that
    /// overlaps with another is not used: of two pools the one keeps its addresses that had them already; of two new ones the older,
    /// then the first by key. The pool that loses keeps the version that was in force before, if there is one.
    pub(super) fn decide(&mut self) {
        self.unsettled = false;
        let before: BTreeMap<ObjectKey, Arc<AddressPool>> = std::mem::take(&mut self.in_force)
            .into_values()
            .filter(|own| self.latest.contains_key(&own.pool.key))
            .map(|own| (own.pool.key.clone(), own.pool))
            .collect();
        self.faults = self.latest.values().map(|pool| (pool.key.clone(), own_faults(pool))).collect();
        self.faults.retain(|_, faults| !faults.is_empty());
        let mut contenders: Vec<_> = self.latest.values().filter(|pool| !self.faults.contains_key(&pool.key)).cloned().collect();
        contenders.sort_by_key(|pool| seniority(pool));

        let mut chosen = self.all_at_once(&before, &contenders);
        // Whoever lost to a version that lost as well may win after all.
        let mut more = true;
        while std::mem::take(&mut more) {
            for pool in &contenders {
                if chosen.get(&pool.key).is_some_and(|own| Arc::ptr_eq(own, pool)) {
                    continue;
                }
                let others = chosen.values().filter(|other| other.key != pool.key);
                if let Some(fault) = Draft::of(others).conflict(pool) {
                    self.faults.insert(pool.key.clone(), vec![fault]);
                } else {
                    self.faults.remove(&pool.key);
                    chosen.insert(pool.key.clone(), pool.clone());
                    more = true;
                }
            }
        }
        self.extents = chosen.values().flat_map(extents).collect();
        let fresh = |pool: Arc<AddressPool>| {
            let space = Space::new(&pool);
            (pool.key.name().into(), InForce { pool, space, assigned: [0, 0] })
        };
        self.in_force = chosen.into_values().map(fresh).collect();
    }

    /// The latest version of every contender, or, where that cannot be, the one before; of the others, the one before.
    fn all_at_once(
        &self,
        before: &BTreeMap<ObjectKey, Arc<AddressPool>>,
        contenders: &[Arc<AddressPool>],
    ) -> BTreeMap<ObjectKey, Arc<AddressPool>> {
        let mut usable: BTreeSet<&ObjectKey> = contenders.iter().map(|pool| &pool.key).collect();
        loop {
            let version = |latest| version(latest, before.get(&latest.key), usable.contains(&latest.key));
            let mut versions: Vec<_> = self.latest.values().filter_map(version).collect();
            versions.sort_by_key(|(pool, new)| (*new, seniority(pool)));
            let mut draft = Draft::default();
            let mut refused = Vec::new();
            for (pool, _) in &versions {
                if draft.conflict(pool).is_some() {
                    refused.push(&pool.key);
                } else {
                    draft.add(pool);
                }
            }
            // What was in force comes first and has no conflict, so what is refused are contenders: each round has fewer.
            if refused.is_empty() {
                return versions.into_iter().map(|(pool, _)| (pool.key.clone(), pool.clone())).collect();
            }
            for key in refused {
                usable.remove(key);
            }
        }
    }

    /// The pool in force of this name.
    pub(super) fn get(&self, name: &str) -> Option<&InForce> {
        self.in_force.get(name)
    }

    /// All in force, by name.
    pub(super) fn in_force(&self) -> impl Iterator<Item = &InForce> {
        self.in_force.values()
    }

    pub(super) fn in_force_mut(&mut self) -> impl Iterator<Item = &mut InForce> {
        self.in_force.values_mut()
    }

    /// The latest version of every pool, by key.
    pub(super) fn latest(&self) -> impl Iterator<Item = &Arc<AddressPool>> {
        self.latest.values()
    }

    /// What is wrong with the latest version of a pool.
    pub(super) fn faults(&self, key: &ObjectKey) -> &[Fault] {
        self.faults.get(key).map_or(&[], Vec::as_slice)
    }

    /// No pool at all, good or bad.
    pub(super) fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// A pool of this name is there, but never had a version that could be used, as far as we know: what its addresses are, nobody can
    /// say, so nobody's address is taken for want of it.
    pub(super) fn is_unknown(&self, name: &str) -> bool {
        !self.in_force.contains_key(name) && self.latest.keys().any(|key| key.name() == name)
    }

    /// Whose address it is. One that is kept from everybody (`avoidBuggyIPs`) is nobody's.
    pub(super) fn of(&self, ip: IpAddr) -> Option<&InForce> {
        let (_, (last, name)) = self.extents.range(..=ip).next_back()?;
        self.in_force.get(name).filter(|own| ip <= *last && own.space.covers(ip))
    }

    /// [`Pools::of`], to change it.
    pub(super) fn of_mut(&mut self, ip: IpAddr) -> Option<&mut InForce> {
        let (_, (last, name)) = self.extents.range(..=ip).next_back()?;
        self.in_force.get_mut(name).filter(|own| ip <= *last && own.space.covers(ip))
    }

    /// Whether this Service may use the pool (`spec.serviceAllocation`): one of the namespaces if any are given, and one of the
    /// Service selectors if any are given. Selectors that match no namespace leave nobody.
    pub(super) fn admits(&self, pool: &AddressPool, service: &Service) -> bool {
        let Some(allocation) = &pool.allocation else { return true };
        let ServiceAllocation { priority: _, namespaces, namespace_selectors, service_selectors } = allocation;
        let namespace = service.key.namespace();
        let by_namespace = (namespaces.is_empty() && namespace_selectors.is_empty())
            || namespaces.iter().any(|name| name == namespace)
            || self.with_labels_of(namespace, |labels| namespace_selectors.iter().any(|selector| selector.matches(labels)));
        let labels = service.load_balancer.as_ref().map(|request| &request.labels);
        by_namespace
            && (service_selectors.is_empty()
                || labels.is_some_and(|labels| service_selectors.iter().any(|selector| selector.matches(labels))))
    }

    fn with_labels_of(&self, namespace: &str, ask: impl FnOnce(&Labels) -> bool) -> bool {
        match self.namespaces.get(namespace) {
            Some(labels) => ask(labels),
            None => ask(&[(NAME_LABEL, namespace)].into_iter().collect()),
        }
    }
}

impl InForce {
    /// The name that Services know.
    pub(super) fn name(&self) -> &str {
        self.pool.key.name()
    }

    /// So many more of its addresses are held.
    pub(super) fn count(&mut self, ip: IpAddr, more: i64) {
        self.assigned[usize::from(ip.is_ipv6())] += more;
    }

    /// For its status.
    pub(super) fn counts(&self) -> PoolCounts {
        let [assigned_v4, assigned_v6] = self.assigned;
        // From 2^62 on it is endless, as MetalLB counts; so a little less than 2^62 that is left of it is, too.
        let available = |family| match i64::try_from(self.space.left(family)) {
            Ok(left) if left < ENDLESS => left,
            _ => i64::MAX,
        };
        PoolCounts { assigned_v4, assigned_v6, available_v4: available(Family::V4), available_v6: available(Family::V6) }
    }
}

impl<'a> Draft<'a> {
    fn of(pools: impl Iterator<Item = &'a Arc<AddressPool>>) -> Self {
        let mut draft = Self::default();
        pools.for_each(|pool| draft.add(pool));
        draft
    }

    /// Why the pool cannot be added.
    fn conflict(&self, pool: &AddressPool) -> Option<Fault> {
        if let Some(&other) = self.names.get(pool.key.name()) {
            return Some(Fault::NameTaken(other.clone()));
        }
        pool.ranges.iter().find_map(|&range| {
            // Those in the draft do not overlap, so the last one that begins before the end of this range decides.
            let (&first, &(last, other)) = self.extents.range(..=range.last()).next_back()?;
            let others = AddressRange::new(first, last).ok()?;
            range.overlap(others).map(|_| Fault::Overlaps { range, others, pool: other.name().into() })
        })
    }

    fn add(&mut self, pool: &'a AddressPool) {
        self.names.insert(pool.key.name(), &pool.key);
        self.extents.extend(pool.ranges.iter().map(|range| (range.first(), (range.last(), &pool.key))));
    }
}

/// The version of a pool to be tried, and whether it has addresses that it did not have before.
fn version<'a>(
    latest: &'a Arc<AddressPool>,
    before: Option<&'a Arc<AddressPool>>,
    usable: bool,
) -> Option<(&'a Arc<AddressPool>, bool)> {
    match before {
        Some(before) if !usable => Some((before, false)),
        _ if !usable => None,
        before => Some((latest, before.is_none_or(|before| before.ranges != latest.ranges))),
    }
}

/// By what new pools queue for addresses, least first.
fn seniority(pool: &AddressPool) -> (i64, ObjectKey) {
    (pool.created.unwrap_or(i64::MAX), pool.key.clone())
}

/// What is wrong with a version by itself.
fn own_faults(pool: &AddressPool) -> Vec<Fault> {
    let mut faults: Vec<_> = pool.problems.iter().cloned().map(Fault::Field).collect();
    let mut sorted: Vec<_> = pool.ranges.iter().copied().enumerate().collect();
    sorted.sort_by_key(|(place, range)| (*range, *place));
    let mut reached: Option<(usize, AddressRange)> = None;
    for (place, range) in sorted {
        if let Some((earlier, one)) = reached.filter(|(_, one)| one.overlap(range).is_some()) {
            let (one, other) = if earlier < place { (one, range) } else { (range, one) };
            faults.push(Fault::OverlapsItself { one, other });
        }
        if reached.is_none_or(|(_, one)| one.last() < range.last()) {
            reached = Some((place, range));
        }
    }
    faults
}

fn extents(pool: &Arc<AddressPool>) -> impl Iterator<Item = (IpAddr, (IpAddr, CompactString))> {
    pool.ranges.iter().map(|range| (range.first(), (range.last(), pool.key.name().into())))
}
