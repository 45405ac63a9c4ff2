//! One transaction being written.

use std::borrow::Cow;

use nix::errno::Errno;

use super::abi::{self, chain, element as elem, msg, rule, set, table as tab};
use super::door::{Refusal, RefusedElement};
use super::element::{Element, OwnedElement};
use super::foreign::TableFamily;
use super::spec::{ChainSpec, SetSpec};
use crate::netlink::attr::{self, Attrs, Fields};
use crate::netlink::message::{self, Acknowledgement, Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};

/// Bytes of a message with nothing in it: what closes a batch.
const EMPTY_MESSAGE: usize = message::HEADER + message::NFGENMSG;

/// One transaction being written: nfnetlink framing and the element codec go straight into one buffer, which one `sendmsg` hands
/// to the kernel. The sequence number of a message is its place, so an error, which names a sequence number and an offset, leads
/// back to the object and to the element; nothing is kept per element.
///
/// `add_*` is nft's `add`: what is there already and equal is no error. All objects are of family `inet`, until
/// [`Batch::set_family`] says otherwise.
#[derive(Debug)]
pub struct Batch {
    buffer: Vec<u8>,
    /// The messages between begin and end; the sequence number is the index plus one.
    records: Vec<Record>,
    elements: u64,
    /// Of the objects of the messages to come.
    family: u8,
    /// nftnl's scratch space; see [`Batch::nftnl`].
    scratch: Vec<u8>,
}

/// Elements of one set being added to a batch or deleted by it. Starts a new message whenever the present one is full: a nest of
/// attributes ends at 64 KiB.
#[derive(Debug)]
pub struct Elements<'b> {
    batch: &'b mut Batch,
    table: &'b str,
    set: &'b str,
    set_id: Option<u32>,
    kind: u16,
    flags: u16,
    /// Where the present message and its nest begin.
    open: Option<(usize, usize)>,
    pushed: u64,
}

/// Which message has to answer when all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckAt {
    /// The end of the batch; it answers only after the commit. Kernel 6.10 and newer.
    End,
    /// The last message before it.
    LastMessage,
}

