//! The rules, one table each; and all of them at once against a second implementation.

mod frontends;
mod properties;
mod selection;

use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, Desired, DesiredPort, desired};
use crate::model::samples::{self, port};
use crate::model::{
    Conditions, Endpoint, EndpointSlice, Family, Hints, ObjectKey, Protocol, Service, ServiceType, SlicePort, TrafficPolicy,
};
use crate::table::Backend;

/// Conditions in the letters of the tables: **r**eady, **s**erving, **t**erminating.
fn conditions(letters: &str) -> Conditions {
    let has = |letter| letters.contains(letter);
    Conditions { ready: has('r'), serving: has('s'), terminating: has('t') }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `default/web`, 172.30.0.41, port 80/TCP without a name.
fn service() -> Service {
    samples::service(ObjectKey::new("default", "web"), ip("172.30.0.41"))
}

/// As [`service`], with a VIP, an externalIP and a NodePort.
fn load_balancer() -> Service {
    let mut service = service();
    service.kind = ServiceType::LoadBalancer;
    service.vips = vec![ip("1.2.3.4")];
    service.external_ips = vec![ip("192.168.99.1")];
    service.ports[0].node_port = 30001;
    service
}

/// Our node is `here`, in zone `a`, with the IPs of the scenarios.
fn context() -> Context {
    Context {
        node_name: "here".into(),
        zone: Some("a".into()),
        node_ips: vec![ip("192.168.0.2"), ip("fd00:168::2")],
        ..Context::default()
    }
}

/// An endpoint as `host conditions node [zones] [nodes]`: `5 rs here`, `5 st there a,b`, `5 rs - - here`; `-` is none.
fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ').map(|word| if word == "-" { "" } else { word });
    let mut next = || words.next().unwrap_or_default();
    let address = ip(&format!("10.180.0.{}", next()));
    let conditions = conditions(next());
    let node = Some(next()).filter(|name| !name.is_empty()).map(Arc::from);
    let names = |list: &str| list.split(',').filter(|name| !name.is_empty()).map(Arc::from).collect::<Vec<_>>();
    let (zones, nodes) = (names(next()), names(next()));
    let hints = (!zones.is_empty() || !nodes.is_empty()).then(|| Box::new(Hints { zones, nodes }));
    Endpoint { address, conditions, node, hints }
}

/// A slice of `default/web` with port 80/TCP without a name.
fn slice(name: &str, endpoints: &[&str]) -> EndpointSlice {
    samples::slice(ObjectKey::new("default", name), ObjectKey::new("default", "web"), endpoints.iter().map(|text| endpoint(text)))
}

fn evaluate(service: &Service, slices: &[EndpointSlice], context: &Context) -> Desired {
    desired(service, slices.iter(), context)
}

/// The one port of a Service that has one.
fn only_port(service: &Service, slices: &[EndpointSlice], context: &Context) -> DesiredPort {
    let mut ports = evaluate(service, slices, context).ports;
    assert_eq!(ports.len(), 1);
    ports.remove(0)
}

/// Last numbers of the backends' addresses, `1 2 5`.
fn hosts(backends: &[Backend]) -> String {
    let last = |backend: &Backend| backend.address.ip().to_string().rsplit('.').next().unwrap_or_default().to_owned();
    backends.iter().map(last).collect::<Vec<_>>().join(" ")
}
