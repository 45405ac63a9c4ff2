//! What is listed beside Services and EndpointSlices: the Node, the ServiceCIDRs, other proxies' Services, and pools.

use std::time::{Duration, Instant};

use crate::model::Index;

/// How long the first load waits for them, once all else is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// The wait for them, and what was told of it. A stream that does not come (no permission for nodes, say) must not keep Services from
/// working for ever.
#[derive(Default)]
pub(super) struct RestOfLists {
    /// How long the first load waits, from when both kinds were complete.
    deadline: Option<Instant>,
    /// The same as long as it waits.
    until: Option<Instant>,
    told_missing: bool,
    /// The source lists pools of addresses, too.
    has_pools: bool,
}

impl RestOfLists {
    /// Of a source that lists pools, too: without them, pings of VIPs that were answered a moment ago would not be.
    pub(super) fn with_pools(self) -> Self {
        Self { has_pools: true, ..self }
    }

    fn are_there(&self, index: &Index) -> bool {
        index.is_informed() && (index.knows_pools() || !self.has_pools)
    }

    /// When to look again.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// It is time: [`are_awaited`](Self::are_awaited) decides anew.
    pub(super) fn elapsed(&mut self) {
        self.until = None;
    }

    /// Before the first load, whether to wait a little longer.
    pub(super) fn are_awaited(&mut self, index: &Index) -> bool {
        if self.are_there(index) {
            return false;
        }
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        let waits = Instant::now() < deadline;
        self.until = waits.then_some(deadline);
        if !waits && !std::mem::replace(&mut self.told_missing, true) {
            tracing::warn!(
                "the Node, the ServiceCIDRs, other proxies' Services or IPAddressPools are not listed yet: rules are written without them"
            );
        }
        waits
    }

    /// Whether they came after all, since this was asked last. Tells so.
    pub(super) fn have_come(&mut self, index: &Index) -> bool {
        let come = self.told_missing && self.are_there(index);
        if come {
            self.told_missing = false;
            tracing::info!("the Node, the ServiceCIDRs, other proxies' Services and IPAddressPools are listed now");
        }
        come
    }
}
