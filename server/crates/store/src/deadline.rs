//! A layer that gives up on a request after a time.
//!
//! The AWS backends have a deadline of their own. The embedded one answers when the disk does:
//! with this in front, a disk that hangs is an error to the one concerned.

use std::time::Duration;

use cirrus_schema::TableId;

use crate::{
    Answer, Blob, BlobKey, BlobOp, BlobOutcome, BoxFuture, Dump, DumpPage, Op, Outcome, Presign,
    StoreError, Table, Usage,
};

/// A store whose requests end after a time at the latest, then with an unknown outcome.
#[derive(Debug, Clone)]
pub struct Deadline<T> {
    inner: T,
    limit: Duration,
}

impl<T> Deadline<T> {
    /// Gives each request to `inner` this time.
    pub fn new(inner: T, limit: Duration) -> Deadline<T> {
        Deadline { inner, limit }
    }
}

impl<T: Table> Table for Deadline<T> {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_counted(op).await.result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let place = op.place();
            let answer = tokio::time::timeout(self.limit, self.inner.apply_counted(op)).await;
            answer.unwrap_or_else(|_| Answer {
                result: Err(StoreError::Timeout {
                    place,
                    source: None,
                }),
                usage: Usage {
                    requests: 1,
                    ..Usage::default()
                },
            })
        })
    }
}

impl<T: Dump> Dump for Deadline<T> {
    fn dump(
        &self,
        table: TableId,
        after: Option<bytes::Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>> {
        self.inner.dump(table, after)
    }
}

impl<T: Blob> Blob for Deadline<T> {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        Box::pin(async move {
            let place = op.place();
            let answer = tokio::time::timeout(self.limit, self.inner.apply(op)).await;
            answer.unwrap_or(Err(StoreError::Timeout {
                place,
                source: None,
            }))
        })
    }

    fn presign(
        &self,
        at: BlobKey,
        what: Presign,
        valid: Duration,
    ) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        self.inner.presign(at, what, valid)
    }
}
