//! What is sent, to whom, and when.

use std::time::Instant;

use rand::Rng as _;

use super::super::ring::{MemberId, watchers};
use super::super::transfer::pieces;
use super::super::wire::{Beat, Body, MAX_REPORTS, Message, Report};
use super::{Membership, Output};

/// How often what was said about others is said to everybody: a datagram in twenty may be lost, three of three hardly are.
const REPEATS: u8 = 3;

impl Membership {
    /// Sends the beats that are due.
    pub(super) fn beat(&mut self, now: Instant) {
        let reports = self.reports_now(now);
        if reports != self.reports {
            self.reports = reports;
            self.say_to_all(now);
        }
        if self.repeats > 0 && self.repeat_at <= now {
            self.repeats -= 1;
            self.repeat_at = now + self.options.heartbeat / 4;
            for peer in self.peers.values_mut() {
                peer.beat_at = now;
            }
        }
        let due: Vec<MemberId> = self.peers.iter().filter(|(_, peer)| peer.beat_at <= now).map(|(&id, _)| id).collect();
        for id in due {
            let next = now + self.interval_to(id);
            self.send_beat(id, false, now);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.beat_at = next;
            }
        }
    }

    /// Everybody hears of us at once, and twice more.
    pub(super) fn say_to_all(&mut self, now: Instant) {
        self.repeats = REPEATS;
        // Not at once again if the last time was just now: whoever flaps must not make us flood.
        self.repeat_at = self.repeat_at.max(now);
    }

    /// What we have to say about others.
    fn reports_now(&self, now: Instant) -> Vec<Report> {
        let members = self.peers.iter().filter(|(_, peer)| peer.state.is_member() || peer.silent.is_some());
        let words = members.filter_map(|(&about, peer)| Some(Report { about, says: peer.word(&self.options, now)? }));
        words.take(MAX_REPORTS).collect()
    }

    pub(super) fn send_beat(&mut self, to: MemberId, ask: bool, now: Instant) {
        if let Some((to, datagram)) = self.beat_for(to, ask, now) {
            self.output.push_back(Output::Send { to, datagram });
        }
    }

    pub(super) fn beat_for(&mut self, to: MemberId, ask: bool, now: Instant) -> Option<(std::net::SocketAddr, Vec<u8>)> {
        let interval = self.interval_to(to);
        let sent = self.millis(now);
        let peer = self.peers.get_mut(&to)?;
        if peer.session.is_none() && peer.challenge == 0 {
            peer.challenge = self.random.next_u64().max(1);
        }
        let beat = Beat {
            sent,
            interval: u16::try_from(interval.as_millis()).unwrap_or(u16::MAX),
            ask,
            departure: self.departure,
            has: peer.facts_version,
            reports: self.reports.clone(),
        };
        let (challenge, response) = (peer.challenge, std::mem::take(&mut peer.respond));
        let address = peer.address;
        let message = Message { from: self.own, to, challenge, response, body: Body::Beat(beat) };
        Some((address, self.sealer.seal(&message.encode())))
    }

    pub(super) fn send_facts(&mut self, to: MemberId) {
        let Some(peer) = self.peers.get(&to) else { return };
        for (index, count, bytes) in pieces(&self.facts) {
            let body = Body::Piece { version: self.facts_version, index, count, bytes: bytes.into() };
            let message = Message { from: self.own, to, challenge: peer.challenge, response: 0, body };
            let datagram = self.sealer.seal(&message.encode());
            self.output.push_back(Output::Send { to: peer.address, datagram });
        }
    }

    /// A member that has begun a new life hears what it told in the last one, from those that watched it: so it takes up what it held
    /// without asking anybody else.
    pub(super) fn send_memory(&mut self, to: MemberId) {
        let ring = self.ring();
        let watched = watchers(&ring, to, self.options.watchers).any(|watcher| watcher == self.own);
        let Some(peer) = self.peers.get(&to).filter(|peer| watched && peer.state.is_member()) else { return };
        let Some(Ok(told)) = peer.facts.as_ref().map(|facts| facts.encode()) else { return };
        for (index, count, bytes) in pieces(&told) {
            let body = Body::Piece { version: 0, index, count, bytes: bytes.into() };
            let message = Message { from: self.own, to, challenge: 0, response: 0, body };
            let datagram = self.sealer.seal(&message.encode());
            self.output.push_back(Output::Send { to: peer.address, datagram });
        }
    }
}
