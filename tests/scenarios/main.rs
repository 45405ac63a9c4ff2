//! Real packets in namespaces: one module per subject, one process per scenario. `cargo test -p sheave-tests --test scenarios`.

mod disruption;
mod fixture;
mod lab;
mod rows;
mod truth_table;

use std::process::ExitCode;

fn main() -> ExitCode {
    sheave_tests::scenario::main(
        &[disruption::scenarios(), lab::scenarios(), truth_table::scenarios(), rows::scenarios()].concat(),
    )
}
