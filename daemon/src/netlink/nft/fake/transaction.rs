//! One transaction of the fake: every message is worked off, as the kernel does, even after one was refused, so that all
//! refusals are told; then everything is undone if there was one.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::errno::Errno;

use super::Kernel;
use super::objects::{Chain, Key, Reference, Rule, Set, Table, references};
use crate::netlink::attr::{self, Attrs, Fields};
use crate::netlink::message::{self, Acknowledgement, Message, Messages, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use crate::netlink::nft::abi::{
    self, chain as chain_attr, element as elem, msg, rule as rule_attr, set as set_attr, set_flag, table as table_attr,
};
use crate::netlink::nft::element::OwnedElement;
use crate::netlink::nft::reply::SetInfo;

/// `NFT_NAME_MAXLEN`, the terminator included.
const NAME_MAX: usize = 256;
/// `enum nf_inet_hooks` up to postrouting.
const HOOKS: u32 = 5;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
/// `NF_ACCEPT`, which is what a base chain does if nothing is said.
const ACCEPT: u32 = 1;
/// `NF_IP_PRI_CONNTRACK`: NAT has to come after it.
const PRIORITY_CONNTRACK: i32 = -200;

/// A refusal: the reason, and where in the message.
struct Refused {
    errno: Errno,
    offset: Option<usize>,
}

/// What brings back what was there.
enum Undo {
    Table(String, Option<Table>),
    Set(Path, Option<Set>),
    Chain(Path, Option<Chain>),
    Element(Path, Key, Option<OwnedElement>),
    Elements(Path, BTreeMap<Key, OwnedElement>),
}

/// Table, and set or chain in it.
type Path = Arc<(String, String)>;

pub(super) struct Transaction<'k> {
    kernel: &'k mut Kernel,
    undo: Vec<Undo>,
    /// Sets of this transaction by the number that it gave them.
    ids: Vec<(u32, Path)>,
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { errno, offset: None }
    }
}

impl<'k> Transaction<'k> {
    /// Works off one batch. `None` when it is not a whole one, which the kernel drops without a word.
    pub(super) fn run(kernel: &'k mut Kernel, bytes: &[u8]) -> Option<Vec<Acknowledgement>> {
        let mut messages = Messages::new(bytes);
        let begin = messages.next().filter(|message| message.kind == abi::NFNL_MSG_BATCH_BEGIN)?;
        if begin.fields::<2>().u32_be(abi::NFNL_BATCH_GENID).is_some_and(|wanted| wanted != kernel.generation) {
            return Some(vec![answer(begin.sequence, Errno::ERESTART.into())]);
        }
        let mut transaction = Self { kernel, undo: Vec::new(), ids: Vec::new() };
        let mut refused = Vec::new();
        let mut ended = false;
        for message in messages {
            if message.kind == abi::NFNL_MSG_BATCH_END {
                ended = true;
                break;
            }
            if let Err(refusal) = transaction.apply(&message) {
                // The kernel points at an attribute, in nearly all cases: at the first one, if we know no better.
                let offset = refusal.offset.or(Some(message::HEADER + message::NFGENMSG));
                refused.push(answer(message.sequence, Refused { offset, ..refusal }));
            }
        }
        if refused.is_empty() && ended && transaction.has_loose_anonymous_set() {
            // What fails at the commit itself is blamed on the first message: `netlink_ack(oskb, nlmsg_hdr(oskb), ..)`, when the
            // batch's beginning is pulled off already.
            refused.push(answer(1, Errno::EINVAL.into()));
        }
        if refused.is_empty() && ended {
            if !transaction.undo.is_empty() {
                transaction.kernel.generation = transaction.kernel.generation.wrapping_add(1);
            }
        } else {
            transaction.abort();
        }
        ended.then_some(refused)
    }

