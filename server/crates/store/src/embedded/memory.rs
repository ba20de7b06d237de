//! What is in the log and not yet in the database, and how it is read together with it.
//!
//! Three layers, newest first: the content of the active log file, that of the sealed one (there
//! is one while it is moved to the database), and a snapshot of the database. A key that is in a
//! newer layer, be it as deleted, hides the older ones.

use std::{
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::base::{BaseError, Snapshot};
use super::codec::{KeyRange, Malformed, Scope, decode_head};
use super::map::{Entry, Map, SortKey};
use crate::Direction;

/// The content of a sealed log file.
#[derive(Debug)]
pub(super) struct Sealed {
    pub generation: u64,
    pub map: Map,
}

/// The three layers.
pub(super) struct Layers {
    pub active: Map,
    pub sealed: Option<Arc<Sealed>>,
    pub snapshot: Arc<Snapshot>,
}

/// The layers, shared by writer, applier and readers. The lock is held for moments only: never
/// while a disk is asked, except by the writer, which alone changes the active layer.
pub(super) struct Memory(RwLock<Layers>);

/// Whether a layer knows a key, and its record if it exists.
pub(super) enum Lookup {
    /// The newest word on the key.
    Known(Option<Bytes>),
    /// Not in memory; the snapshot has the answer.
    Ask(Arc<Snapshot>),
}

impl Memory {
    pub(super) fn new(layers: Layers) -> Memory {
        Memory(RwLock::new(layers))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Layers> {
        // Whoever holds the lock only inserts into maps and swaps pointers.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Layers> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lookup(&self, key: &[u8]) -> Lookup {
        let layers = self.read();
        match layers.in_memory(key) {
            Some(known) => Lookup::Known(known.clone()),
            None => Lookup::Ask(Arc::clone(&layers.snapshot)),
        }
    }

    /// Visits the records of a scope in order until `visit` says `false`. `limit` is the most
    /// records that will be visited, and [`MAX_PAGE`](crate::limits::MAX_PAGE) the bytes after
    /// which they end.
    pub(super) fn scan(
        &self,
        scope: &Scope,
        direction: Direction,
        limit: usize,
        visit: impl FnMut(&[u8], Bytes, usize) -> Result<bool, Malformed>,
    ) -> Result<(), BaseError> {
        let (active, sealed, snapshot) = {
            let layers = self.read();
            let active = layers.active.copy(scope, direction, limit, &[])?;
            (active, layers.sealed.clone(), Arc::clone(&layers.snapshot))
        };
        let sealed = match sealed {
            Some(sealed) => sealed.map.copy(scope, direction, limit, &active)?,
            None => vec![],
        };
        merge(
            active,
            sealed,
            &snapshot,
            &scope.key_range(),
            direction,
            visit,
        )
    }
}

impl Layers {
    /// What memory knows of a key: its record, or that it is deleted.
    pub(super) fn in_memory(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        let sealed = || self.sealed.as_ref().and_then(|sealed| sealed.map.get(key));
        self.active.get(key).or_else(sealed)
    }

    /// The largest sort key of a partition in any layer, deleted or not.
    pub(super) fn last_sk(&self, partition: &[u8]) -> Result<Option<SortKey>, BaseError> {
        let active = self.active.last_sk(partition);
        let sealed = self
            .sealed
            .as_ref()
            .and_then(|sealed| sealed.map.last_sk(partition));
        let in_memory = active.max(sealed).cloned();
        Ok(in_memory.max(self.snapshot.last_sk(partition)?))
    }

    /// The record of a key, wherever it is.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        match self.in_memory(key) {
            Some(known) => Ok(known.clone()),
            None => self.snapshot.get(key),
        }
    }
}

pub(super) fn as_slices((first, last): &KeyRange) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (
        first.as_ref().map(Vec::as_slice),
        last.as_ref().map(Vec::as_slice),
    )
}

