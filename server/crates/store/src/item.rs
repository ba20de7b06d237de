//! Keys and items.

use std::fmt;

use bytes::Bytes;
use cirrus_schema::{KeyBytes, TableId};
use serde::{Deserialize, Serialize};

use crate::Attrs;

/// Where an item is: a table, a partition in it, and a place in the partition's order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The table.
    pub table: TableId,
    /// Partition key: 1 to [`MAX_PK`](crate::limits::MAX_PK) bytes.
    #[serde(with = "crate::raw")]
    pub pk: Bytes,
    /// Sort key: 1 to [`MAX_SK`](crate::limits::MAX_SK) bytes, ordered bytewise.
    #[serde(with = "crate::raw")]
    pub sk: Bytes,
}

impl Key {
    /// A key from its parts.
    #[must_use]
    pub fn new(table: TableId, pk: impl Into<Bytes>, sk: impl Into<Bytes>) -> Key {
        Key {
            table,
            pk: pk.into(),
            sk: sk.into(),
        }
    }
}

impl From<KeyBytes> for Key {
    fn from(key: KeyBytes) -> Key {
        Key::new(key.table, key.pk, key.sk)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pk, sk) = (self.pk.escape_ascii(), self.sk.escape_ascii());
        write!(f, "{}[{pk}][{sk}]", self.table.name())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is stored under a key.
///
/// The nonce of the put that wrote it is stored too, but it is the store's own business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Where it is.
    pub key: Key,
    /// What it says.
    pub attrs: Attrs,
    /// Version of a mutable item, as the writer has chosen it (the version it read plus one);
    /// 0 = the item is never changed and carries no version.
    pub version: u64,
    /// The item is absent from this second (Unix time) on.
    pub expires: Option<u64>,
}

impl Item {
    /// An immutable item that doesn't expire.
    #[must_use]
    pub fn new(key: impl Into<Key>, attrs: Attrs) -> Item {
        Item {
            key: key.into(),
            attrs,
            version: 0,
            expires: None,
        }
    }

    /// The same item with this version.
    #[must_use]
    pub fn versioned(self, version: u64) -> Item {
        Item { version, ..self }
    }

    /// The same item, absent from this second (Unix time) on.
    #[must_use]
    pub fn expiring(self, expires: u64) -> Item {
        Item {
            expires: Some(expires),
            ..self
        }
    }

    /// Whether the item counts as absent at `now_ms` (Unix milliseconds).
    #[must_use]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires.is_some_and(|second| second <= now_ms / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_by_whole_seconds() {
        let key = Key::new(TableId::Cluster, &b"p"[..], &b"s\0\xff"[..]);
        let item = Item::new(key, Attrs::new()).expiring(10);
        assert!(!item.is_expired(9_999));
        assert!(item.is_expired(10_000));
        assert_eq!(item.key.to_string(), r"cluster[p][s\x00\xff]");
    }
}
