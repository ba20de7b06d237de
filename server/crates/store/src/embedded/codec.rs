//! How keys and items are written in the log and in the database. Format 1.
//!
//! Key: table number (1), length of the partition key (2, big-endian), partition key, sort key. So
//! a partition is one range, ordered by sort key, and no partition is the prefix of another.
//!
//! Record: format (1), flags (1), billed size (4), then version (8), expiry (8) and nonce (16) as
//! the flags say, number of attributes (1), and per attribute: length of the name (1), name, type
//! (1), length of the value (4) and value, or for a number its 8 bytes. Numbers little-endian.

use std::ops::Bound;

use bytes::Bytes;
use cirrus_schema::TableId;

use crate::rules::{Head, successor};
use crate::{Attrs, Item, Key, Value};

/// The format that this version writes.
const FORMAT: u8 = 1;

const HAS_VERSION: u8 = 1;
const HAS_EXPIRES: u8 = 2;
const HAS_NONCE: u8 = 4;

const TYPE_B: u8 = 1;
const TYPE_S: u8 = 2;
const TYPE_N: u8 = 3;

/// Why stored bytes can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the record ends in the middle")]
    Short,
    #[error("the record has format {0}, this version knows up to {FORMAT}")]
    Format(u8),
    #[error("an attribute has the unknown type {0}")]
    Type(u8),
    #[error("a text is not UTF-8")]
    Text,
    #[error("the key is not one of an item")]
    Key,
}

pub(super) fn encode_key(key: &Key) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(3 + key.pk.len() + key.sk.len());
    push_partition(&mut bytes, key.table, &key.pk);
    bytes.extend_from_slice(&key.sk);
    bytes.into_boxed_slice()
}

fn push_partition(bytes: &mut Vec<u8>, table: TableId, pk: &[u8]) {
    bytes.push(table.number());
    // At most MAX_PK = 2,048 bytes, checked before anything is encoded.
    bytes.extend_from_slice(&(pk.len() as u16).to_be_bytes());
    bytes.extend_from_slice(pk);
}

pub(super) fn decode_key(bytes: &[u8]) -> Result<Key, Malformed> {
    let (number, rest) = bytes.split_first().ok_or(Malformed::Key)?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(Malformed::Key)?;
    let table = TableId::from_number(*number).ok_or(Malformed::Key)?;
    let at = usize::from(u16::from_be_bytes(*length));
    let (pk, sk) = rest.split_at_checked(at).ok_or(Malformed::Key)?;
    Ok(Key::new(
        table,
        Bytes::copy_from_slice(pk),
        Bytes::copy_from_slice(sk),
    ))
}

/// The partition part and the sort key of an encoded key.
pub(super) fn split_key(key: &[u8]) -> (&[u8], &[u8]) {
    let length = match key {
        [_, high, low, ..] => 3 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    key.split_at_checked(length).unwrap_or((key, &[]))
}

/// A range of encoded keys.
pub(super) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// What a scan looks at.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// A partition, by the partition part of its keys, within bounds of sort keys.
    Partition {
        partition: Vec<u8>,
        range: (Bound<Bytes>, Bound<Bytes>),
    },
    /// A table, or what of it is behind a key.
    Table(KeyRange),
}

impl Scope {
    pub(super) fn partition(
        table: TableId,
        pk: &[u8],
        range: (Bound<Bytes>, Bound<Bytes>),
    ) -> Scope {
        let mut partition = Vec::with_capacity(3 + pk.len());
        push_partition(&mut partition, table, pk);
        Scope::Partition { partition, range }
    }

    pub(super) fn table(table: TableId, after: Option<Bytes>) -> Scope {
        let start = vec![table.number()];
        let last = end_of(&start);
        Scope::Table((
            after.map_or(Bound::Included(start), |key| Bound::Excluded(key.to_vec())),
            last,
        ))
    }

