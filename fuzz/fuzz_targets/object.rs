//! Objects as JSON; the first byte is the kind.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_object(bytes));
