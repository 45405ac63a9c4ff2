//! Which addresses a Service may keep, and which it would get (MetalLB's allocation algorithm).

use std::net::IpAddr;

use compact_str::CompactString;

use super::ledger::Terms;
use super::pools::InForce;
use super::refusal::{Lacking, Refusal, Shortage, Useless};
use super::stock::Stock;
use super::wish::{Families, Request};
use super::{Ips, Placement};
use crate::model::{Family, Service};

/// Who asks, and what for.
#[derive(Clone, Copy)]
pub(super) struct Seeker<'a> {
    pub(super) service: &'a Service,
    pub(super) families: Families,
    pub(super) terms: &'a Terms,
    /// What it holds already: preferred to any other address of the same pool, so that nothing moves without need.
    pub(super) own: &'a [IpAddr],
    /// What its status says.
    pub(super) shown: &'a [IpAddr],
}

/// What is left of what a Service held.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) placement: Option<Placement>,
    /// Why something of it is not; the first reason.
    pub(super) dropped: Option<Refusal>,
}

// === Keeping ===

impl Stock {
    /// What the Service goes on with. What somebody wrote into its status (and whether it held nothing itself) is as good as what it
    /// holds, if the pools allow all of it. If what it was promised is not to be had after all, what its status shows may be.
    pub(super) fn retain(&self, seeker: &Seeker<'_>, claim: Option<(&[IpAddr], bool)>, from: Option<&str>) -> Kept {
        if let Some((claim, held_nothing)) = claim {
            let adopted = self.keep(seeker, claim, from);
            if adopted.dropped.is_none() || held_nothing {
                return adopted;
            }
        }
        let kept = self.keep(seeker, seeker.own, from);
        match kept.placement {
            None if !seeker.own.is_empty() => Kept { dropped: kept.dropped, ..self.keep(seeker, seeker.shown, from) },
            _ => kept,
        }
    }

    /// What of `offered` the Service may keep: each address by itself, and all of the first one's pool. `from` is the pool that its
    /// annotation names.
    fn keep(&self, seeker: &Seeker<'_>, offered: &[IpAddr], from: Option<&str>) -> Kept {
        let mut kept = Kept::default();
        for &ip in offered {
            let held = kept.placement.as_ref().map_or(&[][..], |placement| &placement.addresses);
            let verdict = if held.iter().any(|other| Family::of(*other) == Family::of(ip)) {
                Err(Refusal::SameFamily(offered.into()))
            } else {
                self.may_keep(seeker, ip, from)
            };
            match (verdict, &mut kept.placement) {
                (Ok(pool), none @ None) => *none = Some(Placement { pool, addresses: Ips::from_iter([ip]) }),
                (Ok(pool), Some(placement)) if placement.pool == pool => placement.addresses.push(ip),
                (Ok(pool), Some(_)) => drop(kept.dropped.get_or_insert(Refusal::OtherPool { ip, pool })),
                (Err(refusal), _) => drop(kept.dropped.get_or_insert(refusal)),
            }
        }
        kept
    }

    /// The pool that allows it. An address in use elsewhere as well stays where it is in a status already: to take it away would help
    /// nobody.
    fn may_keep(&self, seeker: &Seeker<'_>, ip: IpAddr, from: Option<&str>) -> Result<CompactString, Refusal> {
        if !seeker.families.has(Family::of(ip)) {
            return Err(Refusal::FamilyGone(Family::of(ip)));
        }
        let pool = match (self.pools.of(ip), from) {
            (Some(own), _) if !self.pools.admits(&own.pool, seeker.service) => {
                return Err(Refusal::Incompatible(own.name().into()));
            }
            (Some(own), _) => own.name().into(),
            (None, Some(from)) if self.pools.is_unknown(from) => from.into(),
            (None, _) => return Err(Refusal::NotAllowed([ip].as_slice().into())),
        };
        if let Some(by) = self.occupant(ip).filter(|_| !seeker.shown.contains(&ip)) {
            return Err(Refusal::Occupied { ip, by: by.clone() });
        }
        self.contested(ip, &seeker.service.key, seeker.terms).map_or(Ok(pool), Err)
    }
}

// === Finding ===

impl Stock {
    /// What the Service would get. Nothing is changed by asking.
    pub(super) fn place(&self, seeker: &Seeker<'_>, request: &Request) -> Result<Placement, Refusal> {
        if !request.addresses.is_empty() {
            return self.these(seeker, request);
        }
        let Some(name) = &request.pool else { return self.anywhere(seeker) };
        let own = self.pools.get(name).ok_or_else(|| Refusal::UnknownPool(name.as_str().into()))?;
        if !self.pools.admits(&own.pool, seeker.service) {
            return Err(Refusal::Incompatible(name.clone()));
        }
        let found = self.both(own, seeker).ok_or_else(|| {
            let lacks = |family: &Family| seeker.families.has(*family) && self.pick(own, *family, seeker).is_none();
            let family = Family::ALL.into_iter().find(lacks).unwrap_or(Family::V4);
            exhausted(own, family)
        })?;
        Ok(placed(own, found, seeker))
    }

    /// One more address for a Service that holds one, of the same pool.
    pub(super) fn further(&self, seeker: &Seeker<'_>, pool: &str, family: Family) -> Result<IpAddr, Refusal> {
        let own = self.pools.get(pool).ok_or_else(|| Refusal::UnknownPool(pool.into()))?;
        self.pick(own, family, seeker).ok_or_else(|| exhausted(own, family))
    }

