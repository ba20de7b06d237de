//! Building XML.

use std::mem;

/// Writes elements, with everything escaped that has to be. What it writes passes
/// [`crate::check`], if the names given to it are names and what is given to [`Writer::raw`] is
/// well-formed.
///
/// ```
/// let mut writer = cirrus_xml::Writer::new();
/// writer.start("iq").attr("type", "result").attr("id", "a<b");
/// writer.start("query").attr("xmlns", "jabber:iq:version");
/// writer.start("name").text("Q & A").end();
/// assert_eq!(
///     writer.into_bytes(),
///     b"<iq type='result' id='a&lt;b'><query xmlns='jabber:iq:version'>\
///       <name>Q &amp; A</name></query></iq>"
/// );
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
    /// Where the names of the open elements stand in `out`: start and end.
    open: Vec<(usize, usize)>,
    /// Whether the start tag of the innermost one still takes attributes.
    in_tag: bool,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty writer with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer {
            out: Vec::with_capacity(bytes),
            ..Writer::default()
        }
    }

    /// Opens an element.
    pub fn start(&mut self, name: &str) -> &mut Writer {
        self.close_tag();
        self.out.push(b'<');
        let start = self.out.len();
        self.out.extend_from_slice(name.as_bytes());
        self.open.push((start, self.out.len()));
        self.in_tag = true;
        self
    }

    /// Adds an attribute to the element opened last. It has no content yet: later it is too late,
    /// and nothing is written.
    pub fn attr(&mut self, name: &str, value: &str) -> &mut Writer {
        debug_assert!(self.in_tag, "attribute {name} behind the start tag");
        if self.in_tag {
            self.out.push(b' ');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"='");
            escape_attr(value, &mut self.out);
            self.out.push(b'\'');
        }
        self
    }

    /// The same, if there is a value.
    pub fn attr_opt(&mut self, name: &str, value: Option<&str>) -> &mut Writer {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    /// Appends character data.
    pub fn text(&mut self, text: &str) -> &mut Writer {
        if !text.is_empty() {
            self.close_tag();
            escape_text(text, &mut self.out);
        }
        self
    }

    /// Appends XML as it is.
    pub fn raw(&mut self, xml: &[u8]) -> &mut Writer {
        if !xml.is_empty() {
            self.close_tag();
            self.out.extend_from_slice(xml);
        }
        self
    }

    /// Closes the innermost open element, with `/>` if it is empty.
    pub fn end(&mut self) -> &mut Writer {
        if let Some((start, end)) = self.open.pop() {
            if mem::take(&mut self.in_tag) {
                self.out.extend_from_slice(b"/>");
            } else {
                self.out.extend_from_slice(b"</");
                self.out.extend_from_within(start..end);
                self.out.push(b'>');
            }
        }
        self
    }

    /// Closes what is still open, and gives the bytes.
    pub fn into_bytes(mut self) -> Vec<u8> {
        while !self.open.is_empty() {
            self.end();
        }
        self.out
    }

    /// How many bytes there are so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there is nothing so far.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn close_tag(&mut self) {
        if mem::take(&mut self.in_tag) {
            self.out.push(b'>');
        }
    }
}

/// Appends `text` as character data. A character that XML cannot have becomes U+FFFD.
pub fn escape_text(text: &str, out: &mut Vec<u8>) {
    escape(text, out, |byte| {
        Some(match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            // Only `]]>` would need it.
            b'>' => b"&gt;",
            // A literal one would be read as a line feed.
            b'\r' => b"&#13;",
            _ => return None,
        })
    });
}

/// Appends `text` as the inside of an attribute's value, for either quote. A character that XML
/// cannot have becomes U+FFFD.
pub fn escape_attr(text: &str, out: &mut Vec<u8>) {
    escape(text, out, |byte| {
        Some(match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'"' => b"&quot;",
            b'\'' => b"&apos;",
            // Literal ones would be read as spaces.
            b'\t' => b"&#9;",
            b'\n' => b"&#10;",
            b'\r' => b"&#13;",
            _ => return None,
        })
    });
}

/// Most bytes that [`escape_attr`] makes of `text`.
pub fn escaped_attr_len(text: &str) -> usize {
    let more = |byte: &u8| {
        matches!(
            byte,
            b'&' | b'<' | b'>' | b'"' | b'\'' | b'\t' | b'\n' | b'\r'
        )
    };
    text.len() + 5 * text.as_bytes().iter().filter(|byte| more(byte)).count()
}

fn escape(text: &str, out: &mut Vec<u8>, reference: impl Fn(u8) -> Option<&'static [u8]>) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (replacement, length): (&[u8], usize) = match byte {
            0xEF if crate::chars::is_noncharacter(bytes, at) => ("\u{FFFD}".as_bytes(), 3),
            b'\t' | b'\n' | b'\r' | b' '.. => match reference(byte) {
                Some(reference) => (reference, 1),
                None => continue,
            },
            _ => ("\u{FFFD}".as_bytes(), 1),
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(replacement);
        done = at + length;
    }
    out.extend_from_slice(&bytes[done..]);
}
