//! The daemon's log, read as it is written: the one channel on which it tells what is in the kernel.

use anyhow::bail;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A log being read. The thread that reads ends with the daemon.
pub(crate) struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The mark of the last sync.
    mark: Option<String>,
    /// Messages not yet passed by a wait.
    messages: Vec<String>,
    /// All messages.
    history: Vec<String>,
    /// The stream has ended, and so has the daemon.
    ended: bool,
}

impl Log {
    /// Reads a stream to its end, on a thread, and repeats it on standard error, where a failed scenario shows it; with a name before
    /// each line, where there are several.
    pub(crate) fn follow(name: &str, stream: impl Read + Send + 'static) -> Self {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                repeat(&format!("{prefix}{line}"));
                own.update(|state| state.take(&line));
            }
            own.update(|state| state.ended = true);
        });
        Self(shared)
    }

    /// Waits until the last sync has this mark.
    pub(crate) fn await_mark(&self, mark: &str, limit: Duration) -> anyhow::Result<()> {
        self.wait(limit, &format!("`synced` with mark {mark}"), |state| (state.mark.as_deref() == Some(mark)).then_some(()))
    }

    /// Waits for a message that contains a text, and takes it and all before it.
    pub(crate) fn await_message(&self, text: &str, limit: Duration) -> anyhow::Result<String> {
        self.wait(limit, &format!("a message with `{text}`"), |state| {
            let place = state.messages.iter().position(|message| message.contains(text))?;
            state.messages.drain(..=place).next_back()
        })
    }

    /// How many messages so far contain a text, passed by a wait or not.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.0.state().history.iter().filter(|message| message.contains(text)).count()
    }

    fn wait<T>(&self, limit: Duration, what: &str, mut found: impl FnMut(&mut State) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.0.state();
        loop {
            if let Some(found) = found(&mut state) {
                return Ok(found);
            }
            if state.ended {
                bail!("the daemon ended before it logged {what}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the daemon did not log {what} within {limit:?}; its last mark is {:?}", state.mark);
            }
            (state, _) = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }
}

impl State {
    /// Takes in one line: JSON with the fields nested under `fields`, as tracing writes it, or flat.
    fn take(&mut self, line: &str) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            self.history.push(line.to_owned());
            return self.messages.push(line.to_owned());
        };
        let field = |name| entry.get("fields").unwrap_or(&entry).get(name).and_then(Value::as_str).map(str::to_owned);
        let message = field("message").unwrap_or_default();
        // One that changed nothing is told at debug only.
        if matches!(message.as_str(), "synced" | "nothing to change") {
            self.mark = field("mark").or(self.mark.take());
        }
        self.history.push(message.clone());
        self.messages.push(message);
    }
}

#[expect(clippy::print_stderr, reason = "the output of a scenario, shown if it fails")]
fn repeat(line: &str) {
    eprintln!("sheave: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_last_mark_counts_and_other_lines_do_not() {
        let log = Log::follow(
            "",
            &b"{\"fields\":{\"message\":\"synced\",\"mark\":\"a\"}}\nnot json\n{\"message\":\"synced\",\"mark\":\"b\"}\n"[..],
        );
        log.await_mark("b", SECOND).unwrap();
        assert!(log.await_mark("a", SECOND).unwrap_err().to_string().contains("ended"));
    }

    #[test]
    fn messages_are_passed_once() {
        let log = Log::follow("", &b"{\"message\":\"one here\"}\n{\"message\":\"two here\"}\n"[..]);
        assert_eq!(log.await_message("here", SECOND).unwrap(), "one here");
        assert_eq!(log.await_message("here", SECOND).unwrap(), "two here");
        assert_eq!(log.count("here"), 2);
        log.await_message("here", SECOND).unwrap_err();
    }
}
