//! Both implementations agree on random Services, and the answer does not depend on any order.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::policy::arbitrary;
use crate::policy::naive::{self, Client, Coverage};
use crate::table::{Frontend, FrontendKind, Scope};

/// A Service with up to four slices of its own.
fn with_slices() -> impl Strategy<Value = (Service, Vec<EndpointSlice>)> {
    (arbitrary::service(), vec(arbitrary::slice(), 0..4)).prop_map(|(service, mut slices)| {
        for slice in &mut slices {
            slice.service = service.key.clone();
        }
        (service, slices)
    })
}

/// How planes read a frontend: [`Frontend::splits_by_source`] and [`Frontend::scope`].
fn served<'a>(port: &'a DesiredPort, frontend: &Frontend, client: Client) -> &'a [Backend] {
    let scope = if frontend.splits_by_source() && client == Client::Outside { Scope::Local } else { frontend.scope() };
    match scope {
        Scope::Cluster => &port.cluster,
        Scope::Local => &port.local,
    }
}

fn addresses(backends: &[Backend]) -> BTreeSet<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

#[test]
fn agrees_with_the_text_and_takes_every_branch_of_it() {
    let coverage = RefCell::new(Coverage::default());
    // A fixed seed: the claim is about this run. The free runs are the properties below.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { cases: 4000, failure_persistence: None, ..Config::default() }, rng);
    let outcome = runner.run(&(with_slices(), arbitrary::context()), |((service, slices), context)| {
        let seen = &mut *coverage.borrow_mut();
        let expected = naive::ports(&service, &slices, &context, seen);
        let found = evaluate(&service, &slices, &context);
        prop_assert!(found.ports.iter().map(|port| &port.id).eq(expected.keys()));
        for (port, (_, naive)) in found.ports.iter().zip(&expected) {
            prop_assert_eq!(&addresses(&port.cluster), &naive.cluster, "cluster list of {}", &port.id);
            prop_assert_eq!(&addresses(&port.local), &naive.local, "local list of {}", &port.id);
            prop_assert_eq!(port.any_usable, naive.any_usable);
            prop_assert!(port.frontends.iter().map(|frontend| (&frontend.address, &frontend.kind)).eq(&naive.kinds));
            for frontend in &port.frontends {
                for client in Client::ALL {
                    let expected = naive.served(frontend.kind, client, seen);
                    prop_assert_eq!(&addresses(served(port, frontend, client)), expected, "{:?} -> {}", client, frontend.address);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let coverage = coverage.into_inner();
    let missed: Vec<_> = coverage.missed().collect();
    assert!(missed.is_empty(), "never taken: {missed:?}\n{coverage:#?}");
}

/// One range and one VIP, by the text.
fn is_let_in(service: &Service, vips: &[IpAddr], source: IpAddr, context: &Context) -> bool {
    let own: Vec<_> = service.source_ranges.iter().filter(|range| range.addr().is_ipv4() == source.is_ipv4()).collect();
    let node = context.node_ips.iter().find(|ip| ip.is_ipv4() == source.is_ipv4());
    own.is_empty()
        || own.iter().any(|range| range.contains(&source))
        || (vips.contains(&source) && own.iter().any(|range| node.is_some_and(|node| range.contains(node))))
}

/// Both sides of the edges of every range that the generator makes, the node, and the VIPs' neighbourhood.
const SOURCES: [&str; 18] = [
    "9.255.255.255",
    "10.0.0.0",
    "10.1.2.3",
    "10.255.255.255",
    "11.0.0.0",
    "192.168.0.2",
    "192.168.0.127",
    "192.168.0.128",
    "192.168.1.0",
    "198.51.100.7",
    "198.51.100.8",
    "203.0.113.1",
    "203.0.113.6",
    "203.0.113.9",
    "fd00:168::2",
    "fd01::1",
    "2001:db8::1",
    "2001:db8::9",
];

proptest! {
    #[test]
    fn order_makes_no_difference(
        (service, slices, shuffled) in with_slices().prop_flat_map(|(service, slices)| {
            let endpoints: Vec<_> = slices.iter().map(|slice| Just(slice.endpoints.to_vec()).prop_shuffle()).collect();
            let mixed = (Just(slices.clone()), endpoints).prop_map(|(mut slices, endpoints)| {
                for (slice, endpoints) in slices.iter_mut().zip(endpoints) {
                    slice.endpoints = endpoints.into();
                    slice.ports.reverse();
                }
                slices
            });
            (Just(service), Just(slices), mixed.prop_shuffle())
        }),
        context in arbitrary::context(),
    ) {
        prop_assert_eq!(evaluate(&service, &slices, &context), evaluate(&service, &shuffled, &context));
    }

    /// What the types promise to the table.
    #[test]
    fn lists_are_sorted_and_distinct((service, slices) in with_slices(), context in arbitrary::context()) {
        let desired = evaluate(&service, &slices, &context);
        prop_assert!(desired.ports.is_sorted_by(|a, b| a.id < b.id));
        for port in &desired.ports {
            prop_assert!(port.frontends.is_sorted_by(|a, b| a.address < b.address));
            prop_assert!(port.cluster.is_sorted_by(|a, b| a.address < b.address));
            prop_assert!(port.local.is_sorted_by(|a, b| a.address < b.address));
            prop_assert!(port.local.iter().all(|backend| backend.local));
            prop_assert!(port.serving.is_sorted_by(|a, b| a < b));
            prop_assert!(port.serving.is_empty() || port.id.protocol == Protocol::Udp);
            for ranges in port.frontends.iter().filter_map(|frontend| frontend.source_ranges.as_ref()) {
                prop_assert!(!ranges.is_empty() && ranges.is_sorted());
                for (at, range) in ranges.iter().enumerate() {
                    prop_assert_eq!(*range, range.trunc());
                    prop_assert!(ranges[at + 1..].iter().all(|later| !range.contains(later) && !later.contains(range)));
                }
            }
        }
    }

    #[test]
    fn source_ranges_let_in_whom_the_text_lets_in((service, slices) in with_slices(), context in arbitrary::context()) {
        for port in &evaluate(&service, &slices, &context).ports {
            let vips: Vec<_> = port.frontends.iter()
                .filter(|frontend| matches!(frontend.kind, FrontendKind::PoolVip | FrontendKind::LoadBalancer))
                .collect();
            let ips: Vec<_> = vips.iter().filter_map(|frontend| frontend.address.ip()).collect();
            for source in SOURCES.map(ip).into_iter().filter(|ip| Family::of(*ip) == port.id.family) {
                for vip in &vips {
                    let found = vip.source_ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&source)));
                    prop_assert_eq!(found, is_let_in(&service, &ips, source, &context), "{}", source);
                }
            }
        }
    }
}
