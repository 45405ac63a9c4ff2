//! L2Advertisements (reference: MetalLB v0.16.1, `l2AdvertisementFromCR`; `preferredNodeSelectors` is of its main branch).

use super::field::{Field, List};
use super::pool::names;
use super::problems::{Author, Problems};
use super::wire::{Document, Preference};
use super::{DecodeError, key, labels};
use crate::model::load_balancer::{Advertisement, NodePreference};
use crate::source::Kind;

/// The bounds of a preference's `weight`.
const WEIGHTS: std::ops::RangeInclusive<u8> = 1..=100;

pub(super) fn decode(author: Author, document: Document<'_, impl Sized>) -> Result<Advertisement, DecodeError> {
    let mut problems = Problems::of(author);
    let metadata = problems.take(format_args!("metadata"), document.metadata).unwrap_or_default();
    let key = key(Kind::Advertisement, &metadata)?;
    let spec = problems.take(format_args!("spec"), document.spec).unwrap_or_default();
    let selectors = |field: &str, list, problems: &mut _| labels::selectors(format_args!("spec.{field}"), list, problems);
    // MetalLB takes one that is there twice.
    let mut interfaces = Vec::new();
    for (place, entry) in problems.list(format_args!("spec.interfaces"), spec.interfaces).into_iter().enumerate() {
        interfaces.extend(problems.element(format_args!("spec.interfaces[{place}]"), entry).map(Into::into));
    }
    Ok(Advertisement {
        key,
        uid: metadata.uid.into_value().unwrap_or_default().into(),
        pools: names(format_args!("spec.ipAddressPools"), spec.ip_address_pools, &mut problems),
        pool_selectors: selectors("ipAddressPoolSelectors", spec.ip_address_pool_selectors, &mut problems),
        node_selectors: selectors("nodeSelectors", spec.node_selectors, &mut problems),
        interfaces,
        service_selectors: selectors("serviceSelectors", spec.service_selectors, &mut problems),
        preferences: preferences(spec.preferred_node_selectors, &mut problems),
        problems: problems.into_vec(),
    })
}

/// Preferences add up, so that one may be there twice.
fn preferences(list: Field<List<Preference<'_>>>, problems: &mut Problems) -> Vec<NodePreference> {
    let mut preferences = Vec::new();
    for (place, entry) in problems.list(format_args!("spec.preferredNodeSelectors"), list).into_iter().enumerate() {
        let path = format_args!("spec.preferredNodeSelectors[{place}]");
        let Some(Preference { weight, preference }) = problems.element(path, entry) else { continue };
        let weight_path = format_args!("{path}.weight");
        let weight = problems.element(weight_path, weight).and_then(|number| {
            let weight = u8::try_from(number).ok().filter(|weight| WEIGHTS.contains(weight));
            if weight.is_none() {
                problems.note(weight_path, format!("{number} is not between {} and {}", WEIGHTS.start(), WEIGHTS.end()));
            }
            weight
        });
        let path = format_args!("{path}.preference");
        let selector = problems.element(path, preference).and_then(|selector| labels::spelt(path, selector, problems));
        let Some((weight, selector)) = weight.zip(selector) else { continue };
        preferences.push(NodePreference { weight, selector: selector.selector() });
    }
    preferences
}
