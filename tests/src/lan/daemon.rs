//! The processes of a [`Lan`](super::Lan).

use crate::world::{executable, log::Log};
use anyhow::Context as _;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use sheave_lab::{Finished, Host, Process};
use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// A machine, and the `/run` that is its own: it outlives the processes, as a machine's does, and no two machines share it.
pub(super) struct Home {
    pub(super) host: Host,
    run: TempDir,
}

/// A running `sheave`.
pub(super) struct Daemon {
    process: Process,
    log: Log,
}

/// How long one may take to end after SIGTERM: the pod's `terminationGracePeriodSeconds`.
const END_LIMIT: Duration = Duration::from_secs(30);

impl Home {
    pub(super) fn new(host: Host) -> anyhow::Result<Self> {
        Ok(Self { host, run: tempfile::tempdir().context("cannot make a directory for /run")? })
    }

    /// Runs a command of sheave to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let mut command = self.command()?;
        command.args(arguments).stdin(Stdio::null());
        let output = self.host.run(|| command.output())?;
        Ok(output.context("cannot run sheave")?.into())
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(executable()?);
        let run = CString::new(self.run.path().as_os_str().as_bytes()).context("the path of a temporary directory")?;
        let own_run = move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(Some(run.as_c_str()), c"/run", None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
        };
        // SAFETY: between fork and exec only system calls are made, with strings that are there already.
        unsafe { command.pre_exec(own_run) };
        Ok(command)
    }
}

impl Daemon {
    /// Starts it; its log is repeated with a name before each line.
    pub(super) fn start(home: &Home, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = home.command()?;
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = home.host.spawn(command)?;
        let stream = process.child().stderr.take().context("the daemon's standard error is a pipe")?;
        Ok(Self { process, log: Log::follow(name, stream) })
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Sends a signal and waits for the end.
    pub(super) fn end(mut self, signal: Signal) -> anyhow::Result<ExitStatus> {
        self.process.signal(signal)?;
        Ok(self.process.wait(END_LIMIT)?)
    }
}
