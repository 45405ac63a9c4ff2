//! Objects cut from what a real API server sent, objects with something wrong in every place, and bytes without any sense.

mod load_balancer;

use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    Conditions, EndpointSlice, Family, Node, NodeAddressKind, Problem, Protocol, Service, ServiceCidr, ServiceType, TrafficPolicy,
};

fn decoded(kind: Kind, value: &Value) -> Decoded {
    from_json(kind, value.to_string().as_bytes(), &mut Interner::default()).expect("decodes")
}

fn service(value: &Value) -> Service {
    match decoded(Kind::Service, value) {
        Decoded::Object(Object::Service(service)) => *service,
        other => panic!("not a Service: {other:?}"),
    }
}

/// The same, as an API server sends it.
fn sent_service(value: &Value) -> Service {
    match sent(Kind::Service, value) {
        Object::Service(service) => *service,
        other => panic!("not a Service: {other:?}"),
    }
}

fn sent(kind: Kind, value: &Value) -> Object {
    let text = value.to_string();
    let Ok(Field::Is(document)) = wire::read::<Field<Document<'_>>>(text.as_bytes()) else { panic!("no object: {text}") };
    match object(Author::Server, kind, document, &mut Interner::default()).expect("decodes") {
        Decoded::Object(object) => object,
        other @ Decoded::NotOurs { .. } => panic!("not ours: {other:?}"),
    }
}

fn slice(value: &Value) -> EndpointSlice {
    match decoded(Kind::EndpointSlice, value) {
        Decoded::Object(Object::EndpointSlice(slice)) => *slice,
        other => panic!("not a slice: {other:?}"),
    }
}

fn node(value: &Value) -> Node {
    match decoded(Kind::Node, value) {
        Decoded::Object(Object::Node(node)) => *node,
        other => panic!("not a Node: {other:?}"),
    }
}

fn service_cidr(value: &Value) -> ServiceCidr {
    match decoded(Kind::ServiceCidr, value) {
        Decoded::Object(Object::ServiceCidr(cidr)) => *cidr,
        other => panic!("not a ServiceCIDR: {other:?}"),
    }
}

fn said(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn fields(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.field.as_str()).collect()
}

/// A Service of which only `spec` and `status` matter; with a port, unless it has some of its own.
#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn with_spec(spec: Value, status: Value) -> Value {
    let mut spec = spec;
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec, "status": status})
}

#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn with_endpoints(endpoints: Value) -> Value {
    json!({
        "metadata": {"name": "web-a", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints
    })
}

