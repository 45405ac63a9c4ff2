//! One run of this executable, in a process group of its own, with an end.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    env,
    io::{self, Read as _, Seek as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How a child ended. The output is both streams, as they came.
pub(super) enum Ending {
    /// It exited.
    Exited { status: i32, output: String },
    /// A signal ended it.
    Killed { signal: i32, output: String },
    /// It was killed for being too late.
    TooLate { output: String },
}

/// A child that takes its whole process group with it.
struct Group(Child);

/// Runs this executable with other arguments.
pub(super) fn run(arguments: &[&str], limit: Duration) -> io::Result<Ending> {
    // A file and not a pipe: a pipe ends only when the last descendant has closed it, and it can be full.
    let mut output = tempfile::tempfile()?;
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
    // SAFETY: between fork and exec only prctl is called, a plain system call.
    unsafe {
        // The thread that forks stays until the child has ended, so this is the death of the runner.
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let mut group = Group(command.spawn()?);
    let status = group.wait(limit)?;
    drop(group);
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    let output = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match status {
        None => Ending::TooLate { output },
        Some(status) => match (status.code(), status.signal()) {
            (Some(status), _) => Ending::Exited { status, output },
            (None, signal) => Ending::Killed { signal: signal.unwrap_or_default(), output },
        },
    })
}

impl Group {
    /// Waits for the child; `None` if it is still running after the limit.
    fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.0.try_wait()? {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                ended => return Ok(ended),
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whatever the scenario started and left. It fails only if nothing is left.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