    fn apply(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        if !Attrs::new(message.attributes()).is_well_formed() {
            return Err(Errno::EINVAL.into());
        }
        if message.family() != Some(abi::NFPROTO_INET) {
            return Err(Errno::EAFNOSUPPORT.into());
        }
        match message.kind {
            msg::NEWTABLE => self.new_table(message),
            msg::DELTABLE => self.delete_table(message),
            msg::NEWSET => self.new_set(message),
            msg::DELSET => self.delete_set(message),
            msg::NEWCHAIN => self.new_chain(message),
            msg::DELCHAIN => self.delete_chain(message),
            msg::NEWRULE => self.new_rule(message),
            msg::DELRULE => self.delete_rules(message),
            msg::NEWSETELEM => self.new_elements(message),
            msg::DELSETELEM => self.delete_elements(message),
            msg::DESTROYSETELEM if self.kernel.has_destroy => self.delete_elements(message),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn abort(self) {
        for undo in self.undo.into_iter().rev() {
            match undo {
                Undo::Table(name, before) => put_back(&mut self.kernel.tables, name, before),
                Undo::Set(path, before) => {
                    if let Some(table) = self.kernel.tables.get_mut(&path.0) {
                        put_back(&mut table.sets, path.1.clone(), before);
                    }
                }
                Undo::Chain(path, before) => {
                    if let Some(table) = self.kernel.tables.get_mut(&path.0) {
                        put_back(&mut table.chains, path.1.clone(), before);
                    }
                }
                Undo::Element(path, key, before) => {
                    if let Some(set) = self.kernel.tables.get_mut(&path.0).and_then(|table| table.sets.get_mut(&path.1)) {
                        put_back(&mut set.elements, key, before);
                    }
                }
                Undo::Elements(path, before) => {
                    if let Some(set) = self.kernel.tables.get_mut(&path.0).and_then(|table| table.sets.get_mut(&path.1)) {
                        set.elements = before;
                    }
                }
            }
        }
    }

    fn new_table(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 8> = message.fields();
        let name = name_of(&fields, table_attr::NAME)?;
        if self.kernel.tables.contains_key(&name) {
            return exists_is(message);
        }
        let userdata = fields.bytes(table_attr::USERDATA).map(<[u8]>::to_vec);
        let table = Table { handle: self.next_handle(), userdata, ..Table::default() };
        self.kernel.tables.insert(name.clone(), table);
        self.undo.push(Undo::Table(name, None));
        Ok(())
    }

    fn delete_table(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let name = name_of(&message.fields::<8>(), table_attr::NAME)?;
        let before = self.kernel.tables.remove(&name).ok_or(Errno::ENOENT)?;
        self.undo.push(Undo::Table(name, Some(before)));
        Ok(())
    }

    fn new_set(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 21> = message.fields();
        let (table, mut name) = (name_of(&fields, set_attr::TABLE)?, name_of(&fields, set_attr::NAME)?);
        let Set { mut info, bits, .. } = Set::parse(&fields)?;
        let id = fields.u32_be(set_attr::ID).ok_or(Errno::EINVAL)?;
        if let Some(present) = self.table(&table)?.sets.get(&name) {
            exists_is(message)?;
            let same = SetInfo { handle: 0, name: String::new(), userdata: None, ..present.info.clone() }
                == SetInfo { userdata: None, ..info };
            if !same || present.bits != bits {
                return Err(Errno::EEXIST.into());
            }
            // To the kernel this is an update, which has no number: 0, by which it is then found.
            self.ids.push((0, Arc::new((table, name))));
            return Ok(());
        }
        if message.flags & NLM_F_CREATE == 0 {
            return Err(Errno::ENOENT.into());
        }
        if name.contains("%d") {
            let sets = &self.table(&table)?.sets;
            let free = (0_u64..).map(|number| name.replacen("%d", &number.to_string(), 1)).find(|name| !sets.contains_key(name));
            name = free.unwrap_or(name);
        }
        info.handle = self.next_handle();
        info.name.clone_from(&name);
        self.table(&table)?.sets.insert(name.clone(), Set { info, bits, elements: BTreeMap::new() });
        let path = Arc::new((table, name));
        self.ids.push((id, Arc::clone(&path)));
        self.undo.push(Undo::Set(path, None));
        Ok(())
    }

    fn delete_set(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 21> = message.fields();
        let (table, name) = (name_of(&fields, set_attr::TABLE)?, name_of(&fields, set_attr::NAME)?);
        let present = self.table(&table)?;
        if !present.sets.contains_key(&name) {
            return Err(Errno::ENOENT.into());
        }
        if present.uses_of_set(&name) > 0 {
            return Err(Errno::EBUSY.into());
        }
        let before = present.sets.remove(&name);
        self.undo.push(Undo::Set(Arc::new((table, name)), before));
        Ok(())
    }

    fn new_chain(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 13> = message.fields();
        let (table, name) = (name_of(&fields, chain_attr::TABLE)?, name_of(&fields, chain_attr::NAME)?);
        let hook: Fields<'_, 3> = fields.nest(chain_attr::HOOK);
        let priority = hook.u32_be(chain_attr::HOOK_PRIORITY).map(u32::cast_signed);
        let base = hook.u32_be(chain_attr::HOOK_HOOKNUM).zip(priority);
        let kind = fields.text(chain_attr::TYPE).unwrap_or("filter").to_owned();
        if let Some(present) = self.table(&table)?.chains.get(&name) {
            exists_is(message)?;
            return match (base, present.base) {
                (None, _) => Ok(()),
                (Some(wanted), Some(is)) if wanted != is => Err(Errno::EOPNOTSUPP.into()),
                (Some(_), Some(_)) if present.kind == kind => Ok(()),
                (Some(_), _) => Err(Errno::EEXIST.into()),
            };
        }
        if fields.bytes(chain_attr::HOOK).is_some() {
            let (number, priority) = base.ok_or(Errno::EINVAL)?;
            let fits = match kind.as_str() {
                "filter" => number < HOOKS,
                "nat" => number < HOOKS && number != HOOK_FORWARD && priority > PRIORITY_CONNTRACK,
                "route" => number == HOOK_OUTPUT,
                _ => return Err(Errno::ENOENT.into()),
            };
            if !fits {
                return Err(Errno::EOPNOTSUPP.into());
            }
        }
        let userdata = fields.bytes(chain_attr::USERDATA).map(<[u8]>::to_vec);
        let policy = base.map(|_| fields.u32_be(chain_attr::POLICY).unwrap_or(ACCEPT));
        let chain = Chain { handle: self.next_handle(), base, kind, policy, userdata, rules: Vec::new() };
        self.table(&table)?.chains.insert(name.clone(), chain);
        self.undo.push(Undo::Chain(Arc::new((table, name)), None));
        Ok(())
    }

    fn delete_chain(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 13> = message.fields();
        let (table, name) = (name_of(&fields, chain_attr::TABLE)?, name_of(&fields, chain_attr::NAME)?);
        let present = self.table(&table)?;
        if !present.chains.contains_key(&name) {
            return Err(Errno::ENOENT.into());
        }
        if present.jumps_to(&name) > 0 {
            return Err(Errno::EBUSY.into());
        }
        let before = present.chains.remove(&name);
        self.remove_chain_trail(&table, name, before);
        Ok(())
    }

    fn new_rule(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 12> = message.fields();
        let (table, name) = (name_of(&fields, rule_attr::TABLE)?, name_of(&fields, rule_attr::CHAIN)?);
        if message.flags & NLM_F_CREATE == 0 {
            return Err(Errno::EINVAL.into());
        }
        if fields.bytes(rule_attr::HANDLE).is_some() {
            return Err(Errno::EOPNOTSUPP.into()); // replaces a rule: we never do
        }
        if !self.table(&table)?.chains.contains_key(&name) {
            return Err(Errno::ENOENT.into());
        }
        let userdata = fields.bytes(rule_attr::USERDATA).map(<[u8]>::to_vec);
        let mut rule = Rule { handle: self.next_handle(), userdata, ..Rule::default() };
        for reference in references(fields.bytes(rule_attr::EXPRESSIONS).unwrap_or_default()) {
            match reference {
                Reference::Set { name, id } => {
                    let name = self.set_name(&table, name, id).ok_or(Errno::ENOENT)?;
                    let table = self.table(&table)?;
                    if table.sets.get(&name).is_some_and(Set::is_anonymous) && table.uses_of_set(&name) > 0 {
                        return Err(Errno::EBUSY.into());
                    }
                    rule.sets.insert(name);
                }
                Reference::Chain(target) => {
                    self.jump_target(&table, target)?;
                    rule.chains.insert(target.to_owned());
                }
            }
        }
        let chain = self.table(&table)?.chains.get_mut(&name).ok_or(Errno::ENOENT)?;
        let before = chain.clone();
        let place = if message.flags & NLM_F_APPEND == 0 { 0 } else { chain.rules.len() };
        chain.rules.insert(place, rule);
        self.undo.push(Undo::Chain(Arc::new((table, name)), Some(before)));
        Ok(())
    }

    fn delete_rules(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 12> = message.fields();
        let table = name_of(&fields, rule_attr::TABLE)?;
        let handle = fields.u64_be(rule_attr::HANDLE);
        let names: Vec<String> = match fields.text(rule_attr::CHAIN) {
            Some(name) => vec![name.to_owned()],
            None => self.table(&table)?.chains.keys().cloned().collect(),
        };
        for name in names {
            let chain = self.table(&table)?.chains.get_mut(&name).ok_or(Errno::ENOENT)?;
            let before = chain.clone();
            chain.rules.retain(|rule| handle.is_some_and(|handle| handle != rule.handle));
            if handle.is_some() && chain.rules.len() == before.rules.len() {
                return Err(Errno::ENOENT.into());
            }
            self.remove_chain_trail(&table, name, Some(before));
        }
        Ok(())
    }

    /// Notes how to bring a chain back, and deletes the anonymous sets that only it referred to.
    fn remove_chain_trail(&mut self, table: &str, name: String, before: Option<Chain>) {
        let sets: Vec<String> = before.iter().flat_map(|chain| &chain.rules).flat_map(|rule| rule.sets.iter().cloned()).collect();
        self.undo.push(Undo::Chain(Arc::new((table.to_owned(), name)), before));
        let Some(present) = self.kernel.tables.get_mut(table) else { return };
        for set in sets {
            if present.sets.get(&set).is_some_and(Set::is_anonymous) && present.uses_of_set(&set) == 0 {
                let before = present.sets.remove(&set);
                self.undo.push(Undo::Set(Arc::new((table.to_owned(), set)), before));
            }
        }
    }

    fn new_elements(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 5> = message.fields();
        let path = self.set_of(&fields)?;
        if fields.bytes(elem::LIST_ELEMENTS).is_none() {
            return Err(Errno::EINVAL.into());
        }
        let table = self.table(&path.0)?;
        let fixed = table.sets.get(&path.1).is_some_and(|set| set.bits & (set_flag::CONSTANT | set_flag::ANONYMOUS) != 0);
        if fixed && table.uses_of_set(&path.1) > 0 {
            return Err(Errno::EBUSY.into());
        }
        each_element(message, |payload| self.new_element(&path, payload, message.flags & NLM_F_EXCL != 0))
    }

    fn new_element(&mut self, path: &Path, payload: &[u8], exclusive: bool) -> Result<(), Errno> {
        let mut element = OwnedElement::parse(payload).ok_or(Errno::EINVAL)?;
        if let Some(target) = element.verdict.as_ref().and_then(|verdict| verdict.chain.as_deref()) {
            self.jump_target(&path.0, target)?;
        }
        let table = self.kernel.tables.get_mut(&path.0).ok_or(Errno::ENOENT)?;
        let set = table.sets.get_mut(&path.1).ok_or(Errno::ENOENT)?;
        if !set.admits(&element) {
            return Err(Errno::EINVAL);
        }
        let key = Key::of(&element);
        if let Some(present) = set.elements.get(&key) {
            let same = present.data == element.data && present.verdict == element.verdict;
            return if same && !exclusive { Ok(()) } else { Err(Errno::EEXIST) };
        }
        element.timeout = element.timeout.or(set.info.timeout);
        element.expiration = element.expiration.or(element.timeout);
        set.elements.insert(key.clone(), element);
        let over_full = set.is_over_full();
        self.undo.push(Undo::Element(Arc::clone(path), key, None));
        if over_full { Err(Errno::ENFILE) } else { Ok(()) }
    }

    fn delete_elements(&mut self, message: &Message<'_>) -> Result<(), Refused> {
        let fields: Fields<'_, 5> = message.fields();
        let path = self.set_of(&fields)?;
        if fields.bytes(elem::LIST_ELEMENTS).is_none() {
            let set = self.table(&path.0)?.sets.get_mut(&path.1).ok_or(Errno::ENOENT)?;
            let before = std::mem::take(&mut set.elements);
            self.undo.push(Undo::Elements(path, before));
            return Ok(());
        }
        let may_be_missing = message.kind == msg::DESTROYSETELEM;
        each_element(message, |payload| {
            let element = OwnedElement::parse(payload).ok_or(Errno::EINVAL)?;
            let table = self.kernel.tables.get_mut(&path.0).ok_or(Errno::ENOENT)?;
            let set = table.sets.get_mut(&path.1).ok_or(Errno::ENOENT)?;
            if u32::try_from(element.key.len()).is_ok_and(|length| length != set.info.key_len) {
                return Err(Errno::EINVAL);
            }
            let key = Key::of(&element);
            match set.elements.remove(&key) {
                Some(before) => self.undo.push(Undo::Element(Arc::clone(&path), key, Some(before))),
                None if may_be_missing => {}
                None => return Err(Errno::ENOENT),
            }
            Ok(())
        })
    }

    fn table(&mut self, name: &str) -> Result<&mut Table, Errno> {
        self.kernel.tables.get_mut(name).ok_or(Errno::ENOENT)
    }

    fn set_of(&mut self, fields: &Fields<'_, 5>) -> Result<Path, Errno> {
        let table = name_of(fields, elem::LIST_TABLE)?;
        self.table(&table)?;
        let name = name_of(fields, elem::LIST_SET)?;
        let found = self.set_name(&table, &name, fields.u32_be(elem::LIST_SET_ID)).ok_or(Errno::ENOENT)?;
        Ok(Arc::new((table, found)))
    }

    /// By name first, then by the number that this transaction gave it (`nft_set_lookup_global`).
    fn set_name(&self, table: &str, name: &str, id: Option<u32>) -> Option<String> {
        let sets = &self.kernel.tables.get(table)?.sets;
        if sets.contains_key(name) {
            return Some(name.to_owned());
        }
        let of_id = |(number, path): &&(u32, Path)| Some(*number) == id && path.0 == table && sets.contains_key(&path.1);
        self.ids.iter().rev().find(of_id).map(|(_, path)| path.1.clone())
    }

    fn jump_target(&mut self, table: &str, chain: &str) -> Result<(), Errno> {
        match self.table(table)?.chains.get(chain) {
            None => Err(Errno::ENOENT),
            Some(target) if target.base.is_some() => Err(Errno::EOPNOTSUPP),
            Some(_) => Ok(()),
        }
    }

    fn has_loose_anonymous_set(&self) -> bool {
        self.ids.iter().any(|(_, path)| {
            let table = self.kernel.tables.get(&path.0);
            table.is_some_and(|table| table.sets.get(&path.1).is_some_and(Set::is_anonymous) && table.uses_of_set(&path.1) == 0)
        })
    }

    fn next_handle(&mut self) -> u64 {
        self.kernel.handle += 1;
        self.kernel.handle
    }
}

/// Goes through a message's elements up to the first refused one, and says where that is.
fn each_element(message: &Message<'_>, mut apply: impl FnMut(&[u8]) -> Result<(), Errno>) -> Result<(), Refused> {
    let list = Attrs::new(message.attributes()).find(|attr| attr.kind == elem::LIST_ELEMENTS).ok_or(Errno::EINVAL)?;
    if !Attrs::new(list.payload).is_well_formed() {
        return Err(Errno::EINVAL.into());
    }
    let inside = message::HEADER + message::NFGENMSG + list.offset + attr::HEADER;
    Attrs::new(list.payload)
        .try_for_each(|entry| apply(entry.payload).map_err(|errno| Refused { errno, offset: Some(inside + entry.offset) }))
}

fn name_of<const N: usize>(fields: &Fields<'_, N>, kind: u16) -> Result<String, Errno> {
    let name = fields.text(kind).ok_or(Errno::EINVAL)?;
    if name.len() < NAME_MAX { Ok(name.to_owned()) } else { Err(Errno::ERANGE) }
}

/// What it means that an object is there already.
fn exists_is(message: &Message<'_>) -> Result<(), Refused> {
    if message.flags & NLM_F_EXCL == 0 { Ok(()) } else { Err(Errno::EEXIST.into()) }
}

fn put_back<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, before: Option<V>) {
    match before {
        Some(before) => map.insert(key, before),
        None => map.remove(&key),
    };
}

fn answer(sequence: u32, Refused { errno, offset }: Refused) -> Acknowledgement {
    Acknowledgement { errno: errno as i32, sequence, offset, text: None }
}
