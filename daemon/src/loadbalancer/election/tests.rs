//! Elections by MetalLB's vectors, by tables, and by properties.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use compact_str::CompactString;
use proptest::prelude::*;

use super::*;
use crate::model::load_balancer::{EXCLUDE_LABEL, NodePreference};
use crate::model::{Conditions, Endpoint, EndpointSlice, Family, ObjectKey, Operator, Requirement, Selector};

const VIP: &str = "192.168.1.240";

/// What a test changes of an ordinary node.
struct Runner {
    node: PeerNode,
    presence: Presence,
    interfaces: Option<Vec<NetworkInterface>>,
    holds: Option<Holding>,
}

/// What a test changes of an ordinary Service.
struct Claim {
    key: ServiceKey,
    labels: Labels,
    local: bool,
    hosting: Hosting,
}

fn eth(name: &str, carrier: bool, subnet: &str) -> NetworkInterface {
    NetworkInterface { name: name.into(), hardware: None, carrier, subnets: vec![subnet.parse().unwrap()] }
}

fn runner(name: &str) -> Runner {
    let node = PeerNode {
        name: name.into(),
        labels: [("kubernetes.io/hostname", name)].into_iter().collect(),
        addresses: Vec::new(),
        network_unavailable: false,
        unschedulable: false,
    };
    Runner { node, presence: Presence::Present, interfaces: Some(vec![eth("eth0", true, "192.168.1.0/24")]), holds: None }
}

fn three() -> Vec<Runner> {
    ["node-a", "node-b", "node-c"].map(runner).into()
}

fn hosting(nodes: &[&str]) -> Hosting {
    Hosting { any: !nodes.is_empty(), nodes: nodes.iter().map(|&node| node.into()).collect() }
}

fn claim(name: &str) -> Claim {
    let labels = [("app", name)].into_iter().collect();
    Claim { key: ObjectKey::new("default", name), labels, local: false, hosting: hosting(&["node-a"]) }
}

fn ad(name: &str) -> Advertisement {
    Advertisement {
        key: ObjectKey::new("metallb-system", name),
        uid: CompactString::default(),
        pools: Vec::new(),
        pool_selectors: Vec::new(),
        node_selectors: Vec::new(),
        interfaces: Vec::new(),
        service_selectors: Vec::new(),
        preferences: Vec::new(),
        problems: Vec::new(),
    }
}

fn label(key: &str, value: &str) -> Selector {
    Selector::new(vec![Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }])
}

fn on(node: &str) -> Selector {
    label("kubernetes.io/hostname", node)
}

fn hold(vip: &str, runners: &[Runner], claims: &[Claim], ads: &[Advertisement], options: Options) -> Outcome {
    let candidates: Vec<_> = runners
        .iter()
        .map(|Runner { node, presence, interfaces, holds }| Candidate {
            node,
            presence: *presence,
            interfaces: interfaces.as_deref(),
            holds: *holds,
        })
        .collect();
    let tenants: Vec<_> = claims
        .iter()
        .map(|Claim { key, labels, local, hosting }| Tenant { service: key, labels, local: *local, hosting })
        .collect();
    let advertisements: Vec<_> = ads.iter().collect();
    let vip = vip.parse().unwrap();
    elect(&Contest { vip, advertisements: &advertisements, tenants: &tenants, candidates: &candidates, options })
}

fn simple(runners: &[Runner]) -> Outcome {
    hold(VIP, runners, &[claim("web")], &[ad("all")], Options::default())
}

fn order(outcome: &Outcome) -> Vec<&str> {
    outcome.standings.iter().filter(|standing| standing.rank.is_ok()).map(|standing| &*standing.node).collect()
}

fn excluded<'a>(outcome: &'a Outcome, node: &str) -> &'a Exclusion {
    outcome.standings.iter().find(|standing| &*standing.node == node).unwrap().rank.as_ref().unwrap_err()
}

#[test]
fn metallbs_test_vectors() {
    for (vip, expected) in [
        (VIP, [("node-a", 0x0905_ce28_u32), ("node-c", 0xa653_0f9d), ("node-b", 0xc5db_6995)]),
        ("fc00::1", [("node-b", 0x4633_30c4), ("node-c", 0x7a66_ff6f), ("node-a", 0x8ed8_4f83)]),
    ] {
        for (node, digest) in expected {
            let found = rank_digest(node, vip.parse().unwrap());
            assert_eq!(found[..4], digest.to_be_bytes(), "{node}#{vip}");
        }
        let mut runners = three();
        runners.iter_mut().for_each(|runner| runner.interfaces = Some(vec![eth("eth0", true, "10.0.0.0/8")]));
        let outcome = hold(vip, &runners, &[claim("web")], &[ad("all")], Options::default());
        assert_eq!(order(&outcome), expected.map(|(node, _)| node));
    }
}

