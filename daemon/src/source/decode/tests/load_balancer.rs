//! MetalLB's objects, what Services ask, and nodes as announcers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::load_balancer::{
    AddressPool, Advertisement, IngressAddress, IpFamilyPolicy, IpMode, LoadBalancerRequest, NamespaceLabels, PeerNode,
    PoolCounts,
};
use crate::model::{Labels, Operator, Requirement, Selector};

fn pool(value: &Value) -> AddressPool {
    match decoded(Kind::AddressPool, value) {
        Decoded::Object(Object::AddressPool(pool)) => *pool,
        other => panic!("not a pool: {other:?}"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn pool_of(spec: Value) -> AddressPool {
    pool(&json!({"metadata": {"name": "first", "namespace": "metallb-system"}, "spec": spec}))
}

#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn advertisement_of(spec: Value) -> Advertisement {
    match decoded(Kind::Advertisement, &json!({"metadata": {"name": "all", "namespace": "metallb-system"}, "spec": spec})) {
        Decoded::Object(Object::Advertisement(advertisement)) => *advertisement,
        other => panic!("not an advertisement: {other:?}"),
    }
}

fn ranges(pool: &AddressPool) -> Vec<String> {
    pool.ranges.iter().map(|range| format!("{}-{}", range.first(), range.last())).collect()
}

/// What is wrong with a pool of these addresses.
#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn refused(addresses: Value) -> Vec<String> {
    said(&pool_of(json!({"addresses": addresses})).problems)
}

/// The selector as a pool's.
#[expect(clippy::needless_pass_by_value, reason = "called with json! in place")]
fn selector(selector: Value) -> Result<Selector, Vec<String>> {
    let spec = json!({"addresses": ["10.0.0.0/24"], "serviceAllocation": {"serviceSelectors": [selector]}});
    let pool = pool_of(spec);
    let mut selectors = pool.allocation.expect("there is one").service_selectors;
    if pool.problems.is_empty() { Ok(selectors.remove(0)) } else { Err(said(&pool.problems)) }
}

fn requested(spec: Value, annotations: Value, status: Value) -> Option<LoadBalancerRequest> {
    let mut value = with_spec(spec, status);
    value["metadata"]["annotations"] = annotations;
    value["metadata"]["labels"] = json!({"app": "web", "team": "net"});
    service(&value).load_balancer.map(|request| *request)
}

fn balanced(annotations: Value) -> LoadBalancerRequest {
    requested(json!({"type": "LoadBalancer"}), annotations, json!({})).expect("type LoadBalancer")
}

#[test]
fn a_pool_with_everything_in_it() {
    let pool = pool(&json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "first", "namespace": "metallb-system", "uid": "u", "generation": 7,
            "creationTimestamp": "2026-11-21T01:23:48Z", "labels": {"zone": "east"}},
        "spec": {
            "addresses": ["192.168.10.10/24", "192.168.9.1 - 192.168.9.5", "fc00:f853:0ccd:e799::/124", "10.0.0.7/32"],
            "autoAssign": false, "avoidBuggyIPs": true,
            "serviceAllocation": {"priority": 50, "namespaces": ["a", "b"], "namespaceSelectors": [{"matchLabels": {"foo": "bar"}}],
                "serviceSelectors": [{"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}]}
        },
        "status": {"assignedIPv4": 1, "assignedIPv6": 2, "availableIPv4": 3, "availableIPv6": 9_223_372_036_854_775_807_i64}
    }));
    assert_eq!((pool.key.as_str(), &*pool.uid, pool.generation), ("metallb-system/first", "u", 7));
    assert_eq!(pool.created, Some(1_795_224_228));
    assert_eq!(pool.labels.get("zone"), Some("east"));
    assert_eq!(
        ranges(&pool),
        [
            "192.168.10.0-192.168.10.255",
            "192.168.9.1-192.168.9.5",
            "fc00:f853:ccd:e799::-fc00:f853:ccd:e799::f",
            "10.0.0.7-10.0.0.7"
        ],
        "host bits are cleared, and the order stays"
    );
    assert!(!pool.auto_assign && pool.avoid_buggy_ips);
    let allocation = pool.allocation.expect("there is one");
    assert_eq!((allocation.priority, &allocation.namespaces[..]), (50, &["a".into(), "b".into()][..]));
    let is = |key: &str, value: &str| Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) };
    assert_eq!(allocation.namespace_selectors, [Selector::new(vec![is("foo", "bar")])]);
    assert_eq!(allocation.service_selectors, [Selector::new(vec![is("app", "web")])]);
    let counts = PoolCounts { assigned_v4: 1, assigned_v6: 2, available_v4: 3, available_v6: i64::MAX };
    assert_eq!((pool.counts, &pool.problems[..]), (Some(counts), &[][..]));
}

