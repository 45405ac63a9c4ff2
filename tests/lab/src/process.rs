//! Processes in namespaces that cannot outlive the lab.

use crate::{Error, Namespace, Result};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    convert::Infallible,
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
    /// Of [`spawn_contained`]: keeps the thread that forked it, until after the process has ended.
    _parent_thread: Option<mpsc::Sender<Infallible>>,
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

/// Starts a process in a namespace as the first one of a PID namespace, bound to the life of this one.
pub(crate) fn spawn_contained(namespace: Namespace, command: Command) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (reply, answer) = mpsc::channel();
    let (parent, childless) = mpsc::channel::<Infallible>();
    // A thread of its own: one that has unshared CLONE_NEWPID forks into that namespace ever after, and only who is privileged
    // outside, too, could take it back. PR_SET_PDEATHSIG wants it to be there for as long as its child.
    let bear = move || {
        // The caller may have gone away: see `spawn`.
        let _ = reply.send(give_contained_birth(&namespace, command));
        let _ = childless.recv();
    };
    thread::Builder::new().name("parent".to_owned()).spawn(bear).map_err(Error::call("spawn a thread to start", &program))?;
    let gone = |_| Error::call("start", &program)(std::io::Error::other("the thread that starts it has ended"));
    let mut process = answer.recv().map_err(gone)??;
    process._parent_thread = Some(parent);
    Ok(process)
}

fn give_birth(namespace: &Namespace, mut command: Command) -> Result<Process> {
    bind(&mut command);
    start(namespace, command)
}

fn give_contained_birth(namespace: &Namespace, mut command: Command) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    unshare(CloneFlags::CLONE_NEWPID).map_err(Error::errno("unshare CLONE_NEWPID for", program))?;
    bind(&mut command);
    // SAFETY: between fork and exec only unshare and mount are called, plain system calls that take no lock.
    unsafe {
        command.pre_exec(|| {
            mount_own_proc();
            Ok(())
        });
    }
    start(namespace, command)
}

/// Lets the kernel kill the process when the thread ends that forks it.
fn bind(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is a plain system call and takes no lock.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

fn start(namespace: &Namespace, mut command: Command) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    namespace.enter()?;
    let child = command.spawn().map_err(Error::call("start", &program))?;
    Ok(Process { program, child, _parent_thread: None })
}

/// Lets the calling process see itself in `/proc` by the ids it knows. As well as it goes: in a user namespace within a container whose
/// `/proc` is partly hidden, the kernel allows none to be mounted, and `/proc/self` is right all the same.
fn mount_own_proc() {
    let (none, root, proc) = (std::ptr::null(), c"/".as_ptr(), c"proc".as_ptr());
    let hardened = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all pointers are to static strings, or null where mount(2) ignores them.
    unsafe {
        // Private first, or the mount would reach whoever this mount namespace was copied from.
        if libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, root, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
        {
            libc::mount(proc, c"/proc".as_ptr(), proc, hardened, none.cast());
        }
    }
}
