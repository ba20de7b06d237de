//! A store that can't cope, and one that can again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::*;
use crate::{Direction, Key, SkRange};

type Asked = Result<Outcome, StoreError>;

/// Answers one request after the other, and works for those who have stopped waiting too.
struct Slow {
    each: AtomicU64,
    free_at: Mutex<Option<Instant>>,
    patience: Duration,
    logins: AtomicUsize,
}

impl Slow {
    fn new(each: u64) -> Arc<Slow> {
        Arc::new(Slow {
            each: AtomicU64::new(each),
            free_at: Mutex::default(),
            patience: Duration::from_secs(2),
            logins: AtomicUsize::new(0),
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' own, paused clock")]
fn now() -> Instant {
    Instant::now()
}

impl Table for Slow {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        if matches!(op, Op::Query { .. }) {
            self.logins.fetch_add(1, Ordering::Relaxed);
        }
        let answer = {
            let mut free = self.free_at.lock().unwrap();
            let at = free.unwrap_or_else(now).max(now());
            let each = Duration::from_millis(self.each.load(Ordering::Relaxed));
            let at = at + each;
            *free = Some(at);
            at
        };
        Box::pin(async move {
            let place = op.place();
            match timeout(self.patience, sleep_until(answer)).await {
                Ok(()) => Ok(Outcome::Item(None)),
                Err(_) => Err(StoreError::Timeout {
                    place,
                    source: None,
                }),
            }
        })
    }
}

fn pace(most: usize) -> Pace {
    Pace {
        most,
        waiting: 100_000,
        slow: Duration::from_millis(500),
        patience: Duration::from_secs(10),
    }
}

fn paced<T: Table>(inner: &Arc<T>, pace: Pace) -> Arc<Paced<T>> {
    let start = now();
    let clock: Monotonic = Arc::new(move || now() - start);
    Arc::new(Paced::new(Arc::clone(inner), pace, clock))
}

fn key(table: TableId) -> Key {
    Key {
        table,
        pk: Bytes::from_static(b"a"),
        sk: Bytes::from_static(b"b"),
    }
}

fn get(table: TableId) -> Op {
    Op::Get { key: key(table) }
}

fn login() -> Op {
    Op::Query {
        table: TableId::Accounts,
        pk: Bytes::from_static(b"a"),
        range: SkRange::All,
        direction: Direction::Forward,
        limit: Some(1),
        after: None,
    }
}

/// People who log in at the same time: once each.
fn at_once(table: &Arc<Paced<Slow>>, people: usize) -> Vec<JoinHandle<Asked>> {
    let one = |_| {
        let table = Arc::clone(table);
        tokio::spawn(async move { table.apply(login()).await })
    };
    (0..people).map(one).collect()
}

/// Everybody asks again until there is an answer; says how long that took for the last one.
async fn all_served(table: Arc<dyn Table>, people: usize, limit: Duration) -> Option<Duration> {
    let start = now();
    let tries = Arc::new(AtomicU64::new(0));
    let all: Vec<_> = (0..people)
        .map(|_| {
            let (table, tries) = (Arc::clone(&table), Arc::clone(&tries));
            tokio::spawn(async move {
                while table.apply(login()).await.is_err() {
                    tries.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let done = async {
        for one in all {
            one.await.unwrap();
        }
    };
    timeout(limit, done).await.ok().map(|()| now() - start)
}

#[tokio::test(start_paused = true)]
async fn thousands_who_ask_at_once_are_served_one_after_the_other() {
    // 4,000 requests of 5 ms are 20 s of work, and nobody waits longer than 2 s for an answer.
    let limit = Duration::from_secs(60);
    assert_eq!(all_served(Slow::new(5), 4_000, limit).await, None);
    let slow = Slow::new(5);
    let took = all_served(paced(&slow, pace(256)), 4_000, limit).await;
    assert!(took.unwrap() < Duration::from_secs(30), "{took:?}");
    // Little was asked for in vain.
    assert!(
        slow.logins.load(Ordering::Relaxed) < 4_800,
        "{:?}",
        slow.logins
    );
}

/// Those who log in give up sooner than the server, which does not see it and reads their accounts
/// all the same, and come again.
#[tokio::test(start_paused = true)]
async fn those_who_still_wait_are_served_before_those_who_have_given_up() {
    let slow = Slow::new(5);
    let table = paced(&slow, pace(16));
    let people = (0..4_000).map(|_| {
        let table = Arc::clone(&table);
        tokio::spawn(async move {
            loop {
                let (tell, answer) = oneshot::channel();
                let done = move |answer: Answer| {
                    // They may have given up.
                    let _ = tell.send(answer.result.is_ok());
                };
                Arc::clone(&table).submit(login(), Box::new(done));
                if let Ok(Ok(true)) = timeout(Duration::from_secs(5), answer).await {
                    break;
                }
            }
        })
    });
    let people: Vec<_> = people.collect();
    let all = async {
        for one in people {
            one.await.unwrap();
        }
    };
    // It is 20 s of work.
    assert!(timeout(Duration::from_secs(60), all).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_window_finds_what_the_store_answers_in_time_and_widens_again() {
    let slow = Slow::new(20);
    let table = paced(&slow, pace(256));
    assert!(
        all_served(Arc::clone(&table) as _, 1_000, Duration::from_secs(120))
            .await
            .is_some()
    );
    // 25 requests of 20 ms take half a second.
    let pacing = table.pacing();
    assert!((4..=40).contains(&pacing.window), "{pacing:?}");
    assert_eq!((pacing.under_way, pacing.waiting), (0, 0));
    slow.each.store(1, Ordering::Relaxed);
    let limit = Duration::from_secs(600);
    let took = all_served(Arc::clone(&table) as _, 60_000, limit).await;
    assert!(took.is_some());
    assert_eq!(table.pacing().window, 256);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_connected_goes_before_those_who_log_in_and_leases_before_all() {
    let slow = Slow::new(100);
    let table = paced(&slow, pace(4));
    let logins = at_once(&table, 100);
    while table.pacing().waiting < 96 {
        tokio::task::yield_now().await;
    }
    let write = Op::Delete {
        key: key(TableId::Rosters),
        condition: crate::Condition::Any,
    };
    table.apply(write).await.unwrap();
    let after_write = slow.logins.load(Ordering::Relaxed);
    assert!(after_write <= 10, "{after_write}");
    table.apply(get(TableId::Rosters)).await.unwrap();
    assert!(slow.logins.load(Ordering::Relaxed) <= 20);
    // This one is not even counted.
    table.apply(get(TableId::Cluster)).await.unwrap();
    assert!(table.pacing().waiting > 60);
    for one in logins {
        // They took 10 s together, which is as long as anybody waits.
        let _ = one.await.unwrap();
    }
    assert_eq!(table.pacing().under_way, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_or_comes_when_too_many_wait_is_refused_unasked() {
    let slow = Slow::new(1_900);
    let bounds = Pace {
        waiting: 3,
        patience: Duration::from_secs(3),
        ..pace(1)
    };
    let table = paced(&slow, bounds);
    let all = at_once(&table, 10);
    let mut refused = 0;
    for one in all {
        let answer = one.await.unwrap();
        refused += usize::from(matches!(answer, Err(StoreError::Throttled { .. })));
    }
    assert_eq!(slow.logins.load(Ordering::Relaxed) + refused, 10);
    assert!(refused >= 3, "{refused}");
    assert_eq!(
        table.pacing(),
        Pacing {
            window: 4,
            under_way: 0,
            waiting: 0
        }
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_their_place_to_others() {
    let slow = Slow::new(100);
    let table = paced(&slow, pace(4));
    let all = at_once(&table, 50);
    while table.pacing().waiting < 46 {
        tokio::task::yield_now().await;
    }
    for one in all {
        one.abort();
    }
    tokio::task::yield_now().await;
    table.apply(get(TableId::Rosters)).await.unwrap();
    assert_eq!(table.pacing().under_way, 0);
    table.apply(login()).await.unwrap();
    assert_eq!(
        table.pacing(),
        Pacing {
            window: 4,
            under_way: 0,
            waiting: 0
        }
    );
}