#[derive(Debug)]
struct Record {
    start: usize,
    /// Of a message with elements, the place of its first one among those pushed together.
    first_element: u64,
    /// Of a message written elsewhere; ours say it themselves.
    subject: Option<Cow<'static, str>>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// A transaction with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = Vec::with_capacity(4096);
        message::begin(&mut buffer, abi::NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, 0, abi::NFNL_SUBSYS_NFTABLES);
        Self { buffer, records: Vec::new(), elements: 0, family: abi::NFPROTO_INET, scratch: Vec::new() }
    }

    /// A transaction that the kernel refuses with `ERESTART` when its ruleset is no longer of this generation
    /// ([`NftDoor::generation`](super::NftDoor::generation)).
    #[must_use]
    pub fn at_generation(generation: u32) -> Self {
        let mut batch = Self::new();
        attr::put_u32_be(&mut batch.buffer, abi::NFNL_BATCH_GENID, generation);
        message::end(&mut batch.buffer, 0);
        batch
    }

    /// From here on objects are of this family: one transaction may remove what others left in several.
    pub fn set_family(&mut self, family: TableFamily) {
        self.family = family.number();
    }

    /// Bytes that will be sent, the end included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len() + EMPTY_MESSAGE
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Elements written and deleted.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Messages between begin and end.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.records.len()
    }

    /// Adds a table, or does nothing where it is.
    pub fn add_table(&mut self, table: &str, userdata: Option<&[u8]>) {
        self.message(msg::NEWTABLE, NLM_F_CREATE, |buffer| {
            attr::put_text(buffer, tab::NAME, table);
            attr::put_u32_be(buffer, tab::FLAGS, 0);
            if let Some(userdata) = userdata {
                attr::put(buffer, tab::USERDATA, userdata);
            }
        });
    }

    /// Adds a table that nobody else may change or flush, and that goes with the socket of this transaction. Linux 5.12.
    pub fn add_owned_table(&mut self, table: &str) {
        self.message(msg::NEWTABLE, NLM_F_CREATE, |buffer| {
            attr::put_text(buffer, tab::NAME, table);
            attr::put_u32_be(buffer, tab::FLAGS, tab::FLAG_OWNER);
        });
    }

    /// Deletes a table and all that is in it. To delete what may not be there, add it first.
    pub fn delete_table(&mut self, table: &str) {
        self.message(msg::DELTABLE, 0, |buffer| attr::put_text(buffer, tab::NAME, table));
    }

    /// Adds a set or map.
    pub fn add_set(&mut self, table: &str, spec: &SetSpec) {
        self.message(msg::NEWSET, NLM_F_CREATE, |buffer| {
            attr::put_text(buffer, set::TABLE, table);
            attr::put_text(buffer, set::NAME, &spec.name);
            attr::put_u32_be(buffer, set::FLAGS, spec.flag_bits());
            attr::put_u32_be(buffer, set::KEY_TYPE, spec.key_type);
            attr::put_u32_be(buffer, set::KEY_LEN, spec.key_len);
            if let Some((kind, length)) = spec.data {
                attr::put_u32_be(buffer, set::DATA_TYPE, kind);
                attr::put_u32_be(buffer, set::DATA_LEN, length);
            }
            attr::put_u32_be(buffer, set::ID, spec.id);
            if let Some(timeout) = spec.timeout {
                attr::put_u64_be(buffer, set::TIMEOUT, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            }
            attr::nest(buffer, set::DESC, |buffer| {
                if let Some(size) = spec.size {
                    attr::put_u32_be(buffer, set::DESC_SIZE, size);
                }
                if spec.key_fields.len() > 1 {
                    attr::nest(buffer, set::DESC_CONCAT, |buffer| {
                        for length in &spec.key_fields {
                            attr::nest(buffer, abi::LIST_ELEM, |buffer| attr::put_u32_be(buffer, set::FIELD_LEN, *length));
                        }
                    });
                }
            });
            if let Some(userdata) = &spec.userdata {
                attr::put(buffer, set::USERDATA, userdata);
            }
        });
    }

    /// Deletes a set and its elements. `EBUSY` while a rule refers to it.
    pub fn delete_set(&mut self, table: &str, name: &str) {
        self.message(msg::DELSET, 0, |buffer| {
            attr::put_text(buffer, set::TABLE, table);
            attr::put_text(buffer, set::NAME, name);
        });
    }

    /// Deletes all elements of a set.
    pub fn flush_set(&mut self, table: &str, name: &str) {
        self.message(msg::DELSETELEM, 0, |buffer| {
            attr::put_text(buffer, elem::LIST_TABLE, table);
            attr::put_text(buffer, elem::LIST_SET, name);
        });
    }

    /// Adds a chain, or does nothing where it is.
    pub fn add_chain(&mut self, table: &str, spec: &ChainSpec) {
        self.message(msg::NEWCHAIN, NLM_F_CREATE, |buffer| {
            attr::put_text(buffer, chain::TABLE, table);
            attr::put_text(buffer, chain::NAME, &spec.name);
            if let Some(base) = spec.base {
                attr::nest(buffer, chain::HOOK, |buffer| {
                    attr::put_u32_be(buffer, chain::HOOK_HOOKNUM, base.hook as u32);
                    attr::put(buffer, chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
                });
                attr::put_u32_be(buffer, chain::POLICY, base.policy as u32);
                attr::put_text(buffer, chain::TYPE, base.kind.as_str());
            }
            if let Some(userdata) = &spec.userdata {
                attr::put(buffer, chain::USERDATA, userdata);
            }
        });
    }

    /// Deletes the rules of a chain.
    pub fn flush_chain(&mut self, table: &str, name: &str) {
        self.message(msg::DELRULE, 0, |buffer| {
            attr::put_text(buffer, rule::TABLE, table);
            attr::put_text(buffer, rule::CHAIN, name);
        });
    }

    /// Deletes one rule.
    pub fn delete_rule(&mut self, table: &str, chain: &str, handle: u64) {
        self.message(msg::DELRULE, 0, |buffer| {
            attr::put_text(buffer, rule::TABLE, table);
            attr::put_text(buffer, rule::CHAIN, chain);
            attr::put_u64_be(buffer, rule::HANDLE, handle);
        });
    }

    /// Deletes a chain and its rules. `EBUSY` while a rule or an element jumps to it.
    pub fn delete_chain(&mut self, table: &str, name: &str) {
        self.message(msg::DELCHAIN, 0, |buffer| {
            attr::put_text(buffer, chain::TABLE, table);
            attr::put_text(buffer, chain::NAME, name);
        });
    }

    /// Adds a message made elsewhere, without batch framing. `write` appends it, with the sequence number it is given; `subject`
    /// names it in errors: `rule dispatch-4 #3`. A wish for an acknowledgement is taken out: only the end answers.
    pub fn raw(&mut self, subject: impl Into<Cow<'static, str>>, write: impl FnOnce(&mut Vec<u8>, u32)) {
        let start = self.open_record(Some(subject.into()));
        let sequence = self.sequence();
        write(&mut self.buffer, sequence);
        self.buffer.resize(attr::align(self.buffer.len()), 0);
        message::set_flags(&mut self.buffer, start, |flags| flags & !NLM_F_ACK);
    }

    /// Adds a rule, chain or set made by nftnl; see [`Batch::raw`].
    pub fn nftnl(&mut self, subject: impl Into<Cow<'static, str>>, object: &impl nftnl::NlMsg, action: nftnl::MsgType) {
        let mut scratch = std::mem::take(&mut self.scratch);
        // Once per batch: zeroing 68 KiB for each of some hundred rules would be most of their cost.
        scratch.resize(usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(usize::MAX), 0);
        self.raw(subject, |buffer, sequence| {
            // SAFETY: the buffer has the size that `NlMsg::write` asks for, and is this call's alone.
            unsafe { object.write(scratch.as_mut_ptr().cast(), sequence, action) };
            let length = attr::u32_at(&scratch, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            buffer.extend_from_slice(&scratch[..length.min(scratch.len())]);
        });
        self.scratch = scratch;
    }

    /// Adds elements; one that is there with the same data is no error, with other data it is (`EEXIST`, before 6.x `EBUSY`).
    pub fn add_elements<'b>(&'b mut self, table: &'b str, set: &'b str) -> Elements<'b> {
        self.elements_of(table, set, msg::NEWSETELEM, NLM_F_CREATE)
    }

    /// Adds elements none of which may be there (nft's `create`).
    #[cfg(test)]
    pub(super) fn create_elements<'b>(&'b mut self, table: &'b str, set: &'b str) -> Elements<'b> {
        self.elements_of(table, set, msg::NEWSETELEM, NLM_F_CREATE | message::NLM_F_EXCL)
    }

    /// Deletes elements; each must be there (`ENOENT`). Their data is not looked at.
    pub fn delete_elements<'b>(&'b mut self, table: &'b str, set: &'b str) -> Elements<'b> {
        self.elements_of(table, set, msg::DELSETELEM, 0)
    }

    /// Deletes elements where they are. Kernel 6.3 and newer; see [`NftDoor::has_destroy`](super::NftDoor::has_destroy).
    pub fn destroy_elements<'b>(&'b mut self, table: &'b str, set: &'b str) -> Elements<'b> {
        self.elements_of(table, set, msg::DESTROYSETELEM, 0)
    }

    fn elements_of<'b>(&'b mut self, table: &'b str, set: &'b str, kind: u16, flags: u16) -> Elements<'b> {
        Elements { batch: self, table, set, set_id: None, kind, flags, open: None, pushed: 0 }
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: impl FnOnce(&mut Vec<u8>)) {
        self.open_record(None);
        let start = self.begin(kind, flags);
        attributes(&mut self.buffer);
        message::end(&mut self.buffer, start);
    }

    fn begin(&mut self, kind: u16, flags: u16) -> usize {
        let sequence = self.sequence();
        message::begin(&mut self.buffer, kind, NLM_F_REQUEST | flags, sequence, self.family, 0)
    }

    fn open_record(&mut self, subject: Option<Cow<'static, str>>) -> usize {
        let start = self.buffer.len();
        self.records.push(Record { start, first_element: 0, subject });
        start
    }

    /// Of the message that was opened last.
    fn sequence(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// Closes the batch and says which message is to answer: the bytes to send and the sequence number to wait for.
    pub(super) fn seal(&mut self, ack: AckAt) -> (&[u8], u32) {
        let last = self.sequence();
        let end = last.saturating_add(1);
        let flags = match ack {
            AckAt::End => NLM_F_REQUEST | NLM_F_ACK,
            AckAt::LastMessage => NLM_F_REQUEST,
        };
        message::begin(&mut self.buffer, abi::NFNL_MSG_BATCH_END, flags, end, 0, abi::NFNL_SUBSYS_NFTABLES);
        match (ack, self.records.last()) {
            (AckAt::LastMessage, Some(record)) => {
                message::set_flags(&mut self.buffer, record.start, |flags| flags | NLM_F_ACK);
                (&self.buffer, last)
            }
            _ => (&self.buffer, end),
        }
    }

    /// What the kernel refused, in our words.
    pub(super) fn refusal(&self, answer: Acknowledgement) -> Refusal {
        let Acknowledgement { errno, sequence, offset, text } = answer;
        let index = usize::try_from(sequence).unwrap_or(usize::MAX).wrapping_sub(1);
        let mut subject = self.subject(index);
        // nfnetlink blames what fails only at the commit (a loop of jumps, memory) on the first message, and points nowhere.
        if index == 0 && offset.is_none() {
            subject.push_str(", or the transaction");
        }
        let element = offset.and_then(|offset| self.refused_element(index, offset));
        Refusal { subject, element, errno: Errno::from_raw(errno), text }
    }

    fn subject(&self, index: usize) -> String {
        let Some(record) = self.records.get(index) else { return "transaction".to_owned() };
        match &record.subject {
            Some(subject) => subject.clone().into_owned(),
            None => Messages::new(&self.buffer[record.start..]).next().map(|message| describe(&message)).unwrap_or_default(),
        }
    }

    fn refused_element(&self, index: usize, offset: usize) -> Option<RefusedElement> {
        let record = self.records.get(index)?;
        let message = Messages::new(self.buffer.get(record.start..)?).next()?;
        if !matches!(message.kind, msg::NEWSETELEM | msg::DELSETELEM | msg::DESTROYSETELEM) {
            return None;
        }
        let list = Attrs::new(message.attributes()).find(|attr| attr.kind == elem::LIST_ELEMENTS)?;
        let inside = offset.checked_sub(EMPTY_MESSAGE + list.offset + attr::HEADER)?;
        let (place, entry) = Attrs::new(list.payload)
            .enumerate()
            .find(|(_, entry)| (entry.offset..entry.offset + attr::HEADER + entry.payload.len()).contains(&inside))?;
        let key = OwnedElement::parse(entry.payload)?.key;
        Some(RefusedElement { index: record.first_element + u64::try_from(place).unwrap_or(u64::MAX), key })
    }
}

