//! Stanzas as a small header plus the bytes that were received, and the errors of RFC 6120.
//!
//! A [`Stanza`] keeps what routing needs (kind, type, addresses, id, language, the first child's
//! name) decoded, and everything between the root's tags as one shared buffer that is never
//! turned into a tree. Writing it splices a new root tag around the shared bytes, so a thousand
//! receivers of one body cost a thousand headers.
//!
//! It does not route, does not know entities and never checks well-formedness again: bytes come
//! from [`cirrus_xml::check`] or from this server's own [`cirrus_xml::Writer`].

mod build;
mod delay;
mod error;
mod name;
mod serial;
mod stanza;

pub use delay::{delay, parse_stamp, stamp};
pub use error::{Condition, ErrorType, StanzaError, StreamError};
pub use name::{Name, intern, ns};
pub use stanza::{Kind, LANG_BYTES, Payload, Refused, Stanza, Ty};
