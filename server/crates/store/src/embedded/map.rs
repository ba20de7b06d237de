//! Items in memory: partitions by hash, in each the items in order of their sort keys.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    ops::{Bound, RangeBounds as _},
};

use bytes::Bytes;

use super::codec::{KeyRange, Malformed, Scope, decode_head, split_key};
use crate::Direction;
use crate::limits::MAX_PAGE;

/// A sort key; a short one takes no memory of its own, so that comparing needs no other place.
#[derive(Debug, Clone)]
pub(super) enum SortKey {
    Short {
        length: u8,
        bytes: [u8; SortKey::SHORT],
    },
    Long(Box<[u8]>),
}

impl SortKey {
    /// With this, a sort key has the size of three words. Positions of the archive have 9 bytes.
    const SHORT: usize = 22;

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            SortKey::Short { length, bytes } => &bytes[..usize::from(*length)],
            SortKey::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for SortKey {
    fn from(key: &[u8]) -> SortKey {
        let mut bytes = [0; SortKey::SHORT];
        match bytes.get_mut(..key.len()) {
            Some(short) => {
                short.copy_from_slice(key);
                SortKey::Short {
                    length: key.len() as u8,
                    bytes,
                }
            }
            None => SortKey::Long(key.into()),
        }
    }
}

impl Borrow<[u8]> for SortKey {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &SortKey) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SortKey {}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &SortKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SortKey {
    fn cmp(&self, other: &SortKey) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

/// The items of a partition: records, or none where one was deleted.
type Partition = BTreeMap<SortKey, Option<Bytes>>;

/// An encoded key and its record; none = deleted.
pub(super) type Entry = (Box<[u8]>, Option<Bytes>);

/// Items and deletions, by encoded key.
#[derive(Debug, Default)]
pub(super) struct Map {
    partitions: HashMap<Box<[u8]>, Partition>,
}

impl Map {
    /// What is known of a key: nothing, that it is deleted, or its record.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let (partition, sk) = split_key(key);
        self.partitions.get(partition)?.get(sk)
    }

    pub(super) fn insert(&mut self, key: &[u8], record: Option<Bytes>) {
        let (partition, sk) = split_key(key);
        match self.partitions.get_mut(partition) {
            Some(items) => drop(items.insert(sk.into(), record)),
            None => {
                let mut items = BTreeMap::new();
                items.insert(sk.into(), record);
                self.partitions.insert(partition.into(), items);
            }
        }
    }

    /// Takes over all entries of another map, which is left empty. They replace older ones.
    pub(super) fn append(&mut self, newer: &mut Map) {
        for (partition, items) in newer.partitions.drain() {
            match self.partitions.get_mut(&partition) {
                // One by one: to append as a whole would rebuild the whole tree.
                Some(older) => older.extend(items),
                None => drop(self.partitions.insert(partition, items)),
            }
        }
    }

    /// The largest sort key of a partition, deleted or not.
    pub(super) fn last_sk(&self, partition: &[u8]) -> Option<&SortKey> {
        self.partitions
            .get(partition)?
            .last_key_value()
            .map(|(sk, _)| sk)
    }

