use std::time::Duration;

use cirrus_router::AccountRequest;
use cirrus_schema::{BucketId, TableId};
use cirrus_store::{Attrs, BlobKey, BoxFuture, Condition, Item, Key, MemoryBlob};
use tokio::sync::Semaphore;

use super::*;
use crate::Change;

/// Answers writes at once, and a read for each permit.
struct Slow(Arc<Semaphore>);

impl Table for Slow {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move {
            if matches!(op, Op::Put { .. }) {
                return Ok(Outcome::Put);
            }
            self.0.acquire().await.unwrap().forget();
            Ok(Outcome::Item(None))
        })
    }
}

struct NoChanges;

impl Accounts for NoChanges {
    fn change(&self, _: AccountRequest) -> Change<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// Makes a change for each permit.
struct SlowChanges(Arc<Semaphore>);

impl Accounts for SlowChanges {
    fn change(&self, _: AccountRequest) -> Change<'_> {
        Box::pin(async {
            self.0.acquire().await.unwrap().forget();
            Ok(())
        })
    }
}

fn key() -> Key {
    Key::new(TableId::Rosters, "pk", "sk")
}

fn read() -> Ask {
    Ask::Store(Op::Get { key: key() })
}

fn write() -> Ask {
    Ask::Store(Op::Put {
        item: Item::new(key(), Attrs::default()),
        condition: Condition::Any,
        nonce: 0,
    })
}

/// The token of the next answer.
async fn next(lanes: &mut Lanes, done: &mut mpsc::Receiver<Done>) -> Token {
    match done.recv().await {
        Some(Done::Slot(_, token, _, lane)) => {
            lanes.answered(lane);
            token
        }
        _ => panic!("no answer of a slot"),
    }
}

fn options() -> Options {
    Options {
        inbox: 1,
        operations: 1,
        reads: 2,
        reads_waiting: 2,
        blob_operations: 1,
        blob_deadline: Duration::from_secs(1),
        shutdown: Duration::from_secs(1),
        park: Duration::from_secs(1),
        replica: cirrus_replica::Options::default(),
        spread: None,
        newest: cirrus_router::codec::FORMAT,
    }
}

#[tokio::test]
async fn many_reads_hold_up_no_write() {
    let permits = Arc::new(Semaphore::new(0));
    let options = options();
    let (tell, mut done) = answers(&options);
    let stores = (
        Arc::new(Slow(Arc::clone(&permits))) as _,
        Arc::new(MemoryBlob::new()) as _,
    );
    let mut lanes = Lanes::new(stores, Arc::new(NoChanges), options, tell);
    for token in 1..=4 {
        assert!(lanes.ask(0, token, read()).is_none());
    }
    assert_eq!((lanes.reads, lanes.reads_waiting()), (2, 2));
    assert!(!lanes.is_full(), "others are heard all the same");
    let refused = lanes.ask(0, 5, read());
    let throttled = Answered::Store(Err(StoreError::Throttled {
        place: Op::Get { key: key() }.place(),
        source: None,
    }));
    assert_eq!(format!("{refused:?}"), format!("{:?}", Some(throttled)));
    assert_eq!(lanes.reads_refused, 1);

    for token in 6..=7 {
        assert!(lanes.ask(0, token, write()).is_none());
    }
    assert!(lanes.is_full(), "one write waits");
    assert_eq!(next(&mut lanes, &mut done).await, 6);
    assert_eq!(next(&mut lanes, &mut done).await, 7);
    assert_eq!((lanes.reads, lanes.reads_waiting()), (2, 2));

    permits.add_permits(4);
    let mut read = Vec::new();
    for _ in 0..4 {
        read.push(next(&mut lanes, &mut done).await);
    }
    read.sort_unstable();
    assert_eq!(read, [1, 2, 3, 4]);
    assert!(lanes.is_empty());
}

/// The task is busy for a while, and everything that may be under way is answered meanwhile.
#[tokio::test]
async fn every_answer_has_a_place() {
    let options = Options {
        operations: 2,
        blob_operations: 64,
        ..options()
    };
    let (tell, mut done) = answers(&options);
    let stores = (
        Arc::new(Slow(Arc::new(Semaphore::new(2)))) as _,
        Arc::new(MemoryBlob::new()) as _,
    );
    let mut lanes = Lanes::new(stores, Arc::new(NoChanges), options, tell);
    for token in 0..64 {
        let at = BlobKey::new(BucketId::Data, "name");
        let ask = Ask::Blob(BlobOp::Delete { at });
        assert!(lanes.ask(0, token, ask).is_none());
    }
    while done.len() < 64 && done.capacity() > 0 {
        tokio::task::yield_now().await;
    }
    for (token, ask) in (64..).zip([write(), write(), read(), read()]) {
        assert!(lanes.ask(0, token, ask).is_none());
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut answered = Vec::new();
    for _ in 0..68 {
        let next = tokio::time::timeout(Duration::from_secs(5), next(&mut lanes, &mut done));
        answered.push(next.await.expect("an answer is lost"));
    }
    answered.sort_unstable();
    assert_eq!(answered, Vec::from_iter(0..68));
    assert!(lanes.is_empty());
}

/// A deletion that waits for homes, whose writes wait behind it, would wait for ever.
#[tokio::test]
async fn changes_of_accounts_hold_up_no_write() {
    let permits = Arc::new(Semaphore::new(0));
    let options = options();
    let (tell, mut done) = answers(&options);
    let stores = (
        Arc::new(Slow(Arc::clone(&permits))) as _,
        Arc::new(MemoryBlob::new()) as _,
    );
    let accounts = Arc::new(SlowChanges(Arc::clone(&permits)));
    let mut lanes = Lanes::new(stores, accounts, options, tell);
    for token in 1..=2 {
        let user = cirrus_jid::BareJid::parse("juliet@example.com").unwrap();
        let change = Ask::Account(AccountRequest::Remove { user });
        assert!(lanes.ask(0, token, change).is_none());
    }
    assert!(!lanes.is_full(), "others are heard all the same");
    assert!(lanes.ask(0, 3, write()).is_none());
    assert_eq!(next(&mut lanes, &mut done).await, 3);
    permits.add_permits(2);
    assert_eq!(next(&mut lanes, &mut done).await, 1);
    assert_eq!(next(&mut lanes, &mut done).await, 2);
    assert!(lanes.is_empty());
}
