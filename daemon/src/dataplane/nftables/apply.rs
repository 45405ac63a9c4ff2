//! Bringing the kernel from one generation to the next, in one transaction whose size follows the change.

use std::collections::BTreeMap;

use crate::dataplane::{Commit, PlaneError};
use crate::model::Family;
use crate::netlink::nft::{Batch, NftDoor};
use crate::table::{Delta, NodeState, PortChange, ServicePort, ServiceTable, SetDelta};

use super::content::{Change, Changes, Content};
use super::load::{content_of, size_for};
use super::names::{BySet, SetId, SetKind, TABLE};
use super::skeleton::{Features, Skeleton, class_of};
use super::transactions::Transactions;
use super::{Limits, Live, NftablesPlane, render};

impl NftablesPlane {
    pub(super) fn apply_delta(&mut self, delta: &Delta, table: &ServiceTable) -> Result<Commit, PlaneError> {
        // Whatever goes wrong while it is taken out, only another load knows what the kernel has.
        let Some(mut live) = self.live.take() else { return self.load_table(table) };
        let changes = live.changes(delta, table, self.limits);
        match live.commit(&mut *self.door, changes, table)? {
            Some(commit) => {
                self.live = Some(live);
                Ok(commit)
            }
            // More than one transaction can hold. A load is as atomic and has no such bound.
            None => self.load_table(table),
        }
    }
}

impl Live {
    /// What the delta is in elements; takes note of what does not fit and of what becomes of affinity.
    fn changes(&mut self, delta: &Delta, table: &ServiceTable, limits: Limits) -> Changes {
        let mut changes = Changes::default();
        let mut joining = Vec::with_capacity(delta.ports.len());
        for change in &delta.ports {
            let before = change.before.as_deref().filter(|port| !self.spoiled.contains_key(&port.id));
            if let Some(port) = change.before.as_deref() {
                self.spoiled.remove(&port.id);
            }
            let after = change.after.as_deref().filter(|port| {
                let reason = self.refuse(limits, before, port, &changes);
                if let Some(reason) = &reason {
                    self.spoiled.insert(port.id.clone(), reason.clone());
                }
                reason.is_none()
            });
            render::port_change(before, after, change, &mut changes);
            self.affinity.leave(before, after, change, table.node());
            joining.extend(after);
        }
        joining.extend(self.let_in(table, limits, &mut changes));
        for port in joining {
            self.affinity.join(port, table.node(), &mut changes);
        }
        for change in &delta.addresses {
            let records = |used| {
                let mut records = Vec::new();
                render::address(change.ip, used, &mut |set: SetId, record: &[u8]| {
                    records.push((set, render::Record::from_slice(record)));
                });
                records
            };
            difference(&records(change.before), &records(change.after), &mut changes);
        }
        for (ip, wanted) in &delta.hairpins {
            render::hairpin(*ip, &mut |set: SetId, record: &[u8]| {
                if *wanted { changes.add(set, record) } else { changes.delete(set, record) }
            });
        }
        if let Some((before, after)) = &delta.node {
            node_change(before, after, &mut changes);
        }
        changes
    }

