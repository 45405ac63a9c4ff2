//! nf_tables through a socket of its own.

use std::time::Instant;

use nix::errno::Errno;

use super::abi::{NFPROTO_INET, element as elem, generation, msg, rule, set as setattr};
use super::batch::{AckAt, Batch};
use super::door::{CommitError, CommitInfo, DoorError, NftDoor};
use super::element::{Element, OwnedElement};
use super::reply::{ChainInfo, RuleInfo, SetInfo, TableInfo};
use crate::netlink::attr::{self, Fields};
use crate::netlink::message::{self, Acknowledgement, Message, Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::netlink::socket::{DATAGRAM, NetfilterSocket, RequestError, single};

/// How often a dump is begun anew when others commit meanwhile, as upstream's `EINTR` loops do.
const DUMP_ATTEMPTS: u32 = 5;
/// Keys asked for in one `sendmsg`: their answers must fit into a receive buffer that could not be forced.
const KEYS_PER_REQUEST: usize = 64;

/// How to open a [`KernelNft`]. The default is right; the fields exist to force what older and stricter systems do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelNftOptions {
    /// Bytes of send buffer to ask for. One transaction must fit in it; the kernel takes only what is sent.
    pub send_buffer: usize,
    /// Bytes of receive buffer to ask for: an error takes about 1 KiB of it.
    pub receive_buffer: usize,
    /// Whether to go beyond the system's limit for unprivileged sockets.
    pub force_buffers: bool,
    /// Whether to ask whether the end of a batch answers (kernel 6.10), rather than to take it that it does not.
    pub probe_end_ack: bool,
    /// Whether to ask for [`Batch::destroy_elements`] (kernel 6.3), rather than to take it that it is not there.
    pub probe_destroy: bool,
}

/// nf_tables of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct KernelNft {
    socket: NetfilterSocket,
    ack: AckAt,
    limit: usize,
    has_destroy: Option<bool>,
    datagram: Vec<u8>,
}

/// What the kernel said to a batch.
struct Answers {
    refused: Vec<Acknowledgement>,
    confirmed: bool,
    lost: bool,
}

impl Default for KernelNftOptions {
    fn default() -> Self {
        Self { send_buffer: 256 << 20, receive_buffer: 8 << 20, force_buffers: true, probe_end_ack: true, probe_destroy: true }
    }
}

impl KernelNft {
    /// Opens the door of this thread's network namespace.
    ///
    /// # Errors
    /// Those of the socket; `EPERM` without `CAP_NET_ADMIN` over the namespace.
    pub fn open() -> Result<Self, DoorError> {
        Self::open_with(KernelNftOptions::default())
    }

    /// Opens the door with other than the usual buffers.
    ///
    /// # Errors
    /// As [`KernelNft::open`].
    pub fn open_with(options: KernelNftOptions) -> Result<Self, DoorError> {
        let failed = |call| move |source| DoorError::Open { call, source };
        let socket = NetfilterSocket::open().map_err(failed("open netfilter socket"))?;
        let limit = socket.grow_send_buffer(options.send_buffer, options.force_buffers).map_err(failed("set send buffer"))?;
        socket.grow_receive_buffer(options.receive_buffer).map_err(failed("set receive buffer"))?;
        let has_destroy = (!options.probe_destroy).then_some(false);
        let mut door = Self { socket, ack: AckAt::LastMessage, limit, has_destroy, datagram: vec![0; DATAGRAM] };
        let mut nothing = Batch::new();
        let answers = door
            .transact(&mut nothing, AckAt::End)
            .map_err(|errno| DoorError::Open { call: "send to nf_tables", source: errno.into() })?;
        if let Some(refusal) = answers.refused.into_iter().next() {
            return Err(DoorError::Open { call: "open nf_tables", source: Errno::from_raw(refusal.errno).into() });
        }
        if answers.confirmed && options.probe_end_ack {
            door.ack = AckAt::End;
        }
        Ok(door)
    }

    /// Sends a batch and collects what is said to it. All of that is queued before `send` returns.
    fn transact(&mut self, batch: &mut Batch, ack: AckAt) -> Result<Answers, Errno> {
        self.socket.discard(&mut self.datagram);
        let (bytes, awaited) = batch.seal(ack);
        self.socket.send(bytes)?;
        let mut answers = Answers { refused: Vec::new(), confirmed: false, lost: false };
        loop {
            match self.socket.receive(&mut self.datagram) {
                Ok(Some(datagram)) => {
                    for answer in Messages::new(datagram).filter_map(|message| message.acknowledgement()) {
                        if answer.errno != 0 {
                            answers.refused.push(answer);
                        } else {
                            answers.confirmed |= answer.sequence == awaited;
                        }
                    }
                }
                Ok(None) => return Ok(answers),
                // An overrun is told once, in front of what was queued before it.
                Err(Errno::ENOBUFS) => answers.lost = true,
                Err(_) => {
                    answers.lost = true;
                    return Ok(answers);
                }
            }
        }
    }