#[test]
fn a_pool_of_addresses_alone_has_the_defaults() {
    let pool = pool_of(json!({"addresses": ["10.0.0.0/24"]}));
    assert!(pool.auto_assign && !pool.avoid_buggy_ips);
    assert_eq!((pool.allocation, pool.counts, pool.generation, pool.created), (None, None, 0, None));
    assert_eq!(pool.problems, []);
}

#[test]
fn addresses_that_are_no_range_are_named() {
    for (text, why) in [
        ("10.0.0.1", "is a single address: write 10.0.0.1/32"),
        ("fc00::1", "is a single address: write fc00::1/128"),
        ("web", "is neither a CIDR nor a range such as 10.0.0.1-10.0.0.9"),
        ("", "is neither a CIDR nor a range such as 10.0.0.1-10.0.0.9"),
        ("10.0.0.0/33", "is not a CIDR"),
        ("10.0.0.0/", "is not a CIDR"),
        ("10.0.0.0/-1", r#"is no range: "10.0.0.0/" is not an IP address"#),
        (" 10.0.0.0/24", "is not a CIDR"),
        ("10.0.0.01/24", "is not a CIDR"),
        ("::ffff:10.0.0.0/120", "is not a CIDR"),
        ("fe80::%eth0/64", "is not a CIDR"),
        ("10.0.0.9-10.0.0.1", "is no range: it ends before it begins"),
        ("10.0.0.1-fc00::1", "is no range: the two ends are of different families"),
        ("10.0.0.1-", r#"is no range: "" is not an IP address"#),
        ("10.0.0.1-9", r#"is no range: "9" is not an IP address"#),
        ("10.0.0.1-10.0.0.2-10.0.0.3", r#"is no range: "10.0.0.2-10.0.0.3" is not an IP address"#),
        ("10.0.0.0/24-10.0.1.0/24", r#"is no range: "10.0.0.0/24" is not an IP address"#),
        ("0.0.0.0/0", "holds the unspecified address, at which no host can be reached"),
        ("127.0.0.0/24", "holds loopback addresses, at which no host can be reached"),
        ("223.255.255.0-224.0.0.0", "holds multicast addresses, at which no host can be reached"),
        ("255.255.255.255/32", "holds the broadcast address, at which no host can be reached"),
        ("::/64", "holds the unspecified or the loopback address, at which no host can be reached"),
        ("ff02::/16", "holds multicast addresses, at which no host can be reached"),
    ] {
        assert_eq!(refused(json!([text])), [format!("spec.addresses[0]: {text:?} {why}")], "{text}");
    }
    assert_eq!(refused(json!(null)), ["spec.addresses: no addresses: a pool needs at least one range"]);
    assert_eq!(refused(json!([])), ["spec.addresses: no addresses: a pool needs at least one range"]);
    assert_eq!(refused(json!("10.0.0.0/24")), ["spec.addresses: is a string, not a list: ignored"]);
    assert_eq!(
        refused(json!(["10.0.0.0/24", null, 7])),
        ["spec.addresses[1]: is null, not a string: ignored", "spec.addresses[2]: is a number, not a string: ignored"]
    );
    // What was there before the first mistake is still read: who looks at the pool sees what it is about.
    assert_eq!(ranges(&pool_of(json!({"addresses": ["10.0.0.0/31", "x"]}))), ["10.0.0.0-10.0.0.1"]);
}

#[test]
fn ranges_of_one_pool_that_share_addresses_are_named() {
    let shares = |place: usize, later: &str, earlier: &str| {
        format!("spec.addresses[{place}]: {later:?} shares addresses with {earlier:?} before it")
    };
    assert_eq!(refused(json!(["10.0.0.0/24", "10.0.0.0/24"])), [shares(1, "10.0.0.0/24", "10.0.0.0/24")]);
    assert_eq!(
        refused(json!(["10.0.0.9-10.0.0.20", "10.0.0.1-10.0.0.9"])),
        [shares(1, "10.0.0.1-10.0.0.9", "10.0.0.9-10.0.0.20")]
    );
    assert_eq!(
        refused(json!(["10.0.0.0/16", "10.0.1.0/24", "10.0.3.0/24", "10.1.0.0/24"])),
        [shares(1, "10.0.1.0/24", "10.0.0.0/16"), shares(2, "10.0.3.0/24", "10.0.0.0/16")],
        "a range that reaches over others"
    );
    assert_eq!(refused(json!(["10.0.0.0/24", "10.0.1.0/24", "fc00::/64", "a00::-a00::ff"])), [""; 0]);
}

#[test]
fn selectors_are_those_of_kubernetes() {
    let requirement = |key: &str, operator| Requirement { key: key.into(), operator };
    let read = selector(json!({"matchLabels": {"a": "1", "example.com/b": ""}, "matchExpressions": [
        {"key": "c", "operator": "NotIn", "values": ["y", "x"]}, {"key": "d", "operator": "Exists"},
        {"key": "e", "operator": "DoesNotExist", "values": []}]}));
    let expected = Selector::new(vec![
        requirement("a", Operator::In(vec!["1".into()])),
        requirement("example.com/b", Operator::In(vec!["".into()])),
        requirement("c", Operator::NotIn(vec!["x".into(), "y".into()])),
        requirement("d", Operator::Exists),
        requirement("e", Operator::DoesNotExist),
    ]);
    assert_eq!(read, Ok(expected));
    assert_eq!(selector(json!({})), Ok(Selector::default()), "selects everything");
    assert_eq!(selector(json!({"matchLabels": null, "matchExpressions": []})), Ok(Selector::default()));
    // Alike in meaning but not in words: MetalLB takes them.
    let twice = json!([{"matchLabels": {"a": "b"}}, {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]);
    assert_eq!(advertisement_of(json!({"nodeSelectors": twice})).problems, []);
}

#[test]
fn malformed_selectors_are_named_by_field() {
    let at = "spec.serviceAllocation.serviceSelectors[0]";
    let expression = |expression: Value| selector(json!({"matchExpressions": [expression]}));
    let long = "x".repeat(64);
    for (read, why) in [
        (
            expression(json!({"key": "a", "operator": "in", "values": ["b"]})),
            r#"matchExpressions[0].operator: "in" is not In, NotIn, Exists or DoesNotExist"#,
        ),
        (expression(json!({"key": "a"})), r#"matchExpressions[0].operator: "" is not In, NotIn, Exists or DoesNotExist"#),
        (expression(json!({"key": "a", "operator": "In"})), "matchExpressions[0].values: In and NotIn need values"),
        (
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            "matchExpressions[0].values: Exists has no values",
        ),
        (expression(json!({"operator": "Exists"})), r#"matchExpressions[0].key: "" cannot be the key of a label"#),
        (
            expression(json!({"key": "a/b/c", "operator": "Exists"})),
            r#"matchExpressions[0].key: "a/b/c" cannot be the key of a label"#,
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": ["-b"]})),
            r#"matchExpressions[0].values[0]: "-b" cannot be the value of a label"#,
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": ["b", "c", "b"]})),
            r#"matchExpressions[0].values[2]: "b" is there before"#,
        ),
        (
            expression(json!({"key": "a", "operator": "In", "values": ["b", null]})),
            "matchExpressions[0].values[1]: is null, not a string: ignored",
        ),
        (expression(json!(null)), "matchExpressions[0]: is null, not an object: ignored"),
        (selector(json!({"matchLabels": {"a": 5}})), "matchLabels[a]: is a number, not a string: ignored"),
        (
            selector(json!({"matchLabels": {"Example.com/a": "b"}})),
            r#"matchLabels[Example.com/a]: "Example.com/a" cannot be the key of a label"#,
        ),
        (selector(json!({"matchLabels": {"a": long}})), &format!(r#"matchLabels[a]: "{long}" cannot be the value of a label"#)),
        (selector(json!({"matchLabels": ["a"]})), "matchLabels: is a list, not an object: ignored"),
    ] {
        assert_eq!(read, Err(vec![format!("{at}.{why}")]), "{why}");
    }
    let same = json!({"key": "a", "operator": "In", "values": ["b", "c"]});
    let other_way = json!({"key": "a", "operator": "In", "values": ["c", "b"]});
    let read = selector(json!({"matchExpressions": [same, other_way]}));
    assert_eq!(read, Err(vec![format!("{at}.matchExpressions[1]: is the same requirement as one before it")]));
    let pool = pool_of(json!({"addresses": ["10.0.0.0/24"], "serviceAllocation": {"namespaces": ["a", "b", "a"],
        "namespaceSelectors": [{"matchLabels": {"a": "b", "c": "d"}}, {"matchLabels": {"c": "d", "a": "b"}}, null, 5], "priority": "high"}}));
    assert_eq!(
        said(&pool.problems),
        [
            "spec.serviceAllocation.priority: is a string, not a whole number: ignored",
            r#"spec.serviceAllocation.namespaces[2]: "a" is there before"#,
            "spec.serviceAllocation.namespaceSelectors[1]: is the same selector as one before it",
            "spec.serviceAllocation.namespaceSelectors[2]: is null, not an object: ignored",
            "spec.serviceAllocation.namespaceSelectors[3]: is a number, not an object: ignored",
        ]
    );
}

/// A selector without one of its requirements would select what it was to leave out.
#[test]
fn no_selector_loses_a_requirement_and_stays() {
    let bad = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Nope"}]});
    assert_eq!(advertisement_of(json!({"nodeSelectors": [bad]})).node_selectors, []);
}

#[test]
fn an_advertisement_with_everything_in_it() {
    let east = json!({"matchLabels": {"zone": "east"}});
    let read = advertisement_of(json!({
        "ipAddressPools": ["first", "second"], "ipAddressPoolSelectors": [east], "nodeSelectors": [east], "interfaces": ["eth0", "eth0"],
        "serviceSelectors": [east], "preferredNodeSelectors": [{"weight": 100, "preference": east}, {"weight": 1, "preference": {}}]
    }));
    let zone = |value: &str| [("zone", value)].into_iter().collect::<Labels>();
    assert_eq!(
        (&read.pools[..], &read.interfaces[..]),
        (&["first".into(), "second".into()][..], &["eth0".into(), "eth0".into()][..])
    );
    assert!(read.selects_pool("third", &zone("east")) && !read.selects_pool("third", &zone("west")));
    assert!(read.selects_node(&zone("east")) && !read.selects_node(&zone("west")));
    assert!(read.selects_service(&zone("east")) && !read.selects_service(&Labels::default()));
    assert_eq!(read.preferences.iter().map(|preference| preference.weight).collect::<Vec<_>>(), [100, 1]);
    assert_eq!(read.problems, []);
    for spec in [json!({}), json!(null)] {
        let everything = advertisement_of(spec);
        assert!(everything.selects_pool("any", &Labels::default()) && everything.selects_node(&Labels::default()));
        assert_eq!(everything.problems, []);
    }
}

#[test]
fn what_is_wrong_with_an_advertisement_is_named() {
    let read = advertisement_of(json!({
        "ipAddressPools": ["first", "first"], "nodeSelectors": [{}, {}], "interfaces": "eth0", "serviceSelectors": [5],
        "preferredNodeSelectors": [{"weight": 0, "preference": {}}, {"weight": 101, "preference": {}}, {"weight": 5}, {"preference": 7}, null]
    }));
    assert_eq!(
        said(&read.problems),
        [
            "spec.interfaces: is a string, not a list: ignored",
            r#"spec.ipAddressPools[1]: "first" is there before"#,
            "spec.nodeSelectors[1]: is the same selector as one before it",
            "spec.serviceSelectors[0]: is a number, not an object: ignored",
            "spec.preferredNodeSelectors[0].weight: 0 is not between 1 and 100",
            "spec.preferredNodeSelectors[1].weight: 101 is not between 1 and 100",
            "spec.preferredNodeSelectors[2].preference: is null, not an object: ignored",
            "spec.preferredNodeSelectors[3].weight: is null, not a whole number: ignored",
            "spec.preferredNodeSelectors[3].preference: is a number, not an object: ignored",
            "spec.preferredNodeSelectors[4]: is null, not an object: ignored",
        ]
    );
}

#[test]
fn lists_and_quotes_are_bounded() {
    let names: Vec<_> = (0..5_000).map(|number| format!("pool-{number}")).collect();
    let read = advertisement_of(json!({"ipAddressPools": names}));
    assert_eq!(read.pools.len(), 4_096);
    assert_eq!(said(&read.problems), ["spec.ipAddressPools: 5000 entries, more than the 4096 that are read"]);
    let long = "x".repeat(100_000);
    let told = refused(json!([long, format!("{long}-{long}")]));
    assert!(told.len() == 2 && told.iter().all(|line| line.len() < 300), "{told:?}");
    let read = selector(json!({"matchLabels": {long.as_str(): long}}));
    assert!(read.expect_err("too long").iter().all(|line| line.len() < 300));
}

#[test]
fn plain_services_have_no_request_and_balanced_ones_do() {
    assert_eq!(requested(json!({}), json!({"metallb.io/address-pool": "first"}), json!({})), None);
    assert_eq!(requested(json!({"type": "NodePort"}), json!(null), json!({"loadBalancer": {"ingress": []}})), None);
    let left = requested(json!({}), json!(null), json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}));
    assert!(left.is_some(), "an address from when it was of type LoadBalancer");
    let request = requested(
        json!({"type": "LoadBalancer", "loadBalancerClass": "metallb", "loadBalancerIP": "192.0.2.9", "ipFamilies": ["IPv6", "IPv4"],
            "ipFamilyPolicy": "PreferDualStack", "selector": {"tier": "front", "app": "web"}}),
        json!({"metallb.io/loadBalancerIPs": "192.0.2.1, 2001:db8::1", "metallb.io/address-pool": "first",
            "metallb.io/allow-shared-ip": "key", "metallb.io/ip-allocated-from-pool": "first", "other": "x"}),
        json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1", "ipMode": "Proxy"}]}}),
    );
    let ingress = [("192.0.2.1", IpMode::Vip), ("2001:db8::1", IpMode::Proxy)];
    assert_eq!(
        request,
        Some(LoadBalancerRequest {
            class: Some("metallb".into()),
            labels: [("app", "web"), ("team", "net")].into_iter().collect(),
            families: [Family::V6, Family::V4].into_iter().collect(),
            family_policy: IpFamilyPolicy::PreferDualStack,
            address: Some("192.0.2.9".into()),
            addresses: Some("192.0.2.1, 2001:db8::1".into()),
            pool: Some("first".into()),
            sharing_key: Some("key".into()),
            allocated_from: Some("first".into()),
            deprecated_prefix: false,
            selector: "app=web,tier=front".into(),
            ingress: ingress.into_iter().map(|(ip, mode)| IngressAddress { ip: ip.parse().unwrap(), mode }).collect(),
            other_ingress: false,
        })
    );
}

#[test]
fn the_new_prefix_wins_even_if_it_is_empty() {
    let pool = |annotations: Value| {
        let request = balanced(annotations);
        (request.pool, request.deprecated_prefix)
    };
    let (new, old) = ("metallb.io/address-pool", "metallb.universe.tf/address-pool");
    assert_eq!(pool(json!({new: "a"})), (Some("a".into()), false));
    assert_eq!(pool(json!({old: "b"})), (Some("b".into()), true));
    assert_eq!(pool(json!({new: "a", old: "b"})), (Some("a".into()), false));
    assert_eq!(pool(json!({new: "", old: "b"})), (None, false));
    assert_eq!(pool(json!({old: ""})), (None, true));
    let read = balanced(json!({"metallb.universe.tf/loadBalancerIPs": "192.0.2.1", "metallb.io/allow-shared-ip": "k"}));
    assert_eq!((read.addresses, read.sharing_key, read.deprecated_prefix), (Some("192.0.2.1".into()), Some("k".into()), true));
    let read = balanced(json!({"metallb.universe.tf/ip-allocated-from-pool": "old"}));
    assert_eq!((read.allocated_from, read.deprecated_prefix), (None, false), "only the new one is ever written");
}

#[test]
fn what_a_service_asks_for_is_kept_as_it_is_written_unless_it_is_too_long() {
    let read = balanced(json!({"metallb.io/loadBalancerIPs": "10.0.0.300", "metallb.io/address-pool": "No Such"}));
    assert_eq!((read.addresses.as_deref(), read.pool.as_deref()), (Some("10.0.0.300"), Some("No Such")));
    let padded = format!("10.0.0.1{},nonsense", " ".repeat(1_000));
    let read = balanced(json!({"metallb.io/loadBalancerIPs": padded, "metallb.io/allow-shared-ip": "k".repeat(1_000)}));
    assert!(read.addresses.is_some_and(|text| text.len() < 100 && text.ends_with("...")), "no request that could be met");
    assert_eq!(read.sharing_key.map(|key| key.len()), Some(1_000), "keys that begin alike are two");
}

#[test]
fn ingress_that_is_no_address_is_told_apart() {
    let of = |ingress: Value| {
        let request = requested(json!({"type": "LoadBalancer"}), json!(null), json!({"loadBalancer": {"ingress": ingress}}));
        let request = request.expect("type LoadBalancer");
        (request.ingress.iter().map(|entry| entry.ip.to_string()).collect::<Vec<_>>().join(" "), request.other_ingress)
    };
    assert_eq!(of(json!([])), (String::new(), false));
    assert_eq!(of(json!([{"ip": "192.0.2.1", "hostname": "a.example"}])), ("192.0.2.1".into(), false));
    for other in [
        json!({"hostname": "a.example"}),
        json!({"ip": "nonsense"}),
        json!({"ip": "192.0.2.2", "ipMode": "Other"}),
        json!(null),
        json!(5),
    ] {
        assert_eq!(of(json!([other, {"ip": "192.0.2.1"}])), ("192.0.2.1".into(), true), "{other}");
    }
    assert_eq!(of(json!("x")), (String::new(), false));
}

#[test]
fn a_family_policy_of_no_name_is_said_where_it_is_read() {
    let policy = |kind: &str| {
        let service = service(&with_spec(json!({"type": kind, "ipFamilyPolicy": "Dual"}), json!({})));
        said(&service.problems)
    };
    assert_eq!(
        policy("LoadBalancer"),
        [r#"spec.ipFamilyPolicy: "Dual" is not SingleStack, PreferDualStack or RequireDualStack: treated as SingleStack"#]
    );
    assert_eq!(policy("ClusterIP"), [""; 0]);
}

#[test]
fn any_node_is_a_peer() {
    let value = json!({"metadata": {"name": "node-b", "labels": {"zone": "east", "node.kubernetes.io/exclude-from-external-load-balancers": ""}},
        "spec": {"unschedulable": true},
        "status": {"addresses": [{"type": "Hostname", "address": "node-b"}, {"type": "ExternalIP", "address": "203.0.113.9"},
                {"type": "InternalIP", "address": "192.168.0.2"}, {"type": "InternalIP", "address": "fd00::2"}, null, 5],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True"}, 7]}});
    let peer = |value: &Value| match decoded(Kind::Peer, value) {
        Decoded::Object(Object::Peer(peer)) => *peer,
        other => panic!("not a peer: {other:?}"),
    };
    let read = peer(&value);
    assert_eq!(&*read.name, "node-b");
    assert!(read.network_unavailable && read.unschedulable);
    assert!(read.labels.contains(crate::model::load_balancer::EXCLUDE_LABEL));
    assert_eq!(read.addresses, ["192.168.0.2", "fd00::2"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
    let plain = peer(
        &json!({"metadata": {"name": "node-c"}, "status": {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]}}),
    );
    let expected = PeerNode {
        name: "node-c".into(),
        labels: Labels::default(),
        addresses: Vec::new(),
        network_unavailable: false,
        unschedulable: false,
    };
    assert_eq!(plain, expected);
}

#[test]
fn a_namespace_is_its_labels() {
    let value = json!({"metadata": {"name": "shop", "labels": {"team": "net", "odd": 5, "empty": null}}, "spec": {}, "status": {"phase": "Active"}});
    let Decoded::Object(Object::Namespace(namespace)) = decoded(Kind::Namespace, &value) else { panic!("not a Namespace") };
    let labels = [("team", "net"), ("empty", "")].into_iter().collect();
    assert_eq!(*namespace, NamespaceLabels { name: "shop".into(), labels });
}

/// A good one of each kind, to be spoilt.
fn good() -> [(Kind, Value); 5] {
    let selectors = json!([{"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}]}]);
    let service = json!({"metadata": {"name": "x", "namespace": "y", "labels": {"a": "b"},
            "annotations": {"metallb.io/loadBalancerIPs": "192.0.2.1", "metallb.universe.tf/address-pool": "p"}},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "loadBalancerClass": "c", "loadBalancerIP": "192.0.2.1", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}});
    let pool = json!({"metadata": {"name": "x", "namespace": "y", "uid": "u", "generation": 1, "labels": {"a": "b"}},
        "spec": {"addresses": ["10.0.0.0/24", "10.0.1.1-10.0.1.9"], "autoAssign": true, "avoidBuggyIPs": false,
            "serviceAllocation": {"priority": 1, "namespaces": ["n"], "namespaceSelectors": selectors, "serviceSelectors": selectors}},
        "status": {"assignedIPv4": 1, "assignedIPv6": 0, "availableIPv4": 1, "availableIPv6": 0}});
    let advertisement = json!({"metadata": {"name": "x", "namespace": "y", "uid": "u"},
        "spec": {"ipAddressPools": ["p"], "ipAddressPoolSelectors": selectors, "nodeSelectors": selectors, "interfaces": ["eth0"],
            "serviceSelectors": selectors, "preferredNodeSelectors": [{"weight": 1, "preference": selectors[0]}]}});
    let node = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"unschedulable": false},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "conditions": [{"type": "NetworkUnavailable", "status": "True"}]}});
    let namespace = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
    [
        (Kind::Service, service),
        (Kind::AddressPool, pool),
        (Kind::Advertisement, advertisement),
        (Kind::Peer, node),
        (Kind::Namespace, namespace),
    ]
}

fn wrong() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,80}".prop_map(Value::from),
        "[0-9a-f.:/ -]{0,40}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([null, {}, [], "x"])),
        Just(json!({"x": [1], "matchLabels": {"": 0}})),
    ]
}

proptest! {
    #[test]
    fn an_object_with_anything_anywhere_decodes(places in proptest::collection::vec((any::<prop::sample::Index>(), wrong()), 1..4)) {
        for (kind, mut value) in good() {
            for (place, wrong) in &places {
                let mut paths = Vec::new();
                collect_pointers(&value, "", &mut paths);
                paths.retain(|path| !matches!(path.as_str(), "/metadata" | "/metadata/name" | "/metadata/namespace"));
                if let Some(spoilt) = value.pointer_mut(place.get(paths.as_slice()).as_str()) {
                    *spoilt = wrong.clone();
                }
            }
            let text = value.to_string();
            let decoded = from_json(kind, text.as_bytes(), &mut Interner::default());
            prop_assert!(matches!(decoded, Ok(Decoded::Object(_))), "{decoded:?} of {text}");
        }
    }

    /// What is read of a text is what the text says, and nothing else is read.
    #[test]
    fn a_range_is_both_its_ends(first: u32, last: u32, v6: bool, space in " {0,2}") {
        let address = |number: u32| if v6 {
            std::net::IpAddr::from(std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)))
        } else {
            std::net::Ipv4Addr::from_bits(0x0a00_0000 | number >> 8).into()
        };
        let (first, last) = (address(first), address(last));
        let pool = pool_of(json!({"addresses": [format!("{first}{space}-{space}{last}")]}));
        if first <= last {
            prop_assert_eq!(ranges(&pool), [format!("{first}-{last}")]);
            prop_assert_eq!(pool.problems, []);
        } else {
            prop_assert!(pool.ranges.is_empty() && pool.problems.len() == 1);
        }
    }
}
