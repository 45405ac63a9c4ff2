//! Datagrams at the port of the membership, before they are opened.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_datagram(bytes));