/// Walks three ordered layers as one; of equal keys the newest layer's counts.
fn merge(
    active: Vec<Entry>,
    sealed: Vec<Entry>,
    snapshot: &Snapshot,
    range: &KeyRange,
    direction: Direction,
    mut visit: impl FnMut(&[u8], Bytes, usize) -> Result<bool, Malformed>,
) -> Result<(), BaseError> {
    let mut newest = active.into_iter().peekable();
    let mut middle = sealed.into_iter().peekable();
    let mut oldest = snapshot.range(range, direction)?;
    let mut below = oldest.next().transpose()?;
    loop {
        let heads = [
            newest.peek().map(|(key, _)| &key[..]),
            middle.peek().map(|(key, _)| &key[..]),
            below.as_ref().map(|(key, _)| &key[..]),
        ];
        let first = heads.iter().flatten();
        let first = match direction {
            Direction::Forward => first.min(),
            Direction::Backward => first.max(),
        };
        let Some(first) = first.copied() else {
            return Ok(());
        };
        let at = heads.map(|head| head == Some(first));
        let from_newest = if at[0] { newest.next() } else { None };
        let from_middle = if at[1] { middle.next() } else { None };
        let from_oldest = if at[2] { below.take() } else { None };
        if at[2] {
            below = oldest.next().transpose()?;
        }
        let from_oldest = from_oldest.map(|(key, record)| (key.into_boxed_slice(), Some(record)));
        if let Some((key, Some(record))) = from_newest.or(from_middle).or(from_oldest) {
            let (_, size) = decode_head(&record)?;
            if !visit(&key, record, size)? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::base::Base;
    use super::super::codec::{encode_key, encode_record, split_key};
    use super::*;
    use crate::{Attrs, Item, Key};
    use cirrus_schema::TableId;

    fn key(n: u8) -> Box<[u8]> {
        encode_key(&Key::new(TableId::Cluster, &b"p"[..], vec![n]))
    }

    fn record(n: u8, bytes: usize) -> Bytes {
        let attrs = Attrs::new().with("a", vec![0u8; bytes]);
        let item = Item::new(Key::new(TableId::Cluster, &b"p"[..], vec![n]), attrs);
        encode_record(&item, 0, item.size(false))
    }

    /// Layers with these records, newest first; without bytes = deleted. The last is the database.
    fn memory(folder: &std::path::Path, layers: [Vec<(u8, Option<usize>)>; 3]) -> (Memory, Base) {
        let [active, sealed, base] = layers.map(|entries| {
            let mut map = Map::default();
            for (n, bytes) in entries {
                map.insert(&key(n), bytes.map(|bytes| record(n, bytes)));
            }
            map
        });
        let database = Base::create(&folder.join("tables.redb"), 1_000_000).unwrap();
        assert!(database.apply(1, &base, 1_000, || true).unwrap());
        let memory = Memory::new(Layers {
            active,
            sealed: Some(Arc::new(Sealed {
                generation: 2,
                map: sealed,
            })),
            snapshot: Arc::new(database.snapshot().unwrap()),
        });
        (memory, database)
    }

    /// What a page has, as the store makes one.
    fn page(memory: &Memory, direction: Direction, limit: usize) -> Vec<u8> {
        let bounds = (Bound::Unbounded, Bound::Unbounded);
        let scope = Scope::partition(TableId::Cluster, &Bytes::from_static(b"p"), bounds);
        let (mut seen, mut bytes) = (Vec::new(), 0);
        let scanned = memory.scan(&scope, direction, limit, |key, _, size| {
            seen.push(split_key(key).1[0]);
            bytes += size;
            Ok(seen.len() < limit && bytes < crate::limits::MAX_PAGE)
        });
        scanned.unwrap();
        seen
    }

    fn all(range: std::ops::RangeInclusive<u8>, bytes: Option<usize>) -> Vec<(u8, Option<usize>)> {
        range.map(|n| (n, bytes)).collect()
    }

    #[test]
    fn what_a_newer_layer_deletes_counts_in_no_limit() {
        let folder = tempfile::tempdir().unwrap();
        let layers = [all(1..=64, None), all(1..=200, Some(1)), vec![]];
        let (front, _base) = memory(folder.path(), layers);
        let forward = page(&front, Direction::Forward, 64);
        assert_eq!(forward, (65..=128).collect::<Vec<u8>>());
        let folder = tempfile::tempdir().unwrap();
        let layers = [all(137..=200, None), all(1..=200, Some(1)), vec![]];
        let (back, _base) = memory(folder.path(), layers);
        let backward = page(&back, Direction::Backward, 64);
        assert_eq!(backward, (73..=136).rev().collect::<Vec<u8>>());
    }

    #[test]
    fn what_a_newer_layer_overwrites_counts_with_its_own_size() {
        let folder = tempfile::tempdir().unwrap();
        // The large ones fill a page before the tenth.
        let large = 300_000;
        let layers = [all(1..=10, Some(1)), all(1..=12, Some(large)), vec![]];
        let (memory, _base) = memory(folder.path(), layers);
        let forward = page(&memory, Direction::Forward, usize::MAX);
        assert_eq!(forward, (1..=12).collect::<Vec<u8>>());
        let backward = page(&memory, Direction::Backward, usize::MAX);
        assert_eq!(backward, (1..=12).rev().collect::<Vec<u8>>());
    }

    #[test]
    fn the_database_below_two_layers_that_delete_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let layers = [
            all(1..=64, None),
            all(65..=128, None),
            all(1..=250, Some(1)),
        ];
        let (memory, _base) = memory(folder.path(), layers);
        let forward = page(&memory, Direction::Forward, 64);
        assert_eq!(forward, (129..=192).collect::<Vec<u8>>());
        let backward = page(&memory, Direction::Backward, 200);
        assert_eq!(backward, (129..=250).rev().collect::<Vec<u8>>());
    }
}
