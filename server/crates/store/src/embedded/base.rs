//! The database below the log: one redb file, changed only by the applier.

use std::{ops::Bound, path::Path};

use bytes::Bytes;
use redb::{
    Builder, Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use super::codec::{KeyRange, Malformed, decode_head, split_key, whole_partition};
use super::map::{Map, SortKey};
use super::memory::as_slices;
use crate::{Direction, Place, StoreError};

const ITEMS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("items");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Key in [`META`] of the newest log generation that is in the database.
const APPLIED: &str = "applied";

/// What can go wrong below the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum BaseError {
    #[error(transparent)]
    Database(#[from] redb::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl BaseError {
    /// The database refuses everything since an error of the disk, until it is opened anew.
    pub(super) fn is_for_good(&self) -> bool {
        matches!(self, BaseError::Database(redb::Error::PreviousIo))
    }

    pub(super) fn into_store_error(self, place: Place) -> StoreError {
        match self {
            BaseError::Malformed(error) => StoreError::corrupt(place, error.to_string()),
            BaseError::Database(redb::Error::Corrupted(what)) => StoreError::corrupt(place, what),
            BaseError::Database(error) => StoreError::Unavailable {
                place,
                outcome_unknown: false,
                source: Some(error.into()),
            },
        }
    }
}

macro_rules! from_redb {
    ($($error:ty)*) => {
        $(impl From<$error> for BaseError {
            fn from(error: $error) -> BaseError {
                BaseError::Database(error.into())
            }
        })*
    };
}

from_redb! {
    redb::DatabaseError redb::TransactionError redb::TableError redb::StorageError
    redb::CommitError
}

/// The database, open for writing.
pub(super) struct Base {
    database: Database,
}

/// The database as it was at one moment.
pub(super) struct Snapshot {
    items: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

/// What a look for expired items did.
pub(super) struct Swept {
    pub removed: usize,
    /// The key to go on behind; none = the end was reached.
    pub next: Option<Box<[u8]>>,
}

impl Base {
    /// Creates the database file whole or not at all.
    pub(super) fn create(path: &Path, cache: usize) -> Result<Base, BaseError> {
        let unfinished = path.with_extension("new");
        let io = |error| BaseError::Database(redb::Error::Io(error));
        if unfinished.exists() {
            std::fs::remove_file(&unfinished).map_err(io)?;
        }
        let database = Builder::new().create(&unfinished)?;
        let write = begin(&database)?;
        write.open_table(ITEMS)?;
        write.open_table(META)?.insert(APPLIED, 0)?;
        write.commit()?;
        drop(database);
        std::fs::rename(&unfinished, path).map_err(io)?;
        Base::open(path, cache)
    }

    /// Opens the database with so many bytes of page cache.
    pub(super) fn open(path: &Path, cache: usize) -> Result<Base, BaseError> {
        let database = Builder::new().set_cache_size(cache).open(path)?;
        Ok(Base { database })
    }

    /// A new one on another kind of disk.
    #[cfg(test)]
    pub(super) fn over(disk: impl redb::StorageBackend) -> Result<Base, BaseError> {
        let database = Builder::new().create_with_backend(disk)?;
        let write = begin(&database)?;
        write.open_table(ITEMS)?;
        write.open_table(META)?.insert(APPLIED, 0)?;
        write.commit()?;
        Ok(Base { database })
    }

    /// The newest log generation that is in the database.
    pub(super) fn applied(&self) -> Result<u64, BaseError> {
        let meta = self.database.begin_read()?.open_table(META)?;
        Ok(meta.get(APPLIED)?.map_or(0, |value| value.value()))
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, BaseError> {
        Ok(Snapshot {
            items: self.database.begin_read()?.open_table(ITEMS)?,
        })
    }

    /// Moves a generation of the log into the database. `pace` is called after every
    /// `slice` changes; when it says `false`, nothing is changed.
    pub(super) fn apply(
        &self,
        generation: u64,
        map: &Map,
        slice: usize,
        mut pace: impl FnMut() -> bool,
    ) -> Result<bool, BaseError> {
        let write = begin(&self.database)?;
        {
            let mut items = write.open_table(ITEMS)?;
            let (mut count, mut going_on) = (0, true);
            let failed = |error: redb::StorageError| Some(BaseError::from(error));
            map.try_each(|key, record| {
                match record {
                    Some(record) => drop(items.insert(key, &record[..]).map_err(failed)?),
                    None => drop(items.remove(key).map_err(failed)?),
                }
                count += 1;
                going_on = going_on && (count % slice != 0 || pace());
                if going_on { Ok(()) } else { Err(None) }
            })
            .or_else(|error: Option<BaseError>| error.map_or(Ok(()), Err))?;
            if !going_on {
                return Ok(false);
            }
            write.open_table(META)?.insert(APPLIED, generation)?;
        }
        write.commit()?;
        Ok(true)
    }

    /// Removes the expired among the next `limit` items behind `after`.
    pub(super) fn sweep(
        &self,
        after: Option<&[u8]>,
        limit: usize,
        now_ms: u64,
    ) -> Result<Swept, BaseError> {
        let snapshot = self.snapshot()?;
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec()));
        let range = (start, Bound::Unbounded);
        let (mut expired, mut last, mut seen) = (Vec::new(), None, 0);
        for entry in snapshot.range(&range, Direction::Forward)?.take(limit) {
            let (key, record) = entry?;
            let (head, _) = decode_head(&record)?;
            seen += 1;
            last = Some(key.clone().into_boxed_slice());
            if head.is_expired(now_ms) {
                expired.push(key);
            }
        }
        if !expired.is_empty() {
            let write = begin(&self.database)?;
            {
                let mut items = write.open_table(ITEMS)?;
                for key in &expired {
                    items.remove(&key[..])?;
                }
            }
            write.commit()?;
        }
        Ok(Swept {
            removed: expired.len(),
            next: last.filter(|_| seen == limit),
        })
    }
}

/// A write after which a crash needs no walk through the whole file.
fn begin(database: &Database) -> Result<WriteTransaction, BaseError> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

impl Snapshot {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BaseError> {
        let value = ReadableTable::get(&self.items, key)?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    /// The largest sort key of a partition, given the partition part of its keys.
    pub(super) fn last_sk(&self, partition: &[u8]) -> Result<Option<SortKey>, BaseError> {
        let range = whole_partition(partition);
        let mut range = ReadableTable::range::<&[u8]>(&self.items, as_slices(&range))?;
        let last = range.next_back().transpose()?;
        Ok(last.map(|(key, _)| split_key(key.value()).1.into()))
    }

    /// Keys and records of a range in order.
    pub(super) fn range(
        &self,
        range: &KeyRange,
        direction: Direction,
    ) -> Result<impl Iterator<Item = Result<(Vec<u8>, Bytes), BaseError>> + use<'_>, BaseError>
    {
        let mut range = ReadableTable::range::<&[u8]>(&self.items, as_slices(range))?;
        Ok(std::iter::from_fn(move || {
            let next = match direction {
                Direction::Forward => range.next(),
                Direction::Backward => range.next_back(),
            };
            next.map(|entry| {
                let (key, value) = entry?;
                Ok((key.value().to_vec(), Bytes::copy_from_slice(value.value())))
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{encode_key, encode_record};
    use super::*;
    use crate::{Attrs, Item, Key};
    use cirrus_schema::TableId;

    const NOW_MS: u64 = 1_000_000;

    /// Ten items, the even ones expired.
    fn filled(folder: &Path) -> Base {
        let base = Base::create(&folder.join("tables.redb"), 1_000_000).unwrap();
        let mut map = Map::default();
        for n in 0..10u8 {
            let mut item = Item::new(Key::new(TableId::Cluster, &b"p"[..], vec![n]), Attrs::new());
            if n % 2 == 0 {
                item = item.expiring(NOW_MS / 1_000);
            }
            map.insert(&encode_key(&item.key), Some(encode_record(&item, 0, 1)));
        }
        assert!(base.apply(7, &map, 3, || true).unwrap());
        base
    }

    fn left(base: &Base) -> usize {
        let all = (Bound::Unbounded, Bound::Unbounded);
        base.snapshot()
            .unwrap()
            .range(&all, Direction::Forward)
            .unwrap()
            .count()
    }

    #[test]
    fn expired_items_are_removed_a_few_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let base = filled(folder.path());
        let (mut next, mut steps) = (None, Vec::new());
        loop {
            let swept = base.sweep(next.as_deref(), 4, NOW_MS).unwrap();
            steps.push((swept.removed, left(&base)));
            next = swept.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(steps, [(2, 8), (2, 6), (1, 5)]);
        assert_eq!(base.sweep(None, 100, NOW_MS).unwrap().removed, 0);
    }

    #[test]
    fn a_generation_is_applied_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let base = filled(folder.path());
        let mut map = Map::default();
        for n in 0..10u8 {
            let key = Key::new(TableId::Cluster, &b"p"[..], vec![n]);
            map.insert(&encode_key(&key), None);
        }
        let mut calls = 0;
        let interrupted = base.apply(8, &map, 3, || {
            calls += 1;
            calls < 2
        });
        assert!(!interrupted.unwrap());
        assert_eq!((base.applied().unwrap(), left(&base)), (7, 10));
        assert!(base.apply(8, &map, 3, || true).unwrap());
        assert_eq!((base.applied().unwrap(), left(&base)), (8, 0));
    }

    #[test]
    fn the_last_sort_key_of_a_partition() {
        let folder = tempfile::tempdir().unwrap();
        let base = filled(folder.path());
        let key = encode_key(&Key::new(TableId::Cluster, &b"p"[..], &b"x"[..]));
        let last = |partition: &[u8]| base.snapshot().unwrap().last_sk(partition).unwrap();
        assert_eq!(last(split_key(&key).0), Some(SortKey::from(&[9][..])));
        let other = encode_key(&Key::new(TableId::Cluster, &b"o"[..], &b"x"[..]));
        assert_eq!(last(split_key(&other).0), None);
    }
}
