use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::*;
use crate::loadbalancer::membership::fuzz::samples;

const CASES: u32 = 2_000;
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// What happens to bytes on their way, or is done to them.
#[derive(Clone, Debug)]
enum Harm {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
    Swap(Index, Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        4 => (any::<Index>(), select(vec![0, 1, 2, 0x7f, 0x80, 0xfe, 0xff])).prop_map(|(at, byte)| Harm::Set(at, byte)),
        2 => any::<Index>().prop_map(Harm::Cut),
        2 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Harm::Repeat(from, to)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Harm::Swap(a, b)),
    ]
}

fn harmed(mut bytes: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        let length = bytes.len();
        if !(1..4096).contains(&length) {
            return bytes;
        }
        match harm {
            Harm::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Harm::Set(at, byte) => bytes[at.index(length)] = *byte,
            Harm::Cut(at) => bytes.truncate(at.index(length)),
            Harm::Insert(at, more) => drop(bytes.splice(at.index(length)..at.index(length), more.iter().copied())),
            Harm::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(piece);
            }
            Harm::Swap(a, b) => bytes.swap(a.index(length), b.index(length)),
        }
    }
    bytes
}

/// Real bytes as they are, then changed ones, and bytes of no sense at all.
fn drive(target: fn(&[u8]), seeds: Vec<Vec<u8>>) {
    seeds.iter().for_each(|seed| target(seed));
    let changed = (select(seeds), prop::collection::vec(harm(), 1..6)).prop_map(|(seed, harms)| harmed(seed, &harms));
    let strategy = prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..256)];
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |bytes| {
        target(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

fn of_kind(kind: Kind, object: &impl ToString) -> Vec<u8> {
    let place = KINDS.iter().position(|known| *known == kind).expect("it is one of them");
    let mut bytes = vec![u8::try_from(place).unwrap()];
    bytes.extend(object.to_string().into_bytes());
    bytes
}

#[test]
fn frames_of_arp() {
    let ip = Ipv4Addr::new(10, 0, 0, 240);
    let [request, reply] = arp::gratuitous(ip, THEIRS);
    let asked = arp::Packet::parse(&request).unwrap().1.answer(THEIRS);
    drive(fuzz_arp, vec![request.to_vec(), reply.to_vec(), arp::probe(ip, THEIRS).to_vec(), asked.to_vec()]);
}

#[test]
fn frames_of_neighbour_discovery() {
    let ip: Ipv6Addr = "2001:db8::f0".parse().unwrap();
    let probe = ndp::probe(ip, THEIRS);
    let answer = ndp::Message::parse(&probe).unwrap().1.answer(THEIRS, ip, THEIRS);
    let told = ndp::unsolicited(ip, THEIRS, "fe80::2".parse().unwrap());
    drive(fuzz_ndp, vec![probe.to_vec(), answer.to_vec(), told.to_vec()]);
}

#[test]
fn datagrams_before_they_are_opened() {
    drive(fuzz_datagram, samples().0);
}

#[test]
fn what_members_say() {
    drive(fuzz_sealed, samples().1);
}

#[test]
fn facts_of_members() {
    drive(fuzz_facts, vec![samples().2]);
}

#[test]
fn addresses_of_pools() {
    let texts =
        ["10.0.0.0/24", "10.0.0.1-10.0.0.9", "fd00::/120", "fd00::1 - fd00::ff", "10.0.0.9-10.0.0.1", "::ffff:10.0.0.1/128"];
    drive(fuzz_pool_addresses, texts.iter().map(|text| text.as_bytes().to_vec()).collect());
}

#[test]
fn annotations_and_selectors() {
    let texts = ["10.9.0.1", "10.9.0.1,fd00::1", "p", "key", "10.9.0.1, 10.9.0.2", "kubernetes.io/hostname", ""];
    let of = |which: u8| texts.iter().map(move |text| [&[which], text.as_bytes()].concat());
    drive(fuzz_service_wish, (0..6).flat_map(of).collect());
}

#[test]
fn objects() {
    let metadata = json!({ "name": "x", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z" });
    let selector =
        json!([{ "matchLabels": { "a": "b" }, "matchExpressions": [{ "key": "c", "operator": "NotIn", "values": ["d"] }] }]);
    let service = json!({
        "metadata": { "name": "x", "namespace": "n", "uid": "u", "labels": { "a": "b" }, "annotations": { "metallb.io/allow-shared-ip": "k" } },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "PreferDualStack", "loadBalancerIP": "10.9.0.1", "externalTrafficPolicy": "Local",
            "ports": [{ "name": "a", "port": 80, "protocol": "UDP", "nodePort": 30000 }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": "10.9.0.1", "ipMode": "VIP" }] } },
    });
    let pool = json!({
        "metadata": metadata,
        "spec": {
            "addresses": ["10.9.0.0/29"], "autoAssign": false, "avoidBuggyIPs": true,
            "serviceAllocation": { "priority": 5, "namespaces": ["n"], "namespaceSelectors": selector, "serviceSelectors": selector },
        },
        "status": { "assignedIPv4": 1, "availableIPv4": 7, "assignedIPv6": 0, "availableIPv6": 0 },
    });
    let advertisement = json!({
        "metadata": metadata,
        "spec": { "ipAddressPools": ["x"], "ipAddressPoolSelectors": selector, "nodeSelectors": selector, "interfaces": ["eth0"] },
    });
    let peer = json!({
        "metadata": { "name": "x", "labels": { "a": "b" } }, "spec": { "unschedulable": true },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }], "conditions": [{ "type": "NetworkUnavailable", "status": "True" }],
        },
    });
    drive(
        fuzz_object,
        vec![
            of_kind(Kind::Service, &service),
            of_kind(Kind::ForeignService, &service),
            of_kind(Kind::AddressPool, &pool),
            of_kind(Kind::Advertisement, &advertisement),
            of_kind(Kind::Peer, &peer),
            of_kind(Kind::Namespace, &json!({ "metadata": { "name": "n", "labels": { "a": "b" } } })),
        ],
    );
}