    /// Asks one question, again when a dump was interrupted.
    pub(super) fn ask<T>(
        &mut self,
        call: &'static str,
        subject: &str,
        request: &[u8],
        parse: impl Fn(&Message<'_>, &mut Vec<T>),
    ) -> Result<Vec<T>, DoorError> {
        let subject = || subject.to_owned();
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            match self.socket.request(&mut self.datagram, request, &mut |message| parse(message, &mut found)) {
                Ok(()) => return Ok(found),
                Err(RequestError::Interrupted) => {}
                Err(RequestError::NoAnswer) => return Err(DoorError::NoAnswer { call, subject: subject() }),
                Err(RequestError::Refused(Acknowledgement { errno, text, .. })) => {
                    return Err(DoorError::Kernel { call, subject: subject(), errno: Errno::from_raw(errno), text });
                }
            }
        }
        Err(DoorError::Interrupted { call, subject: subject() })
    }

    /// Sends one `GETSETELEM` for each key and returns what was found; a missing key is no error.
    fn get_some(&mut self, subject: &str, table: &str, set: &str, keys: &[&[u8]]) -> Result<Vec<OwnedElement>, DoorError> {
        let failed = |errno, text| DoorError::Kernel { call: "get elements", subject: subject.to_owned(), errno, text };
        let mut request = Vec::new();
        for (sequence, key) in (1_u32..).zip(keys) {
            let flags = NLM_F_REQUEST | NLM_F_ACK;
            let start = message::begin(&mut request, msg::GETSETELEM, flags, sequence, NFPROTO_INET, 0);
            attr::put_text(&mut request, elem::LIST_TABLE, table);
            attr::put_text(&mut request, elem::LIST_SET, set);
            attr::nest(&mut request, elem::LIST_ELEMENTS, |request| Element::key(key).write(request));
            message::end(&mut request, start);
        }
        self.socket.discard(&mut self.datagram);
        self.socket.send(&request).map_err(|errno| failed(errno, None))?;
        let mut found = Vec::new();
        let mut answered = 0;
        while let Some(datagram) = self.socket.receive(&mut self.datagram).map_err(|errno| failed(errno, None))? {
            for message in Messages::new(datagram) {
                match message.acknowledgement() {
                    None => elements(&message, &mut found),
                    Some(Acknowledgement { errno: 0 | libc::ENOENT, .. }) => answered += 1,
                    Some(Acknowledgement { errno, text, .. }) => return Err(failed(Errno::from_raw(errno), text)),
                }
            }
        }
        if answered < keys.len() {
            return Err(DoorError::NoAnswer { call: "get elements", subject: subject.to_owned() });
        }
        Ok(found)
    }
}

impl NftDoor for KernelNft {
    fn commit(&mut self, mut batch: Batch) -> Result<CommitInfo, CommitError> {
        if batch.is_empty() {
            return Ok(CommitInfo::default());
        }
        let (bytes, limit) = (batch.len(), self.limit);
        if bytes > limit {
            return Err(CommitError::TooLarge { bytes, limit });
        }
        let started = Instant::now();
        let Answers { mut refused, confirmed, lost } =
            self.transact(&mut batch, self.ack).map_err(|errno| CommitError::Send { bytes, errno })?;
        let kernel = started.elapsed();
        if !refused.is_empty() {
            refused.sort_by_key(|answer| answer.sequence);
            return Err(CommitError::Refused { refusals: refused.into_iter().map(|answer| batch.refusal(answer)).collect() });
        }
        match (confirmed, lost) {
            (true, false) => Ok(CommitInfo { elements: batch.elements(), messages: batch.messages(), bytes, kernel }),
            (_, true) => Err(CommitError::Unknown { errno: Errno::ENOBUFS }),
            (false, false) => Err(CommitError::Unknown { errno: Errno::ENOMSG }),
        }
    }

    fn batch_limit(&self) -> usize {
        self.limit
    }

    fn port_id(&self) -> u32 {
        self.socket.port()
    }

