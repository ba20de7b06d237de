//! Any bytes as a stanza.
#![no_main]
#![allow(dead_code, reason = "the other properties")]

#[path = "../../../server/crates/xml/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::any_element(bytes));
