//! What a Service answers to: what is skipped, kinds, policies, source ranges, refusals.

use super::*;
use crate::model::load_balancer::AddressRange;
use crate::policy::Seniority;
use crate::table::{Frontend, FrontendKind, Notice};

/// `address kind policy`, one per frontend.
fn describe(frontends: &[Frontend]) -> Vec<String> {
    frontends.iter().map(|frontend| format!("{} {} {:?}", frontend.address, frontend.kind, frontend.policy)).collect()
}

fn ranges_of(service: &Service, kind: FrontendKind, context: &Context) -> Option<Vec<String>> {
    let port = only_port(service, &[], context);
    let frontend = port.frontends.iter().find(|frontend| frontend.kind == kind).unwrap().clone();
    frontend.source_ranges.map(|ranges| ranges.iter().map(ToString::to_string).collect())
}

#[test]
fn every_kind_of_frontend() {
    assert_eq!(
        describe(&only_port(&load_balancer(), &[], &context()).frontends),
        [
            "1.2.3.4:80/TCP LoadBalancer VIP Cluster",
            "172.30.0.41:80/TCP ClusterIP Cluster",
            "192.168.99.1:80/TCP externalIP Cluster",
            "node:30001/TCP NodePort Cluster",
        ]
    );
}

#[test]
fn each_policy_governs_its_own_frontends() {
    let mut service = load_balancer();
    service.external_traffic_policy = TrafficPolicy::Local;
    for frontend in only_port(&service, &[], &context()).frontends {
        assert_eq!(frontend.policy == TrafficPolicy::Local, frontend.kind != FrontendKind::ClusterIp);
    }
    service.internal_traffic_policy = TrafficPolicy::Local;
    service.external_traffic_policy = TrafficPolicy::Cluster;
    for frontend in only_port(&service, &[], &context()).frontends {
        assert_eq!(frontend.policy == TrafficPolicy::Local, frontend.kind == FrontendKind::ClusterIp);
    }
}

#[test]
fn external_local_counts_only_for_types_open_to_the_outside() {
    use ServiceType::{ClusterIp, LoadBalancer, NodePort};
    let cases = [
        (LoadBalancer, &[][..], true),
        (NodePort, &[], true),
        (ClusterIp, &[], false),
        (ClusterIp, &["192.168.99.1"], true),
        // Of the other family: the Service is open all the same.
        (ClusterIp, &["2001:db8::1"], true),
    ];
    for (kind, external_ips, counts) in cases {
        let mut service = load_balancer();
        service.kind = kind;
        service.external_ips = external_ips.iter().map(|text| ip(text)).collect();
        service.external_traffic_policy = TrafficPolicy::Local;
        let port = only_port(&service, &[slice("s", &["1 rs here", "2 rs there"])], &context());
        let vip = port.frontends.iter().find(|frontend| frontend.kind == FrontendKind::LoadBalancer).unwrap();
        assert_eq!(vip.policy == TrafficPolicy::Local, counts, "{kind:?} {external_ips:?}");
        assert_eq!(hosts(&port.local), if counts { "1" } else { "" }, "{kind:?} {external_ips:?}");
    }
}

#[test]
fn what_is_not_served_at_all() {
    let no_ports = |change: fn(&mut Service)| {
        let mut service = load_balancer();
        // Said twice, but not a word about it: there is nothing to be served twice.
        service.ports.push(service.ports[0].clone());
        service.vips.push(ip("127.0.0.1"));
        change(&mut service);
        let desired = evaluate(&service, &[slice("s", &["1 rs here"])], &context());
        assert_eq!(desired, Desired::default());
    };
    no_ports(|service| service.kind = ServiceType::ExternalName);
    no_ports(|service| service.headless = true);
    no_ports(|service| service.cluster_ips.clear());
}

