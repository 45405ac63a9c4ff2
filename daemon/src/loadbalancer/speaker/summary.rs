//! What is announced here, as metrics and ServiceL2Statuses name it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use compact_str::CompactString;

use super::decide::Decisions;
use super::field::Entrant;
use crate::loadbalancer::election::{Interfaces, Presence};
use crate::model::ServiceKey;

/// Services with the VIPs that are announced for them, as `metallb_speaker_announced` names them.
pub(super) fn told_by_metrics(decisions: &Decisions) -> BTreeSet<(String, IpAddr)> {
    let announced = decisions.iter().filter(|(_, decision)| decision.outcome.is_ok());
    announced.flat_map(|(vip, decision)| decision.tenants.keys().map(|service| (service.to_string(), *vip))).collect()
}

/// The same, as ServiceL2Statuses have it.
pub(super) fn by_service(decisions: &Decisions) -> BTreeMap<ServiceKey, BTreeSet<CompactString>> {
    let mut services: BTreeMap<ServiceKey, BTreeSet<CompactString>> = BTreeMap::new();
    for decision in decisions.values() {
        let Ok(interfaces) = &decision.outcome else { continue };
        for service in decision.tenants.keys() {
            let on = services.entry(service.clone()).or_default();
            if let Interfaces::Only(names) = interfaces {
                on.extend(names.iter().cloned());
            }
        }
    }
    services
}

/// Other nodes that announce an address of these Services, by what they say.
pub(super) fn elsewhere(
    services: &BTreeMap<ServiceKey, BTreeSet<CompactString>>,
    decisions: &Decisions,
    field: &[Entrant],
) -> BTreeMap<ServiceKey, BTreeSet<Arc<str>>> {
    let mut others: BTreeMap<ServiceKey, BTreeSet<Arc<str>>> = BTreeMap::new();
    for (vip, decision) in decisions.iter().filter(|(_, decision)| decision.outcome.is_err()) {
        let holders =
            field.iter().skip(1).filter(|entrant| entrant.presence != Presence::Absent && entrant.holds(*vip).is_some());
        let holders: BTreeSet<Arc<str>> = holders.map(|entrant| entrant.node.name.clone()).collect();
        for service in decision.tenants.keys().filter(|service| services.contains_key(*service)) {
            others.entry(service.clone()).or_default().extend(holders.iter().cloned());
        }
    }
    others
}
