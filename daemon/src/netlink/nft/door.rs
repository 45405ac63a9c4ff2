//! The door itself, and what can go wrong at it.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;

use super::batch::Batch;
use super::element::OwnedElement;
use super::reply::{ChainInfo, RuleInfo, SetInfo, TableInfo};

/// nf_tables of one network namespace.
pub trait NftDoor: Send {
    /// Commits a transaction: all of it or nothing. An empty one never reaches the kernel.
    ///
    /// # Errors
    /// See [`CommitError`]; only after [`CommitError::Unknown`] may the kernel have changed.
    fn commit(&mut self, batch: Batch) -> Result<CommitInfo, CommitError>;

    /// Bytes that one batch may have ([`Batch::len`]).
    fn batch_limit(&self) -> usize;

    /// The port that events of our own transactions carry.
    fn port_id(&self) -> u32;

    /// Whether [`Batch::destroy_elements`] works here (kernel 6.3 and newer).
    fn has_destroy(&mut self) -> bool;

    /// The generation of the namespace's whole ruleset: every transaction of anyone adds one.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn generation(&mut self) -> Result<u32, DoorError>;

    /// All tables of family `inet`.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn tables(&mut self) -> Result<Vec<TableInfo>, DoorError>;

    /// The sets and maps of a table, anonymous ones included; none where there is no such table.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn sets(&mut self, table: &str) -> Result<Vec<SetInfo>, DoorError>;

    /// The chains of a table; none where there is no such table.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn chains(&mut self, table: &str) -> Result<Vec<ChainInfo>, DoorError>;

    /// The rules of a table, chain by chain in their order; none where there is no such table.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn rules(&mut self, table: &str) -> Result<Vec<RuleInfo>, DoorError>;

    /// All elements of a set, in no order. Slow: 2.4 s for 250,000, because the kernel walks the set again for every page.
    ///
    /// # Errors
    /// `ENOENT` without the set; [`DoorError::Interrupted`] when transactions of others never let it finish.
    fn dump(&mut self, table: &str, set: &str) -> Result<Vec<OwnedElement>, DoorError>;

    /// Those elements of a set that have one of these keys, in the order of the keys; missing ones are left out. Not for interval
    /// sets.
    ///
    /// # Errors
    /// `ENOENT` without the set.
    fn get(&mut self, table: &str, set: &str, keys: &[&[u8]]) -> Result<Vec<OwnedElement>, DoorError>;

    /// One table of family `inet`.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn table(&mut self, name: &str) -> Result<Option<TableInfo>, DoorError> {
        Ok(self.tables()?.into_iter().find(|table| table.name == name))
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// See [`DoorError`].
    fn table_exists(&mut self, name: &str) -> Result<bool, DoorError> {
        Ok(self.table(name)?.is_some())
    }
}

/// What a commit was and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitInfo {
    /// Elements written and deleted.
    pub elements: u64,
    /// Messages between begin and end.
    pub messages: usize,
    /// Bytes sent.
    pub bytes: usize,
    /// Time in the kernel.
    pub kernel: Duration,
}

/// Why a commit did not, or may not have, happened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommitError {
    /// The kernel found something wrong. Nothing was changed.
    #[error("commit: {}", listing(refusals))]
    Refused {
        /// Everything it found, in the order of the batch: at most one for each message.
        refusals: Vec<Refusal>,
    },
    /// The batch does not fit into the send buffer. Nothing was sent.
    #[error("commit: batch of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// The batch could not be sent. Nothing was changed.
    #[error("commit: send {bytes} bytes: {errno}")]
    Send {
        /// What it has.
        bytes: usize,
        /// The socket's answer.
        errno: Errno,
    },
    /// The answer was lost (`ENOBUFS`) or did not come: read back what the kernel has.
    #[error("commit: outcome unknown: {errno}")]
    Unknown {
        /// `ENOBUFS` for a lost answer, `ENOMSG` for none.
        errno: Errno,
    },
}

/// One thing that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The object: `add element sheave endpoints-4`; `transaction` when it is the whole. What fails only at the commit is blamed
    /// on the first message by the kernel; the subject then says both.
    pub subject: String,
    /// Which element, if it is one.
    pub element: Option<RefusedElement>,
    /// The kernel's reason.
    pub errno: Errno,
    /// The kernel's words, when it has any.
    pub text: Option<String>,
}

/// Which element was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedElement {
    /// Its place among those pushed in one go, from 0.
    pub index: u64,
    /// Its key.
    pub key: Vec<u8>,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The socket could not be made.
    #[error("{call}: {source}")]
    Open {
        /// What was asked for.
        call: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("{call} {subject}: {errno}{}", text.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Kernel {
        /// What was asked for: `dump set`.
        call: &'static str,
        /// Of what.
        subject: String,
        /// The kernel's reason.
        errno: Errno,
        /// The kernel's words, when it has any.
        text: Option<String>,
    },
    /// Others changed the ruleset during each of several attempts.
    #[error("{call} {subject}: interrupted by other transactions")]
    Interrupted {
        /// What was asked for.
        call: &'static str,
        /// Of what.
        subject: String,
    },
    /// The kernel stopped answering half-way.
    #[error("{call} {subject}: answer without an end")]
    NoAnswer {
        /// What was asked for.
        call: &'static str,
        /// Of what.
        subject: String,
    },
}

impl DoorError {
    /// The kernel's reason, where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl CommitError {
    /// The kernel's first reason, where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { refusals } => refusals.first().map(|refusal| refusal.errno),
            Self::Send { errno, .. } | Self::Unknown { errno } => Some(*errno),
            Self::TooLarge { .. } => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(RefusedElement { index, key }) = &self.element {
            write!(f, " #{index} ")?;
            key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        write!(f, ": {}", self.errno)?;
        self.text.iter().try_for_each(|text| write!(f, " ({text})"))
    }
}

/// The first few: a bad load can have one refusal for each of hundreds of messages.
fn listing(refusals: &[Refusal]) -> String {
    const SHOWN: usize = 3;
    let mut text = refusals.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if let Some(more) = refusals.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("; and {more} more"));
    }
    text
}
