//! Tables and blobs in memory, for tests and simulations. Nothing outlives the process.
//!
//! One lock over everything, held for the length of one request and never across an await.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cirrus_schema::{BucketId, TableId};

use crate::rules::{Head, Page, Verdict, bounds, decide};
use crate::size::{usage_of_batch, usage_of_conflict, usage_of_read, usage_of_write};
use crate::{
    Answer, Blob, BlobEntry, BlobKey, BlobOp, BlobOutcome, BlobPage, BoxFuture, Clock, Condition,
    Dump, DumpPage, Item, Key, Op, Outcome, Presign, StoreError, Table, check,
};

type Partition = BTreeMap<Bytes, Stored>;

struct Stored {
    item: Item,
    nonce: u128,
}

impl Stored {
    fn head(&self) -> Head {
        let Item {
            version, expires, ..
        } = self.item;
        Head {
            version,
            expires,
            nonce: self.nonce,
        }
    }

    fn size(&self) -> usize {
        self.item.size(self.nonce != 0)
    }
}

/// All tables, in memory. Clones share their content.
#[derive(Clone)]
pub struct MemoryTable {
    partitions: Arc<Mutex<HashMap<(TableId, Bytes), Partition>>>,
    clock: Clock,
}

impl MemoryTable {
    /// Empty tables. `clock` decides what is expired.
    #[must_use]
    pub fn new(clock: Clock) -> MemoryTable {
        MemoryTable {
            partitions: Arc::default(),
            clock,
        }
    }

    /// Carries out a request at once: for simulations, which have no executor.
    #[must_use]
    pub fn apply_now(&self, op: Op) -> Answer {
        if let Err(error) = check::check(&op) {
            return Answer::free(error);
        }
        let now_ms = (self.clock)();
        match op {
            Op::Put {
                item,
                condition,
                nonce,
            } => self.put(item, condition, nonce, now_ms),
            Op::Delete { key, condition } => self.delete(key, condition, now_ms),
            Op::Get { key } => self.get(&key, now_ms),
            Op::Query {
                table,
                pk,
                range,
                direction,
                limit,
                after,
            } => {
                let page = Page::new(limit, now_ms);
                let bounds = bounds(&range, direction, after.as_ref());
                self.query(
                    &(table, pk),
                    bounds,
                    direction == crate::Direction::Backward,
                    page,
                )
            }
            Op::BatchGet { keys } => self.batch_get(&keys, now_ms),
        }
    }

    /// Removes all expired items, as a backend may at any time: nobody can tell.
    pub fn remove_expired(&self) -> usize {
        let now_ms = (self.clock)();
        let mut removed = 0;
        self.lock().retain(|_, partition| {
            let before = partition.len();
            partition.retain(|_, stored| !stored.item.is_expired(now_ms));
            removed += before - partition.len();
            !partition.is_empty()
        });
        removed
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(TableId, Bytes), Partition>> {
        // Nothing panics while it holds the lock, and each change is one insert or remove.
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, item: Item, condition: Condition, nonce: u128, now_ms: u64) -> Answer {
        let mut partitions = self.lock();
        let at = (item.key.table, item.key.pk.clone());
        let partition = partitions.entry(at).or_default();
        let existing = partition.get(&item.key.sk);
        let old = existing.map_or(0, Stored::size);
        let new = item.size(nonce != 0);
        match decide(
            condition,
            nonce,
            existing.map(Stored::head).as_ref(),
            now_ms,
        ) {
            Verdict::Write => {
                partition.insert(item.key.sk.clone(), Stored { item, nonce });
                Answer {
                    result: Ok(Outcome::Put),
                    usage: usage_of_write(old, new),
                }
            }
            Verdict::Already => Answer {
                result: Ok(Outcome::Put),
                usage: usage_of_conflict(old, new),
            },
            Verdict::Conflict => conflict(item.key, existing, new, now_ms),
        }
    }

    fn delete(&self, key: Key, condition: Condition, now_ms: u64) -> Answer {
        let mut partitions = self.lock();
        let Some(partition) = partitions.get_mut(&(key.table, key.pk.clone())) else {
            return match condition {
                Condition::Any => Answer {
                    result: Ok(Outcome::Deleted),
                    usage: usage_of_write(0, 0),
                },
                _ => conflict(key, None, 0, now_ms),
            };
        };
        let existing = partition.get(&key.sk);
        let old = existing.map_or(0, Stored::size);
        match decide(condition, 0, existing.map(Stored::head).as_ref(), now_ms) {
            Verdict::Write | Verdict::Already => {
                partition.remove(&key.sk);
                Answer {
                    result: Ok(Outcome::Deleted),
                    usage: usage_of_write(old, 0),
                }
            }
            Verdict::Conflict => conflict(key, existing, 0, now_ms),
        }
    }

    fn get(&self, key: &Key, now_ms: u64) -> Answer {
        let partitions = self.lock();
        let stored = find(&partitions, key);
        let usage = usage_of_read(stored.map_or(0, Stored::size));
        let item = stored
            .map(|stored| &stored.item)
            .filter(|item| !item.is_expired(now_ms));
        Answer {
            result: Ok(Outcome::Item(item.cloned())),
            usage,
        }
    }

    fn query(
        &self,
        at: &(TableId, Bytes),
        bounds: Option<(Bound<Bytes>, Bound<Bytes>)>,
        backward: bool,
        mut page: Page,
    ) -> Answer {
        let partitions = self.lock();
        if let (Some(partition), Some(bounds)) = (partitions.get(at), bounds) {
            let mut range = partition.range(bounds);
            let next = || {
                if backward {
                    range.next_back()
                } else {
                    range.next()
                }
            };
            for (_, stored) in std::iter::from_fn(next) {
                if !page.push(stored.item.clone(), stored.size()) {
                    break;
                }
            }
        }
        let (items, next, bytes) = page.finish();
        Answer {
            result: Ok(Outcome::Page { items, next }),
            usage: usage_of_read(bytes),
        }
    }

    fn batch_get(&self, keys: &[Key], now_ms: u64) -> Answer {
        let partitions = self.lock();
        let found = keys.iter().map(|key| find(&partitions, key));
        let found: Vec<Option<&Stored>> = found.collect();
        let usage = usage_of_batch(
            keys.iter()
                .zip(&found)
                .map(|(key, stored)| (key, stored.map_or(0, Stored::size))),
        );
        let items = found.into_iter().flatten().map(|stored| &stored.item);
        let items = items
            .filter(|item| !item.is_expired(now_ms))
            .cloned()
            .collect();
        Answer {
            result: Ok(Outcome::Items(items)),
            usage,
        }
    }
}

fn find<'a>(partitions: &'a HashMap<(TableId, Bytes), Partition>, key: &Key) -> Option<&'a Stored> {
    partitions.get(&(key.table, key.pk.clone()))?.get(&key.sk)
}

