//! Requests to a table and their outcomes.

use bytes::Bytes;
use cirrus_schema::TableId;
use serde::{Deserialize, Serialize};

use crate::{Item, Key, Place};

/// What must hold for a write to happen. An expired item counts as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    Any,
    /// There is no item under the key. Only for puts.
    Absent,
    /// There is an item with this version (0: an item without one).
    Version(u64),
}

/// Which sort keys of a partition a query returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SkRange {
    /// All.
    All,
    /// Those that start with these bytes.
    Prefix(#[serde(with = "crate::raw")] Bytes),
    /// This one and those after it.
    From(#[serde(with = "crate::raw")] Bytes),
    /// This one and those before it.
    To(#[serde(with = "crate::raw")] Bytes),
    /// From the first to the second, both included; none if they are in the wrong order.
    Between(
        #[serde(with = "crate::raw")] Bytes,
        #[serde(with = "crate::raw")] Bytes,
    ),
}

impl SkRange {
    /// Whether the range has this sort key.
    #[must_use]
    pub fn contains(&self, sk: &[u8]) -> bool {
        match self {
            SkRange::All => true,
            SkRange::Prefix(prefix) => sk.starts_with(prefix),
            SkRange::From(first) => sk >= &first[..],
            SkRange::To(last) => sk <= &last[..],
            SkRange::Between(first, last) => sk >= &first[..] && sk <= &last[..],
        }
    }
}

/// In which order a query returns items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Smallest sort key first.
    Forward,
    /// Largest sort key first.
    Backward,
}

/// One request to a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Writes an item in place of one with the same key.
    Put {
        /// What to write.
        item: Item,
        /// When to write it.
        condition: Condition,
        /// A random number of this write, the same when the write is tried again: a write whose
        /// condition fails because an earlier try of it succeeded unseen, succeeds. 0 = none is
        /// stored (17 bytes less), for writes without condition.
        nonce: u128,
    },
    /// Removes an item. Without condition, removing an absent item succeeds.
    ///
    /// A delete on a version that is tried again after an unknown outcome may report a conflict
    /// with no existing item: the caller knows whether that is its own doing.
    Delete {
        /// What to remove.
        key: Key,
        /// When to remove it.
        condition: Condition,
    },
    /// Reads one item.
    Get {
        /// Which.
        key: Key,
    },
    /// Reads a page of a partition.
    Query {
        /// The table.
        table: TableId,
        /// The partition.
        #[serde(with = "crate::raw")]
        pk: Bytes,
        /// Which items of it.
        range: SkRange,
        /// In which order.
        direction: Direction,
        /// Most items in the page; `None` = as many as a page holds
        /// ([`MAX_PAGE`](crate::limits::MAX_PAGE) bytes).
        limit: Option<u32>,
        /// The sort key after which (in the query's direction) the page starts: `next` of the page
        /// before, or any other. It need not be in the range, and no item need exist under it.
        #[serde(with = "crate::raw")]
        after: Option<Bytes>,
    },
    /// Reads up to [`MAX_BATCH`](crate::limits::MAX_BATCH) items of one table. A key that is given
    /// twice is answered twice.
    BatchGet {
        /// Which.
        keys: Vec<Key>,
    },
}

/// What a request did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The item is written, and durable.
    Put,
    /// The item is gone, durably.
    Deleted,
    /// The item, unless it is absent or expired.
    Item(Option<Item>),
    /// A page of a query.
    Page {
        /// The items in the query's order. There may be fewer than the limit, even none, while
        /// `next` says that there is more: expired items count towards the limit.
        items: Vec<Item>,
        /// The sort key to continue after; `None` = this was the last page.
        #[serde(with = "crate::raw")]
        next: Option<Bytes>,
    },
    /// The items of a batch that exist, in the order of the keys asked for.
    Items(Vec<Item>),
}

/// The kind of a request, as the provider bills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RequestKind {
    /// [`Op::Put`].
    Put,
    /// [`Op::Delete`].
    Delete,
    /// [`Op::Get`].
    Get,
    /// [`Op::Query`].
    Query,
    /// [`Op::BatchGet`].
    BatchGet,
}

impl RequestKind {
    /// Every kind.
    pub const ALL: [RequestKind; 5] = [
        RequestKind::Put,
        RequestKind::Delete,
        RequestKind::Get,
        RequestKind::Query,
        RequestKind::BatchGet,
    ];

    /// A short name for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RequestKind::Put => "put",
            RequestKind::Delete => "delete",
            RequestKind::Get => "get",
            RequestKind::Query => "query",
            RequestKind::BatchGet => "batch_get",
        }
    }

    /// Whether the request can change something.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, RequestKind::Put | RequestKind::Delete)
    }
}

impl Op {
    /// The kind of the request.
    #[must_use]
    pub fn kind(&self) -> RequestKind {
        match self {
            Op::Put { .. } => RequestKind::Put,
            Op::Delete { .. } => RequestKind::Delete,
            Op::Get { .. } => RequestKind::Get,
            Op::Query { .. } => RequestKind::Query,
            Op::BatchGet { .. } => RequestKind::BatchGet,
        }
    }

    /// The table that the request is for; of an empty batch, none.
    #[must_use]
    pub fn table(&self) -> Option<TableId> {
        match self {
            Op::Put { item, .. } => Some(item.key.table),
            Op::Delete { key, .. } | Op::Get { key } => Some(key.table),
            Op::Query { table, .. } => Some(*table),
            Op::BatchGet { keys } => keys.first().map(|key| key.table),
        }
    }

    /// What an error of this request is about.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Op::Put { item, .. } => Place::Item(item.key.clone()),
            Op::Delete { key, .. } | Op::Get { key } => Place::Item(key.clone()),
            Op::Query { table, pk, .. } => Place::Partition(*table, pk.clone()),
            Op::BatchGet { keys } => {
                Place::Table(keys.first().map_or(TableId::Cluster, |key| key.table))
            }
        }
    }
}
