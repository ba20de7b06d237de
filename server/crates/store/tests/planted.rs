//! The contract suite finds faults that are planted in a backend, each by a named case.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cirrus_store::contract::{self, Subject, TestClock};
use cirrus_store::fault::{Faults, Faulty};
use cirrus_store::{
    Blob, BlobKey, BlobOp, BlobOutcome, BoxFuture, Clock, Condition, Deadline, MemoryBlob,
    MemoryTable, Op, Outcome, Presign, StoreError, Table,
};

const DEADLINE: Duration = Duration::from_millis(300);

/// A bug of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Conditions are not looked at.
    LostCondition,
    /// A query says that it ends with its first page.
    DroppedPage,
    /// A page starts with the item at the token, not behind it.
    RepeatedItem,
    /// Expired items are returned.
    ExpiredReturned,
    /// A put that failed on its own success is a conflict.
    NonceIgnored,
    /// The sort order is that of the reversed direction.
    DirectionIgnored,
    /// A blob that exists is overwritten by put-if-absent.
    BlobOverwritten,
}

#[derive(Clone)]
struct Buggy<T> {
    inner: T,
    bug: Bug,
}

impl<T> Buggy<T> {
    fn spoil(&self, op: &mut Op) {
        match (self.bug, op) {
            (Bug::LostCondition, Op::Put { condition, .. } | Op::Delete { condition, .. }) => {
                *condition = Condition::Any;
            }
            (Bug::NonceIgnored, Op::Put { nonce, .. }) => *nonce = 0,
            (Bug::DirectionIgnored, Op::Query { direction, .. }) => {
                *direction = cirrus_store::Direction::Forward;
            }
            (
                Bug::RepeatedItem,
                Op::Query {
                    after: Some(sk), ..
                },
            ) => {
                let shorter = sk.slice(..sk.len() - 1);
                *sk = if shorter.is_empty() {
                    Bytes::from_static(b"\0")
                } else {
                    shorter
                };
            }
            _ => {}
        }
    }
}

impl<T: Table> Table for Buggy<T> {
    fn apply(&self, mut op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            self.spoil(&mut op);
            let mut outcome = self.inner.apply(op).await;
            if let (Bug::DroppedPage, Ok(Outcome::Page { next, .. })) = (self.bug, &mut outcome) {
                *next = None;
            }
            outcome
        })
    }
}

impl<T: Blob> Blob for Buggy<T> {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        let op = match op {
            BlobOp::PutIfAbsent { at, body } if self.bug == Bug::BlobOverwritten => BlobOp::Put {
                at,
                body,
                content_type: None,
            },
            other => other,
        };
        self.inner.apply(op)
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

async fn red(bug: Bug) -> Vec<&'static str> {
    let (clock, faults) = (TestClock::default(), Faults::none());
    let stopped: Clock = Arc::new(|| contract::START_MS);
    let expires = bug != Bug::ExpiredReturned;
    let memory = MemoryTable::new(if expires { clock.as_clock() } else { stopped });
    let table = Buggy {
        inner: Faulty::new(memory.clone(), faults.clone()),
        bug,
    };
    let blob = Buggy {
        inner: Faulty::new(MemoryBlob::new(), faults.clone()),
        bug,
    };
    let subject = Subject {
        dump: Arc::new(memory),
        table: Arc::new(Deadline::new(table, DEADLINE)),
        blob: Arc::new(Deadline::new(blob, DEADLINE)),
        clock,
        faults,
        attempts: 1,
        run: 1,
    };
    contract::run(&subject).await.red()
}

#[tokio::test]
async fn each_planted_bug_turns_a_named_case_red() {
    for (bug, case) in [
        (Bug::LostCondition, "conditions/put_if_absent"),
        (Bug::DroppedPage, "ranges/pages_forward"),
        (Bug::RepeatedItem, "ranges/pages_forward"),
        (Bug::ExpiredReturned, "expiry/absent_to_reads"),
        (Bug::NonceIgnored, "failures/success_behind_a_timeout"),
        (Bug::DirectionIgnored, "ranges/pages_backward"),
        (Bug::BlobOverwritten, "blobs/put_if_absent"),
    ] {
        let red = red(bug).await;
        println!("{bug:?}: {red:?}");
        assert!(
            red.contains(&case),
            "{bug:?}: {case} is green, red are {red:?}"
        );
    }
}
