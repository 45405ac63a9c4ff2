//! In process: the loop alone, fed with objects as a source would decode them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sheave::model::{Endpoint, EndpointSlice, Family, Interner, ObjectKey, Protocol, Service, ServiceKey, samples};
use sheave::source::{Change, Object};
use sheave_lab::Namespace;
use sheave_tests::apiserver::load::{EndpointAddress, Shape};

use super::driver::Driver;
use super::{samples, spread};
use crate::statistics::Samples;

/// Endpoints in one slice: the EndpointSlice controller's default.
const SLICE: u32 = 100;
const NAMESPACE: &str = "load";
const PORT: &str = "http";
/// Between two changes, as over the wire.
const PAUSE: Duration = Duration::from_millis(3);

/// Objects of a [`Shape`], as a source decodes them.
struct Cluster {
    shape: Shape,
    names: Interner,
}

/// The first sync, and one endpoint changed at a time.
pub(super) fn changes(shape: Shape, changes: u32) -> Result<(Duration, Samples)> {
    let mut cluster = Cluster { shape, names: Interner::default() };
    let mut replaced = 0;
    drive(shape, spread(changes, shape.services), move |service| {
        replaced += 1;
        // A place of the first slice, and an address of a Service that is not there.
        let place = replaced % shape.endpoints_per_service.min(SLICE);
        let elsewhere = shape.first_endpoint(shape.services + replaced, place, Family::V4);
        vec![cluster.slice(service, 0, Some(&(place, elsewhere)))]
    })
}

/// The first sync, and one Service added at a time, with its endpoints.
pub(super) fn additions(shape: Shape, changes: u32) -> Result<(Duration, Samples)> {
    let mut cluster = Cluster { shape, names: Interner::default() };
    drive(shape, shape.services..shape.services.saturating_add(changes), move |service| {
        cluster.service_and_slices(service).collect()
    })
}

fn drive(
    shape: Shape,
    services: impl Iterator<Item = u32> + Send,
    mut change: impl FnMut(u32) -> Vec<Object> + Send,
) -> Result<(Duration, Samples)> {
    let node = Namespace::new("node").context("making a namespace")?;
    node.run(move || {
        let mut driver = Driver::start()?;
        let mut cluster = Cluster { shape, names: Interner::default() };
        let cold =
            driver.fill((0..shape.services).flat_map(|service| cluster.service_and_slices(service).collect::<Vec<_>>()))?;
        let mut durations = Vec::new();
        for service in services {
            std::thread::sleep(PAUSE);
            let objects = change(service);
            durations.push(driver.apply(objects.into_iter().map(Change::Applied))?);
        }
        Ok((cold, samples(durations)?))
    })?
}

impl Cluster {
    fn service_and_slices(&mut self, number: u32) -> impl Iterator<Item = Object> + use<'_> {
        let service = Object::Service(Box::new(self.service(number)));
        std::iter::once(service)
            .chain((0..self.shape.endpoints_per_service.div_ceil(SLICE)).map(move |part| self.slice(number, part, None)))
    }

    fn service(&self, number: u32) -> Service {
        Service {
            uid: format!("00000000-0000-4000-9000-{number:012x}").into(),
            created: Some(1_767_225_600),
            cluster_ips: self.shape.cluster_ips(number).into(),
            ports: vec![samples::port(PORT, Protocol::Tcp, 80)],
            ..samples::service(key(number), IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }
    }

    /// One slice, with one endpoint replaced.
    fn slice(&mut self, number: u32, part: u32, replaced: Option<&(u32, EndpointAddress)>) -> Object {
        let shape = self.shape;
        let places = part * SLICE..shape.endpoints_per_service.min((part + 1) * SLICE);
        let endpoints = places.map(|place| match replaced {
            Some((at, instead)) if *at == place => self.endpoint(instead),
            _ => self.endpoint(&shape.first_endpoint(number, place, Family::V4)),
        });
        let name = ObjectKey::new(NAMESPACE, &format!("{}-ipv4-{part}", Shape::service_name(number)));
        let ports = vec![samples::slice_port(PORT, Protocol::Tcp, 8080)];
        Object::EndpointSlice(Box::new(EndpointSlice { ports, ..samples::slice(name, key(number), endpoints) }))
    }

    fn endpoint(&mut self, endpoint: &EndpointAddress) -> Endpoint {
        Endpoint { node: Some(self.names.intern(&endpoint.node)), ..samples::endpoint(endpoint.address) }
    }
}

fn key(number: u32) -> ServiceKey {
    ServiceKey::new(NAMESPACE, &Shape::service_name(number))
}
