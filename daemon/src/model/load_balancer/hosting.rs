//! Where the usable endpoints of a Service are.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{Conditions, EndpointSlice, Family};

/// The usable endpoints of one Service in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosting {
    /// There is one, wherever it is.
    pub any: bool,
    /// Nodes that host one. An endpoint without `nodeName` is on no node.
    pub nodes: BTreeSet<Arc<str>>,
}

impl Hosting {
    /// Of these slices, for VIPs of this family.
    pub fn of<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, family: Family) -> Self {
        let slices = slices.into_iter().filter(|slice| slice.family == family);
        let usable = slices.flat_map(|slice| &slice.endpoints).filter(|endpoint| is_usable(endpoint.conditions));
        let mut hosting = Self::default();
        for endpoint in usable {
            hosting.any = true;
            hosting.nodes.extend(endpoint.node.clone());
        }
        hosting
    }
}

/// MetalLB's rule: ready, or still serving. So a VIP stays where the last endpoint terminates until that has ended.
fn is_usable(conditions: Conditions) -> bool {
    conditions.ready || conditions.serving
}
