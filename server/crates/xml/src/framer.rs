//! Cuts a stream into its header and its first-level elements, without looking inside more than
//! that needs: it follows tags, and leaves attributes and characters to the check. What would
//! have it wait for an end that cannot come (another end tag, a `<` in a tag) it refuses itself.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

use crate::Limits;
use crate::chars::{self, NAME_START, SPACE};
use crate::error::{XmlError, not_well_formed, restricted};
use crate::tag::Span;

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
    /// Where the names of the open elements stand in the frame.
    open: Vec<Span>,
    token: Token,
    /// Where the tag that is being read begins.
    tag: usize,
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
    /// In a start tag, behind the `/` that ends an empty element.
    Slash,
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
            open: Vec::new(),
            token: Token::Text,
            tag: 0,
            at: 0,
            name: Bytes::new(),
        }
    }

    /// Expects a new stream header next, as after STARTTLS and SASL (RFC 6120 section 4.3.3). To
    /// be called between two frames; what the buffer holds by then belongs to the new stream.
    pub fn restart(&mut self) {
        *self = Framer::new(self.limits);
    }

    /// Other limits from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
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
        self.open.clear();
        self.token = Token::Text;
        self.tag = 0;
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
            [b'<', byte, ..] if !chars::is(byte, NAME_START) => no_name(1),
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
        if let Some(start) = window.first_chunk::<6>() {
            check_declaration_start(start)?;
        }
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
        match self.find_tag_end(self.window(buf, limit))? {
            Some(end) => Ok(Some(end)),
            None => self.wait(buf, limit, "bytes of the stream header"),
        }
    }

    fn find_close_end(&mut self, buf: &[u8]) -> Result<Option<usize>, XmlError> {
        let limit = self.limits.max_header;
        // Behind the `<`.
        self.at = self.at.max(1);
        match self.find_end_tag_end(self.window(buf, limit))? {
            Some(end) => Ok(Some(end)),
            None => self.wait(buf, limit, "bytes of the stream's end tag"),
        }
    }

    /// The end of a start tag, from `self.at` on; goes on in the state that it left.
    fn find_tag_end(&mut self, window: &[u8]) -> Result<Option<usize>, XmlError> {
        loop {
            let rest = window.get(self.at..).unwrap_or_default();
            let found = match self.token {
                Token::Quoted(quote) => memchr2(quote, b'<', rest),
                Token::Slash => (!rest.is_empty()).then_some(0),
                // These are never far apart: a loop is faster than a search.
                _ => rest
                    .iter()
                    .position(|byte| matches!(byte, b'>' | b'/' | b'"' | b'\'' | b'<')),
            };
            let Some(found) = found.map(|found| self.at + found) else {
                return Ok(None);
            };
            self.at = found + 1;
            self.token = match (self.token, window[found]) {
                (Token::Quoted(_), b'<') => return not_well_formed("a < in an attribute", found),
                (Token::Quoted(_), _) => Token::Start,
                (_, b'>') => return Ok(Some(found + 1)),
                (Token::Start, b'/') => Token::Slash,
                (Token::Start, quote @ (b'"' | b'\'')) => Token::Quoted(quote),
                _ => return not_well_formed("a character that fits no tag", found),
            };
        }
    }

    /// The end of an end tag, from `self.at` on.
    fn find_end_tag_end(&mut self, window: &[u8]) -> Result<Option<usize>, XmlError> {
        let rest = window.get(self.at..).unwrap_or_default();
        let Some(found) = memchr2(b'>', b'<', rest).map(|found| self.at + found) else {
            return Ok(None);
        };
        self.at = found + 1;
        match window[found] {
            b'<' => not_well_formed("a < in a tag", found),
            _ => Ok(Some(found + 1)),
        }
    }

    fn find_element_end(&mut self, buf: &[u8]) -> Result<Option<usize>, XmlError> {
        let limit = self.limits.max_stanza;
        let window = self.window(buf, limit);
        while self.at < window.len() {
            match self.token {
                Token::Text => {
                    let Some(found) = memchr(b'<', &window[self.at..]) else {
                        break;
                    };
                    self.tag = self.at + found;
                    self.at = self.tag + 1;
                    self.token = Token::Markup;
                }
                Token::Markup => {
                    self.token = markup(window[self.at], self.tag)?;
                    self.at += 1;
                }
                Token::Start | Token::Quoted(_) | Token::Slash => {
                    let Some(end) = self.find_tag_end(window)? else {
                        break;
                    };
                    if self.start_tag(window, end)? {
                        return Ok(Some(end));
                    }
                }
                Token::End => {
                    let Some(end) = self.find_end_tag_end(window)? else {
                        break;
                    };
                    if self.end_tag(window, end)? {
                        return Ok(Some(end));
                    }
                }
                Token::CdataStart(matched) => {
                    self.token = cdata_start(window[self.at], matched, self.tag)?;
                    self.at += 1;
                }
                Token::Cdata => {
                    let Some(found) = memchr(b'>', &window[self.at..]) else {
                        break;
                    };
                    self.at += found + 1;
                    // The section's own start has no `]`, so these are two of its content.
                    if window[..self.at].ends_with(b"]]>") {
                        self.token = Token::Text;
                    }
                }
            }
        }
        self.wait(buf, limit, "bytes of a stanza")
    }

    /// At the end of a start tag. Whether the frame ends here.
    fn start_tag(&mut self, window: &[u8], end: usize) -> Result<bool, XmlError> {
        self.token = Token::Text;
        if self.open.len() >= self.limits.max_depth {
            let limit = self.limits.max_depth;
            return Err(XmlError::TooBig {
                what: "elements inside one another",
                limit,
            });
        }
        if window[end - 2] == b'/' {
            return Ok(self.open.is_empty());
        }
        let start = self.tag + 1;
        self.open
            .push(Span::new(start..start + name_length(&window[start..end])));
        Ok(false)
    }

    /// At the end of an end tag. Whether the frame ends here.
    fn end_tag(&mut self, window: &[u8], end: usize) -> Result<bool, XmlError> {
        self.token = Token::Text;
        let name = self.open.pop().unwrap_or_default();
        let inside = window[self.tag + 2..end - 1].strip_prefix(&window[name.range()]);
        if inside.is_some_and(is_blank) {
            return Ok(self.open.is_empty());
        }
        not_well_formed("an end tag of another name than the start tag", self.tag)
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
                let name = name_length(&bytes[1..]);
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

/// The length of the name at the start of a tag's inside, up to white space or the tag's end.
fn name_length(inside: &[u8]) -> usize {
    let is_end = |&byte: &u8| chars::is(byte, SPACE) || matches!(byte, b'/' | b'>');
    inside.iter().position(is_end).unwrap_or(inside.len())
}

/// What a `<` at `at` begins, by the byte behind it.
fn markup(byte: u8, at: usize) -> Result<Token, XmlError> {
    match byte {
        b'/' => Ok(Token::End),
        b'!' => Ok(Token::CdataStart(0)),
        b'?' => restricted("a processing instruction", at),
        _ if chars::is(byte, NAME_START) => Ok(Token::Start),
        _ => no_name(at + 1),
    }
}

fn no_name<T>(at: usize) -> Result<T, XmlError> {
    not_well_formed("a name was expected", at)
}

/// What comes after `byte`, which stands behind the `<!` at `at` and `matched` more bytes.
fn cdata_start(byte: u8, matched: usize, at: usize) -> Result<Token, XmlError> {
    match CDATA_START.split_at_checked(matched) {
        Some((_, [only])) if *only == byte => Ok(Token::Cdata),
        Some((_, [next, ..])) if *next == byte => Ok(Token::CdataStart(matched + 1)),
        _ if matched == 0 => Err(declaration_error(byte, at)),
        _ => Err(declaration_error(b'[', at)),
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

/// Refuses other processing instructions without waiting for their end.
fn check_declaration_start(start: &[u8; 6]) -> Result<(), XmlError> {
    match start {
        [b'<', b'?', b'x', b'm', b'l', space] if chars::is(*space, SPACE) => Ok(()),
        _ => restricted("a processing instruction", 0),
    }
}

/// XML 1.0 production 23: version, then perhaps encoding, then perhaps standalone.
fn check_xml_declaration(bytes: &[u8]) -> Result<(), XmlError> {
    let malformed = XmlError::NotWellFormed {
        what: "the XML declaration",
        at: 0,
    };
    let inside = bytes.strip_prefix(b"<?xml").unwrap_or_default();
    let inside = inside.strip_suffix(b"?>").unwrap_or_default();
    if !inside.first().is_some_and(|&byte| chars::is(byte, SPACE)) {
        return restricted("a processing instruction", 0);
    }
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