    /// The addresses that were asked for.
    fn these(&self, seeker: &Seeker<'_>, request: &Request) -> Result<Placement, Refusal> {
        let addresses = &request.addresses;
        let listed = || addresses.as_slice().into();
        if !seeker.families.are_those_of(addresses) {
            return Err(Refusal::FamilyMismatch(listed()));
        }
        let mut pools = addresses.iter().map(|ip| self.pools.of(*ip));
        let own = pools.next().flatten().ok_or_else(|| Refusal::NotAllowed(listed()))?;
        if pools.any(|other| other.is_none_or(|other| other.name() != own.name())) {
            return Err(Refusal::NotAllowed(listed()));
        }
        if !self.pools.admits(&own.pool, seeker.service) {
            return Err(Refusal::Incompatible(own.name().into()));
        }
        for &ip in addresses {
            if let Some(refusal) = self.contested(ip, &seeker.service.key, seeker.terms) {
                return Err(refusal);
            }
            if let Some(by) = self.occupant(ip).filter(|_| !seeker.own.contains(&ip)) {
                return Err(Refusal::Occupied { ip, by: by.clone() });
            }
        }
        match &request.pool {
            Some(pool) if pool != own.name() => Err(Refusal::PoolMismatch { addresses: listed(), pool: pool.clone() }),
            _ => Ok(Placement { pool: own.name().into(), addresses: addresses.clone() }),
        }
    }

    /// Pools that are for this Service first, by priority; then those that are for everybody, by name.
    fn anywhere(&self, seeker: &Seeker<'_>) -> Result<Placement, Refusal> {
        let automatic = || self.pools.in_force().filter(|own| own.pool.auto_assign);
        let mut pinned: Vec<_> = automatic()
            .filter_map(|own| own.pool.allocation.as_ref().map(|allocation| (own, allocation.priority)))
            .filter(|(own, _)| self.pools.admits(&own.pool, seeker.service))
            .collect();
        pinned.sort_by_key(|(own, priority)| (*priority == 0, *priority, own.name()));
        self.best(pinned.into_iter().map(|(own, _)| own), seeker)
            .or_else(|| self.best(automatic().filter(|own| own.pool.allocation.is_none()), seeker))
            .ok_or_else(|| Refusal::Exhausted(self.shortage(seeker)))
    }

    /// The first pool that has all; else, where one address will do, the first that has the primary family; else any.
    fn best<'a>(&self, pools: impl Iterator<Item = &'a InForce>, seeker: &Seeker<'_>) -> Option<Placement> {
        let mut second_best: [Option<Placement>; 2] = [None, None];
        for own in pools {
            let Some(found) = self.both(own, seeker) else { continue };
            let missing = seeker.families.missing(&found);
            let placement = placed(own, found, seeker);
            let (Some((missing, _)), Families::Both { primary, .. }) = (missing, seeker.families) else { return Some(placement) };
            second_best[usize::from(missing == primary)].get_or_insert(placement);
        }
        second_best.into_iter().flatten().next()
    }

    /// What one pool has for the Service: an address of each of its families, or of one if that will do.
    fn both(&self, own: &InForce, seeker: &Seeker<'_>) -> Option<Ips> {
        let wanted = Family::ALL.into_iter().filter(|family| seeker.families.has(*family));
        let found: Ips = wanted.filter_map(|family| self.pick(own, family, seeker)).collect();
        let enough = match (seeker.families, found.len()) {
            (_, 0) => false,
            (Families::Both { required: true, .. }, found) => found == 2,
            _ => true,
        };
        enough.then_some(found)
    }

    fn pick(&self, own: &InForce, family: Family, seeker: &Seeker<'_>) -> Option<IpAddr> {
        let key = &seeker.service.key;
        let kept =
            seeker.own.iter().copied().find(|ip| {
                Family::of(*ip) == family && own.space.covers(*ip) && self.contested(*ip, key, seeker.terms).is_none()
            });
        kept.or_else(|| self.first_in(own, family, key, seeker.terms))
    }

    fn shortage(&self, seeker: &Seeker<'_>) -> Shortage {
        let why = |name: &str| {
            let own = self.pools.get(name)?;
            let has_family = |family| seeker.families.has(family) && own.pool.ranges.iter().any(|range| range.family() == family);
            let families = Family::ALL.into_iter().filter(|family| has_family(*family)).count();
            let needed = if matches!(seeker.families, Families::Both { required: true, .. }) { 2 } else { 1 };
            Some(if !self.pools.admits(&own.pool, seeker.service) {
                Useless::Others
            } else if !own.pool.auto_assign {
                Useless::ByNameOnly
            } else if families < needed {
                Useless::Family
            } else {
                Useless::Full
            })
        };
        let pools = self.pools.latest().map(|pool| pool.key.name());
        Shortage { pools: pools.map(|name| (name.into(), why(name).unwrap_or(Useless::Invalid))).collect() }
    }
}

/// What is held stays in its place, what comes is behind it.
fn placed(own: &InForce, mut addresses: Ips, seeker: &Seeker<'_>) -> Placement {
    addresses.sort_by_key(|ip| seeker.own.iter().position(|own| own == ip).unwrap_or(usize::MAX));
    Placement { pool: own.name().into(), addresses }
}

fn exhausted(own: &InForce, family: Family) -> Refusal {
    let has_family = own.pool.ranges.iter().any(|range| range.family() == family);
    let why = if has_family { Lacking::Full } else { Lacking::Family };
    Refusal::PoolExhausted { pool: own.name().into(), family, why }
}
