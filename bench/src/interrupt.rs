//! An end from outside: Ctrl-C, SIGTERM, or a terminal that is gone.
//!
//! There is no orderly way back through whatever waits. Everything that was started is ended, what was measured is handed out, and the
//! process ends: the networks go with it. In this order, for handing out may wait for a reader (`| less`); another signal ends that, too.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{self, SigHandler, Signal as Kill, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal as listen_to};

use crate::{machine, scratch};

/// For the kernel to take what was killed apart: a transaction of a large ruleset cannot be killed half-way.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits for an interrupt on a thread of its own. `take` takes what there is from the run, if that is under way still; then this ends all
/// that was started, `deliver` hands it out, by the signal's name, and the process ends with 128 and the signal's number, as shells have it.
///
/// # Errors
/// If the kernel gives no thread or no signals.
pub(crate) fn watch<T>(
    take: impl FnOnce() -> Option<T> + Send + 'static,
    deliver: impl FnOnce(&str, T) + Send + 'static,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        let listen = |kind| listen_to(kind).context("listening for signals");
        // Ignored: it was begun by nohup, and is to outlive its terminal.
        let hangup = (!machine::ignores(libc::SIGHUP)).then(|| listen(SignalKind::hangup())).transpose()?;
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, hangup)
    };
    let watch = move || {
        let (name, number) = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => ("SIGINT", libc::SIGINT),
                _ = terminate.recv() => ("SIGTERM", libc::SIGTERM),
                () = received(hangup.as_mut()) => ("SIGHUP", libc::SIGHUP),
            }
        });
        stop_listening(hangup.is_some());
        if let Some(taken) = take() {
            end_children();
            scratch::remove();
            deliver(name, taken);
            // Whatever another thread has begun meanwhile, before it saw that all is over.
            end_children();
            std::process::exit(128 + number);
        }
    };
    thread::Builder::new().name("interrupts".into()).spawn(watch).context("watching for interrupts")?;
    Ok(())
}

/// The next signal ends the process, as if nobody had ever listened. `hangup`: unless it is ignored.
fn stop_listening(hangup: bool) {
    for signal in [Some(Kill::SIGINT), Some(Kill::SIGTERM), hangup.then_some(Kill::SIGHUP)].into_iter().flatten() {
        // SAFETY: no handler is installed; the default is the kernel's own. It fails for no signal of these.
        let _ = unsafe { signal::signal(signal, SigHandler::SigDfl) };
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Ends every process that this one started, and with each all that it started. Afterwards nobody writes any more.
fn end_children() {
    let mut children = children();
    for child in &children {
        // Fails only if it has ended.
        let _ = kill(*child, Kill::SIGKILL);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Whoever started it may have been quicker, and taken the answer: then it is no child any more.
        children.retain(|child| matches!(waitpid(*child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)));
        if children.is_empty() || Instant::now() > deadline {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn children() -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| machine::parent(*id) == Some(std::process::id())).map(|id: u32| Pid::from_raw(id.cast_signed())).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_found_by_its_parent() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_raw(child.id().cast_signed());
        assert!(children().contains(&id));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!children().contains(&id));
    }
}
