//! The trait of tables.

use std::sync::Arc;

use bytes::Bytes;
use cirrus_schema::TableId;

use crate::{BoxFuture, Condition, Direction, Item, Key, Op, Outcome, SkRange, StoreError, size};

/// What one request cost, by the provider's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Requests sent. More than one for a batch that the provider answered in parts, 0 for a
    /// request that was refused before it was sent.
    pub requests: u32,
    /// Write units.
    pub write_units: u32,
    /// Read units, strongly consistent.
    pub read_units: u32,
    /// Bytes of items written.
    pub written: u64,
    /// Bytes of items read.
    pub read: u64,
}

/// Outcome and cost of a request.
#[derive(Debug)]
pub struct Answer {
    /// What happened.
    pub result: Result<Outcome, StoreError>,
    /// What it cost, also when it failed.
    pub usage: Usage,
}

impl Answer {
    /// A request that was refused and cost nothing.
    #[must_use]
    pub fn free(error: StoreError) -> Answer {
        Answer {
            result: Err(error),
            usage: Usage::default(),
        }
    }
}

/// Takes the answer to a submitted request. It is called once, on any thread, and must be short: it
/// may hold up the writes of others.
pub type Done = Box<dyn FnOnce(Answer) + Send>;

/// Items under (partition, sort) with conditional writes; see the crate's head.
///
/// A write is durable when its outcome is there. Dropping the future of a request neither cancels
/// nor completes it: a write then has an unknown outcome.
pub trait Table: Send + Sync {
    /// Carries out one request.
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>>;

    /// As [`Table::apply`], with what it cost. A backend that knows more than request and outcome
    /// tell (an overwritten item's size, what the provider reports) overrides this.
    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        let asked = size::Asked::of(&op);
        let result = self.apply(op);
        Box::pin(async move {
            let result = result.await;
            Answer {
                usage: asked.usage(&result),
                result,
            }
        })
    }

    /// As [`Table::apply_counted`], with the answer given to a function: for a caller that has many
    /// requests under way and collects their answers in one place. Saves a task and two wake-ups
    /// per request where the backend can call from its own thread. To be called on a runtime.
    fn submit(self: Arc<Self>, op: Op, done: Done)
    where
        Self: 'static,
    {
        tokio::spawn(async move { done(self.apply_counted(op).await) });
    }
}

impl<T: Table + ?Sized> Table for Arc<T> {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        (**self).apply(op)
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        (**self).apply_counted(op)
    }

    fn submit(self: Arc<Self>, op: Op, done: Done)
    where
        Self: 'static,
    {
        Arc::clone(&*self).submit(op, done);
    }
}

/// Shorter ways to ask a table, for those who need not handle every [`Outcome`].
impl dyn Table + '_ {
    /// [`Op::Get`].
    ///
    /// # Errors
    /// As [`Table::apply`].
    pub async fn get(&self, key: impl Into<Key>) -> Result<Option<Item>, StoreError> {
        match self.apply(Op::Get { key: key.into() }).await? {
            Outcome::Item(item) => Ok(item),
            other => Err(unexpected(&other)),
        }
    }

    /// [`Op::Put`].
    ///
    /// # Errors
    /// As [`Table::apply`].
    pub async fn put(
        &self,
        item: Item,
        condition: Condition,
        nonce: u128,
    ) -> Result<(), StoreError> {
        self.apply(Op::Put {
            item,
            condition,
            nonce,
        })
        .await
        .map(drop)
    }

    /// [`Op::Delete`].
    ///
    /// # Errors
    /// As [`Table::apply`].
    pub async fn delete(
        &self,
        key: impl Into<Key>,
        condition: Condition,
    ) -> Result<(), StoreError> {
        self.apply(Op::Delete {
            key: key.into(),
            condition,
        })
        .await
        .map(drop)
    }

    /// All items of a range in ascending order, page after page: one request per page. Only for
    /// ranges that are small by construction, since all of it is held in memory.
    ///
    /// # Errors
    /// As [`Table::apply`].
    pub async fn query_all(
        &self,
        table: TableId,
        pk: impl Into<Bytes>,
        range: SkRange,
    ) -> Result<Vec<Item>, StoreError> {
        let (pk, mut all, mut after) = (pk.into(), Vec::new(), None);
        loop {
            let op = Op::Query {
                table,
                pk: pk.clone(),
                range: range.clone(),
                direction: Direction::Forward,
                limit: None,
                after: after.take(),
            };
            match self.apply(op).await? {
                Outcome::Page { items, next } => {
                    all.extend(items);
                    match next {
                        Some(sk) => after = Some(sk),
                        None => return Ok(all),
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }
}

fn unexpected(outcome: &Outcome) -> StoreError {
    let kind = match outcome {
        Outcome::Put => "put",
        Outcome::Deleted => "deleted",
        Outcome::Item(_) => "item",
        Outcome::Page { .. } => "page",
        Outcome::Items(_) => "items",
    };
    let place = crate::Place::Table(TableId::Cluster);
    StoreError::corrupt(
        place,
        format!("the backend answered another request ({kind})"),
    )
}
