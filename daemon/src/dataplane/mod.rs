//! Planes: what renders the [`ServiceTable`] into a kernel subsystem.

pub mod nftables;

use std::time::Duration;

use crate::table::{Delta, PortId, ServiceTable};

/// A dataplane. Synchronous: the kernel answers before `sendmsg` returns, and the sync loop owns a thread.
pub trait Dataplane: Send {
    /// Its name as in `--plane`.
    fn name(&self) -> &'static str;

    /// Writes everything: at the start, after a restart (adopting what is there), and to repair when in doubt.
    /// Established flows, affinity and traffic in general go on while it works; the switch is one transaction.
    ///
    /// # Errors
    /// The call, its subject and the kernel's words. The kernel keeps what it had.
    fn load(&mut self, table: &ServiceTable) -> Result<Commit, PlaneError>;

    /// Brings the kernel from the previous generation to the table's. Cost follows the delta.
    ///
    /// # Errors
    /// As [`Dataplane::load`]. After an error the caller loads.
    fn apply(&mut self, delta: &Delta, table: &ServiceTable) -> Result<Commit, PlaneError>;

    /// Mends what somebody else changed, as told by the monitor.
    ///
    /// # Errors
    /// As [`Dataplane::apply`].
    fn repair(&mut self, damage: &Damage, table: &ServiceTable) -> Result<Commit, PlaneError>;

    /// Whether the kernel has all that the last load wrote, as far as can be told quickly. Asked after a load during which somebody
    /// else committed something, perhaps to our table; `false` has it loaded once more.
    fn is_whole(&mut self) -> bool {
        false
    }

    /// Work that a commit left for later because it is slow and nothing waits for it: call it when the loop has a moment, again
    /// after an error. A plane without such work does nothing.
    ///
    /// # Errors
    /// As [`Dataplane::apply`], but what was committed stays in force and nothing has to be loaded.
    fn finish(&mut self) -> Result<Commit, PlaneError> {
        Ok(Commit::default())
    }
}

/// What somebody else did to our objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Rules, chains, sets or the table itself were touched, or the account of events has a gap: write everything.
    Structure(String),
    /// Elements of these sets were added or removed behind our back.
    Elements(Vec<DamagedElement>),
}

impl Damage {
    /// More damaged elements than this are not mended one by one: writing everything is quicker.
    pub const MOST_ELEMENTS: usize = 2_000;
}

/// One element that was changed by somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DamagedElement {
    /// Name of the set in the kernel.
    pub set: String,
    /// The key, as the kernel has it.
    pub key: Vec<u8>,
    /// It was removed (and may be ours to restore), or added (and may have to go).
    pub removed: bool,
}

/// What a commit did and cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Kernel transactions.
    pub transactions: u32,
    /// Set and map elements written or deleted.
    pub elements: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Time in the kernel.
    pub kernel: Duration,
    /// Time spent encoding.
    pub encode: Duration,
    /// What somebody else had made under names of ours, and is gone.
    pub replaced: Vec<String>,
    /// Service ports that do not fit, with the reason: those that did before, or are new.
    pub spoiled: Vec<(PortId, String)>,
    /// Service ports that an earlier commit left out, and that are in the kernel now.
    pub recovered: Vec<PortId>,
}

impl Commit {
    /// Both as one.
    #[must_use]
    pub fn followed_by(mut self, next: Self) -> Self {
        let Self { transactions, elements, bytes, kernel, encode, replaced, spoiled, recovered } = next;
        self.transactions += transactions;
        self.elements += elements;
        self.bytes += bytes;
        self.kernel += kernel;
        self.encode += encode;
        self.replaced.extend(replaced);
        self.spoiled.extend(spoiled);
        self.recovered.extend(recovered);
        self
    }
}

/// A plane's failure.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The kernel refused.
    #[error("{call} {subject}: {source}")]
    Kernel {
        /// What we asked for: `commit`, `list tables`.
        call: &'static str,
        /// On what: the object by its name in `nft list`.
        subject: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The table belongs to a process (`flags owner`, Linux 5.12): the kernel lets nobody else change it.
    #[error(
        "table inet {table} belongs to another process, most likely another `sheave run` on this node; \
         `nft list table inet {table}` shows whose it is: stop that process"
    )]
    Owned {
        /// The table.
        table: &'static str,
    },
    /// The kernel lacks something that has no fallback.
    #[error("{missing}: {advice}")]
    Unsupported {
        /// What is missing.
        missing: String,
        /// What to do about it.
        advice: &'static str,
    },
}
