//! Character classes of XML 1.0 (fifth edition) and Namespaces in XML 1.0.

use crate::names;

/// May begin a name; every byte of a character that is not ASCII counts.
pub(crate) const NAME_START: u8 = 1;
/// May stand in a name; the same.
pub(crate) const NAME: u8 = 2;
/// White space.
pub(crate) const SPACE: u8 = 4;
/// In text needs a closer look: markup, a reference, `]`, a forbidden character or the first
/// byte of one.
pub(crate) const TEXT: u8 = 8;
/// In an attribute's value needs a closer look: a quote, `<`, a reference, a forbidden character
/// or the first byte of one.
pub(crate) const VALUE: u8 = 16;
/// In a CDATA section needs a closer look: `]`, a forbidden character or the first byte of one.
pub(crate) const CDATA: u8 = 32;
/// May stand in the name of a namespace: what RFC 3986 allows in a URI, and what is not ASCII.
/// Parsers in use join namespace and local name with one of the others (a space, `}`, `|`), and
/// close their stream when the namespace has it.
pub(crate) const URI: u8 = 64;

/// The classes of every byte.
static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'\t' | b'\n' | b'\r' | b' ' => SPACE,
            // A character that may not occur at all.
            0..0x20 => TEXT | VALUE | CDATA,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => NAME_START | NAME | URI,
            b'0'..=b'9' | b'-' | b'.' => NAME | URI,
            b'!'
            | b'#'..=b'%'
            | b'('..=b','
            | b'/'
            | b':'
            | b';'
            | b'='
            | b'?'
            | b'@'
            | b'['
            | b'~' => URI,
            b'&' => TEXT | VALUE | URI,
            b'\'' => VALUE | URI,
            b']' => TEXT | CDATA | URI,
            b'<' => TEXT | VALUE,
            b'"' => VALUE,
            // U+FFFE and U+FFFF, the only others that may not occur, begin with it.
            0xEF => TEXT | VALUE | CDATA | NAME_START | NAME | URI,
            0x80.. => NAME_START | NAME | URI,
            _ => 0,
        };
        byte += 1;
    }
    table
}

pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// The end of the bytes from `at` on that are not of `class`.
#[inline]
pub(crate) fn skip_until(bytes: &[u8], mut at: usize, class: u8) -> usize {
    // Eight at a time, for long texts.
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        if eight
            .iter()
            .fold(0, |all, &byte| all | CLASSES[usize::from(byte)])
            & class
            != 0
        {
            break;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|&byte| !is(byte, class)) {
        at += 1;
    }
    at
}

/// The end of the bytes from `at` on that are all of `class`.
#[inline]
pub(crate) fn skip_while(bytes: &[u8], mut at: usize, class: u8) -> usize {
    while bytes.get(at).is_some_and(|&byte| is(byte, class)) {
        at += 1;
    }
    at
}

/// Whether the bytes at `at` are U+FFFE or U+FFFF.
pub(crate) fn is_noncharacter(bytes: &[u8], at: usize) -> bool {
    matches!(bytes.get(at..at + 3), Some([0xEF, 0xBF, 0xBE | 0xBF]))
}

/// XML 1.0 production 2.
pub(crate) fn is_char(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}')
}

fn is_name_start(c: char) -> bool {
    if c.is_ascii() {
        is(c as u8, NAME_START)
    } else {
        names::is_start(c)
    }
}

fn is_name_part(c: char) -> bool {
    if c.is_ascii() {
        is(c as u8, NAME)
    } else {
        names::is_part(c)
    }
}

/// Whether it is a name without colon (Namespaces in XML production 4).
pub(crate) fn is_nc_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(is_name_start) && chars.all(is_name_part)
}
