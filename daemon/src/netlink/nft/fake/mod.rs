//! nf_tables in memory, with the kernel's rules: what a test or a dry run commits to.
//!
//! It reads the very bytes that the kernel would read, so the codec is under test too. It knows what sheave sends: tables, sets,
//! elements, chains, and of rules the sets and chains they refer to. It does not know time (nothing expires), does not look for
//! loops of jumps, and takes elements of interval sets as they come, without looking for overlaps.

mod objects;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use self::objects::Table;
use self::transaction::Transaction;
use super::batch::{AckAt, Batch};
use super::door::{CommitError, CommitInfo, DoorError, NftDoor};
use super::element::OwnedElement;
use super::reply::{ChainInfo, RuleInfo, SetInfo, TableInfo};
use crate::netlink::message::Acknowledgement;

/// What a socket has that may be as large as it likes; see [`FakeNft::set_batch_limit`].
const DEFAULT_LIMIT: usize = 256 << 20;

/// nf_tables in memory. A clone is another door of the same namespace: the test's own, for instance, to see what the plane did
/// or to meddle with it.
#[derive(Clone)]
pub struct FakeNft {
    kernel: Arc<Mutex<Kernel>>,
    port: u32,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct Kernel {
    tables: BTreeMap<String, Table>,
    generation: u32,
    /// The handle that was given out last.
    handle: u64,
    ports: u32,
    limit: usize,
    /// How many commits go well before the one that is refused.
    fail_after: Option<(u32, Errno)>,
    lose_next_answer: bool,
    has_destroy: bool,
    record: Option<Vec<Vec<u8>>>,
}

impl Default for FakeNft {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeNft {
    /// A namespace without tables.
    #[must_use]
    pub fn new() -> Self {
        let kernel = Kernel {
            tables: BTreeMap::new(),
            generation: 1,
            handle: 0,
            ports: 1,
            limit: DEFAULT_LIMIT,
            fail_after: None,
            lose_next_answer: false,
            has_destroy: true,
            record: None,
        };
        Self { kernel: Arc::new(Mutex::new(kernel)), port: 1 }
    }

    /// A door of the same namespace with a port of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        let mut kernel = self.kernel();
        kernel.ports += 1;
        Self { kernel: Arc::clone(&self.kernel), port: kernel.ports }
    }

    /// The next commit, on whichever door, is refused as a whole.
    pub fn fail_next(&self, errno: Errno) {
        self.fail_after(0, errno);
    }

    /// After so many more commits, one is refused as a whole.
    pub fn fail_after(&self, commits: u32, errno: Errno) {
        self.kernel().fail_after = Some((commits, errno));
    }

    /// The next commit happens, but its answer is lost: [`CommitError::Unknown`].
    pub fn lose_next_answer(&self) {
        self.kernel().lose_next_answer = true;
    }

    /// From now on it is a kernel before 6.3, which does not know [`Batch::destroy_elements`].
    pub fn without_destroy(&self) {
        self.kernel().has_destroy = false;
    }

    /// Bytes that one batch may have from now on.
    pub fn set_batch_limit(&self, bytes: usize) {
        self.kernel().limit = bytes;
    }

    /// Keeps the bytes of every batch from now on, refused ones included.
    pub fn record(&self) {
        self.kernel().record.get_or_insert_default();
    }

    /// Takes what was recorded.
    #[must_use]
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.kernel().record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Writes an element as a packet's `update @set` does: without a transaction. Says whether there was room for it.
    pub fn learn(&self, table: &str, set: &str, element: &OwnedElement) -> bool {
        let mut kernel = self.kernel();
        let set = kernel.tables.get_mut(table).and_then(|table| table.sets.get_mut(set));
        set.is_some_and(|set| set.learn(element))
    }

    /// How many elements a set has; `None` without the set.
    #[must_use]
    pub fn count(&self, table: &str, set: &str) -> Option<usize> {
        Some(self.kernel().tables.get(table)?.sets.get(set)?.elements.len())
    }

    /// The sets that the rules of a chain refer to, in their order: enough to see which rules are there.
    #[must_use]
    pub fn sets_of_chain(&self, table: &str, chain: &str) -> Vec<BTreeSet<String>> {
        let kernel = self.kernel();
        let chain = kernel.tables.get(table).and_then(|table| table.chains.get(chain));
        chain.map(|chain| chain.rules.iter().map(|rule| rule.sets.clone()).collect()).unwrap_or_default()
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // A test that panicked with the lock held has said what was wrong; its neighbours may go on.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_table<T>(&self, table: &str, list: impl FnOnce(&Table) -> Vec<T>) -> Vec<T> {
        self.kernel().tables.get(table).map(list).unwrap_or_default()
    }
}

impl fmt::Debug for FakeNft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = self.kernel();
        f.debug_struct("FakeNft").field("tables", &kernel.tables.keys()).field("generation", &kernel.generation).finish()
    }
}

