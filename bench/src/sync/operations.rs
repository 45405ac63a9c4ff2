//! What a cluster does to a node, one operation at a time, and what each costs stage by stage.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sheave_lab::Namespace;
use sheave_tests::apiserver::load::Shape;

use super::objects::Document;
use super::pipeline::{Cost, Pipeline};
use super::spread;
use crate::machine;
use crate::progress::Progress;
use crate::results::Measurement;
use crate::statistics::{Samples, milliseconds};

/// A Service for itself, far from the numbers of most loads.
const ROLLED: u32 = 900_000;
/// Of its number and that of a ClusterIP Service: see [`Shape`]'s realistic mix.
const HUNDRED: u32 = 100;
/// Its endpoints.
const ROLLED_ENDPOINTS: u32 = 5_000;
/// Endpoints replaced in one step of its rolling update: half a slice, one percent of all.
const ROLLED_AT_ONCE: u32 = 50;
/// The node that is drained: one of the hundred that the load's endpoints are spread over, and not ours.
const DRAINED: &str = "node-00001";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every operation.
    All,
    /// Those whose growth is of interest.
    Growth,
}

/// Runs the operations on a cluster of its own, in a namespace of its own; tells each as soon as it is known.
pub(super) fn measure(
    shape: Shape,
    changes: u32,
    scope: Scope,
    progress: &Progress,
    mut tell: impl FnMut(Measurement) + Send,
) -> Result<()> {
    let node = Namespace::new("node").context("making a namespace")?;
    node.run(move || {
        let mut pipeline = Pipeline::start()?;
        let all = || (0..shape.services).flat_map(move |number| Document::of_service(shape, number));

        let before = machine::settled_kernel_memory_mb();
        let cold = pipeline.list(all())?;
        let kernel_mb = machine::kernel_memory_mb() - before;
        tell(Measurement { name: "cold sync".into(), ..row(&[cold])? }.value("kernel_memory_mb", kernel_mb));
        progress.done();

        let relist = pipeline.list(all())?;
        ensure!(relist.elements == 0, "a list that says nothing new wrote {} elements", relist.elements);
        tell(Measurement { name: "no-op relist".into(), ..row(&[relist])? });

        let costs = one_endpoint(&mut pipeline, shape, changes)?;
        tell(Measurement { name: "one endpoint changed".into(), ..row(&costs)? });

        let (added, removed) = services(&mut pipeline, shape, changes)?;
        tell(Measurement { name: "Service added".into(), ..row(&added)? });
        tell(Measurement { name: "Service removed".into(), ..row(&removed)? });
        if scope == Scope::Growth {
            return Ok(());
        }

        let steps = rolling_update(&mut pipeline, shape, rolled(shape.services, changes))?;
        tell(Measurement { name: "rolling update, a step".into(), ..row(&steps)? });

        let slices = drained(shape);
        if !slices.is_empty() {
            let drain = pipeline.apply(slices)?;
            ensure!(drain.elements > 0, "a node was drained and nothing was written");
            tell(Measurement { name: "node drained".into(), ..row(&[drain])? });
        }
        progress.done();
        Ok(())
    })?
}

/// One endpoint is replaced, and replaced by the old one again.
fn one_endpoint(pipeline: &mut Pipeline, shape: Shape, changes: u32) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for (nth, number) in (0..).zip(spread(changes.div_ceil(2), shape.services)) {
        let place = nth % u32::try_from(shape.places(0).len()).unwrap_or(u32::MAX).max(1);
        for places in [place..place + 1, 0..0] {
            costs.push(pipeline.apply(vec![Document::replacing(shape, number, 0, &places, nth)])?);
        }
    }
    ensure!(costs.iter().all(|cost| cost.elements > 0), "an endpoint changed and nothing was written");
    Ok(costs)
}

/// Services come, each with its endpoints, and go.
fn services(pipeline: &mut Pipeline, shape: Shape, changes: u32) -> Result<(Vec<Cost>, Vec<Cost>)> {
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for number in shape.services..shape.services.saturating_add(changes) {
        let documents = || Document::of_service(shape, number).collect::<Vec<_>>();
        added.push(pipeline.apply(documents())?);
        removed.push(pipeline.delete(&documents())?);
    }
    Ok((added, removed))
}

/// How many Services a load must have room for that is changed so often: its own, those that are added, and the one that is rolled.
pub(super) fn with_added(services: u32, changes: u32) -> u32 {
    let added = services.saturating_add(changes);
    if added <= ROLLED { added } else { rolled(services, changes).saturating_add(1) }
}

/// The number of the Service that is rolled: none of the load's own, and none of those that are added to it.
fn rolled(services: u32, changes: u32) -> u32 {
    let added = services.saturating_add(changes);
    if added <= ROLLED { ROLLED } else { added.checked_next_multiple_of(HUNDRED).unwrap_or(u32::MAX) }
}

