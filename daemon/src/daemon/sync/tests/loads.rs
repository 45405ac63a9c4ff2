//! Loads beside others who write nf_tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::*;
use super::{options, outputs};
use crate::dataplane::nftables::{NftablesPlane, TABLE};
use crate::netlink::nft::{Batch, KernelNft, NftDoor as _};
use crate::netlink::testns::in_namespace;
use crate::table::{Delta, ServiceTable};

/// A plane beside whose first load somebody else commits, as it ends.
struct Crowded<F> {
    plane: NftablesPlane,
    stranger: KernelNft,
    does: F,
    loads: Arc<AtomicU32>,
}

impl<F: Fn(&mut Batch) + Send> Dataplane for Crowded<F> {
    fn name(&self) -> &'static str {
        self.plane.name()
    }

    fn load(&mut self, table: &ServiceTable) -> Result<Commit, PlaneError> {
        let commit = self.plane.load(table)?;
        if self.loads.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut batch = Batch::new();
            (self.does)(&mut batch);
            self.stranger.commit(batch).expect("it is what others may do");
        }
        Ok(commit)
    }

    fn apply(&mut self, delta: &Delta, table: &ServiceTable) -> Result<Commit, PlaneError> {
        self.plane.apply(delta, table)
    }

    fn repair(&mut self, damage: &Damage, table: &ServiceTable) -> Result<Commit, PlaneError> {
        self.plane.repair(damage, table)
    }

    fn is_whole(&mut self) -> bool {
        self.plane.is_whole()
    }
}

/// How many loads it takes beside somebody who does this.
fn loads_beside(does: impl Fn(&mut Batch) + Send + 'static) -> Option<u32> {
    in_namespace(|| {
        let door = KernelNft::open().unwrap();
        let (control, _inbox) = mpsc::channel(8);
        let watchman = Watchman::start(door.port_id(), control, outputs().health).unwrap();
        let loads = Arc::new(AtomicU32::new(0));
        let plane = NftablesPlane::new(Box::new(door));
        let crowded = Crowded { plane, stranger: KernelNft::open().unwrap(), does, loads: Arc::clone(&loads) };
        let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(crowded), outputs()).watched_by(watchman);
        sync_loop.load().unwrap();
        assert!(sync_loop.plane.is_whole(), "however it came about");
        loads.load(Ordering::Relaxed)
    })
}

#[test]
fn a_load_is_not_repeated_for_what_others_do_to_their_own_tables() {
    let loads = loads_beside(|batch| batch.add_table("theirs", None));
    assert!(loads.is_none_or(|loads| loads == 1), "{loads:?}");
}

#[test]
fn a_load_is_repeated_when_our_table_was_touched_meanwhile() {
    let loads = loads_beside(|batch| batch.delete_table(TABLE));
    assert!(loads.is_none_or(|loads| loads == 2), "{loads:?}");
    let loads = loads_beside(|batch| batch.flush_chain(TABLE, "nat-prerouting"));
    assert!(loads.is_none_or(|loads| loads == 2), "{loads:?}");
}

/// A plane whose table somebody pulls away while it loads, so many times.
struct Pulled(u32);

impl Dataplane for Pulled {
    fn name(&self) -> &'static str {
        "test"
    }

    fn load(&mut self, _: &ServiceTable) -> Result<Commit, PlaneError> {
        if self.0 == 0 {
            return Ok(Commit { transactions: 1, ..Commit::default() });
        }
        self.0 -= 1;
        let source = std::io::Error::from_raw_os_error(libc::ENOENT);
        Err(PlaneError::Kernel { call: "commit", subject: "add elements to endpoints-4".into(), source })
    }

    fn apply(&mut self, _: &Delta, table: &ServiceTable) -> Result<Commit, PlaneError> {
        self.load(table)
    }

    fn repair(&mut self, _: &Damage, table: &ServiceTable) -> Result<Commit, PlaneError> {
        self.load(table)
    }
}

#[test]
fn a_repair_that_is_pulled_away_is_made_again_at_once_and_then_with_pauses() {
    let after = |pulls| {
        let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(Pulled(pulls)), outputs());
        sync_loop.kernel = Kernel::Current;
        sync_loop.mend(&Damage::Structure("the table was deleted".into()));
        (sync_loop.kernel, sync_loop.retry_at.is_some())
    };
    assert_eq!(after(0), (Kernel::Current, false));
    assert_eq!(after(1), (Kernel::Current, false));
    assert_eq!(after(2), (Kernel::Doubtful, true));
}
