//! What travels: cutting a stream into first-level elements by scanning for angle brackets, and the
//! numbered message.
//!
//! This is no XML parser. It relies on what the measured servers write: no comments, no CDATA, and
//! `>` escaped in attribute values.

use std::io::Write as _;
use std::ops::Range;

use memchr::{memchr, memmem};

/// Length of every message body, in bytes.
pub(crate) const BODY_BYTES: usize = 100;

const MARKER: &[u8] = b"cirrus-bench ";
const RUN_DIGITS: usize = 6;
const FROM_DIGITS: usize = 6;
const SEQUENCE_DIGITS: usize = 10;

/// The number of a message: which run, which sender, which message of that sender (from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) run: u32,
    pub(crate) from: u32,
    pub(crate) sequence: u32,
}

/// Appends a chat message of [`BODY_BYTES`] body bytes that carries `mark`.
pub(crate) fn write_message(out: &mut Vec<u8>, to: &str, mark: Mark) {
    let id = mark.sequence;
    let head = out.len();
    // Writing to a Vec can't fail.
    let _ = write!(out, "<message to='{to}' type='chat' id='m{id}'><body>");
    debug_assert!(out.len() > head);
    let body = out.len();
    out.extend_from_slice(MARKER);
    let _ = write!(
        out,
        "{:0run$} {:0from$} {:0sequence$} ",
        mark.run,
        mark.from,
        mark.sequence,
        run = RUN_DIGITS,
        from = FROM_DIGITS,
        sequence = SEQUENCE_DIGITS
    );
    out.resize(body + BODY_BYTES, b'x');
    out.extend_from_slice(b"</body></message>");
}

/// The mark in a received message, if it is one of ours.
pub(crate) fn find_mark(finder: &memmem::Finder<'_>, piece: &[u8]) -> Option<Mark> {
    let mut at = finder.find(piece)? + MARKER.len();
    let mut number = |digits: usize| {
        let field = piece.get(at..at + digits)?;
        at += digits + 1;
        field.iter().try_fold(0_u32, |value, byte| {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
            value.checked_mul(10)?.checked_add(u32::from(digit))
        })
    };
    Some(Mark {
        run: number(RUN_DIGITS)?,
        from: number(FROM_DIGITS)?,
        sequence: number(SEQUENCE_DIGITS)?,
    })
}

/// The search for [`find_mark`], made once.
pub(crate) fn mark_finder() -> memmem::Finder<'static> {
    memmem::Finder::new(MARKER)
}

/// The value of an attribute whose text occurs once, whichever quotes the server writes.
pub(crate) fn attribute<'a>(piece: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pattern = format!(" {name}=");
    let start = memmem::find(piece, pattern.as_bytes())? + pattern.len();
    let quote = *piece.get(start)?;
    let value = piece.get(start + 1..)?;
    let end = memchr(quote, value)?;
    value.get(..end)
}

/// The text between the first `>` and the following `<`.
pub(crate) fn text(piece: &[u8]) -> &[u8] {
    let Some(start) = memchr(b'>', piece) else {
        return &[];
    };
    let rest = &piece[start + 1..];
    &rest[..memchr(b'<', rest).unwrap_or(rest.len())]
}

/// Cuts received bytes into first-level pieces: the stream header, elements, the stream's end tag.
#[derive(Default)]
pub(crate) struct Cutter {
    bytes: Vec<u8>,
    scan: usize,
    start: usize,
    depth: u32,
}

impl Cutter {
    /// Where received bytes are appended.
    pub(crate) fn input(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Forgets everything: a new stream begins.
    pub(crate) fn restart(&mut self) {
        self.bytes.clear();
        (self.scan, self.start, self.depth) = (0, 0, 0);
    }

    /// The bytes of a piece that [`Cutter::next`] found.
    pub(crate) fn piece(&self, piece: Range<usize>) -> &[u8] {
        &self.bytes[piece]
    }

    /// The next complete piece.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        while let Some(offset) = memchr(b'<', &self.bytes[self.scan..]) {
            let open = self.scan + offset;
            let Some(length) = memchr(b'>', &self.bytes[open..]) else {
                self.scan = open;
                return None;
            };
            let end = open + length + 1;
            self.scan = end;
            let tag = &self.bytes[open..end];
            match tag[1] {
                b'?' => {}
                b'/' if self.depth == 0 => return Some(open..end),
                b'/' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(self.start..end);
                    }
                }
                _ if tag[tag.len() - 2] == b'/' => {
                    if self.depth == 0 {
                        return Some(open..end);
                    }
                }
                _ if self.depth == 0 && tag.starts_with(b"<stream:stream") => {
                    return Some(open..end);
                }
                _ => {
                    if self.depth == 0 {
                        self.start = open;
                    }
                    self.depth += 1;
                }
            }
        }
        self.scan = self.bytes.len();
        None
    }

    /// Drops what was cut; keeps an unfinished piece.
    pub(crate) fn compact(&mut self) {
        let keep = if self.depth > 0 {
            self.start
        } else {
            self.scan
        };
        if keep == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..keep);
        }
        self.scan -= keep;
        self.start = self.start.saturating_sub(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(cutter: &mut Cutter) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(piece) = cutter.next() {
            found.push(String::from_utf8(cutter.piece(piece).to_vec()).unwrap());
        }
        cutter.compact();
        found
    }

    #[test]
    fn cuts_the_same_at_every_chunk_size() {
        let stream = "<?xml version='1.0'?><stream:stream a='b'><features><x/><y>t</y></features>\
                      <r xmlns='urn'/><message><body>hi</body></message></stream:stream>";
        let whole = {
            let mut cutter = Cutter::default();
            cutter.input().extend_from_slice(stream.as_bytes());
            pieces(&mut cutter)
        };
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[0], "<stream:stream a='b'>");
        assert_eq!(whole[3], "<message><body>hi</body></message>");
        for size in 1..stream.len() {
            let mut cutter = Cutter::default();
            let mut found = Vec::new();
            for chunk in stream.as_bytes().chunks(size) {
                cutter.input().extend_from_slice(chunk);
                found.extend(pieces(&mut cutter));
            }
            assert_eq!(found, whole, "chunks of {size}");
        }
    }

    #[test]
    fn a_mark_survives_its_message() {
        let mark = Mark {
            run: 7,
            from: 199,
            sequence: 1_234_567,
        };
        let mut out = Vec::new();
        write_message(&mut out, "u1@bench.test", mark);
        assert_eq!(find_mark(&mark_finder(), &out), Some(mark));
        let body = memmem::find(&out, b"<body>").unwrap() + 6;
        assert_eq!(memmem::find(&out, b"</body>").unwrap() - body, BODY_BYTES);
    }

    #[test]
    fn attributes_in_either_quotes() {
        assert_eq!(attribute(b"<a xmlns='x' h='12'/>", "h"), Some(&b"12"[..]));
        assert_eq!(attribute(b"<a h=\"12\"/>", "h"), Some(&b"12"[..]));
        assert_eq!(attribute(b"<a/>", "h"), None);
        assert_eq!(text(b"<challenge xmlns='x'>abc=</challenge>"), b"abc=");
    }
}
