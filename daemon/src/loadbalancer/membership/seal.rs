//! Every datagram is encrypted and authenticated with a key that all members share.
//!
//! ```text
//! 0        2         3          4                20            28
//! | 's' 'v' | version | reserved | session (16)   | counter (8) | ciphertext, tag (16) |
//!   `----------------- authenticated, in the clear -----------'
//! ```
//! A sender draws a random session when it starts, and its key is derived from the shared one and the session (HKDF-SHA256), so a
//! counter that begins at 1 never makes a nonce twice (ChaCha20-Poly1305, RFC 8439). What was sealed before is recognised by the
//! counter (a window of 128, as in RFC 6479); that a *session* is no recording is proved by an answer to a challenge
//! ([`super::core`]).

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

/// Bytes of the shared key.
pub const KEY_BYTES: usize = 32;

/// The key that all members share. Two while it is changed: sealed is with the first, opened with either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

/// One life of a sender, random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; 16]);

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(super) enum SealError {
    #[error("it is no datagram of ours, or of another version")]
    Foreign,
    #[error("it was not sealed with our key, or was changed on its way")]
    Forged,
}

/// Seals what one session sends.
pub(super) struct Sealer {
    session: Session,
    key: LessSafeKey,
    counter: u64,
}

/// Opens what one session sends, as long as the shared key that it comes from is one of ours.
pub(super) struct Opener {
    shared: Key,
    key: LessSafeKey,
}

/// Which counters of a session were seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u128,
}

/// The clear part of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) session: Session,
    pub(super) counter: u64,
}

const MAGIC: [u8; 4] = *b"sv\x01\x00";
const HEADER: usize = 28;
const INFO: &[&[u8]] = &[b"sheave membership 1"];

impl Key {
    /// Of the bytes in the Secret. Longer ones are not cut: whoever pasted them meant something else.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn of_session(&self, session: Session) -> LessSafeKey {
        let secret = Salt::new(HKDF_SHA256, &session.0).extract(&self.0);
        let derived = secret.expand(INFO, &CHACHA20_POLY1305).expect("32 bytes are within what HKDF can give");
        LessSafeKey::new(UnboundKey::from(derived))
    }
}

impl std::fmt::Debug for Key {
    /// Never its bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("session", &self.session).field("counter", &self.counter).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

impl Sealer {
    pub(super) fn new(key: &Key, session: Session) -> Self {
        Self { session, key: key.of_session(session), counter: 0 }
    }

    /// Another key from now on; the counter goes on.
    pub(super) fn rekey(&mut self, key: &Key) {
        self.key = key.of_session(self.session);
    }

    pub(super) fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let mut datagram = Vec::with_capacity(HEADER + message.len() + CHACHA20_POLY1305.tag_len());
        datagram.extend(MAGIC);
        datagram.extend(self.session.0);
        datagram.extend(self.counter.to_be_bytes());
        let mut text = message.to_vec();
        let aad = Aad::from(datagram.clone());
        self.key
            .seal_in_place_append_tag(nonce(self.counter), aad, &mut text)
            .expect("a datagram is shorter than what the cipher can take");
        datagram.extend(text);
        datagram
    }
}

impl Header {
    pub(super) fn read(datagram: &[u8]) -> Result<Self, SealError> {
        let header: &[u8; HEADER] = datagram.first_chunk().ok_or(SealError::Foreign)?;
        let (magic, rest) = header.split_at(MAGIC.len());
        let (session, counter) = rest.split_at(16);
        match (session.try_into(), counter.try_into()) {
            (Ok(session), Ok(counter)) if magic == MAGIC => {
                Ok(Self { session: Session(session), counter: u64::from_be_bytes(counter) })
            }
            _ => Err(SealError::Foreign),
        }
    }
}

impl Opener {
    pub(super) fn new(key: &Key, session: Session) -> Self {
        Self { shared: *key, key: key.of_session(session) }
    }

    /// Itself, if its key still counts.
    pub(super) fn with(&self, keys: &[Key]) -> Option<&Self> {
        keys.contains(&self.shared).then_some(self)
    }

    /// The message, in place.
    pub(super) fn open<'a>(&self, header: Header, datagram: &'a mut [u8]) -> Result<&'a [u8], SealError> {
        let (clear, text) = datagram.split_at_mut_checked(HEADER).ok_or(SealError::Foreign)?;
        let message = self.key.open_in_place(nonce(header.counter), Aad::from(clear), text);
        message.map(|message| &*message).map_err(|_| SealError::Forged)
    }
}

impl Window {
    /// Whether a later one was seen.
    pub(super) fn is_behind(&self, counter: u64) -> bool {
        counter < self.highest
    }

    /// Takes note of a counter; false if it was seen, or is older than the window.
    pub(super) fn is_new(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter - self.highest;
            let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = counter;
            return true;
        }
        let behind = self.highest - counter;
        if behind >= u64::from(u128::BITS) || counter == 0 {
            return false;
        }
        let bit = 1 << behind;
        let new = self.seen & bit == 0;
        self.seen |= bit;
        new
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new(&[7; KEY_BYTES]).unwrap()
    }

    fn open(key: &Key, datagram: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut datagram = datagram.to_vec();
        let header = Header::read(&datagram)?;
        Opener::new(key, header.session).open(header, &mut datagram).map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_sealed_opens_and_any_changed_or_missing_byte_is_noticed() {
        let sealed = Sealer::new(&key(), Session([1; 16])).seal(b"words");
        assert_eq!(open(&key(), &sealed).unwrap(), b"words");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(open(&key(), &changed).is_err(), "byte {place} changed");
            assert!(open(&key(), &sealed[..place]).is_err(), "cut to {place}");
        }
        let other = Key::new(&[8; KEY_BYTES]).unwrap();
        assert_eq!(open(&other, &sealed), Err(SealError::Forged));
    }

    #[test]
    fn a_key_has_32_bytes_and_is_never_printed() {
        assert_eq!((Key::new(&[0; 31]), Key::new(&[0; 33])), (None, None));
        assert_eq!(format!("{:?}", key()), "Key(..)");
    }

    #[test]
    fn a_counter_counts_once_and_may_come_late_by_127() {
        let mut window = Window::default();
        assert!(!window.is_new(0), "no sender counts from 0");
        for (counter, expected) in
            [(1, true), (1, false), (3, true), (2, true), (2, false), (130, true), (3, false), (4, true), (2, false), (4, false)]
        {
            assert_eq!(window.is_new(counter), expected, "{counter}");
        }
        assert!(window.is_new(u64::MAX));
        assert!(!window.is_new(130));
    }
}
