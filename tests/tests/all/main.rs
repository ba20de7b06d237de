//! Everything that starts servers, in one binary.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helper functions too"
)]

mod bad_input;
mod boot;
mod clients;
mod commands;
mod dialogues;
mod server_commands;
