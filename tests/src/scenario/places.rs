//! How many scenarios run at once: as many as there are cores, and beside them some that only wait.

use libtest_mimic::Arguments;
use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

/// Where scenarios wait for their turn. Each has a thread of its own to do so, or those that come first would keep the others out.
pub(super) struct Turns {
    /// For those that need a core.
    working: Places,
    /// For those that wait.
    waiting: Places,
}

/// Places for so many scenarios at once.
struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
pub(super) struct Place<'a>(&'a Places);

/// Scenarios that wait, at once: each is a daemon that sleeps, but they all begin by building a node.
const WAITING: usize = 6;

impl Turns {
    /// One place for each thread that was asked for, or else for each core, and the threads for that: `waiting` is how many scenarios there
    /// are that wait. `--test-threads 1` means one after the other.
    pub(super) fn new(arguments: &mut Arguments, waiting: usize) -> Self {
        let places = arguments.test_threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
        arguments.test_threads = Some(if places > 1 { places + waiting } else { places });
        Self { working: Places::new(places), waiting: Places::new(WAITING) }
    }

    /// Waits for a turn.
    pub(super) fn take(&self, waits: bool) -> Place<'_> {
        if waits { self.waiting.take() } else { self.working.take() }
    }
}

impl Places {
    fn new(free: usize) -> Self {
        Self { free: Mutex::new(free), freed: Condvar::new() }
    }

    /// Waits for a place.
    fn take(&self) -> Place<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    };

    /// More scenarios that wait than may at once, all of them first, and none ends before the others have.
    #[test]
    fn as_many_at_once_as_there_are_places() {
        const WAIT: usize = 2 * WAITING;
        let mut arguments = Arguments { test_threads: Some(2), ..Arguments::default() };
        let turns = Turns::new(&mut arguments, WAIT);
        assert_eq!(arguments.test_threads, Some(2 + WAIT));
        let (waiting, inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let worked = OnceLock::new();
        thread::scope(|scope| {
            for _ in 0..WAIT {
                scope.spawn(|| {
                    let _place = turns.take(true);
                    assert!(waiting.fetch_add(1, Ordering::SeqCst) < WAITING);
                    worked.wait();
                    waiting.fetch_sub(1, Ordering::SeqCst);
                });
            }
            thread::scope(|scope| {
                for _ in 0..2 * 2 {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            let _place = turns.take(false);
                            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                }
            });
            worked.set(()).expect("once");
        });
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn one_after_the_other_where_that_was_asked_for() {
        let mut arguments = Arguments { test_threads: Some(1), ..Arguments::default() };
        Turns::new(&mut arguments, 4);
        assert_eq!(arguments.test_threads, Some(1));
    }
}
