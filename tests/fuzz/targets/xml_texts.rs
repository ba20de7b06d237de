//! Any texts, written: lines of the input.
#![no_main]
#![allow(dead_code, reason = "the other properties")]

#[path = "../../../server/crates/xml/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|text: &str| {
    properties::any_texts(&text.split('\n').take(8).collect::<Vec<_>>());
});
