//! How far a long run is: a bar on a terminal, a line for each step elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::say;

/// On stderr, which is not for results. Gone when dropped.
pub(crate) struct Progress(ProgressBar);

/// The one that is on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

impl Progress {
    /// Of a run with so many steps.
    pub(crate) fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {wide_bar} {pos}/{len}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
            *shown() = Some(bar.clone());
        }
        Self(bar)
    }

    /// Of something small within something larger that has one.
    pub(crate) fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    /// The next step begins.
    pub(crate) fn begin(&self, what: &str) {
        if self.0.is_hidden() {
            say(what);
        } else {
            self.0.set_message(what.to_owned());
        }
    }

    /// It is done.
    pub(crate) fn done(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        if !self.0.is_hidden() {
            *shown() = None;
        }
    }
}

/// Writes to the terminal, which has no bar meanwhile: lines would run into it.
pub(crate) fn aside(write: impl FnOnce()) {
    // Not within the lock: what is written may have to wait for a reader.
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}
