//! XML as the tests see it: a tree for what was received, and a strict parser of streams.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use anyhow::{Result, anyhow, bail};
use rxml::error::EndOrError;
use rxml::parser::{Options, Parse as _, Parser, WithOptions as _};

/// Namespace of stanzas.
pub const CLIENT: &str = "jabber:client";
/// Namespace of the stream itself.
pub const STREAM: &str = "http://etherx.jabber.org/streams";
/// Namespace of `xml:lang`.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Longest attribute value or name that the tests accept, in bytes.
const MAX_TOKEN: usize = 1 << 20;

/// An element with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Namespace name; empty where there is none.
    pub ns: String,
    /// Local name.
    pub name: String,
    /// Attributes without namespace declarations: namespace, local name, value.
    pub attrs: Vec<(String, String, String)>,
    /// What is in it, in order.
    pub children: Vec<Child>,
}

/// What an element holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Child {
    /// An element.
    Node(Node),
    /// Text between tags.
    Text(String),
}

/// One step of a stream at its first level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The stream header: the root element without children.
    Open(Node),
    /// A whole first-level element.
    Element(Node),
    /// The end tag of the stream.
    Close,
}

impl Node {
    /// The value of an attribute that has no namespace.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        let found = self
            .attrs
            .iter()
            .find(|(ns, attr, _)| ns.is_empty() && attr == name);
        found.map(|(_, _, value)| value.as_str())
    }

    /// The first child element of that name and namespace.
    #[must_use]
    pub fn child(&self, name: &str, ns: &str) -> Option<&Node> {
        self.nodes().find(|node| node.name == name && node.ns == ns)
    }

    /// The child elements.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.children.iter().filter_map(|child| match child {
            Child::Node(node) => Some(node),
            Child::Text(_) => None,
        })
    }

    /// The text directly in it.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|child| match child {
            Child::Text(text) => Some(text.as_str()),
            Child::Node(_) => None,
        });
        texts.collect()
    }

    /// Whether it has this name and namespace.
    #[must_use]
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Whether it is a message, a presence or an iq.
    #[must_use]
    pub fn is_stanza(&self) -> bool {
        self.ns == CLIENT && ["iq", "message", "presence"].contains(&self.name.as_str())
    }

    fn write(&self, outer_ns: &str, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        let _ = write!(out, "{indent}<{}", self.name);
        if self.ns != outer_ns {
            let _ = write!(out, " xmlns='{}'", self.ns);
        }
        for (ns, name, value) in &self.attrs {
            let prefix = match ns.as_str() {
                "" => String::new(),
                XML => "xml:".to_owned(),
                other => format!("{{{other}}}"),
            };
            let _ = write!(out, " {prefix}{name}='{}'", escape(value));
        }
        let blank = |child: &&Child| matches!(child, Child::Text(text) if text.trim().is_empty());
        let children: Vec<&Child> = self.children.iter().filter(|child| !blank(child)).collect();
        match children.as_slice() {
            [] => out.push_str("/>"),
            [Child::Text(text)] => {
                let _ = write!(out, ">{}</{}>", escape(text), self.name);
            }
            children => {
                out.push('>');
                for child in children {
                    out.push('\n');
                    match child {
                        Child::Node(node) => node.write(&self.ns, depth + 1, out),
                        Child::Text(text) => {
                            let _ = write!(out, "{indent}  {}", escape(text));
                        }
                    }
                }
                let _ = write!(out, "\n{indent}</{}>", self.name);
            }
        }
    }
}

/// Indented, for messages to people.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(CLIENT, 0, &mut out);
        f.write_str(&out)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Open(header) => write!(f, "the stream header\n{header}"),
            Event::Element(node) => node.fmt(f),
            Event::Close => f.write_str("</stream:stream>"),
        }
    }
}

/// Text as it may stand in an attribute or between tags.
#[must_use]
pub fn escape(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace('\'', "&apos;").replace('"', "&quot;")
}

/// A parser of one stream, fed as bytes come in. It takes nothing that is not well-formed.
pub struct StreamParser {
    parser: Parser,
    open: Vec<Node>,
    ready: VecDeque<Event>,
}

impl Default for StreamParser {
    fn default() -> StreamParser {
        StreamParser::new()
    }
}

impl fmt::Debug for StreamParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamParser")
            .field("depth", &self.open.len())
            .finish_non_exhaustive()
    }
}

