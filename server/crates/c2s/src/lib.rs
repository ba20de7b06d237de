//! Client connections: the **pipe** between a socket and a home.
//!
//! [`stream`] is the state machine of one client stream (RFC 6120, XEP-0198 on the wire): events
//! in, bytes and effects out, without I/O, clock or randomness of its own. [`shell`] runs it on
//! sockets: listeners, TLS, timers, limits.
//!
//! What this crate does not do: it keeps no session state that matters after the connection is
//! gone, routes nothing, reads no roster and never numbers an outbound stanza: all that is the
//! home's. It does not parse stanza content beyond the strict check at the edge.
//!
//! Limits, all named in [`stream::Settings`] and [`shell::Limits`]: size, depth and attributes
//! of what a client sends, smaller before it has logged in; SASL attempts; time until a resource
//! is bound; silence; stanzas whose handling is awaited; stanzas and bytes a second; connections
//! in all and for one address; bytes and stanzas that wait for a slow reader.

pub mod shell;
pub mod stream;
