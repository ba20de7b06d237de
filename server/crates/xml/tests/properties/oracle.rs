//! The parser that decides who is right.

use rxml::error::EndOrError;
use rxml::{Event, Options, Parse, Parser, WithOptions};

use super::tree::Tree;

/// The root of a document.
pub(crate) struct Document {
    pub(crate) children: Vec<Tree>,
    /// Whether there is text directly inside the root.
    pub(crate) has_text: bool,
}

/// Reads a whole document.
pub(crate) fn document(bytes: &[u8]) -> Result<Document, EndOrError> {
    // XML 1.0 section 2.11, which the oracle forgets in attributes.
    let mut unix = bytes.to_vec();
    for at in (0..bytes.len()).rev().filter(|&at| bytes[at] == b'\r') {
        match bytes.get(at + 1) {
            Some(b'\n') => drop(unix.remove(at)),
            _ => unix[at] = b'\n',
        }
    }
    let mut bytes = &unix[..];
    let options = Options {
        max_token_length: 1 << 20,
        ..Options::default()
    };
    let mut parser = Parser::with_options(options);
    let mut open: Vec<Tree> = Vec::new();
    let mut root = None;
    while let Some(event) = parser.parse(&mut bytes, true)? {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, (ns, name), attributes) => {
                let mut attributes: Vec<_> = attributes
                    .iter()
                    .map(|((ns, name), value)| (ns.to_string(), name.to_string(), value.clone()))
                    .collect();
                attributes.sort();
                let (ns, name) = (ns.to_string(), name.to_string());
                open.push(Tree {
                    ns,
                    name,
                    attributes,
                    ..Tree::default()
                });
            }
            Event::Text(_, text) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&text);
                }
            }
            Event::EndElement(_) => {
                let element = open.pop().unwrap_or_default();
                match open.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => root = Some(element),
                }
            }
        }
    }
    let root = root.unwrap_or_default();
    Ok(Document {
        has_text: !root.text.is_empty(),
        children: root.children,
    })
}
