//! What is derived from all Services together: which addresses are in use, and which endpoints can reach themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use smallvec::SmallVec;

use super::delta::{AddressChange, AddressUse};
use super::types::FrontendKind;
use crate::model::ServiceKey;

/// Every address that is a frontend's, or the ClusterIP of a Service, ours to serve or not.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    uses: HashMap<IpAddr, Uses>,
    /// The use before the first change since [`Addresses::take_changes`].
    before: BTreeMap<IpAddr, AddressUse>,
    /// Addresses with other claims as a ClusterIP than before the last [`Addresses::take_reowned`].
    reowned: BTreeSet<IpAddr>,
}

#[derive(Debug, Default)]
struct Uses {
    /// Frontends held at this address.
    frontends: u32,
    /// Those among them that are there because it is a VIP of a pool.
    pool_vips: u32,
    /// Whose ClusterIP it is, by key. One at most, unless an address moves or two clusters' manifests are mixed.
    owners: SmallVec<[Owner; 1]>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    service: ServiceKey,
    /// Another proxy serves that Service.
    foreign: bool,
    /// ClusterIP frontends it claims there; 1 for a foreign one.
    claims: u32,
}

/// Local endpoint addresses by the number of sets and ports they are in.
#[derive(Debug, Default)]
pub(super) struct Hairpins {
    counts: HashMap<IpAddr, u32>,
    /// Presence before the first change since [`Hairpins::take_changes`].
    before: BTreeMap<IpAddr, bool>,
}

// === impl Addresses ===

impl Addresses {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (IpAddr, AddressUse)> {
        self.uses.iter().map(|(ip, uses)| (*ip, uses.summary()))
    }

    pub(super) fn get(&self, ip: IpAddr) -> AddressUse {
        self.uses.get(&ip).map(Uses::summary).unwrap_or_default()
    }

    /// A Service whose ClusterIP it is; of several the first by key.
    pub(super) fn owner(&self, ip: IpAddr) -> Option<&ServiceKey> {
        self.uses.get(&ip)?.owners.first().map(|owner| &owner.service)
    }

    /// A frontend of this kind at this address is held.
    pub(super) fn hold(&mut self, ip: IpAddr, kind: FrontendKind) {
        let uses = self.change(ip);
        uses.frontends += 1;
        uses.pool_vips += u32::from(kind == FrontendKind::PoolVip);
    }

    /// A frontend of this kind at this address is held no longer.
    pub(super) fn release(&mut self, ip: IpAddr, kind: FrontendKind) {
        let uses = self.change(ip);
        uses.frontends -= 1;
        uses.pool_vips -= u32::from(kind == FrontendKind::PoolVip);
        self.forget_unused(ip);
    }

    /// A ClusterIP frontend at this address is claimed, or a foreign Service has it.
    pub(super) fn own(&mut self, ip: IpAddr, service: &ServiceKey, foreign: bool) {
        let uses = self.change(ip);
        match uses.find(service, foreign) {
            Ok(rank) => uses.owners[rank].claims += 1,
            Err(rank) => uses.owners.insert(rank, Owner { service: service.clone(), foreign, claims: 1 }),
        }
        self.reowned.insert(ip);
    }

    /// The opposite of [`Addresses::own`].
    pub(super) fn disown(&mut self, ip: IpAddr, service: &ServiceKey, foreign: bool) {
        let uses = self.change(ip);
        if let Ok(rank) = uses.find(service, foreign) {
            uses.owners[rank].claims -= 1;
            if uses.owners[rank].claims == 0 {
                uses.owners.remove(rank);
            }
            self.reowned.insert(ip);
        }
        self.forget_unused(ip);
    }

    pub(super) fn take_reowned(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.reowned)
    }

    /// What changed in the end, by address.
    pub(super) fn take_changes(&mut self) -> Vec<AddressChange> {
        let before = std::mem::take(&mut self.before).into_iter();
        let changes = before.map(|(ip, before)| AddressChange { ip, before, after: self.get(ip) });
        changes.filter(|change| change.before != change.after).collect()
    }

    fn change(&mut self, ip: IpAddr) -> &mut Uses {
        let uses = self.uses.entry(ip).or_default();
        self.before.entry(ip).or_insert_with(|| uses.summary());
        uses
    }

    fn forget_unused(&mut self, ip: IpAddr) {
        if self.uses.get(&ip).is_some_and(|uses| uses.frontends == 0 && uses.owners.is_empty()) {
            self.uses.remove(&ip);
        }
    }
}

impl Uses {
    fn summary(&self) -> AddressUse {
        AddressUse {
            service: self.frontends > 0,
            cluster_ip: self.owners.iter().any(|owner| !owner.foreign),
            foreign: self.owners.iter().any(|owner| owner.foreign),
            pool_vip: self.pool_vips > 0,
        }
    }

    fn find(&self, service: &ServiceKey, foreign: bool) -> Result<usize, usize> {
        self.owners.binary_search_by(|owner| (&owner.service, owner.foreign).cmp(&(service, foreign)))
    }
}

// === impl Hairpins ===

impl Hairpins {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = IpAddr> {
        self.counts.keys().copied()
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.counts.contains_key(&ip)
    }

    /// A local backend came into a set, or left one.
    pub(super) fn count(&mut self, ip: IpAddr, came: bool) {
        let present = self.counts.get(&ip).copied().unwrap_or(0);
        self.before.entry(ip).or_insert(present > 0);
        match if came { present + 1 } else { present.saturating_sub(1) } {
            0 => self.counts.remove(&ip),
            count => self.counts.insert(ip, count),
        };
    }

    /// What changed in the end, by address: `true` for those that can now reach themselves through a Service.
    pub(super) fn take_changes(&mut self) -> Vec<(IpAddr, bool)> {
        let before = std::mem::take(&mut self.before).into_iter();
        let changes = before.map(|(ip, before)| (ip, before, self.counts.contains_key(&ip)));
        changes.filter(|(_, before, after)| before != after).map(|(ip, _, after)| (ip, after)).collect()
    }
}
