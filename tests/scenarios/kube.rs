//! The daemon on an API server, end to end: the real binary, real HTTP inside the node's namespace, real packets.

mod faults;
mod objects;
pub(crate) mod served;

use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    [faults::scenarios(), objects::scenarios()].concat()
}
