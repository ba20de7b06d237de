//! References: checking them, and reading text and attribute values that have them.

use std::borrow::Cow;

use crate::chars::{self, NAME, is_char};
use crate::error::{XmlError, not_well_formed, restricted};

/// Digits that a character reference needs at most: decimal 1114111 has seven. More, with leading
/// zeros, are legal XML, and are refused because parsers in use refuse them.
const MAX_DIGITS: usize = 7;

/// Checks the reference at `at` (which is a `&`) and gives its end.
pub(crate) fn check_reference(text: &str, at: usize) -> Result<usize, XmlError> {
    let rest = text.get(at + 1..).unwrap_or_default();
    if let Some(number) = rest.strip_prefix('#') {
        let digits = number.strip_prefix('x').unwrap_or(number);
        let length = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
        let end = number.len() - digits.len() + length;
        return match character(&number[..end]) {
            _ if !number[end..].starts_with(';') => {
                not_well_formed("a character reference without an end", at)
            }
            _ if length > MAX_DIGITS => {
                let what = "digits of a character reference";
                Err(XmlError::TooBig {
                    what,
                    limit: MAX_DIGITS,
                })
            }
            Some(_) => Ok(at + 2 + end + 1),
            None => not_well_formed("a reference to no character that XML allows", at),
        };
    }
    let name_end = chars::skip_while(rest.as_bytes(), 0, NAME);
    if name_end == 0 || !rest[name_end..].starts_with(';') {
        return not_well_formed("an ampersand that begins no reference", at);
    }
    let name = &rest[..name_end];
    if predefined(name).is_some() {
        Ok(at + 1 + name_end + 1)
    } else if chars::is_nc_name(name) {
        restricted("a reference to an entity that is not predefined", at)
    } else {
        not_well_formed("an ampersand that begins no reference", at)
    }
}

/// XML 1.0 section 4.6.
fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "apos" => '\'',
        "quot" => '"',
        _ => return None,
    })
}

/// The character of a reference, given what stands between `#` and `;`.
fn character(number: &str) -> Option<char> {
    let (digits, radix) = match number.strip_prefix('x') {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    let is_digit = |c: char| c.is_digit(radix);
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.chars().all(is_digit) {
        return None;
    }
    char::from_u32(u32::from_str_radix(digits, radix).ok()?).filter(|&c| is_char(c))
}

/// A checked attribute value as an XML processor reports it: references resolved, literal white
/// space made spaces (XML 1.0 section 3.3.3).
pub(crate) fn value(raw: &str) -> Cow<'_, str> {
    if !raw
        .bytes()
        .any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r'))
    {
        return Cow::Borrowed(raw);
    }
    // A line end of two characters is one before it becomes a space (section 2.11).
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('&') {
            rest = push_reference(rest, &mut out);
        } else {
            out.push(' ');
            rest = rest.strip_prefix("\r\n").unwrap_or(&rest[1..]);
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Appends checked character data as an XML processor reports it: line ends are line feeds, and
/// references resolved unless it is a CDATA section.
pub(crate) fn push_text(raw: &str, is_cdata: bool, out: &mut String) {
    let mut rest = raw;
    let special: &[char] = if is_cdata { &['\r'] } else { &['&', '\r'] };
    while let Some(at) = rest.find(special) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('&') {
            rest = push_reference(rest, out);
        } else {
            out.push('\n');
            rest = rest.strip_prefix("\r\n").unwrap_or(&rest[1..]);
        }
    }
    out.push_str(rest);
}

/// Appends what the reference at the start of `text` stands for, and gives the rest. What is no
/// reference, which `check` would not have let pass, is appended as it is.
fn push_reference<'a>(text: &'a str, out: &mut String) -> &'a str {
    let body = &text[1..];
    if let Some((name, rest)) = body.split_once(';') {
        let c = match name.strip_prefix('#') {
            Some(number) => character(number),
            None => predefined(name),
        };
        if let Some(c) = c {
            out.push(c);
            return rest;
        }
    }
    out.push('&');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_a_processor_reports_them() {
        for (raw, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a&lt;b&gt;c&amp;d&quot;e&apos;f", "a<b>c&d\"e'f"),
            ("&#65;&#x41;&#x1F600;&#0065;", "AA\u{1F600}A"),
            ("a\tb\nc\rd\r\ne", "a b c d e"),
            ("a&#9;b&#10;c&#13;d", "a\tb\nc\rd"),
            ("&amp;lt;", "&lt;"),
        ] {
            assert_eq!(value(raw), expected, "{raw:?}");
        }
        assert!(matches!(value("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn text_as_a_processor_reports_it() {
        let text = |raw, is_cdata| {
            let mut out = String::new();
            push_text(raw, is_cdata, &mut out);
            out
        };
        assert_eq!(text("a\r\nb\rc\nd\te&#13;&lt;", false), "a\nb\nc\nd\te\r<");
        assert_eq!(text("a\r\n&lt;", true), "a\n&lt;");
    }

    #[test]
    fn what_is_no_reference_stays() {
        for raw in ["&", "&;", "&x;", "&#;", "&#x110000;", "a&b"] {
            assert_eq!(value(raw), raw);
        }
    }
}
