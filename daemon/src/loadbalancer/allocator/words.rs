//! What is said of Services and pools, and when it holds.

use std::net::IpAddr;

use super::entry::{Concern, Entry, Lack};
use super::pools::{Fault, InForce};
use super::refusal::{Addresses, NoFamilies, Refusal};
use super::stock::Stock;
use super::tidings::{Reason, Serving, Tiding};
use super::{Before, Options};
use crate::model::ServiceKey;

/// So many addresses or faults are named in one sentence.
const NAMED: usize = 3;

/// What has just happened to a Service.
pub(super) fn passing(entry: &Entry, before: &Before) -> Vec<Tiding> {
    let key = &entry.service.key;
    let now = entry.addresses();
    let mut said = Vec::new();
    let lost = before.addresses.iter().any(|ip| !now.contains(ip));
    if let Some(why) = before.dropped.as_ref().filter(|_| lost) {
        let text = format!("current IP for \"{key}\" not allowed by config, will attempt for new IP assignment: {why}");
        said.push(Tiding::new(Reason::ClearAssignment, text));
    }
    let new: Vec<_> = now.iter().filter(|ip| !before.addresses.contains(ip)).collect();
    if let (false, false, &[ip]) = (lost, before.addresses.is_empty(), &new[..]) {
        said.push(Tiding::new(Reason::IpAllocated, format!("Assigned additional IP \"{ip}\"")));
    } else if !new.is_empty() {
        said.push(Tiding::new(Reason::IpAllocated, format!("Assigned IP {}", Addresses::from(now))));
    }
    if let Some(claim) = &before.overwritten {
        let text = format!(
            "somebody else wrote {} into the status, where \"{key}\" has {}: written back; another load balancer may serve it too, let \
             spec.loadBalancerClass say whose it is",
            Addresses::from(claim.as_slice()),
            Addresses::from(now)
        );
        said.push(Tiding::new(Reason::StatusOverwritten, text));
    }
    said
}

/// What holds of a Service until something changes.
pub(super) fn standing(entry: &Entry, options: &Options, stock: &Stock) -> Vec<Tiding> {
    let service = &entry.service;
    let mut said = Vec::new();
    match entry.concern(options) {
        Concern::Nobodys => return said,
        Concern::Anothers => {
            // One that has an address is served by somebody, unless it is one of ours that is being taken back.
            let other = service.load_balancer.as_ref().is_none_or(|request| request.other_ingress);
            let waits = entry.clearing || (entry.status().is_empty() && !other);
            said.extend(waits.then(|| Tiding::new(Reason::OtherLoadBalancerClass, of_class(entry, options))));
            return said;
        }
        Concern::Ours => {}
    }
    if service.load_balancer.as_ref().is_some_and(|request| request.deprecated_prefix) {
        let text = "annotations of metallb.universe.tf/ are deprecated, write metallb.io/ instead";
        said.push(Tiding::new(Reason::DeprecatedAnnotation, text));
    }
    said.extend(lacking(entry));
    for (ip, by) in entry.addresses().iter().filter_map(|ip| Some((ip, stock.occupant(*ip)?))) {
        let text = format!("\"{ip}\" is in use outside the load balancer as well: it is {by}; one of the two has to move");
        said.push(Tiding::new(Reason::AddressInUse, text));
    }
    said
}

/// What holds of a pool: why its latest version is not used, and which of its addresses are never handed out.
pub(super) fn of_pool(own: Option<&InForce>, faults: &[Fault], serving: Serving, stock: &Stock) -> Vec<Tiding> {
    let mut said = Vec::new();
    if !faults.is_empty() {
        let meanwhile = match serving {
            Serving::Latest | Serving::Nothing => "nothing of it is used until that is mended",
            Serving::LastGood(_) => "the version before it stays in force until that is mended",
        };
        said.push(Tiding::new(Reason::InvalidPool, format!("{}; {meanwhile}", listed(faults.iter().map(ToString::to_string)))));
    }
    let occupied = own.into_iter().flat_map(|own| own.pool.ranges.iter().flat_map(|range| stock.occupied(*range)));
    let occupied = listed(occupied.map(|(ip, by)| format!("\"{ip}\" is {by}")));
    if !occupied.is_empty() {
        said.push(Tiding::new(Reason::AddressInUse, format!("{occupied}: not handed out")));
    }
    said
}

fn lacking(entry: &Entry) -> Option<Tiding> {
    let key = &entry.service.key;
    Some(match entry.lack.as_ref()? {
        Lack::Families(NoFamilies::NoClusterIp) => {
            let text = format!("Failed to retrieve ClusterIPs IPFamily for \"{key}\": it has no ClusterIP");
            Tiding::new(Reason::NoClusterIpFamily, text)
        }
        Lack::Families(NoFamilies::NotEnough(ip)) => {
            let text = format!("Service requires dual stack but not enough clusterips [{ip}]");
            Tiding::new(Reason::NotEnoughClusterIps, text)
        }
        Lack::Additional(why) => {
            let text = format!("cannot assign additional IP in PreferDualStack: {why}");
            Tiding::new(Reason::AdditionalAssignFailed, text)
        }
        Lack::Wish(why) => failed(key, why, entry.wish.request.is_err(), entry.addresses()),
    })
}

fn failed(key: &ServiceKey, why: &Refusal, unreadable: bool, held: &[IpAddr]) -> Tiding {
    match (held, unreadable) {
        ([], _) => Tiding::new(Reason::AllocationFailed, format!("Failed to allocate IP for \"{key}\": {why}")),
        (held, true) => {
            let text = format!("invalid requested loadbalancer IPs: {why}; {} stays", Addresses::from(held));
            Tiding::new(Reason::LoadBalancerFailed, text)
        }
        (held, false) => {
            let text = format!("Failed to allocate IP for \"{key}\": {why}; {} stays", Addresses::from(held));
            Tiding::new(Reason::AllocationFailed, text)
        }
    }
}

fn of_class(entry: &Entry, options: &Options) -> String {
    let class = entry.service.load_balancer.as_ref().and_then(|request| request.class.as_deref());
    match (class, &options.class) {
        (Some(class), Some(ours)) => format!("left to the load balancer of class {class:?}: this one serves class {ours:?}"),
        (Some(class), None) => format!("left to the load balancer of class {class:?}: this one serves services without a class"),
        (None, Some(ours)) => {
            format!("left to the default load balancer: this one serves class {ours:?}, and spec.loadBalancerClass is not set")
        }
        (None, None) => String::new(),
    }
}

/// The first few, and how many more there are.
fn listed(mut all: impl Iterator<Item = String>) -> String {
    let first: Vec<_> = all.by_ref().take(NAMED).collect();
    match all.count() {
        0 => first.join(", "),
        more => format!("{}, and so on for {more} more", first.join(", ")),
    }
}
