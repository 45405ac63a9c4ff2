//! What comes in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng as _;

use super::super::facts::Facts;
use super::super::ring::MemberId;
use super::super::seal::{Header, Opener, SealError};
use super::super::wire::{Beat, Body, Message};
use super::{Change, Membership, Output};

/// So many datagrams of sessions unknown to us are opened in a second: 250 members that start at once stay far below it, and whoever
/// floods us with noise costs us 2,000 key derivations a second, about one percent of a core.
const STRANGERS: u32 = 2000;
/// No member can promise less than to be heard in this time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// Why a datagram did nothing. Each is counted; none of them is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// No datagram of ours: another protocol, another version, noise.
    #[error("it is no datagram of this protocol and version")]
    Foreign,
    /// The key is another one, or it was changed or cut on its way.
    #[error("it was not sealed with our key, or was changed on its way")]
    Forged,
    /// It comes from ourselves.
    #[error("it is one of our own that came back")]
    Looped,
    /// It was seen before, or is much older than the last one.
    #[error("it was received before")]
    Replayed,
    /// It is for another member, or pretends to be from one.
    #[error("it is meant for somebody else")]
    Misdirected,
    /// Its sender is in no roster of ours.
    #[error("its sender is not in the roster")]
    Stranger,
    /// Its sender has to prove first that it is no recording; it was asked to.
    #[error("its session is not proved yet")]
    Unproven,
    /// Too many of unknown sessions in this second.
    #[error("too many datagrams of unknown sessions")]
    Flood,
    /// Sealed by a member, and yet it makes no sense.
    #[error("its message is malformed")]
    Malformed,
}

impl Refused {
    /// As a label of a metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Forged => "forged",
            Self::Looped => "looped",
            Self::Replayed => "replayed",
            Self::Misdirected => "misdirected",
            Self::Stranger => "stranger",
            Self::Unproven => "unproven",
            Self::Flood => "flood",
            Self::Malformed => "malformed",
        }
    }
}

impl From<SealError> for Refused {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Foreign => Self::Foreign,
            SealError::Forged => Self::Forged,
        }
    }
}

impl Membership {
    /// A datagram that came in.
    ///
    /// # Errors
    /// Why it did nothing.
    pub fn receive(&mut self, datagram: &[u8], now: Instant) -> Result<(), Refused> {
        let header = Header::read(datagram)?;
        if header.session == self.session {
            return Err(Refused::Looped);
        }
        let known = self.sessions.get(&header.session).copied();
        let (message, opener) = match known.and_then(|id| self.open_known(id, header, datagram)) {
            Some(message) => (message?, None),
            None => {
                let (message, opener) = self.open_unknown(header, datagram, now)?;
                (message, Some(opener))
            }
        };
        let from = message.from;
        if message.to != self.own || from == self.own || known.is_some_and(|known| known != from) {
            return Err(Refused::Misdirected);
        }
        let proved = match opener {
            None => true,
            Some(opener) => self.prove(&message, header, opener)?,
        };
        let random = self.random.next_u64().max(1);
        let peer = self.peers.get_mut(&from).ok_or(Refused::Stranger)?;
        if !proved {
            if peer.challenge == 0 {
                peer.challenge = random;
            }
            if peer.may_answer_unproven(now) {
                peer.respond = message.challenge;
                self.send_beat(from, false, now);
            }
            return Err(Refused::Unproven);
        }
        // One that was overtaken says that the peer lived, and nothing newer.
        let overtaken = peer.window.is_behind(header.counter);
        if !peer.window.is_new(header.counter) {
            return Err(Refused::Replayed);
        }
        peer.respond = message.challenge;
        peer.is_heard(now);
        let answer = message.challenge != 0;
        let ask = match message.body {
            Body::Beat(beat) => {
                let ask = beat.ask;
                self.take_beat(from, beat, overtaken, now);
                ask
            }
            Body::Piece { version, index, count, bytes } => {
                self.take_piece(from, version, (index, count), &bytes, now);
                false
            }
        };
        if answer || ask {
            self.send_beat(from, false, now);
        }
        Ok(())
    }

