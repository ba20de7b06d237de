//! Reading a checked stanza: a cursor that cuts elements out of the bytes on demand.
//!
//! On bytes that were not checked nothing here panics, but what comes out is unspecified.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};

use crate::chars::{self, SPACE};
use crate::error::{XmlError, not_well_formed};
use crate::{Scope, XML_NS, XMLNS_NS, decode};

const CDATA_START: &str = "<![CDATA[";
const CDATA_END: &str = "]]>";

/// One element. Holds no copy of its text; a clone costs at most two reference counts.
#[derive(Clone)]
pub struct Element<'a> {
    /// From `<` to `>`.
    raw: &'a str,
    /// With its prefix.
    name: &'a str,
    /// Between the name and the end of the start tag.
    attributes: &'a str,
    inner: &'a str,
    ns: Uri<'a>,
    context: Context<'a>,
}

/// A namespace name: decoded, in the rare case that it has references.
#[derive(Clone)]
enum Uri<'a> {
    Plain(&'a str),
    Decoded(Arc<str>),
}

/// What is declared for the content of an element.
#[derive(Clone)]
struct Context<'a> {
    default: Uri<'a>,
    declared: Option<Arc<Declared<'a>>>,
    scope: Option<&'a Scope>,
}

/// The prefixes that one element declares, and those around it.
struct Declared<'a> {
    own: Vec<(&'a str, Uri<'a>)>,
    outer: Option<Arc<Declared<'a>>>,
}

impl<'a> Element<'a> {
    /// The element that `bytes` are, in a context that has a default namespace and no prefixes.
    ///
    /// # Errors
    /// When they are not one element from the first to the last byte.
    pub fn parse(bytes: &'a [u8], inherited_default_ns: &'a str) -> Result<Element<'a>, XmlError> {
        Element::whole(bytes, &Context::new(inherited_default_ns, None))
    }

    /// The element that `bytes` are, inside a stream.
    ///
    /// # Errors
    /// When they are not one element from the first to the last byte.
    pub fn parse_in(bytes: &'a [u8], scope: &'a Scope) -> Result<Element<'a>, XmlError> {
        Element::whole(bytes, &Context::new(&scope.default, Some(scope)))
    }

    fn whole(bytes: &'a [u8], context: &Context<'a>) -> Result<Element<'a>, XmlError> {
        let text = std::str::from_utf8(bytes).map_err(|e| XmlError::InvalidEncoding {
            at: e.valid_up_to(),
        })?;
        match Element::cut(text, context) {
            Some(element) if element.raw.len() == text.len() => Ok(element),
            _ => not_well_formed("one element was expected", 0),
        }
    }

    /// The element at the start of `text`.
    fn cut(text: &'a str, context: &Context<'a>) -> Option<Element<'a>> {
        let tag = tag_end(text)?;
        let end = element_end(text, tag)?;
        let raw = text.get(..end)?;
        let inside = raw.get(1..tag.end - 1 - usize::from(tag.is_empty))?;
        let name_end = chars::skip_until(inside.as_bytes(), 0, SPACE);
        let (name, attributes) = inside.split_at_checked(name_end)?;
        let inner = if tag.is_empty {
            ""
        } else {
            // The end tag is the last thing in it, and has no `<` inside.
            raw.get(tag.end..memrchr(b'<', raw.as_bytes())?)?
        };
        let context = context.inside(attributes);
        let ns = match name.split_once(':') {
            Some((prefix, _)) => context.resolve(prefix),
            None => context.default.clone(),
        };
        Some(Element {
            raw,
            name,
            attributes,
            inner,
            ns,
            context,
        })
    }

    /// The local name.
    pub fn name(&self) -> &'a str {
        local(self.name)
    }

    /// The namespace; empty if there is none, or its prefix is not declared.
    pub fn ns(&self) -> &str {
        self.ns.as_str()
    }

    /// Whether it has this local name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name() == name && self.ns() == ns
    }

    /// The decoded value of an attribute, by its name as written (`xml:lang` with its prefix).
    pub fn attr(&self, name: &str) -> Option<Cow<'a, str>> {
        self.attributes()
            .find(|a| a.name == name)
            .map(|a| a.value())
    }

    /// All attributes in order, namespace declarations among them.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            rest: self.attributes,
        }
    }

    /// The child elements in order.
    pub fn children(&self) -> Children<'a> {
        Children {
            nodes: self.nodes(),
        }
    }

    /// The first child element of this local name and namespace.
    pub fn child(&self, name: &str, ns: &str) -> Option<Element<'a>> {
        self.children().find(|child| child.is(name, ns))
    }

    /// The character data directly inside, decoded and joined; that of child elements is not
    /// part of it.
    pub fn text(&self) -> Cow<'a, str> {
        let mut pieces = Pieces { rest: self.inner }.filter_map(|piece| match piece {
            Piece::Text(text) => Some((text, false)),
            Piece::Cdata(text) => Some((text, true)),
            Piece::Element(_) => None,
        });
        let Some((first, is_cdata)) = pieces.next() else {
            return Cow::Borrowed("");
        };
        let second = pieces.next();
        let is_plain = !first
            .bytes()
            .any(|b| b == b'\r' || (b == b'&' && !is_cdata));
        if second.is_none() && is_plain {
            return Cow::Borrowed(first);
        }
        let mut text = String::with_capacity(self.inner.len());
        decode::push_text(first, is_cdata, &mut text);
        for (piece, is_cdata) in second.into_iter().chain(pieces) {
            decode::push_text(piece, is_cdata, &mut text);
        }
        Cow::Owned(text)
    }

    /// Its bytes, tags included. They mean the same elsewhere only if they use no prefix and no
    /// default namespace from around them: see [`Element::standalone`].
    pub fn raw(&self) -> &'a [u8] {
        self.raw.as_bytes()
    }

    /// What is between its tags.
    pub fn inner(&self) -> &'a [u8] {
        self.inner.as_bytes()
    }

    pub(crate) fn nodes(&self) -> Nodes<'a> {
        Nodes {
            rest: self.inner,
            context: self.context.clone(),
        }
    }

    /// The namespace of one of this element's attributes; empty if it has no prefix.
    pub fn attribute_ns(&self, attribute: &Attribute<'_>) -> Cow<'a, str> {
        match attribute.name.split_once(':') {
            Some((prefix, _)) => match self.context.resolve(prefix) {
                Uri::Plain(ns) => Cow::Borrowed(ns),
                Uri::Decoded(ns) => Cow::Owned((*ns).to_owned()),
            },
            None => Cow::Borrowed(""),
        }
    }
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}{}", self.ns(), self.raw)
    }
}

