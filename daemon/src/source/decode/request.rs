//! What a Service asks of the load balancer, and what its status says that it has (reference: MetalLB v0.16.1, `controller/service.go`).

use std::fmt::Write as _;
use std::net::IpAddr;

use compact_str::CompactString;
use smallvec::SmallVec;

use super::field::{Field, List, Pairs, Text};
use super::labels;
use super::problems::{Problems, cut};
use super::service::parsed_ip;
use super::wire;
use crate::model::Family;
use crate::model::load_balancer::{IngressAddress, IpFamilyPolicy, IpMode, LoadBalancerRequest};

/// Of a request so many bytes are kept, which is more than two addresses or the name of a pool have (RFC 1123: 253). A longer one is no
/// request that could be met; what is kept of it ends in dots, so that it does not become one.
const LONGEST: usize = 253;

/// `status.loadBalancer.ingress`.
#[derive(Debug, Default)]
pub(super) struct IngressList {
    /// There is an entry, whatever is in it.
    pub(super) is_given: bool,
    /// Those that have an address.
    pub(super) addresses: SmallVec<[IngressAddress; 2]>,
    /// There are some that have none.
    pub(super) others: bool,
}

/// The fields of a Service that only the load balancer reads.
pub(super) struct Asked<'a> {
    pub(super) class: Field<Text<'a>>,
    pub(super) address: Field<Text<'a>>,
    pub(super) family_policy: Field<Text<'a>>,
    pub(super) selector: Field<Pairs<'a>>,
    pub(super) labels: Pairs<'a>,
    pub(super) addresses: Annotation<'a>,
    pub(super) pool: Annotation<'a>,
    pub(super) sharing_key: Annotation<'a>,
    pub(super) allocated_from: Field<Text<'a>>,
}

/// An annotation by its prefix of today and by the old one.
pub(super) struct Annotation<'a> {
    pub(super) new: Field<Text<'a>>,
    pub(super) old: Field<Text<'a>>,
}

pub(super) fn request(
    asked: Asked<'_>,
    families: &[Family],
    IngressList { is_given: _, addresses: ingress, others: other_ingress }: IngressList,
    problems: &mut Problems,
) -> LoadBalancerRequest {
    let deprecated_prefix = [&asked.addresses, &asked.pool, &asked.sharing_key].into_iter().any(Annotation::is_old);
    let addresses = asked.addresses.read("loadBalancerIPs", problems).map(bounded);
    let pool = asked.pool.read("address-pool", problems).map(bounded);
    // As it is: two keys that are equal in their beginnings are two.
    let sharing_key = asked.sharing_key.read("allow-shared-ip", problems).map(Into::into);
    let selector = problems.take(format_args!("spec.selector"), asked.selector).unwrap_or_default();
    LoadBalancerRequest {
        class: text(format_args!("spec.loadBalancerClass"), asked.class, problems).map(bounded),
        labels: labels::labels(format_args!("metadata.labels"), asked.labels, Some(problems)),
        families: families.iter().copied().collect(),
        family_policy: family_policy(asked.family_policy, problems),
        address: text(format_args!("spec.loadBalancerIP"), asked.address, problems).map(bounded),
        addresses,
        pool,
        sharing_key,
        allocated_from: text(
            format_args!("metadata.annotations[metallb.io/ip-allocated-from-pool]"),
            asked.allocated_from,
            problems,
        )
        .map(bounded),
        deprecated_prefix,
        selector: selector_text(selector, problems),
        ingress,
        other_ingress,
    }
}

/// Entries in their order. One of another mode than is known may mean anything, and is none of ours.
pub(super) fn ingress(list: List<wire::Ingress<'_>>, problems: &mut Problems) -> IngressList {
    let mut read = IngressList { is_given: !list.is_empty(), ..IngressList::default() };
    for (place, entry) in list.into_iter().enumerate() {
        let address = problems
            .element(format_args!("status.loadBalancer.ingress[{place}]"), entry)
            .and_then(|entry| ingress_address(place, entry, problems));
        read.others |= address.is_none();
        read.addresses.extend(address);
    }
    read
}

fn ingress_address(place: usize, entry: wire::Ingress<'_>, problems: &mut Problems) -> Option<IngressAddress> {
    let path = format_args!("status.loadBalancer.ingress[{place}].ip");
    let text = problems.take(path, entry.ip).filter(|ip| !ip.is_empty())?;
    let mode_path = format_args!("status.loadBalancer.ingress[{place}].ipMode");
    let mode = match problems.take(mode_path, entry.ip_mode).as_deref() {
        None | Some("VIP") => IpMode::Vip,
        Some("Proxy") => IpMode::Proxy,
        Some(other) => {
            problems.note(mode_path, format!("{:?} is neither VIP nor Proxy: {} is not served here", cut(other), cut(&text)));
            return None;
        }
    };
    let ip = parsed_ip(path, &text, problems)?;
    Some(IngressAddress { ip, mode })
}

impl<'a> Annotation<'a> {
    /// One of the new prefix counts, even if it is empty.
    fn is_old(&self) -> bool {
        self.new == Field::Absent && self.old != Field::Absent
    }

    fn read(self, name: &str, problems: &mut Problems) -> Option<Text<'a>> {
        let (prefix, field) = if self.is_old() { ("metallb.universe.tf", self.old) } else { ("metallb.io", self.new) };
        text(format_args!("metadata.annotations[{prefix}/{name}]"), field, problems)
    }
}

impl IngressList {
    /// The addresses to be served on every node. Those of mode `Proxy` (KEP-1860), like host names, lead to the real load balancer.
    pub(super) fn vips(&self) -> Vec<IpAddr> {
        self.addresses.iter().filter(|address| address.mode == IpMode::Vip).map(|address| address.ip).collect()
    }
}

/// The value of a field, if it says anything.
fn text<'a>(path: super::problems::Path<'_>, field: Field<Text<'a>>, problems: &mut Problems) -> Option<Text<'a>> {
    problems.take(path, field).filter(|text| !text.is_empty())
}

fn bounded(text: Text<'_>) -> CompactString {
    if text.len() <= LONGEST { text.into() } else { cut(&text).to_string().into() }
}

fn family_policy(field: Field<Text<'_>>, problems: &mut Problems) -> IpFamilyPolicy {
    let path = format_args!("spec.ipFamilyPolicy");
    match problems.take(path, field).as_deref() {
        None | Some("" | "SingleStack") => IpFamilyPolicy::SingleStack,
        Some("PreferDualStack") => IpFamilyPolicy::PreferDualStack,
        Some("RequireDualStack") => IpFamilyPolicy::RequireDualStack,
        Some(other) => {
            let known = "SingleStack, PreferDualStack or RequireDualStack";
            problems.note(path, format!("{:?} is not {known}: treated as SingleStack", cut(other)));
            IpFamilyPolicy::SingleStack
        }
    }
}

/// As `labels.Set.String` writes it.
fn selector_text(pairs: Pairs<'_>, problems: &mut Problems) -> CompactString {
    let selector = labels::labels(format_args!("spec.selector"), pairs, Some(problems));
    let mut text = CompactString::default();
    for (key, value) in selector.iter() {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{key}={value}").expect("a string takes everything");
    }
    text
}
