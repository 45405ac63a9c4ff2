//! In process: the loop alone, fed with objects as a source would decode them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sheave::model::Family;
use sheave::source::Change;
use sheave_lab::Namespace;
use sheave_tests::apiserver::load::Shape;

use super::driver::Driver;
use super::objects::{Decoder, Document};
use super::{samples, spread};
use crate::statistics::Samples;

/// Between two changes, as over the wire.
const PAUSE: Duration = Duration::from_millis(3);

/// The first sync, and one endpoint changed at a time.
pub(super) fn changes(shape: Shape, changes: u32) -> Result<(Duration, Samples)> {
    let mut replaced = 0;
    drive(shape, spread(changes, shape.services), move |service| {
        replaced += 1;
        // A place of the first slice, and an address of a Service that is not there.
        let place = replaced % u32::try_from(shape.places(0).len()).unwrap_or(u32::MAX).max(1);
        let elsewhere = shape.first_endpoint(shape.services + replaced, place, Family::V4);
        let there = shape.first_endpoint(service, place, Family::V4).address;
        vec![Document::slice(shape, service, Family::V4, 0, |endpoint| {
            Some(if endpoint.address == there { elsewhere.clone() } else { endpoint })
        })]
    })
}

/// The first sync, and one Service added at a time, with its endpoints.
pub(super) fn additions(shape: Shape, changes: u32) -> Result<(Duration, Samples)> {
    drive(shape, shape.services..shape.services.saturating_add(changes), move |service| {
        Document::of_service(shape, service).collect()
    })
}

fn drive(
    shape: Shape,
    services: impl Iterator<Item = u32> + Send,
    mut change: impl FnMut(u32) -> Vec<Document> + Send,
) -> Result<(Duration, Samples)> {
    let node = Namespace::new("node").context("making a namespace")?;
    node.run(move || {
        let mut driver = Driver::start()?;
        let mut decoder = Decoder::default();
        let cold = driver.fill((0..shape.services).flat_map(|number| Document::of_service(shape, number)), &mut decoder)?;
        let mut durations = Vec::new();
        for service in services {
            let changes: Vec<Change> = change(service).iter().map(|document| decoder.change(document)).collect::<Result<_>>()?;
            std::thread::sleep(PAUSE);
            durations.push(driver.apply(changes)?);
        }
        Ok((cold, samples(durations)?))
    })?
}
