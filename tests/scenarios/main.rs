//! Real packets in namespaces: one module per subject, one process per scenario. `cargo test -p sheave-tests --test scenarios`.

mod disruption;
mod fixture;
mod kube;
mod lab;
mod rows;
mod stale_flows;
mod truth_table;

use std::process::ExitCode;

fn main() -> ExitCode {
    sheave_tests::scenario::main(
        &[
            disruption::scenarios(),
            kube::scenarios(),
            stale_flows::scenarios(),
            lab::scenarios(),
            truth_table::scenarios(),
            rows::scenarios(),
        ]
        .concat(),
    )
}
