//! The strict check of one stanza: one pass that decides everything a recipient's parser could
//! object to, and notes what routing needs.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::chars::{self, CDATA, SPACE, TEXT};
use crate::error::{XmlError, not_well_formed, restricted};
use crate::framer::declaration_error;
use crate::tag::{self, Attributes, Kind, Name, RawAttribute, Span};
use crate::{Limits, Scope, XML_NS, decode, escape_attr};

/// What [`check`] found in a stanza. The methods that take `bytes` take the ones that were
/// checked.
#[derive(Clone, Debug)]
pub struct Checked {
    name: Name,
    ns: Arc<str>,
    attributes: Attributes,
    inner: Span,
    payload: Option<(Span, Ns)>,
    child_elements: usize,
    needed: SmallVec<[u16; 4]>,
    depends_on_stream: bool,
}

/// A namespace, without copying it out of the bytes where that serves.
#[derive(Clone, Debug)]
enum Ns {
    Raw(Span),
    Owned(Arc<str>),
}

impl Checked {
    /// The root's local name.
    pub fn name<'b>(&self, bytes: &'b [u8]) -> &'b str {
        part(bytes, self.name.local().range())
    }

    /// The root's namespace.
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// The decoded value of a root attribute, by its name as written (`xml:lang` with its prefix).
    pub fn attr<'b>(&self, bytes: &'b [u8], name: &str) -> Option<Cow<'b, str>> {
        let is_it = |a: &&RawAttribute| part(bytes, a.name.whole.range()) == name;
        let attribute = self.attributes.iter().find(is_it)?;
        Some(decode::value(part(bytes, attribute.value.range())))
    }

    /// What the root of a forwarded copy needs beside `to`, `from`, `id`, `type`, `xml:lang` and
    /// the default namespace: all other root attributes, verbatim, each with one leading space,
    /// and declarations of the prefixes of the stream header that the stanza uses.
    pub fn extra(&self, bytes: &[u8], scope: &Scope) -> Vec<u8> {
        let mut out = Vec::new();
        for attribute in &self.attributes {
            match part(bytes, attribute.name.whole.range()) {
                "to" | "from" | "id" | "type" | "xml:lang" | "xmlns" => {}
                _ => {
                    out.push(b' ');
                    out.extend_from_slice(bytes.get(attribute.verbatim()).unwrap_or_default());
                }
            }
        }
        for (prefix, ns) in self.needed(scope) {
            out.extend_from_slice(b" xmlns:");
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(b"='");
            escape_attr(ns, &mut out);
            out.push(b'\'');
        }
        out
    }

    /// What is between the root's tags; empty for an empty-element tag.
    pub fn inner(&self) -> Range<usize> {
        self.inner.range()
    }

    /// Local name and namespace of the root's first child element.
    pub fn payload<'s>(&'s self, bytes: &'s [u8]) -> Option<(&'s str, &'s str)> {
        let (name, ns) = self.payload.as_ref()?;
        let ns = match ns {
            Ns::Raw(span) => part(bytes, span.range()),
            Ns::Owned(ns) => ns,
        };
        Some((part(bytes, name.range()), ns))
    }

    /// How many child elements the root has.
    pub fn child_elements(&self) -> usize {
        self.child_elements
    }

    /// Whether the stanza means something else when it is cut out of its stream and its root is
    /// written without a prefix: it uses a prefix of the stream header, or its root has one.
    /// [`crate::standalone`] makes one of it that does not.
    pub fn foreign(&self) -> bool {
        self.depends_on_stream || !self.needed.is_empty()
    }

    /// The prefixes of the stream header that the stanza uses, with their namespaces. `scope` is
    /// that of the check.
    pub fn needed<'s>(&'s self, scope: &'s Scope) -> impl Iterator<Item = (&'s str, &'s str)> {
        let find = |&at: &u16| scope.prefixes.get(usize::from(at));
        self.needed
            .iter()
            .filter_map(find)
            .map(|(prefix, ns)| (&**prefix, &**ns))
    }
}

fn part(bytes: &[u8], range: Range<usize>) -> &str {
    bytes
        .get(range)
        .and_then(|b| std::str::from_utf8(b).ok())
        .unwrap_or_default()
}

