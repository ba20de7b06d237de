//! SASL for XMPP streams: the server's half of SCRAM-SHA-1, SCRAM-SHA-256, their -PLUS variants
//! and PLAIN, as pure state machines.
//!
//! * [`offer`] says which mechanisms a stream may advertise.
//! * [`Server`] runs one exchange. It knows neither XML nor base64 nor accounts: bytes go in, a
//!   [`Step`] comes out, and where it needs the keys of a user it asks its caller. So the SASL
//!   profile of RFC 6120 and that of XEP-0388 drive the same machine; [`carrier`] holds the base64
//!   rules that both share.
//! * [`StoredKey`] is all that is kept of a password, [`derive()`] makes one.
//! * [`TokenProof`] is the one message of the mechanisms HT-SHA-256-*, and [`Token`] what it proves
//!   the possession of.
//! * [`FakeKeys`] answers for users that do not exist, so that nobody can probe who does.
//!
//! What it does not do: no I/O, no clock, no randomness (nonces and salts are arguments), no
//! account lookup, no policy on passwords beyond what SASLprep and a length limit forbid.
//! `derive` costs milliseconds: never call it on an event loop.
//!
//! Limits: [`MAX_MESSAGE_BYTES`], [`MAX_NAME_BYTES`], [`MAX_CLIENT_NONCE_BYTES`],
//! [`MIN_ITERATIONS`] to [`MAX_ITERATIONS`], [`MIN_SALT_BYTES`] to [`MAX_SALT_BYTES`].

pub mod carrier;
#[cfg(any(test, feature = "client"))]
pub mod client;
mod error;
mod fake;
mod key;
mod mechanism;
mod password;
mod plain;
mod scram;
mod server;
pub mod token;

pub use error::{Condition, SaslError};
pub use fake::FakeKeys;
pub use key::{MAX_ITERATIONS, MAX_SALT_BYTES, MIN_ITERATIONS, MIN_SALT_BYTES, StoredKey, derive};
pub use mechanism::{BindingKind, ChannelBinding, Hash, Mechanism, offer};
pub use password::{MAX_PASSWORD_BYTES, Password, PasswordFault};
pub use scram::MAX_CLIENT_NONCE_BYTES;
pub use server::{MAX_MESSAGE_BYTES, MAX_NAME_BYTES, NONCE_BYTES, Server, Setup, Step};
pub use token::{Token, TokenMechanism, TokenProof};
