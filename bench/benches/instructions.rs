//! How many instructions the hot rooms take, under valgrind: the same on a busy machine. `make bench-check` compares the counts with
//! `bench/budgets.toml`, which has an entry of the same name for every bench here.

#![expect(missing_docs, unused_qualifications, reason = "the harness writes the modules by which it finds the benches")]

mod inputs;

use std::hint::black_box;

use gungraun::prelude::*;
use inputs::{Documents, Event, Rendering, Services, Staging};
use sheave::dataplane::Commit;
use sheave::policy::Desired;
use sheave::reconciler::{Reconciled, Reconciler};
use sheave::source::Object;
use sheave::table::{Committed, ServiceTable};

#[library_benchmark(setup = inputs::list_of_slices)]
#[bench::slices_100()]
fn decode_list(documents: Documents) -> (Documents, Vec<Object>) {
    inputs::decode_all(black_box(documents))
}

#[library_benchmark(setup = inputs::changed_slice)]
#[bench::endpoints_100()]
fn decode_event(documents: Documents) -> (Documents, Vec<Object>) {
    inputs::decode_all(black_box(documents))
}

#[library_benchmark(setup = inputs::one_service)]
#[bench::endpoints_50()]
fn policy_service(services: Services) -> (Services, Vec<Desired>) {
    inputs::decide_all(black_box(services))
}

#[library_benchmark(setup = inputs::realistic_services)]
#[bench::services_1000()]
fn policy_mix(services: Services) -> (Services, Vec<Desired>) {
    inputs::decide_all(black_box(services))
}

#[library_benchmark(setup = inputs::empty_table)]
#[bench::services_1000()]
fn table_fill(staging: Staging) -> (ServiceTable, Committed) {
    inputs::commit(black_box(staging))
}

#[library_benchmark(setup = inputs::changed_service)]
#[bench::endpoint_1()]
fn table_diff(staging: Staging) -> (ServiceTable, Committed) {
    inputs::commit(black_box(staging))
}

#[library_benchmark(setup = inputs::changed_endpoint)]
#[bench::endpoint_1()]
fn reconcile_change(event: Event) -> (Reconciler, Reconciled) {
    inputs::reconcile(black_box(event))
}

#[library_benchmark(setup = inputs::delta)]
#[bench::endpoint_1()]
fn encode_change(rendering: Rendering) -> (Rendering, Commit) {
    inputs::encode_delta(black_box(rendering))
}

#[library_benchmark(setup = inputs::cold_chunk)]
#[bench::endpoints_5000()]
fn encode_load(rendering: Rendering) -> (Rendering, Commit) {
    inputs::encode_load(black_box(rendering))
}

library_benchmark_group!(
    name = rooms,
    benchmarks = [
        decode_list,
        decode_event,
        policy_service,
        policy_mix,
        table_fill,
        table_diff,
        reconcile_change,
        encode_change,
        encode_load
    ]
);

main!(library_benchmark_groups = rooms);