/// The child elements of a fragment: what is between the tags of an element whose default
/// namespace is `default_ns`, inside a stream of that scope.
pub fn children<'a>(inner: &'a [u8], default_ns: &'a str, scope: &'a Scope) -> Children<'a> {
    Children::new(inner, Context::new(default_ns, Some(scope)))
}

/// An iterator over elements beside one another.
#[derive(Clone)]
pub struct Children<'a> {
    nodes: Nodes<'a>,
}

impl<'a> Children<'a> {
    /// The child elements of a fragment: what is between the tags of an element whose default
    /// namespace is `default_ns`, in a context without prefixes.
    pub fn of_fragment(inner: &'a [u8], default_ns: &'a str) -> Children<'a> {
        Children::new(inner, Context::new(default_ns, None))
    }

    fn new(inner: &'a [u8], context: Context<'a>) -> Children<'a> {
        let rest = std::str::from_utf8(inner).unwrap_or_default();
        Children {
            nodes: Nodes { rest, context },
        }
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        self.nodes.find_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) | Node::Cdata(_) => None,
        })
    }
}

/// What an element has inside, in order.
pub(crate) enum Node<'a> {
    /// Character data, not decoded.
    Text(&'a str),
    /// The inside of a CDATA section.
    Cdata(&'a str),
    Element(Element<'a>),
}

#[derive(Clone)]
pub(crate) struct Nodes<'a> {
    rest: &'a str,
    context: Context<'a>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let (piece, rest) = Piece::first(self.rest, |text| {
            Element::cut(text, &self.context).map(|e| (e.raw.len(), e))
        })?;
        self.rest = rest;
        Some(match piece {
            Piece::Text(text) => Node::Text(text),
            Piece::Cdata(text) => Node::Cdata(text),
            Piece::Element(element) => Node::Element(element),
        })
    }
}

/// A piece of content, with whatever was made of an element.
enum Piece<'a, T> {
    Text(&'a str),
    Cdata(&'a str),
    Element(T),
}

impl<'a, T> Piece<'a, T> {
    /// The piece at the start of `text`, and what follows. `element` gives the length of the
    /// element at the start of its argument. `None` at the end, and where nothing fits.
    fn first(
        text: &'a str,
        element: impl FnOnce(&'a str) -> Option<(usize, T)>,
    ) -> Option<(Piece<'a, T>, &'a str)> {
        if text.is_empty() {
            return None;
        }
        if !text.starts_with('<') {
            let end = memchr(b'<', text.as_bytes()).unwrap_or(text.len());
            let (piece, rest) = text.split_at(end);
            return Some((Piece::Text(piece), rest));
        }
        if let Some(content) = text.strip_prefix(CDATA_START) {
            let (piece, rest) = content.split_once(CDATA_END)?;
            return Some((Piece::Cdata(piece), rest));
        }
        let (end, made) = element(text)?;
        Some((Piece::Element(made), text.get(end..)?))
    }
}

/// Pieces of content, the elements skipped.
struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a, ()>;

    fn next(&mut self) -> Option<Piece<'a, ()>> {
        let skip = |text| Some((element_end(text, tag_end(text)?)?, ()));
        let (piece, rest) = Piece::first(self.rest, skip)?;
        self.rest = rest;
        Some(piece)
    }
}

/// An attribute as it is written.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// With its prefix.
    pub name: &'a str,
    /// Between the quotes, not decoded.
    pub raw_value: &'a str,
    verbatim: &'a str,
}

