//! Long-running flows: traffic that goes on while a test does things to the daemon, and that notices everything.

mod fresh;
mod tcp;
mod udp;

pub use fresh::{FreshFlows, FreshReport};
pub use tcp::{TcpFlow, TcpReport};
pub use udp::{UdpFlow, UdpReport};

use crate::{Error, Host, Result};
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What both kinds of flow share: a thread in the host's namespace that keeps a report up to date until it is told to stop.
#[derive(Debug)]
struct Flow<R> {
    shared: Arc<Shared<R>>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared<R> {
    report: Mutex<R>,
    /// Signalled at every change of the report.
    changed: Condvar,
    stop: AtomicBool,
}

impl<R: Clone + Default + Send + 'static> Flow<R> {
    /// Starts the work in the host's namespace.
    fn start(host: &Host, work: impl FnOnce(&Shared<R>) + Send + 'static) -> Result<Self> {
        let shared = Arc::new(Shared { report: Mutex::default(), changed: Condvar::new(), stop: AtomicBool::new(false) });
        let own = Arc::clone(&shared);
        let thread = host.start(move || {
            work(&own);
            // A waiter must not wait for a flow that is over.
            own.stop.store(true, Ordering::Relaxed);
            own.changed.notify_all();
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits until the report satisfies a condition.
    fn wait_until(&self, what: &str, limit: Duration, enough: impl Fn(&R) -> bool) -> Result<R> {
        let deadline = Instant::now() + limit;
        let mut report = self.shared.report();
        loop {
            if enough(&report) {
                return Ok(report.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.stopped() {
                return Err(Error::TooLate { what: what.to_owned(), limit });
            }
            (report, _) = self.shared.changed.wait_timeout(report, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells the thread to finish, waits for it, and hands out the final report.
    fn stop(&mut self) -> R {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have failed but by a panic, which the report of a scenario shows on standard error.
            let _ = thread.join();
        }
        self.shared.report().clone()
    }
}

impl<R> Drop for Flow<R> {
    fn drop(&mut self) {
        // Not joined: a flow that is dropped is of no interest any more, and its thread ends within a tick.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl<R> Shared<R> {
    fn report(&self) -> MutexGuard<'_, R> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the report and wakes those who wait for that.
    fn update(&self, change: impl FnOnce(&mut R)) {
        change(&mut self.report());
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