    /// With what the session was opened with last; `None` if that does not open it, or is no key of ours any more.
    fn open_known(&self, id: MemberId, header: Header, datagram: &[u8]) -> Option<Result<Message, Refused>> {
        let (_, opener) = self.peers.get(&id)?.session.as_ref()?;
        let mut text = datagram.to_vec();
        let message = opener.with(&self.keys)?.open(header, &mut text).ok()?;
        Some(Message::decode(message).map_err(|_| Refused::Malformed))
    }

    fn open_unknown(&mut self, header: Header, datagram: &[u8], now: Instant) -> Result<(Message, Opener), Refused> {
        let (since, count) = &mut self.strangers;
        if now >= *since + Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > STRANGERS {
            return Err(Refused::Flood);
        }
        for key in &self.keys {
            let opener = Opener::new(key, header.session);
            // A failed attempt leaves nothing behind that another key could open.
            if let Ok(message) = opener.open(header, &mut datagram.to_vec()) {
                return Ok((Message::decode(message).map_err(|_| Refused::Malformed)?, opener));
            }
        }
        Err(Refused::Forged)
    }

    /// Whether a session opened anew may be believed: it has answered the challenge that we made for its sender, or it is the one that
    /// we believe and seals with another key since.
    fn prove(&mut self, message: &Message, header: Header, opener: Opener) -> Result<bool, Refused> {
        let peer = self.peers.get_mut(&message.from).ok_or(Refused::Stranger)?;
        if let Some((session, last)) = &mut peer.session
            && *session == header.session
        {
            *last = opener;
            return Ok(true);
        }
        let proved = message.response != 0 && message.response == peer.challenge;
        if proved {
            if let Some((last, _)) = &peer.session {
                self.sessions.remove(last);
            }
            let again = peer.session.is_some();
            peer.adopt(header.session, opener);
            self.sessions.insert(header.session, message.from);
            if again {
                self.send_memory(message.from);
            }
        }
        Ok(proved)
    }

    /// A proved member beats.
    fn take_beat(&mut self, from: MemberId, beat: Beat, overtaken: bool, now: Instant) {
        let Beat { sent, interval, ask: _, departure, has, reports } = beat;
        let ours = self.millis(now);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.lateness.arrived(sent, ours, now);
        if overtaken {
            return;
        }
        peer.interval = Duration::from_millis(interval.into()).clamp(self.options.heartbeat, LONGEST_INTERVAL);
        peer.outgoing.acknowledged = has;
        let news = peer.reports != reports;
        peer.reports = reports;
        let state = peer.state.after_beat(departure, now);
        let came = state != peer.state;
        self.change_state(from, state);
        if news || came {
            self.judge(now);
            self.beat(now);
        }
        if came || has == 0 {
            self.push_facts(now);
        }
    }

    fn take_piece(&mut self, from: MemberId, version: u32, (index, count): (u16, u16), bytes: &[u8], now: Instant) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if version == 0 {
            let whole = peer.memory.piece(version, index, count, bytes);
            // Whoever has told something in this life needs no memory of the last one.
            if self.facts_version == 0
                && self.remembered.is_none()
                && let Some(Ok(told)) = whole.map(|whole| Facts::decode(&whole))
            {
                self.remembered = Some(Arc::new(told));
                self.output.push_back(Output::Changed(Change::Remembered));
            }
            return;
        }
        if version <= peer.facts_version {
            // It was overtaken, or the peer has not heard that we have it: the next beat says so.
            peer.beat_at = now;
            return;
        }
        let Some(whole) = peer.incoming.piece(version, index, count, bytes) else { return };
        // Malformed facts are acknowledged all the same: they would not become better by being sent again.
        peer.facts_version = version;
        peer.beat_at = now;
        if let Ok(facts) = Facts::decode(&whole) {
            peer.facts = Some(Arc::new(facts));
            self.output.push_back(Output::Changed(Change::Facts { member: peer.name.clone() }));
        }
    }
}
