use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::apiserver::manifests;

fn server() -> ApiServer {
    ApiServer::start(crate::apiserver::Config::default()).unwrap()
}

fn small(mix: Mix, dual_stack: bool) -> Shape {
    Shape { services: 300, endpoints_per_service: 3, mix, dual_stack, nodes: 5 }
}

/// What the server would have made of a generated object: uid, times and versions aside, exactly what is there.
#[test]
fn generated_objects_are_what_the_server_makes_of_them() {
    for (mix, dual_stack) in [(Mix::Plain, false), (Mix::Realistic, true)] {
        let shape = small(mix, dual_stack);
        let (generated, applied) = (server(), server());
        Load::fill(&generated, shape).unwrap();
        let directory = tempfile::tempdir().unwrap();
        shape.write_manifests(directory.path()).unwrap();
        applied.apply_manifests(directory.path()).unwrap();
        for resource in ["services", "endpointslices", "nodes", "servicecidrs"] {
            let plain = |server: &ApiServer| -> Vec<Value> {
                let mut objects = server.list(resource);
                objects.retain(|object| object["metadata"]["name"] != "kubernetes");
                for object in &mut objects {
                    for name in ["uid", "creationTimestamp", "resourceVersion"] {
                        object["metadata"].as_object_mut().unwrap().remove(name);
                    }
                    // The condition carries a time.
                    object.as_object_mut().unwrap().retain(|name, _| name != "status" || resource != "servicecidrs");
                }
                objects
            };
            assert_eq!(plain(&generated), plain(&applied), "{resource}");
        }
    }
}

#[test]
fn the_realistic_mix_has_its_proportions() {
    let shape = Shape { services: 1000, ..small(Mix::Realistic, true) };
    let count = |test: &dyn Fn(&ServiceShape) -> bool| (0..1000).filter(|n| test(&shape.service(*n))).count();
    assert_eq!(count(&|service| service.kind == ServiceType::ClusterIp), 700);
    assert_eq!(count(&|service| service.kind == ServiceType::NodePort && service.node_port.is_some()), 200);
    assert_eq!(count(&|service| service.vip.is_some() && service.health_port.is_some()), 100);
    assert_eq!(count(&|service| service.affinity), 50);
}

#[test]
fn no_two_endpoints_and_no_two_services_share_an_address_or_a_port() {
    let shape = Shape { services: 12_000, ..small(Mix::Realistic, true) };
    let (mut addresses, mut ports) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    for number in 0..shape.services {
        let service = shape.service(number);
        for address in &service.cluster_ips {
            assert!(addresses.insert(*address) && (CLUSTER_V4.contains(address) || CLUSTER_V6.contains(address)));
        }
        assert!(service.node_port.into_iter().chain(service.health_port).all(|port| ports.insert(port)));
        for place in 0..shape.endpoints_per_service {
            for family in shape.families() {
                assert!(addresses.insert(shape.endpoint(number, place, family, None).address));
            }
        }
    }
}

#[test]
fn a_changed_endpoint_is_the_only_thing_that_changes() {
    let server = server();
    let shape = Shape { services: 3, endpoints_per_service: 150, ..small(Mix::Plain, false) };
    let mut load = Load::fill(&server, shape).unwrap();
    let addresses = || -> Vec<String> {
        let slices = server.list("endpointslices");
        let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
        endpoints.map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect()
    };
    for service in [1, 1, 2, 1] {
        let before = addresses();
        let change = load.change_endpoint(service).unwrap();
        let after = addresses();
        let differing: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
        assert_eq!(differing, [(&change.old.to_string(), &change.new.to_string())]);
        assert_eq!(change.version, server.revision());
    }
    load.remove_service(1);
    assert_eq!((server.list("services").len(), server.list("endpointslices").len()), (3, 4));
    load.add_service(1);
    assert_eq!(addresses().len(), 450);
    assert!(server.get("services", "load", "svc-000001").is_some());
}

#[test]
fn a_shape_without_room_is_refused() {
    let shape = |services, endpoints_per_service| Shape { services, endpoints_per_service, ..small(Mix::Plain, false) };
    let refusal = |shape| Load::fill(&server(), shape).unwrap_err().to_string();
    assert!(refusal(shape(100_000, 100)).starts_with("10000000 endpoints are more than the 8000000 that"));
    assert!(refusal(shape(1_000_001, 1)).starts_with("1000001 Services are more than the 1000000 that"));
    shape(1_000_000, 8).check().unwrap();
}

#[test]
fn manifests_of_a_load_are_yaml() {
    let directory = tempfile::tempdir().unwrap();
    small(Mix::Realistic, false).write_manifests(directory.path()).unwrap();
    let objects = manifests::read(directory.path()).unwrap();
    assert_eq!(objects.iter().filter(|(_, object)| object["kind"] == "EndpointSlice").count(), 300);
}

/// 250,000 endpoints over the wire. The bound is loose because other tests run beside this one; the figures are in its output.
#[tokio::test]
async fn a_quarter_of_a_million_endpoints_stream_quickly() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = server();
    let began = Instant::now();
    let shape = Shape { services: 2_500, endpoints_per_service: 100, ..Shape::default() };
    Load::fill(&server, shape).unwrap();
    let filled = began.elapsed();
    let mut socket = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let request = "GET /apis/discovery.k8s.io/v1/endpointslices HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let began = Instant::now();
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match socket.read(&mut buffer).await.unwrap() {
            0 => break,
            read => total += read,
        }
    }
    println!("filled in {filled:?}, {total} bytes listed in {:?}", began.elapsed());
    assert!(total > 60_000_000 && began.elapsed() < Duration::from_secs(10), "{total} bytes in {:?}", began.elapsed());
}
