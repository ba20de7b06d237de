//! The bounded queue between those who write and the writer.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use crate::table::{Answer, Done};
use crate::{Condition, Op};

use super::codec::{encode_key, encode_record};

/// A write that waits for its commit.
pub(super) struct Job {
    pub key: Box<[u8]>,
    /// The new record; none = delete.
    pub record: Option<Bytes>,
    pub condition: Condition,
    pub nonce: u128,
    /// What the new item is billed by.
    pub size: usize,
    pub reply: Reply,
}

/// How the answer gets to whoever waits for it.
pub(super) enum Reply {
    Channel(oneshot::Sender<Answer>),
    Call(Done),
}

impl Reply {
    pub(super) fn send(self, answer: Answer) {
        match self {
            // Whoever asked may have stopped waiting.
            Reply::Channel(channel) => drop(channel.send(answer)),
            Reply::Call(done) => done(answer),
        }
    }
}

impl Job {
    /// The job for a put or delete; none for a read.
    pub(super) fn new(op: Op, reply: Reply) -> Option<Job> {
        let (key, record, condition, nonce, size) = match op {
            Op::Put {
                item,
                condition,
                nonce,
            } => {
                let size = item.size(nonce != 0);
                let record = encode_record(&item, nonce, size);
                (encode_key(&item.key), Some(record), condition, nonce, size)
            }
            Op::Delete { key, condition } => (encode_key(&key), None, condition, 0, 0),
            _ => return None,
        };
        Some(Job {
            key,
            record,
            condition,
            nonce,
            size,
            reply,
        })
    }
}

/// A bounded queue of jobs. Asynchronous for those who push, blocking for the one who takes.
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    places: Semaphore,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    is_closed: bool,
    /// The taker sleeps.
    is_idle: bool,
}

impl Queue {
    pub(super) fn new(places: usize) -> Queue {
        Queue {
            state: Mutex::default(),
            ready: Condvar::new(),
            places: Semaphore::new(places),
        }
    }

    /// Queues the job if there is room and nobody waits for room; else it comes back.
    pub(super) fn try_push(&self, job: Job) -> Result<(), Job> {
        match self.places.try_acquire() {
            Ok(place) => {
                place.forget();
                self.insert(job)
            }
            Err(_) => Err(job),
        }
    }

    /// Queues the job when there is room; it comes back when the queue is closed.
    pub(super) async fn push(&self, job: Job) -> Result<(), Job> {
        match self.places.acquire().await {
            Ok(place) => {
                place.forget();
                self.insert(job)
            }
            Err(_) => Err(job),
        }
    }

    fn insert(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(job);
        }
        state.jobs.push(job);
        if mem::take(&mut state.is_idle) {
            drop(state);
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes all jobs into `into`, which is empty; waits until there are some. `false` = closed,
    /// and all were taken.
    pub(super) fn take(&self, into: &mut Vec<Job>) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.is_closed {
                return false;
            }
            state.is_idle = true;
            state = self
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut state.jobs, into);
        drop(state);
        self.places.add_permits(into.len());
        true
    }

    /// No more jobs are accepted; those that are queued are still taken.
    pub(super) fn close(&self) {
        self.places.close();
        self.lock().is_closed = true;
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
