//! The checks that every backend makes before it does anything: the limits, held alike everywhere.

use cirrus_schema::{ATTR_EXPIRES, ATTR_NONCE, ATTR_PK, ATTR_SK, ATTR_VERSION};

use crate::limits::{
    MAX_ATTRS, MAX_BATCH, MAX_BLOB, MAX_BLOB_KEY, MAX_ITEM, MAX_LIST, MAX_PK, MAX_SK,
};
use crate::{BlobKey, BlobOp, Condition, Item, Key, Op, Place, SkRange, StoreError};

/// Whether a request keeps to the limits.
///
/// # Errors
/// [`StoreError::TooLarge`] or [`StoreError::Invalid`].
pub(crate) fn check(op: &Op) -> Result<(), StoreError> {
    match op {
        Op::Put { item, nonce, .. } => check_item(item, *nonce),
        Op::Delete {
            key,
            condition: Condition::Absent,
        } => Err(StoreError::invalid(
            Place::Item(key.clone()),
            "a delete can't want it absent",
        )),
        Op::Delete { key, .. } | Op::Get { key } => check_key(key),
        Op::Query {
            table,
            pk,
            range,
            limit,
            after,
            ..
        } => {
            let place = || Place::Partition(*table, pk.clone());
            if *limit == Some(0) {
                return Err(StoreError::invalid(place(), "a page of 0 items never ends"));
            }
            check_part(pk, MAX_PK, "partition key", place)?;
            match range {
                SkRange::All => {}
                SkRange::Prefix(one) | SkRange::From(one) | SkRange::To(one) => {
                    check_length(one, MAX_SK, "sort key", place)?;
                }
                SkRange::Between(first, last) => {
                    check_length(first, MAX_SK, "sort key", place)?;
                    check_length(last, MAX_SK, "sort key", place)?;
                }
            }
            after
                .as_ref()
                .map_or(Ok(()), |sk| check_part(sk, MAX_SK, "sort key", place))
        }
        Op::BatchGet { keys } => check_batch(keys),
    }
}

fn check_batch(keys: &[Key]) -> Result<(), StoreError> {
    let Some(first) = keys.first() else {
        return Ok(());
    };
    let place = || Place::Table(first.table);
    if keys.len() > MAX_BATCH {
        let reason = format!(
            "a batch of {} keys, at most {MAX_BATCH} are allowed",
            keys.len()
        );
        return Err(StoreError::invalid(place(), reason));
    }
    if keys.iter().any(|key| key.table != first.table) {
        return Err(StoreError::invalid(
            place(),
            "the keys of a batch are of several tables",
        ));
    }
    keys.iter().try_for_each(check_key)
}

fn check_item(item: &Item, nonce: u128) -> Result<(), StoreError> {
    check_key(&item.key)?;
    let place = || Place::Item(item.key.clone());
    if item.attrs.has_invalid_name() {
        return Err(StoreError::invalid(
            place(),
            "the name of an attribute is empty or too long",
        ));
    }
    let own = [ATTR_PK, ATTR_SK, ATTR_VERSION, ATTR_EXPIRES, ATTR_NONCE];
    if let Some(name) = own.into_iter().find(|name| item.attrs.get(name).is_some()) {
        let reason = format!("the attribute name {name:?} is the store's own");
        return Err(StoreError::invalid(place(), reason));
    }
    if item.attrs.len() > MAX_ATTRS {
        let reason = format!(
            "{} attributes, at most {MAX_ATTRS} are allowed",
            item.attrs.len()
        );
        return Err(StoreError::invalid(place(), reason));
    }
    let bytes = item.size(nonce != 0);
    if bytes > MAX_ITEM {
        return Err(StoreError::TooLarge {
            place: place(),
            what: "item".into(),
            bytes,
            limit: MAX_ITEM,
        });
    }
    Ok(())
}

fn check_key(key: &Key) -> Result<(), StoreError> {
    let place = || Place::Item(key.clone());
    check_part(&key.pk, MAX_PK, "partition key", place)?;
    check_part(&key.sk, MAX_SK, "sort key", place)
}

fn check_part(
    part: &[u8],
    limit: usize,
    what: &'static str,
    place: impl Fn() -> Place,
) -> Result<(), StoreError> {
    if part.is_empty() {
        return Err(StoreError::invalid(place(), format!("the {what} is empty")));
    }
    check_length(part, limit, what, place)
}

fn check_length(
    part: &[u8],
    limit: usize,
    what: &'static str,
    place: impl Fn() -> Place,
) -> Result<(), StoreError> {
    if part.len() > limit {
        return Err(StoreError::TooLarge {
            place: place(),
            what: what.into(),
            bytes: part.len(),
            limit,
        });
    }
    Ok(())
}

