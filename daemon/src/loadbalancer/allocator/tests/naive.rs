//! The rules a second time, straight from the text (MetalLB's, section by section), address by address and without a thought for speed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::World;
use crate::model::load_balancer::{AddressPool, IpFamilyPolicy, LoadBalancerRequest, PoolCounts};
use crate::model::{Family, Service, ServiceType, TrafficPolicy};

/// Pools in force, by name.
pub(super) type InForce = BTreeMap<String, AddressPool>;

/// What a new Service should get: pool and addresses.
pub(super) fn expected(world: &World, pools: &InForce, service: &Service) -> Option<(String, Vec<IpAddr>)> {
    let request = service.load_balancer.as_ref().unwrap();
    let families: BTreeSet<_> = service.cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
    let wanted = request.pool.clone().filter(|pool| !pool.is_empty());
    // "Explicit IPs: service family must equal requested family; all in one pool; sharing check; pool compatible."
    if let Some(list) = request.addresses.as_ref().or(request.address.as_ref()) {
        let addresses: Vec<IpAddr> = list.split(',').map(|ip| ip.parse().unwrap()).collect();
        let asked: BTreeSet<_> = addresses.iter().map(|ip| Family::of(*ip)).collect();
        let (name, pool) = pools.iter().find(|(_, pool)| addresses.iter().all(|ip| contains(pool, *ip)))?;
        let granted = asked == families
            && admits(world, pool, service)
            && wanted.is_none_or(|wanted| wanted == *name)
            && addresses.iter().all(|ip| can_have(world, *ip, service));
        return granted.then(|| (name.clone(), addresses));
    }
    // "Else explicit pool: first free per family in that pool."
    if let Some(wanted) = wanted {
        let pool = pools.get(&*wanted)?;
        let found = from_pool(world, pool, service, &families);
        return Some((wanted.to_string(), found)).filter(|(_, found)| !found.is_empty() && admits(world, pool, service));
    }
    // "Else pinned pools by priority; if none has room, any un-pinned autoAssign pool."
    let mut pinned: Vec<_> = pools.iter().filter(|(_, pool)| pool.allocation.is_some() && admits(world, pool, service)).collect();
    pinned.sort_by_key(|(_, pool)| match pool.allocation.as_ref().unwrap().priority {
        0 => i64::MAX,
        priority => priority,
    });
    let general: Vec<_> = pools.iter().filter(|(_, pool)| pool.allocation.is_none()).collect();
    [pinned, general].into_iter().find_map(|group| {
        let offers = group.into_iter().filter(|(_, pool)| pool.auto_assign);
        let offers: Vec<_> = offers.map(|(name, pool)| (name.clone(), from_pool(world, pool, service, &families))).collect();
        // "PreferDualStack prefers a pool having both families, else primary family pool, else secondary."
        let primary = request.families.first().copied().unwrap_or(Family::V4);
        let whole = offers.iter().find(|(_, found)| found.len() == families.len());
        let first = || offers.iter().find(|(_, found)| found.iter().any(|ip| Family::of(*ip) == primary));
        let any = || offers.iter().find(|(_, found)| !found.is_empty());
        whole.or_else(first).or_else(any).cloned()
    })
}

/// Lowest address first, in the pool's order, free or shareable; both families, or what PreferDualStack makes do with.
fn from_pool(world: &World, pool: &AddressPool, service: &Service, families: &BTreeSet<Family>) -> Vec<IpAddr> {
    let first = |family: &Family| {
        let all = pool.ranges.iter().flat_map(|range| range.iter());
        all.filter(|ip| Family::of(*ip) == *family && contains(pool, *ip)).find(|ip| can_have(world, *ip, service))
    };
    let found: Vec<IpAddr> = families.iter().filter_map(first).collect();
    let prefers = service.load_balancer.as_ref().unwrap().family_policy == IpFamilyPolicy::PreferDualStack;
    if found.len() == families.len() || prefers { found } else { Vec::new() }
}

fn can_have(world: &World, ip: IpAddr, service: &Service) -> bool {
    !world.occupants.contains_key(&ip)
        && holders(world, ip).iter().all(|other| other.key == service.key || may_share(other, service))
}

/// "all must hold on each IP: same non-empty key; disjoint (protocol, port) sets; equal backend key".
pub(super) fn may_share(one: &Service, other: &Service) -> bool {
    let request = |service: &Service| -> LoadBalancerRequest { (**service.load_balancer.as_ref().unwrap()).clone() };
    let (a, b) = (request(one), request(other));
    let ports = |service: &Service| service.ports.iter().map(|port| (port.protocol, port.port)).collect::<BTreeSet<_>>();
    let backends = one.external_traffic_policy == other.external_traffic_policy
        && (one.external_traffic_policy == TrafficPolicy::Cluster || a.selector == b.selector);
    a.sharing_key.is_some() && a.sharing_key == b.sharing_key && ports(one).is_disjoint(&ports(other)) && backends
}

/// Whose status says the address.
pub(super) fn holders(world: &World, ip: IpAddr) -> Vec<&Service> {
    let says = |service: &&Service| {
        let request = service.load_balancer.as_ref();
        is_ours(service) && request.is_some_and(|request| request.ingress.iter().any(|ingress| ingress.ip == ip))
    };
    world.services.values().filter(says).collect()
}

/// Of type LoadBalancer, without a class.
pub(super) fn is_ours(service: &Service) -> bool {
    service.kind == ServiceType::LoadBalancer && service.load_balancer.as_ref().is_some_and(|request| request.class.is_none())
}

pub(super) fn contains(pool: &AddressPool, ip: IpAddr) -> bool {
    let buggy = matches!(ip, IpAddr::V4(v4) if [0, 255].contains(&v4.octets()[3]));
    !(pool.avoid_buggy_ips && buggy) && pool.ranges.iter().any(|range| range.iter().any(|own| own == ip))
}

/// "OR-ed, union with names; AND with the namespace set".
pub(super) fn admits(world: &World, pool: &AddressPool, service: &Service) -> bool {
    let Some(allocation) = &pool.allocation else { return true };
    let name = service.key.namespace();
    let labels = world.namespaces.get(name).map(|namespace| namespace.labels.clone()).unwrap_or_default();
    let own = &service.load_balancer.as_ref().unwrap().labels;
    let restricted = !allocation.namespaces.is_empty() || !allocation.namespace_selectors.is_empty();
    let listed = allocation.namespaces.iter().any(|listed| listed == name)
        || allocation.namespace_selectors.iter().any(|selector| selector.matches(&labels));
    let selected = allocation.service_selectors.iter().any(|selector| selector.matches(own));
    (!restricted || listed) && (allocation.service_selectors.is_empty() || selected)
}

pub(super) fn counts(world: &World, pool: &AddressPool) -> PoolCounts {
    let mut counts = PoolCounts::default();
    for ip in pool.ranges.iter().flat_map(|range| range.iter()).filter(|ip| contains(pool, *ip)) {
        let (assigned, available) = match Family::of(ip) {
            Family::V4 => (&mut counts.assigned_v4, &mut counts.available_v4),
            Family::V6 => (&mut counts.assigned_v6, &mut counts.available_v6),
        };
        if !holders(world, ip).is_empty() {
            *assigned += 1;
        } else if !world.occupants.contains_key(&ip) {
            *available += 1;
        }
    }
    counts
}
