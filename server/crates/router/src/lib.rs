//! Entities and the routing between them: pure machines, events in and effects out.
//!
//! A [`Home`] holds the entities (users, later rooms and pubsub nodes) whose slots this node is
//! home of. Each entity is a single writer of its own state. The home takes one [`Event`] at a
//! time, with the time and a source of randomness as arguments, and appends [`Effect`]s that an
//! async shell carries out: bytes for a pipe, an operation on the store, a change of an account.
//!
//! It never sees a socket, a thread, a clock or the network; it does not know TLS or SASL, and it
//! parses nothing that was not checked at the edge.

pub mod archive;
pub mod codec;
mod entropy;
pub mod event;
pub mod home;
pub mod log;
pub mod planted;
pub mod registry;
pub mod roster;
pub mod segment;
mod user;

pub use codec::CodecError;
pub use entropy::{Entropy, Recorder, Replay};
pub use event::{
    AccountRequest, Effect, Effects, Enable, Enabled, Event, Inline, Login, Origin, Output,
    PipeEvent, PipeId, PipeOut, SessionId, Token,
};
pub use home::{Frame, Home, HomeConfig, Limits, Territory};
pub use registry::{Feature, IqReply, IqRequest, IqRoute, Registry, Scope, Source};
pub use user::parked_owner;