#[test]
fn a_service_as_the_api_server_sends_it() {
    let sent = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"sticky","namespace":"default","uid":"1e51e134-0331-4107-ac55-4feda5f9aa5c","resourceVersion":"215","creationTimestamp":"2026-11-21T01:23:48Z","managedFields":[{"manager":"unknown","operation":"Update","apiVersion":"v1","time":"2026-11-21T01:23:48Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:ports":{".":{},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:name":{}}}}}}]},"spec":{"ports":[{"name":"http","protocol":"TCP","port":80,"targetPort":8080,"nodePort":30668}],"clusterIP":"10.96.127.210","clusterIPs":["10.96.127.210"],"type":"NodePort","sessionAffinity":"ClientIP","externalTrafficPolicy":"Local","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":10800}},"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"},"status":{"loadBalancer":{}}}"#;
    let Decoded::Object(Object::Service(service)) =
        from_json(Kind::Service, sent.as_bytes(), &mut Interner::default()).expect("decodes")
    else {
        panic!("not a Service")
    };
    assert_eq!(service.key.as_str(), "default/sticky");
    assert_eq!(service.uid, "1e51e134-0331-4107-ac55-4feda5f9aa5c");
    assert_eq!(service.created, Some(1_795_224_228));
    assert_eq!(service.kind, ServiceType::NodePort);
    assert_eq!(service.cluster_ips.as_slice(), ["10.96.127.210".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Cluster);
    assert_eq!(service.affinity.map(std::num::NonZero::get), Some(10_800));
    let [port] = &service.ports[..] else { panic!("one port") };
    assert_eq!((port.name.as_str(), port.protocol, port.port, port.node_port), ("http", Protocol::Tcp, 80, 30_668));
    assert_eq!(service.problems, []);
}

#[test]
fn a_slice_as_the_api_server_sends_it() {
    let slice = slice(
        &json!({"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"web-a","namespace":"default","uid":"9223de7e","resourceVersion":"216","generation":1,"creationTimestamp":"2026-11-21T01:23:48Z","labels":{"kubernetes.io/service-name":"web"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-11-21T01:23:48Z"},"managedFields":[{"manager":"unknown"}]},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"node-a","zone":"zone-a","hints":{"forZones":[{"name":"zone-a"}]}},{"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true},"nodeName":"node-a","zone":"zone-a"}],"ports":[{"name":"http","protocol":"TCP","port":8080}]}),
    );
    assert_eq!((slice.key.as_str(), slice.service.as_str()), ("default/web-a", "default/web"));
    assert_eq!(slice.family, Family::V4);
    assert_eq!(slice.trigger_time, Some(1_795_224_228_000_000_000));
    let [first, second] = &*slice.endpoints else { panic!("two endpoints") };
    assert_eq!(first.conditions, Conditions::READY);
    assert!(second.conditions.is_fallback());
    assert_eq!(first.hints.as_deref().map(|hints| hints.zones.len()), Some(1));
    assert_eq!(second.hints, None);
    let (Some(one), Some(other)) = (&first.node, &second.node) else { panic!("both have a node") };
    assert!(std::sync::Arc::ptr_eq(one, other), "one allocation for one name");
    assert_eq!(slice.problems, []);
}

#[test]
fn a_node_as_the_api_server_sends_it() {
    let node = node(
        &json!({"metadata":{"name":"node-a","labels":{"topology.kubernetes.io/zone":"zone-a"}},"spec":{"podCIDR":"10.1.0.0/24","podCIDRs":["10.1.0.0/24","fd00:1::/64"],"taints":[{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}]},"status":{"addresses":[{"type":"Hostname","address":"node-a"},{"type":"ExternalIP","address":"203.0.113.9"},{"type":"InternalIP","address":"192.168.0.2"},{"type":"InternalIP","address":"nonsense"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":0}}}}),
    );
    assert_eq!(&*node.name, "node-a");
    assert_eq!(node.zone.as_deref(), Some("zone-a"));
    assert_eq!(node.pod_cidrs.len(), 2);
    assert_eq!(node.taints, ["node.kubernetes.io/not-ready".into()]);
    assert_eq!(
        node.addresses.iter().map(|address| address.kind).collect::<Vec<_>>(),
        [NodeAddressKind::External, NodeAddressKind::Internal]
    );
    assert_eq!(node.ip(Family::V4), Some("192.168.0.2".parse().unwrap()));
    assert_eq!(fields(&node.problems), ["status.addresses[3].address"]);
    assert!(!node.deleting);
}

#[test]
fn a_node_of_an_old_cluster_has_one_pod_cidr() {
    let node = node(
        &json!({"metadata": {"name": "a", "deletionTimestamp": "2026-11-21T01:23:48Z"}, "spec": {"podCIDR": "10.1.0.7/24"}}),
    );
    assert_eq!(node.pod_cidrs, ["10.1.0.0/24".parse().unwrap()]);
    assert!(node.deleting);
}

#[test]
fn service_cidrs_keep_what_they_can() {
    let cidr = service_cidr(
        &json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "nonsense", 7, "fd00:96::/108"]}}),
    );
    assert_eq!(cidr.cidrs, ["10.96.0.0/16".parse().unwrap(), "fd00:96::/108".parse().unwrap()]);
    assert_eq!(fields(&cidr.problems), ["spec.cidrs[1]", "spec.cidrs[2]"]);
}

/// What is unallocated in them is dropped: a node that reaches itself by an address in one would be cut off from itself.
#[test]
fn networks_that_hold_what_is_never_a_services_are_left_out() {
    let cidrs = json!(["0.0.0.0/0", "127.0.0.0/16", "10.96.0.0/16", "128.0.0.0/1", "::/0", "fe80::/64", "fd00:96::/108"]);
    let cidr = service_cidr(&json!({"metadata": {"name": "odd"}, "spec": {"cidrs": cidrs}}));
    assert_eq!(cidr.cidrs, ["10.96.0.0/16".parse().unwrap(), "fd00:96::/108".parse().unwrap()]);
    assert_eq!(fields(&cidr.problems), ["spec.cidrs"; 5]);
}

#[test]
fn cluster_ips_that_no_service_can_have_are_left_out() {
    for ip in ["127.0.0.1", "0.0.0.0", "169.254.1.1", "239.1.1.1", "::1", "::", "fe80::1", "ff05::1"] {
        let service = service(&with_spec(json!({"clusterIP": ip}), Value::Null));
        assert!(service.cluster_ips.is_empty(), "{ip}");
        assert_eq!(fields(&service.problems), ["spec.clusterIP"], "{ip}");
    }
}

#[test]
fn addresses_and_ranges_of_upstreams_bad_ip_test() {
    // kube-proxy v1.36.2, pkg/proxy/nftables: TestBadIPs.
    let value = with_spec(
        json!({"type": "LoadBalancer", "clusterIP": "172.30.0.041", "externalIPs": ["192.168.099.011", "10.0.0.300"],
               "loadBalancerSourceRanges": ["203.0.113.000/025", " 10.0.0.0/8 ", "10.0.0.0"], "ports": [{"port": 80}]}),
        json!({"loadBalancer": {"ingress": [{"ip": "001.002.003.004"}]}}),
    );
    let service = service(&value);
    assert_eq!(service.cluster_ips[0].to_string(), "172.30.0.41");
    assert_eq!(service.external_ips, ["192.168.99.11".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.vips, ["1.2.3.4".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(service.source_ranges, ["203.0.113.0/25".parse().unwrap(), "10.0.0.0/8".parse().unwrap()]);
    let first = &service.problems[0];
    let sloppy = r#"spec.clusterIP: "172.30.0.041" is a spelling that an API server refuses; it is read as 172.30.0.41"#;
    assert_eq!((first.to_string().as_str(), service.problems.len()), (sloppy, 6));
    let sloppy = r#"spec.loadBalancerSourceRanges[0]: "203.0.113.000/025" is a spelling that an API server refuses; it is read as 203.0.113.0/25"#;
    assert!(said(&service.problems).contains(&sloppy.to_owned()), "{:?}", service.problems);
    let service = sent_service(&value);
    assert_eq!(fields(&service.problems), ["spec.loadBalancerSourceRanges[2]", "spec.externalIPs[1]"]);
    assert_eq!(service.problems[1].reason, r#""10.0.0.300" is not an IP address: ignored"#);
}

#[test]
fn names_and_addresses_that_an_api_server_refuses_are_said_and_served() {
    let mut value = with_spec(json!({"ports": [{"name": "UPPER_bad", "port": 80}, {"name": "web-1", "port": 81}]}), json!({}));
    value["metadata"]["name"] = json!("UPPER_case");
    let service = service(&value);
    assert_eq!((service.ports.len(), fields(&service.problems)), (2, vec!["metadata.name", "spec.ports[0].name"]));

    let mut value = with_endpoints(
        json!([{"addresses": ["10.244.000.011"]}, {"addresses": ["::ffff:10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]),
    );
    value["ports"] = json!([{"name": "-bad", "port": 80}]);
    let slice = slice(&value);
    assert_eq!((slice.endpoints.len(), fields(&slice.problems)), (3, vec!["ports[0].name", "endpoints", "endpoints"]));
    let Object::EndpointSlice(slice) = sent(Kind::EndpointSlice, &value) else { panic!("it was one") };
    assert_eq!(fields(&slice.problems), ["ports[0].name"]);
}

/// As for kube-proxy, who lets everyone in as well; but the author meant the opposite, and has to hear of it.
#[test]
fn source_ranges_that_filter_nobody_because_they_cannot_be_read_are_said_first() {
    let told = |ranges: Value| {
        let service = service(&with_spec(json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges}), json!({})));
        said(&service.problems).first().cloned().unwrap_or_default()
    };
    let field = "spec.loadBalancerSourceRanges";
    let everyone = format!("{field}: no entry can be read: the Service is open to everyone");
    for ranges in [json!(["10.0.0.0"]), json!(["10.0.0.0/33", "x", 7]), json!([null]), json!([""]), json!(vec!["x"; 40])] {
        assert_eq!(told(ranges.clone()), everyone, "{ranges}");
    }
    assert_eq!(told(json!("10.0.0.0/8")), format!("{field}: cannot be read: the Service is open to everyone"));
    let by = |family: &str| format!("{field}: no entry of {family} can be read: the Service is open to everyone by {family}");
    assert_eq!(told(json!(["10.0.0.0/33", "fd00::/8"])), by("IPv4"));
    assert_eq!(told(json!(["10.0.0.0/8", "fd00::/129"])), by("IPv6"));
    assert_eq!(told(json!(["10.0.0.0/8", 7])), by("IPv6"), "what is no text may have been for either");
    let of_v4 = json!({"clusterIP": "10.0.0.1", "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/129"]});
    assert_eq!(
        said(&service(&with_spec(of_v4, json!({}))).problems),
        [format!(r#"{field}[1]: "fd00::/129" is not a CIDR: ignored"#)],
        "nobody comes by IPv6"
    );
    let of_one = |ips: Value, ranges: Value, vips: Value| {
        let spec = json!({"type": "LoadBalancer", "clusterIPs": ips, "loadBalancerSourceRanges": ranges});
        said(&service(&with_spec(spec, json!({"loadBalancer": {"ingress": vips}}))).problems)
    };
    let (v4, both) = (json!(["10.0.0.1"]), json!(["10.0.0.1", "fd00::1"]));
    let open = |family: &str| [format!("{field}: no entry is of {family}: the Service is open to everyone by {family}")];
    assert_eq!(of_one(v4.clone(), json!(["fd00::/8"]), json!([])), open("IPv4"));
    assert_eq!(of_one(v4, json!(["fd00::/8", "10.0.0.0/8"]), json!([])), [""; 0]);
    assert_eq!(of_one(both.clone(), json!(["fd00::/8"]), json!([{"ip": "192.0.2.1"}])), open("IPv4"));
    assert_eq!(of_one(both, json!(["fd00::/8"]), json!([{"ip": "2001:db8::1"}])), [""; 0], "nobody comes by IPv4");
    for ranges in [json!(null), json!([]), json!(["10.0.0.0/8"]), json!(["fd00::/8"])] {
        assert_eq!(told(ranges.clone()), "", "{ranges}");
    }
    assert_eq!(told(json!(["10.0.0.0/8", "x"])), format!(r#"{field}[1]: "x" is not a CIDR: ignored"#));
}

/// kube-proxy does not read it; junk in it is named all the same, and where no cloud can be at work that nobody reads it.
#[test]
fn the_annotation_of_source_ranges_is_judged_and_not_obeyed() {
    let told = |annotation: &str, spec: Value, by_server: bool| {
        let mut value = with_spec(spec, json!({}));
        value["metadata"]["annotations"] = json!({"service.beta.kubernetes.io/load-balancer-source-ranges": annotation});
        said(&if by_server { sent_service(&value) } else { service(&value) }.problems)
    };
    let path = "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]";
    let unread = format!(
        "{path}: is for a cloud's load balancer, a service proxy does not read it: without spec.loadBalancerSourceRanges the Service is open to everyone"
    );
    assert_eq!(told("10.0.0.0/8, 10.1.0.0/16", json!({}), false), std::slice::from_ref(&unread));
    assert!(told("10.0.0.0/8", json!({}), true).is_empty());
    let junk = format!(r#"{path}: " x" is not a CIDR"#);
    assert_eq!(told("10.0.0.0/8, x", json!({}), false), [unread, junk.clone()]);
    assert_eq!(told("10.0.0.0/8, x", json!({}), true), std::slice::from_ref(&junk));
    assert_eq!(told("10.0.0.0/8, x", json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}), false), [junk]);
    assert!(told(" ", json!({}), false).is_empty());
}

#[test]
fn text_from_outside_is_quoted_no_further_than_a_line_can_hold() {
    let long = "\u{e9}".repeat(10_000);
    let mut value = with_spec(json!({"type": long, "clusterIP": long, "sessionAffinity": long}), json!({}));
    value["metadata"]["annotations"] = json!({
        "service.beta.kubernetes.io/load-balancer-source-ranges": long, "service.kubernetes.io/topology-mode": long
    });
    let said = said(&service(&value).problems);
    assert_eq!(said.len(), 6, "{said:?}");
    assert!(said.iter().all(|line| line.chars().count() < 300), "{said:?}");
    assert!(said.contains(&format!(r#"spec.clusterIP: "{}"... is not an IP address: ignored"#, "\u{e9}".repeat(64))), "{said:?}");
}

#[test]
fn a_cluster_ip_beside_another_list_is_said() {
    let told = |spec: Value| {
        let service = service(&with_spec(spec, json!({})));
        (service.cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), said(&service.problems))
    };
    let why = r#"spec.clusterIP: "10.0.0.1" is not "10.0.0.2", which spec.clusterIPs begins with and an API server demands here; spec.clusterIPs counts"#;
    assert_eq!(told(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]})), (vec!["10.0.0.2".into()], vec![why.into()]));
    assert_eq!(told(json!({"clusterIP": "10.0.0.01", "clusterIPs": ["10.0.0.1"]})).1, [""; 0]);
    let headless = r#"spec.clusterIP: "10.0.0.1" is not "None", which spec.clusterIPs begins with and an API server demands here; the Service is headless"#;
    assert_eq!(told(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["None"]})), (vec![], vec![headless.into()]));
}

#[test]
fn null_in_a_list_is_a_hole_that_is_named() {
    let spec = json!({"clusterIPs": ["10.0.0.1", null], "ipFamilies": ["IPv4", null], "externalIPs": [null], "loadBalancerSourceRanges": [null, "10.0.0.0/8"]});
    let service = service(&with_spec(spec, json!({"loadBalancer": {"ingress": [null]}})));
    let holes = said(&service.problems).into_iter().filter(|told| told.contains("is null, not ")).collect::<Vec<_>>();
    assert_eq!(holes.len(), 5, "{:?}", service.problems);
    let mut value = with_endpoints(json!([{"addresses": ["10.0.0.1"], "hints": {"forZones": [null]}}]));
    value["ports"] = json!([null, {"name": "a", "port": 1}]);
    let slice = slice(&value);
    assert_eq!((slice.ports.len(), slice.endpoints.len()), (1, 1));
    assert_eq!(fields(&slice.problems), ["ports[0]", "endpoints[0].hints.forZones"]);
}

#[test]
fn vips_with_mode_proxy_or_a_hostname_only_are_not_ours() {
    let ingress = json!([{"ip": "1.1.1.1", "ipMode": "Proxy"}, {"ip": "1.1.1.2", "ipMode": "VIP"}, {"ip": "1.1.1.3"}, {"hostname": "a.example"},
        {"ip": ""}, {"ip": "1.1.1.4", "ipMode": "Other"}, 5]);
    let service = service(&with_spec(json!({}), json!({"loadBalancer": {"ingress": ingress}})));
    assert_eq!(service.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.1.1.2", "1.1.1.3"]);
    assert_eq!(fields(&service.problems), ["status.loadBalancer.ingress[5].ipMode", "status.loadBalancer.ingress[6]"]);
}

#[test]
fn cluster_ips_follow_ip_families() {
    let ips = |spec: Value| {
        let service = service(&with_spec(spec, json!({})));
        (
            service.cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            service.headless,
            fields(&service.problems).len(),
        )
    };
    let both = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]});
    assert_eq!(ips(both), ("10.0.0.1 fd00::1".into(), false, 0));
    // Six first: the primary family is the Service's, not ours.
    assert_eq!(
        ips(json!({"clusterIPs": ["fd00::1", "10.0.0.1"], "ipFamilies": ["IPv6", "IPv4"]})),
        ("fd00::1 10.0.0.1".into(), false, 0)
    );
    assert_eq!(ips(json!({"clusterIP": "10.0.0.1"})), ("10.0.0.1".into(), false, 0));
    assert_eq!(ips(json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"]})), ("10.0.0.1".into(), false, 0));
    assert_eq!(ips(json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4"]})), ("10.0.0.1".into(), false, 1));
    assert_eq!(ips(json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]})), (String::new(), false, 1));
    assert_eq!(ips(json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]})), ("10.0.0.1".into(), false, 1));
    assert_eq!(ips(json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4"]})), (String::new(), true, 0));
    assert_eq!(ips(json!({"clusterIP": ""})), (String::new(), false, 0));
    let unknown = json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["ipv4", 6]});
    assert_eq!(ips(unknown), ("10.0.0.1 fd00::1".into(), false, 2));
    assert_eq!(ips(json!({"clusterIP": "None", "ipFamilies": ["IPv5"]})), (String::new(), true, 1));
    assert_eq!(ips(json!({"clusterIP": "::ffff:10.0.0.1", "ipFamilies": ["IPv4"]})), ("10.0.0.1".into(), false, 1));
}

/// A cluster newer than this daemon must not see a warning of each node for each Service.
#[test]
fn a_traffic_distribution_that_an_api_server_let_in_is_not_complained_of() {
    let spec = json!({"trafficDistribution": "PreferSameRack", "ports": [{"port": 80, "targetPort": 99_999}]});
    let value = with_spec(spec, json!({}));
    assert_eq!(service(&value).problems.len(), 2);
    let problems = sent_service(&value).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
}

/// Objects of a cluster that is older than the strictness of API servers.
#[test]
fn what_an_api_server_let_in_is_not_counted_either() {
    let mut ips: Vec<_> = (1..=40).map(|n| json!(format!("192.168.001.{n}"))).collect();
    ips.push(json!("10.0.0.300"));
    let value = with_spec(json!({"externalIPs": ips}), json!({}));
    assert_eq!(said(&sent_service(&value).problems), [r#"spec.externalIPs[40]: "10.0.0.300" is not an IP address: ignored"#]);
}

#[test]
fn what_a_service_wishes_of_others_is_judged_and_costs_nothing() {
    let told = |annotations: Value, spec: Value| {
        let mut value = with_spec(spec, json!({}));
        value["metadata"]["annotations"] = annotations;
        let service = service(&value);
        assert_eq!(service.ports.len(), 1);
        said(&service.problems)
    };
    let target = |port: Value| told(json!(null), json!({"ports": [{"port": 80, "targetPort": port}]}));
    let mode = |key: &str, value: &str| told(json!({format!("service.kubernetes.io/{key}"): value}), json!({}));
    for known in ["PreferClose", "PreferSameZone", "PreferSameNode", ""] {
        assert!(told(json!({}), json!({"trafficDistribution": known})).is_empty(), "{known}");
    }
    for known in ["Auto", "auto", "Disabled", "example.com/even"] {
        assert!(mode("topology-mode", known).is_empty() && mode("topology-aware-hints", known).is_empty(), "{known}");
    }
    for known in [json!(0), json!(1), json!(65_535), json!("http"), json!("p-8080"), json!(""), json!(null)] {
        assert!(target(known.clone()).is_empty(), "{known}");
    }
    assert_eq!(
        told(json!({}), json!({"trafficDistribution": "PreferNear"})),
        [
            r#"spec.trafficDistribution: "PreferNear" is neither PreferSameZone (or PreferClose) nor PreferSameNode: ignored, traffic goes by the hints of the EndpointSlices"#
        ]
    );
    assert_eq!(
        mode("topology-mode", "Automatic"),
        [
            r#"metadata.annotations[service.kubernetes.io/topology-mode]: "Automatic" is neither Auto nor Disabled: ignored, traffic goes by the hints of the EndpointSlices"#
        ]
    );
    assert_eq!(mode("topology-aware-hints", "true").len(), 1);
    assert_eq!(
        target(json!(99_999)),
        ["spec.ports[0].targetPort: 99999 is not a port number: ignored, the ports of the EndpointSlices count"]
    );
    for bad in [json!(-1), json!(true), json!("8080"), json!("HTTP"), json!("a--b"), json!("-a"), json!("sixteen-letters-")] {
        assert_eq!(target(bad.clone()).len(), 1, "{bad}");
    }
}

#[test]
fn a_bad_port_costs_itself_only() {
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 0}, {"name": "c", "port": 70000}, {"name": "d", "port": "80"},
        {"name": "e", "port": 81, "protocol": "DCCP"}, {"name": "f", "port": 82, "nodePort": -1}, "g", {"name": "h"}, {"name": 9, "port": 83},
        {"name": "a", "port": 84}, {"name": "a", "port": 80, "protocol": "UDP"}, {"name": "i", "port": 85.5}, null, {"name": "j", "port": 86, "protocol": ["TCP"]}]);
    let service = service(&with_spec(json!({"ports": ports}), json!({})));
    let kept: Vec<_> = service.ports.iter().map(|port| format!("{}/{}/{}", port.name, port.port, port.protocol)).collect();
    assert_eq!(kept, ["a/80/TCP", "f/82/TCP", "/83/TCP", "a/80/UDP"]);
    for place in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13] {
        let prefix = format!("spec.ports[{place}]");
        assert!(service.problems.iter().any(|problem| problem.field.starts_with(&prefix)), "{prefix} in {:?}", service.problems);
    }
}

#[test]
fn what_an_api_server_refuses_of_a_service_is_said_and_served_where_it_can_be() {
    let said = |spec: Value| {
        let service = service(&json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
        (service.ports.len(), said(&service.problems))
    };
    for (spec, kept, problems) in [
        (json!({}), 0, vec!["spec.ports: no ports: nothing of this Service is served"]),
        (json!({"ports": []}), 0, vec!["spec.ports: no ports: nothing of this Service is served"]),
        (json!({"clusterIP": "None"}), 0, vec![]),
        (json!({"type": "ExternalName", "externalName": "x"}), 0, vec![]),
        (json!({"ports": 80}), 0, vec!["spec.ports: is a number, not a list: ignored"]),
        (json!({"ports": [{"port": 0}]}), 0, vec!["spec.ports[0].port: 0 is not a port number: this port is left out"]),
        (
            json!({"ports": [{"port": 80, "nodePort": 30001}]}),
            1,
            vec!["spec.ports[0].nodePort: 30001 is given for type ClusterIP, which an API server refuses; it is served"],
        ),
        (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}), 1, vec![]),
        (json!({"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30001}]}), 1, vec![]),
        (
            json!({"ports": [{"name": "a", "port": 53}, {"name": "a", "port": 53, "protocol": "UDP"}]}),
            2,
            vec![r#"spec.ports[1].name: "a" is the name of a port before it, which an API server refuses; both are served"#],
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}),
            1,
            vec![r#"spec.ports[1].name: second TCP port named "a": this port is left out"#],
        ),
        (
            json!({"type": "NodePort", "ports": [{"name": "b", "port": 80, "nodePort": 30001}, {"name": "a", "port": 81, "nodePort": 30001}]}),
            2,
            vec![r#"spec.ports[1].nodePort: TCP port 30001 is that of "b" before it, which is served: "a" has none"#],
        ),
        (
            json!({"ports": [{"name": "b", "port": 80}, {"name": "a", "port": 80}, {"name": "a", "port": 81}, {"name": "u", "port": 80, "protocol": "UDP"}]}),
            3,
            vec![r#"spec.ports[1].port: TCP port 80 is that of "b" before it, which is served: "a" is left out"#],
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"port": 81}]}),
            2,
            vec!["spec.ports[1].name: no name, which an API server demands of a Service with several ports; it is served"],
        ),
    ] {
        let what = spec.to_string();
        assert_eq!(said(spec), (kept, problems.into_iter().map(str::to_owned).collect()), "{what}");
    }
}

#[test]
fn a_cluster_ip_that_cannot_be_read_is_named_as_it_was_written() {
    let problems = |spec: Value| said(&service(&with_spec(spec, json!({}))).problems);
    assert_eq!(problems(json!({"clusterIP": "10.0.0.300"})), [r#"spec.clusterIP: "10.0.0.300" is not an IP address: ignored"#]);
    assert_eq!(
        problems(json!({"clusterIP": "10.0.0.300", "clusterIPs": ["10.0.0.300"]})),
        [r#"spec.clusterIPs[0]: "10.0.0.300" is not an IP address: ignored"#]
    );
}

#[test]
fn endpoints_that_only_the_node_could_reach_are_left_out() {
    let at = |address: &str| json!({"addresses": [address]});
    let refused = ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1"];
    let served = ["10.0.0.1", "239.0.0.1", "255.255.255.255"];
    let slice = slice(&with_endpoints(refused.iter().copied().chain(served).map(at).collect()));
    assert_eq!(slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>(), served);
    assert_eq!(
        said(&slice.problems),
        [
            "endpoints[0].addresses[0]: 127.0.0.1 is a loopback address: this endpoint is left out",
            "endpoints[1].addresses[0]: 0.0.0.0 is the unspecified address: this endpoint is left out",
            "endpoints[2].addresses[0]: 169.254.169.254 is a link-local address: this endpoint is left out",
            "endpoints[3].addresses[0]: 224.0.0.1 is a link-local multicast address: this endpoint is left out",
            "endpoints: 239.0.0.1 is a multicast address, at which no pod answers; an API server takes it, and it is served",
            "endpoints: 255.255.255.255 is the broadcast address, at which no pod answers; an API server takes it, and it is served",
        ]
    );
}

#[test]
fn slice_ports_that_share_a_name_and_times_that_are_none_are_said() {
    let mut value = with_endpoints(json!([]));
    value["ports"] = json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns", "port": 53}]);
    value["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "yesterday"});
    let slice = slice(&value);
    assert_eq!(slice.ports.len(), 2);
    assert_eq!(
        said(&slice.problems),
        [
            r#"metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: "yesterday" is not a time (RFC 3339): ignored"#,
            r#"ports[1].name: "dns" is the name of a port before it, which an API server refuses; both are used"#,
        ]
    );
}

#[test]
fn affinity_has_bounds_and_a_default() {
    let affinity = |spec: Value| {
        let service = service(&with_spec(spec, json!({})));
        (service.affinity.map(std::num::NonZero::get), service.problems.len())
    };
    let timeout = |seconds: Value| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    assert_eq!(affinity(json!({"sessionAffinity": "None"})), (None, 0));
    assert_eq!(affinity(json!({"sessionAffinity": "ClientIP"})), (Some(10_800), 0));
    assert_eq!(affinity(timeout(json!(1))), (Some(1), 0));
    assert_eq!(affinity(timeout(json!(86_400))), (Some(86_400), 0));
    for bad in [json!(0), json!(-5), json!(86_401), json!(u64::MAX), json!("10"), json!([])] {
        assert_eq!(affinity(timeout(bad.clone())), (Some(10_800), 1), "{bad}");
    }
    assert_eq!(affinity(json!({"sessionAffinity": "ClientIp"})), (None, 1));
    assert_eq!(affinity(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": 5})), (Some(10_800), 1));
}

#[test]
fn wrong_types_anywhere_leave_the_rest_of_a_service() {
    let good = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "creationTimestamp": "2026-11-21T01:23:48Z", "labels": {"a": "b"}},
        "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "externalIPs": ["1.2.3.4"],
            "externalName": "x", "loadBalancerSourceRanges": ["10.0.0.0/8"], "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "healthCheckNodePort": 3000, "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30000}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8", "ipMode": "VIP"}]}}
    });
    let mut paths = Vec::new();
    collect_pointers(&good, "", &mut paths);
    for path in paths.iter().filter(|path| !matches!(path.as_str(), "/metadata" | "/metadata/name" | "/metadata/namespace")) {
        for wrong in [
            json!({"x": [1, {"y": 2}]}),
            json!([[], {}]),
            json!(true),
            json!(-1.5),
            json!(u64::MAX),
            json!("\u{1F6A2}"),
            json!(null),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).expect("the path is there") = wrong.clone();
            let service = service(&bad);
            assert_eq!(service.key.as_str(), "default/web");
            if !path.starts_with("/spec/ports") && path != "/spec" {
                assert_eq!(service.ports.len(), 1, "{path} = {wrong}");
            }
            if !path.starts_with("/spec/cluster") && !path.starts_with("/spec/ipFamilies") && path != "/spec" {
                assert_eq!(service.cluster_ips.len(), 1, "{path} = {wrong}");
            }
            if !path.starts_with("/status") {
                assert_eq!(service.vips.len(), 1, "{path} = {wrong}");
            }
        }
    }
}

fn collect_pointers(value: &Value, at: &str, paths: &mut Vec<String>) {
    if !at.is_empty() {
        paths.push(at.to_owned());
    }
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| collect_pointers(value, &format!("{at}/{key}"), paths)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(place, value)| collect_pointers(value, &format!("{at}/{place}"), paths));
        }
        _ => {}
    }
}

#[test]
fn endpoints_are_judged_one_by_one() {
    let slice = slice(&with_endpoints(json!([
        {"addresses": ["10.0.0.1", "10.0.0.99"]},
        {"addresses": ["fd00::1"]}, {"addresses": ["nonsense"]}, {"addresses": [7]}, {"addresses": []}, {"addresses": null}, {}, 5, null,
        {"addresses": ["10.0.0.002"], "conditions": {"ready": false}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": "yes", "serving": false, "terminating": null}},
        {"addresses": ["10.0.0.4"], "conditions": [], "nodeName": {}, "hints": "none"},
        {"addresses": ["10.0.0.5"], "nodeName": "", "hints": {"forZones": [], "forNodes": [{"name": "n"}, {"name": 5}, 6]}},
    ])));
    let kept: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(kept, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    assert_eq!(
        slice.endpoints[1].conditions,
        Conditions { ready: false, serving: true, terminating: false },
        "serving does not follow ready"
    );
    assert_eq!(slice.endpoints[2].conditions, Conditions { ready: true, serving: false, terminating: false });
    assert_eq!(slice.endpoints[3].conditions, Conditions::READY);
    assert_eq!(slice.endpoints[4].node, None);
    assert_eq!(slice.endpoints[4].hints.as_deref().map(|hints| hints.nodes.len()), Some(1));
    assert_eq!(
        said(&slice.problems)[..8],
        [
            "endpoints[0].addresses: 2 addresses: only the first is used",
            r#"endpoints[1].addresses[0]: "fd00::1" is not an address of IPv4: this endpoint is left out"#,
            r#"endpoints[2].addresses[0]: "nonsense" is not an address of IPv4: this endpoint is left out"#,
            "endpoints[3].addresses[0]: is a number, not a string: ignored",
            "endpoints[4].addresses: no address: this endpoint is left out",
            "endpoints[5].addresses: no address: this endpoint is left out",
            "endpoints[6].addresses: no address: this endpoint is left out",
            "endpoints[7]: is a number, not an object: ignored",
        ]
    );
    assert_eq!(slice.problems.len(), 16);
}

#[test]
fn slices_without_a_service_or_of_names_are_not_ours() {
    let mut fqdn = with_endpoints(json!([]));
    fqdn["addressType"] = json!("FQDN");
    let mut orphan = with_endpoints(json!([]));
    orphan["metadata"]["labels"] = json!({});
    let mut numbered = with_endpoints(json!([]));
    numbered["metadata"]["labels"]["kubernetes.io/service-name"] = json!(53);
    let mut lower_case = with_endpoints(json!([]));
    lower_case["addressType"] = json!("ipv4");
    let mut untyped = with_endpoints(json!([]));
    untyped["addressType"] = json!(null);
    let of_nobody = "metadata.labels[kubernetes.io/service-name]: not given: the slice belongs to no Service and is left out";
    for (value, problem) in [
        (fqdn, ""),
        (orphan, of_nobody),
        (numbered, "metadata.labels[kubernetes.io/service-name]: is a number, not a string: ignored"),
        (lower_case, r#"addressType: "ipv4" is not IPv4, IPv6 or FQDN: the slice is left out"#),
        (untyped, "addressType: not given: the slice is left out"),
    ] {
        let Decoded::NotOurs { key, problems } = decoded(Kind::EndpointSlice, &value) else { panic!("{value} is ours") };
        assert_eq!(key, ObjectKey::new("default", "web-a"));
        assert_eq!(said(&problems), Vec::from_iter([problem].into_iter().filter(|problem| !problem.is_empty())));
    }
}

#[test]
fn slice_ports_without_name_or_number_are_skipped() {
    let mut value = with_endpoints(json!([]));
    value["ports"] = json!([{"name": "", "port": 53, "protocol": "UDP"}, {"port": 1}, {"name": "a"}, {"name": "b", "port": 0}, {"name": "c", "port": 9},
        {"name": "d", "port": 65536}, {"name": "e", "port": 1, "protocol": "x"}]);
    let slice = slice(&value);
    let kept: Vec<_> = slice.ports.iter().map(|port| (port.name.as_str(), port.protocol, port.port)).collect();
    assert_eq!(kept, [("", Protocol::Udp, 53), ("c", Protocol::Tcp, 9)]);
    assert_eq!(fields(&slice.problems), ["ports[3].port", "ports[5].port", "ports[6].protocol"]);
}

#[test]
fn objects_without_a_usable_name_are_refused() {
    for name in [json!(null), json!(""), json!(7), json!("a/b"), json!("a\nb"), json!("x".repeat(254))] {
        let value = json!({"metadata": {"name": name}});
        let error = from_json(Kind::Service, value.to_string().as_bytes(), &mut Interner::default()).expect_err("no name");
        assert!(matches!(error, DecodeError::Name { .. }), "{error}");
    }
    assert_eq!(service(&json!({"metadata": {"name": "web"}})).key.as_str(), "default/web");
}

/// A mistake that is made again and again must not push out another.
#[test]
fn no_field_hides_another() {
    let mut ports = vec![json!({"name": "p", "port": 80}); 100];
    ports.push(json!({"name": "q", "port": 70_000}));
    ports.push(json!({"name": "r", "port": 81, "protocol": "tcp"}));
    let affinity = json!({"clientIP": {"timeoutSeconds": 999_999_999}});
    let mut spec = json!({"ports": ports, "sessionAffinity": "ClientIP", "sessionAffinityConfig": affinity});
    spec["externalIPs"] = json!(vec!["x"; 100]);
    let service = service(&with_spec(spec, json!({})));
    let told = said(&service.problems);
    for field in ["spec.ports[100].port: ", "spec.ports[101].protocol: ", "spec.sessionAffinityConfig.clientIP.timeoutSeconds: "]
    {
        assert!(told.iter().any(|problem| problem.starts_with(field)), "{field} in {told:?}");
    }
    assert!(
        told.ends_with(&[
            "spec.externalIPs[]: 84 more problems with this field".to_owned(),
            "spec.ports[].name: 83 more problems with this field".to_owned(),
        ]),
        "{told:?}"
    );
}

#[test]
fn ten_thousand_ports_and_a_hundred_thousand_endpoints() {
    let ports: Vec<_> = (1..=10_000).map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
    assert_eq!(service(&with_spec(json!({"ports": ports}), json!({}))).ports.len(), 10_000);

    let mut text = String::from(
        r#"{"metadata":{"name":"s","namespace":"d","labels":{"kubernetes.io/service-name":"w"}},"addressType":"IPv4","endpoints":["#,
    );
    for n in 0..100_000_u32 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        let bad = if n % 2 == 0 { "x" } else { "" };
        write!(text, r#"{{"addresses":["{bad}{address}"],"nodeName":"node-{}"}},"#, n % 100).expect("a String takes everything");
    }
    text.push_str(r#"{"addresses":["11.0.0.1"]}]}"#);
    let decoded = from_json(Kind::EndpointSlice, text.as_bytes(), &mut Interner::default()).expect("decodes");
    let Decoded::Object(Object::EndpointSlice(slice)) = decoded else { panic!("not a slice") };
    assert_eq!(slice.endpoints.len(), 50_001);
    assert_eq!(slice.problems.len(), 17, "sixteen and a count");
    assert_eq!(slice.problems[16].to_string(), "endpoints[].addresses[]: 49984 more problems with this field");
}

#[test]
fn an_endpoint_is_small() {
    assert!(size_of::<crate::model::Endpoint>() <= 72, "{}", size_of::<crate::model::Endpoint>());
}

#[test]
fn deep_nesting_is_refused_or_skipped_never_a_crash() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    for text in [
        deep("[", "]"),
        deep(r#"{"items":["#, "]}"),
        deep(r#"{"metadata":"#, "}"),
        format!(r#"{{"metadata":{{"name":"a"}},"x":{}}}"#, deep("[", "]")),
    ] {
        let _ = from_json(Kind::Service, text.as_bytes(), &mut Interner::default());
    }
}

const KINDS: [Kind; 9] = [
    Kind::Service,
    Kind::ForeignService,
    Kind::EndpointSlice,
    Kind::Node,
    Kind::ServiceCidr,
    Kind::Peer,
    Kind::Namespace,
    Kind::AddressPool,
    Kind::Advertisement,
];

/// JSON made of our own field names, so that values land where they are read.
fn any_object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_i64..70_000).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        proptest::sample::select(vec![
            "10.0.0.1",
            "fd00::1",
            "10.0.0.0/8",
            "TCP",
            "IPv4",
            "ClientIP",
            "None",
            "Local",
            "web",
            "LoadBalancer",
            "10.0.0.1-10.0.0.9",
            "In",
            "Exists"
        ])
        .prop_map(Value::from),
    ];
    let keys = vec![
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "kubernetes.io/service-name",
        "spec",
        "status",
        "ports",
        "port",
        "nodePort",
        "protocol",
        "endpoints",
        "addresses",
        "conditions",
        "ready",
        "hints",
        "forZones",
        "addressType",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "externalIPs",
        "sessionAffinity",
        "sessionAffinityConfig",
        "clientIP",
        "timeoutSeconds",
        "loadBalancer",
        "ingress",
        "ip",
        "ipMode",
        "items",
        "kind",
        "cidrs",
        "creationTimestamp",
        "podCIDR",
        "podCIDRs",
        "taints",
        "key",
        "type",
        "address",
        "nodeName",
        "targetPort",
        "trafficDistribution",
        "service.kubernetes.io/topology-mode",
        "metallb.io/loadBalancerIPs",
        "metallb.universe.tf/address-pool",
        "loadBalancerIP",
        "loadBalancerClass",
        "ipFamilyPolicy",
        "selector",
        "serviceAllocation",
        "namespaces",
        "priority",
        "namespaceSelectors",
        "serviceSelectors",
        "nodeSelectors",
        "preferredNodeSelectors",
        "weight",
        "preference",
        "matchLabels",
        "matchExpressions",
        "operator",
        "values",
        "interfaces",
        "ipAddressPools",
        "status",
        "unschedulable",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(proptest::sample::select(keys.clone()), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        for kind in KINDS {
            let _ = from_json(kind, &bytes, &mut Interner::default());
        }
    }

    #[test]
    fn any_json_object_with_a_name_decodes(mut value in any_object()) {
        let Some(map) = value.as_object_mut() else { return Ok(()) };
        map.insert("metadata".into(), json!({"name": "x", "namespace": "y", "labels": {"kubernetes.io/service-name": "z"}}));
        let text = value.to_string();
        for kind in KINDS {
            let decoded = from_json(kind, text.as_bytes(), &mut Interner::default());
            prop_assert!(decoded.is_ok(), "{:?} of {}", decoded, text);
        }
    }

    #[test]
    fn any_json_decodes_or_says_why(value in any_object()) {
        for kind in KINDS {
            let _ = from_json(kind, value.to_string().as_bytes(), &mut Interner::default());
        }
    }
}

/// Not a test of behaviour but of the budget: `cargo test --release -p sheave -- --ignored --nocapture memory`.
#[test]
#[ignore = "measures; wants --release"]
fn memory_of_250_000_endpoints() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096 / 1024
    };
    let endpoints: Vec<_> = (0..100)
        .map(|n| {
            json!({"addresses": [format!("10.0.{n}.1")], "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{n}"), "zone": "zone-a", "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("web-{n}"), "uid": "9223de7e-9667-490c-9e94-bca8d73333ae"}})
        })
        .collect();
    let mut names = Interner::default();
    let mut held = Vec::with_capacity(2_500);
    let (mut bytes, mut elapsed) = (0, std::time::Duration::ZERO);
    let before = resident();
    for n in 0..2_500 {
        let mut value = with_endpoints(Value::from(endpoints.clone()));
        value["metadata"]["name"] = json!(format!("web-{n}-abcde"));
        value["metadata"]["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:endpoints": {}, "f:ports": {}}}]);
        let text = value.to_string();
        bytes += text.len();
        let start = std::time::Instant::now();
        held.push(from_json(Kind::EndpointSlice, text.as_bytes(), &mut names).expect("decodes"));
        elapsed += start.elapsed();
    }
    println!("{} slices, {} MB of JSON: {elapsed:?}, {} KiB resident more", held.len(), bytes >> 20, resident() - before);
}

#[test]
fn text_that_is_not_utf8_costs_an_object_only_where_it_is_read() {
    let slice = |generated_by: &[u8], service: &[u8]| {
        let parts: [&[u8]; 5] = [
            br#"{"metadata": {"name": "web-1", "namespace": "default", "generateName": ""#,
            generated_by,
            br#"", "labels": {"kubernetes.io/service-name": ""#,
            service,
            br#""}}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "port": 80}]}"#,
        ];
        from_json(Kind::EndpointSlice, &parts.concat(), &mut Interner::default())
    };
    let read = slice(b"web-", b"web").expect("decodes");
    assert!(matches!(&read, Decoded::Object(Object::EndpointSlice(slice)) if slice.endpoints.len() == 1));
    assert_eq!(slice(b"web-\xff", b"web").expect("nobody reads that field"), read);
    assert!(matches!(slice(b"web-", b"web\xff"), Err(DecodeError::Json(_))));
}
