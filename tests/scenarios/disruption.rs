//! What happens to the daemon, the ruleset or the API server, and what traffic notices of it: nothing.

mod repair;
mod ruleset;
mod traffic;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    repair::scenarios()
}
