//! Items as DynamoDB's attribute maps, and back.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use cirrus_schema::{ATTR_EXPIRES, ATTR_NONCE, ATTR_PK, ATTR_SK, ATTR_VERSION, TableId};

use crate::{Attrs, Item, Key, Name, Place, StoreError, Value};

/// An item as DynamoDB has it.
pub(super) type Map = HashMap<String, AttributeValue>;

/// An item as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub item: Item,
    pub nonce: u128,
}

impl Stored {
    /// Bytes that it is billed by.
    pub(super) fn size(&self) -> usize {
        self.item.size(self.nonce != 0)
    }
}

pub(super) fn bytes(value: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(value))
}

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn key_map(pk: &[u8], sk: &[u8]) -> Map {
    HashMap::from([
        (ATTR_PK.to_owned(), bytes(pk)),
        (ATTR_SK.to_owned(), bytes(sk)),
    ])
}

pub(super) fn item_map(item: &Item, nonce: u128) -> Map {
    let mut map = key_map(&item.key.pk, &item.key.sk);
    if item.version > 0 {
        map.insert(ATTR_VERSION.to_owned(), number(item.version));
    }
    if let Some(expires) = item.expires {
        map.insert(ATTR_EXPIRES.to_owned(), number(expires));
    }
    if nonce > 0 {
        map.insert(ATTR_NONCE.to_owned(), bytes(&nonce.to_be_bytes()));
    }
    for (name, value) in item.attrs.iter() {
        let value = match value {
            Value::B(value) => bytes(value),
            Value::S(text) => AttributeValue::S(text.clone()),
            Value::N(value) => number(*value),
        };
        map.insert(name.to_owned(), value);
    }
    map
}

/// The item of a map. What this program never writes is reported as corrupt.
pub(super) fn stored(table: TableId, mut map: Map) -> Result<Stored, StoreError> {
    let mut key_part = |name: &str| match map.remove(name) {
        Some(AttributeValue::B(value)) => Ok(Bytes::from(value.into_inner())),
        _ => Err(StoreError::corrupt(
            Place::Table(table),
            format!("an item without key {name:?}"),
        )),
    };
    let key = Key::new(table, key_part(ATTR_PK)?, key_part(ATTR_SK)?);
    let corrupt = |name: &str, what: &str| {
        StoreError::corrupt(
            Place::Item(key.clone()),
            format!("attribute {name:?} {what}"),
        )
    };
    let as_number = |name: &str, text: &str| -> Result<u64, StoreError> {
        text.parse()
            .map_err(|_| corrupt(name, "is not a number from 0 to 2^64 - 1"))
    };
    let (mut attrs, mut version, mut expires, mut nonce) = (Attrs::new(), 0, None, 0);
    for (name, value) in map {
        match (name.as_str(), value) {
            (ATTR_VERSION, AttributeValue::N(text)) => version = as_number(ATTR_VERSION, &text)?,
            (ATTR_EXPIRES, AttributeValue::N(text)) => {
                expires = Some(as_number(ATTR_EXPIRES, &text)?);
            }
            (ATTR_NONCE, AttributeValue::B(value)) => {
                let value = value.into_inner().try_into();
                nonce = u128::from_be_bytes(
                    value.map_err(|_| corrupt(ATTR_NONCE, "has not 16 bytes"))?,
                );
            }
            (name, _) if !Name::new(name).is_valid() => return Err(corrupt(name, "is too long")),
            (name, AttributeValue::B(value)) => drop(attrs.set(name, value.into_inner())),
            (name, AttributeValue::S(text)) => drop(attrs.set(name, text)),
            (name, AttributeValue::N(text)) => drop(attrs.set(name, as_number(name, &text)?)),
            (name, _) => return Err(corrupt(name, "has an unknown type")),
        }
    }
    Ok(Stored {
        item: Item {
            key,
            attrs,
            version,
            expires,
        },
        nonce,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_round_trip() {
        let key = Key::new(TableId::Rosters, &b"p\0"[..], &b"\xff"[..]);
        let attrs = Attrs::new()
            .with("b", &b"\0"[..])
            .with("n", u64::MAX)
            .with("s", "\u{e9}");
        let item = Item::new(key, attrs).versioned(3).expiring(7);
        for nonce in [0, 1, u128::MAX] {
            let map = item_map(&item, nonce);
            assert_eq!(map.contains_key(ATTR_NONCE), nonce > 0);
            let stored = stored(TableId::Rosters, map).unwrap();
            assert_eq!(
                stored,
                Stored {
                    item: item.clone(),
                    nonce
                }
            );
        }
        let bare = Item::new(item.key, Attrs::new());
        assert_eq!(item_map(&bare, 0).len(), 2);
    }

    #[test]
    fn what_is_not_ours_is_corrupt() {
        let base = || key_map(b"p", b"s");
        for (name, value) in [
            ("n", AttributeValue::N("-1".into())),
            ("n", AttributeValue::N("1.5".into())),
            ("l", AttributeValue::L(vec![])),
            (ATTR_VERSION, AttributeValue::S("1".into())),
            (ATTR_EXPIRES, AttributeValue::N("x".into())),
            (ATTR_NONCE, bytes(b"short")),
            ("toolong8", number(1)),
        ] {
            let mut map = base();
            map.insert(name.to_owned(), value);
            let got = stored(TableId::Rosters, map);
            let is_text_version = name == ATTR_VERSION;
            assert!(
                matches!(got, Err(StoreError::Corrupt { .. })) || is_text_version,
                "{name}: {got:?}"
            );
        }
        assert!(stored(TableId::Rosters, Map::new()).is_err());
    }
}
