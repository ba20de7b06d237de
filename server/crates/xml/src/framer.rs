//! Cuts a stream into its header and its first-level elements, without looking inside more than
//! that needs: it counts tags, and leaves names, attributes and characters to the check.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr3};

use crate::Limits;
use crate::chars::{self, SPACE};
use crate::error::{XmlError, not_well_formed, restricted};

/// One piece of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The start tag of the stream header, without the XML declaration before it.
    Open(Bytes),
    /// One whole first-level element.
    Element(Bytes),
    /// The end tag of the stream. Nothing behind it is read.
    Close,
    /// So many bytes of white space between elements (RFC 6120 section 4.6.1).
    Space(usize),
}

/// A resumable framer: bytes go into one buffer in any pieces, frames come out.
///
/// No byte is looked at twice, however small the pieces are. No more than
/// [`Limits::max_stanza`] bytes (before the header [`Limits::max_header`]) of an incomplete frame
/// are ever waited for; what the buffer holds beyond is the reader's choice.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    place: Place,
    /// Inside a frame: the elements that are open, and what is being read.
    depth: usize,
    token: Token,
    /// How much of the front of the buffer has been looked at.
    at: usize,
    /// The name of the header's tag, which the stream's end tag repeats.
    name: Bytes,
}

/// Where in the stream the front of the buffer is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Before the header. Whether an XML declaration may still come.
    Start {
        declaration: bool,
    },
    Declaration,
    Header,
    Between,
    Element,
    CloseTag,
    /// The header was an empty element.
    Empty,
    Closed,
    Failed(XmlError),
}

/// What the framer is inside of.
#[derive(Clone, Copy, Debug)]
enum Token {
    Text,
    /// Behind a `<`.
    Markup,
    /// In a start tag, outside of quotes.
    Start,
    /// In a start tag, inside this quote.
    Quoted(u8),
    End,
    /// Behind `<!` and so many more bytes.
    CdataStart(usize),
    Cdata,
}

const CDATA_START: &[u8] = b"[CDATA[";

impl Framer {
    /// A framer for a new stream.
    pub fn new(limits: Limits) -> Framer {
        Framer {
            limits,
            place: Place::Start { declaration: true },
            depth: 0,
            token: Token::Text,
            at: 0,
            name: Bytes::new(),
        }
    }

    /// Expects a new stream header next, as after STARTTLS and SASL (RFC 6120 section 4.3.3). To
    /// be called between two frames; what the buffer holds by then belongs to the new stream.
    pub fn restart(&mut self) {
        *self = Framer::new(self.limits);
    }