impl Elements<'_> {
    /// Refers to the set by the number of [`SetSpec::id`] too, as an anonymous set of this transaction needs it.
    #[must_use]
    pub fn of_set_id(mut self, id: u32) -> Self {
        self.set_id = Some(id);
        self
    }

    /// Appends an element.
    pub fn push(&mut self, element: Element<'_>) -> &mut Self {
        let (start, nest) = match self.open {
            Some(open) => open,
            None => self.open_message(),
        };
        let at = self.batch.buffer.len();
        element.write(&mut self.batch.buffer);
        if self.batch.buffer.len() - nest > attr::MAX {
            let moved = self.batch.buffer.split_off(at);
            let (start, nest) = self.open_message();
            self.batch.buffer.extend_from_slice(&moved);
            self.close(start, nest);
        } else {
            self.close(start, nest);
        }
        self.pushed += 1;
        self.batch.elements += 1;
        self
    }

    /// Bytes that the batch has by now; see [`Batch::len`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the batch's length, asked for between two pushes")]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    fn open_message(&mut self) -> (usize, usize) {
        let start = self.batch.open_record(None);
        if let Some(record) = self.batch.records.last_mut() {
            record.first_element = self.pushed;
        }
        self.batch.begin(self.kind, self.flags);
        let buffer = &mut self.batch.buffer;
        attr::put_text(buffer, elem::LIST_TABLE, self.table);
        attr::put_text(buffer, elem::LIST_SET, self.set);
        if let Some(id) = self.set_id {
            attr::put_u32_be(buffer, elem::LIST_SET_ID, id);
        }
        let nest = attr::begin(buffer, elem::LIST_ELEMENTS);
        self.open = Some((start, nest));
        (start, nest)
    }

    /// Both lengths are right after every push, so that there is nothing to forget at the end.
    fn close(&mut self, start: usize, nest: usize) {
        attr::end(&mut self.batch.buffer, nest);
        message::end(&mut self.batch.buffer, start);
    }
}