impl NftDoor for FakeNft {
    fn commit(&mut self, mut batch: Batch) -> Result<CommitInfo, CommitError> {
        if batch.is_empty() {
            return Ok(CommitInfo::default());
        }
        let started = Instant::now();
        let mut kernel = self.kernel();
        let (bytes, limit) = (batch.len(), kernel.limit);
        if bytes > limit {
            return Err(CommitError::TooLarge { bytes, limit });
        }
        let (sent, _) = batch.seal(AckAt::End);
        if let Some(record) = &mut kernel.record {
            record.push(sent.to_vec());
        }
        let failed = match kernel.fail_after.take() {
            Some((0, errno)) => {
                let text = Some("told to fail".to_owned());
                Some(vec![Acknowledgement { errno: errno as i32, sequence: 0, offset: None, text }])
            }
            later => {
                kernel.fail_after = later.map(|(commits, errno)| (commits - 1, errno));
                None
            }
        };
        let outcome = match failed {
            Some(refused) => Some(refused),
            None => Transaction::run(&mut kernel, sent),
        };
        match outcome {
            // A batch that is cut or without an end is dropped by the kernel without a word.
            None => Err(CommitError::Unknown { errno: Errno::ENOMSG }),
            Some(refused) if !refused.is_empty() => {
                Err(CommitError::Refused { refusals: refused.into_iter().map(|answer| batch.refusal(answer)).collect() })
            }
            Some(_) if std::mem::take(&mut kernel.lose_next_answer) => Err(CommitError::Unknown { errno: Errno::ENOBUFS }),
            Some(_) => {
                let (elements, messages) = (batch.elements(), batch.messages());
                Ok(CommitInfo { elements, messages, bytes, kernel: started.elapsed().max(Duration::from_nanos(1)) })
            }
        }
    }

    fn batch_limit(&self) -> usize {
        self.kernel().limit
    }

    fn port_id(&self) -> u32 {
        self.port
    }

    fn has_destroy(&mut self) -> bool {
        self.kernel().has_destroy
    }

    fn generation(&mut self) -> Result<u32, DoorError> {
        Ok(self.kernel().generation)
    }

    fn tables(&mut self) -> Result<Vec<TableInfo>, DoorError> {
        Ok(self.kernel().tables.iter().map(|(name, table)| table.info(name)).collect())
    }

    fn sets(&mut self, table: &str) -> Result<Vec<SetInfo>, DoorError> {
        Ok(self.of_table(table, |table| table.sets.values().map(objects::Set::info).collect()))
    }

    fn chains(&mut self, table: &str) -> Result<Vec<ChainInfo>, DoorError> {
        Ok(self.of_table(table, |table| table.chains.keys().map(|name| table.chain_info(name)).collect()))
    }

    fn rules(&mut self, table: &str) -> Result<Vec<RuleInfo>, DoorError> {
        Ok(self.of_table(table, Table::rules))
    }

    fn dump(&mut self, table: &str, set: &str) -> Result<Vec<OwnedElement>, DoorError> {
        let kernel = self.kernel();
        let set = kernel.find_set(table, set).ok_or_else(|| missing("dump set", table, set))?;
        Ok(set.elements.values().cloned().collect())
    }

    fn get(&mut self, table: &str, set: &str, keys: &[&[u8]]) -> Result<Vec<OwnedElement>, DoorError> {
        let kernel = self.kernel();
        let set = kernel.find_set(table, set).ok_or_else(|| missing("get set", table, set))?;
        Ok(keys.iter().filter_map(|key| set.elements.get(&objects::Key::plain(key)).cloned()).collect())
    }
}

impl Kernel {
    fn find_set(&self, table: &str, set: &str) -> Option<&objects::Set> {
        self.tables.get(table)?.sets.get(set)
    }
}

fn missing(call: &'static str, table: &str, set: &str) -> DoorError {
    DoorError::Kernel { call, subject: format!("{table} {set}"), errno: Errno::ENOENT, text: None }
}

#[cfg(test)]
mod tests;