    /// Calls `visit` with every key and its record in the order of keys until it fails.
    pub(super) fn try_each<E>(
        &self,
        mut visit: impl FnMut(&[u8], Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut partitions: Vec<_> = self.partitions.iter().collect();
        partitions.sort_unstable_by_key(|(partition, _)| &partition[..]);
        let mut key = Vec::new();
        for (partition, items) in partitions {
            for (sk, record) in items {
                key.clear();
                key.extend_from_slice(partition);
                key.extend_from_slice(sk.as_slice());
                visit(&key, record.as_ref())?;
            }
        }
        Ok(())
    }

    /// The part that a scan can reach, in its order: the scan visits `limit` records or
    /// [`MAX_PAGE`] bytes at most, and of those none is behind that many in this map. `newer` is
    /// the same part of a newer map: what it has is left out here, and counts for nothing.
    pub(super) fn copy(
        &self,
        scope: &Scope,
        direction: Direction,
        limit: usize,
        newer: &[Entry],
    ) -> Result<Vec<Entry>, Malformed> {
        match scope {
            Scope::Partition { partition, range } => {
                let Some(items) = self.partitions.get(&partition[..]) else {
                    return Ok(vec![]);
                };
                copy_of_partition(partition, items, range, direction, limit, newer)
            }
            Scope::Table(range) => Ok(self.copy_of_table(range, direction)),
        }
    }

    fn copy_of_table(&self, range: &KeyRange, direction: Direction) -> Vec<Entry> {
        let mut copy = Vec::new();
        for (partition, items) in &self.partitions {
            for (sk, record) in items {
                let key = [partition, sk.as_slice()].concat();
                if range.contains(&key) {
                    copy.push((key.into_boxed_slice(), record.clone()));
                }
            }
        }
        copy.sort_unstable_by(|(a, _), (b, _)| match direction {
            Direction::Forward => a.cmp(b),
            Direction::Backward => b.cmp(a),
        });
        copy
    }
}

fn copy_of_partition(
    partition: &[u8],
    items: &Partition,
    (first, last): &(Bound<Bytes>, Bound<Bytes>),
    direction: Direction,
    limit: usize,
    newer: &[Entry],
) -> Result<Vec<Entry>, Malformed> {
    let is_hidden = |key: &[u8]| {
        let found = newer.binary_search_by(|(other, _)| match direction {
            Direction::Forward => other[..].cmp(key),
            Direction::Backward => key.cmp(other),
        });
        found.is_ok()
    };
    let bounds = (
        first.as_ref().map(|sk| &sk[..]),
        last.as_ref().map(|sk| &sk[..]),
    );
    let mut range = items.range::<[u8], _>(bounds);
    let next = || match direction {
        Direction::Forward => range.next(),
        Direction::Backward => range.next_back(),
    };
    let (mut copy, mut records, mut bytes) = (Vec::new(), 0, 0);
    for (sk, record) in std::iter::from_fn(next) {
        let key = [partition, sk.as_slice()].concat();
        if is_hidden(&key) {
            continue;
        }
        copy.push((key.into_boxed_slice(), record.clone()));
        if let Some(record) = record {
            records += 1;
            bytes += decode_head(record)?.1;
        }
        if records >= limit || bytes >= MAX_PAGE {
            break;
        }
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_keys_compare_as_bytes() {
        let keys: Vec<Vec<u8>> = vec![
            vec![],
            vec![0],
            vec![1; 21],
            vec![1; 22],
            vec![1; 23],
            vec![1; 22].into_iter().chain([0]).collect(),
            vec![255; 30],
        ];
        for a in &keys {
            assert_eq!(SortKey::from(&a[..]).as_slice(), a);
            for b in &keys {
                let (x, y) = (SortKey::from(&a[..]), SortKey::from(&b[..]));
                assert_eq!((x.cmp(&y), x == y), (a.cmp(b), a == b));
            }
        }
        assert_eq!(size_of::<SortKey>(), 24);
    }

    #[test]
    fn newer_entries_replace_older() {
        let key = |sk: u8| [&[6, 0, 1, b'p'][..], &[sk]].concat();
        let (mut old, mut new) = (Map::default(), Map::default());
        old.insert(&key(1), Some(Bytes::from_static(b"a")));
        old.insert(&key(2), Some(Bytes::from_static(b"b")));
        new.insert(&key(2), None);
        new.insert(&key(3), Some(Bytes::from_static(b"c")));
        old.append(&mut new);
        assert_eq!(new.get(&key(3)), None);
        assert_eq!(old.get(&key(2)), Some(&None));
        assert_eq!(
            old.last_sk(&key(0)[..4]).map(SortKey::as_slice),
            Some(&[3][..])
        );
        let mut seen = Vec::new();
        let collected: Result<(), ()> = old.try_each(|key, record| {
            seen.push((key[4], record.is_some()));
            Ok(())
        });
        assert_eq!(
            (collected, seen),
            (Ok(()), vec![(1, true), (2, false), (3, true)])
        );
    }
}
