//! `L2Advertisement`.

use compact_str::CompactString;

use crate::model::{Labels, ObjectKey, Problem, Selector};

/// One `L2Advertisement`: which pools are announced, by which nodes, on which interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`, for Events.
    pub uid: CompactString,
    /// `spec.ipAddressPools`, by name. Names of no pool are no mistake: the pool may come.
    pub pools: Vec<CompactString>,
    /// `spec.ipAddressPoolSelectors`: any of them, or a name in `pools`. Neither given: all pools.
    pub pool_selectors: Vec<Selector>,
    /// `spec.nodeSelectors`: any of them; none: all nodes.
    pub node_selectors: Vec<Selector>,
    /// `spec.interfaces`, exact names; none: every interface that can announce.
    pub interfaces: Vec<CompactString>,
    /// `spec.serviceSelectors` (v0.16.0): any of them; none: all Services.
    pub service_selectors: Vec<Selector>,
    /// `spec.preferredNodeSelectors` (on MetalLB's main branch).
    pub preferences: Vec<NodePreference>,
    /// What is wrong with it. With any of these nothing of this version of it is used.
    pub problems: Vec<Problem>,
}

/// One entry of `preferredNodeSelectors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePreference {
    /// 1 to 100, added to the score of a node that matches.
    pub weight: u8,
    /// Which nodes.
    pub selector: Selector,
}

impl Advertisement {
    /// Whether it announces this pool.
    #[must_use]
    pub fn selects_pool(&self, name: &str, labels: &Labels) -> bool {
        (self.pools.is_empty() && self.pool_selectors.is_empty())
            || self.pools.iter().any(|own| own == name)
            || self.pool_selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Whether this node may announce by it.
    #[must_use]
    pub fn selects_node(&self, labels: &Labels) -> bool {
        self.node_selectors.is_empty() || self.node_selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Whether it is for this Service.
    #[must_use]
    pub fn selects_service(&self, labels: &Labels) -> bool {
        self.service_selectors.is_empty() || self.service_selectors.iter().any(|selector| selector.matches(labels))
    }
}
