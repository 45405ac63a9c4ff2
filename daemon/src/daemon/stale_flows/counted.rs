//! Connection tracking, with what it is asked counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::seeker::FlowTable;
use crate::metrics::Metrics;
use crate::model::Family;
use crate::netlink::conntrack::{Deleted, DumpInfo, Flow, Selection};
use crate::netlink::nft::DoorError;

/// A table whose looks, each a dump and the deletions after it, go into the metrics.
#[derive(Debug)]
pub(super) struct Counted<T> {
    table: T,
    metrics: Arc<Metrics>,
    /// Of the last dump: in which family, and how long it took.
    dumped: (Family, Duration),
}

impl<T> Counted<T> {
    pub(super) fn new(table: T, metrics: Arc<Metrics>) -> Self {
        Self { table, metrics, dumped: (Family::V4, Duration::ZERO) }
    }

    fn looked(&self, took: Duration, deleted: Result<u64, ()>) {
        let (family, flows) = (self.dumped.0, &self.metrics.flows);
        flows.duration.of(family).observe(took.as_secs_f64());
        match deleted {
            Ok(deleted) => flows.deleted.of(family).inc_by(deleted),
            Err(()) => flows.failures.of(family).inc(),
        };
    }
}

impl<T: FlowTable> FlowTable for Counted<T> {
    fn dump(&mut self, selection: Selection, each: &mut dyn FnMut(&Flow)) -> Result<DumpInfo, DoorError> {
        let started = Instant::now();
        let outcome = self.table.dump(selection, each);
        self.dumped = (if selection.ipv6 { Family::V6 } else { Family::V4 }, started.elapsed());
        outcome.inspect_err(|_| self.looked(self.dumped.1, Err(())))
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<Deleted, DoorError> {
        let started = Instant::now();
        let outcome = self.table.delete(flows);
        let took = self.dumped.1 + started.elapsed();
        self.looked(took, outcome.as_ref().map(|done| done.deleted).map_err(|_| ()));
        outcome
    }
}
