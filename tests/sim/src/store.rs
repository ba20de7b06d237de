//! A store that is slow, refuses, or writes without saying so.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use cirrus_store::{MemoryTable, Op, Outcome, StoreError, Table};

use crate::rng::Rng;

/// What happens to one operation.
#[derive(Debug)]
pub enum Fate {
    /// It is carried out when it is answered.
    Late,
    /// It is carried out at once; the answer takes its time.
    Early,
    /// It is refused and changes nothing.
    Throttled,
    /// It is carried out, and the answer is lost.
    Lost,
    /// It is not carried out, and nobody says so.
    Vanished,
}

/// The tables, which outlive the server.
pub struct Store {
    table: MemoryTable,
    clock: Arc<AtomicU64>,
    /// Faults happen.
    pub faulty: bool,
    pub faults: u64,
}

impl Store {
    pub fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&clock);
        let table = MemoryTable::new(Arc::new(move || time.load(Ordering::Relaxed)));
        Self {
            table,
            clock,
            faulty: true,
            faults: 0,
        }
    }

    pub fn set_clock(&self, now: u64) {
        self.clock.store(now, Ordering::Relaxed);
    }

    pub fn fate(&mut self, rng: &mut Rng) -> Fate {
        let fate = match rng.below(100) {
            _ if !self.faulty => Fate::Late,
            0..=2 => Fate::Throttled,
            3..=4 => Fate::Lost,
            5 => Fate::Vanished,
            6..=50 => Fate::Early,
            _ => Fate::Late,
        };
        if matches!(fate, Fate::Throttled | Fate::Lost | Fate::Vanished) {
            self.faults += 1;
        }
        fate
    }

    pub fn apply(&self, op: Op) -> Result<Outcome, StoreError> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.table.apply(op)).poll(&mut context) {
            Poll::Ready(result) => result,
            Poll::Pending => unreachable!("the memory table answers at once"),
        }
    }
}

pub fn throttled(op: &Op) -> StoreError {
    StoreError::Throttled {
        place: op.place(),
        source: None,
    }
}

pub fn timeout(op: &Op) -> StoreError {
    StoreError::Timeout {
        place: op.place(),
        source: None,
    }
}
