//! Deferred work, and what the loop knows of its node.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::*;
use super::{options, outputs};
use crate::dataplane::Damage;
use crate::model::Family;
use crate::table::{Delta, ServiceTable};

/// A plane that takes everything, and whose deferred work fails as often as it is told to.
#[derive(Default)]
struct Plane {
    failing: u32,
    attempts: Arc<AtomicU32>,
}

impl Dataplane for Plane {
    fn name(&self) -> &'static str {
        "test"
    }

    fn load(&mut self, _: &ServiceTable) -> Result<Commit, PlaneError> {
        Ok(Commit { transactions: 1, ..Commit::default() })
    }

    fn apply(&mut self, _: &Delta, _: &ServiceTable) -> Result<Commit, PlaneError> {
        Ok(Commit { transactions: 1, ..Commit::default() })
    }

    fn repair(&mut self, _: &Damage, _: &ServiceTable) -> Result<Commit, PlaneError> {
        Ok(Commit { transactions: 1, ..Commit::default() })
    }

    fn finish(&mut self) -> Result<Commit, PlaneError> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if self.failing == 0 {
            return Ok(Commit::default());
        }
        self.failing -= 1;
        let source = std::io::Error::from_raw_os_error(libc::EBUSY);
        Err(PlaneError::Kernel { call: "commit", subject: "affinity-4".into(), source })
    }
}

fn sync_loop(plane: Plane) -> SyncLoop {
    SyncLoop::new(Arc::new(options()), Box::new(plane), outputs())
}

#[test]
fn deferred_work_that_fails_is_left_in_peace_for_longer_and_longer() {
    let attempts = Arc::new(AtomicU32::new(0));
    let mut sync_loop = sync_loop(Plane { failing: 8, attempts: attempts.clone() });
    let repair = Damage::Elements(Vec::new());
    sync_loop.kernel = Kernel::Current;
    sync_loop.mend(&repair);
    assert!(sync_loop.unfinished.is_some_and(|at| at <= Instant::now()), "at once");
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = Instant::now();
        sync_loop.finish();
        let due = sync_loop.unfinished.unwrap();
        waits.push(due - before);
        // Commits go on, and do not bring it nearer.
        sync_loop.mend(&repair);
        assert_eq!(sync_loop.unfinished, Some(due));
    }
    let problem = "affinity entries of removed backends: commit affinity-4: ";
    assert!(sync_loop.outputs.health.look().problems[0].starts_with(problem));
    assert!(waits[0] >= FINISH_AGAIN / 2 && waits[7] >= FINISH_AT_LATEST / 2, "{waits:?}");
    sync_loop.finish();
    assert_eq!((sync_loop.unfinished, attempts.load(Ordering::Relaxed)), (None, 9));
    assert_eq!(sync_loop.outputs.health.look().problems, Vec::<String>::new());
    sync_loop.mend(&repair);
    assert!(sync_loop.unfinished.is_some_and(|at| at <= Instant::now()), "the next is at once again");
}

#[test]
fn without_ipv6_policy_is_told_so_whatever_else_changes() {
    let mut sync_loop = sync_loop(Plane::default()).without_ipv6();
    sync_loop.facts.local = [Ipv6Addr::LOCALHOST.into()].into();
    sync_loop.node_changed();
    let context = sync_loop.reconciler.context();
    assert!(context.serves(Family::V4) && !context.serves(Family::V6), "{context:?}");
}
