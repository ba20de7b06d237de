//! TLS for the server's sockets: certificates per host, handshakes, tickets, channel bindings.
//!
//! * [`ServerTls`] holds the certificates of all hosts, from PEM files or made here, and swaps them
//!   while connections go on ([`ServerTls::reload`]).
//! * [`ServerTls::install`] takes a certificate that an authority issued meanwhile, as a reload.
//! * [`ServerTls::accept_starttls`] and [`ServerTls::accept_direct`] run a handshake; what comes
//!   out is a [`Secured`] stream that knows its certificate and its channel [`Bindings`].
//! * Tickets are sealed under keys that every node derives from the same [`TicketSecrets`], and
//!   that contain host and certificate: a ticket resumes on any node, never on another host, and
//!   never under another certificate than the one the client saw, so that `tls-server-end-point`
//!   means the same to both ends of a resumed session.
//!
//! TLS 1.3 and 1.2 by rustls with aws-lc-rs; no early data, no client certificates, no session
//! cache in memory. It sees no XML, knows no account and sets no time limit on a handshake: the
//! caller does. File access is blocking and happens in [`ServerTls::build`] and the reloads only.
//!
//! Limits: [`MAX_PEM_BYTES`] per file; a connection that is idle after its handshake holds some
//! 8 KB, at most 10 KiB (`tests/idle_memory.rs`).

mod accept;
mod binding;
mod certificate;
mod challenge;
mod error;
mod name;
mod self_signed;
mod server;
mod ticket;

use std::sync::Arc;

pub use accept::{Bindings, Secured, Summary};
pub use certificate::{Certificate, MAX_PEM_BYTES};
pub use challenge::{Proof, Proofs};
pub use error::TlsError;
pub use server::{HostTls, IssuedPem, MinVersion, Options, PemFiles, ServerTls};
pub use ticket::TicketSecrets;

/// Where the time comes from, in Unix milliseconds: it decides about tickets and self-signed
/// certificates.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
