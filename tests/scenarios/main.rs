//! Real packets in namespaces: one module per subject, one process per scenario. `cargo test -p sheave-tests --test scenarios`.

mod lab;

use std::process::ExitCode;

fn main() -> ExitCode {
    sheave_tests::scenario::main(&lab::scenarios())
}
