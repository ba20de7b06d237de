//! What the end-to-end tests stand on.
//!
//! Purpose: start the real binaries, speak XMPP to them as a client would, and play dialogues
//! that are written down as data. The client shares no code with the server: its parser, its SCRAM
//! and its TLS settings are its own, so that one mistake cannot hide in both.
//!
//! What it does not do: it measures nothing, it knows no table and no key of the store, and it
//! never waits by sleeping; it waits for output, for bytes or for an answer, with [`PATIENCE`] as
//! the deadline.

pub mod agent;
pub mod client;
pub mod dialogue;
pub mod elastic;
pub mod emulated;
pub mod machine;
pub mod process;
pub mod server;
pub mod snapshot;

pub use cirrus_client::xml;

use std::time::{Duration, Instant};

/// How long a test waits for anything before it has failed. Generous: it is reached only by a
/// failing test, and the machine may be busy with all the others.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// When [`PATIENCE`] will have ended.
#[must_use]
pub fn deadline() -> Instant {
    deadline_in(PATIENCE)
}

/// When this time will have passed.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the deadline of a wait on a real process"
)]
pub fn deadline_in(patience: Duration) -> Instant {
    Instant::now() + patience
}

/// What is left until then; zero when it has passed.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the deadline of a wait on a real process"
)]
pub fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