impl<'a> Attribute<'a> {
    /// The decoded value.
    pub fn value(&self) -> Cow<'a, str> {
        decode::value(self.raw_value)
    }

    /// From the first byte of the name to the closing quote.
    pub fn raw(&self) -> &'a [u8] {
        self.verbatim.as_bytes()
    }

    /// The prefix, if it is not a namespace declaration.
    pub(crate) fn prefix(&self) -> Option<&'a str> {
        self.name
            .split_once(':')
            .map(|(prefix, _)| prefix)
            .filter(|p| *p != "xmlns")
    }
}

/// An iterator over the attributes of an element.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let text = std::mem::take(&mut self.rest).trim_start_matches(is_space);
        let equals = memchr(b'=', text.as_bytes())?;
        let name = text[..equals].trim_end_matches(is_space);
        let value = text[equals + 1..].trim_start_matches(is_space);
        let quote = value.bytes().next().filter(|q| matches!(q, b'"' | b'\''))?;
        let value = &value[1..];
        let end = memchr(quote, value.as_bytes())?;
        self.rest = &value[end + 1..];
        let verbatim = &text[..text.len() - self.rest.len()];
        Some(Attribute {
            name,
            raw_value: &value[..end],
            verbatim,
        })
    }
}

impl<'a> Uri<'a> {
    fn new(raw: &'a str) -> Uri<'a> {
        match decode::value(raw) {
            Cow::Borrowed(text) => Uri::Plain(text),
            Cow::Owned(text) => Uri::Decoded(text.into()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Uri::Plain(text) => text,
            Uri::Decoded(text) => text,
        }
    }
}

impl<'a> Context<'a> {
    fn new(default: &'a str, scope: Option<&'a Scope>) -> Context<'a> {
        Context {
            default: Uri::Plain(default),
            declared: None,
            scope,
        }
    }

    /// The context inside an element with these attributes.
    fn inside(&self, attributes: &'a str) -> Context<'a> {
        let mut inside = self.clone();
        // Most elements declare nothing, or a default namespace.
        let bytes = attributes.as_bytes();
        if !memchr_iter(b'x', bytes).any(|at| bytes[at..].starts_with(b"xmlns")) {
            return inside;
        }
        let mut own = Vec::new();
        for attribute in (Attributes { rest: attributes }) {
            if attribute.name == "xmlns" {
                inside.default = Uri::new(attribute.raw_value);
            } else if let Some(prefix) = attribute.name.strip_prefix("xmlns:") {
                own.push((prefix, Uri::new(attribute.raw_value)));
            }
        }
        if !own.is_empty() {
            let outer = inside.declared.take();
            inside.declared = Some(Arc::new(Declared { own, outer }));
        }
        inside
    }

    fn resolve(&self, prefix: &str) -> Uri<'a> {
        let mut declared = self.declared.as_deref();
        while let Some(level) = declared {
            if let Some((_, uri)) = level.own.iter().find(|(p, _)| *p == prefix) {
                return uri.clone();
            }
            declared = level.outer.as_deref();
        }
        match prefix {
            "xml" => Uri::Plain(XML_NS),
            "xmlns" => Uri::Plain(XMLNS_NS),
            _ => Uri::Plain(
                self.scope
                    .and_then(|s| s.prefix(prefix))
                    .unwrap_or_default(),
            ),
        }
    }
}

fn is_space(c: char) -> bool {
    c.is_ascii() && chars::is(c as u8, SPACE)
}

fn local(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

/// Where a start tag ends.
#[derive(Clone, Copy)]
struct TagEnd {
    /// Behind the `>`.
    end: usize,
    is_empty: bool,
}

/// The end of the start tag at the start of `text`.
fn tag_end(text: &str) -> Option<TagEnd> {
    let bytes = text.as_bytes();
    match bytes {
        [b'<', b'/' | b'!' | b'?' | b'>', ..] => return None,
        [b'<', ..] => {}
        _ => return None,
    }
    let mut at = 1;
    loop {
        let is_found = |byte: &u8| matches!(byte, b'>' | b'"' | b'\'');
        at += bytes.get(at..)?.iter().position(is_found)?;
        let found = bytes[at];
        if found == b'>' {
            let is_empty = bytes[at - 1] == b'/';
            return Some(TagEnd {
                end: at + 1,
                is_empty,
            });
        }
        at += memchr(found, bytes.get(at + 1..)?)? + 2;
    }
}

/// The end of the element at the start of `text`, whose start tag is known.
fn element_end(text: &str, tag: TagEnd) -> Option<usize> {
    let mut at = tag.end;
    let mut depth = usize::from(!tag.is_empty);
    while depth > 0 {
        at += memchr(b'<', text.as_bytes().get(at..)?)?;
        let rest = text.get(at..)?;
        if rest.starts_with("</") {
            at += memchr(b'>', rest.as_bytes())? + 1;
            depth -= 1;
        } else if let Some(content) = rest.strip_prefix(CDATA_START) {
            at += CDATA_START.len() + content.find(CDATA_END)? + CDATA_END.len();
        } else {
            let tag = tag_end(rest)?;
            at += tag.end;
            depth += usize::from(!tag.is_empty);
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests;