/// Checks that `bytes` are exactly one element that is well-formed XML 1.0 with namespaces, within
/// the limits, and without what XMPP forbids. `scope` is what the stream header declares.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(bytes: &[u8], scope: &Scope, limits: &Limits) -> Result<Checked, XmlError> {
    if bytes.len() > limits.max_stanza.min(u32::MAX as usize) {
        return Err(XmlError::TooBig {
            what: "bytes of a stanza",
            limit: limits.max_stanza,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| XmlError::InvalidEncoding {
        at: e.valid_up_to(),
    })?;
    if !text.starts_with('<') {
        return not_well_formed("an element was expected", 0);
    }
    let mut pass = Pass {
        text,
        scope,
        limits,
        at: 0,
        open: SmallVec::new(),
        bindings: SmallVec::new(),
        found: Checked {
            name: Name::default(),
            ns: Arc::clone(&scope.default),
            attributes: Attributes::new(),
            inner: Span::default(),
            payload: None,
            child_elements: 0,
            needed: SmallVec::new(),
            depends_on_stream: false,
        },
    };
    pass.run()?;
    Ok(pass.found)
}

/// The state of one check.
struct Pass<'a> {
    text: &'a str,
    scope: &'a Scope,
    limits: &'a Limits,
    at: usize,
    open: SmallVec<[Open; 16]>,
    bindings: SmallVec<[Binding; 8]>,
    found: Checked,
}

/// An element that is open.
#[derive(Clone, Copy)]
struct Open {
    name: Span,
    /// How many bindings were in force before it.
    bindings: u32,
}

/// A namespace declaration in force.
#[derive(Clone, Copy)]
struct Binding {
    /// Empty for the default namespace.
    prefix: Span,
    namespace: Span,
}

/// What a prefix stands for.
enum Resolved<'a> {
    Here(Span),
    Stream(usize, &'a Arc<str>),
    Xml,
}

impl<'a> Pass<'a> {
    fn run(&mut self) -> Result<(), XmlError> {
        let bytes = self.text.as_bytes();
        let mut attributes = Attributes::new();
        self.start_tag(&mut attributes)?;
        while !self.open.is_empty() {
            self.at = chars::skip_until(bytes, self.at, TEXT);
            match bytes.get(self.at) {
                Some(b'<') => self.markup(&mut attributes)?,
                Some(b'&') => self.at = decode::check_reference(self.text, self.at)?,
                Some(b']') if bytes[self.at..].starts_with(b"]]>") => {
                    return not_well_formed("a ]]> in text", self.at);
                }
                Some(b']') => self.at += 1,
                Some(0xEF) if !chars::is_noncharacter(bytes, self.at) => self.at += 1,
                Some(_) => return not_well_formed("a character that XML forbids", self.at),
                None => return not_well_formed("an element without an end", self.at),
            }
        }
        if self.at == bytes.len() {
            Ok(())
        } else {
            not_well_formed("more than one element", self.at)
        }
    }