/// All endpoints of a large Service are replaced, half a slice after the other.
fn rolling_update(pipeline: &mut Pipeline, shape: Shape, number: u32) -> Result<Vec<Cost>> {
    let shape = Shape { endpoints_per_service: ROLLED_ENDPOINTS, dual_stack: false, ..shape };
    pipeline.apply(Document::of_service(shape, number).collect())?;
    let mut costs = Vec::new();
    for part in 0..shape.parts() {
        let places = shape.places(part);
        let halves = [places.start..places.end.min(places.start + ROLLED_AT_ONCE), places.clone()];
        for half in halves {
            costs.push(pipeline.apply(vec![Document::replacing(shape, number, part, &half, 1_000_000 + places.start)])?);
        }
    }
    pipeline.delete(&Document::of_service(shape, number).collect::<Vec<_>>())?;
    Ok(costs)
}

/// Every slice that has an endpoint on the drained node, without it.
fn drained(shape: Shape) -> Vec<Document> {
    let all = (0..shape.services).flat_map(move |number| {
        shape.families().flat_map(move |family| (0..shape.parts()).map(move |part| (number, family, part)))
    });
    let affected = all.filter(|(number, family, part)| {
        shape.places(*part).any(|place| shape.first_endpoint(*number, place, *family).node == DRAINED)
    });
    let stays = |endpoint: sheave_tests::apiserver::load::EndpointAddress| (endpoint.node != DRAINED).then_some(endpoint);
    affected.map(|(number, family, part)| Document::slice(shape, number, family, part, stays)).collect()
}

/// Costs of one operation that was done so many times: percentiles of the whole, and the mean of everything else, so that the stages
/// add up to the mean.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn row(costs: &[Cost]) -> Result<Measurement> {
    let wholes: Vec<Duration> = costs.iter().map(Cost::whole).collect();
    let Some(samples) = Samples::new(wholes) else { bail!("nothing was measured") };
    let count = costs.len() as f64;
    let mean = |of: fn(&Cost) -> f64| costs.iter().map(of).sum::<f64>() / count;
    let row = Measurement::default()
        .value("times", count)
        .value("p50_ms", milliseconds(samples.percentile(50)))
        .value("p99_ms", samples.p99().map_or(f64::NAN, milliseconds))
        .value("decode_ms", mean(|cost| milliseconds(cost.decode)))
        .value("index_ms", mean(|cost| milliseconds(cost.index)))
        .value("policy_ms", mean(|cost| milliseconds(cost.policy)))
        .value("diff_ms", mean(|cost| milliseconds(cost.diff)))
        .value("publish_ms", mean(|cost| milliseconds(cost.publish)))
        .value("encode_ms", mean(|cost| milliseconds(cost.encode)))
        .value("kernel_ms", mean(|cost| milliseconds(cost.kernel)))
        .value("cpu_ms", mean(|cost| milliseconds(cost.cpu)))
        .value("allocations", mean(|cost| cost.allocations.count as f64))
        .value("allocated_mb", mean(|cost| cost.allocations.bytes as f64 / 1e6))
        .value("elements", mean(|cost| cost.elements as f64))
        .value("sent_bytes", mean(|cost| cost.bytes as f64))
        .value("transactions", mean(|cost| f64::from(cost.transactions)));
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_node_has_one_percent_of_all_endpoints() {
        let shape = Shape { services: 40, endpoints_per_service: 50, ..Shape::default() };
        // 2,000 endpoints over 100 nodes are 20 of each, and each of these is in a Service of its own.
        assert_eq!(drained(shape).len(), 20);
    }

    #[test]
    fn the_rolled_service_is_none_of_the_others() {
        for (services, changes) in [(10, 1), (900_000, 0), (899_999, 2), (900_000, 1), (999_000, 900), (u32::MAX, u32::MAX)] {
            let (rolled, room) = (rolled(services, changes), with_added(services, changes));
            assert!(rolled >= services.saturating_add(changes), "{services} and {changes}");
            assert!(rolled < room || rolled == ROLLED || room == u32::MAX, "{services} and {changes}: {rolled} of {room}");
        }
    }

    #[test]
    fn stages_add_up_to_the_mean() {
        let cost = |kernel| Cost { decode: Duration::from_millis(1), kernel: Duration::from_millis(kernel), ..Cost::default() };
        let row = row(&[cost(1), cost(3)]).unwrap();
        assert!((row.values["decode_ms"] + row.values["kernel_ms"] - 3.0).abs() < 1e-9);
        assert!((row.values["p50_ms"] - 2.0).abs() < 1e-9 && !row.values.contains_key("p99_ms"));
    }
}
