//! What members tell of themselves.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_facts(bytes));
