//! What happens to the daemon, the ruleset or the API server, and what traffic notices of it: nothing.

mod commands;
mod node;
mod repair;
pub(crate) mod restart;
pub(crate) mod ruleset;
pub(crate) mod traffic;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    [commands::scenarios(), node::scenarios(), repair::scenarios(), restart::scenarios()].concat()
}
