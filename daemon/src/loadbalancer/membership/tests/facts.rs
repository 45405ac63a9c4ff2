//! What members tell of themselves arrives, whole and in its last version.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::world::{BAD, QUIET, World};
use crate::loadbalancer::membership::{Departure, Facts, FactsError, HandOver, Hold, NetworkInterface, State};

fn facts(vips: u32) -> Facts {
    let subnets = ["192.168.1.0/24", "fd00:1::/64"].map(|net| net.parse().unwrap()).to_vec();
    let hold = |vip: u32| Hold { vip: Ipv4Addr::from_bits(0x0a00_0000 + vip).into(), protected: vip.is_multiple_of(2) };
    Facts {
        interfaces: vec![NetworkInterface { name: "eth0".into(), hardware: Some([2, 0, 0, 0, 0, 1]), carrier: true, subnets }],
        holds: (0..vips).map(hold).collect(),
    }
}

#[test]
fn a_thousand_vips_arrive_everywhere() {
    for (network, limit) in [(QUIET, 50), (BAD, 5000)] {
        let mut world = World::new(5, network, 2);
        world.run_for(Duration::from_secs(3));
        for wanted in [facts(1000), facts(3), facts(0)] {
            world.act(2, |daemon, now| daemon.set_facts(&wanted, now).unwrap());
            let has = |world: &World, by| world.member(2, by).facts.as_deref() == Some(&wanted);
            let took = world.run_to(Duration::from_millis(limit), |world| [0, 1, 3, 4].iter().all(|&by| has(world, by)));
            assert!(took.is_some(), "{network:?}, {} VIPs", wanted.holds.len());
        }
    }
}

#[test]
fn what_was_overtaken_on_its_way_replaces_nothing() {
    for seed in 0..10 {
        let mut world = World::new(2, BAD, seed);
        world.run_for(Duration::from_secs(3));
        let mut seen = 0;
        for vips in 1..60 {
            world.act(0, |daemon, now| daemon.set_facts(&facts(vips * 5), now).unwrap());
            world.run_to(Duration::from_millis(20), |world| {
                let holds = world.member(0, 1).facts.map_or(0, |facts| facts.holds.len());
                assert!(holds >= seen, "seed {seed}: {seen} VIPs, then {holds}");
                seen = holds;
                false
            });
        }
        world.run_for(Duration::from_secs(3));
        assert_eq!(world.member(0, 1).facts.as_deref(), Some(&facts(59 * 5)), "seed {seed}");
    }
}

#[test]
fn whoever_comes_later_is_told_and_what_a_restarted_member_told_stands_until_it_tells_anew() {
    let mut world = World::new(3, QUIET, 2);
    world.act(0, |daemon, now| daemon.set_facts(&facts(7), now).unwrap());
    world.run_for(Duration::from_secs(1));
    world.kill(1);
    world.run_for(Duration::from_secs(1));
    world.start(1);
    world.run_for(Duration::from_millis(1100));
    assert_eq!(world.member(0, 1).facts.as_deref(), Some(&facts(7)));
    assert!(world.nodes[1].daemon.as_ref().unwrap().is_settled(world.now));
}

#[test]
fn a_restarted_daemon_hears_from_the_others_what_it_held() {
    for vips in [3, 2000] {
        let mut world = World::new(3, QUIET, 2);
        world.act(0, |daemon, now| daemon.set_facts(&facts(vips), now).unwrap());
        world.run_for(Duration::from_secs(1));
        world.kill(0);
        world.run_for(Duration::from_secs(1));
        world.start_silently(0);
        let remembers = |world: &World| world.nodes[0].daemon.as_ref().unwrap().remembered().cloned();
        let took = world.run_to(Duration::from_millis(100), |world| remembers(world).is_some());
        assert!(took.is_some(), "{vips} VIPs");
        assert_eq!(remembers(&world).as_deref(), Some(&facts(vips)));
        assert_eq!(world.member(0, 1).facts.as_deref(), Some(&facts(vips)), "the others go by it, too");
    }
    // After the grace what it held is others': nobody reminds it.
    let mut world = World::new(3, QUIET, 2);
    world.act(0, |daemon, now| daemon.set_facts(&facts(3), now).unwrap());
    world.run_for(Duration::from_secs(1));
    world.kill(0);
    world.run_for(Duration::from_secs(6));
    world.start_silently(0);
    world.run_for(Duration::from_secs(2));
    assert!(world.nodes[0].daemon.as_ref().unwrap().remembered().is_none());
}