    /// Cuts the next frame off the front of `buf`; `None` when there is no whole one yet. Call it
    /// again with the same buffer, longer by what has arrived; nobody else may take bytes off
    /// its front meanwhile.
    ///
    /// # Errors
    /// What ends the stream; the same again ever after.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, XmlError> {
        let result = self.step(buf);
        if let Err(error) = result {
            self.place = Place::Failed(error);
        }
        result
    }

    fn step(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, XmlError> {
        loop {
            let end = match self.place {
                Place::Start { .. } | Place::Between => {
                    let space = chars::skip_while(buf, 0, SPACE);
                    if space > 0 {
                        buf.advance(space);
                        return Ok(Some(Frame::Space(space)));
                    }
                    match self.begin(buf)? {
                        Some(place) => self.enter(place),
                        None => return Ok(None),
                    }
                    continue;
                }
                Place::Declaration => self.find_declaration_end(buf)?,
                Place::Header => self.find_header_end(buf)?,
                Place::Element => self.find_element_end(buf)?,
                Place::CloseTag => self.find_close_end(buf)?,
                Place::Empty => Some(0),
                Place::Closed => {
                    buf.clear();
                    None
                }
                Place::Failed(error) => return Err(error),
            };
            let Some(end) = end else { return Ok(None) };
            let bytes = buf.split_to(end);
            if let Some(frame) = self.finish(bytes)? {
                return Ok(Some(frame));
            }
        }
    }

    fn enter(&mut self, place: Place) {
        self.place = place;
        self.depth = 0;
        self.token = Token::Text;
        self.at = 0;
    }

    /// Decides by the first bytes what begins here.
    fn begin(&self, buf: &[u8]) -> Result<Option<Place>, XmlError> {
        let is_start = matches!(self.place, Place::Start { .. });
        match *buf {
            [] | [b'<'] => Ok(None),
            // The byte order marks of UTF-16, and UTF-16 or UTF-32 without one.
            [0xFE | 0xFF | 0, ..] | [b'<', 0, ..] if is_start => Err(XmlError::UnsupportedEncoding),
            [b'<', b'?', ..] => match self.place {
                Place::Start { declaration: true } => Ok(Some(Place::Declaration)),
                _ => restricted("a processing instruction", 0),
            },
            [b'<', b'!'] => Ok(None),
            [b'<', b'!', b'[', ..] if !is_start => Err(XmlError::TextBetweenStanzas),
            [b'<', b'!', byte, ..] => Err(declaration_error(byte, 0)),
            [b'<', b'/', ..] if is_start => not_well_formed("an end tag without a start tag", 0),
            [b'<', b'/', ..] => Ok(Some(Place::CloseTag)),
            [b'<', ..] if is_start => Ok(Some(Place::Header)),
            [b'<', ..] => Ok(Some(Place::Element)),
            _ if is_start => not_well_formed("text before the stream header", 0),
            _ => Err(XmlError::TextBetweenStanzas),
        }
    }

    /// The front of the buffer up to a limit. Nothing beyond is looked at, so that the outcome
    /// does not depend on how much arrived at once.
    fn window<'a>(&self, buf: &'a [u8], limit: usize) -> &'a [u8] {
        buf.get(..limit).unwrap_or(buf)
    }

    /// Called when the window has no end of the frame.
    fn wait(
        &mut self,
        buf: &[u8],
        limit: usize,
        what: &'static str,
    ) -> Result<Option<usize>, XmlError> {
        if buf.len() > limit {
            return Err(XmlError::TooBig { what, limit });
        }
        self.at = buf.len();
        Ok(None)
    }

    fn find_declaration_end(&mut self, buf: &[u8]) -> Result<Option<usize>, XmlError> {
        let limit = self.limits.max_header;
        let window = self.window(buf, limit);
        // Behind the `<?`, and one back in case the `?` came with the last piece.
        let from = self.at.saturating_sub(1).max(2);
        for at in from..window.len() {
            if window[at] == b'>' && window[at - 1] == b'?' && at > 2 {
                check_xml_declaration(&window[..=at])?;
                return Ok(Some(at + 1));
            }
        }
        self.wait(buf, limit, "bytes of the XML declaration")
    }

    fn find_header_end(&mut self, buf: &[u8]) -> Result<Option<usize>, XmlError> {
        let limit = self.limits.max_header;
        if self.at == 0 {
            self.at = 1;
            self.token = Token::Start;
        }
        match self.find_tag_end(self.window(buf, limit)) {
            Some(end) => Ok(Some(end)),
            None => self.wait(buf, limit, "bytes of the stream header"),
        }
    }

    fn find_close_end(&mut self, buf: &[u8]) -> Result<Option<usize>, XmlError> {
        let limit = self.limits.max_header;
        let window = self.window(buf, limit);
        match memchr(b'>', window.get(self.at..).unwrap_or_default()) {
            Some(end) => Ok(Some(self.at + end + 1)),
            None => self.wait(buf, limit, "bytes of the stream's end tag"),
        }
    }

    /// The end of a start tag, from `self.at` on; goes on in the state that it left.
    fn find_tag_end(&mut self, window: &[u8]) -> Option<usize> {
        loop {
            let rest = window.get(self.at..).unwrap_or_default();
            if let Token::Quoted(quote) = self.token {
                self.at += memchr(quote, rest)? + 1;
                self.token = Token::Start;
                continue;
            }
            let found = self.at + memchr3(b'>', b'"', b'\'', rest)?;
            self.at = found + 1;
            if window[found] == b'>' {
                return Some(found + 1);
            }
            self.token = Token::Quoted(window[found]);
        }
    }

    fn find_element_end(&mut self, buf: &[u8]) -> Result<Option<usize>, XmlError> {
        let limit = self.limits.max_stanza;
        let window = self.window(buf, limit);
        while self.at < window.len() {
            match self.token {
                Token::Text => match memchr(b'<', &window[self.at..]) {
                    Some(found) => {
                        self.at += found + 1;
                        self.token = Token::Markup;
                    }
                    None => break,
                },
                Token::Markup => {
                    self.token = markup(window[self.at], self.at - 1)?;
                    // Any other byte may already be the end of the tag.
                    self.at += usize::from(window[self.at] == b'!');
                }
                Token::Start | Token::Quoted(_) => {
                    let Some(end) = self.find_tag_end(window) else {
                        break;
                    };
                    let is_empty = window[end - 2] == b'/';
                    self.open()?;
                    self.depth -= usize::from(is_empty);
                    if self.depth == 0 {
                        return Ok(Some(end));
                    }
                    self.token = Token::Text;
                }
                Token::End => match memchr(b'>', &window[self.at..]) {
                    Some(found) => {
                        self.at += found + 1;
                        self.token = Token::Text;
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Ok(Some(self.at));
                        }
                    }
                    None => break,
                },
                Token::CdataStart(matched) => {
                    let byte = window[self.at];
                    if Some(&byte) != CDATA_START.get(matched) {
                        let start = self.at.saturating_sub(2 + matched);
                        return Err(match matched {
                            0 => declaration_error(byte, start),
                            _ => declaration_error(b'[', start),
                        });
                    }
                    self.at += 1;
                    self.token = match matched + 1 {
                        all if all == CDATA_START.len() => Token::Cdata,
                        matched => Token::CdataStart(matched),
                    };
                }
                Token::Cdata => match memchr(b'>', &window[self.at..]) {
                    Some(found) => {
                        self.at += found + 1;
                        // The section's own start has no `]`, so these are two of its content.
                        if window[..self.at].ends_with(b"]]>") {
                            self.token = Token::Text;
                        }
                    }
                    None => break,
                },
            }
        }
        self.wait(buf, limit, "bytes of a stanza")
    }

    fn open(&mut self) -> Result<(), XmlError> {
        self.depth += 1;
        if self.depth > self.limits.max_depth {
            let limit = self.limits.max_depth;
            return Err(XmlError::TooBig {
                what: "elements inside one another",
                limit,
            });
        }
        Ok(())
    }

    /// What `bytes`, which have been cut off, are; and what comes after them.
    fn finish(&mut self, bytes: BytesMut) -> Result<Option<Frame>, XmlError> {
        match self.place {
            Place::Declaration => {
                self.enter(Place::Start { declaration: false });
                Ok(None)
            }
            Place::Header => {
                let bytes = bytes.freeze();
                let is_name = |&b: &u8| !chars::is(b, SPACE) && b != b'/' && b != b'>';
                let name = bytes[1..].iter().take_while(|b| is_name(b)).count();
                self.name = Bytes::copy_from_slice(&bytes[1..=name]);
                let is_empty = bytes.ends_with(b"/>");
                self.enter(if is_empty {
                    Place::Empty
                } else {
                    Place::Between
                });
                Ok(Some(Frame::Open(bytes)))
            }
            Place::CloseTag => {
                // The bytes are `</`, a name and perhaps white space, `>`.
                let inside = &bytes[2..bytes.len() - 1];
                if inside
                    .strip_prefix(&*self.name)
                    .is_none_or(|rest| !is_blank(rest))
                {
                    return not_well_formed("an end tag of another name than the stream", 0);
                }
                self.enter(Place::Closed);
                Ok(Some(Frame::Close))
            }
            Place::Empty => {
                self.enter(Place::Closed);
                Ok(Some(Frame::Close))
            }
            _ => {
                self.enter(Place::Between);
                Ok(Some(Frame::Element(bytes.freeze())))
            }
        }
    }
}