    /// Lets in Service ports that did not fit before, or earlier in the same delta, now that others have made room: a spoiled port does
    /// not wait for a change of its own.
    fn let_in<'t>(&mut self, table: &'t ServiceTable, limits: Limits, changes: &mut Changes) -> Vec<&'t ServicePort> {
        let makes_room = |(set, change): (SetId, &Change)| matches!(set.kind, SetKind::Endpoints(_)) && !change.delete.is_empty();
        if self.spoiled.is_empty() || !changes.iter().any(makes_room) {
            return Vec::new();
        }
        let mut waiting: Vec<_> = self.spoiled.keys().filter_map(|id| table.port(id)).collect();
        waiting.sort_by_cached_key(|port| table.seniority(&port.id));
        let mut admitted = Vec::new();
        for port in waiting {
            if self.refuse(limits, None, port, changes).is_none() {
                self.spoiled.remove(&port.id);
                let (cluster, local) = (SetDelta::default(), SetDelta::default());
                let arrival = PortChange { before: None, after: Some(port.clone()), cluster, local };
                render::port_change(None, Some(port), &arrival, changes);
                admitted.push(&**port);
            }
        }
        admitted
    }

    /// Why `port` does not fit where `before` was, if it does not.
    fn refuse(&self, limits: Limits, before: Option<&ServicePort>, port: &ServicePort, changes: &Changes) -> Option<String> {
        // One that was let in and did not grow stays: the limit must not throw out who is there.
        let grows = before.is_none_or(|before| {
            before.frontends != port.frontends
                || before.cluster.len() < port.cluster.len()
                || before.local.len() < port.local.len()
        });
        if !grows {
            return None;
        }
        let mut own = BySet::<usize>::default();
        for frontend in before.into_iter().flat_map(|port| &port.frontends) {
            for (pool, scope) in render::pools(frontend) {
                let backends = before.map_or(0, |port| port.set(scope).len());
                *own.entry(SetKind::Endpoints(pool).of(frontend.address.family())).or_default() += backends;
            }
        }
        let count = |set| {
            let after = changes.count_after(set, self.counts.get(&set).copied().unwrap_or(0));
            after.saturating_sub(own.get(&set).copied().unwrap_or(0))
        };
        limits.refuse(port, count)
    }

    /// Commits changes, with what they make necessary of skeleton edits and larger sets. `None`: too much for one transaction, and
    /// nothing in force was touched.
    pub(super) fn commit(
        &mut self,
        door: &mut dyn NftDoor,
        mut changes: Changes,
        table: &ServiceTable,
    ) -> Result<Option<Commit>, PlaneError> {
        let mut counts = self.counts.clone();
        for (set, _) in changes.iter() {
            let count = counts.entry(set).or_default();
            *count = changes.count_after(set, *count);
        }
        let occupied = counts.iter().filter(|(_, count)| **count > 0).map(|(set, _)| *set);
        let features = Features::of(table.node()).at_least(&self.features).with(occupied);
        let grown: BTreeMap<SetId, u32> = self
            .sizes
            .iter()
            .filter(|(set, size)| features.has(**set) && self.is_nearly_full(**set, **size, &changes))
            .map(|(set, _)| (*set, size_for(counts.get(set).copied().unwrap_or(0))))
            .collect();

        let mut to = Transactions::new(door);
        let mut names = self.names.clone();
        for (set, size) in &grown {
            names.advance(*set);
            let name = names.set(*set);
            to.batch.add_set(TABLE, &set.spec(name.clone(), Some(*size)));
            let mut content = content_of(*set, table, &self.spoiled);
            // Suspensions are not the table's but ours, and those that this delta brings are among them already.
            for (_, record) in self.affinity.suspended.iter().filter(|(suspended, _)| suspended == set) {
                content.push(*set, record);
            }
            for (_, column) in content.into_columns() {
                to.fill(&name, column.elements())?;
            }
            // The larger one has all of it already.
            changes.remove(*set);
        }
        if !grown.is_empty() {
            to.commit()?;
        }

        let edited = features != self.features || !grown.is_empty();
        let skeleton = edited.then(|| Skeleton::new(&features, &names));
        let new: Vec<SetId> = if edited { features.sets().filter(|set| !self.features.has(*set)).collect() } else { Vec::new() };
        let gone: Vec<SetId> = if edited { self.features.sets().filter(|set| !features.has(*set)).collect() } else { Vec::new() };
        let mut sizes = self.sizes.clone();
        sizes.extend(grown.iter().map(|(set, size)| (*set, *size)));
        for set in &new {
            let size = set.is_sized().then(|| size_for(counts.get(set).copied().unwrap_or(0)));
            sizes.extend(size.map(|size| (*set, size)));
            to.batch.add_set(TABLE, &set.spec(names.set(*set), size));
        }
        write_elements(&mut to.batch, &changes, |set| names.set(set));
        if let Some(skeleton) = &skeleton {
            for step in self.skeleton.edit(skeleton) {
                step.write(&mut to.batch);
            }
        }
        for set in gone.iter().copied().chain(grown.keys().copied()) {
            to.batch.delete_set(TABLE, &self.names.set(set));
        }
        if !to.fits() {
            return Ok(None);
        }
        to.commit()?;

        for set in &gone {
            counts.remove(set);
            sizes.remove(set);
            names.exceptions.remove(set);
        }
        if let Some(skeleton) = skeleton {
            (self.features, self.names, self.skeleton, self.sizes) = (features, names, skeleton, sizes);
        }
        self.counts = counts;
        Ok(Some(to.account()))
    }

    /// Three quarters full after this transaction, or full on the way: the kernel counts deleted elements until the commit.
    fn is_nearly_full(&self, set: SetId, size: u32, changes: &Changes) -> bool {
        let before = self.counts.get(&set).copied().unwrap_or(0);
        let Some(change) = changes.get(set).filter(|change| !change.add.is_empty()) else { return false };
        changes.count_after(set, before) > size as usize / 4 * 3 || before + change.add.len() > size as usize
    }
}

