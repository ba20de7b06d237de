//! MIME multipart (RFC 2046), as cloud-init takes it: several programs' data in one user-data.
//!
//! Lenient: line ends of both kinds, a missing last boundary, headers in any order; what was
//! mended is noted. Contents are decoded only when someone asks for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Multiparts in multiparts.
const MAX_DEPTH: usize = 3;
/// Parts in all.
const MAX_PARTS: usize = 64;

/// One part that is no multipart itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its number, from 1, and its file name if it has one.
    pub(super) name: String,
    /// The content type without parameters, in lower case.
    pub(super) kind: String,
    /// Lines of the user-data before its content.
    pub(super) before: usize,
    encoding: String,
    content: Vec<u8>,
}

/// The parts of a multipart, and what was mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) parts: Vec<Part>,
    /// Line, and what about it.
    pub(super) notes: Vec<(usize, String)>,
}

/// Why a multipart cannot be read: the line, and what.
pub(super) type Unreadable = (usize, String);

/// Whether bytes begin like a MIME message: with headers, among them one of MIME's.
pub(super) fn is_mime(bytes: &[u8]) -> bool {
    let headers = Headers::read(bytes);
    headers.get("mime-version").is_some() || headers.get("content-type").is_some()
}

/// Takes a message apart.
///
/// # Errors
/// A multipart without a boundary, or more or deeper parts than there can be.
pub(super) fn parts(bytes: &[u8]) -> Result<Message, Unreadable> {
    let mut message = Message::default();
    entity(bytes, 0, 0, &mut message)?;
    Ok(message)
}

impl Part {
    /// The content as it was before it was encoded for transfer.
    ///
    /// # Errors
    /// What is wrong with the encoding.
    pub(super) fn decoded(&self) -> Result<Vec<u8>, String> {
        match self.encoding.as_str() {
            "" | "7bit" | "8bit" | "binary" => Ok(self.content.clone()),
            "base64" => {
                let mut text = self.content.clone();
                text.retain(|b| !b.is_ascii_whitespace());
                STANDARD
                    .decode(text)
                    .map_err(|e| format!("not base64: {e}"))
            }
            "quoted-printable" => quoted_printable(&self.content),
            other => Err(format!("the transfer encoding `{other}` is not known")),
        }
    }

    /// Whether its lines are lines of the user-data.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.encoding.as_str(), "" | "7bit" | "8bit" | "binary")
    }
}

/// One entity: headers, an empty line, and a body that may have parts itself.
fn entity(
    bytes: &[u8],
    before: usize,
    depth: usize,
    message: &mut Message,
) -> Result<(), Unreadable> {
    let headers = Headers::read(bytes);
    let body = bytes.get(headers.bytes..).unwrap_or_default();
    let before = before + headers.lines;
    let (kind, parameters) = headers
        .get("content-type")
        .map_or(("", ""), |v| v.split_once(';').unwrap_or((v, "")));
    let kind = kind.trim().to_ascii_lowercase();
    if kind.starts_with("multipart/") {
        let at = headers.line_of("content-type").unwrap_or_default() + before - headers.lines;
        if depth >= MAX_DEPTH {
            return Err((at, format!("multiparts are nested deeper than {MAX_DEPTH}")));
        }
        let boundary = parameter(parameters, "boundary").filter(|b| !b.is_empty());
        let boundary = boundary.ok_or_else(|| (at, "a multipart without a boundary".to_owned()))?;
        return multipart(body, before, &boundary, depth, message);
    }
    if message.parts.len() >= MAX_PARTS {
        return Err((before, format!("more than {MAX_PARTS} parts")));
    }
    let disposition = headers.get("content-disposition").unwrap_or_default();
    let file_name = parameter(disposition, "filename").or_else(|| parameter(parameters, "name"));
    let number = message.parts.len() + 1;
    let name = match file_name.filter(|n| !n.is_empty()) {
        Some(file_name) => format!("part {number}, {}", plain(&file_name)),
        None => format!("part {number}"),
    };
    let encoding = headers.get("content-transfer-encoding").unwrap_or_default();
    message.parts.push(Part {
        name,
        kind: if kind.is_empty() {
            "text/plain".to_owned()
        } else {
            plain(&kind)
        },
        before,
        encoding: plain(&encoding.trim().to_ascii_lowercase()),
        content: body.to_vec(),
    });
    Ok(())
}