    fn has_destroy(&mut self) -> bool {
        if let Some(known) = self.has_destroy {
            return known;
        }
        // No table has an empty name: a kernel that knows the message says ENOENT, one that does not says EINVAL. Nothing else is
        // in the transaction, and an aborted one costs milliseconds: ask once.
        let mut probe = Batch::new();
        probe.destroy_elements("", "").push(Element::key(&[]));
        let known = match self.transact(&mut probe, AckAt::LastMessage) {
            Ok(answers) => answers.refused.iter().any(|answer| answer.errno == libc::ENOENT),
            Err(_) => false,
        };
        *self.has_destroy.insert(known)
    }

    fn generation(&mut self) -> Result<u32, DoorError> {
        let request = single(msg::GETGEN, NLM_F_ACK, 0, |_| {});
        let parse = |message: &Message<'_>, found: &mut Vec<u32>| {
            let fields: Fields<'_, 4> = message.fields();
            found.extend(fields.u32_be(generation::ID).filter(|_| message.kind == msg::NEWGEN));
        };
        let found = self.ask("get generation", "of nf_tables", &request, parse)?;
        let missing = || DoorError::NoAnswer { call: "get generation", subject: "of nf_tables".to_owned() };
        found.first().copied().ok_or_else(missing)
    }

    fn tables(&mut self) -> Result<Vec<TableInfo>, DoorError> {
        let request = single(msg::GETTABLE, NLM_F_DUMP, NFPROTO_INET, |_| {});
        self.ask("list tables", "inet", &request, |message, found| found.extend(TableInfo::parse(message)))
    }

    fn sets(&mut self, table: &str) -> Result<Vec<SetInfo>, DoorError> {
        let request = single(msg::GETSET, NLM_F_DUMP, NFPROTO_INET, |request| attr::put_text(request, setattr::TABLE, table));
        absent_is_empty(self.ask("list sets", table, &request, |message, found| found.extend(SetInfo::parse(message, table))))
    }

    fn chains(&mut self, table: &str) -> Result<Vec<ChainInfo>, DoorError> {
        // The kernel dumps the chains of all tables, whatever is asked.
        let request = single(msg::GETCHAIN, NLM_F_DUMP, NFPROTO_INET, |_| {});
        self.ask("list chains", table, &request, |message, found| found.extend(ChainInfo::parse(message, table)))
    }

    fn rules(&mut self, table: &str) -> Result<Vec<RuleInfo>, DoorError> {
        let request = single(msg::GETRULE, NLM_F_DUMP, NFPROTO_INET, |request| attr::put_text(request, rule::TABLE, table));
        absent_is_empty(self.ask("list rules", table, &request, |message, found| found.extend(RuleInfo::parse(message, table))))
    }

    fn dump(&mut self, table: &str, set: &str) -> Result<Vec<OwnedElement>, DoorError> {
        let request = single(msg::GETSETELEM, NLM_F_DUMP, NFPROTO_INET, |request| {
            attr::put_text(request, elem::LIST_TABLE, table);
            attr::put_text(request, elem::LIST_SET, set);
        });
        self.ask("dump set", &format!("{table} {set}"), &request, elements)
    }

    fn get(&mut self, table: &str, set: &str, keys: &[&[u8]]) -> Result<Vec<OwnedElement>, DoorError> {
        // A missing set and a missing key are both ENOENT, and only newer kernels say where: ask for the set itself first.
        let subject = format!("{table} {set}");
        let request = single(msg::GETSET, NLM_F_ACK, NFPROTO_INET, |request| {
            attr::put_text(request, setattr::TABLE, table);
            attr::put_text(request, setattr::NAME, set);
        });
        self.ask("get set", &subject, &request, |_, _: &mut Vec<()>| {})?;
        let mut found = Vec::with_capacity(keys.len());
        for some in keys.chunks(KEYS_PER_REQUEST) {
            found.extend(self.get_some(&subject, table, set, some)?);
        }
        Ok(found)
    }
}

fn elements(message: &Message<'_>, found: &mut Vec<OwnedElement>) {
    if message.kind == msg::NEWSETELEM {
        let fields: Fields<'_, 4> = message.fields();
        found.extend(OwnedElement::parse_list(fields.bytes(elem::LIST_ELEMENTS).unwrap_or_default()));
    }
}

pub(super) fn absent_is_empty<T>(answer: Result<Vec<T>, DoorError>) -> Result<Vec<T>, DoorError> {
    match answer {
        Err(DoorError::Kernel { errno: Errno::ENOENT, .. }) => Ok(Vec::new()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests;
