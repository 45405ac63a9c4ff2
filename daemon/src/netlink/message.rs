//! Netlink messages: `{u32 length, u16 type, u16 flags, u32 sequence, u32 port}`, then the payload; and the kernel's answers.

use super::attr::{self, Fields, u16_at, u32_at};

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Bytes of `struct nfgenmsg`, with which every nfnetlink payload begins.
pub const NFGENMSG: usize = 4;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

/// `NLMSGERR_ATTR_MSG` and `NLMSGERR_ATTR_OFFS` of `enum nlmsgerr_attrs`.
const ERROR_TEXT: u16 = 1;
const ERROR_OFFSET: u16 = 2;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: of a reply, that of the request.
    pub sequence: u32,
    /// `nlmsg_pid`: of a reply, the requester's port; of an nf_tables event, the port that caused it.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// A walk over the messages of one datagram. Ends at the first one whose length does not fit.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    bytes: &'a [u8],
}

/// An error or acknowledgement (`struct nlmsgerr` and its extended-ACK attributes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Zero, or a positive errno.
    pub errno: i32,
    /// Of the message it answers.
    pub sequence: u32,
    /// Where in that message, counted from its header, the offending attribute begins. Only with `NETLINK_EXT_ACK`.
    pub offset: Option<usize>,
    /// The kernel's words, when it has any.
    pub text: Option<String>,
}

impl<'a> Messages<'a> {
    /// Walks one datagram.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.bytes, 0)?).ok()?;
        let message = Message {
            kind: u16_at(self.bytes, 4)?,
            flags: u16_at(self.bytes, 6)?,
            sequence: u32_at(self.bytes, 8)?,
            port: u32_at(self.bytes, 12)?,
            payload: self.bytes.get(HEADER..length)?,
        };
        self.bytes = self.bytes.get(attr::align(length)..).unwrap_or_default();
        Some(message)
    }
}

impl<'a> Message<'a> {
    /// The address family of an nfnetlink payload.
    #[must_use]
    pub fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// The attributes behind `struct nfgenmsg`.
    #[must_use]
    pub fn attributes(&self) -> &'a [u8] {
        self.payload.get(NFGENMSG..).unwrap_or_default()
    }

    /// The attributes behind `struct nfgenmsg` by type.
    #[must_use]
    pub fn fields<const N: usize>(&self) -> Fields<'a, N> {
        Fields::parse(self.attributes())
    }

    /// The answer this message is, if it is one. The last message of a dump carries an error too, as its only number.
    #[must_use]
    pub fn acknowledgement(&self) -> Option<Acknowledgement> {
        match self.kind {
            NLMSG_ERROR => {
                let errno = errno_at(self.payload)?;
                let embedded = self.payload.get(4..)?;
                let length = usize::try_from(u32_at(embedded, 0)?).ok()?;
                // Capped or successful, the request is quoted by its header only.
                let quoted = if self.flags & NLM_F_CAPPED != 0 || errno == 0 { HEADER } else { attr::align(length) };
                let fields: Fields<'_, 3> = match embedded.get(quoted..) {
                    Some(attributes) if self.flags & NLM_F_ACK_TLVS != 0 => Fields::parse(attributes),
                    _ => Fields::parse(&[]),
                };
                Some(Acknowledgement {
                    errno,
                    sequence: self.sequence,
                    offset: fields.u32_ne(ERROR_OFFSET).and_then(|offset| usize::try_from(offset).ok()),
                    text: fields.text(ERROR_TEXT).map(str::to_owned),
                })
            }
            NLMSG_DONE => {
                let errno = errno_at(self.payload).unwrap_or(0);
                Some(Acknowledgement { errno, sequence: self.sequence, offset: None, text: None })
            }
            _ => None,
        }
    }
}

fn errno_at(payload: &[u8]) -> Option<i32> {
    let number = i32::from_ne_bytes(payload.get(..4)?.try_into().ok()?);
    Some(number.checked_neg().unwrap_or(i32::MAX).max(0))
}

/// Opens an nfnetlink message and says where it starts. Until [`end`] its length is that of an empty one.
pub fn begin(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, resource: u16) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[20, 0, 0, 0]);
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&[0; 4]); // nlmsg_pid: the kernel takes it from the socket
    buffer.extend_from_slice(&[family, 0]);
    buffer.extend_from_slice(&resource.to_be_bytes());
    end(buffer, start);
    start
}

/// Closes the message that [`begin`] opened at `start`. Harmless to repeat while the message grows.
pub fn end(buffer: &mut [u8], start: usize) {
    let length = u32::try_from(buffer.len() - start).unwrap_or(u32::MAX);
    buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// Changes the flags of the message at `start`.
pub(crate) fn set_flags(buffer: &mut [u8], start: usize, change: impl FnOnce(u16) -> u16) {
    if let Some(field) = buffer.get_mut(start + 6..start + 8) {
        let flags = change(u16::from_ne_bytes([field[0], field[1]]));
        field.copy_from_slice(&flags.to_ne_bytes());
    }
}