/// The parts between boundaries. What stands before the first and after the last is nobody's.
fn multipart(
    body: &[u8],
    before: usize,
    boundary: &str,
    depth: usize,
    message: &mut Message,
) -> Result<(), Unreadable> {
    let delimiter = format!("--{boundary}");
    // Where the part that is open began: its offset and the lines before it.
    let mut open: Option<(usize, usize)> = None;
    let mut offset = 0;
    let mut closed = false;
    for (i, line) in body.split_inclusive(|b| *b == b'\n').enumerate() {
        let text = line.trim_ascii_end();
        let rest = text.strip_prefix(delimiter.as_bytes());
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || *rest == b"--") {
            if let Some((start, lines)) = open.take() {
                // The line end before a boundary belongs to the boundary.
                let part = body.get(start..offset).unwrap_or_default();
                entity(without_line_end(part), lines, depth + 1, message)?;
            }
            if !rest.is_empty() {
                closed = true;
                break;
            }
            open = Some((offset + line.len(), before + i + 1));
        }
        offset += line.len();
    }
    if let Some((start, lines)) = open {
        let part = body.get(start..).unwrap_or_default();
        entity(part, lines, depth + 1, message)?;
    }
    if !closed {
        let line = before + body.split_inclusive(|b| *b == b'\n').count();
        let what = format!("the last boundary (`{delimiter}--`) is missing; read to the end");
        message.notes.push((line, what));
    }
    Ok(())
}

fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// The headers of an entity, and how much of it they are.
#[derive(Default)]
struct Headers {
    /// Name in lower case, value with its lines joined, line from 1.
    fields: Vec<(String, String, usize)>,
    /// Bytes and lines up to the body, with the empty line between.
    bytes: usize,
    lines: usize,
}

impl Headers {
    fn read(bytes: &[u8]) -> Self {
        let mut out = Self::default();
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let text = String::from_utf8_lossy(line);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
            if text.is_empty() {
                out.bytes += line.len();
                out.lines += 1;
                return out;
            }
            let folded = text.starts_with([' ', '\t']);
            match (folded, out.fields.last_mut(), text.split_once(':')) {
                (true, Some((_, value, _)), _) => {
                    value.push(' ');
                    value.push_str(text.trim());
                }
                (false, _, Some((name, value))) if is_name(name) => {
                    let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
                    out.fields.push((name, value, out.lines + 1));
                }
                // As a mailbox begins a message.
                _ if out.lines == 0 && text.starts_with("From ") => {}
                // No header: the body has begun without an empty line.
                _ => return out,
            }
            out.bytes += line.len();
            out.lines += 1;
        }
        out
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _, _)| n == name);
        found.map(|(_, value, _)| value.as_str())
    }

    fn line_of(&self, name: &str) -> Option<usize> {
        let found = self.fields.iter().find(|(n, _, _)| n == name);
        found.map(|(_, _, line)| *line)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A parameter of a header's value, without quotes.
fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').find_map(|one| {
        let (key, value) = one.split_once('=')?;
        let matches = key.trim().eq_ignore_ascii_case(name);
        matches.then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// A text from a header as messages may show it.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// RFC 2045 6.7; a `=` that begins nothing is an error.
fn quoted_printable(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'=' {
            out.push(*byte);
            continue;
        }
        let soft = [&b"\r\n"[..], b"\n"]
            .iter()
            .find_map(|end| rest.strip_prefix(*end));
        if let Some(after) = soft {
            rest = after;
            continue;
        }
        let digits = rest.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let value = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = value.and_then(|d| u8::from_str_radix(d, 16).ok());
        out.push(value.ok_or("not quoted-printable: `=` before what is no hexadecimal number")?);
        rest = rest.get(2..).unwrap_or_default();
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
