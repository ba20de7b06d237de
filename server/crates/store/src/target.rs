//! What a request is for, without its content: the unit of bills, metrics and planned faults.

use cirrus_schema::{BucketId, TableId};

use crate::{BlobKind, BlobOp, Op, RequestKind};

/// Kind of request and table or bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A table.
    Table(RequestKind, TableId),
    /// A bucket.
    Blob(BlobKind, BucketId),
}

impl Target {
    /// That of a table request; an empty batch, which asks for nothing, has none.
    #[must_use]
    pub fn of(op: &Op) -> Option<Target> {
        op.table().map(|table| Target::Table(op.kind(), table))
    }

    /// That of a blob request.
    #[must_use]
    pub fn of_blob(op: &BlobOp) -> Target {
        Target::Blob(op.kind(), op.bucket())
    }

    /// Whether the request can change something.
    #[must_use]
    pub fn is_write(self) -> bool {
        match self {
            Target::Table(kind, _) => kind.is_write(),
            Target::Blob(kind, _) => matches!(kind, BlobKind::Put | BlobKind::Delete),
        }
    }

    /// Name of the kind, for metrics.
    #[must_use]
    pub fn kind_name(self) -> &'static str {
        match self {
            Target::Table(kind, _) => kind.name(),
            Target::Blob(kind, _) => kind.name(),
        }
    }

    /// Name of the table or bucket, for metrics.
    #[must_use]
    pub fn place_name(self) -> &'static str {
        match self {
            Target::Table(_, table) => table.name(),
            Target::Blob(_, bucket) => bucket.name(),
        }
    }

    /// Every target.
    pub fn all() -> impl Iterator<Item = Target> {
        let tables = TableId::ALL.into_iter().flat_map(|table| {
            RequestKind::ALL
                .into_iter()
                .map(move |kind| Target::Table(kind, table))
        });
        let blobs = BucketId::ALL.into_iter().flat_map(|bucket| {
            BlobKind::ALL
                .into_iter()
                .map(move |kind| Target::Blob(kind, bucket))
        });
        tables.chain(blobs)
    }

    /// Its place in [`Target::all`].
    pub(crate) fn index(self) -> usize {
        // Both enumerations count from 0 in the order of their `ALL`.
        match self {
            Target::Table(kind, table) => table as usize * RequestKind::ALL.len() + kind as usize,
            Target::Blob(kind, bucket) => {
                let tables = TableId::ALL.len() * RequestKind::ALL.len();
                tables + bucket as usize * BlobKind::ALL.len() + kind as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_place() {
        for (at, target) in Target::all().enumerate() {
            assert_eq!(target.index(), at, "{target:?}");
        }
    }
}
