//! Who is asked by load balancers, and what they are told.

use super::*;

fn web() -> Service {
    Service {
        kind: ServiceType::LoadBalancer,
        external_traffic_policy: TrafficPolicy::Local,
        health_check_node_port: 30_999,
        ..service()
    }
}

/// Ready endpoints here, in each family, if anybody is asked at all.
fn local(service: &Service, slices: &[EndpointSlice]) -> Option<(Option<u32>, Option<u32>)> {
    health_check(service, slices.iter(), &context()).map(|check| (check.local_v4, check.local_v6))
}

#[test]
fn ready_endpoints_of_this_node_count_once() {
    let slices =
        [slice("a", &["1 rs here", "2 rs there", "3 st here", "4 s here", "5 rs -"]), slice("b", &["1 rs here", "6 r here"])];
    assert_eq!(local(&web(), &slices), Some((Some(2), None)));
    assert_eq!(
        local(&web(), &[slice("a", &["3 st here"])]),
        Some((Some(0), None)),
        "terminating ones get traffic and do not count"
    );
    let portless = EndpointSlice { ports: Vec::new(), ..slice("a", &["1 rs here"]) };
    assert_eq!(local(&web(), &[portless]), Some((Some(0), None)));
}

#[test]
fn families_are_asked_apart() {
    let dual = Service { cluster_ips: [ip("172.30.0.41"), ip("fd00::41")].into_iter().collect(), ..web() };
    let v6 = |mut slice: EndpointSlice| {
        slice.family = Family::V6;
        for endpoint in &mut slice.endpoints {
            endpoint.address = ip("fd00:10::1");
        }
        slice
    };
    let slices = [slice("a", &["1 rs here", "2 rs here"]), v6(slice("b", &["1 rs here"]))];
    assert_eq!(local(&dual, &slices), Some((Some(2), Some(1))));
    assert_eq!(local(&web(), &slices), Some((Some(2), None)));
}

#[test]
fn only_a_load_balancer_with_policy_local_and_a_port_asks() {
    let slices = [slice("a", &["1 rs here"])];
    for service in [
        Service { health_check_node_port: 0, ..web() },
        Service { kind: ServiceType::NodePort, ..web() },
        Service { external_traffic_policy: TrafficPolicy::Cluster, ..web() },
        Service { cluster_ips: smallvec::SmallVec::new(), ..web() },
        Service { headless: true, ..web() },
    ] {
        assert_eq!(local(&service, &slices), None, "{service:?}");
    }
}
