//! A layer that asks a store for no more at once than it answers in time.
//!
//! When thousands log in at the same moment, more is asked than a table that has just been made, or
//! is throttled, can answer. Requests then end without an answer, are tried again, connect anew,
//! and the store works for nobody. So what may be under way has a window, which each answer in time
//! widens and each late or refused one narrows, as congestion control does it (RFC 5681). What is
//! beyond the window waits here, and what people who are connected wait for goes first.

mod delays;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cirrus_schema::TableId;
use tokio::sync::oneshot;

use crate::meter::Monotonic;
use delays::Delays;

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
    delays: Mutex<Delays>,
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
            delays: Mutex::default(),
            inner,
        }
    }

    /// Whether writes take clearly longer than they usually do.
    #[must_use]
    pub fn is_late(&self) -> bool {
        lock(&self.delays).are_long((self.clock)())
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
            let now = (self.clock)();
            let took = now.saturating_sub(began);
            if rank == Rank::Write {
                lock(&self.delays).answered(now, took);
            }
            let late = took > self.pace.slow;
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
    /// Accounts, which are read to let somebody in. Whoever came last goes first: those who have
    /// waited long have given up, and all work for them is in vain.
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
            let newest_first = at == Rank::Login as usize;
            let pop = match newest_first {
                true => VecDeque::pop_back,
                false => VecDeque::pop_front,
            };
            while let Some(turn) = pop(queue) {
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

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics while it is locked.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