#[test]
fn at_rest_nothing_is_told_again() {
    let mut world = World::new(3, QUIET, 2);
    world.act(0, |daemon, now| daemon.set_facts(&facts(2000), now).unwrap());
    world.run_for(Duration::from_secs(2));
    world.tap = Some(Vec::new());
    world.run_for(Duration::from_secs(10));
    let tape = world.tap.take().unwrap();
    assert!(tape.len() <= 3 * 2 * 101, "{} datagrams in ten seconds: more than beats", tape.len());
    assert!(tape.iter().all(|(_, _, datagram)| datagram.len() < 200));
}

#[test]
fn more_than_can_be_told_is_an_error() {
    let mut world = World::new(1, QUIET, 2);
    let huge = facts(60_000);
    world.act(0, |daemon, now| assert!(matches!(daemon.set_facts(&huge, now), Err(FactsError::TooLarge(_)))));
}

#[test]
fn a_hand_over_waits_for_every_vip_or_its_bound() {
    let vips: Vec<IpAddr> = facts(3).holds.iter().map(|hold| hold.vip).collect();
    let mut world = World::new(3, QUIET, 2);
    world.run_for(Duration::from_secs(1));
    let begin = world.now;
    let mut handover = HandOver::new(vips.clone(), begin, Duration::from_secs(2));
    let members = |world: &World| world.nodes[0].daemon.as_ref().unwrap().members().collect::<Vec<_>>();
    assert_eq!(handover.observe(&members(&world)), Vec::<IpAddr>::new());
    world.act(1, |daemon, now| daemon.set_facts(&facts(2), now).unwrap());
    world.run_for(Duration::from_millis(10));
    assert_eq!(handover.observe(&members(&world)), vips[..2]);
    assert!(!handover.is_over(world.now) && handover.is_over(begin + Duration::from_secs(2)));
    world.act(2, |daemon, now| daemon.set_facts(&facts(3), now).unwrap());
    world.run_for(Duration::from_millis(10));
    assert_eq!(handover.observe(&members(&world)), vips[2..]);
    assert!(handover.is_over(world.now));
    let _: Instant = handover.deadline();
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into())
    ]
}

proptest! {
    #[test]
    fn what_is_told_is_understood(
        holds in proptest::collection::vec((address(), any::<bool>()), 0..40),
        interfaces in proptest::collection::vec(("[a-z0-9.]{1,15}", any::<bool>(), proptest::collection::vec((address(), 0_u8..=32), 0..4)), 0..4),
    ) {
        let interface = |(name, carrier, subnets): (String, bool, Vec<(IpAddr, u8)>)| {
            let subnets = subnets.into_iter().map(|(address, prefix)| NetworkInterface::subnet(address, prefix).unwrap()).collect();
            NetworkInterface { name: name.into(), hardware: carrier.then_some([carrier.into(); 6]), carrier, subnets }
        };
        let facts = Facts {
            interfaces: interfaces.into_iter().map(interface).collect(),
            holds: holds.into_iter().map(|(vip, protected)| Hold { vip, protected }).collect(),
        };
        prop_assert_eq!(Facts::decode(&facts.encode().unwrap()), Ok(facts));
    }
}

#[test]
fn who_leaves_hears_who_has_taken_over() {
    let mut world = World::new(3, QUIET, 2);
    world.run_for(Duration::from_secs(2));
    world.act(1, |daemon, now| daemon.depart(Departure::Leave, now));
    world.run_for(Duration::from_millis(200));
    world.act(0, |daemon, now| daemon.set_facts(&facts(3), now).unwrap());
    let has = |world: &World| world.member(0, 1).facts.as_deref() == Some(&facts(3));
    assert!(world.run_to(Duration::from_millis(100), has).is_some());
}

/// While the one is cut off the other takes over from it: nobody may go by what was told before, not even for a moment.
#[test]
fn who_comes_back_is_asked_for_everything_anew() {
    for seed in 0..10 {
        let mut world = World::new(3, QUIET, seed);
        world.act(2, |daemon, now| daemon.set_facts(&facts(1), now).unwrap());
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.member(2, 0).facts.as_deref(), Some(&facts(1)));
        world.nodes[0].part = 1;
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.member(2, 0).facts.as_deref(), Some(&facts(1)), "for who takes over from it");
        world.act(2, |daemon, now| daemon.set_facts(&facts(2), now).unwrap());
        world.nodes[0].part = 0;
        let took = world.run_to(Duration::from_millis(1500), |world| {
            let member = world.member(2, 0);
            let alive = member.state == State::Alive;
            assert!(!alive || member.facts.as_deref() != Some(&facts(1)), "seed {seed}");
            alive && member.facts.is_some()
        });
        assert!(took.is_some(), "seed {seed}");
        assert_eq!(world.member(2, 0).facts.as_deref(), Some(&facts(2)), "seed {seed}");
    }
}
