//! The stream header, and what it declares for the stanzas inside it.

use std::sync::Arc;

use crate::error::{XmlError, not_well_formed};
use crate::tag::{self, Attributes, Kind};
use crate::{Limits, XML_NS, XMLNS_NS, decode};

/// The default namespace and the prefixes in force at the first level of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub(crate) default: Arc<str>,
    pub(crate) prefixes: Vec<(Box<str>, Arc<str>)>,
}

impl Scope {
    /// A scope with a default namespace and no prefixes.
    pub fn new(default: &str) -> Scope {
        Scope {
            default: default.into(),
            prefixes: Vec::new(),
        }
    }

    /// That of a client's stream: `jabber:client`, no prefixes.
    pub fn client() -> Scope {
        Scope::new("jabber:client")
    }

    /// The default namespace; empty if there is none.
    pub fn default_ns(&self) -> &str {
        &self.default
    }

    /// The namespace of a prefix that the header declares.
    pub fn prefix(&self, prefix: &str) -> Option<&str> {
        self.position(prefix).map(|at| &*self.prefixes[at].1)
    }

    /// The prefixes that the header declares, with their namespaces.
    pub fn prefixes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.prefixes.iter().map(|(prefix, ns)| (&**prefix, &**ns))
    }

    pub(crate) fn position(&self, prefix: &str) -> Option<usize> {
        self.prefixes.iter().position(|(p, _)| **p == *prefix)
    }
}

/// A stream header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The local name; `stream` if all is well.
    pub name: String,
    /// Its prefix, empty if there is none.
    pub prefix: String,
    /// Its namespace; `http://etherx.jabber.org/streams` if all is well.
    pub ns: String,
    /// The attributes that are no namespace declarations, as written (`xml:lang` with its prefix),
    /// the values decoded.
    pub attrs: Vec<(String, String)>,
    /// What it declares for the stanzas.
    pub scope: Scope,
}

impl Header {
    /// The decoded value of an attribute.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| &**value)
    }
}

/// Reads a stream header, as strictly as [`crate::check`] reads a stanza.
///
/// # Errors
/// What is wrong with it.
pub fn parse_header(bytes: &[u8], limits: &Limits) -> Result<Header, XmlError> {
    if bytes.len() > limits.max_header.min(u32::MAX as usize) {
        let limit = limits.max_header;
        return Err(XmlError::TooBig {
            what: "bytes of the stream header",
            limit,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| XmlError::InvalidEncoding {
        at: e.valid_up_to(),
    })?;
    if !text.starts_with('<') {
        return not_well_formed("a stream header was expected", 0);
    }
    let mut attributes = Attributes::new();
    let tag = tag::read(text, 0, limits, &mut attributes)?;
    if tag.end != text.len() {
        return not_well_formed("more than a stream header", tag.end);
    }
    let mut scope = Scope::new("");
    for attribute in &attributes {
        let value = decode::value(attribute.value.of(text));
        match attribute.declares().map(|prefix| prefix.of(text)) {
            None | Some("xml") => {}
            Some("") => scope.default = value.into(),
            Some(prefix) => scope.prefixes.push((prefix.into(), value.into())),
        }
    }
    let ns = namespace(text, tag.name, &scope)?;
    let mut attrs: Vec<(String, String)> = Vec::new();
    let mut expanded: Vec<(&str, &str)> = Vec::new();
    for attribute in attributes.iter().filter(|a| a.kind != Kind::Declaration) {
        if attribute.kind == Kind::Prefixed {
            let name = (
                namespace(text, attribute.name, &scope)?,
                attribute.name.local().of(text),
            );
            if expanded.contains(&name) {
                let at = attribute.name.whole.start as usize;
                return not_well_formed("an attribute that is there twice", at);
            }
            expanded.push(name);
        }
        let value = decode::value(attribute.value.of(text)).into_owned();
        attrs.push((attribute.name.whole.of(text).to_owned(), value));
    }
    let ns = ns.to_owned();
    let (name, prefix) = (tag.name.local().of(text), tag.name.prefix().of(text));
    Ok(Header {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        ns,
        attrs,
        scope,
    })
}

fn namespace<'a>(text: &str, name: tag::Name, scope: &'a Scope) -> Result<&'a str, XmlError> {
    match name.prefix().of(text) {
        "" => Ok(&scope.default),
        "xml" => Ok(XML_NS),
        "xmlns" => Ok(XMLNS_NS),
        prefix => scope.prefix(prefix).ok_or(XmlError::BadNamespacePrefix {
            at: name.whole.start as usize,
        }),
    }
}