#[test]
fn every_reason_against_a_node() {
    type Change = fn(&mut Runner);
    let options = Options { move_from_unschedulable: true, ..Options::default() };
    let cases: [(Change, Exclusion); 11] = [
        (|one| one.presence = Presence::Absent, Exclusion::Absent),
        (|one| one.presence = Presence::Unlisted, Exclusion::Unlisted),
        (|one| one.presence = Presence::Leaving, Exclusion::Leaving),
        (|one| one.presence = Presence::Grace, Exclusion::Restarting),
        (|one| one.node.network_unavailable = true, Exclusion::NetworkUnavailable),
        (|one| one.node.labels = [(EXCLUDE_LABEL, "")].into_iter().collect(), Exclusion::ExcludeLabel),
        (|one| one.node.unschedulable = true, Exclusion::Unschedulable),
        (|one| one.interfaces = None, Exclusion::Unknown),
        (|one| one.interfaces = Some(Vec::new()), Exclusion::NoInterface),
        (|one| one.interfaces = Some(vec![eth("eth0", false, "192.168.1.0/24")]), Exclusion::NoCarrier),
        (|one| one.interfaces = Some(vec![eth("eth0", true, "10.0.0.0/24")]), Exclusion::NotOnSubnet),
    ];
    for (change, expected) in cases {
        let mut runners = three();
        change(&mut runners[0]);
        let outcome = hold(VIP, &runners, &[claim("web")], &[ad("all")], options);
        assert_eq!(excluded(&outcome, "node-a"), &expected);
        assert!(outcome.is_won_by("node-c"), "{expected}: {outcome:?}");
    }
    let mut runners = three();
    runners[0].node.labels = [(EXCLUDE_LABEL, "")].into_iter().collect();
    runners[0].node.unschedulable = true;
    let ignoring = Options { ignore_exclude_label: true, move_from_unschedulable: false };
    assert!(hold(VIP, &runners, &[claim("web")], &[ad("all")], ignoring).is_won_by("node-a"));
}

#[test]
fn every_reason_for_silence() {
    let mut idle = claim("idle");
    idle.hosting = Hosting::default();
    let mut other = ad("other");
    other.service_selectors = vec![label("app", "nobody")];
    let mut nowhere = ad("nowhere");
    nowhere.node_selectors = vec![on("node-z")];
    for (claims, ads, expected) in [
        (vec![idle], vec![ad("all")], Silence::NoEndpoints),
        (vec![claim("web")], vec![], Silence::NoAdvertisement),
        (vec![claim("web")], vec![other], Silence::NoAdvertisement),
        (vec![claim("web")], vec![nowhere], Silence::NoEligibleNode),
    ] {
        let outcome = hold(VIP, &three(), &claims, &ads, Options::default());
        assert_eq!(outcome.winner, Err(expected));
        assert!(order(&outcome).is_empty() && outcome.standings.len() == 3);
    }
}

#[test]
fn local_services_are_announced_where_their_endpoints_are() {
    let mut local = claim("local");
    local.local = true;
    local.hosting = hosting(&["node-b", "node-c"]);
    let outcome = hold(VIP, &three(), &[local], &[ad("all")], Options::default());
    assert_eq!((order(&outcome), excluded(&outcome, "node-a")), (vec!["node-c", "node-b"], &Exclusion::NoEndpoint));
}

#[test]
fn services_that_share_an_address_elect_one_node_that_serves_all_or_else_some() {
    let local = |name: &str, nodes: &[&str]| Claim { local: true, hosting: hosting(nodes), ..claim(name) };
    for (first, second, expected) in [
        (&["node-a", "node-b"][..], &["node-b", "node-c"][..], vec!["node-b"]),
        // No node serves both.
        (&["node-a"], &["node-c"], vec!["node-a", "node-c"]),
        // One that nobody could serve has no say.
        (&["node-b", "node-c"], &[], vec!["node-c", "node-b"]),
    ] {
        let outcome = hold(VIP, &three(), &[local("one", first), local("two", second)], &[ad("all")], Options::default());
        assert_eq!(order(&outcome), expected, "{first:?} {second:?}");
    }
    let outcome =
        hold(VIP, &three(), &[local("one", &["node-a", "node-b"]), local("two", &["node-b"])], &[ad("all")], Options::default());
    assert_eq!(excluded(&outcome, "node-a"), &Exclusion::ServesFewer);
}

