//! `loadBalancerSourceRanges`: who may use the VIPs of a Service (kube-proxy 2, 4.2). Nothing else is ever filtered.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Context;
use crate::model::{Family, Service};

/// The sources let in, sorted and without overlaps; `None` lets in everybody. `vips` are those served in `family`.
pub(super) fn source_ranges(service: &Service, family: Family, vips: &[IpAddr], context: &Context) -> Option<Arc<[IpNet]>> {
    let mut ranges: Vec<IpNet> = service.source_ranges.iter().filter(|range| is_of(**range, family)).map(IpNet::trunc).collect();
    if ranges.is_empty() || ranges.iter().any(lets_everybody_in) {
        return None;
    }
    if let_the_node_in(&ranges, family, context) {
        ranges.extend(vips.iter().copied().map(IpNet::from));
    }
    Some(without_overlaps(ranges).into())
}

/// Ranges of the other family only are no filter in this one.
fn is_of(range: IpNet, family: Family) -> bool {
    Family::of(range.addr()) == family
}

/// One /0 switches the filter off, whatever stands beside it.
fn lets_everybody_in(range: &IpNet) -> bool {
    range.prefix_len() == 0
}

/// Then the VIPs are let in too: where a VIP is an address of the node, the kernel picks it as the source towards itself.
fn let_the_node_in(ranges: &[IpNet], family: Family, context: &Context) -> bool {
    let mut own = context.node_ips.iter().filter(|ip| Family::of(**ip) == family);
    own.any(|ip| ranges.iter().any(|range| range.contains(ip)))
}

/// Prefixes either nest or are disjoint, and in their order the wider comes before what it contains.
fn without_overlaps(mut ranges: Vec<IpNet>) -> Vec<IpNet> {
    ranges.sort_unstable();
    ranges.dedup_by(|inner, outer| outer.contains(&*inner));
    ranges
}