    /// The encoded keys that it looks at.
    pub(super) fn key_range(&self) -> KeyRange {
        match self {
            Scope::Table(range) => range.clone(),
            Scope::Partition {
                partition,
                range: (first, last),
            } => {
                let with = |sk: &Bytes| [&partition[..], sk].concat();
                let first = match first.as_ref().map(with) {
                    Bound::Unbounded => Bound::Included(partition.clone()),
                    bound => bound,
                };
                let last = match last.as_ref().map(with) {
                    Bound::Unbounded => end_of(partition),
                    bound => bound,
                };
                (first, last)
            }
        }
    }
}

/// All encoded keys of a partition, given the partition part of its keys.
pub(super) fn whole_partition(partition: &[u8]) -> KeyRange {
    (Bound::Included(partition.to_vec()), end_of(partition))
}

fn end_of(prefix: &[u8]) -> Bound<Vec<u8>> {
    // A table's number is below 255, so that there is always a successor.
    successor(prefix).map_or(Bound::Unbounded, Bound::Excluded)
}

/// The record of an item that was put with this nonce; `size` is what it is billed by.
pub(super) fn encode_record(item: &Item, nonce: u128, size: usize) -> Bytes {
    let value_length = |value: &Value| match value {
        Value::B(bytes) => 4 + bytes.len(),
        Value::S(text) => 4 + text.len(),
        Value::N(_) => 8,
    };
    let attrs = item
        .attrs
        .iter()
        .map(|(name, value)| 2 + name.len() + value_length(value));
    let optional = [
        (item.version > 0, 8),
        (item.expires.is_some(), 8),
        (nonce > 0, 16),
    ];
    let optional: usize = optional
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, length)| length)
        .sum();
    // Exact, so that the vector becomes shared bytes as it is.
    let mut out = Vec::with_capacity(7 + optional + attrs.sum::<usize>());
    let mut flags = 0;
    out.extend_from_slice(&[FORMAT, 0]);
    out.extend_from_slice(&(size as u32).to_le_bytes());
    if item.version > 0 {
        flags |= HAS_VERSION;
        out.extend_from_slice(&item.version.to_le_bytes());
    }
    if let Some(expires) = item.expires {
        flags |= HAS_EXPIRES;
        out.extend_from_slice(&expires.to_le_bytes());
    }
    if nonce > 0 {
        flags |= HAS_NONCE;
        out.extend_from_slice(&nonce.to_le_bytes());
    }
    out[1] = flags;
    out.push(item.attrs.len() as u8);
    for (name, value) in item.attrs.iter() {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        push_value(&mut out, value);
    }
    debug_assert_eq!(out.len(), out.capacity());
    out.into()
}