#[test]
fn the_only_node_that_serves_all_may_be_gone() {
    let local = |name: &str, nodes: &[&str]| Claim { local: true, hosting: hosting(nodes), ..claim(name) };
    let mut runners = three();
    runners[1].presence = Presence::Absent;
    let claims = [local("one", &["node-a", "node-b"]), local("two", &["node-b", "node-c"])];
    assert_eq!(order(&hold(VIP, &runners, &claims, &[ad("all")], Options::default())), ["node-a", "node-c"]);
}

#[test]
fn advertisements_select_nodes_and_their_interfaces_add_up() {
    let mut first = ad("first");
    first.node_selectors = vec![on("node-b"), on("node-c")];
    first.interfaces = vec!["eth1".into()];
    let mut second = ad("second");
    second.node_selectors = vec![on("node-c")];
    second.interfaces = vec!["eth0".into(), "eth1".into()];
    let mut runners = three();
    for runner in &mut runners {
        runner.interfaces.as_mut().unwrap().push(eth("eth1", true, "192.168.1.0/24"));
    }
    let outcome = hold(VIP, &runners, &[claim("web")], &[first.clone(), second.clone()], Options::default());
    assert_eq!(excluded(&outcome, "node-a"), &Exclusion::NotSelected);
    let winner = outcome.winner.unwrap();
    assert_eq!((&*winner.node, winner.interfaces), ("node-c", Interfaces::Only(vec!["eth0".into(), "eth1".into()])));

    // MetalLB elects a node that lacks the interface, and nobody answers.
    runners[2].interfaces = Some(vec![eth("eth2", true, "192.168.1.0/24")]);
    let outcome = hold(VIP, &runners, &[claim("web")], &[first.clone(), second.clone()], Options::default());
    assert_eq!(excluded(&outcome, "node-c"), &Exclusion::NoInterface);
    assert!(outcome.is_won_by("node-b"));

    let outcome = hold(VIP, &runners, &[claim("web")], &[first, second, ad("all")], Options::default());
    assert_eq!(outcome.winner.unwrap().interfaces, Interfaces::All);
}

#[test]
fn preferences_come_before_the_hash_and_equal_advertisements_count_once_without_them() {
    let mut preferring = ad("preferring");
    preferring.preferences =
        vec![NodePreference { weight: 10, selector: on("node-c") }, NodePreference { weight: 4, selector: on("node-b") }];
    let ads = [preferring.clone(), preferring.clone(), ad("all")];
    let outcome = hold(VIP, &three(), &[claim("web")], &ads, Options::default());
    assert_eq!(order(&outcome), ["node-c", "node-b", "node-a"]);
    let refs: Vec<&Advertisement> = ads.iter().collect();
    assert_eq!(score(&refs, &three()[2].node.labels), 20, "preferences of equal ones add up");

    preferring.node_selectors = vec![on("node-a"), on("node-b")];
    let outcome = hold(VIP, &three(), &[claim("web")], &[preferring, ad("all")], Options::default());
    assert_eq!(order(&outcome), ["node-b", "node-a", "node-c"], "only of advertisements that select the node");
}

#[test]
fn a_vip_in_nobodys_subnet_is_announced_as_metallb_does() {
    assert_eq!(order(&hold("172.16.0.1", &three(), &[claim("web")], &[ad("all")], Options::default())).len(), 3);
}

#[test]
fn a_protected_vip_stays_and_a_restarting_holder_keeps_what_it_has() {
    let mut runners = three();
    runners[2].holds = Some(Holding { protected: true });
    let winner = simple(&runners).winner.unwrap();
    assert_eq!((&*winner.node, winner.reason), ("node-c", Reason::Protected));
    runners[2].presence = Presence::Grace;
    assert!(simple(&runners).is_won_by("node-c"));
    runners[2].presence = Presence::Absent;
    assert!(simple(&runners).is_won_by("node-a"), "its holder failed");
    runners[2].presence = Presence::Present;
    runners[2].holds = Some(Holding { protected: false });
    assert!(simple(&runners).is_won_by("node-a"));
    runners[0].presence = Presence::Grace;
    runners[0].holds = Some(Holding { protected: false });
    assert_eq!(simple(&runners).winner.unwrap().reason, Reason::First);
}

