//! The daemon on an API server, end to end: the real binary, real HTTP inside the node's namespace, real packets.

mod faults;
mod kills;
mod objects;
mod served;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    [faults::scenarios(), kills::scenarios(), objects::scenarios()].concat()
}
