//! Slices -> the distinct endpoints of one Service port.

use std::cmp::Ordering;
use std::net::SocketAddr;

use super::Context;
use crate::model::{Conditions, Endpoint, EndpointSlice, Family, ServicePortSpec};

/// One endpoint as one Service port sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: SocketAddr,
    /// It runs on our node.
    pub(super) local: bool,
    pub(super) endpoint: &'a Endpoint,
}

/// Collects the endpoints of one port after the other in one buffer: a Service of 5,000 endpoints is an allocation of 240 kB.
#[derive(Debug, Default)]
pub(super) struct Merger<'a> {
    candidates: Vec<Candidate<'a>>,
}

impl<'a> Merger<'a> {
    /// The endpoints of `spec`, sorted by address, no address twice.
    pub(super) fn merge(
        &mut self,
        slices: impl Iterator<Item = &'a EndpointSlice>,
        family: Family,
        spec: &ServicePortSpec,
        context: &Context,
    ) -> &[Candidate<'a>] {
        self.candidates.clear();
        for slice in slices.filter(|slice| slice.family == family) {
            for port in slice.ports.iter().filter(|port| port.name == spec.name && port.protocol == spec.protocol) {
                self.candidates.extend(slice.endpoints.iter().map(|endpoint| Candidate {
                    address: SocketAddr::new(endpoint.address, port.port),
                    local: is_local(endpoint, context),
                    endpoint,
                }));
            }
        }
        self.candidates.sort_unstable_by(|a, b| a.address.cmp(&b.address).then_with(|| preference(a.endpoint, b.endpoint)));
        self.candidates.dedup_by_key(|candidate| candidate.address);
        &self.candidates
    }
}

/// By name alone; an endpoint without a node is nobody's. Addresses are never compared with the node's.
pub(super) fn is_local(endpoint: &Endpoint, context: &Context) -> bool {
    endpoint.node.as_ref().is_some_and(|node| *node == context.node_name)
}

/// Which of two entries with one address counts (less is preferred). Not terminating beats terminating: the address has been given
/// to a new pod. The rest is ours, where kube-proxy leaves it to chance: the more usable entry, then any order that does not depend
/// on where the entry stood, and that is the same on every node.
fn preference(a: &Endpoint, b: &Endpoint) -> Ordering {
    usability(a).cmp(&usability(b)).then_with(|| a.node.cmp(&b.node)).then_with(|| a.hints.cmp(&b.hints))
}

fn usability(endpoint: &Endpoint) -> (bool, bool, bool) {
    let Conditions { ready, serving, terminating } = endpoint.conditions;
    (terminating, !ready, !serving)
}
