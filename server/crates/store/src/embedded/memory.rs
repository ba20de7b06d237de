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
            let active = layers.active.copy(scope, direction, limit)?;
            (active, layers.sealed.clone(), Arc::clone(&layers.snapshot))
        };
        let sealed = match sealed {
            Some(sealed) => sealed.map.copy(scope, direction, limit)?,
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
