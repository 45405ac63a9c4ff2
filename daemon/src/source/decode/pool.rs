//! IPAddressPools (reference for every rule: MetalLB v0.16.1, `internal/config`).
//!
//! Whatever is wrong with a pool, nothing of it is used: half a pool would give Services other addresses than its author meant. So only
//! what concerns the pool is a problem here; a `status` that makes no sense will be written anew.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use compact_str::CompactString;

use super::address::{self, Spelling};
use super::field::{Field, List, Text};
use super::problems::{Author, Path, Problems, cut};
use super::wire::{self, Document};
use super::{DecodeError, key, labels, timestamp};
use crate::model::load_balancer::{AddressPool, AddressRange, PoolCounts, ServiceAllocation};
use crate::source::Kind;

/// Addresses at which no other host could be reached, with what they are.
const NOBODYS: [(IpAddr, IpAddr, &str); 6] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED), "the unspecified address"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255)), "loopback addresses"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), IpAddr::V4(Ipv4Addr::new(239, 255, 255, 255)), "multicast addresses"),
    (IpAddr::V4(Ipv4Addr::BROADCAST), IpAddr::V4(Ipv4Addr::BROADCAST), "the broadcast address"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST), "the unspecified or the loopback address"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)), "multicast addresses"),
];

pub(super) fn decode(author: Author, document: Document<'_, impl Sized>) -> Result<AddressPool, DecodeError> {
    let mut problems = Problems::of(author);
    let metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let key = key(Kind::AddressPool, &metadata)?;
    let path = format_args!("metadata.labels");
    let labels = problems.take(path, metadata.labels).unwrap_or_default();
    let labels = labels::labels(path, labels.all, Some(&mut problems));
    let spec = problems.take(format_args!("spec"), document.spec).unwrap_or_default();
    let allocation = problems.take(format_args!("spec.serviceAllocation"), spec.service_allocation);
    Ok(AddressPool {
        key,
        uid: metadata.uid.into_value().unwrap_or_default().into(),
        generation: metadata.generation.into_value().unwrap_or_default(),
        created: metadata.creation_timestamp.into_value().and_then(|text| timestamp(&text)).map(jiff::Timestamp::as_second),
        labels,
        ranges: ranges(spec.addresses, &mut problems),
        auto_assign: problems.take(format_args!("spec.autoAssign"), spec.auto_assign).unwrap_or(true),
        avoid_buggy_ips: problems.take(format_args!("spec.avoidBuggyIPs"), spec.avoid_buggy_ips).unwrap_or(false),
        allocation: allocation.map(|allocation| service_allocation(allocation, &mut problems)),
        counts: document.status.get().and_then(counts),
        problems: problems.into_vec(),
    })
}

fn ranges(list: Field<List<Text<'_>>>, problems: &mut Problems) -> Vec<AddressRange> {
    let path = format_args!("spec.addresses");
    let is_missing = list == Field::Absent || list.get().is_some_and(Vec::is_empty);
    if is_missing {
        problems.note(path, "no addresses: a pool needs at least one range");
    }
    let mut ranges = Vec::new();
    let mut named = Vec::new();
    for (place, entry) in problems.list(path, list).into_iter().enumerate() {
        let path = format_args!("spec.addresses[{place}]");
        let Some(text) = problems.element(path, entry) else { continue };
        match range(&text) {
            Ok(range) => {
                if let Some(what) = nobodys(range) {
                    problems.note(path, format!("{:?} holds {what}, at which no host can be reached", cut(&text)));
                }
                ranges.push(range);
                named.push((range, place, text));
            }
            Err(why) => problems.note(path, format!("{:?} {why}", cut(&text))),
        }
    }
    note_overlaps(named, problems);
    ranges
}

/// `a-b` with white space around the dash, or a CIDR without any, whose host bits are cleared.
fn range(text: &str) -> Result<AddressRange, String> {
    let Some((first, last)) = text.split_once('-') else { return network(text) };
    let end = |text: &str| strict(text).ok_or_else(|| format!("is no range: {:?} is not an IP address", cut(text)));
    AddressRange::new(end(first.trim())?, end(last.trim())?).map_err(|error| format!("is no range: {error}"))
}