    /// At a `<` inside the root.
    fn markup(&mut self, attributes: &mut Attributes) -> Result<(), XmlError> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'/') => self.end_tag(),
            Some(b'!') => self.cdata(),
            Some(b'?') => restricted("a processing instruction", self.at),
            _ => self.start_tag(attributes),
        }
    }

    /// Reads a start tag; `attributes` is room for its attributes.
    fn start_tag(&mut self, attributes: &mut Attributes) -> Result<(), XmlError> {
        let tag = tag::read(self.text, self.at, self.limits, attributes)?;
        self.at = tag.end;
        let outer = self.bindings.len();
        for attribute in attributes.iter() {
            if let Some(prefix) = attribute.declares() {
                self.bindings.push(Binding {
                    prefix,
                    namespace: attribute.value,
                });
            }
        }
        // A look-up goes through all of them.
        if self.bindings.len() > self.limits.max_attributes {
            let limit = self.limits.max_attributes;
            return Err(XmlError::TooBig {
                what: "namespace declarations at once",
                limit,
            });
        }
        self.resolve_all(tag.name, attributes)?;
        let depth = self.open.len() + 1;
        if depth > self.limits.max_depth {
            let limit = self.limits.max_depth;
            return Err(XmlError::TooBig {
                what: "elements inside one another",
                limit,
            });
        }
        match depth {
            1 => self.note_root(tag.name, attributes)?,
            2 => self.note_child(tag.name)?,
            _ => {}
        }
        if tag.is_empty {
            self.bindings.truncate(outer);
        } else {
            self.open.push(Open {
                name: tag.name.whole,
                bindings: outer as u32,
            });
        }
        Ok(())
    }

    fn end_tag(&mut self) -> Result<(), XmlError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let Some(open) = self.open.pop() else {
            return not_well_formed("an end tag without a start tag", start);
        };
        let name = open.name.of(self.text);
        if !bytes[start + 2..].starts_with(name.as_bytes()) {
            return not_well_formed("an end tag of another name than the start tag", start);
        }
        let end = chars::skip_while(bytes, start + 2 + name.len(), SPACE);
        if bytes.get(end) != Some(&b'>') {
            return not_well_formed("an end tag of another name than the start tag", start);
        }
        self.bindings.truncate(open.bindings as usize);
        self.at = end + 1;
        if self.open.is_empty() {
            self.found.inner.end = start as u32;
        }
        Ok(())
    }

    fn cdata(&mut self) -> Result<(), XmlError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        if !bytes[start..].starts_with(b"<![CDATA[") {
            let byte = bytes.get(start + 2).copied().unwrap_or_default();
            return Err(declaration_error(byte, start));
        }
        let mut at = start + b"<![CDATA[".len();
        loop {
            at = chars::skip_until(bytes, at, CDATA);
            match bytes.get(at) {
                Some(b']') if bytes[at..].starts_with(b"]]>") => {
                    self.at = at + 3;
                    return Ok(());
                }
                Some(b']') => at += 1,
                Some(0xEF) if !chars::is_noncharacter(bytes, at) => at += 1,
                Some(_) => return not_well_formed("a character that XML forbids", at),
                None => return not_well_formed("a CDATA section without an end", start),
            }
        }
    }

    /// Resolves every prefix of a tag, and finds attributes that are the same by namespace.
    fn resolve_all(&mut self, name: Name, attributes: &[RawAttribute]) -> Result<(), XmlError> {
        if name.has_prefix() {
            self.resolve(name)?;
        }
        let mut expanded: SmallVec<[(&str, Cow<'_, str>); 4]> = SmallVec::new();
        for attribute in attributes {
            if attribute.kind != Kind::Prefixed {
                continue;
            }
            let ns = match self.resolve(attribute.name)? {
                Resolved::Here(span) => decode::value(span.of(self.text)),
                Resolved::Stream(_, ns) => Cow::Borrowed(&**ns),
                Resolved::Xml => Cow::Borrowed(XML_NS),
            };
            let both = (attribute.name.local().of(self.text), ns);
            if expanded.contains(&both) {
                let at = attribute.name.whole.start as usize;
                return not_well_formed("an attribute that is there twice", at);
            }
            expanded.push(both);
        }
        Ok(())
    }

    /// What the prefix of `name` stands for. Notes the use of one of the stream header.
    fn resolve(&mut self, name: Name) -> Result<Resolved<'a>, XmlError> {
        let resolved = self.look_up(name)?;
        if let Resolved::Stream(at, _) = resolved {
            // A header has at most `max_attributes` declarations.
            let at = at as u16;
            if !self.found.needed.contains(&at) {
                self.found.needed.push(at);
            }
        }
        Ok(resolved)
    }

    fn look_up(&self, name: Name) -> Result<Resolved<'a>, XmlError> {
        let (text, scope) = (self.text, self.scope);
        let prefix = name.prefix().of(text);
        for binding in self.bindings.iter().rev() {
            if binding.prefix.of(text) == prefix {
                return Ok(Resolved::Here(binding.namespace));
            }
        }
        let at = name.whole.start as usize;
        match prefix {
            "xml" => Ok(Resolved::Xml),
            "xmlns" => not_well_formed("the prefix xmlns", at),
            _ => match scope.position(prefix) {
                Some(at) => Ok(Resolved::Stream(at, &scope.prefixes[at].1)),
                None => Err(XmlError::BadNamespacePrefix { at }),
            },
        }
    }

    /// The namespace of an element, its default one if it has no prefix.
    fn element_ns(&mut self, name: Name) -> Result<Ns, XmlError> {
        let resolved = if name.has_prefix() {
            self.look_up(name)?
        } else {
            match self
                .bindings
                .iter()
                .rev()
                .find(|b| b.prefix.range().is_empty())
            {
                Some(binding) => Resolved::Here(binding.namespace),
                None => return Ok(Ns::Owned(Arc::clone(&self.scope.default))),
            }
        };
        Ok(match resolved {
            Resolved::Here(span) => match decode::value(span.of(self.text)) {
                Cow::Borrowed(_) => Ns::Raw(span),
                Cow::Owned(ns) => Ns::Owned(ns.into()),
            },
            Resolved::Stream(_, ns) => Ns::Owned(Arc::clone(ns)),
            Resolved::Xml => Ns::Owned(XML_NS.into()),
        })
    }

    fn note_root(&mut self, name: Name, attributes: &Attributes) -> Result<(), XmlError> {
        self.found.name = name;
        let prefix = name.prefix().of(self.text);
        self.found.depends_on_stream = !matches!(prefix, "" | "xml");
        self.found.attributes = attributes.clone();
        self.found.inner = Span::new(self.at..self.at);
        match self.element_ns(name)? {
            Ns::Raw(span) if span.of(self.text) == &*self.scope.default => {}
            Ns::Raw(span) => self.found.ns = span.of(self.text).into(),
            Ns::Owned(ns) => self.found.ns = ns,
        }
        Ok(())
    }

    fn note_child(&mut self, name: Name) -> Result<(), XmlError> {
        self.found.child_elements += 1;
        if self.found.payload.is_none() {
            self.found.payload = Some((name.local(), self.element_ns(name)?));
        }
        Ok(())
    }
}
