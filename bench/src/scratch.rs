//! Files of this run: one directory for all, so that an interrupted run can take them with it, and the next one those of a run that
//! was killed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;
use tempfile::{NamedTempFile, TempDir};

use crate::{program, say};

/// The directory, which is locked for as long as its owner lives: the kernel lets go of a lock, however its owner ends.
struct Own {
    directory: TempDir,
    _lock: File,
}

enum State {
    /// It is made when it is first used.
    Unused,
    InUse(Own),
    /// The run ends: whoever still goes on gets no more.
    Removed,
}

static STATE: Mutex<State> = Mutex::new(State::Unused);
const PREFIX: &str = "sheave-bench-";
/// The file in it that is locked. A directory without one is none of ours, whatever it is called.
const LOCK: &str = ".in-use-by-sheave-bench";

/// Looks whether there is a place for them.
///
/// # Errors
/// [`crate::refusal::Refusal`], if there will be none where the bench runs.
pub(crate) fn ensure_place() -> Result<()> {
    program::ensure_visible("TMPDIR", &std::env::temp_dir())
}

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
    let State::InUse(Own { directory, _lock }) = std::mem::replace(&mut *lock(), State::Removed) else { return };
    let path = directory.path().to_owned();
    if let Err(error) = directory.close() {
        say(&format!("sheave-bench: {} could not be removed: {error}", path.display()));
    }
}

/// Removes what runs have left that could not do so themselves, for they were killed.
pub(crate) fn remove_abandoned() {
    remove_abandoned_in(&std::env::temp_dir());
}

fn remove_abandoned_in(place: &Path) {
    // Whatever cannot be read or removed stays: it does no harm to this run.
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Some(_lock) = abandoned(&entry.path())
            && fs::remove_dir_all(entry.path()).is_ok()
        {
            say(&format!("removed {}: the run that it belonged to was killed", entry.path().display()));
        }
    }
}

/// Locks a directory of ours whose owner is gone.
fn abandoned(directory: &Path) -> Option<File> {
    let about = fs::symlink_metadata(directory).ok()?;
    if !about.is_dir() || about.uid() != geteuid().as_raw() {
        return None;
    }
    // Neither a link nor something that would keep this waiting.
    let lock = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(directory.join(LOCK)).ok()?;
    lock.try_lock().is_ok().then_some(lock)
}

impl Own {
    fn make_in(place: &Path) -> io::Result<Self> {
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
            let lock = File::create(directory.path().join(LOCK))?;
            match lock.try_lock() {
                // Between the two lines another run may have found it without an owner, and removed it.
                Ok(()) if lock.metadata()?.nlink() > 0 => return Ok(Self { directory, _lock: lock }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

fn within<T>(make: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let mut state = lock();
    if matches!(*state, State::Unused) {
        *state = State::InUse(Own::make_in(&std::env::temp_dir())?);
    }
    match &*state {
        State::InUse(own) => make(own.directory.path()),
        State::Unused | State::Removed => Err(io::Error::other("the run is at its end")),
    }
}

fn lock() -> MutexGuard<'static, State> {
    // What a thread that panicked has left is a whole directory, or none.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let alive = Own::make_in(place.path()).unwrap();
        let killed = Own::make_in(place.path()).unwrap();
        fs::create_dir(killed.directory.path().join("etcd")).unwrap();
        fs::write(killed.directory.path().join("etcd/data"), "data").unwrap();
        // The kernel closes what a killed process had open, and nobody removes its directory.
        let Own { directory, _lock: released } = killed;
        let killed = directory.keep();
        drop(released);
        let strangers = place.path().join("sheave-bench-results");
        fs::create_dir(&strangers).unwrap();
        std::os::unix::fs::symlink(&strangers, place.path().join("sheave-bench-link")).unwrap();

        remove_abandoned_in(place.path());
        assert!(!killed.exists());
        assert!(alive.directory.path().join(LOCK).is_file());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3);
    }
}
