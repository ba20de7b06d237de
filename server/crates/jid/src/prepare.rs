//! Local parts (nodeprep, RFC 6122 appendix A) and resources (resourceprep, appendix B).

use std::borrow::Cow;

use stringprep::tables;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::{JidError, MAX_PART, Part};

/// Normalises a local part: case folded, and without the characters that separate parts.
pub(crate) fn local(text: &str) -> Result<Cow<'_, str>, JidError> {
    check_length(Part::Local, text)?;
    let mut upper = false;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' => upper = true,
            0x80.. => return slow(Part::Local, text, fold_local),
            _ if !is_local_ascii(byte) => {
                return Err(prohibited(Part::Local, byte.into()));
            }
            _ => {}
        }
    }
    Ok(if upper {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    })
}

/// Normalises a resource: case and spaces stay.
pub(crate) fn resource(text: &str) -> Result<Cow<'_, str>, JidError> {
    check_length(Part::Resource, text)?;
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' => {}
            0x80.. => return slow(Part::Resource, text, fold_resource),
            _ => return Err(prohibited(Part::Resource, byte.into())),
        }
    }
    Ok(Cow::Borrowed(text))
}

pub(crate) fn check_length(part: Part, text: &str) -> Result<(), JidError> {
    match text.len() {
        0 => Err(JidError::Empty(part)),
        bytes if bytes > MAX_PART => Err(JidError::TooLong { part, bytes }),
        _ => Ok(()),
    }
}

pub(crate) fn prohibited(part: Part, character: char) -> JidError {
    JidError::Prohibited { part, character }
}

/// Printable, and not one of `"&'/:<>@` (RFC 7622 section 3.3.1).
fn is_local_ascii(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~')
        && !matches!(byte, b'"' | b'&' | b'\'' | b'/' | b':' | b'<' | b'>' | b'@')
}

/// Normalises twice: stringprep does not promise that its output is its own normal form, and an
/// address whose form changes when it is read back would be two addresses.
fn slow(
    part: Part,
    text: &str,
    fold: fn(&str) -> Result<String, JidError>,
) -> Result<Cow<'static, str>, JidError> {
    let once = fold(text)?;
    check_length(part, &once)?;
    if fold(&once)? == once {
        Ok(Cow::Owned(once))
    } else {
        Err(JidError::Unstable(part))
    }
}

fn fold_local(text: &str) -> Result<String, JidError> {
    let folded: String = text
        .chars()
        .filter(|&c| !tables::commonly_mapped_to_nothing(c))
        .flat_map(tables::case_fold_for_nfkc)
        .nfkc()
        .collect();
    let is_bad = |c: char| {
        is_prohibited(c)
            || tables::non_ascii_space_character(c)
            // Unicode 3.2 is what stringprep knows. A character that is younger is refused here:
            // its case folding is unknown, so two spellings of one account could differ.
            || tables::unassigned_code_point(c)
            || (c.is_ascii() && !is_local_ascii(c as u8))
    };
    finish(Part::Local, folded, is_bad)
}

fn fold_resource(text: &str) -> Result<String, JidError> {
    let folded: String = text
        .chars()
        .filter(|&c| !tables::commonly_mapped_to_nothing(c))
        .nfkc()
        .collect();
    let is_bad = |c: char| {
        is_prohibited(c)
            || tables::non_ascii_space_character(c)
            // Nothing is folded in a resource, so younger characters do no harm (a nickname with
            // an emoji is a resource), if they are visible.
            || (tables::unassigned_code_point(c) && !is_visible(c))
    };
    finish(Part::Resource, folded, is_bad)
}

fn finish(part: Part, folded: String, is_bad: impl Fn(char) -> bool) -> Result<String, JidError> {
    match folded.chars().find(|&c| is_bad(c)) {
        Some(character) => Err(prohibited(part, character)),
        None if is_mixed(&folded) => Err(JidError::Direction(part)),
        None => Ok(folded),
    }
}

/// The tables that nodeprep and resourceprep share (RFC 3454 appendix C).
fn is_prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::surrogate_code(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
}

/// By the Unicode of today: a letter, mark, number, punctuation mark or symbol.
fn is_visible(c: char) -> bool {
    matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Letter
            | GeneralCategoryGroup::Mark
            | GeneralCategoryGroup::Number
            | GeneralCategoryGroup::Punctuation
            | GeneralCategoryGroup::Symbol
    )
}

/// RFC 3454 section 6: what has a right-to-left character has no left-to-right one, and begins
/// and ends right-to-left.
fn is_mixed(text: &str) -> bool {
    text.contains(tables::bidi_r_or_al)
        && (text.contains(tables::bidi_l)
            || !text.starts_with(tables::bidi_r_or_al)
            || !text.ends_with(tables::bidi_r_or_al))
}
