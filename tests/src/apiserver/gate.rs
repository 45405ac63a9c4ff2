//! Whether connections are accepted.

use std::sync::{Condvar, Mutex, PoisonError};

/// What the accepting thread waits at while connections are refused.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// For now.
    Closed,
    /// The server has ended.
    Gone,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Open), changed: Condvar::new() }
    }

    pub(super) fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }

    /// False when the server has ended.
    pub(super) fn wait_open(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.changed.wait_while(state, |state| *state == State::Closed).unwrap_or_else(PoisonError::into_inner);
        *state == State::Open
    }
}
