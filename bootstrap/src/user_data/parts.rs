//! Which part of a multipart is for Cirrus.
//!
//! One that says so by its type; or one of no particular type that is recognisably a
//! configuration; or a #cloud-config with `cirrus:` in it. Never two of them: nobody could say
//! which one holds.

use std::borrow::Cow;

use super::mime::{self, Part};
use super::{Make, Note, UserData, UserDataError, gunzip, is_for_cirrus, read};

/// Types that are for Cirrus and nobody else.
const OURS: [&str; 2] = ["application/vnd.cirrus-config", "text/x-cirrus"];

/// Types that say nothing about whose the part is.
const ANYBODYS: [&str; 6] = [
    "text/plain",
    "text/x-not-multipart",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    "text/cloud-config",
];

/// A part beyond this line is named by its number: an error in it counts its own lines.
const MAX_BEFORE: usize = 1_000;

/// A part whose content is text.
struct Found<'m> {
    part: &'m Part,
    text: String,
    gzipped: bool,
}

/// Reads the one part that is for Cirrus.
///
/// # Errors
/// No such part, several, or what is wrong with the one.
pub(super) fn read_multipart(
    bytes: &[u8],
    file: &str,
    make: Make<'_>,
) -> Result<UserData, UserDataError> {
    let unreadable = |(line, reason): (usize, String)| UserDataError::Mime {
        file: file.to_owned(),
        line: line.max(1),
        reason,
    };
    let message = mime::parts(bytes).map_err(unreadable)?;
    let mut notes = message.notes;
    let mut found = Vec::new();
    for part in &message.parts {
        if OURS.contains(&part.kind.as_str()) {
            found.push(content(part, file)?);
        } else if ANYBODYS.contains(&part.kind.as_str()) {
            match content(part, file) {
                Ok(one) if is_for_cirrus(&one.text) => found.push(one),
                Ok(_) => {}
                Err(error) => {
                    let what = format!("{} ({}) is left alone: {error}", part.name, part.kind);
                    notes.push((part.before, what));
                }
            }
        }
    }
    let one = match found.as_slice() {
        [one] => one,
        [] => return Err(none(&message.parts, file)),
        [first, second, ..] => {
            let names = format!("{} and {}", words(first.part), words(second.part));
            let reason = format!("several parts are for Cirrus ({names}); leave one");
            return Err(unreadable((second.part.before, reason)));
        }
    };
    let own_lines = one.gzipped || !one.part.is_plain() || one.part.before > MAX_BEFORE;
    let (name, before) = if own_lines {
        (Cow::Owned(named(one.part, file)), 0)
    } else {
        (Cow::Borrowed(file), one.part.before)
    };
    let mut data = read(&one.text, &name, before, make)?;
    data.gzipped = one.gzipped;
    data.part = Some(one.part.name.clone());
    let notes = notes.into_iter().map(|(line, what)| {
        let line = u64::try_from(line).unwrap_or_default();
        Note::new(file, line, what)
    });
    data.notes.splice(0..0, notes);
    Ok(data)
}

/// The content of a part as text: decoded, inflated.
fn content<'m>(part: &'m Part, file: &str) -> Result<Found<'m>, UserDataError> {
    let name = named(part, file);
    let bytes = part.decoded().map_err(|reason| UserDataError::Mime {
        file: file.to_owned(),
        line: part.before.max(1),
        reason: format!("{}: {reason}", part.name),
    })?;
    let gzipped = gunzip::is_gzip(&bytes);
    let bytes = if gzipped {
        gunzip::gunzip(&bytes, &name)?
    } else {
        bytes
    };
    let text = cirrus_config::text_of(&bytes, &name).map_err(UserDataError::Binary)?;
    let text = text.to_owned();
    Ok(Found {
        part,
        text,
        gzipped,
    })
}

fn none(parts: &[Part], file: &str) -> UserDataError {
    let names: Vec<String> = parts.iter().map(words).collect();
    let form = if names.is_empty() {
        "a MIME multipart without parts".to_owned()
    } else {
        format!(
            "a MIME multipart with no part for Cirrus ({})",
            names.join("; ")
        )
    };
    let (file, line) = (file.to_owned(), 1);
    UserDataError::Foreign { file, line, form }
}

fn words(part: &Part) -> String {
    format!("{}: {}", part.name, part.kind)
}

/// The part as the file that an error is in.
fn named(part: &Part, file: &str) -> String {
    format!("{file} ({})", part.name)
}
