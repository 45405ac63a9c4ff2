//! Whether a fence can stand on the API.

use tokio::sync::watch;

use crate::loadbalancer::membership::fence::Api;
use crate::source::kube::RequestError;

/// What requests about Leases have told. Watches tell nothing here: one whose connection is cut says so after minutes, and one that is
/// alive at a server without a store proves no Lease.
#[derive(Debug)]
pub(super) struct Reach(watch::Sender<Api>);

impl Default for Reach {
    /// Reachable: whoever announces has pools, so it has been.
    fn default() -> Self {
        Self(watch::Sender::new(Api::Reachable))
    }
}

impl Reach {
    pub(super) fn subscribe(&self) -> watch::Receiver<Api> {
        self.0.subscribe()
    }

    pub(super) fn is_lost(&self) -> bool {
        *self.0.borrow() != Api::Reachable
    }

    /// A request about a Lease that was begun then has ended so.
    pub(super) fn experienced<T>(&self, outcome: &Result<T, RequestError>, began: std::time::Instant) {
        self.0.send_if_modified(|known| match (is_an_answer(outcome), *known) {
            (true, Api::LostSince(_)) => {
                *known = Api::Reachable;
                true
            }
            (false, Api::Reachable) => {
                *known = Api::LostSince(began);
                true
            }
            (true, Api::Reachable) | (false, Api::LostSince(_)) => false,
        });
    }
}

/// One by which Leases can be judged. That somebody was quicker, or that there is none, is one; a server that is overloaded, has lost its
/// store, or does not let us, is as good as none.
fn is_an_answer<T>(outcome: &Result<T, RequestError>) -> bool {
    match outcome {
        Ok(_) | Err(RequestError::Conflict { .. } | RequestError::NotFound { .. }) => true,
        Err(RequestError::Refused { .. } | RequestError::Failed { .. } | RequestError::Silent { .. }) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn it_is_lost_since_the_first_request_that_failed_and_until_the_first_answer() {
        let (reach, start) = (Reach::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let request = || String::new();
        let refused = |code| RequestError::Refused { request: request(), code, reason: String::new(), message: String::new() };
        for (outcome, began, expected) in [
            (Ok(()), after(0), Api::Reachable),
            (Err(refused(503)), after(1), Api::LostSince(after(1))),
            (Err(RequestError::Failed { request: request(), reason: String::new() }), after(2), Api::LostSince(after(1))),
            (Err(RequestError::NotFound { request: request(), message: String::new() }), after(3), Api::Reachable),
            (Err(refused(403)), after(4), Api::LostSince(after(4))),
            (Err(RequestError::Conflict { request: request(), message: String::new() }), after(5), Api::Reachable),
        ] {
            reach.experienced(&outcome, began);
            assert_eq!(*reach.subscribe().borrow(), expected, "{outcome:?}");
        }
    }
}
