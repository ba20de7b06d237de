//! Sizes of items and units of requests, by DynamoDB's rules.

use std::collections::HashSet;

use cirrus_schema::{ATTR_EXPIRES, ATTR_NONCE, ATTR_PK, ATTR_SK, ATTR_VERSION};

use crate::{Item, Key, Op, Outcome, StoreError, Usage, Value};

/// One write unit writes up to this many bytes of one item.
const WRITE_UNIT: usize = 1_024;
/// One read unit reads up to this many bytes of one request, strongly consistent.
const READ_UNIT: usize = 4_096;
/// The provider takes this many keys in one batch request.
pub(crate) const BATCH_REQUEST: usize = 100;
/// A nonce is 16 bytes and its name.
const NONCE: usize = ATTR_NONCE.len() + 16;

/// Write units for an item of this many bytes; a request always costs at least one.
#[must_use]
pub fn write_units(bytes: usize) -> u32 {
    units(bytes, WRITE_UNIT)
}

/// Strongly consistent read units for this many bytes; a request always costs at least one.
#[must_use]
pub fn read_units(bytes: usize) -> u32 {
    units(bytes, READ_UNIT)
}

fn units(bytes: usize, unit: usize) -> u32 {
    u32::try_from(bytes.div_ceil(unit).max(1)).unwrap_or(u32::MAX)
}

impl Item {
    /// Bytes that the item is billed and limited by: names and values of all attributes, keys
    /// included. `with_nonce`: as it is stored by a put that has a nonce.
    #[must_use]
    pub fn size(&self, with_nonce: bool) -> usize {
        let mut size = key_size(&self.key);
        if self.version > 0 {
            size += ATTR_VERSION.len() + number_size(self.version);
        }
        if let Some(expires) = self.expires {
            size += ATTR_EXPIRES.len() + number_size(expires);
        }
        if with_nonce {
            size += NONCE;
        }
        let attrs = self
            .attrs
            .iter()
            .map(|(name, value)| name.len() + value_size(value));
        size + attrs.sum::<usize>()
    }
}

fn key_size(key: &Key) -> usize {
    ATTR_PK.len() + key.pk.len() + ATTR_SK.len() + key.sk.len()
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::B(bytes) => bytes.len(),
        Value::S(text) => text.len(),
        Value::N(number) => number_size(*number),
    }
}

/// One byte and one more for every two significant digits; leading and trailing zeros don't count.
fn number_size(mut number: u64) -> usize {
    if number == 0 {
        return 1;
    }
    while number.is_multiple_of(10) {
        number /= 10;
    }
    let digits = number.ilog10() as usize + 1;
    1 + digits.div_ceil(2)
}

/// Cost of a write that replaced `old` bytes (0 = nothing) by `new` (0 = deleted).
pub(crate) fn usage_of_write(old: usize, new: usize) -> Usage {
    let write_units = write_units(old.max(new));
    Usage {
        requests: 1,
        write_units,
        written: new as u64,
        ..Usage::default()
    }
}

/// Cost of a write that failed its condition: as if it had been made.
pub(crate) fn usage_of_conflict(old: usize, new: usize) -> Usage {
    Usage {
        written: 0,
        ..usage_of_write(old, new)
    }
}

/// Cost of a get or a query that looked at this many bytes.
pub(crate) fn usage_of_read(bytes: usize) -> Usage {
    Usage {
        requests: 1,
        read_units: read_units(bytes),
        read: bytes as u64,
        ..Usage::default()
    }
}

/// Cost of a batch: each different key is billed by itself, 0 bytes = absent.
pub(crate) fn usage_of_batch<'a>(items: impl Iterator<Item = (&'a Key, usize)>) -> Usage {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    for (key, bytes) in items {
        if seen.insert(key) {
            usage.read_units += read_units(bytes);
            usage.read += bytes as u64;
        }
    }
    usage.requests = u32::try_from(seen.len().div_ceil(BATCH_REQUEST)).unwrap_or(u32::MAX);
    usage
}

/// The cost of a request as far as request and result tell it.
pub(crate) struct Asked {
    /// Size of the item to be written; 0 for a delete.
    new: usize,
    /// Number of keys of a batch.
    keys: usize,
}

impl Asked {
    pub(crate) fn of(op: &Op) -> Asked {
        let new = match op {
            Op::Put { item, nonce, .. } => item.size(*nonce != 0),
            _ => 0,
        };
        let keys = if let Op::BatchGet { keys } = op {
            keys.len()
        } else {
            0
        };
        Asked { new, keys }
    }

    pub(crate) fn usage(&self, result: &Result<Outcome, StoreError>) -> Usage {
        let sizes = |items: &[Item]| items.iter().map(|item| item.size(false)).sum::<usize>();
        match result {
            Ok(Outcome::Put | Outcome::Deleted) => usage_of_write(0, self.new),
            Ok(Outcome::Item(item)) => usage_of_read(sizes(item.as_slice())),
            Ok(Outcome::Page { items, .. }) => usage_of_read(sizes(items)),
            Ok(Outcome::Items(items)) => {
                let found = usage_of_batch(items.iter().map(|item| (&item.key, item.size(false))));
                let absent = self.keys.saturating_sub(items.len()) as u32;
                let requests = self.keys.div_ceil(BATCH_REQUEST) as u32;
                Usage {
                    requests,
                    read_units: found.read_units + absent,
                    ..found
                }
            }
            Err(StoreError::Conflict { existing, .. }) => usage_of_conflict(
                existing.as_ref().map_or(0, |item| item.size(false)),
                self.new,
            ),
            Err(StoreError::TooLarge { .. } | StoreError::Invalid { .. }) => Usage::default(),
            Err(_) => Usage {
                requests: 1,
                ..Usage::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use cirrus_schema::TableId;

    use super::*;
    use crate::Attrs;

    #[test]
    fn numbers_by_significant_digits() {
        for (number, size) in [
            (0, 1),
            (1, 2),
            (10, 2),
            (12, 2),
            (120, 2),
            (123, 3),
            (1_234, 3),
            (u64::MAX, 11),
        ] {
            assert_eq!(number_size(number), size, "{number}");
        }
    }

    #[test]
    fn items_by_names_and_values() {
        let attrs = Attrs::new()
            .with("t", 123)
            .with("w", "a\u{e9}")
            .with("z", &[0u8; 10][..]);
        let item = Item::new(Key::new(TableId::Archive, &b"1234"[..], &b"12"[..]), attrs);
        let base = 2 + 4 + 2 + 2 + (1 + 3) + (1 + 3) + (1 + 10);
        assert_eq!(item.size(false), base);
        assert_eq!(item.size(true), base + 17);
        assert_eq!(item.clone().versioned(12).size(false), base + 3);
        assert_eq!(item.expiring(1_800_000_001).size(false), base + 3 + 6);
    }

    #[test]
    fn units_round_up_and_start_at_one() {
        assert_eq!([0, 1, 1_024, 1_025].map(write_units), [1, 1, 1, 2]);
        assert_eq!([0, 4_096, 4_097].map(read_units), [1, 1, 2]);
    }
}
