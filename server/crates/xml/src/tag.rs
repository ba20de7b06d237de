//! One start tag: names, attributes, and the namespace declarations among them. Used for stanzas
//! and for the stream header.

use std::ops::Range;

use smallvec::SmallVec;

use crate::chars::{self, NAME, NAME_START, SPACE, URI, VALUE};
use crate::decode;
use crate::error::{XmlError, not_well_formed};
use crate::{Limits, XML_NS, XMLNS_NS};

/// A place in the bytes. 32 bits: [`crate::check`] refuses more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(range: Range<usize>) -> Span {
        Span {
            start: range.start as u32,
            end: range.end as u32,
        }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn of(self, text: &str) -> &str {
        text.get(self.range()).unwrap_or_default()
    }
}

/// A name with its optional prefix.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Name {
    /// Prefix, colon and local name.
    pub(crate) whole: Span,
    /// Where the local name begins.
    pub(crate) local: u32,
}

impl Name {
    pub(crate) fn local(self) -> Span {
        Span {
            start: self.local,
            end: self.whole.end,
        }
    }

    /// Empty when there is none.
    pub(crate) fn prefix(self) -> Span {
        Span {
            start: self.whole.start,
            end: self.local.saturating_sub(1).max(self.whole.start),
        }
    }

    pub(crate) fn has_prefix(self) -> bool {
        self.local != self.whole.start
    }
}

/// An attribute as it is written; namespace declarations are attributes too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawAttribute {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    /// Between the quotes.
    pub(crate) value: Span,
}

/// What an attribute is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No prefix, hence no namespace.
    Plain,
    /// A prefix that has to be resolved.
    Prefixed,
    /// `xmlns`, or `xmlns:` and a prefix.
    Declaration,
}

impl RawAttribute {
    /// From the first byte of the name to the closing quote.
    pub(crate) fn verbatim(&self) -> Range<usize> {
        self.name.whole.start as usize..self.value.end as usize + 1
    }

    /// The prefix it declares, empty for the default namespace; `None` if it is no declaration.
    pub(crate) fn declares(&self) -> Option<Span> {
        match self.kind {
            Kind::Declaration if self.name.has_prefix() => Some(self.name.local()),
            Kind::Declaration => Some(Span::default()),
            _ => None,
        }
    }

    fn is_named_as(&self, other: &RawAttribute, bytes: &[u8]) -> bool {
        let (a, b) = (self.name.whole, other.name.whole);
        a.end - a.start == b.end - b.start && bytes.get(a.range()) == bytes.get(b.range())
    }
}

/// Most elements have fewer attributes than this; those are kept without an allocation.
pub(crate) type Attributes = SmallVec<[RawAttribute; 8]>;

/// A start tag.
pub(crate) struct Tag {
    pub(crate) name: Name,
    /// Whether it ends with `/>`.
    pub(crate) is_empty: bool,
    /// Behind the `>`.
    pub(crate) end: usize,
}

/// Reads the start tag at `at` (which is a `<`) strictly, and puts its attributes into
/// `attributes`. Prefixes are not resolved.
pub(crate) fn read(
    text: &str,
    at: usize,
    limits: &Limits,
    attributes: &mut Attributes,
) -> Result<Tag, XmlError> {
    let bytes = text.as_bytes();
    attributes.clear();
    let name = read_name(text, at + 1, limits)?;
    let mut at = name.whole.end as usize;
    loop {
        let next = chars::skip_while(bytes, at, SPACE);
        match bytes.get(next) {
            Some(b'>') => {
                return Ok(Tag {
                    name,
                    is_empty: false,
                    end: next + 1,
                });
            }
            Some(b'/') if bytes.get(next + 1) == Some(&b'>') => {
                return Ok(Tag {
                    name,
                    is_empty: true,
                    end: next + 2,
                });
            }
            None => return not_well_formed("a tag without an end", next),
            Some(_) if next == at => return not_well_formed("a character that fits no tag", at),
            Some(_) => {}
        }
        if attributes.len() >= limits.max_attributes {
            let limit = limits.max_attributes;
            return Err(XmlError::TooBig {
                what: "attributes of an element",
                limit,
            });
        }
        let attribute = read_attribute(text, next, limits)?;
        at = attribute.value.end as usize + 1;
        let is_declaration = attribute.kind == Kind::Declaration;
        if is_declaration {
            check_declaration(text, &attribute)?;
        }
        if attributes
            .iter()
            .any(|other| other.is_named_as(&attribute, bytes))
        {
            let what = if is_declaration {
                "a namespace declaration that is there twice"
            } else {
                "an attribute that is there twice"
            };
            return not_well_formed(what, next);
        }
        attributes.push(attribute);
    }
}

