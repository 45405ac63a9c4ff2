//! Netlink attributes: `{u16 length, u16 type, payload}` padded to four bytes (`include/uapi/linux/netlink.h`, `lib/nlattr.c`).
//!
//! Readers accept anything: a length that does not fit ends the walk, an attribute of the wrong size reads as absent.

/// Bytes of an attribute's header.
pub const HEADER: usize = 4;
/// The largest attribute, header included: its length is a `u16`.
pub const MAX: usize = u16::MAX as usize;

/// `NLA_F_NESTED`: the payload is attributes.
const NESTED: u16 = 1 << 15;
/// Everything of the type field that is not a flag (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// Rounds up to the alignment of messages and attributes.
#[must_use]
pub const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Its type, without the flags.
    pub kind: u16,
    /// Its payload, without the padding.
    pub payload: &'a [u8],
    /// Where its header begins, counted from the start of the bytes that were walked.
    pub offset: usize,
}

/// A walk over attributes. Ends at the first one whose length does not fit.
#[derive(Clone, Debug)]
pub struct Attrs<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The attributes of one nest by type, as the kernel's `nla_parse` gives them: the last of a type wins, types of `N` and above are
/// left out.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a, const N: usize>([Option<&'a [u8]>; N]);

impl<'a> Attrs<'a> {
    /// Walks `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether the walk, to its end, uses up all bytes but padding.
    #[must_use]
    pub fn is_well_formed(mut self) -> bool {
        while self.next().is_some() {}
        self.at >= self.bytes.len()
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let (length, kind) = (u16_at(rest, 0)?, u16_at(rest, 2)?);
        let payload = rest.get(HEADER..usize::from(length))?;
        let offset = self.at;
        self.at += align(usize::from(length));
        Some(Attr { kind: kind & TYPE_MASK, payload, offset })
    }
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Sorts the attributes of a nest by type.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut fields = [None; N];
        for attr in Attrs::new(bytes) {
            if let Some(field) = fields.get_mut(usize::from(attr.kind)) {
                *field = Some(attr.payload);
            }
        }
        Self(fields)
    }

    /// The payload of the attribute of this type.
    #[must_use]
    pub fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.get(usize::from(kind)).copied().flatten()
    }

    /// The nest of this type; an absent one is empty.
    #[must_use]
    pub fn nest<const M: usize>(&self, kind: u16) -> Fields<'a, M> {
        Fields::parse(self.bytes(kind).unwrap_or_default())
    }

    /// Walks the nest of this type in order; an absent one is empty.
    #[must_use]
    pub fn walk(&self, kind: u16) -> Attrs<'a> {
        Attrs::new(self.bytes(kind).unwrap_or_default())
    }

    /// One byte.
    #[must_use]
    pub fn u8(&self, kind: u16) -> Option<u8> {
        self.bytes(kind)?.first().copied()
    }

    /// A number in network order.
    #[must_use]
    pub fn u16_be(&self, kind: u16) -> Option<u16> {
        self.bytes(kind)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A number in network order, as nearly all of nf_tables' and conntrack's are.
    #[must_use]
    pub fn u32_be(&self, kind: u16) -> Option<u32> {
        self.bytes(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number in network order.
    #[must_use]
    pub fn u64_be(&self, kind: u16) -> Option<u64> {
        self.bytes(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// A number in host order, as netlink's own attributes are.
    #[must_use]
    pub fn u32_ne(&self, kind: u16) -> Option<u32> {
        self.bytes(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// A string, with or without its terminator. Absent when it is not UTF-8.
    #[must_use]
    pub fn text(&self, kind: u16) -> Option<&'a str> {
        let bytes = self.bytes(kind)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

/// Writes one attribute.
///
/// A payload above 65,531 bytes is cut there. The kernel knows no attribute of ours that may be so long (names end at 256 bytes,
/// userdata at 256, data at 64) and refuses the message, which is a better report than any of ours.
pub fn put(buffer: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let payload = &payload[..payload.len().min(MAX - HEADER)];
    buffer.extend_from_slice(&header(payload.len() + HEADER, kind));
    buffer.extend_from_slice(payload);
    pad(buffer);
}

/// Writes a string with its terminator: `NLA_NUL_STRING` demands one, `NLA_STRING` does not mind.
pub fn put_text(buffer: &mut Vec<u8>, kind: u16, text: &str) {
    let start = begin(buffer, kind);
    buffer.extend_from_slice(&text.as_bytes()[..text.len().min(MAX - HEADER - 1)]);
    buffer.push(0);
    patch(buffer, start, 0);
    pad(buffer);
}

/// Writes a number in network order.
pub fn put_u16_be(buffer: &mut Vec<u8>, kind: u16, value: u16) {
    put(buffer, kind, &value.to_be_bytes());
}

/// Writes a number in network order.
pub fn put_u32_be(buffer: &mut Vec<u8>, kind: u16, value: u32) {
    put(buffer, kind, &value.to_be_bytes());
}

/// Writes a number in network order.
pub fn put_u64_be(buffer: &mut Vec<u8>, kind: u16, value: u64) {
    put(buffer, kind, &value.to_be_bytes());
}

/// Writes a nest around what `inside` writes.
pub fn nest(buffer: &mut Vec<u8>, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
    let start = begin(buffer, kind);
    inside(buffer);
    end(buffer, start);
}

/// Opens a nest and says where it starts. Until [`end`] its length is that of an empty one.
pub fn begin(buffer: &mut Vec<u8>, kind: u16) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&header(HEADER, kind));
    start
}

/// Closes the nest that [`begin`] opened at `start`. Harmless to repeat while the nest grows.
pub fn end(buffer: &mut [u8], start: usize) {
    patch(buffer, start, NESTED);
}

fn patch(buffer: &mut [u8], start: usize, flags: u16) {
    let length = length_field(buffer.len() - start);
    buffer[start..start + 2].copy_from_slice(&length);
    let kind = u16::from_ne_bytes([buffer[start + 2], buffer[start + 3]]) | flags;
    buffer[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
}

fn pad(buffer: &mut Vec<u8>) {
    let padding = [0; 3];
    let odd = align(buffer.len()) - buffer.len();
    buffer.extend_from_slice(&padding[..odd]);
}

/// The head of a nest whose length, the head's own four bytes included, is known beforehand.
pub(crate) fn nest_header(length: usize, kind: u16) -> [u8; HEADER] {
    header(length, kind | NESTED)
}

/// In one piece: attributes are what a load consists of, and each append looks whether there is room.
pub(crate) fn header(length: usize, kind: u16) -> [u8; HEADER] {
    let ([low, high], [first, second]) = (length_field(length), kind.to_ne_bytes());
    [low, high, first, second]
}

/// A nest that outgrew its length field says the largest length; the kernel then refuses the message.
fn length_field(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
