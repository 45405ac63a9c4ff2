//! Slices -> the distinct endpoints of one Service port.

use std::cmp::Ordering;
use std::net::SocketAddr;

use super::Context;
use crate::model::{Conditions, Endpoint, EndpointSlice, Family, Protocol, ServicePortSpec, SlicePort};

/// One endpoint as one Service port sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: SocketAddr,
    /// It runs on our node.
    pub(super) local: bool,
    pub(super) endpoint: &'a Endpoint,
}

/// The slice ports of one family, found by name and protocol. They are looked through once, not once for each port of the Service:
/// with 10,000 ports that would be 100 million comparisons for every change of one endpoint.
///
/// Collects the endpoints of one port after the other in one buffer: a Service of 5,000 endpoints is an allocation of 240 kB.
#[derive(Debug)]
pub(super) struct Merger<'a> {
    /// Sorted by name and protocol.
    ports: Vec<(&'a SlicePort, &'a [Endpoint])>,
    candidates: Vec<Candidate<'a>>,
}

impl<'a> Merger<'a> {
    pub(super) fn new(slices: impl Iterator<Item = &'a EndpointSlice>, family: Family) -> Self {
        let mut ports = Vec::new();
        for slice in slices.filter(|slice| slice.family == family) {
            ports.extend(slice.ports.iter().map(|port| (port, &*slice.endpoints)));
        }
        ports.sort_unstable_by_key(|(port, _)| identity(port));
        Self { ports, candidates: Vec::new() }
    }

    /// The endpoints of `spec`, sorted by address, no address twice.
    pub(super) fn merge(&mut self, spec: &ServicePortSpec, context: &Context) -> &[Candidate<'a>] {
        let wanted = (spec.name.as_str(), spec.protocol);
        let first = self.ports.partition_point(|(port, _)| identity(port) < wanted);
        let matching = self.ports[first..].iter().take_while(|(port, _)| identity(port) == wanted);
        self.candidates.clear();
        for (port, endpoints) in matching {
            self.candidates.extend(endpoints.iter().map(|endpoint| Candidate {
                address: SocketAddr::new(endpoint.address, port.port),
                local: is_local(endpoint, context),
                endpoint,
            }));
        }
        // A controller that adds pods in the order of their addresses leaves nothing to do.
        if !self.candidates.is_sorted_by(|a, b| a.address < b.address) {
            self.candidates.sort_unstable_by(|a, b| a.address.cmp(&b.address).then_with(|| preference(a.endpoint, b.endpoint)));
            self.candidates.dedup_by_key(|candidate| candidate.address);
        }
        &self.candidates
    }
}

/// What a Service port finds its slice ports by. Numbers are each side's own matter.
fn identity(port: &SlicePort) -> (&str, Protocol) {
    (&port.name, port.protocol)
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