/// What a `<` at `at` begins, by the byte behind it.
fn markup(byte: u8, at: usize) -> Result<Token, XmlError> {
    match byte {
        b'/' => Ok(Token::End),
        b'!' => Ok(Token::CdataStart(0)),
        b'?' => restricted("a processing instruction", at),
        _ => Ok(Token::Start),
    }
}

/// What is wrong with a `<!` that begins no CDATA section, by the byte behind it.
pub(crate) fn declaration_error(byte: u8, at: usize) -> XmlError {
    match byte {
        b'-' => XmlError::Restricted {
            what: "a comment",
            at,
        },
        b'D' => XmlError::Restricted {
            what: "a document type",
            at,
        },
        _ => XmlError::NotWellFormed {
            what: "a <! that begins nothing",
            at,
        },
    }
}

/// XML 1.0 production 23: version, then perhaps encoding, then perhaps standalone.
fn check_xml_declaration(bytes: &[u8]) -> Result<(), XmlError> {
    let malformed = XmlError::NotWellFormed {
        what: "the XML declaration",
        at: 0,
    };
    let inside = bytes
        .strip_prefix(b"<?xml")
        .and_then(|b| b.strip_suffix(b"?>"))
        .filter(|b| b.first().is_some_and(|&b| chars::is(b, SPACE)))
        .ok_or(XmlError::Restricted {
            what: "a processing instruction",
            at: 0,
        })?;
    let mut rest = inside;
    let version = pseudo_attribute(&mut rest, b"version").ok_or(malformed)?;
    if version != b"1.0" {
        return restricted("an XML version other than 1.0", 0);
    }
    if let Some(encoding) = pseudo_attribute(&mut rest, b"encoding")
        && !encoding.eq_ignore_ascii_case(b"utf-8")
    {
        return Err(XmlError::UnsupportedEncoding);
    }
    if let Some(standalone) = pseudo_attribute(&mut rest, b"standalone")
        && !matches!(standalone, b"yes" | b"no")
    {
        return Err(malformed);
    }
    if is_blank(rest) {
        Ok(())
    } else {
        Err(malformed)
    }
}

/// Takes ` name = 'value'` off the front of `rest`, if that is what comes.
fn pseudo_attribute<'a>(rest: &mut &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let space = chars::skip_while(rest, 0, SPACE);
    if space == 0 {
        return None;
    }
    let value = skip_space(rest[space..].strip_prefix(name)?);
    let value = skip_space(value.strip_prefix(b"=")?);
    let (&quote, value) = value
        .split_first()
        .filter(|(q, _)| matches!(q, b'"' | b'\''))?;
    let end = memchr(quote, value)?;
    *rest = &value[end + 1..];
    Some(&value[..end])
}

fn skip_space(bytes: &[u8]) -> &[u8] {
    &bytes[chars::skip_while(bytes, 0, SPACE)..]
}

fn is_blank(bytes: &[u8]) -> bool {
    skip_space(bytes).is_empty()
}
