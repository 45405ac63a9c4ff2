//! What a proved member says, inside of the seal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_sealed(bytes));
