//! Files of this run: one directory for all, so that an interrupted run can take them with it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use tempfile::{NamedTempFile, TempDir};

/// Made when first used.
static DIRECTORY: Mutex<Option<TempDir>> = Mutex::new(None);
/// While a process that is about to end still writes there.
const ATTEMPTS: u32 = 5;

/// A file that goes when it is dropped, and with the run.
pub(crate) fn file() -> Result<NamedTempFile> {
    within(|directory| NamedTempFile::new_in(directory)).context("making a file of the run's own")
}

/// A directory that goes when it is dropped, and with the run.
pub(crate) fn directory() -> Result<TempDir> {
    within(|directory| TempDir::new_in(directory)).context("making a directory of the run's own")
}

/// Removes all of it: at the end of a run, however it came.
pub(crate) fn remove() {
    let Some(directory) = lock().take() else { return };
    let path = directory.keep();
    for _ in 0..ATTEMPTS {
        if std::fs::remove_dir_all(&path).is_ok() {
            return;
        }
    }
    crate::say(&format!("sheave-bench: {} could not be removed", path.display()));
}

fn within<T>(make: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    let mut directory = lock();
    let own = match directory.take() {
        Some(own) => own,
        None => tempfile::Builder::new().prefix("sheave-bench-").tempdir()?,
    };
    make(directory.insert(own).path())
}

fn lock() -> MutexGuard<'static, Option<TempDir>> {
    // What a thread that panicked has left is a whole directory, or none.
    DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner)
}
