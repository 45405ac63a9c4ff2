//! Entries of spec.addresses of an IPAddressPool.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_pool_addresses(bytes));