/// No ClusterIP of a family: nothing of that family, whatever is listed.
#[test]
fn a_family_without_a_cluster_ip_has_nothing() {
    let mut service = load_balancer();
    service.vips.push(ip("2001:db8::1"));
    service.vips.push(ip("::1"));
    service.external_ips.push(ip("2001:db8::2"));
    let desired = evaluate(&service, &[], &context());
    assert_eq!(desired.ports.len(), 1);
    assert_eq!(desired.ports[0].id.family, Family::V4);
    let said = |desired: &Desired| {
        let words =
            |notice: &Notice| format!("{} {}", notice.reason, notice.message.split(" and is ").next().unwrap_or_default());
        desired.notices.iter().map(words).collect::<Vec<_>>()
    };
    let refused = "AddressRefused status.loadBalancer.ingress[].ip: ::1 is a loopback address";
    let strange = |field: &str, ip: &str| {
        format!("KubeProxyIncorrectIPVersion {field}: {ip} is IPv6, of which the Service has no ClusterIP,")
    };
    let expected = [
        refused.to_owned(),
        strange("status.loadBalancer.ingress[].ip", "2001:db8::1"),
        strange("spec.externalIPs", "2001:db8::2"),
    ];
    assert_eq!(said(&desired), expected);
    // The Service is at fault, whatever the node serves.
    assert_eq!(said(&evaluate(&service, &[], &Context { ipv6_off: true, ..context() })), expected);
    assert_eq!(said(&evaluate(&service, &[], &Context { external_ips_denied: true, ..context() })), expected[..2]);
    service.cluster_ips = [ip("fd00:30::41")].into_iter().collect();
    assert_eq!(evaluate(&service, &[], &context()).notices.len(), 3, "now it is the other two, and ::1");
    service.headless = true;
    assert_eq!(said(&evaluate(&service, &[], &context())), [""; 0], "served in no family");
}

#[test]
fn a_family_that_the_node_lacks_has_nothing() {
    let mut service = load_balancer();
    service.cluster_ips.push(ip("fd00:30::41"));
    let families =
        |context: &Context| evaluate(&service, &[], context).ports.iter().map(|port| port.id.family).collect::<Vec<_>>();
    assert_eq!(families(&context()), Family::ALL);
    assert_eq!(families(&Context { ipv6_off: true, ..context() }), [Family::V4]);
}

#[test]
fn a_node_port_is_served_whatever_the_type() {
    let mut service = service();
    service.ports[0].node_port = 30001;
    service.internal_traffic_policy = TrafficPolicy::Local;
    let port = only_port(&service, &[slice("s", &["1 rs there"])], &context());
    assert_eq!(port.frontends[1].kind, FrontendKind::NodePort);
    assert_eq!(hosts(&port.cluster), "1");
}

#[test]
fn hidden_external_ips_still_make_the_port_accessible() {
    let mut service = service();
    service.external_ips = vec![ip("192.168.99.1")];
    service.internal_traffic_policy = TrafficPolicy::Local;
    let denied = Context { external_ips_denied: true, ..context() };
    let port = only_port(&service, &[slice("s", &["1 rs there"])], &denied);
    assert_eq!(describe(&port.frontends), ["172.30.0.41:80/TCP ClusterIP Local"]);
    assert_eq!(hosts(&port.cluster), "1");
}

/// Accessibility is decided per family, as the frontends are.
#[test]
fn external_addresses_of_the_other_family_do_not_make_a_port_accessible() {
    let mut service = service();
    service.internal_traffic_policy = TrafficPolicy::Local;
    service.vips = vec![ip("2001:db8::1")];
    service.external_ips = vec![ip("2001:db8::2")];
    assert_eq!(hosts(&only_port(&service, &[slice("s", &["1 rs there"])], &context()).cluster), "");
}

#[test]
fn an_address_of_two_kinds_is_served_once_as_the_stronger() {
    let mut service = load_balancer();
    service.vips = vec![ip("1.2.3.4"), ip("172.30.0.41"), ip("1.2.3.4")];
    service.external_ips = vec![ip("1.2.3.4"), ip("172.30.0.41")];
    let kinds: Vec<_> = only_port(&service, &[], &context()).frontends.iter().map(|frontend| frontend.kind).collect();
    assert_eq!(kinds, [FrontendKind::LoadBalancer, FrontendKind::ClusterIp, FrontendKind::NodePort]);
}

#[test]
fn a_vip_of_a_pool_says_so() {
    let mut service = load_balancer();
    service.vips.push(ip("203.0.113.7"));
    let pools = Context { pools: vec![AddressRange::new(ip("203.0.113.1"), ip("203.0.113.9")).unwrap()], ..context() };
    let kinds: Vec<_> =
        only_port(&service, &[], &pools).frontends.iter().map(|frontend| (frontend.address.ip(), frontend.kind)).collect();
    assert!(kinds.contains(&(Some(ip("203.0.113.7")), FrontendKind::PoolVip)));
    assert!(kinds.contains(&(Some(ip("1.2.3.4")), FrontendKind::LoadBalancer)));
}

