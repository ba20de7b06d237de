//! Table `accounts`: one partition per account, one directory per host.

use super::{KeyBytes, lettered, owner_partition, prefixed, text_of};
use crate::TableId;

const DIRECTORY: u8 = b'd';

/// A row of an account's partition, by its sort key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row<'a> {
    /// `a`: credentials per mechanism, created, disabled, minimum token generation.
    Credentials,
    /// `f NUL client-id`: a FAST token's generation.
    Fast(&'a str),
    /// `s`: last seen, status, offline cursor, spool count.
    Last,
    /// `p`: settings that are needed at activation.
    Settings,
}

impl<'a> Row<'a> {
    /// The sort key of the row.
    #[must_use]
    pub fn sk(self) -> Vec<u8> {
        match self {
            Row::Credentials => b"a".to_vec(),
            Row::Fast(client) => lettered(b'f', client.as_bytes()),
            Row::Last => b"s".to_vec(),
            Row::Settings => b"p".to_vec(),
        }
    }

    /// The row with this sort key; `None` for a kind this version doesn't know.
    #[must_use]
    pub fn parse(sk: &'a [u8]) -> Option<Row<'a>> {
        match sk {
            b"a" => Some(Row::Credentials),
            b"s" => Some(Row::Last),
            b"p" => Some(Row::Settings),
            _ => text_of(sk, b'f').map(Row::Fast),
        }
    }
}

/// All rows of an account.
#[must_use]
pub fn partition(owner: &[u8]) -> Vec<u8> {
    owner_partition(owner)
}

/// One row of an account.
#[must_use]
pub fn key(owner: &[u8], row: Row<'_>) -> KeyBytes {
    KeyBytes {
        table: TableId::Accounts,
        pk: partition(owner),
        sk: row.sk(),
    }
}

/// The directory of a host: one row per account, sort key = localpart.
#[must_use]
pub fn directory_partition(host: &str) -> Vec<u8> {
    prefixed(DIRECTORY, host.as_bytes())
}

/// The directory row of an account.
#[must_use]
pub fn directory(host: &str, local: &str) -> KeyBytes {
    let sk = local.as_bytes().to_vec();
    KeyBytes {
        table: TableId::Accounts,
        pk: directory_partition(host),
        sk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        for row in [
            Row::Credentials,
            Row::Fast("phone\u{e9}"),
            Row::Fast(""),
            Row::Last,
            Row::Settings,
        ] {
            assert_eq!(Row::parse(&row.sk()), Some(row));
        }
        for unknown in [&b"x"[..], b"", b"aa", b"f", b"f\0\xff"] {
            assert_eq!(Row::parse(unknown), None);
        }
    }

    #[test]
    fn bytes_of_keys() {
        let key = key(b"example.com\0bob", Row::Fast("c1"));
        assert_eq!(
            (key.pk, key.sk),
            (b"uexample.com\0bob".to_vec(), b"f\0c1".to_vec())
        );
        let dir = directory("example.com", "bob");
        assert_eq!(
            (dir.pk, dir.sk),
            (b"dexample.com".to_vec(), b"bob".to_vec())
        );
    }
}
