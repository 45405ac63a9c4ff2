//! What a proxy says: its last lines for people, and the syncs that sheave tells of.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{ChildStderr, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Read on a thread of its own, so that the proxy never waits for a reader.
#[derive(Default)]
pub(super) struct Log {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    last: VecDeque<String>,
    /// Those that nobody has asked for yet.
    syncs: VecDeque<Sync>,
    /// Services of the largest one.
    largest: u64,
    /// Of its streams, those that it may say more on.
    open: usize,
}

/// What sheave says of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sync {
    /// Services that were evaluated.
    pub(crate) services: u64,
    /// Elements written, deletions included.
    pub(crate) elements: u64,
    /// From the loop's first look at the dirty Services to the kernel's acknowledgement.
    pub(crate) whole: Duration,
    /// Of that, in the kernel.
    pub(crate) kernel: Duration,
}

#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    message: String,
    #[serde(default)]
    services: u64,
    #[serde(default)]
    elements: u64,
    #[serde(default)]
    whole_us: u64,
    #[serde(default)]
    kernel_us: u64,
}

/// Lines to show when it fails.
const KEPT: usize = 12;
/// Bytes of a line; a longer one counts as several.
const LONGEST: u64 = 65_536;

impl Log {
    /// Follows what a proxy says until its end. Programs complain on either stream.
    pub(super) fn follow(output: ChildStdout, errors: ChildStderr) -> Result<Arc<Self>> {
        let log = Arc::new(Self { said: Mutex::new(Said { open: 2, ..Said::default() }), ..Self::default() });
        let (first, second) = (log.clone(), log.clone());
        let thread = || thread::Builder::new().name("log".into());
        thread().spawn(move || first.read(output)).context("reading its output")?;
        thread().spawn(move || second.read(errors)).context("reading its log")?;
        Ok(log)
    }

    /// The next sync that was not handed out yet. `None`: it told of none within that time, or has ended.
    pub(super) fn next_sync(&self, within: Duration) -> Option<Sync> {
        self.wait(within, |said| !said.syncs.is_empty()).syncs.pop_front()
    }

    /// All others that it told of by now.
    pub(super) fn further_syncs(&self) -> Vec<Sync> {
        self.said().syncs.drain(..).collect()
    }

    /// Waits for a sync of so many Services, and says how many the largest one had.
    pub(super) fn await_services(&self, services: u64, within: Duration) -> u64 {
        self.wait(within, |said| said.largest >= services).largest
    }

    /// What it said before it ended is on its way still.
    pub(super) fn await_end(&self, within: Duration) {
        drop(self.wait(within, |_| false));
    }

    pub(super) fn last_words(&self) -> String {
        self.said().last.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Until enough was said, or nothing more will be.
    fn wait(&self, within: Duration, enough: impl Fn(&Said) -> bool) -> MutexGuard<'_, Said> {
        let too_little = |said: &mut Said| said.open > 0 && !enough(said);
        self.more.wait_timeout_while(self.said(), within, too_little).unwrap_or_else(PoisonError::into_inner).0
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, source: impl Read) {
        let (mut source, mut bytes) = (BufReader::new(source), Vec::new());
        // Whatever it writes: a pipe that nobody reads any more would stop it.
        while source.by_ref().take(LONGEST).read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            bytes.clear();
            let sync = Sync::of(&line);
            let mut said = self.said();
            if let Some(sync) = sync {
                said.largest = said.largest.max(sync.services);
                said.syncs.push_back(sync);
            }
            said.last.push_back(line);
            if said.last.len() > KEPT {
                said.last.pop_front();
            }
            drop(said);
            self.more.notify_all();
        }
        let mut said = self.said();
        said.open = said.open.saturating_sub(1);
        drop(said);
        self.more.notify_all();
    }
}

impl Sync {
    fn of(line: &str) -> Option<Self> {
        let Record { message, services, elements, whole_us, kernel_us } = serde_json::from_str(line).ok()?;
        (message == "synced").then(|| Self {
            services,
            elements,
            whole: Duration::from_micros(whole_us),
            kernel: Duration::from_micros(kernel_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_is_read_from_the_log_and_nothing_else_is_one() {
        let line = r#"{"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"synced","generation":2,"services":5001,
            "elements":265000,"transactions":56,"policy_us":1,"encode_us":2,"kernel_us":300000,"whole_us":400000,"target":"x"}"#;
        let sync = Sync::of(line).unwrap();
        assert_eq!((sync.services, sync.elements), (5_001, 265_000));
        assert_eq!((sync.kernel, sync.whole), (Duration::from_millis(300), Duration::from_millis(400)));
        assert_eq!(Sync::of(r#"{"message":"sheave starts","node":"n"}"#), None);
        assert_eq!(Sync::of("thread 'sync' panicked"), None);
    }

    #[test]
    fn what_is_no_text_or_no_line_ends_nothing() {
        let log = Log::default();
        let endless = "x".repeat(100_000);
        log.read(
            [b"caf\xe9\n".as_slice(), endless.as_bytes(), b"\n{\"message\":\"synced\",\"services\":7}\r\nlast"]
                .concat()
                .as_slice(),
        );
        assert_eq!(log.await_services(7, Duration::MAX), 7);
        let said = log.last_words();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[4]), (5, "caf\u{fffd}", "last"), "{lines:?}");
        assert_eq!(lines[1].len() + lines[2].len(), endless.len());
    }

    #[test]
    fn the_log_keeps_its_end_and_every_sync() {
        let log = Log::default();
        let lines = (0..20).map(|n| format!(r#"{{"message":"synced","services":{n}}}"#));
        let text: Vec<String> = lines.chain(["not json".to_owned(), r#"{"message":"other","services":99}"#.to_owned()]).collect();
        log.read(text.join("\n").as_bytes());
        assert_eq!(log.await_services(99, Duration::MAX), 19, "it has ended: nothing is waited for");
        assert_eq!(log.next_sync(Duration::MAX).map(|sync| sync.services), Some(0));
        assert_eq!((log.further_syncs().len(), log.next_sync(Duration::MAX)), (19, None));
        let said = log.last_words();
        assert!(said.lines().count() == KEPT && said.ends_with(r#""other","services":99}"#), "{said}");
    }
}
