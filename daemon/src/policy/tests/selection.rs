//! Which endpoints: matching, merging, conditions, topology, fallbacks, lists.

use super::*;
use TrafficPolicy::{Cluster, Local};

/// A Service by its policies (internal, external) and whether it has external frontends; endpoints; the two lists and any-usable.
#[derive(Clone, Copy)]
struct Row {
    case: &'static str,
    policies: (TrafficPolicy, TrafficPolicy),
    external: bool,
    endpoints: &'static [&'static str],
    cluster: &'static str,
    local: &'static str,
    usable: bool,
}

const fn row(case: &'static str, endpoints: &'static [&'static str], cluster: &'static str) -> Row {
    Row { case, policies: (Cluster, Cluster), external: false, endpoints, cluster, local: "", usable: true }
}

const fn unusable(row: Row) -> Row {
    Row { usable: false, ..row }
}

/// In the order of kube-proxy's `TestCategorizeEndpoints`, and what it leaves out.
const ROWS: &[Row] = &[
    row("no hints: all", &["1 rs here", "2 rs there"], "1 2"),
    row("zone hints: ours", &["1 rs - a", "2 rs - b", "3 rs - c", "4 rs - a"], "1 4"),
    row("several zones in one hint match any", &["1 rs - b,a", "2 rs - b"], "1"),
    row("one ready endpoint without a zone hint: all", &["1 rs - a", "2 rs - b", "3 rs", "4 rs - a"], "1 2 3 4"),
    row("no endpoint for our zone: all", &["1 rs - b", "2 rs - c"], "1 2"),
    row("node hints: ours", &["1 rs there - here", "2 rs there - there"], "1"),
    row("node hints win over zone hints", &["1 rs - b here", "2 rs - a there"], "1"),
    row("node hints lead elsewhere: zones decide", &["1 rs - a there", "2 rs - b there"], "1"),
    row("one ready endpoint without a node hint: zones decide", &["1 rs - b here", "2 rs - a"], "2"),
    row("neither leads here: all", &["1 rs - b there", "2 rs - c there"], "1 2"),
    row("an unhinted endpoint that is not ready has no say", &["1 rs - a", "2 rs - b", "3 s here", "4 st here"], "1"),
    row("hints of one that is not ready lead nowhere", &["1 rs - b", "2 st - a"], "1"),
    row("ready only, terminating ones rest", &["1 rs", "2 st", "3 s", "4 t", "5 -"], "1"),
    row("nothing ready: those that terminate and serve", &["1 st here", "2 st there", "3 t here", "4 s here"], "1 2"),
    row("the fallback ignores hints", &["1 st - b there", "2 st - a here"], "1 2"),
    row("ready while terminating counts as ready", &["1 rst", "2 st"], "1"),
    row("ready but not serving is ready all the same", &["1 r", "2 st"], "1"),
    unusable(row("serving, neither ready nor terminating: nothing", &["1 s here", "2 t here", "3 - here"], "")),
    unusable(row("no endpoints", &[], "")),
    Row {
        policies: (Local, Cluster),
        local: "1",
        ..row("iTP Local without external frontends: local only", &["1 rs here", "2 rs there"], "")
    },
    Row {
        policies: (Local, Cluster),
        ..row("iTP Local, all elsewhere: usable, but not here", &["1 rs there", "2 rs there"], "")
    },
    Row {
        policies: (Local, Cluster),
        external: true,
        local: "1",
        ..row("iTP Local, external: both lists", &["1 rs here", "2 rs there"], "1 2")
    },
    Row {
        policies: (Local, Cluster),
        local: "2",
        ..row("hints never apply to the local list", &["1 rs there a", "2 rs here b"], "")
    },
    Row {
        policies: (Local, Cluster),
        local: "2",
        ..row("local fallback beside a ready remote", &["1 rs there", "2 st here"], "")
    },
    Row { policies: (Local, Cluster), ..row("usable by fallback elsewhere", &["1 st there", "2 s here"], "") },
    unusable(Row { policies: (Local, Cluster), ..row("iTP Local, nothing usable", &["1 s there", "2 t here"], "") }),
    Row {
        policies: (Local, Local),
        external: true,
        local: "1",
        ..row("both Local: the cluster list stays, for pods", &["1 rs here", "2 rs there"], "1 2")
    },
    Row { policies: (Cluster, Local), external: true, local: "1", ..row("eTP Local", &["1 rs here", "2 rs there"], "1 2") },
    Row { policies: (Cluster, Local), external: true, ..row("eTP Local, all elsewhere", &["1 rs there"], "1") },
    Row {
        policies: (Cluster, Local),
        external: true,
        local: "2",
        ..row("eTP Local with zones: local list unaffected", &["1 rs there a", "2 rs here b"], "1")
    },
    Row {
        policies: (Cluster, Local),
        ..row("eTP Local without external frontends has no local list", &["1 rs here", "2 rs there"], "1 2")
    },
    Row {
        policies: (Cluster, Local),
        external: true,
        local: "3",
        ..row("fallback per list", &["1 rs there", "2 st there", "3 st here", "4 t here"], "1")
    },
    // Scenario 16, TestTerminatingEndpointsTrafficPolicyLocal.
    Row {
        policies: (Cluster, Local),
        external: true,
        local: "1 2",
        ..row("scenario 16", &["1 rs here", "2 rs here", "3 st here", "4 t here", "5 rs there"], "1 2 5")
    },
    // Scenario 19, TestTerminatingEndpointsTrafficPolicyCluster.
    Row { external: true, ..row("scenario 19", &["2 st here", "3 st here", "4 t there", "5 st there"], "2 3 5") },
];

#[test]
fn endpoints_are_categorized() {
    for Row { case, policies, external, endpoints, cluster, local, usable } in ROWS {
        let mut service = if *external { load_balancer() } else { service() };
        (service.internal_traffic_policy, service.external_traffic_policy) = *policies;
        let port = only_port(&service, &[slice("s", endpoints)], &context());
        assert_eq!((&*hosts(&port.cluster), &*hosts(&port.local), port.any_usable), (*cluster, *local, *usable), "{case}");
    }
}

#[test]
fn without_a_zone_label_zone_hints_are_ignored() {
    let slices = [slice("s", &["1 rs - a", "2 rs - b"])];
    for zone in [None, Some("".into())] {
        assert_eq!(hosts(&only_port(&service(), &slices, &Context { zone, ..context() }).cluster), "1 2");
    }
    let mut nameless = slice("s", &["1 rs - a", "2 rs - b"]);
    nameless.endpoints[0].hints = Some(Box::new(Hints { zones: vec!["".into()], nodes: Vec::new() }));
    let unlabelled = Context { zone: Some("".into()), ..context() };
    assert_eq!(hosts(&only_port(&service(), &[nameless], &unlabelled).cluster), "1 2", "an empty label is no zone");
    let moved = Context { zone: Some("b".into()), ..context() };
    assert_eq!(hosts(&only_port(&service(), &slices, &moved).cluster), "2");
}

/// Scenario 15, `TestInternalTrafficPolicy`.
#[test]
fn internal_local_drops_while_usable_elsewhere_and_rejects_after() {
    let mut service = service();
    service.internal_traffic_policy = Local;
    let elsewhere = only_port(&service, &[slice("s", &["1 rs there"])], &context());
    assert!(elsewhere.local.is_empty() && elsewhere.any_usable);
    let gone = only_port(&service, &[], &context());
    assert!(gone.local.is_empty() && !gone.any_usable);
}

#[test]
fn backends_know_whether_they_are_local() {
    let port = only_port(&service(), &[slice("s", &["1 rs here", "2 rs there", "3 rs"])], &context());
    assert_eq!(port.cluster.iter().map(|backend| backend.local).collect::<Vec<_>>(), [true, false, false]);
}

/// The same address in two slices, or twice in one: (first, second, does host 1 end up in the cluster list).
#[test]
fn of_two_entries_with_one_address_the_living_counts() {
    let cases = [
        ("1 rs here", "1 st there", "1", true),
        ("1 st here", "1 rs there", "1", false),
        // A new pod that is not ready yet has taken over the address: the old one's traffic must not reach it.
        ("1 st here", "1 - there", "", false),
        ("1 rst here", "1 - there", "", false),
        ("1 st here", "1 t there", "1", true),
        ("1 - here", "1 rs there", "1", false),
        ("1 s here", "1 rs there", "1", false),
        ("1 rs here", "1 rs there", "1", true),
        ("1 rs there", "1 rs elsewhere", "1", false),
    ];
    for (first, second, expected, local) in cases {
        for pair in [[first, second], [second, first]] {
            let apart = [slice("a", &pair[..1]), slice("b", &pair[1..])];
            let together = [slice("a", &pair)];
            for slices in [&apart[..], &together[..]] {
                let port = only_port(&service(), slices, &context());
                assert_eq!(hosts(&port.cluster), expected, "{pair:?}");
                assert_eq!(port.cluster.first().is_some_and(|backend| backend.local), local, "{pair:?}");
            }
        }
    }
}

/// Which of two ready entries counts must not depend on their place even where only their hints differ.
#[test]
fn hints_break_a_tie_of_entries() {
    let pair = ["1 rs here a", "1 rs here b"];
    let other = "2 rs here b";
    let zone_b = Context { zone: Some("b".into()), ..context() };
    for slices in [[slice("x", &[pair[0], pair[1], other])], [slice("x", &[other, pair[1], pair[0]])]] {
        assert_eq!(hosts(&only_port(&service(), &slices, &context()).cluster), "1");
        assert_eq!(hosts(&only_port(&service(), &slices, &zone_b).cluster), "2");
    }
}

/// Scenario 3: one number, three protocols, and `targetPort`s that only the slices know.
#[test]
fn ports_match_by_name_and_protocol_alone() {
    let mut service = service();
    service.ports = vec![port("dns", Protocol::Udp, 53), port("dns-tcp", Protocol::Tcp, 53), port("sctp", Protocol::Sctp, 53)];
    let ports = |list: &[(&str, Protocol, u16)]| {
        list.iter().map(|(name, protocol, port)| SlicePort { name: (*name).into(), protocol: *protocol, port: *port }).collect()
    };
    let mut first = slice("a", &["1 rs here"]);
    first.ports = ports(&[
        ("dns", Protocol::Udp, 53),
        ("dns-tcp", Protocol::Tcp, 5353),
        ("dns-tcp", Protocol::Udp, 1),
        ("sctp", Protocol::Tcp, 2),
        ("", Protocol::Sctp, 3),
    ]);
    // The same name resolved to another number in another slice: a rolling change of a named targetPort.
    let mut second = slice("b", &["2 rs here"]);
    second.ports = ports(&[("dns-tcp", Protocol::Tcp, 5354)]);
    let found = evaluate(&service, &[first, second], &context()).ports;
    let backends = |name: &str| {
        let port = found.iter().find(|port| port.id.name == name).unwrap();
        port.cluster.iter().map(|backend| backend.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(backends("dns"), ["10.180.0.1:53"]);
    assert_eq!(backends("dns-tcp"), ["10.180.0.1:5353", "10.180.0.2:5354"]);
    assert_eq!(backends("sctp"), [""; 0]);
}

#[test]
fn one_address_on_two_ports_is_two_backends() {
    let mut both = slice("a", &["1 rs here"]);
    both.ports.push(SlicePort { port: 81, ..both.ports[0].clone() });
    let port = only_port(&service(), &[both], &context());
    assert_eq!(port.cluster.iter().map(|backend| backend.address.port()).collect::<Vec<_>>(), [80, 81]);
}

#[test]
fn families_do_not_mix() {
    let mut service = service();
    service.cluster_ips.push(ip("fd00:30::41"));
    let mut v6 = slice("b", &["1 rs here"]);
    v6.family = Family::V6;
    v6.endpoints[0].address = ip("fd00:180::1");
    let found = evaluate(&service, &[slice("a", &["1 rs here"]), v6], &context()).ports;
    let backends: Vec<_> = found.iter().map(|port| (port.id.family, port.cluster[0].address.to_string())).collect();
    assert_eq!(backends, [(Family::V4, "10.180.0.1:80".into()), (Family::V6, "[fd00:180::1]:80".into())]);
    for port in &found {
        assert_eq!(port.cluster.len(), 1);
        assert!(port.frontends.iter().all(|frontend| frontend.address.family() == port.id.family));
    }
}

#[test]
fn serving_is_for_udp_and_looks_at_nothing_else() {
    let mut service = service();
    service.internal_traffic_policy = Local;
    service.ports = vec![port("", Protocol::Tcp, 80), port("", Protocol::Udp, 80)];
    let mut slice = slice("s", &["5 rs there", "1 rs here b", "2 st there", "3 s here", "4 rt here", "6 - here"]);
    slice.ports.push(SlicePort { protocol: Protocol::Udp, ..slice.ports[0].clone() });
    let found = evaluate(&service, &[slice], &context()).ports;
    assert!(found[0].serving.is_empty());
    let serving: Vec<_> = found[1].serving.iter().map(ToString::to_string).collect();
    assert_eq!(serving, ["10.180.0.1:80", "10.180.0.2:80", "10.180.0.3:80", "10.180.0.5:80"]);
}

/// All ports of a Service share one look at its slices; with one each, 10,000 ports took seconds.
#[test]
fn slices_are_looked_through_once_a_family_however_many_ports_there_are() {
    let names: Vec<_> = (0..500u16).map(|n| format!("p{n}")).collect();
    let service = Service {
        cluster_ips: [ip("172.30.0.41"), ip("fd00:30::41")].into_iter().collect(),
        ports: names.iter().map(|name| port(name, Protocol::Tcp, 80)).collect(),
        ..service()
    };
    let slices: Vec<_> = names
        .iter()
        .zip(1000..)
        .map(|(name, number)| {
            let ports = vec![samples::slice_port(name, Protocol::Tcp, number)];
            EndpointSlice { ports, ..slice(name, &["1 rs here"]) }
        })
        .collect();
    let looks = std::cell::Cell::new(0);
    let found = desired(&service, slices.iter().inspect(|_| looks.set(looks.get() + 1)), &context());
    assert_eq!(looks.get(), 2 * slices.len());
    for port in found.ports.iter().filter(|port| port.id.family == Family::V4) {
        let number: u16 = port.id.name.trim_start_matches('p').parse().unwrap();
        assert_eq!(port.cluster.iter().map(|backend| backend.address.port()).collect::<Vec<_>>(), [1000 + number]);
    }
}