/// A message of ours as nft would say it, without the family: `add element sheave endpoints-4`.
fn describe(message: &message::Message<'_>) -> String {
    let fields: Fields<'_, 4> = message.fields();
    let (verb, noun, name) = match message.kind {
        msg::NEWTABLE => ("add", "table", None),
        msg::DELTABLE => ("delete", "table", None),
        msg::NEWCHAIN => ("add", "chain", Some(chain::NAME)),
        msg::DELCHAIN => ("delete", "chain", Some(chain::NAME)),
        msg::NEWSET => ("add", "set", Some(set::NAME)),
        msg::DELSET => ("delete", "set", Some(set::NAME)),
        msg::DELRULE if fields.bytes(rule::HANDLE).is_none() => ("flush", "chain", Some(rule::CHAIN)),
        msg::DELRULE => ("delete", "rule", Some(rule::CHAIN)),
        msg::NEWSETELEM => ("add", "element", Some(elem::LIST_SET)),
        msg::DELSETELEM if fields.bytes(elem::LIST_ELEMENTS).is_none() => ("flush", "set", Some(elem::LIST_SET)),
        msg::DELSETELEM => ("delete", "element", Some(elem::LIST_SET)),
        msg::DESTROYSETELEM => ("destroy", "element", Some(elem::LIST_SET)),
        _ => ("send", "message", None),
    };
    let table = fields.text(tab::NAME).unwrap_or_default(); // attribute 1 names the table in every message
    match name.and_then(|kind| fields.text(kind)) {
        Some(name) => format!("{verb} {noun} {table} {name}"),
        None => format!("{verb} {noun} {table}"),
    }
}
