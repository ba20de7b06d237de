//! XML as XMPP uses it: a framer that cuts a stream into stanzas, a strict check of one stanza, a
//! cursor over a checked one, and a writer.
//!
//! Strictness is safety: what is malformed and passed on would make the *recipient's* parser
//! close its stream. So every byte from outside passes [`Framer`] and [`check`] (or
//! [`parse_header`]) once, and is then forwarded as it is.
//!
//! What this crate does not do: it builds no tree and allocates nothing per element; it knows no
//! stanza, no stream feature and no address; it reads no DTD and resolves no entity but the five
//! that XML predefines.
//!
//! Limits: all in [`Limits`]; time is linear in the bytes, memory is bounded by them.

mod chars;
mod check;
mod cursor;
mod decode;
mod error;
mod framer;
mod names;
mod scope;
mod standalone;
mod tag;
mod writer;

pub use check::{Checked, check};
pub use cursor::{Attribute, Attributes, Children, Element, children};
pub use error::XmlError;
pub use framer::{Frame, Framer};
pub use scope::{Header, Scope, parse_header};
pub use standalone::standalone;
pub use writer::{Writer, escape_attr, escape_text, escaped_attr_len};

/// What a stream may ask of this server's memory and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one stanza, its tags included.
    pub max_stanza: usize,
    /// Elements open at once inside one stanza, its root included.
    pub max_depth: usize,
    /// Attributes of one element, namespace declarations included; also namespace declarations
    /// in force at once.
    pub max_attributes: usize,
    /// Bytes of one name, its prefix included.
    pub max_name: usize,
    /// Bytes of the stream header; the XML declaration before it may have as many again.
    pub max_header: usize,
}

impl Limits {
    /// What a client may send unless the configuration says otherwise.
    pub const DEFAULT: Limits = Limits {
        max_stanza: 256 * 1024,
        max_depth: 64,
        max_attributes: 64,
        max_name: 256,
        max_header: 8 * 1024,
    };

    /// What this server wrote itself: room for a stanza of the largest size after escaping (at
    /// most six bytes for one), wrapped into others and with attributes added.
    pub const STORED: Limits = Limits {
        max_stanza: 8 * 1024 * 1024,
        max_depth: 256,
        max_attributes: 256,
        max_name: 1024,
        max_header: 64 * 1024,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// The namespace that the prefix `xml` always has.
pub(crate) const XML_NS: &str = "http://www.w3.org/XML/1998/namespace";
/// The namespace that the prefix `xmlns` always has.
pub(crate) const XMLNS_NS: &str = "http://www.w3.org/2000/xmlns/";
