//! All addresses there are: the pools, who holds what, and what is in use elsewhere. Here they are kept in step.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::ledger::{Ledger, Terms};
use super::pools::{InForce, Pools};
use super::refusal::Refusal;
use super::{Occupant, Placement};
use crate::model::load_balancer::AddressRange;
use crate::model::{Family, ServiceKey};

/// What can be handed out, and what cannot.
///
/// An address of a pool is free if no Service holds it and nobody else has it: `free = pool - ledger - occupants`, in every pool, after
/// every method.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) pools: Pools,
    ledger: Ledger,
    /// In use outside the load balancer.
    occupants: BTreeMap<IpAddr, Occupant>,
}

impl Stock {
    /// Pools that came, went or changed take effect.
    pub(super) fn decide_pools(&mut self) {
        self.pools.decide();
        let Self { pools, ledger, occupants } = self;
        for own in pools.in_force_mut() {
            for &range in &own.pool.clone().ranges {
                for ip in ledger.held(range) {
                    own.space.take(ip);
                    own.count(ip, 1);
                }
                for (&ip, _) in occupants.range(range.first()..=range.last()) {
                    own.space.take(ip);
                }
            }
        }
    }

    /// The address is in use elsewhere, or no longer. Who holds it goes on holding it. Whether that is a change.
    pub(super) fn set_occupant(&mut self, ip: IpAddr, occupant: Option<Occupant>) -> bool {
        if self.occupants.get(&ip) == occupant.as_ref() {
            return false;
        }
        match occupant {
            Some(occupant) => {
                self.occupants.insert(ip, occupant);
                if let Some(own) = self.pools.of_mut(ip) {
                    own.space.take(ip);
                }
            }
            None => {
                self.occupants.remove(&ip);
                self.free(ip);
            }
        }
        true
    }

    /// Which Services hold the address.
    pub(super) fn users(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.ledger.users(ip)
    }

    /// Who else has the address.
    pub(super) fn occupant(&self, ip: IpAddr) -> Option<&Occupant> {
        self.occupants.get(&ip)
    }

    /// Addresses within a range that are in use elsewhere.
    pub(super) fn occupied(&self, range: AddressRange) -> impl Iterator<Item = (IpAddr, &Occupant)> {
        self.occupants.range(range.first()..=range.last()).map(|(ip, occupant)| (*ip, occupant))
    }

    /// The Service holds these from now on. Whoever asks for it has looked whether it may.
    pub(super) fn hold(&mut self, placement: &Placement, service: &ServiceKey, terms: &Arc<Terms>) {
        for &ip in &placement.addresses {
            let first = self.ledger.add(ip, service, terms);
            if let Some(own) = self.pools.of_mut(ip).filter(|_| first) {
                own.space.take(ip);
                own.count(ip, 1);
            }
        }
    }

    /// The Service holds these no longer.
    pub(super) fn release(&mut self, placement: &Placement, service: &ServiceKey) {
        for &ip in &placement.addresses {
            if !self.ledger.remove(ip, service) {
                continue;
            }
            if let Some(own) = self.pools.of_mut(ip) {
                own.count(ip, -1);
            }
            self.free(ip);
        }
    }

    /// Why the Service cannot have the address because of those who hold it.
    pub(super) fn contested(&self, ip: IpAddr, service: &ServiceKey, terms: &Terms) -> Option<Refusal> {
        self.ledger.refusal(ip, service, terms)
    }

    /// The address of a pool that a Service would get which holds none there: range by range as the pool lists them, the lowest that
    /// is free or that it can share.
    pub(super) fn first_in(&self, pool: &InForce, family: Family, service: &ServiceKey, terms: &Terms) -> Option<IpAddr> {
        pool.space.lowest(family).find_map(|(range, free)| {
            let below = |ip: &IpAddr| free.is_none_or(|free| *ip < free);
            let mut shared = self.ledger.shared(terms, range).take_while(below);
            let joins = |ip: &IpAddr| {
                pool.space.covers(*ip) && !self.occupants.contains_key(ip) && self.contested(*ip, service, terms).is_none()
            };
            shared.find(joins).or(free)
        })
    }

    fn free(&mut self, ip: IpAddr) {
        if !self.ledger.is_held(ip)
            && !self.occupants.contains_key(&ip)
            && let Some(own) = self.pools.of_mut(ip)
        {
            own.space.give(ip);
        }
    }
}