#[test]
fn protection_lasts_five_minutes_and_ends_once() {
    let now = Instant::now();
    let (first, second): (IpAddr, IpAddr) = (VIP.parse().unwrap(), "fc00::1".parse().unwrap());
    let mut tenures = Tenures::default();
    tenures.take(first, Arrival::Elected, now);
    tenures.take(second, Arrival::Inherited, now);
    tenures.take(second, Arrival::Elected, now + Duration::from_secs(1));
    assert_eq!(tenures.next_expiry(), Some(now + PROTECTION));
    assert!(!tenures.expire(now + PROTECTION - Duration::from_millis(1)));
    assert!(tenures.get(second).unwrap().protected_until.is_some() && tenures.get(first).unwrap().protected_until.is_none());
    assert!(tenures.expire(now + PROTECTION) && !tenures.expire(now + PROTECTION));
    assert!(tenures.give_up(first) && !tenures.give_up(first));
    assert_eq!(tenures.iter().len(), 1);
    tenures.resume(first, true, now);
    assert_eq!(tenures.next_expiry(), Some(now + PROTECTION));
    let gone = State::Gone { cause: crate::loadbalancer::membership::Cause::NodeGone, since: now };
    let arrivals = [None, Some(State::Alive), Some(State::Leaving), Some(gone)].map(Arrival::from_holder);
    assert_eq!(arrivals, [Arrival::Elected, Arrival::Elected, Arrival::Inherited, Arrival::Inherited]);
}

#[test]
fn usable_is_ready_or_serving_in_the_vips_family() {
    let endpoint = |node: Option<&str>, ready, serving| Endpoint {
        address: "10.0.0.1".parse().unwrap(),
        conditions: Conditions { ready, serving, terminating: !ready },
        node: node.map(Into::into),
        hints: None,
    };
    let slice = |family, endpoints: Vec<Endpoint>| EndpointSlice {
        key: ObjectKey::new("default", "slice"),
        service: ObjectKey::new("default", "web"),
        family,
        ports: Vec::new(),
        endpoints: endpoints.into(),
        trigger_time: None,
        problems: Vec::new(),
    };
    let slices = [
        slice(
            Family::V4,
            vec![endpoint(Some("a"), true, true), endpoint(Some("b"), false, true), endpoint(Some("c"), false, false)],
        ),
        slice(Family::V6, vec![endpoint(None, true, true)]),
    ];
    assert_eq!(Hosting::of(&slices, Family::V4), hosting(&["a", "b"]));
    assert_eq!(Hosting::of(&slices, Family::V6), Hosting { any: true, nodes: BTreeSet::new() });
    assert_eq!(Hosting::of(&[], Family::V6), Hosting::default());
}

proptest! {
    /// Acceptance of MetalLB's users: who is not the winner can go, and come, and be listed anywhere, and nothing moves.
    #[test]
    fn only_the_winner_matters(vip: u32, nodes in 1_usize..12, gone: u16, turn in 0_usize..12) {
        let vip = std::net::Ipv4Addr::from_bits(vip).to_string();
        let mut runners: Vec<Runner> = (0..nodes).map(|node| runner(&format!("node-{node}"))).collect();
        let before = hold(&vip, &runners, &[claim("web")], &[ad("all")], Options::default());
        let winner = before.winner.unwrap().node;
        runners.rotate_left(turn % nodes);
        for (index, runner) in runners.iter_mut().enumerate() {
            if gone & (1 << index) != 0 && runner.node.name != winner {
                runner.presence = Presence::Absent;
            }
        }
        let after = hold(&vip, &runners, &[claim("web")], &[ad("all")], Options::default());
        prop_assert_eq!(after.winner.unwrap().node, winner);
    }

    /// Whoever computes it, in whatever order the facts came in.
    #[test]
    fn all_nodes_agree(facts in proptest::collection::vec((0_u8..4, any::<bool>(), any::<bool>(), 0_u8..3), 1..8), turn in 0_usize..8) {
        let mut runners: Vec<Runner> = facts.iter().enumerate().map(|(index, &(presence, protected, holds, interface))| {
            let mut one = runner(&format!("node-{index}"));
            one.presence = [Presence::Present, Presence::Grace, Presence::Leaving, Presence::Absent][usize::from(presence)];
            one.holds = holds.then_some(Holding { protected });
            one.interfaces = [None, Some(vec![eth("eth0", true, "10.0.0.0/8")]), Some(vec![eth("eth0", true, "192.168.1.0/24")])][usize::from(interface)].clone();
            one
        }).collect();
        let one = simple(&runners);
        runners.rotate_left(turn % facts.len());
        let other = simple(&runners);
        prop_assert_eq!(&one.winner, &other.winner);
        prop_assert_eq!(order(&one), order(&other));
        for standing in &one.standings {
            if let Err(exclusion) = &standing.rank {
                prop_assert_eq!(excluded(&other, &standing.node), exclusion);
            }
        }
    }
}