/// Reads a name with its optional prefix.
fn read_name(text: &str, start: usize, limits: &Limits) -> Result<Name, XmlError> {
    let bytes = text.as_bytes();
    let mut end = read_nc_name(text, start)?;
    let mut local = start;
    if bytes.get(end) == Some(&b':') {
        local = end + 1;
        end = read_nc_name(text, local)?;
    }
    if end - start > limits.max_name {
        return Err(XmlError::TooBig {
            what: "bytes of a name",
            limit: limits.max_name,
        });
    }
    Ok(Name {
        whole: Span::new(start..end),
        local: local as u32,
    })
}

/// The end of the name without colon at `start`.
fn read_nc_name(text: &str, start: usize) -> Result<usize, XmlError> {
    let bytes = text.as_bytes();
    if !bytes.get(start).is_some_and(|&b| chars::is(b, NAME_START)) {
        return not_well_formed("a name was expected", start);
    }
    let end = chars::skip_while(bytes, start, NAME);
    let name = text.get(start..end).unwrap_or_default();
    if !name.is_ascii() && !chars::is_nc_name(name) {
        return not_well_formed("a character that no name may have", start);
    }
    Ok(end)
}

fn read_attribute(text: &str, start: usize, limits: &Limits) -> Result<RawAttribute, XmlError> {
    let bytes = text.as_bytes();
    let name = read_name(text, start, limits)?;
    let mut at = chars::skip_while(bytes, name.whole.end as usize, SPACE);
    if bytes.get(at) != Some(&b'=') {
        return not_well_formed("an attribute without a value", at);
    }
    at = chars::skip_while(bytes, at + 1, SPACE);
    let quote = match bytes.get(at) {
        Some(&quote @ (b'"' | b'\'')) => quote,
        _ => return not_well_formed("an attribute's value without quotes", at),
    };
    let value = at + 1;
    at = value;
    loop {
        at = chars::skip_until(bytes, at, VALUE);
        at = match bytes.get(at) {
            Some(&byte) if byte == quote => break,
            Some(b'"' | b'\'') => at + 1,
            Some(b'&') => decode::check_reference(text, at)?,
            Some(b'<') => return not_well_formed("a < in an attribute", at),
            Some(0xEF) if !chars::is_noncharacter(bytes, at) => at + 1,
            Some(_) => return not_well_formed("a character that XML forbids", at),
            None => return not_well_formed("an attribute without an end", at),
        };
    }
    let kind = match name.prefix().of(text) {
        "xmlns" => Kind::Declaration,
        "" if name.whole.of(text) == "xmlns" => Kind::Declaration,
        "" => Kind::Plain,
        _ => Kind::Prefixed,
    };
    let value = Span::new(value..at);
    Ok(RawAttribute { kind, name, value })
}

/// Namespaces in XML 1.0 section 3: reserved prefixes and names; and that a name is a URI.
fn check_declaration(text: &str, attribute: &RawAttribute) -> Result<(), XmlError> {
    let prefix = attribute.declares().unwrap_or_default().of(text);
    let namespace = decode::value(attribute.value.of(text));
    let at = attribute.name.whole.start as usize;
    match (prefix, namespace.as_ref()) {
        ("xml", XML_NS) => Ok(()),
        ("xml", _) | (_, XML_NS) => not_well_formed("another meaning for the prefix xml", at),
        ("xmlns", _) => not_well_formed("a declaration of the prefix xmlns", at),
        (_, XMLNS_NS) => not_well_formed("a declaration of the namespace of xmlns", at),
        ("", "") => Ok(()),
        (_, "") => not_well_formed("a prefix that is undeclared", at),
        (_, name) if name.bytes().all(|byte| chars::is(byte, URI)) => Ok(()),
        _ => not_well_formed("a namespace that is no URI", at),
    }
}
