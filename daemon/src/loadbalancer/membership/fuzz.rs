//! Datagrams and what is inside of them, as functions of any bytes: see [`crate::loadbalancer::fuzz`].

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::facts::Facts;
use super::ring::MemberId;
use super::seal::{Header, KEY_BYTES, Key, Opener, Sealer, Session};
use super::wire::{Beat, Body, Message};
use super::{DEFAULT_PORT, Membership, Options, Output, Refused};

/// Names of two members.
const US: &str = "a";
const THEM: &str = "b";

/// A datagram that came in, whoever sent it: without our key it changes nothing. With it, a session that is not proved counts for
/// nothing either.
///
/// # Panics
/// That is a finding.
pub fn fuzz_datagram(datagram: &[u8]) {
    let Some((mut member, now)) = member() else { return };
    assert!(member.receive(datagram, now).is_err(), "it was taken at its word");
    settle(&mut member, now);
}

/// What a proved member says, inside of the seal: it is understood, or refused as malformed; and what is understood can be written
/// again.
///
/// # Panics
/// That is a finding.
pub fn fuzz_sealed(said: &[u8]) {
    if let Ok(message) = Message::decode(said) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    let Some((mut member, now)) = member() else { return };
    let mut sealer = Sealer::new(&key(), Session([9; 16]));
    let Some(challenge) = introduced(&mut member, &mut sealer, now) else { return };
    let mut message = Vec::new();
    for word in [MemberId::of(THEM).0, MemberId::of(US).0, 0, challenge] {
        message.extend(word.to_be_bytes());
    }
    message.extend(said);
    let outcome = member.receive(&sealer.seal(&message), now);
    assert!(matches!(outcome, Ok(()) | Err(Refused::Malformed)), "{outcome:?}");
    settle(&mut member, now);
}

/// Facts of a member, put together from its pieces.
///
/// # Panics
/// That is a finding.
pub fn fuzz_facts(bytes: &[u8]) {
    if let Ok(facts) = Facts::decode(bytes)
        && let Ok(encoded) = facts.encode()
    {
        assert_eq!(Facts::decode(&encoded), Ok(facts));
    }
}

fn key() -> Key {
    Key::new(&[7; KEY_BYTES]).expect("it has as many bytes as a key")
}

/// One that knows another, of which it has heard nothing.
fn member() -> Option<(Membership, Instant)> {
    let now = Instant::now();
    let mut member = Membership::new(US, vec![key()], Options::default(), [1; 32], now)?;
    member.set_roster([(THEM.into(), SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))], now);
    Some((member, now))
}

/// The other one says that it is there, and is asked to prove it: with this number.
fn introduced(member: &mut Membership, sealer: &mut Sealer, now: Instant) -> Option<u64> {
    let body = Body::Beat(Beat { interval: 100, ..Beat::default() });
    let beat = Message { from: MemberId::of(THEM), to: MemberId::of(US), challenge: 1, response: 0, body };
    assert_eq!(member.receive(&sealer.seal(&beat.encode()), now), Err(Refused::Unproven));
    let answers = std::iter::from_fn(|| member.poll()).filter_map(|output| match output {
        Output::Send { mut datagram, .. } => {
            let header = Header::read(&datagram).ok()?;
            let message = Message::decode(Opener::new(&key(), header.session).open(header, &mut datagram).ok()?).ok()?;
            Some(message.challenge).filter(|challenge| *challenge != 0)
        }
        Output::Probe { .. } | Output::Changed(_) => None,
    });
    answers.last()
}

/// Time goes on, and everything that follows is said.
fn settle(member: &mut Membership, now: Instant) {
    for milliseconds in [0, 100, 1_000, 10_000] {
        member.tick(now + Duration::from_millis(milliseconds));
        let said = std::iter::from_fn(|| member.poll()).count();
        assert!(said < 10_000, "one datagram makes it say {said} things");
    }
    assert_eq!(member.members().count(), 1, "nobody joins who is not in the roster");
}

/// What a member sends on the wire, and its facts, for who changes bytes of them.
#[cfg(test)]
pub(in crate::loadbalancer) fn samples() -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<u8>) {
    use super::facts::{Hold, NetworkInterface};
    use super::wire::{Report, Says};

    let facts = Facts {
        interfaces: vec![NetworkInterface {
            name: "eth0".into(),
            hardware: Some([2, 0, 0, 0, 0, 1]),
            carrier: true,
            subnets: ["192.168.0.1/24", "fd00::1/64"].iter().map(|net| net.parse().unwrap()).collect(),
        }],
        holds: vec![
            Hold { vip: [192, 168, 0, 240].into(), protected: true },
            Hold { vip: "fd00::f0".parse().unwrap(), protected: false },
        ],
    };
    let blob = facts.encode().unwrap();
    let reports = vec![Report { about: MemberId::of("c"), says: Says::Mute }];
    let beat = Beat { sent: 5, interval: 100, ask: true, departure: None, has: 1, reports };
    let pieces = [(1, 0, 1), (0, 0, 1), (2, 1, 3)];
    let pieces = pieces.map(|(version, index, count)| Body::Piece { version, index, count, bytes: blob.clone().into() });
    let messages = [Body::Beat(Beat { interval: 100, ..Beat::default() }), Body::Beat(beat)].into_iter().chain(pieces);
    let message = |body| Message { from: MemberId::of(THEM), to: MemberId::of(US), challenge: 3, response: 4, body }.encode();
    let whole: Vec<Vec<u8>> = messages.map(message).collect();
    let mut sealer = Sealer::new(&key(), Session([9; 16]));
    let datagrams = whole.iter().map(|message| sealer.seal(message)).collect();
    // Behind the head of a message: what `fuzz_sealed` puts there itself. And whole, which it decodes.
    let said = whole.iter().map(|message| message[32..].to_vec()).chain(whole.iter().cloned()).collect();
    (datagrams, said, blob)
}