impl StreamParser {
    /// A parser at the beginning of a stream.
    #[must_use]
    pub fn new() -> StreamParser {
        let options = Options {
            max_token_length: MAX_TOKEN,
            ..Options::default()
        };
        let parser = Parser::with_options(options);
        StreamParser {
            parser,
            open: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next event among the bytes fed so far.
    pub fn event(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// When they are not well-formed, or hold what XMPP forbids.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            match self.parser.parse(&mut bytes, false) {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) | Err(EndOrError::NeedMoreData) => return Ok(()),
                Err(EndOrError::Error(error)) => bail!("not well-formed: {error}"),
            }
        }
    }

    fn take(&mut self, event: rxml::Event) -> Result<()> {
        match event {
            rxml::Event::XmlDeclaration(..) => {}
            rxml::Event::StartElement(_, (ns, name), attrs) => {
                let attrs = attrs.into_iter();
                let mut attrs: Vec<_> = attrs
                    .map(|((ns, name), value)| (ns.as_str().to_owned(), name.to_string(), value))
                    .collect();
                attrs.sort();
                let (ns, name) = (ns.as_str().to_owned(), name.to_string());
                let node = Node {
                    ns,
                    name,
                    attrs,
                    children: Vec::new(),
                };
                if self.open.is_empty() {
                    self.ready.push_back(Event::Open(node.clone()));
                }
                self.open.push(node);
            }
            rxml::Event::EndElement(_) => {
                let node = self
                    .open
                    .pop()
                    .ok_or_else(|| anyhow!("an end tag too many"))?;
                match self.open.as_mut_slice() {
                    [] => self.ready.push_back(Event::Close),
                    [_] => self.ready.push_back(Event::Element(node)),
                    [.., parent] => parent.children.push(Child::Node(node)),
                }
            }
            rxml::Event::Text(_, text) => match self.open.as_mut_slice() {
                [_, .., parent] => match parent.children.last_mut() {
                    Some(Child::Text(before)) => before.push_str(&text),
                    _ => parent.children.push(Child::Text(text)),
                },
                _ if text.trim().is_empty() => {}
                _ => bail!("text between stanzas: {text:?}"),
            },
        }
        Ok(())
    }
}

/// The elements of a fragment as it would stand in a client stream: the default namespace is that
/// of stanzas, `stream:` is bound, and so are these further prefixes.
///
/// # Errors
/// When the fragment is not well-formed.
pub fn fragment(text: &str, prefixes: &[(&str, &str)]) -> Result<Vec<Node>> {
    let mut parser = StreamParser::new();
    let mut root = format!("<stream:stream xmlns='{CLIENT}' xmlns:stream='{STREAM}'");
    for (prefix, ns) in prefixes {
        let _ = write!(root, " xmlns:{prefix}='{ns}'");
    }
    parser.feed(format!("{root}>{text}</stream:stream>").as_bytes())?;
    let mut nodes = Vec::new();
    let mut closed = false;
    while let Some(event) = parser.event() {
        match event {
            Event::Open(_) => {}
            Event::Element(node) => nodes.push(node),
            Event::Close => closed = true,
        }
    }
    if closed {
        Ok(nodes)
    } else {
        bail!("elements stay open in {text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_comes_as_header_elements_and_close_however_it_is_cut() {
        let text = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
            xmlns:stream='http://etherx.jabber.org/streams' id='1'><iq type='get'>\
            <q xmlns='x'>a&amp;b</q></iq> <presence/></stream:stream>";
        for size in [1, 7, text.len()] {
            let mut parser = StreamParser::new();
            let mut events = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                parser.feed(chunk).unwrap();
                events.extend(std::iter::from_fn(|| parser.event()));
            }
            assert_eq!(events.len(), 4, "{events:?}");
            let Event::Open(header) = &events[0] else {
                panic!("{events:?}")
            };
            assert_eq!(header.attr("id"), Some("1"));
            let Event::Element(iq) = &events[1] else {
                panic!("{events:?}")
            };
            assert_eq!(iq.child("q", "x").unwrap().text(), "a&b");
            assert_eq!(events[3], Event::Close);
        }
    }

    #[test]
    fn what_is_not_well_formed_is_an_error() {
        for bad in [
            "<a></b>",
            "<a x='1' x='2'/>",
            "<a>&nbsp;</a>",
            "<p:a/>",
            "<a>\u{1}</a>",
            "text",
        ] {
            assert!(fragment(bad, &[]).is_err(), "{bad}");
        }
        assert!(fragment("<a>", &[]).is_err());
    }
}
