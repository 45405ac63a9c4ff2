//! A table that the kernel lets nobody but its owner change (`flags owner`, Linux 5.12), and that goes with its socket, that is, with its
//! process.

use nix::errno::Errno;

use super::error;
use crate::dataplane::PlaneError;
use crate::netlink::nft::{Batch, DoorError, KernelNft, NftDoor};

/// A table of this process's, of family `inet`, there as long as it lives.
#[derive(Debug)]
pub(super) struct OwnedTable {
    /// The owner: the table goes with this socket.
    _door: KernelNft,
}

impl OwnedTable {
    /// Makes the table in this thread's network namespace, with what `fill` puts into it.
    ///
    /// # Errors
    /// [`PlaneError::Owned`] if another process has it; `EOPNOTSUPP` or `EINVAL` before Linux 5.12.
    pub(super) fn take(table: &'static str, fill: impl FnOnce(&mut Batch)) -> Result<Self, PlaneError> {
        let mut door = KernelNft::open().map_err(error::door)?;
        let mut batch = Batch::new();
        // A table of that name without an owner is a leftover, of a saved ruleset for example. One with an owner refuses all of this.
        batch.add_table(table, None);
        batch.delete_table(table);
        batch.add_owned_table(table);
        fill(&mut batch);
        match door.commit(batch) {
            Ok(_) => Ok(Self { _door: door }),
            // Not a lack of permission: that shows when the door is opened.
            Err(refused) if matches!(refused.errno(), Some(Errno::EPERM | Errno::EEXIST)) => Err(PlaneError::Owned { table }),
            Err(other) => Err(error::commit(other)),
        }
    }
}

/// Whether a process, this one or another, has the table. A leftover that nobody owns does not count.
pub(super) fn is_owned(door: &mut dyn NftDoor, table: &str) -> Result<bool, DoorError> {
    Ok(door.table(table)?.is_some_and(|table| table.owner.is_some()))
}