fn conflict(key: Key, existing: Option<&Stored>, new: usize, now_ms: u64) -> Answer {
    let usage = usage_of_conflict(existing.map_or(0, Stored::size), new);
    let alive = existing
        .map(|stored| &stored.item)
        .filter(|item| !item.is_expired(now_ms));
    let existing = alive.cloned().map(Box::new);
    Answer {
        result: Err(StoreError::Conflict { key, existing }),
        usage,
    }
}

impl Table for MemoryTable {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_now(op).result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move { self.apply_now(op) })
    }
}

impl Dump for MemoryTable {
    fn dump(
        &self,
        table: TableId,
        _after: Option<Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>> {
        Box::pin(async move {
            let now_ms = (self.clock)();
            let partitions = self.lock();
            let of_table = partitions.iter().filter(|((id, _), _)| *id == table);
            let items = of_table.flat_map(|(_, partition)| partition.values());
            let items = items
                .map(|stored| &stored.item)
                .filter(|item| !item.is_expired(now_ms));
            Ok(DumpPage {
                items: items.cloned().collect(),
                next: None,
            })
        })
    }
}

/// All buckets, in memory. Clones share their content.
#[derive(Clone, Default)]
pub struct MemoryBlob {
    blobs: Arc<Mutex<BTreeMap<BlobKey, Kept>>>,
    clock: Option<Clock>,
}

/// A blob, and when it was written.
struct Kept {
    body: Bytes,
    modified: Option<u64>,
}

impl MemoryBlob {
    /// Empty buckets.
    #[must_use]
    pub fn new() -> MemoryBlob {
        MemoryBlob::default()
    }

    /// Empty buckets that know when a blob was written.
    #[must_use]
    pub fn timed(clock: Clock) -> MemoryBlob {
        MemoryBlob {
            clock: Some(clock),
            ..MemoryBlob::default()
        }
    }

    /// Carries out a request at once: for simulations, which have no executor.
    ///
    /// # Errors
    /// Only those of a request that breaks a limit.
    pub fn apply_now(&self, op: BlobOp) -> Result<BlobOutcome, StoreError> {
        check::check_blob(&op)?;
        let modified = self.clock.as_ref().map(|clock| clock());
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match op {
            BlobOp::Put { at, body, .. } => {
                blobs.insert(at, Kept { body, modified });
                BlobOutcome::Put(true)
            }
            BlobOp::PutIfAbsent { at, body } => {
                let absent = !blobs.contains_key(&at);
                if absent {
                    blobs.insert(at, Kept { body, modified });
                }
                BlobOutcome::Put(absent)
            }
            BlobOp::Get { at, range } => {
                BlobOutcome::Body(blobs.get(&at).map(|kept| cut(&kept.body, range)))
            }
            BlobOp::Delete { at } => {
                blobs.remove(&at);
                BlobOutcome::Deleted
            }
            BlobOp::List {
                bucket,
                prefix,
                after,
                limit,
            } => BlobOutcome::Page(list(&blobs, bucket, &prefix, after, limit as usize)),
        })
    }
}

fn cut(body: &Bytes, range: Option<std::ops::Range<u64>>) -> Bytes {
    let Some(range) = range else {
        return body.clone();
    };
    let clip = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
    body.slice(clip(range.start)..clip(range.end))
}

fn list(
    blobs: &BTreeMap<BlobKey, Kept>,
    bucket: BucketId,
    prefix: &str,
    after: Option<String>,
    limit: usize,
) -> BlobPage {
    let start = match after {
        Some(name) if name.as_str() >= prefix => Bound::Excluded(BlobKey::new(bucket, name)),
        _ => Bound::Included(BlobKey::new(bucket, prefix)),
    };
    let mut names = blobs
        .range((start, Bound::Unbounded))
        .take_while(|(at, _)| at.bucket == bucket && at.name.starts_with(prefix));
    let entry = |(at, kept): (&BlobKey, &Kept)| BlobEntry {
        name: at.name.clone(),
        length: kept.body.len() as u64,
        modified: kept.modified,
    };
    let page: Vec<BlobEntry> = names.by_ref().take(limit).map(entry).collect();
    let next = names
        .next()
        .and_then(|_| page.last())
        .map(|blob| blob.name.clone());
    BlobPage { blobs: page, next }
}

impl Blob for MemoryBlob {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        Box::pin(async move { self.apply_now(op) })
    }

    fn presign(
        &self,
        _at: BlobKey,
        _what: Presign,
        _valid: Duration,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        Box::pin(async { Ok(None) })
    }
}
