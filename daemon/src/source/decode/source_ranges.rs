//! `spec.loadBalancerSourceRanges`, and the annotation that came before it.
//!
//! What cannot be read is no filter, as for kube-proxy. So a list of which nothing is left keeps nobody out, the opposite of what its
//! author meant: that is said in plain words, and before each of them is named.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address;
use super::field::{Field, List, Text};
use super::problems::{Problems, cut};
use super::service::networks;
use crate::model::Family;

const FIELD: &str = "spec.loadBalancerSourceRanges";
const ANNOTATION: &str = "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]";

/// Not worth a word where a cloud's load balancer reads the annotation.
const UNREAD: &str = "is for a cloud's load balancer, a service proxy does not read it: without spec.loadBalancerSourceRanges the Service is \
     open to everyone";

/// The ranges that can be read, of the field alone: kube-proxy does not read the annotation either. `families` are those of the
/// ClusterIPs; none where they are not known. `vips` are those of the Service.
pub(super) fn source_ranges(
    list: Field<List<Text<'_>>>,
    annotation: Field<Text<'_>>,
    families: &[Family],
    vips: &[IpAddr],
    problems: &mut Problems,
) -> Vec<IpNet> {
    let opened = opened(&list, families);
    if let Some(said) = &opened {
        problems.note(format_args!("{FIELD}"), said.as_str());
    }
    let is_given = list.get().is_none_or(|list| !list.is_empty()) && list != Field::Absent;
    note_annotation(annotation, is_given, problems);
    let ranges = networks(FIELD, list, problems);
    if let Some(family) = unfiltered(&ranges, families, vips).filter(|_| opened.is_none()) {
        problems.note(format_args!("{FIELD}"), format!("no entry is of {family}: the Service is open to everyone by {family}"));
    }
    ranges
}

/// The family that ranges of the other one leave open (kube-proxy filters each by its own). That is meant so where a Service of both
/// has no VIP of it.
fn unfiltered(ranges: &[IpNet], families: &[Family], vips: &[IpAddr]) -> Option<Family> {
    let is_open = |family: &Family| !ranges.iter().any(|range| Family::of(range.addr()) == *family);
    let counts = |family: &Family| families.len() == 1 || vips.iter().any(|vip| Family::of(*vip) == *family);
    families.iter().copied().filter(|_| !ranges.is_empty()).find(|family| is_open(family) && counts(family))
}

/// What it means that entries cannot be read, where somebody is let in by that. Ranges of one family filter nobody of the other, so it
/// matters which of the two an entry was meant for: one that is no text may have been for either.
fn opened(list: &Field<List<Text<'_>>>, families: &[Family]) -> Option<String> {
    let entries = match list {
        Field::Absent => return None,
        Field::Wrong(_) => return Some("cannot be read: the Service is open to everyone".into()),
        Field::Is(entries) => entries,
    };
    let read = |text: &Text<'_>| address::cidr(text.trim()).map(|network| Family::of(network.addr()));
    let meant = |text: &Text<'_>| if text.contains(':') { Family::V6 } else { Family::V4 };
    let texts = || entries.iter().filter_map(Field::get);
    if !entries.is_empty() && !texts().any(|text| read(text).is_some()) {
        return Some("no entry can be read: the Service is open to everyone".into());
    }
    let lost = |family: &Family| {
        let may_be_lost = |entry: &Field<Text<'_>>| entry.get().is_none_or(|text| read(text).is_none() && meant(text) == *family);
        entries.iter().any(may_be_lost) && !texts().any(|text| read(text) == Some(*family))
    };
    let family = Family::ALL.into_iter().filter(|family| families.is_empty() || families.contains(family)).find(lost)?;
    Some(format!("no entry of {family} can be read: the Service is open to everyone by {family}"))
}

/// A list with commas (`GetLoadBalancerSourceRanges` of `k8s.io/cloud-provider`).
fn note_annotation(annotation: Field<Text<'_>>, field_is_given: bool, problems: &mut Problems) {
    let path = format_args!("{ANNOTATION}");
    let Some(text) = problems.take(path, annotation).filter(|text| !text.trim().is_empty()) else { return };
    if !field_is_given {
        problems.note_to_person(path, UNREAD);
    }
    for entry in text.split(',').filter(|entry| address::cidr(entry.trim()).is_none()) {
        problems.note(path, format!("{:?} is not a CIDR", cut(entry)));
    }
}