fn push_value(out: &mut Vec<u8>, value: &Value) {
    let mut long = |kind, bytes: &[u8]| {
        out.push(kind);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        Value::B(bytes) => long(TYPE_B, bytes),
        Value::S(text) => long(TYPE_S, text.as_bytes()),
        Value::N(number) => {
            out.push(TYPE_N);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// What conditions and bills need of a record: head and billed size.
pub(super) fn decode_head(record: &[u8]) -> Result<(Head, usize), Malformed> {
    let mut rest = Rest(record);
    rest.head()
}

/// The item of a record. Byte values share the record's memory.
pub(super) fn decode_item(key: Key, record: &Bytes) -> Result<Item, Malformed> {
    let mut rest = Rest(record);
    let (
        Head {
            version, expires, ..
        },
        _,
    ) = rest.head()?;
    let [count] = rest.take::<1>()?;
    let mut attrs = Attrs::new();
    for _ in 0..count {
        let [length] = rest.take::<1>()?;
        let name = std::str::from_utf8(rest.slice(length.into())?).map_err(|_| Malformed::Text)?;
        let value = match rest.take::<1>()? {
            [TYPE_B] => Value::B(record.slice_ref(rest.long()?)),
            [TYPE_S] => {
                let text = std::str::from_utf8(rest.long()?).map_err(|_| Malformed::Text)?;
                Value::S(text.to_owned())
            }
            [TYPE_N] => Value::N(u64::from_le_bytes(rest.take()?)),
            [other] => return Err(Malformed::Type(other)),
        };
        attrs.set(name, value);
    }
    Ok(Item {
        key,
        attrs,
        version,
        expires,
    })
}

/// The part of a record that is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let length = u32::from_le_bytes(self.take()?);
        self.slice(length as usize)
    }

    fn head(&mut self) -> Result<(Head, usize), Malformed> {
        let [format, flags] = self.take()?;
        if format != FORMAT {
            return Err(Malformed::Format(format));
        }
        let size = u32::from_le_bytes(self.take()?) as usize;
        let mut head = Head {
            version: 0,
            expires: None,
            nonce: 0,
        };
        if flags & HAS_VERSION > 0 {
            head.version = u64::from_le_bytes(self.take()?);
        }
        if flags & HAS_EXPIRES > 0 {
            head.expires = Some(u64::from_le_bytes(self.take()?));
        }
        if flags & HAS_NONCE > 0 {
            head.nonce = u128::from_le_bytes(self.take()?);
        }
        Ok((head, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Item {
        let attrs = Attrs::new()
            .with("b", &b"\0\xff"[..])
            .with("n", 7)
            .with("s", "\u{e9}");
        let key = Key::new(TableId::Archive, &b"uh\0bob"[..], &b"h\0\x01"[..]);
        Item::new(key, attrs).versioned(0x0102).expiring(0x0304)
    }

    /// Items of format 1 as they are stored for ever: see the head of this file.
    const GOLDEN: &[(&str, &str)] = &[
        (
            "060006756800626f62680001",
            "010731000000020100000000000004030000000000000900000000000000000000000000000003\
             0162010200000000ff016e030700000000000000017302\
             02000000c3a9",
        ),
        ("060006756800626f62680001", "01000d00000000"),
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn format_1_is_stable() {
        let bare = Item::new(full().key, Attrs::new());
        for ((key, record), (item, nonce)) in GOLDEN.iter().zip([(full(), 9), (bare, 0)]) {
            let bytes = encode_record(&item, nonce, item.size(nonce > 0));
            assert_eq!(
                (hex(&encode_key(&item.key)).as_str(), hex(&bytes).as_str()),
                (*key, *record)
            );
            assert_eq!(decode_key(&encode_key(&item.key)), Ok(item.key.clone()));
            assert_eq!(decode_item(item.key.clone(), &bytes), Ok(item.clone()));
            let head = Head {
                version: item.version,
                expires: item.expires,
                nonce,
            };
            assert_eq!(decode_head(&bytes), Ok((head, item.size(nonce > 0))));
        }
    }

    #[test]
    fn damaged_records_are_errors() {
        let item = full();
        let bytes = encode_record(&item, 9, 1);
        for length in 0..bytes.len() {
            let short = bytes.slice(..length);
            assert_eq!(
                decode_item(item.key.clone(), &short),
                Err(Malformed::Short),
                "{length}"
            );
        }
        let mut other = bytes.to_vec();
        other[0] = 2;
        assert_eq!(decode_head(&other), Err(Malformed::Format(2)));
        for short in [
            &b""[..],
            b"\x06",
            b"\x06\0",
            b"\x06\0\x05abc",
            b"\xff\0\x01ab",
        ] {
            assert_eq!(decode_key(short), Err(Malformed::Key));
        }
    }

    #[test]
    fn a_partition_is_a_range_of_its_own() {
        let all = || (Bound::Unbounded, Bound::Unbounded);
        let range = |pk: &[u8]| Scope::partition(TableId::Archive, pk, all()).key_range();
        let inside = |pk: &[u8], key: &Key| {
            let key = encode_key(key).into_vec();
            std::ops::RangeBounds::<Vec<u8>>::contains(&range(pk), &key)
        };
        for (pk, sk) in [
            (&b"bob"[..], &b"a"[..]),
            (b"bob", b"\xff\xff"),
            (b"\xff", b"\xff"),
        ] {
            let key = Key::new(TableId::Archive, pk, sk);
            assert!(inside(pk, &key));
            for other in [&b"bo"[..], b"bobb", b"boc", b"\xff\xff", b"a"] {
                assert!(!inside(other, &key), "{other:?}");
            }
        }
    }
}
