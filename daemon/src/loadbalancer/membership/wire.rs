//! What members say to each other, inside the seal.

use super::codec::Reader;
use super::ring::MemberId;

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) from: MemberId,
    /// For whom: one that is sent on to somebody else is refused there.
    pub(super) to: MemberId,
    /// To be answered with the same in `response`; 0 for none. Proves that a session is no recording.
    pub(super) challenge: u64,
    /// The answer; 0 for none.
    pub(super) response: u64,
    pub(super) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Beat(Beat),
    /// A piece of the sender's facts; with version 0, of what the receiver told in the life before its present one.
    Piece {
        version: u32,
        index: u16,
        count: u16,
        bytes: Box<[u8]>,
    },
}

/// I live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    /// Milliseconds on the sender's own clock.
    pub(super) sent: u64,
    /// Milliseconds until the next one to the same receiver, at most.
    pub(super) interval: u16,
    /// An answer is wanted at once.
    pub(super) ask: bool,
    pub(super) departure: Option<Departure>,
    /// Version of the receiver's facts that the sender has.
    pub(super) has: u32,
    /// What it has to say about others.
    pub(super) reports: Vec<Report>,
}

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Departure {
    /// It hands its VIPs over.
    Leave,
    /// It will be back within `daemonRestartGrace`: its VIPs stay.
    Restart,
}

/// What a member says about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) about: MemberId,
    pub(super) says: Says,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// I hear it, whoever accuses it.
    Heard,
    /// Neither its daemon nor its kernel answers me.
    Mute,
    /// Its port refuses.
    Refuses,
    /// Its kernel answers me, its daemon does not.
    KernelAnswers,
}

/// A message that makes no sense although it was sealed with our key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the message is malformed")]
pub struct WireError;

/// At most so many fit, with all else, in [`super::transfer::PIECE`] bytes.
pub(super) const MAX_REPORTS: usize = 100;
/// Pieces of one member's facts, at most.
const MAX_PIECES: u16 = 256;

const BEAT: u8 = 1;
const PIECE: u8 = 2;
const ASK: u8 = 1;
const LEAVE: u8 = 2;
const RESTART: u8 = 4;

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { from, to, challenge, response, body } = self;
        let mut bytes = Vec::with_capacity(64);
        for word in [from.0, to.0, *challenge, *response] {
            bytes.extend(word.to_be_bytes());
        }
        match body {
            Body::Beat(Beat { sent, interval, ask, departure, has, reports }) => {
                bytes.push(BEAT);
                bytes.extend(sent.to_be_bytes());
                bytes.extend(interval.to_be_bytes());
                let departure = match departure {
                    None => 0,
                    Some(Departure::Leave) => LEAVE,
                    Some(Departure::Restart) => RESTART,
                };
                bytes.push((u8::from(*ask) * ASK) | departure);
                bytes.extend(has.to_be_bytes());
                for Report { about, says } in reports.iter().take(MAX_REPORTS) {
                    bytes.extend(about.0.to_be_bytes());
                    bytes.push(says.code());
                }
            }
            Body::Piece { version, index, count, bytes: piece } => {
                bytes.push(PIECE);
                bytes.extend(version.to_be_bytes());
                bytes.extend(index.to_be_bytes());
                bytes.extend(count.to_be_bytes());
                bytes.extend(piece);
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::read(&mut Reader::new(bytes)).ok_or(WireError)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (from, to) = (MemberId(reader.u64()?), MemberId(reader.u64()?));
        let (challenge, response) = (reader.u64()?, reader.u64()?);
        let body = match reader.u8()? {
            BEAT => Body::Beat(Beat::read(reader)?),
            PIECE => {
                let (version, index, count) = (reader.u32()?, reader.u16()?, reader.u16()?);
                let sane = index < count && count <= MAX_PIECES;
                let bytes = reader.rest().into();
                sane.then_some(Body::Piece { version, index, count, bytes })?
            }
            _ => return None,
        };
        Some(Self { from, to, challenge, response, body })
    }
}

impl Beat {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (sent, interval) = (reader.u64()?, reader.u16()?);
        let (ask, departure) = match reader.u8()? {
            flags @ 0..=1 => (flags == ASK, None),
            flags @ 2..=3 => (flags & ASK != 0, Some(Departure::Leave)),
            flags @ 4..=5 => (flags & ASK != 0, Some(Departure::Restart)),
            _ => return None,
        };
        let has = reader.u32()?;
        let mut reports = Vec::new();
        while !reader.is_empty() {
            let about = MemberId(reader.u64()?);
            reports.push(Report { about, says: Says::of_code(reader.u8()?)? });
        }
        let sane = interval > 0 && reports.len() <= MAX_REPORTS;
        sane.then_some(Self { sent, interval, ask, departure, has, reports })
    }
}

impl Says {
    fn code(self) -> u8 {
        match self {
            Self::Heard => 0,
            Self::Mute => 1,
            Self::Refuses => 2,
            Self::KernelAnswers => 3,
        }
    }

    fn of_code(code: u8) -> Option<Self> {
        [Self::Heard, Self::Mute, Self::Refuses, Self::KernelAnswers].into_iter().find(|says| says.code() == code)
    }

    pub(super) fn accuses(self) -> bool {
        self != Self::Heard
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn body() -> impl Strategy<Value = Body> {
        let says = prop_oneof![Just(Says::Heard), Just(Says::Mute), Just(Says::Refuses), Just(Says::KernelAnswers)];
        let report = (any::<u64>(), says).prop_map(|(about, says)| Report { about: MemberId(about), says });
        let departure = prop_oneof![Just(None), Just(Some(Departure::Leave)), Just(Some(Departure::Restart))];
        let beat = (any::<u64>(), 1_u16.., any::<bool>(), departure, any::<u32>(), vec(report, 0..MAX_REPORTS));
        let beat = beat.prop_map(|(sent, interval, ask, departure, has, reports)| {
            Body::Beat(Beat { sent, interval, ask, departure, has, reports })
        });
        let piece = (any::<u32>(), 0..MAX_PIECES, vec(any::<u8>(), 0..50));
        let piece =
            piece.prop_map(|(version, index, bytes)| Body::Piece { version, index, count: MAX_PIECES, bytes: bytes.into() });
        prop_oneof![beat, piece]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(from: u64, to: u64, challenge: u64, response: u64, body in body()) {
            let message = Message { from: MemberId(from), to: MemberId(to), challenge, response, body };
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn nothing_that_comes_in_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
            let _ = super::super::Facts::decode(&bytes);
        }
    }
}
