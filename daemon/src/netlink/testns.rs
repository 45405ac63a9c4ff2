//! A network namespace for one test.

use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;

/// Runs `test` on a thread of its own in a fresh network namespace, which goes with the thread and its sockets. Without root a
/// user namespace is tried, which the kernel refuses to a process with several threads; then one line says that nothing was tested.
pub(crate) fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    let flags = if geteuid().is_root() { CloneFlags::CLONE_NEWNET } else { CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET };
    let run = move || -> Result<T, Errno> {
        unshare(flags)?;
        Ok(test())
    };
    let outcome = thread::scope(|scope| scope.spawn(run).join());
    match outcome {
        Ok(Ok(result)) => Some(result),
        Ok(Err(errno)) => {
            eprintln!("skipped: no network namespace: {errno}; try `unshare -rn`");
            None
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