#[test]
fn source_ranges_are_for_vips_only() {
    let mut service = load_balancer();
    service.source_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    let pools = Context { pools: vec![AddressRange::new(ip("1.2.3.4"), ip("1.2.3.4")).unwrap()], ..context() };
    assert_eq!(ranges_of(&service, FrontendKind::LoadBalancer, &context()), Some(vec!["10.0.0.0/8".into()]));
    assert_eq!(ranges_of(&service, FrontendKind::PoolVip, &pools), Some(vec!["10.0.0.0/8".into()]));
    for kind in [FrontendKind::ClusterIp, FrontendKind::ExternalIp, FrontendKind::NodePort] {
        assert_eq!(ranges_of(&service, kind, &context()), None);
    }
}

#[test]
fn source_ranges() {
    // (ranges, second VIP, expected)
    let cases: &[(&[&str], Option<&[&str]>)] = &[
        (&[], None),
        (&["10.0.0.0/8", "203.0.113.0/25"], Some(&["10.0.0.0/8", "203.0.113.0/25"])),
        // Host bits are dropped, duplicates and nested ranges go, the order is the addresses'.
        (
            &["203.0.113.9/25", "10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "10.255.0.0/24"],
            Some(&["10.0.0.0/8", "203.0.113.0/25"]),
        ),
        (&["10.0.0.0/8", "0.0.0.0/0"], None),
        // The other family's ranges, and its /0, mean nothing here.
        (&["2001:db8::/32"], None),
        (&["10.0.0.0/8", "::/0"], Some(&["10.0.0.0/8"])),
        // The node itself is let in: so are the VIPs.
        (&["192.168.0.0/24"], Some(&["1.2.3.4/32", "5.6.7.8/32", "192.168.0.0/24"])),
        (&["192.168.0.0/24", "1.2.0.0/16"], Some(&["1.2.0.0/16", "5.6.7.8/32", "192.168.0.0/24"])),
    ];
    let mut service = load_balancer();
    service.vips = vec![ip("5.6.7.8"), ip("1.2.3.4"), ip("2001:db8::1")];
    for (ranges, expected) in cases {
        service.source_ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        let expected = expected.map(|list| list.iter().map(ToString::to_string).collect());
        assert_eq!(ranges_of(&service, FrontendKind::LoadBalancer, &context()), expected, "{ranges:?}");
    }
}

#[test]
fn addresses_nobody_may_take() {
    let api_server = Context { api_servers: [ip("198.51.100.1")].into(), ..context() };
    let refused = [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("224.0.0.251", "multicast"),
        ("255.255.255.255", "multicast"),
        ("198.51.100.1", "API server"),
        ("::1", "loopback"),
        ("::", "unspecified"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:198.51.100.1", "API server"),
    ];
    let mut service = load_balancer();
    service.cluster_ips.push(ip("fd00:30::41"));
    service.ports.push(port("second", Protocol::Tcp, 81));
    for (text, why) in refused {
        service.vips = vec![ip(text)];
        service.external_ips = vec![ip(text)];
        let desired = evaluate(&service, &[], &api_server);
        assert!(
            desired.ports.iter().flat_map(|port| &port.frontends).all(|frontend| frontend.address.ip() != Some(ip(text))),
            "{text}"
        );
        // One notice per field and address, however many ports there are.
        let messages: Vec<_> = desired.notices.iter().map(|notice| (notice.reason, &*notice.message)).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        for ((reason, message), field) in messages.into_iter().zip(["status.loadBalancer.ingress[].ip: ", "spec.externalIPs: "]) {
            assert_eq!(reason, "AddressRefused");
            assert!(message.starts_with(field) && message.contains(&ip(text).to_string()) && message.contains(why), "{message}");
        }
    }
    for text in ["10.0.0.1", "1.1.1.1", "192.168.0.2", "172.30.0.9", "2001:db8::1", "fd00::1"] {
        service.vips = vec![ip(text)];
        assert!(!evaluate(&service, &[], &api_server).notices.iter().any(|notice| notice.message.contains("ingress")), "{text}");
    }
}

#[test]
fn affinity_and_identity_are_handed_on() {
    let mut service = service();
    service.affinity = std::num::NonZeroU32::new(10_800);
    let port = only_port(&service, &[], &context());
    assert_eq!(port.affinity, service.affinity);
    assert_eq!(port.id.to_string(), "default/web/TCP (IPv4)");
}

#[test]
fn the_older_service_is_senior_whatever_its_uid() {
    let of = |created, uid: &str| Seniority::of(&Service { created, uid: uid.into(), ..service() });
    let order = [of(Some(1), "z"), of(Some(2), "a"), of(Some(2), "b"), of(None, "a"), of(None, "b")];
    assert!(order.is_sorted_by(|senior, junior| senior < junior), "by age, then by UID; without an age last");
}
