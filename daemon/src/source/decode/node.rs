//! Our Node, and ServiceCIDRs.

use super::field::Field;
use super::problems::{Author, Problems, cut};
use super::service::networks;
use super::wire::Document;
use super::{DecodeError, address, key};
use crate::model::{Interner, Node, NodeAddress, NodeAddressKind, ServiceCidr};
use crate::source::Kind;

pub(super) fn decode(author: Author, document: Document<'_, impl Sized>, names: &mut Interner) -> Result<Node, DecodeError> {
    let mut problems = Problems::of(author);
    let metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let key = key(Kind::Node, &metadata)?;
    let labels = problems.take(format_args!("metadata.labels"), metadata.labels).unwrap_or_default();
    let zone = problems.take(format_args!("metadata.labels[topology.kubernetes.io/zone]"), labels.zone);
    let spec = problems.take(format_args!("spec"), document.spec).unwrap_or_default();
    let status = problems.take(format_args!("status"), document.status).unwrap_or_default();

    let pod_cidrs = match spec.pod_cidrs {
        Field::Absent => {
            Field::Is(problems.take(format_args!("spec.podCIDR"), spec.pod_cidr).map(Field::Is).into_iter().collect())
        }
        given => given,
    };
    let taints = problems.take(format_args!("spec.taints"), spec.taints).unwrap_or_default();
    let taints = taints.iter().filter_map(|taint| taint.get()?.key.get()).map(|key| names.intern(key)).collect();

    Ok(Node {
        name: names.intern(key.name()),
        addresses: addresses(status, &mut problems),
        zone: zone.filter(|zone| !zone.is_empty()).map(|zone| names.intern(&zone)),
        pod_cidrs: networks("spec.podCIDRs", pod_cidrs, &mut problems),
        deleting: !matches!(metadata.deletion_timestamp, Field::Absent),
        taints,
        problems: problems.into_vec(),
    })
}

/// Hostnames and DNS names are of other types and not looked at.
fn addresses(status: super::wire::Status<'_>, problems: &mut Problems) -> Vec<NodeAddress> {
    let list = problems.take(format_args!("status.addresses"), status.addresses).unwrap_or_default();
    let mut addresses = Vec::with_capacity(list.len());
    for (place, entry) in list.into_iter().enumerate() {
        let Some(entry) = problems.element(format_args!("status.addresses[{place}]"), entry) else { continue };
        let kind = match problems.take(format_args!("status.addresses[{place}].type"), entry.r#type).as_deref() {
            Some("InternalIP") => NodeAddressKind::Internal,
            Some("ExternalIP") => NodeAddressKind::External,
            _ => continue,
        };
        let path = format_args!("status.addresses[{place}].address");
        let Some(text) = problems.take(path, entry.address) else { continue };
        match address::ip(&text) {
            Some(address) => addresses.push(NodeAddress { kind, address }),
            None => problems.note(path, format!("{:?} is not an IP address: ignored", cut(&text))),
        }
    }
    addresses
}

pub(super) fn decode_service_cidr(
    author: Author,
    document: Document<'_, impl Sized>,
    names: &mut Interner,
) -> Result<ServiceCidr, DecodeError> {
    let mut problems = Problems::of(author);
    let metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let key = key(Kind::ServiceCidr, &metadata)?;
    let spec = problems.take(format_args!("spec"), document.spec).unwrap_or_default();
    let mut cidrs = networks("spec.cidrs", spec.cidrs, &mut problems);
    cidrs.retain(|&cidr| {
        let unfit = address::holds_unfit(cidr);
        if unfit {
            let why = format!("{cidr} holds loopback, link-local or multicast addresses, which are never a Service's: ignored");
            problems.note(format_args!("spec.cidrs"), why);
        }
        !unfit
    });
    Ok(ServiceCidr { name: names.intern(key.name()), cidrs, problems: problems.into_vec() })
}
