//! Any text as an address.
#![no_main]

#[path = "../../../server/crates/jid/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|text: &str| properties::any_text(text));
