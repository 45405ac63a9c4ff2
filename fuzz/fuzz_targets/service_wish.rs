//! Annotations of Services, selectors of L2Advertisements.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_service_wish(bytes));
