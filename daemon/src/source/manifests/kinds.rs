//! Which documents are objects of ours, by `apiVersion` and `kind`; and which only look as if somebody had meant one.

use crate::model::Problem;
use crate::source::Kind;
use crate::source::decode::cut;

/// An object of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recognised {
    /// What it is; a Service of another proxy is a Service here.
    pub(super) kind: Kind,
    /// An API server would not take it for one: it is read all the same, since it cannot mean anything else.
    pub(super) slips: Vec<Problem>,
}

/// Kind, its name, and the one version that is read.
const OURS: [(Kind, &str, &str); 7] = [
    (Kind::Service, "Service", "v1"),
    (Kind::EndpointSlice, "EndpointSlice", "discovery.k8s.io/v1"),
    (Kind::ServiceCidr, "ServiceCIDR", "networking.k8s.io/v1"),
    (Kind::Node, "Node", "v1"),
    (Kind::Namespace, "Namespace", "v1"),
    (Kind::AddressPool, "IPAddressPool", "metallb.io/v1beta1"),
    (Kind::Advertisement, "L2Advertisement", "metallb.io/v1beta1"),
];

/// `None` for a kind of no interest. An empty version is one that was not given.
pub(super) fn recognise(version: &str, name: &str) -> Option<Recognised> {
    let &(kind, own_name, own_version) = OURS.iter().find(|(_, own, _)| own.eq_ignore_ascii_case(name))?;
    if group(version) != group(own_version) && is_anothers(version) {
        return None;
    }
    let slip = |field: &str, given: &str, own: &str| Problem {
        field: field.to_owned(),
        reason: format!("{:?} is not {own}, which an API server demands; it is read as that", cut(given)),
    };
    let mut slips = Vec::new();
    if name != own_name {
        slips.push(slip("kind", name, own_name));
    }
    if !version.is_empty() && version != own_version {
        slips.push(slip("apiVersion", version, own_version));
    }
    Some(Recognised { kind, slips })
}

/// A group of somebody's own, who may call a kind whatever he likes (`serving.knative.dev/v1`, Service; a cloud's `IPAddressPool`). Those
/// of Kubernetes end in `.k8s.io` or have no dot.
fn is_anothers(version: &str) -> bool {
    let group = group(version);
    group.contains('.') && !group.ends_with(".k8s.io")
}

/// The group of an `apiVersion`, empty for Kubernetes' first.
fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: &str, name: &str) -> Option<(Kind, String)> {
        let Recognised { kind, slips } = recognise(version, name)?;
        Some((kind, slips.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
    }

    #[test]
    fn objects_of_ours_are_recognised_and_slips_are_named() {
        for (kind, name, version) in OURS {
            assert_eq!(said(version, name), Some((kind, String::new())));
            assert_eq!(said("", name), Some((kind, String::new())), "an item of a typed list");
        }
        let v2 = r#"apiVersion: "v2" is not v1, which an API server demands; it is read as that"#;
        assert_eq!(said("v2", "Service"), Some((Kind::Service, v2.to_owned())));
        let (kind, slips) = said("discovery.k8s.io/v1beta1", "EndpointSlice").expect("ours");
        assert!(kind == Kind::EndpointSlice && slips.contains("v1beta1") && slips.contains("discovery.k8s.io/v1,"), "{slips}");
        let (kind, slips) = said("v1", "service").expect("ours");
        assert!(kind == Kind::Service && slips.starts_with(r#"kind: "service" is not Service"#), "{slips}");
        let (kind, slips) = said("metallb.io/v1beta2", "IPAddressPool").expect("ours");
        assert!(kind == Kind::AddressPool && slips.contains("v1beta2"), "{slips}");
        assert_eq!(recognise("apps/v1", "ENDPOINTSLICE").expect("ours").slips.len(), 2);
    }

    #[test]
    fn what_is_of_no_interest_is_left_alone() {
        for (version, name) in [
            ("apps/v1", "Deployment"),
            ("v1", "Pod"),
            ("serving.knative.dev/v1", "Service"),
            ("multicluster.x-k8s.io/v1", "Node"),
            ("metallb.io/v1beta1", "Service"),
            ("metallb.io/v1beta1", "BGPAdvertisement"),
            ("cloud.example.org/v1", "IPAddressPool"),
        ] {
            assert_eq!(recognise(version, name), None, "{version} {name}");
        }
    }
}
