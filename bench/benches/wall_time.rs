//! How long the hot rooms take on this machine, by its clock. For comparing two versions by hand; what is held to budgets is counted
//! in instructions (`instructions.rs`).

mod inputs;

use criterion::{BatchSize, Criterion};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    room(&mut criterion, "decode_list", inputs::list_of_slices, inputs::decode_all);
    room(&mut criterion, "decode_event", inputs::changed_slice, inputs::decode_all);
    room(&mut criterion, "policy_service", inputs::one_service, inputs::decide_all);
    room(&mut criterion, "policy_mix", inputs::realistic_services, inputs::decide_all);
    room(&mut criterion, "table_fill", inputs::empty_table, inputs::commit);
    room(&mut criterion, "table_diff", inputs::changed_service, inputs::commit);
    room(&mut criterion, "reconcile_change", inputs::changed_endpoint, inputs::reconcile);
    room(&mut criterion, "encode_change", inputs::delta, inputs::encode_delta);
    room(&mut criterion, "encode_load", inputs::cold_chunk, inputs::encode_load);
    criterion.final_summary();
}

/// One input at a time: some are a table of a thousand Services.
fn room<I, O>(criterion: &mut Criterion, name: &str, input: impl Fn() -> I, run: impl Fn(I) -> O) {
    criterion.bench_function(name, |bencher| bencher.iter_batched(&input, &run, BatchSize::PerIteration));
}
