//! Datagrams that somebody else made, kept, cut or sent on.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{QUIET, World, key};
use crate::loadbalancer::membership::{KEY_BYTES, Key, Membership, Options, Refused, State};

/// Two that know each other, everything that was said between them, and a third that knows them.
fn recorded() -> (World, Vec<(usize, usize, Vec<u8>)>) {
    let mut world = World::new(3, QUIET, 5);
    world.tap = Some(Vec::new());
    world.run_for(Duration::from_secs(2));
    let tape = world.tap.take().unwrap();
    (world, tape)
}

fn receive(world: &mut World, at: usize, datagram: &[u8]) -> Result<(), Refused> {
    let now = world.now;
    world.nodes[at].daemon.as_mut().unwrap().receive(datagram, now)
}

#[test]
fn what_was_received_once_is_not_received_again_and_nowhere_else() {
    let (mut world, tape) = recorded();
    for (from, to, datagram) in tape {
        assert!(
            matches!(receive(&mut world, to, &datagram), Err(Refused::Replayed | Refused::Unproven)),
            "again to its receiver"
        );
        assert_eq!(receive(&mut world, from, &datagram), Err(Refused::Looped), "back to its sender");
        let elsewhere = 3 - from - to;
        assert_eq!(receive(&mut world, elsewhere, &datagram), Err(Refused::Misdirected), "to somebody else");
    }
}

#[test]
fn a_recording_makes_nobody_alive() {
    let (mut world, tape) = recorded();
    world.nodes[1].kernel = false;
    world.run_for(Duration::from_secs(2));
    assert!(matches!(world.state(1, 0), State::Gone { .. }));
    // The receiver has restarted: nothing of what it knew protects it.
    world.start(0);
    world.run_for(Duration::from_secs(2));
    for (_, _, datagram) in tape.iter().filter(|(from, to, _)| (*from, *to) == (1, 0)) {
        assert_eq!(receive(&mut world, 0, datagram), Err(Refused::Unproven));
        world.run_for(Duration::from_millis(5));
    }
    assert_eq!(world.state(1, 0), State::Unheard);
}

#[test]
fn a_recording_of_an_earlier_life_does_not_replace_the_present_one() {
    let (mut world, tape) = recorded();
    world.kill(1);
    world.run_for(Duration::from_secs(1));
    world.start(1);
    world.run_for(Duration::from_secs(1));
    for (_, _, datagram) in tape.iter().filter(|(from, to, _)| (*from, *to) == (1, 0)) {
        assert_eq!(receive(&mut world, 0, datagram), Err(Refused::Unproven));
    }
    world.run_for(Duration::from_secs(2));
    assert_eq!((world.state(1, 0), world.state(0, 1)), (State::Alive, State::Alive));
}

#[test]
fn unproved_sessions_get_few_answers_and_noise_costs_a_bounded_amount() {
    let (mut world, tape) = recorded();
    world.start(0);
    let now = world.now;
    let daemon = world.nodes[0].daemon.as_mut().unwrap();
    while daemon.poll().is_some() {}
    for (_, _, datagram) in tape.iter().filter(|(from, to, _)| (*from, *to) == (1, 0)) {
        let _ = daemon.receive(datagram, now);
    }
    assert_eq!(std::iter::from_fn(|| daemon.poll()).count(), 1, "one answer in 20 ms, however many were played");

    let (_, _, mut datagram) = tape.into_iter().next().unwrap();
    let mut outcomes = Vec::new();
    for number in 0..3000_u32 {
        datagram[4..8].copy_from_slice(&number.to_be_bytes());
        outcomes.push(daemon.receive(&datagram, now).unwrap_err());
    }
    let floods = outcomes.iter().filter(|&&outcome| outcome == Refused::Flood).count();
    assert!((900..1100).contains(&floods), "{floods}");
}

#[test]
fn another_key_another_roster() {
    let (mut world, _) = recorded();
    let now = world.now;
    let stranger = |keys: Vec<Key>| {
        let mut daemon = Membership::new("stranger", keys, Options::default(), [1; 32], now).unwrap();
        daemon.set_roster([("node-0".into(), "10.0.0.0:7946".parse().unwrap())], now);
        let Some(super::super::Output::Send { datagram, .. }) = daemon.poll() else { panic!("it greets") };
        datagram
    };
    let other = Key::new(&[9; KEY_BYTES]).unwrap();
    assert_eq!(receive(&mut world, 0, &stranger(vec![other])), Err(Refused::Forged));
    assert_eq!(receive(&mut world, 0, &stranger(vec![key()])), Err(Refused::Stranger));
}

#[test]
fn keys_are_changed_without_a_fault() {
    let (mut world, _) = recorded();
    let next = Key::new(&[9; KEY_BYTES]).unwrap();
    world.changes.clear();
    // All open both; then all seal with the new one; then the old one goes.
    for keys in [vec![key(), next], vec![next, key()], vec![next]] {
        for node in 0..3 {
            world.act(node, |daemon, _| daemon.set_keys(keys.clone()));
            world.run_for(Duration::from_millis(700));
        }
    }
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.changes, [], "nobody was silent for anybody");
}

proptest! {
    #[test]
    fn noise_and_damage_are_refused(place in 0_usize..200, flip in 1_u8.., noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut world, tape) = recorded();
        prop_assert!(receive(&mut world, 0, &noise).is_err());
        let (_, _, datagram) = tape.iter().find(|(from, to, _)| (*from, *to) == (1, 0)).unwrap();
        let mut damaged = datagram.clone();
        let place = place % damaged.len();
        damaged[place] ^= flip;
        prop_assert!(matches!(receive(&mut world, 0, &damaged), Err(Refused::Forged | Refused::Foreign)));
        prop_assert!(matches!(receive(&mut world, 0, &datagram[..place]), Err(Refused::Forged | Refused::Foreign)));
    }
}
