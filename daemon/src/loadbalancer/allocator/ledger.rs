//! Who holds which address, and who may join (`allow-shared-ip`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::refusal::Refusal;
use crate::model::load_balancer::AddressRange;
use crate::model::{Protocol, Service, ServiceKey, TrafficPolicy};

/// On what terms a Service would share its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// With whom. `None`: with nobody.
    party: Option<Party>,
    /// What it needs for itself: no two on an address may want the same.
    ports: Vec<(Protocol, u16)>,
}

/// Services of one party may be on one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Party {
    /// The annotation's value, never empty.
    key: CompactString,
    backend: Backend,
}

/// One node answers for an address, so all on it must be able to be served there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Backend {
    /// `externalTrafficPolicy: Cluster`: any node will do.
    Cluster,
    /// `Local`: those that select the same pods, by the literal selector. One without a selector is a `Local` like any other
    /// (MetalLB lets it share with `Cluster`, where its traffic is lost).
    Local(CompactString),
}

/// Who holds what. An address that nobody holds is not in it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Several on one address are of one party, and want different ports.
    users: BTreeMap<IpAddr, SmallVec<[User; 1]>>,
    /// The addresses of each party.
    shared: BTreeMap<Party, BTreeSet<IpAddr>>,
}

#[derive(Debug)]
struct User {
    service: ServiceKey,
    terms: Arc<Terms>,
}

impl Terms {
    pub(super) fn of(service: &Service) -> Self {
        let request = service.load_balancer.as_ref();
        let backend = match service.external_traffic_policy {
            TrafficPolicy::Cluster => Backend::Cluster,
            TrafficPolicy::Local => Backend::Local(request.map(|request| request.selector.clone()).unwrap_or_default()),
        };
        let key = request.and_then(|request| request.sharing_key.clone()).filter(|key| !key.is_empty());
        let ports = service.ports.iter().map(|port| (port.protocol, port.port)).collect();
        Self { party: key.map(|key| Party { key, backend }), ports }
    }

    fn clash(&self, other: &Self) -> Option<(Protocol, u16)> {
        self.ports.iter().copied().find(|port| other.ports.contains(port))
    }
}

impl Ledger {
    /// Why this Service cannot have the address, others having it. What it has itself is in nobody's way.
    pub(super) fn refusal(&self, ip: IpAddr, service: &ServiceKey, terms: &Terms) -> Option<Refusal> {
        let others = || self.users.get(&ip).into_iter().flatten().filter(|user| user.service != *service);
        if others().any(|user| terms.party.is_none() || user.terms.party != terms.party) {
            let mut others: Vec<_> = others().map(|user| user.service.clone()).collect();
            others.sort_unstable();
            return Some(Refusal::SharingKey { service: service.clone(), others: others.into() });
        }
        let (protocol, port) = others().find_map(|user| terms.clash(&user.terms))?;
        Some(Refusal::PortInUse { protocol, port, ip })
    }

    /// The addresses within a range that Services of one party with these terms hold, lowest first.
    pub(super) fn shared(&self, terms: &Terms, range: AddressRange) -> impl Iterator<Item = IpAddr> {
        let addresses = terms.party.as_ref().and_then(|party| self.shared.get(party));
        addresses.into_iter().flat_map(move |addresses| addresses.range(range.first()..=range.last()).copied())
    }

    /// Everything held within a range.
    pub(super) fn held(&self, range: AddressRange) -> impl Iterator<Item = IpAddr> {
        self.users.range(range.first()..=range.last()).map(|(ip, _)| *ip)
    }

    /// Who holds the address.
    pub(super) fn users(&self, ip: IpAddr) -> impl Iterator<Item = &ServiceKey> {
        self.users.get(&ip).into_iter().flatten().map(|user| &user.service)
    }

    pub(super) fn is_held(&self, ip: IpAddr) -> bool {
        self.users.contains_key(&ip)
    }

    /// The Service holds the address, having been asked about. Whether it is the first to do so.
    pub(super) fn add(&mut self, ip: IpAddr, service: &ServiceKey, terms: &Arc<Terms>) -> bool {
        let users = self.users.entry(ip).or_default();
        let first = users.is_empty();
        users.push(User { service: service.clone(), terms: terms.clone() });
        if let Some(party) = &terms.party {
            self.shared.entry(party.clone()).or_default().insert(ip);
        }
        first
    }

    /// The Service holds it no longer. Whether nobody does.
    pub(super) fn remove(&mut self, ip: IpAddr, service: &ServiceKey) -> bool {
        let Some(users) = self.users.get_mut(&ip) else { return false };
        let Some(place) = users.iter().position(|user| user.service == *service) else { return false };
        let left = users.remove(place);
        if !users.is_empty() {
            return false;
        }
        self.users.remove(&ip);
        if let Some(party) = &left.terms.party
            && let Some(addresses) = self.shared.get_mut(party)
        {
            addresses.remove(&ip);
            if addresses.is_empty() {
                self.shared.remove(party);
            }
        }
        true
    }
}
