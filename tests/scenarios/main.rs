//! Real packets in namespaces: one module per subject, one process per scenario. `cargo test -p sheave-tests --test scenarios`.

mod affinity;
mod bad_input;
mod command_line;
mod configuration;
mod conflicts;
mod deployment;
mod disruption;
mod fixture;
mod hairpin;
mod health;
mod kube;
mod lab;
mod lan;
mod lifecycle;
mod migrate;
mod network_policy;
mod node_ports;
mod pools;
mod rows;
mod source_ranges;
mod stale_flows;
mod truth_table;
mod verdicts;
mod vips;

use std::process::ExitCode;

fn main() -> ExitCode {
    let scenarios = [
        lab::scenarios(),
        fixture::scenarios(),
        disruption::scenarios(),
        kube::scenarios(),
        health::scenarios(),
        stale_flows::scenarios(),
        truth_table::scenarios(),
        rows::scenarios(),
        verdicts::scenarios(),
        node_ports::scenarios(),
        source_ranges::scenarios(),
        hairpin::scenarios(),
        lifecycle::scenarios(),
        migrate::scenarios(),
        affinity::scenarios(),
        configuration::scenarios(),
        conflicts::scenarios(),
        network_policy::scenarios(),
        bad_input::scenarios(),
        command_line::scenarios(),
        deployment::scenarios(),
        vips::scenarios(),
        pools::scenarios(),
        lan::scenarios(),
    ];
    sheave_tests::scenario::main(&scenarios.concat())
}
