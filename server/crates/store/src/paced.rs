//! A layer that asks a store for no more at once than it answers in time.
//!
//! When thousands log in at the same moment, more is asked than a table that has just been made, or
//! is throttled, can answer. Requests then end without an answer, are tried again, connect anew,
//! and the store works for nobody. So what may be under way has a window, which each answer in time
//! widens and each late or refused one narrows, as congestion control does it (RFC 5681). What is
//! beyond the window waits here, and what people who are connected wait for goes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cirrus_schema::TableId;
use tokio::sync::oneshot;

use crate::meter::Monotonic;
use crate::{Answer, BoxFuture, Op, Outcome, StoreError, Table, Usage};

/// The narrowest window. It still tells when the store has recovered.
const LEAST: f64 = 4.0;
/// What is left of a window after an answer that was late or refused.
const NARROWER: f64 = 0.7;
/// Of so many places one is given to those who would come last, so that nobody waits for ever.
const TURNS: u8 = 8;

/// The bounds of a [`Paced`] store.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The widest window: requests that may be under way at once.
    pub most: usize,
    /// Requests that may wait; further ones are refused.
    pub waiting: usize,
    /// An answer that took longer says that too much is asked.
    pub slow: Duration,
    /// How long a request waits at most; then it is refused.
    pub patience: Duration,
}

/// What a [`Paced`] store does at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pacing {
    /// Requests that may be under way now.
    pub window: usize,
    /// Requests under way.
    pub under_way: usize,
    /// Requests that wait.
    pub waiting: usize,
}

/// A store of which no more is asked at once than it answers in time. Requests of the table
/// `cluster` neither wait nor count: leases have to be renewed whatever else is asked.
///
/// A request that does not get its turn ends with [`StoreError::Throttled`]: it was never sent.
pub struct Paced<T: ?Sized> {
    pace: Pace,
    clock: Monotonic,
    queues: Arc<Mutex<Queues>>,
    inner: Arc<T>,
}

impl<T: ?Sized> std::fmt::Debug for Paced<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced")
            .field("pacing", &self.pacing())
            .finish_non_exhaustive()
    }
}

impl<T: ?Sized> Paced<T> {
    /// Paces what is asked of `inner`.
    pub fn new(inner: Arc<T>, pace: Pace, clock: Monotonic) -> Paced<T> {
        let queues = Arc::new(Mutex::new(Queues::new(pace.most)));
        Paced {
            pace,
            clock,
            queues,
            inner,
        }
    }

    /// What is under way and what waits.
    #[must_use]
    pub fn pacing(&self) -> Pacing {
        lock(&self.queues).pacing()
    }

    /// Waits for a place; `None`: there was none in time.
    async fn place(&self, rank: Rank) -> Option<Place> {
        let waiter = {
            let mut queues = lock(&self.queues);
            if let Some(round) = queues.window.enter() {
                return Some(self.held(round));
            }
            if queues.waiting() >= self.pace.waiting {
                return None;
            }
            let (turn, waits) = oneshot::channel();
            queues.push(rank, turn);
            Waiter {
                waits,
                queues: Arc::clone(&self.queues),
            }
        };
        let round = tokio::time::timeout(self.pace.patience, waiter.turn()).await;
        Some(self.held(round.ok()??))
    }

    fn held(&self, round: u32) -> Place {
        Place {
            round,
            overloaded: false,
            queues: Arc::clone(&self.queues),
        }
    }
}

impl<T: Table + ?Sized> Table for Paced<T> {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_counted(op).await.result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        let Some(rank) = Rank::of(&op) else {
            return self.inner.apply_counted(op);
        };
        Box::pin(async move {
            let Some(mut place) = self.place(rank).await else {
                return Answer {
                    result: Err(StoreError::Throttled {
                        place: op.place(),
                        source: None,
                    }),
                    usage: Usage::default(),
                };
            };
            let began = (self.clock)();
            // A caller who goes away meanwhile says nothing about the store.
            let answer = self.inner.apply_counted(op).await;
            let late = (self.clock)().saturating_sub(began) > self.pace.slow;
            place.overloaded = late || is_refusal(&answer);
            answer
        })
    }
}

/// The store can't cope.
fn is_refusal(answer: &Answer) -> bool {
    matches!(
        answer.result,
        Err(StoreError::Throttled { .. }
            | StoreError::Timeout { .. }
            | StoreError::Unavailable { .. })
    )
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Writes: somebody is connected and waits for an answer.
    Write = 0,
    /// Reads for whoever has logged in.
    Read = 1,
    /// Accounts, which are read to let somebody in.
    Login = 2,
}

