//! Any bytes as a stream; the first two say in what pieces it comes.
#![no_main]
#![allow(dead_code, reason = "the other properties")]

#[path = "../../../server/crates/xml/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((cuts, stream)) = bytes.split_at_checked(2) {
        properties::any_stream(stream, cuts);
    }
});
