//! ARP frames, and what the announcer makes of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sheave::loadbalancer::fuzz::fuzz_arp(bytes));
