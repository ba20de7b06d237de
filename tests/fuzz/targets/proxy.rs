//! Any bytes as what a connection begins with.
#![no_main]

#[path = "../../../server/crates/proxy/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::any_bytes(bytes));
