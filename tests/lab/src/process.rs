//! Processes in namespaces that cannot outlive the lab.

use crate::{Error, Namespace, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Output},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    program: String,
    child: Child,
}

/// A program that has ended, with what it wrote.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, with replacement characters for what is not UTF-8.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

/// A process to be started in a namespace, and where to say how that went.
type Birth = (Namespace, Command, mpsc::Sender<Result<Process>>);

impl Process {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The standard streams, if the command asked for pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).map_err(Error::errno("kill", &self.program))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// If it is still running after the limit.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            // Polled: std has no wait with a limit, and a pidfd would be one more kernel interface for a few milliseconds.
            match self.child.try_wait().map_err(Error::call("wait for", &self.program))? {
                Some(status) => return Ok(status),
                None if Instant::now() >= deadline => {
                    return Err(Error::TooLate { what: format!("the end of {}", self.program), limit });
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl From<Output> for Finished {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { status, stdout: text(stdout), stderr: text(stderr) }
    }
}

/// Starts a process in a namespace, bound to the life of this one.
pub(crate) fn spawn(namespace: Namespace, command: Command) -> Result<Process> {
    // PR_SET_PDEATHSIG fires when the *thread* that forked ends, so all forks come from one thread that never does.
    static NURSERY: OnceLock<mpsc::Sender<Birth>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (births, orders) = mpsc::channel::<Birth>();
        thread::spawn(move || {
            for (namespace, command, reply) in orders {
                // The caller may have gone away; then the process is dropped, and so killed.
                let _ = reply.send(give_birth(&namespace, command));
            }
        });
        births
    });
    let (reply, answer) = mpsc::channel();
    let program = command.get_program().to_string_lossy().into_owned();
    let gone = || Error::call("start", program)(std::io::Error::other("the thread that starts processes has ended"));
    if nursery.send((namespace, command, reply)).is_err() {
        return Err(gone());
    }
    answer.recv().map_err(|_| gone())?
}

fn give_birth(namespace: &Namespace, mut command: Command) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    namespace.enter()?;
    // SAFETY: between fork and exec only prctl is called, which is a plain system call and takes no lock.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let child = command.spawn().map_err(Error::call("start", &program))?;
    Ok(Process { program, child })
}