impl Rank {
    /// `None`: it goes at once.
    fn of(op: &Op) -> Option<Rank> {
        let table = match op {
            Op::Put { item, .. } => item.key.table,
            Op::Delete { key, .. } | Op::Get { key } => key.table,
            Op::Query { table, .. } => *table,
            Op::BatchGet { keys } => keys.first()?.table,
        };
        match table {
            TableId::Cluster => None,
            _ if op.kind().is_write() => Some(Rank::Write),
            TableId::Accounts => Some(Rank::Login),
            _ => Some(Rank::Read),
        }
    }
}

/// How much may be under way.
struct Window {
    most: f64,
    size: f64,
    under_way: usize,
    /// The window is narrowed once for all requests that were under way together.
    round: u32,
}

impl Window {
    fn new(most: usize) -> Window {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a number of requests at once is far below 2^52"
        )]
        let most = (most as f64).max(LEAST);
        Window {
            most,
            size: most,
            under_way: 0,
            round: 0,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between LEAST and the most that was given as a usize"
    )]
    fn allowed(&self) -> usize {
        self.size as usize
    }

    /// The round of a request that may begin.
    fn enter(&mut self) -> Option<u32> {
        self.has_room().then(|| {
            self.under_way += 1;
            self.round
        })
    }

    fn has_room(&self) -> bool {
        self.under_way < self.allowed()
    }

    fn leave(&mut self, round: u32, overloaded: bool) {
        let full = self.under_way >= self.allowed();
        self.under_way = self.under_way.saturating_sub(1);
        if !overloaded {
            // A window that isn't used says nothing about a wider one.
            if full {
                self.size = (self.size + 1.0 / self.size).min(self.most);
            }
        } else if round == self.round {
            self.size = (self.size * NARROWER).max(LEAST);
            self.round = self.round.wrapping_add(1);
        }
    }
}

/// The window, and who waits for a place in it.
struct Queues {
    window: Window,
    waiting: [VecDeque<oneshot::Sender<u32>>; 3],
    turn: u8,
}

impl Queues {
    fn new(most: usize) -> Queues {
        Queues {
            window: Window::new(most),
            waiting: Default::default(),
            turn: 0,
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    fn pacing(&self) -> Pacing {
        Pacing {
            window: self.window.allowed(),
            under_way: self.window.under_way,
            waiting: self.waiting(),
        }
    }

    fn push(&mut self, rank: Rank, turn: oneshot::Sender<u32>) {
        let Some(queue) = self.waiting.get_mut(rank as usize) else {
            return;
        };
        // Those who gave up are at the front, as everybody has the same patience.
        while queue.front().is_some_and(oneshot::Sender::is_closed) {
            queue.pop_front();
        }
        queue.push_back(turn);
    }

    /// A request has ended; others begin.
    fn leave(&mut self, round: u32, overloaded: bool) {
        self.window.leave(round, overloaded);
        while self.window.has_room() {
            let Some(turn) = self.next() else { return };
            if turn.send(self.window.round).is_ok() {
                self.window.under_way += 1;
            }
        }
    }

    fn next(&mut self) -> Option<oneshot::Sender<u32>> {
        self.turn = (self.turn + 1) % TURNS;
        let last_first = self.turn == 0;
        for n in 0..self.waiting.len() {
            let at = if last_first {
                self.waiting.len() - 1 - n
            } else {
                n
            };
            let queue = self.waiting.get_mut(at)?;
            while let Some(turn) = queue.pop_front() {
                if !turn.is_closed() {
                    return Some(turn);
                }
            }
        }
        None
    }
}

/// A place in the window, given back when it is dropped.
struct Place {
    round: u32,
    overloaded: bool,
    queues: Arc<Mutex<Queues>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.queues).leave(self.round, self.overloaded);
    }
}

/// Whoever waits for a place. One that was given and not taken is given back.
struct Waiter {
    waits: oneshot::Receiver<u32>,
    queues: Arc<Mutex<Queues>>,
}

impl Waiter {
    async fn turn(mut self) -> Option<u32> {
        (&mut self.waits).await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waits.close();
        if let Ok(round) = self.waits.try_recv() {
            lock(&self.queues).leave(round, false);
        }
    }
}

fn lock(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
    // Nothing in here panics while it is locked.
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use bytes::Bytes;
    use tokio::time::{Instant, sleep_until, timeout};

    use super::*;
    use crate::{Direction, Key, SkRange};

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
        let logins: Vec<_> = (0..100)
            .map(|_| {
                let table = Arc::clone(&table);
                tokio::spawn(async move { table.apply(login()).await })
            })
            .collect();
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
        let all: Vec<_> = (0..10)
            .map(|_| {
                let table = Arc::clone(&table);
                tokio::spawn(async move { table.apply(login()).await })
            })
            .collect();
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
        let all: Vec<_> = (0..50)
            .map(|_| {
                let table = Arc::clone(&table);
                tokio::spawn(async move { table.apply(login()).await })
            })
            .collect();
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
}