/// Whether a blob request keeps to the limits.
///
/// # Errors
/// [`StoreError::TooLarge`] or [`StoreError::Invalid`].
pub(crate) fn check_blob(op: &BlobOp) -> Result<(), StoreError> {
    match op {
        BlobOp::Put { at, body, .. } | BlobOp::PutIfAbsent { at, body } => {
            check_name(at)?;
            check_length(body, MAX_BLOB, "blob", || op.place())
        }
        BlobOp::Get { at, range } => {
            check_name(at)?;
            match range {
                Some(range) if range.start >= range.end => {
                    Err(StoreError::invalid(op.place(), "the range has no bytes"))
                }
                _ => Ok(()),
            }
        }
        BlobOp::Delete { at } => check_name(at),
        BlobOp::List { limit, prefix, .. } => {
            if !(1..=MAX_LIST).contains(limit) {
                let reason = format!("a page of {limit} names, 1 to {MAX_LIST} are allowed");
                return Err(StoreError::invalid(op.place(), reason));
            }
            check_length(prefix.as_bytes(), MAX_BLOB_KEY, "prefix", || op.place())
        }
    }
}

/// A name that is safe as a relative path and as part of a URL's path.
pub(crate) fn check_name(at: &BlobKey) -> Result<(), StoreError> {
    let place = || Place::Blob(at.clone());
    check_length(at.name.as_bytes(), MAX_BLOB_KEY, "name", place)?;
    let bad_part = |part: &str| matches!(part, "" | "." | "..");
    if at.name.split('/').any(bad_part) {
        return Err(StoreError::invalid(
            place(),
            "a part of the name is empty, '.' or '..'",
        ));
    }
    if at.name.chars().any(|c| c.is_control() || c == '\\') {
        return Err(StoreError::invalid(
            place(),
            "the name has a control character or '\\'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cirrus_schema::{BucketId, TableId};

    use super::*;
    use crate::Attrs;

    fn key(pk: usize, sk: usize) -> Key {
        Key::new(TableId::Archive, vec![1; pk], vec![1; sk])
    }

    fn put(attrs: Attrs) -> Op {
        Op::Put {
            item: Item::new(key(1, 1), attrs),
            condition: Condition::Any,
            nonce: 0,
        }
    }

    #[test]
    fn keys_and_items() {
        for (op, ok) in [
            (
                Op::Get {
                    key: key(MAX_PK, MAX_SK),
                },
                true,
            ),
            (
                Op::Get {
                    key: key(MAX_PK + 1, 1),
                },
                false,
            ),
            (
                Op::Get {
                    key: key(1, MAX_SK + 1),
                },
                false,
            ),
            (Op::Get { key: key(0, 1) }, false),
            (Op::Get { key: key(1, 0) }, false),
            (put(Attrs::new().with("v", 1)), true),
            (put(Attrs::new().with("exp", 1)), false),
            (put(Attrs::new().with("", 1)), false),
            (put(Attrs::new().with("z", vec![0; MAX_ITEM - 7])), true),
            (put(Attrs::new().with("z", vec![0; MAX_ITEM - 6])), false),
            (Op::BatchGet { keys: vec![] }, true),
            (
                Op::BatchGet {
                    keys: vec![key(1, 1); MAX_BATCH + 1],
                },
                false,
            ),
            (
                Op::Delete {
                    key: key(1, 1),
                    condition: Condition::Absent,
                },
                false,
            ),
        ] {
            assert_eq!(check(&op).is_ok(), ok, "{:?}", check(&op));
        }
        let other = Key::new(TableId::Rosters, &b"a"[..], &b"b"[..]);
        assert!(
            check(&Op::BatchGet {
                keys: vec![key(1, 1), other]
            })
            .is_err()
        );
    }

    #[test]
    fn blob_names() {
        for (name, ok) in [
            ("seg/ab/cd", true),
            ("a b\u{e9}", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            ("a/../b", false),
            ("./a", false),
            ("a\nb", false),
            ("a\\b", false),
        ] {
            let op = BlobOp::Delete {
                at: BlobKey::new(BucketId::Data, name),
            };
            assert_eq!(check_blob(&op).is_ok(), ok, "{name:?}");
        }
        let at = BlobKey::new(BucketId::Data, "a");
        assert!(
            check_blob(&BlobOp::Get {
                at: at.clone(),
                range: Some(3..3)
            })
            .is_err()
        );
        let body = Bytes::from(vec![0; MAX_BLOB + 1]);
        assert!(check_blob(&BlobOp::PutIfAbsent { at, body }).is_err());
    }
}
