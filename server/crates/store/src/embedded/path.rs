//! Names of blobs as relative paths, and back.
//!
//! Letters a-z, digits, `.`, `_` and `-` stand for themselves; any other byte, capitals included
//! (some file systems don't tell them apart), is `%` and two hex digits. A long part of a name is
//! cut into several folders, each but the last ending in `+`. A file ends in `=`, so that a blob
//! may have the name of another's folder.

use std::path::PathBuf;

/// The longest name of a file or folder: file systems allow 255 bytes.
const MAX_PART: usize = 200;

/// The path of a blob, relative to its bucket's folder.
pub(super) fn encode(name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    let mut parts = name.split('/').peekable();
    while let Some(part) = parts.next() {
        let escaped = escape(part);
        let mut rest = escaped.as_str();
        while rest.len() > MAX_PART {
            // All of it is ASCII; no escape of three characters may be cut.
            let escape = rest[MAX_PART - 2..MAX_PART]
                .find('%')
                .map(|at| MAX_PART - 2 + at);
            let (head, tail) = rest.split_at(escape.unwrap_or(MAX_PART));
            path.push(format!("{head}+"));
            rest = tail;
        }
        let end = if parts.peek().is_none() { "=" } else { "" };
        path.push(format!("{rest}{end}"));
    }
    path
}

fn escape(part: &str) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    };
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out
}

/// What an entry of a folder stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A folder: what it adds to the names below it.
    Folder(Vec<u8>),
    /// A blob: what it adds to the name of its folder.
    File(Vec<u8>),
}

/// The meaning of a file's or folder's name; `None` = not one of ours.
pub(super) fn decode(entry: &str) -> Option<Part> {
    if let Some(file) = entry.strip_suffix('=') {
        return Some(Part::File(unescape(file)?));
    }
    if let Some(start) = entry.strip_suffix('+') {
        return Some(Part::Folder(unescape(start)?));
    }
    let mut name = unescape(entry)?;
    name.push(b'/');
    Some(Part::Folder(name))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name that a path stands for.
    fn name_of(path: &PathBuf) -> String {
        let mut name = Vec::new();
        for entry in path {
            match decode(entry.to_str().unwrap()).unwrap() {
                Part::Folder(part) | Part::File(part) => name.extend(part),
            }
        }
        String::from_utf8(name).unwrap()
    }

    #[test]
    fn names_round_trip() {
        let long = "\u{e9}".repeat(450);
        for (name, path) in [
            ("seg/ab/1-2.x", "seg/ab/1-2.x="),
            ("A b/c%", "%41%20b/c%25="),
            ("...", "...="),
            ("a/b", "a/b="),
            ("a", "a="),
            ("=/+", "%3d/%2b="),
        ] {
            assert_eq!(encode(name), PathBuf::from(path));
            assert_eq!(name_of(&encode(name)), name);
        }
        for name in [
            long.as_str(),
            &format!("{long}/x"),
            &"n".repeat(200),
            &"n".repeat(201),
        ] {
            assert_eq!(name_of(&encode(name)), name);
            assert!(encode(name).iter().all(|part| part.len() <= MAX_PART + 1));
        }
        assert_eq!(decode("a%4"), None);
        assert_eq!(decode("a%zz"), None);
    }
}
