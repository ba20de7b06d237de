//! Names of tables and buckets at the provider, from one prefix.

use std::fmt;

use crate::{BucketId, TableId};

/// Shortest prefix; DynamoDB wants 3 characters in a table name, the suffix alone has more.
pub const MIN_PREFIX: usize = 1;
/// Longest prefix: a table name has at most 255 characters, the longest suffix is `-documents`.
pub const MAX_PREFIX: usize = 255 - "-documents".len();
/// A bucket name has at most 63 characters: 40 + `-` + 8 + `-` + `uploads` = 57.
const BUCKET_PREFIX: usize = 40;
/// 8 characters of base32 = 40 bits.
const TAG: usize = 8;

/// Why a prefix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrefixError {
    /// Shorter than [`MIN_PREFIX`] or longer than [`MAX_PREFIX`].
    Length(usize),
    /// The provider does not allow this character in a table name.
    Character(char),
    /// A bucket's name must start with a letter or digit.
    Start(char),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefixError::Length(n) => {
                write!(
                    f,
                    "a prefix has {MIN_PREFIX} to {MAX_PREFIX} characters, this one {n}"
                )
            }
            PrefixError::Character(c) => {
                write!(
                    f,
                    "a prefix has only a-z, A-Z, 0-9, '_', '-' and '.', not {c:?}"
                )
            }
            PrefixError::Start(c) => {
                write!(
                    f,
                    "a prefix starts with a letter or a digit, not with {c:?}"
                )
            }
        }
    }
}

impl std::error::Error for PrefixError {}

/// Whether `prefix` gives valid table and bucket names.
///
/// # Errors
/// [`PrefixError`] names the rule that is broken.
pub fn check_prefix(prefix: &str) -> Result<(), PrefixError> {
    let length = prefix.chars().count();
    if !(MIN_PREFIX..=MAX_PREFIX).contains(&length) {
        return Err(PrefixError::Length(length));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if let Some(c) = prefix.chars().find(|c| !allowed(*c)) {
        return Err(PrefixError::Character(c));
    }
    match prefix.chars().next() {
        Some(c) if !c.is_ascii_alphanumeric() => Err(PrefixError::Start(c)),
        _ => Ok(()),
    }
}

/// `<prefix>-<table>`.
#[must_use]
pub fn table_name(prefix: &str, table: TableId) -> String {
    format!("{prefix}-{}", table.name())
}

/// `<prefix, dots to dashes, cut to 40>-<tag>-<bucket>`; `tag` is [`bucket_tag`].
///
/// Bucket names are lower case and share one namespace with the whole world, hence the tag.
#[must_use]
pub fn bucket_name(prefix: &str, tag: &str, bucket: BucketId) -> String {
    let plain = |c: char| {
        if matches!(c, '.' | '_') {
            '-'
        } else {
            c.to_ascii_lowercase()
        }
    };
    let cut: String = prefix.chars().map(plain).take(BUCKET_PREFIX).collect();
    format!("{cut}-{tag}-{}", bucket.name())
}

/// The bytes whose SHA-256 goes into [`bucket_tag`]: prefix, account and region, NUL between.
#[must_use]
pub fn bucket_tag_input(prefix: &str, account: &str, region: &str) -> Vec<u8> {
    [prefix.as_bytes(), account.as_bytes(), region.as_bytes()].join(&0)
}

/// The first 40 bits of a hash as 8 characters of base32 (RFC 4648, lower case).
#[must_use]
pub fn bucket_tag(sha256: &[u8; 32]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = sha256[..5]
        .iter()
        .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let digit = |i: usize| (bits >> (5 * (TAG - 1 - i))) as usize & 31;
    (0..TAG).map(|i| char::from(ALPHABET[digit(i)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let long = "a".repeat(MAX_PREFIX + 1);
        for (prefix, expected) in [
            ("example.com", Ok(())),
            ("X_1-b", Ok(())),
            ("", Err(PrefixError::Length(0))),
            (long.as_str(), Err(PrefixError::Length(MAX_PREFIX + 1))),
            ("exämple", Err(PrefixError::Character('ä'))),
            ("a b", Err(PrefixError::Character(' '))),
            ("-a", Err(PrefixError::Start('-'))),
            (".a", Err(PrefixError::Start('.'))),
        ] {
            assert_eq!(check_prefix(prefix), expected, "{prefix}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(
            table_name("example.com", TableId::Archive),
            "example.com-archive"
        );
        assert_eq!(
            bucket_name("Chat_1.example.com", "abcdefgh", BucketId::Data),
            "chat-1-example-com-abcdefgh-data"
        );
        let long = bucket_name(&"a.".repeat(100), "abcdefgh", BucketId::Uploads);
        assert_eq!(long.len(), 57);
    }

    #[test]
    fn tag_is_base32_of_the_first_40_bits() {
        let mut hash = [0u8; 32];
        assert_eq!(bucket_tag(&hash), "aaaaaaaa");
        hash[..5].copy_from_slice(b"fooba");
        assert_eq!(bucket_tag(&hash), "mzxw6ytb");
        assert_eq!(bucket_tag_input("a", "1", "eu"), b"a\x001\x00eu");
    }
}
