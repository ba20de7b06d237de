//! Any bytes as user-data; behind a plus sign, any text as each of its forms.
#![no_main]
#![allow(dead_code, unused_imports, reason = "what else the bootstrap does with it")]

/// The crate itself has the AWS clients below it, and nothing here needs them.
#[path = "../../../bootstrap/src"]
mod bootstrap {
    pub mod code;
    pub mod user_data;
}
#[path = "../../../bootstrap/src/user_data/tests/properties.rs"]
mod properties;

use bootstrap::{code, user_data};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match bytes.strip_prefix(b"+").map(str::from_utf8) {
    Some(Ok(text)) => properties::any_body(text),
    _ => properties::any_bytes(bytes),
});
