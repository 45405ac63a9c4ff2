//! Any Node, and Namespaces, as the load balancer sees them. What cannot be read of one is left out without a word: it is not this
//! node's to report, and all nodes would.

use super::address;
use super::field::Field;
use super::labels;
use super::wire::{Document, Metadata, NodeAddress, StatusCondition};
use super::{DecodeError, key};
use crate::model::load_balancer::{NamespaceLabels, PeerNode};
use crate::model::{Interner, Labels};
use crate::source::Kind;

/// By reference, since the same document may also be that of our own Node.
pub(crate) fn decode(document: &Document<'_, impl Sized>, names: &mut Interner) -> Result<PeerNode, DecodeError> {
    let nothing = Metadata::default();
    let metadata = document.metadata.get().unwrap_or(&nothing);
    let key = key(Kind::Peer, metadata)?;
    let status = document.status.get();
    let addresses = status.and_then(|status| status.addresses.get()).into_iter().flatten();
    let conditions = status.and_then(|status| status.conditions.get()).into_iter().flatten();
    Ok(PeerNode {
        name: names.intern(key.name()),
        labels: labels_of(metadata),
        addresses: addresses.filter_map(Field::get).filter_map(internal).collect(),
        network_unavailable: conditions.filter_map(Field::get).any(is_cut_off),
        unschedulable: document.spec.get().and_then(|spec| spec.unschedulable.get()).copied().unwrap_or(false),
    })
}

pub(super) fn decode_namespace(
    document: &Document<'_, impl Sized>,
    names: &mut Interner,
) -> Result<NamespaceLabels, DecodeError> {
    let nothing = Metadata::default();
    let metadata = document.metadata.get().unwrap_or(&nothing);
    let key = key(Kind::Namespace, metadata)?;
    Ok(NamespaceLabels { name: names.intern(key.name()), labels: labels_of(metadata) })
}

fn labels_of(metadata: &Metadata<'_>) -> Labels {
    let all = metadata.labels.get().map(|labels| labels.all.clone()).unwrap_or_default();
    labels::labels(format_args!("metadata.labels"), all, None)
}

fn internal(NodeAddress { r#type, address }: &NodeAddress<'_>) -> Option<std::net::IpAddr> {
    r#type.get().filter(|kind| *kind == "InternalIP").and_then(|_| address::ip(address.get()?))
}

fn is_cut_off(StatusCondition { r#type, status }: &StatusCondition<'_>) -> bool {
    r#type.get().is_some_and(|name| name == "NetworkUnavailable") && status.get().is_some_and(|status| status == "True")
}
