//! Elements that mean the same wherever they stand.

use std::borrow::Cow;

use crate::cursor::{Node, Nodes};
use crate::{Element, Limits, Scope, XML_NS, XmlError, check, escape_attr};

/// The stanza in `bytes`, written so that it depends on nothing around it: every element without
/// a prefix, its namespace declared where it differs from its parent's (always on the root), the
/// prefixes of attributes declared beside them. For a stanza that is [`crate::Checked::foreign`];
/// the result is not, in any stream.
///
/// # Errors
/// As [`check`], which runs first.
pub fn standalone(bytes: &[u8], scope: &Scope, limits: &Limits) -> Result<Vec<u8>, XmlError> {
    check(bytes, scope, limits)?;
    Ok(Element::parse_in(bytes, scope)?.standalone())
}

impl Element<'_> {
    /// The element written so that it depends on nothing around it, as [`standalone`] does.
    pub fn standalone(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.raw().len() + 64);
        let mut open: Vec<(Element<'_>, Nodes<'_>)> = Vec::new();
        start_tag(self, None, &mut out);
        if self.inner().is_empty() {
            return out;
        }
        open.push((self.clone(), self.nodes()));
        while let Some((element, nodes)) = open.last_mut() {
            match nodes.next() {
                Some(Node::Text(text)) => out.extend_from_slice(text.as_bytes()),
                Some(Node::Cdata(text)) => {
                    out.extend_from_slice(b"<![CDATA[");
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(b"]]>");
                }
                Some(Node::Element(child)) => {
                    let default_ns = (element.ns() != XML_NS).then(|| element.ns());
                    start_tag(&child, default_ns, &mut out);
                    if !child.inner().is_empty() {
                        let nodes = child.nodes();
                        open.push((child, nodes));
                    }
                }
                None => {
                    out.extend_from_slice(b"</");
                    name(element, &mut out);
                    out.push(b'>');
                    open.pop();
                }
            }
        }
        out
    }
}

/// Without a prefix, unless it is `xml`, which is declared everywhere and cannot be a default.
fn name(element: &Element<'_>, out: &mut Vec<u8>) {
    if element.ns() == XML_NS {
        out.extend_from_slice(b"xml:");
    }
    out.extend_from_slice(element.name().as_bytes());
}

/// Writes the start tag, or an empty-element tag if there is no content. `default_ns` is what is
/// in force around it, if that is known.
fn start_tag(element: &Element<'_>, default_ns: Option<&str>, out: &mut Vec<u8>) {
    out.push(b'<');
    name(element, out);
    if element.ns() != XML_NS && default_ns != Some(element.ns()) {
        declare(None, element.ns(), out);
    }
    let mut declared: Vec<&str> = vec!["xml"];
    declared.extend(
        element
            .attributes()
            .filter_map(|a| a.name.strip_prefix("xmlns:")),
    );
    for attribute in element.attributes().filter(|a| a.name != "xmlns") {
        if let Some(prefix) = attribute.prefix()
            && !declared.contains(&prefix)
        {
            let ns = element.attribute_ns(&attribute);
            if ns.is_empty() {
                // Nothing declares it: the scope that the element was checked in is not at hand.
                continue;
            }
            declare(Some(prefix), &ns, out);
            declared.push(prefix);
        }
        out.push(b' ');
        out.extend_from_slice(attribute.raw());
    }
    out.extend_from_slice(if element.inner().is_empty() {
        b"/>"
    } else {
        b">"
    });
}

fn declare(prefix: Option<&str>, ns: &str, out: &mut Vec<u8>) {
    let name = prefix.map_or(Cow::Borrowed(" xmlns"), |p| format!(" xmlns:{p}").into());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_attr(ns, out);
    out.push(b'\'');
}
