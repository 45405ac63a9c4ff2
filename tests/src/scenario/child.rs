//! One run of this executable, in a process group of its own, with an end.

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
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
    // A failure is told in a few words, by whom and where; a backtrace of fifty lines would hide them.
    command.env("RUST_BACKTRACE", "0").env_remove("RUST_LIB_BACKTRACE");
    // No daemon of a scenario opens a socket outside of its own directory: only a `World`'s has one.
    command.env("SHEAVE_ADMIN_SOCKET", "none");
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
            // Not reaped yet: as long as the leader is a zombie its group's number is nobody else's.
            match waitid(Id::Pid(self.id()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)? {
                WaitStatus::StillAlive if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                WaitStatus::StillAlive => return self.end().map(|_| None),
                _ => return self.end().map(Some),
            }
        }
    }

    /// Kills what is left of the group, and reaps the leader.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // ESRCH: nothing is left.
        let _ = killpg(self.id(), Signal::SIGKILL);
        self.0.wait()
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_apart() {
        let ending = |name: &str| run(&["--ignored", "--exact", "--nocapture", name], Duration::from_secs(2)).unwrap();
        let here = "scenario::child::tests";
        assert!(
            matches!(ending(&format!("{here}::fails")), Ending::Exited { status: 101, output } if output.contains("on purpose"))
        );
        assert!(matches!(ending(&format!("{here}::is_killed")), Ending::Killed { signal: libc::SIGKILL, .. }));
        let Ending::TooLate { output } = ending(&format!("{here}::hangs")) else { panic!("a hanging child must be too late") };
        // Its own child shares the process group, and so its end.
        let id = output.lines().find_map(|line| line.strip_prefix("sleeper ")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let runs = || std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while runs() {
            assert!(Instant::now() < deadline, "process {id} outlived its group");
            thread::yield_now();
        }
    }

    #[test]
    #[ignore = "the child of another test"]
    fn fails() {
        panic!("on purpose");
    }

    #[test]
    #[ignore = "the child of another test"]
    fn is_killed() {
        nix::sys::signal::raise(Signal::SIGKILL).unwrap();
    }

    #[test]
    #[ignore = "the child of another test"]
    fn hangs() {
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        println!("\nsleeper {}", sleeper.id());
        sleeper.wait().unwrap();
    }
}
