//! The sign of a `sheave run` that stands by: a table that goes with its process, and has nothing in it.

use super::owned_table::{self, OwnedTable};
use crate::dataplane::PlaneError;
use crate::netlink::nft::{DoorError, NftDoor};

/// The table, of family `inet`.
pub const STAND_BY_TABLE: &str = "sheave-stand-by";

/// There as long as it lives.
#[derive(Debug)]
pub struct StandBySign {
    _table: OwnedTable,
}

impl StandBySign {
    /// Makes the table in this thread's network namespace.
    ///
    /// # Errors
    /// [`PlaneError::Owned`] if another process stands by; `EOPNOTSUPP` or `EINVAL` before Linux 5.12.
    pub fn take() -> Result<Self, PlaneError> {
        OwnedTable::take(STAND_BY_TABLE, |_| {}).map(|table| Self { _table: table })
    }
}

/// Whether a process, this one or another, stands by in this network namespace.
///
/// # Errors
/// See [`DoorError`].
pub fn stands_by(door: &mut dyn NftDoor) -> Result<bool, DoorError> {
    owned_table::is_owned(door, STAND_BY_TABLE)
}

/// Whether a table that its process takes with it is here without one: a leftover of a saved ruleset.
///
/// # Errors
/// See [`DoorError`].
pub fn is_left_over(door: &mut dyn NftDoor, table: &str) -> Result<bool, DoorError> {
    Ok(door.table(table)?.is_some_and(|table| table.owner.is_none()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::tests::namespace::{in_namespace, nft};
    use super::*;
    use crate::netlink::nft::KernelNft;

    #[test]
    fn one_process_stands_by_until_its_end() {
        in_namespace(|| {
            let mut door = KernelNft::open().unwrap();
            nft(&["-f", "-"], "table inet sheave-stand-by { }");
            assert!(!stands_by(&mut door).unwrap(), "nobody owns it");
            assert!(super::super::cleanup(&mut door).unwrap() && nft(&["list", "tables"], "").is_empty(), "a leftover goes");
            nft(&["-f", "-"], "table inet sheave-stand-by { }");
            let sign = StandBySign::take().expect("the first of this namespace");
            assert!(stands_by(&mut door).unwrap());
            assert!(!super::super::cleanup(&mut door).unwrap(), "it is its process's");
            let second = StandBySign::take().expect_err("there is one");
            assert!(matches!(second, PlaneError::Owned { table: STAND_BY_TABLE }), "{second}");
            drop(sign);
            // A child that another test has just forked holds all sockets of this process until it becomes another program.
            let patience = Instant::now() + Duration::from_secs(10);
            while stands_by(&mut door).unwrap() && Instant::now() < patience {
                std::thread::yield_now();
            }
            assert!(!stands_by(&mut door).unwrap() && nft(&["list", "tables"], "").is_empty());
        });
    }
}
