//! How many scenarios run at once: as many as there are cores, and beside them some that only wait.

use libtest_mimic::Arguments;
use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

/// Places for scenarios that need a core.
pub(super) struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them, until it is dropped.
pub(super) struct Place<'a>(&'a Places);

/// Scenarios that wait, at once: each is a daemon that sleeps, but they all begin by building a node.
const WAITING: usize = 6;

impl Places {
    /// One place for each thread that was asked for, or else for each core. There are more threads than that when more than one
    /// scenario may run: `--test-threads 1` means one after the other.
    pub(super) fn new(arguments: &mut Arguments) -> Self {
        let places = arguments.test_threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
        arguments.test_threads = Some(if places > 1 { places + WAITING } else { places });
        Self { free: Mutex::new(places), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub(super) fn take(&self) -> Place<'_> {
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn as_many_at_once_as_there_are_places() {
        let mut arguments = Arguments { test_threads: Some(2), ..Arguments::default() };
        let places = Places::new(&mut arguments);
        assert_eq!(arguments.test_threads, Some(2 + WAITING));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..2 + WAITING {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _place = places.take();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn one_after_the_other_where_that_was_asked_for() {
        let mut arguments = Arguments { test_threads: Some(1), ..Arguments::default() };
        Places::new(&mut arguments);
        assert_eq!(arguments.test_threads, Some(1));
    }
}
