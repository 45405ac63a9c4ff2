//! Facts are larger than a datagram: they travel in pieces, and count once all pieces of one version are there.

use std::time::Instant;

/// Bytes of one piece: with everything around it, below the smallest MTU that IPv6 allows (1,280).
pub(super) const PIECE: usize = 1000;
/// The most that is put together.
pub(super) const MAX_BLOB: usize = 256 * PIECE;

/// Where one peer stands with what we tell.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The version that it has.
    pub(super) acknowledged: u32,
    /// When it is told again; `None`: at once.
    pub(super) again: Option<Instant>,
}

/// What one peer tells, as far as it has arrived.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    version: u32,
    /// By index; `None` has not arrived.
    pieces: Vec<Option<Box<[u8]>>>,
}

impl Incoming {
    /// Another piece. Gives the whole when it was the last one missing. A peer that contradicts itself about the number of pieces
    /// begins anew; pieces of an earlier version were overtaken.
    pub(super) fn piece(&mut self, version: u32, index: u16, count: u16, bytes: &[u8]) -> Option<Vec<u8>> {
        if version < self.version {
            return None;
        }
        if self.version != version || self.pieces.len() != usize::from(count) {
            *self = Self { version, pieces: vec![None; usize::from(count)] };
        }
        *self.pieces.get_mut(usize::from(index))? = Some(bytes.into());
        let whole: Option<Vec<_>> = self.pieces.iter().map(Option::as_deref).collect();
        let whole = whole?.concat();
        *self = Self::default();
        Some(whole)
    }
}

/// The pieces of some facts, with index and count.
pub(super) fn pieces(blob: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    let count = u16::try_from(blob.len().div_ceil(PIECE)).unwrap_or(u16::MAX);
    (0..count).zip(blob.chunks(PIECE)).map(move |(index, piece)| (index, count, piece))
}
