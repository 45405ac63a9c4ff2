//! In process: the loop alone, fed with objects as a source would decode them.

use std::collections::BTreeMap;
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

/// One endpoint changed at a time, after the first sync.
pub(super) fn changes(shape: Shape, changes: u32) -> Result<Samples> {
    let mut replaced = 0;
    // A Service's next change leaves the one before as it is.
    let mut moved = BTreeMap::new();
    drive(shape, spread(changes, shape.services), move |service| {
        replaced += 1;
        // A place of the first slice, and an address of a Service that is not there.
        let place = replaced % u32::try_from(shape.places(0).len()).unwrap_or(u32::MAX).max(1);
        let elsewhere = shape.first_endpoint(shape.services + replaced, place, Family::V4);
        let there = shape.first_endpoint(service, place, Family::V4).address;
        moved.insert(there, elsewhere);
        vec![Document::slice(shape, service, Family::V4, 0, |endpoint| {
            Some(moved.get(&endpoint.address).cloned().unwrap_or(endpoint))
        })]
    })
}

/// One Service added at a time, with its endpoints, after the first sync.
pub(super) fn additions(shape: Shape, changes: u32) -> Result<Samples> {
    drive(shape, shape.services..shape.services.saturating_add(changes), move |service| {
        Document::of_service(shape, service).collect()
    })
}

fn drive(
    shape: Shape,
    services: impl Iterator<Item = u32> + Send,
    mut change: impl FnMut(u32) -> Vec<Document> + Send,
) -> Result<Samples> {
    let node = Namespace::new("node").context("making a namespace")?;
    node.run(move || {
        let mut driver = Driver::start()?;
        let mut decoder = Decoder::default();
        driver.fill((0..shape.services).flat_map(|number| Document::of_service(shape, number)), &mut decoder)?;
        let mut durations = Vec::new();
        for service in services {
            let changes: Vec<Change> = change(service).iter().map(|document| decoder.change(document)).collect::<Result<_>>()?;
            std::thread::sleep(PAUSE);
            durations.push(driver.apply(changes)?);
        }
        samples(durations)
    })?
}