impl Features {
    /// What these sets, which have elements, need.
    pub(super) fn with(mut self, occupied: impl Iterator<Item = SetId>) -> Self {
        for set in occupied {
            let family = self.family_mut(set.family);
            match set.kind {
                SetKind::Class(pool, class) => family.top[pool.index()] = family.top[pool.index()].max(class),
                SetKind::Sticky(super::names::Reach::Address, timeout) => {
                    family.sticky.insert(timeout);
                }
                SetKind::Sticky(super::names::Reach::NodePort, timeout) => {
                    family.node_sticky.insert(timeout);
                }
                SetKind::Ranged => family.ranges = true,
                SetKind::Vips => family.vips = true,
                _ => {}
            }
        }
        self
    }

    /// Not fewer classes than now: a set that was large once may be so again, and an empty class costs one look-up at most.
    fn at_least(mut self, now: &Self) -> Self {
        for family in Family::ALL {
            let now = now.family(family).top;
            for (top, now) in self.family_mut(family).top.iter_mut().zip(now) {
                *top = (*top).max(now);
            }
        }
        self
    }

    /// Whether a skeleton of these features has this set.
    fn has(&self, set: SetId) -> bool {
        let family = self.family(set.family);
        match set.kind {
            SetKind::Class(pool, class) => class_of(class as usize).is_some_and(|class| class <= family.top(pool)),
            SetKind::Sticky(super::names::Reach::Address, timeout) => family.sticky.contains(&timeout),
            SetKind::Sticky(super::names::Reach::NodePort, timeout) => family.node_sticky.contains(&timeout),
            SetKind::Ranged | SetKind::Ranges => family.ranges,
            SetKind::Vips => family.vips,
            _ => true,
        }
    }
}

/// Elements of all sets, deletions before additions within each.
pub(super) fn write_elements(batch: &mut Batch, changes: &Changes, name: impl Fn(SetId) -> String) {
    for (set, change) in changes.iter() {
        let name = name(set);
        if change.flush {
            batch.flush_set(TABLE, &name);
        }
        if !change.delete.is_empty() {
            let mut writer = batch.delete_elements(TABLE, &name);
            // The kernel finds what to delete by its key alone, and refuses data in a deletion from a plain set.
            change.delete.elements().for_each(|element| {
                writer.push(crate::netlink::nft::Element { data: None, ..element });
            });
        }
        if !change.add.is_empty() {
            let mut writer = batch.add_elements(TABLE, &name);
            change.add.elements().for_each(|element| {
                writer.push(element);
            });
        }
    }
}

fn node_change(before: &NodeState, after: &NodeState, changes: &mut Changes) {
    let addresses = |node: &NodeState| {
        let mut records = Vec::new();
        render::node_addresses(node, &mut |set: SetId, record: &[u8]| records.push((set, render::Record::from_slice(record))));
        records
    };
    difference(&addresses(before), &addresses(after), changes);

    let networks = |node: &NodeState| {
        let mut content = Content::default();
        render::networks(node, &mut |set: SetId, record: &[u8]| content.push(set, record));
        content.into_columns().collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (networks(before), networks(after));
    for kind in [SetKind::Pods, SetKind::ServiceCidrs] {
        for set in Family::ALL.map(|family| kind.of(family)) {
            if old.get(&set) != new.get(&set) {
                changes.flush(set);
                new.get(&set).into_iter().flat_map(super::content::Column::records).for_each(|record| changes.add(set, record));
            }
        }
    }
}

fn difference(old: &[(SetId, render::Record)], new: &[(SetId, render::Record)], changes: &mut Changes) {
    for (set, record) in old.iter().filter(|record| !new.contains(record)) {
        changes.delete(*set, record);
    }
    for (set, record) in new.iter().filter(|record| !old.contains(record)) {
        changes.add(*set, record);
    }
}
