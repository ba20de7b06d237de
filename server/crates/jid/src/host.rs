//! Hosts: domain names as Unicode (RFC 7622 section 3.2, by IDNA 2008 with the mapping of
//! UTS 46) and IP literals.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::prepare::{check_length, prohibited};
use crate::{JidError, Part};

/// The most bytes of a label of a domain name in ASCII form (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;
/// The most bytes of a domain name in ASCII form, without the final dot (the same).
const MAX_NAME: usize = 253;

/// Normalises a host. One final dot is dropped.
pub(crate) fn prepare(text: &str) -> Result<Cow<'_, str>, JidError> {
    check_length(Part::Host, text)?;
    if let Some(literal) = text.strip_prefix('[') {
        return ipv6(text, literal);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_ascii() && !has_encoded_label(name) {
        return ascii(name);
    }
    let once = to_unicode(name)?;
    if to_unicode(&once)? == once {
        Ok(Cow::Owned(once))
    } else {
        Err(JidError::Unstable(Part::Host))
    }
}

fn ipv6<'a>(text: &'a str, literal: &str) -> Result<Cow<'a, str>, JidError> {
    let address: Ipv6Addr = literal
        .strip_suffix(']')
        .and_then(|l| l.parse().ok())
        .ok_or(JidError::Literal)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(canonical)
    })
}

/// Whether a label may be Punycode, which has to be decoded.
fn has_encoded_label(name: &str) -> bool {
    name.split('.')
        .any(|l| l.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("xn--")))
}

/// Letters, digits and hyphens, in labels that neither begin nor end with a hyphen.
fn ascii(name: &str) -> Result<Cow<'_, str>, JidError> {
    if name.is_empty() {
        return Err(JidError::Empty(Part::Host));
    }
    if name.len() > MAX_NAME {
        return Err(JidError::TooLong {
            part: Part::Host,
            bytes: name.len(),
        });
    }
    let mut upper = false;
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' => {}
            b'A'..=b'Z' => upper = true,
            _ => return Err(prohibited(Part::Host, byte.into())),
        }
    }
    let mut last = "";
    for label in name.split('.') {
        if label.is_empty() {
            return Err(JidError::Host("a label is empty"));
        }
        if label.len() > MAX_LABEL {
            return Err(JidError::Host("a label is longer than 63 bytes"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(JidError::Host("a label begins or ends with a hyphen"));
        }
        last = label;
    }
    // No top-level domain is a number; what looks like an IPv4 address is one, in one spelling.
    if last.bytes().all(|b| b.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return Err(JidError::Host(
            "it ends with a number and is not an IPv4 address",
        ));
    }
    Ok(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

fn to_unicode(name: &str) -> Result<String, JidError> {
    let uts46 = Uts46::new();
    let hyphens = Hyphens::CheckFirstLast;
    let refused = |_| JidError::Host("IDNA refuses it");
    // The ASCII form is what DNS limits; making it also refuses labels that do not encode.
    uts46
        .to_ascii(
            name.as_bytes(),
            AsciiDenyList::STD3,
            hyphens,
            DnsLength::VerifyAllowRootDot,
        )
        .map_err(refused)?;
    let (unicode, result) = uts46.to_unicode(name.as_bytes(), AsciiDenyList::STD3, hyphens);
    result.map_err(refused)?;
    let unicode = unicode.strip_suffix('.').unwrap_or(&unicode);
    check_length(Part::Host, unicode)?;
    unicode.split('.').try_for_each(label)?;
    // Full-width letters and digits become ASCII: those have more rules.
    if unicode.is_ascii() {
        Ok(ascii(unicode)?.into_owned())
    } else {
        Ok(unicode.to_owned())
    }
}

/// UTS 46 lets symbols pass that look like separators (a fraction slash), IDNA 2008 does not:
/// letters, marks and numbers, and two signs in their context (RFC 5892 appendices A.3 and A.7).
/// Joiners have been checked in theirs.
fn label(label: &str) -> Result<(), JidError> {
    for (at, c) in label.char_indices() {
        let fits = match c {
            '\u{0}'..='\u{7F}' | '\u{200C}' | '\u{200D}' => true,
            '\u{B7}' => label[..at].ends_with('l') && label[at..].starts_with("\u{B7}l"),
            '\u{30FB}' => label.contains(is_japanese),
            _ => matches!(
                c.general_category_group(),
                GeneralCategoryGroup::Letter
                    | GeneralCategoryGroup::Mark
                    | GeneralCategoryGroup::Number
            ),
        };
        if !fits {
            return Err(prohibited(Part::Host, c));
        }
    }
    Ok(())
}

/// Hiragana, Katakana without its middle dot, Han.
fn is_japanese(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30FA}' | '\u{30FC}'..='\u{30FF}' | '\u{4E00}'..='\u{9FFF}')
}
