//! A store that is slow, refuses, or writes without saying so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cirrus_schema::TableId;
use cirrus_store::{
    BlobOp, BlobOutcome, Direction, Item, MemoryBlob, MemoryTable, Op, Outcome, Place, SkRange,
    StoreError,
};

use crate::plan::Faults;
use crate::rng::Rng;

/// Operation that fails in every seed, so that no seed is without a fault.
const ALWAYS: u64 = 20;

/// What happens to one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Fate {
    /// What it is called when it is a fault.
    fn fault(self) -> Option<&'static str> {
        match self {
            Self::Late | Self::Early => None,
            Self::Throttled => Some("throttled"),
            Self::Lost => Some("done and unanswered"),
            Self::Vanished => Some("not done and unanswered"),
        }
    }
}

/// The tables, which outlive the server.
pub struct Store {
    table: MemoryTable,
    blobs: MemoryBlob,
    clock: Arc<AtomicU64>,
    rates: Faults,
    /// Faults happen.
    pub faulty: bool,
    /// Until when nothing succeeds, Unix milliseconds.
    pub down_until: u64,
    pub operations: u64,
    /// What went wrong, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Store {
    pub fn new(rates: Faults) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&clock);
        let table = MemoryTable::new(Arc::new(move || time.load(Ordering::Relaxed)));
        Self {
            table,
            blobs: MemoryBlob::new(),
            clock,
            rates,
            faulty: true,
            down_until: 0,
            operations: 0,
            faults: BTreeMap::new(),
        }
    }

    pub fn set_clock(&self, now: u64) {
        self.clock.store(now, Ordering::Relaxed);
    }

    pub fn fate(&mut self, rng: &mut Rng) -> Fate {
        self.operations += 1;
        let dice = rng.below(1_000);
        if !self.faulty {
            return Fate::Late;
        }
        let Faults {
            throttled,
            lost,
            vanished,
            ..
        } = self.rates;
        let down = self.clock.load(Ordering::Relaxed) < self.down_until;
        let fate = match dice {
            _ if self.operations == ALWAYS => Fate::Throttled,
            0..800 if down => Fate::Throttled,
            800..900 if down => Fate::Lost,
            _ if down => Fate::Vanished,
            dice if dice < throttled => Fate::Throttled,
            dice if dice < throttled + lost => Fate::Lost,
            dice if dice < throttled + lost + vanished => Fate::Vanished,
            dice if dice % 2 == 0 => Fate::Early,
            _ => Fate::Late,
        };
        if let Some(name) = fate.fault() {
            *self.faults.entry(name).or_default() += 1;
        }
        fate
    }

    pub fn apply(&self, op: Op) -> Result<Outcome, StoreError> {
        self.table.apply_now(op).result
    }

    pub fn apply_blob(&self, op: BlobOp) -> Result<BlobOutcome, StoreError> {
        self.blobs.apply_now(op)
    }

    /// Every row of a partition, without faults.
    pub fn rows(&self, table: TableId, pk: &[u8]) -> Vec<Item> {
        let mut rows = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let op = Op::Query {
                table,
                pk: pk.to_vec().into(),
                range: SkRange::All,
                direction: Direction::Forward,
                limit: None,
                after,
            };
            let Ok(Outcome::Page { items, next }) = self.apply(op) else {
                return rows;
            };
            rows.extend(items);
            match next {
                Some(_) => after = next,
                None => return rows,
            }
        }
    }
}

pub fn throttled(place: Place) -> StoreError {
    StoreError::Throttled {
        place,
        source: None,
    }
}

pub fn timeout(place: Place) -> StoreError {
    StoreError::Timeout {
        place,
        source: None,
    }
}