fn network(text: &str) -> Result<AddressRange, String> {
    let Some((address, _)) = text.split_once('/') else {
        return Err(match strict(text) {
            Some(address) if address.is_ipv4() => format!("is a single address: write {address}/32"),
            Some(address) => format!("is a single address: write {address}/128"),
            None => "is neither a CIDR nor a range such as 10.0.0.1-10.0.0.9".to_owned(),
        });
    };
    let network = strict(address).and_then(|_| address::cidr(text)).ok_or("is not a CIDR")?;
    AddressRange::new(network.network(), network.broadcast()).map_err(|error| error.to_string())
}

/// Leading zeros, IPv4 as IPv6 and zones were never taken here, unlike in Services.
fn strict(text: &str) -> Option<IpAddr> {
    address::spelt_ip(text).filter(|(_, spelling)| *spelling == Spelling::Strict).map(|(address, _)| address)
}

fn nobodys(range: AddressRange) -> Option<&'static str> {
    let overlaps = |first: IpAddr, last: IpAddr| {
        AddressRange::new(first, last).is_ok_and(|nobodys| nobodys.family() == range.family() && nobodys.overlap(range).is_some())
    };
    NOBODYS.iter().find(|(first, last, _)| overlaps(*first, *last)).map(|(_, _, what)| *what)
}

/// Of two ranges that share an address, the later one in the list is named. Sorted, only those with the highest end so far can reach
/// into what comes.
fn note_overlaps(mut named: Vec<(AddressRange, usize, Text<'_>)>, problems: &mut Problems) {
    named.sort_by_key(|(range, ..)| *range);
    let mut reaching: Option<&(AddressRange, usize, Text<'_>)> = None;
    for next in &named {
        if let Some(other) = reaching.filter(|other| other.0.overlap(next.0).is_some()) {
            let (earlier, later) = if other.1 < next.1 { (other, next) } else { (next, other) };
            let why = format!("{:?} shares addresses with {:?} before it", cut(&later.2), cut(&earlier.2));
            problems.note(format_args!("spec.addresses[{}]", later.1), why);
        }
        if reaching.is_none_or(|other| other.0.family() != next.0.family() || other.0.last() < next.0.last()) {
            reaching = Some(next);
        }
    }
}

fn service_allocation(allocation: wire::ServiceAllocation<'_>, problems: &mut Problems) -> ServiceAllocation {
    let wire::ServiceAllocation { priority, namespaces, namespace_selectors, service_selectors } = allocation;
    let namespace_path = format_args!("spec.serviceAllocation.namespaceSelectors");
    let service_path = format_args!("spec.serviceAllocation.serviceSelectors");
    ServiceAllocation {
        priority: problems.take(format_args!("spec.serviceAllocation.priority"), priority).unwrap_or(0),
        namespaces: names(format_args!("spec.serviceAllocation.namespaces"), namespaces, problems),
        namespace_selectors: labels::selectors(namespace_path, namespace_selectors, problems),
        service_selectors: labels::selectors(service_path, service_selectors, problems),
    }
}

/// Names of other objects, of which each may be there once.
pub(super) fn names(path: Path<'_>, list: Field<List<Text<'_>>>, problems: &mut Problems) -> Vec<CompactString> {
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for (place, entry) in problems.list(path, list).into_iter().enumerate() {
        let path = format_args!("{path}[{place}]");
        let Some(name) = problems.element(path, entry).map(CompactString::from) else { continue };
        if seen.insert(name.clone()) {
            names.push(name);
        } else {
            problems.note(path, format!("{:?} is there before", cut(&name)));
        }
    }
    names
}

/// All four or none: the schema demands them all where there is a status.
fn counts(status: &wire::Status<'_>) -> Option<PoolCounts> {
    let wire::Status { assigned_v4, assigned_v6, available_v4, available_v6, .. } = status;
    Some(PoolCounts {
        assigned_v4: *assigned_v4.get()?,
        assigned_v6: *assigned_v6.get()?,
        available_v4: *available_v4.get()?,
        available_v6: *available_v6.get()?,
    })
}
