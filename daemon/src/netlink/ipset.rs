//! ipset (`net/netfilter/ipset`), as far as somebody needs it who has no sets of his own: which there are, and the end of one.

use std::collections::BTreeSet;
use std::io;

use super::attr;
use super::message::{Acknowledgement, Message, NLM_F_ACK, NLM_F_DUMP};
use super::socket::{DATAGRAM, NetfilterSocket, RequestError, single};
use crate::netlink::attr::Fields;

/// `NFNL_SUBSYS_IPSET`
const SUBSYSTEM: u16 = 6;
/// `enum ipset_cmd`
const DESTROY: u16 = SUBSYSTEM << 8 | 3;
const LIST: u16 = SUBSYSTEM << 8 | 7;
/// `IPSET_PROTOCOL_MIN`: every kernel's.
const PROTOCOL: u8 = 6;
/// `IPSET_FLAG_LIST_SETNAME`: names, not members.
const NAMES_ONLY: u32 = 1 << 1;
/// `IPSET_ERR_BUSY`: a rule or another set refers to it.
const BUSY: i32 = 4100;

/// `enum ipset_attr` of commands.
mod field {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const FLAGS: u16 = 6;
    pub(super) const MEMBERS: u16 = 8;
    pub(super) const MEMBER_PORT: u16 = 4;
}

/// ipset of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Ipset {
    socket: NetfilterSocket,
    datagram: Vec<u8>,
}

/// Why a question about sets was not answered, or a set is still there.
#[derive(Debug, thiserror::Error)]
#[error("{call} {subject}: {source}")]
pub struct IpsetError {
    call: &'static str,
    subject: String,
    #[source]
    source: io::Error,
}

impl Ipset {
    /// Opens the door of this thread's network namespace.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open() -> Result<Self, IpsetError> {
        let failed = |source| IpsetError { call: "open netfilter socket", subject: "for ipset".to_owned(), source };
        Ok(Self { socket: NetfilterSocket::open().map_err(failed)?, datagram: vec![0; DATAGRAM] })
    }

    /// The names of all sets; none in a kernel without ipset.
    ///
    /// # Errors
    /// The kernel's, `EPERM` without `CAP_NET_ADMIN`.
    pub fn names(&mut self) -> Result<Vec<String>, IpsetError> {
        let request = single(LIST, NLM_F_ACK | NLM_F_DUMP, 0, |request| {
            attr::put(request, field::PROTOCOL, &[PROTOCOL]);
            attr::put_u32_be(request, field::FLAGS, NAMES_ONLY);
        });
        let mut names = Vec::new();
        let each = &mut |message: &Message<'_>| {
            let fields: Fields<'_, 8> = message.fields();
            names.extend(fields.text(field::NAME).map(str::to_owned));
        };
        match self.socket.request(&mut self.datagram, &request, each) {
            Ok(()) => Ok(names),
            // What nfnetlink says of a subsystem that it does not have, and older ones of an empty list.
            Err(RequestError::Refused(Acknowledgement { errno: libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT, .. })) => {
                Ok(Vec::new())
            }
            Err(error) => Err(failed("list sets", "of ipset", &error)),
        }
    }

    /// The ports among the members of a set; none where there is no such set.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ports(&mut self, name: &str) -> Result<BTreeSet<u16>, IpsetError> {
        let request = single(LIST, NLM_F_ACK | NLM_F_DUMP, 0, |request| {
            attr::put(request, field::PROTOCOL, &[PROTOCOL]);
            attr::put_text(request, field::NAME, name);
        });
        let mut ports = BTreeSet::new();
        let each = &mut |message: &Message<'_>| {
            let fields: Fields<'_, 9> = message.fields();
            let members = fields.walk(field::MEMBERS).map(|member| Fields::<'_, 5>::parse(member.payload));
            ports.extend(members.filter_map(|member| member.u16_be(field::MEMBER_PORT)));
        };
        match self.socket.request(&mut self.datagram, &request, each) {
            Ok(()) | Err(RequestError::Refused(Acknowledgement { errno: libc::ENOENT, .. })) => Ok(ports),
            Err(error) => Err(failed("list set", name, &error)),
        }
    }

    /// Destroys a set with its members, and says whether it could be: not while something refers to it. One that is not there is
    /// destroyed already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn destroy(&mut self, name: &str) -> Result<bool, IpsetError> {
        let request = single(DESTROY, NLM_F_ACK, 0, |request| {
            attr::put(request, field::PROTOCOL, &[PROTOCOL]);
            attr::put_text(request, field::NAME, name);
        });
        match self.socket.request(&mut self.datagram, &request, &mut |_| {}) {
            Ok(()) | Err(RequestError::Refused(Acknowledgement { errno: libc::ENOENT, .. })) => Ok(true),
            Err(RequestError::Refused(Acknowledgement { errno: BUSY, .. })) => Ok(false),
            Err(error) => Err(failed("destroy set", name, &error)),
        }
    }
}

fn failed(call: &'static str, subject: &str, error: &RequestError) -> IpsetError {
    IpsetError { call, subject: subject.to_owned(), source: error.into() }
}
