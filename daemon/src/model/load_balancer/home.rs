//! In which namespace MetalLB's own objects count.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::ObjectKey;

/// Where MetalLB's own manifests put it.
pub const USUAL_NAMESPACE: &str = "metallb-system";

/// How the namespace is known. Objects of other namespaces are none of ours: whoever may write there must not be able to hand out the
/// addresses of a LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Somebody has said it.
    Given(Arc<str>),
    /// It is told by where the pools are.
    #[default]
    Detected,
}

/// Pools are in several namespaces, and none of these is [`USUAL_NAMESPACE`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("IPAddressPools are in several namespaces ({}), and which of them counts is not said", namespaces.join(", "))]
pub struct Ambiguous {
    /// In the order of their names.
    pub namespaces: Vec<String>,
}

impl Home {
    /// The namespace, by the pools there are in the whole cluster: where it is not given, [`USUAL_NAMESPACE`] if a pool is there, or else
    /// the only one that has pools. With no pool at all it is the usual one, so that what comes there first counts at once.
    ///
    /// # Errors
    /// It cannot be told. Then no pool counts until somebody says which.
    pub fn namespace<'k>(&self, pools: impl IntoIterator<Item = &'k ObjectKey>) -> Result<Arc<str>, Ambiguous> {
        if let Self::Given(namespace) = self {
            return Ok(namespace.clone());
        }
        let namespaces: BTreeSet<&str> = pools.into_iter().map(ObjectKey::namespace).collect();
        let mut sorted = namespaces.iter().copied();
        match (namespaces.contains(USUAL_NAMESPACE), sorted.next(), sorted.next()) {
            (true, ..) | (_, None, _) => Ok(USUAL_NAMESPACE.into()),
            (false, Some(only), None) => Ok(only.into()),
            (false, Some(_), Some(_)) => Err(Ambiguous { namespaces: namespaces.into_iter().map(str::to_owned).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(home: &Home, pools: &[&str]) -> Result<String, String> {
        let pools: Vec<_> = pools.iter().map(|namespace| ObjectKey::new(namespace, "pool")).collect();
        home.namespace(&pools).map(|namespace| namespace.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_namespace_is_the_given_one_or_where_the_pools_are() {
        let given = Home::Given("mine".into());
        for (home, pools, namespace) in [
            (&given, &["metallb-system", "lb"][..], "mine"),
            (&Home::Detected, &[], "metallb-system"),
            (&Home::Detected, &["lb", "lb"], "lb"),
            (&Home::Detected, &["a", "metallb-system", "z"], "metallb-system"),
        ] {
            assert_eq!(told(home, pools).as_deref(), Ok(namespace), "{home:?} {pools:?}");
        }
        let why = "IPAddressPools are in several namespaces (a, b), and which of them counts is not said";
        assert_eq!(told(&Home::Detected, &["b", "a", "b"]).expect_err("two"), why);
    }
}
