//! A layer that counts what every request costs, as the provider bills it.
//!
//! The counters are atomics in a fixed table: a request takes no lock. What they say is read as a
//! [`Snapshot`]; the price of a unit is somebody else's knowledge.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use cirrus_schema::TableId;

use crate::table::{Answer, Done};
use crate::{
    Blob, BlobKey, BlobOp, BlobOutcome, BoxFuture, Dump, DumpPage, Op, Outcome, Presign,
    StoreError, Table, Target, Usage,
};

/// Upper bounds of the latency histogram in microseconds; what is above the last has a bucket of
/// its own.
pub const LATENCY_BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000,
];

const BUCKETS: usize = LATENCY_BOUNDS.len() + 1;

/// A clock that never goes back: time since some moment.
pub type Monotonic = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The system's monotonic clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the meter's clock is read"
)]
pub fn system_monotonic() -> Monotonic {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// What was counted for one target, or, as a difference, in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests to the provider; a batch that was answered in parts counts as often.
    pub requests: u64,
    /// Write units.
    pub write_units: u64,
    /// Read units.
    pub read_units: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes read.
    pub read: u64,
    /// Calls that ended with a conflict.
    pub conflicts: u64,
    /// Calls that ended with throttling.
    pub throttled: u64,
    /// Calls that ended with any other error.
    pub failed: u64,
    /// Calls by latency: up to each of [`LATENCY_BOUNDS`], and above.
    pub latency: [u64; BUCKETS],
    /// Sum of all latencies in microseconds.
    pub latency_sum: u64,
}

impl Counters {
    /// Calls, however they ended.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.latency.iter().sum()
    }

    fn minus(&self, earlier: &Counters) -> Counters {
        let mut latency = self.latency;
        for (count, earlier) in latency.iter_mut().zip(earlier.latency) {
            *count = count.saturating_sub(earlier);
        }
        Counters {
            requests: self.requests.saturating_sub(earlier.requests),
            write_units: self.write_units.saturating_sub(earlier.write_units),
            read_units: self.read_units.saturating_sub(earlier.read_units),
            written: self.written.saturating_sub(earlier.written),
            read: self.read.saturating_sub(earlier.read),
            conflicts: self.conflicts.saturating_sub(earlier.conflicts),
            throttled: self.throttled.saturating_sub(earlier.throttled),
            failed: self.failed.saturating_sub(earlier.failed),
            latency,
            latency_sum: self.latency_sum.saturating_sub(earlier.latency_sum),
        }
    }
}

#[derive(Default)]
struct Row {
    requests: AtomicU64,
    write_units: AtomicU64,
    read_units: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
    conflicts: AtomicU64,
    throttled: AtomicU64,
    failed: AtomicU64,
    latency: [AtomicU64; BUCKETS],
    latency_sum: AtomicU64,
}

impl Row {
    fn read(&self) -> Counters {
        Counters {
            requests: self.requests.load(Relaxed),
            write_units: self.write_units.load(Relaxed),
            read_units: self.read_units.load(Relaxed),
            written: self.written.load(Relaxed),
            read: self.read.load(Relaxed),
            conflicts: self.conflicts.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            latency: std::array::from_fn(|at| self.latency[at].load(Relaxed)),
            latency_sum: self.latency_sum.load(Relaxed),
        }
    }
}

/// The counters of all targets.
pub struct Meter {
    rows: Vec<Row>,
    clock: Monotonic,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.snapshot(), f)
    }
}

impl Meter {
    /// All counters 0. The clock measures latencies.
    #[must_use]
    pub fn new(clock: Monotonic) -> Arc<Meter> {
        let rows = Target::all().map(|_| Row::default()).collect();
        Arc::new(Meter { rows, clock })
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let rows = Target::all().zip(self.rows.iter().map(Row::read));
        Snapshot(rows.filter(|(_, counters)| counters.calls() > 0).collect())
    }

    /// Counts one call.
    fn count(&self, target: Target, usage: Usage, error: Option<&StoreError>, began: Duration) {
        let Some(row) = self.rows.get(target.index()) else {
            return;
        };
        let micros = (self.clock)().saturating_sub(began).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < micros);
        row.latency[bucket].fetch_add(1, Relaxed);
        row.latency_sum.fetch_add(micros, Relaxed);
        row.requests.fetch_add(usage.requests.into(), Relaxed);
        for (counter, value) in [
            (&row.write_units, usage.write_units.into()),
            (&row.read_units, usage.read_units.into()),
            (&row.written, usage.written),
            (&row.read, usage.read),
        ] {
            if value > 0 {
                counter.fetch_add(value, Relaxed);
            }
        }
        match error {
            None => {}
            Some(StoreError::Conflict { .. }) => drop(row.conflicts.fetch_add(1, Relaxed)),
            Some(StoreError::Throttled { .. }) => drop(row.throttled.fetch_add(1, Relaxed)),
            Some(_) => drop(row.failed.fetch_add(1, Relaxed)),
        }
    }
}

/// Counters at one moment, of the targets that were called at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(Vec<(Target, Counters)>);

impl Snapshot {
    /// Targets and their counters, in the order of [`Target::all`].
    pub fn iter(&self) -> impl Iterator<Item = (Target, &Counters)> {
        self.0.iter().map(|(target, counters)| (*target, counters))
    }

    /// The counters of one target.
    #[must_use]
    pub fn get(&self, target: Target) -> Counters {
        let row = self.0.iter().find(|(other, _)| *other == target);
        row.map_or(Counters::default(), |(_, counters)| *counters)
    }

    /// What was counted since an earlier snapshot.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let row = |(target, counters): &(Target, Counters)| {
            (*target, counters.minus(&earlier.get(*target)))
        };
        let rows = self
            .0
            .iter()
            .map(row)
            .filter(|(_, counters)| counters.calls() > 0);
        Snapshot(rows.collect())
    }

    /// Write units and read units of all targets.
    #[must_use]
    pub fn units(&self) -> (u64, u64) {
        let write = self
            .0
            .iter()
            .map(|(_, counters)| counters.write_units)
            .sum();
        (
            write,
            self.0.iter().map(|(_, counters)| counters.read_units).sum(),
        )
    }

    /// One line per target, without what differs from run to run: for golden files.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut out = String::new();
        for (target, c) in self.iter() {
            let (place, kind) = (target.place_name(), target.kind_name());
            // Writing to a string can't fail.
            let _ = writeln!(
                out,
                "{place} {kind}: {} requests, {} WU, {} RU",
                c.requests, c.write_units, c.read_units
            );
        }
        out
    }
}

/// A store whose requests are counted.
pub struct Metered<T: ?Sized> {
    meter: Arc<Meter>,
    inner: Arc<T>,
}

impl<T: ?Sized> Metered<T> {
    /// Counts the requests to `inner` in `meter`.
    pub fn new(inner: Arc<T>, meter: Arc<Meter>) -> Metered<T> {
        Metered { meter, inner }
    }
}

impl<T: Table + ?Sized + 'static> Table for Metered<T> {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_counted(op).await.result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        let Some(target) = Target::of(&op) else {
            return self.inner.apply_counted(op);
        };
        let began = (self.meter.clock)();
        let answer = self.inner.apply_counted(op);
        Box::pin(async move {
            let answer = answer.await;
            self.meter
                .count(target, answer.usage, answer.result.as_ref().err(), began);
            answer
        })
    }

    fn submit(self: Arc<Self>, op: Op, done: Done) {
        let inner = Arc::clone(&self.inner);
        let Some(target) = Target::of(&op) else {
            return inner.submit(op, done);
        };
        let began = (self.meter.clock)();
        let counted = move |answer: Answer| {
            self.meter
                .count(target, answer.usage, answer.result.as_ref().err(), began);
            done(answer);
        };
        inner.submit(op, Box::new(counted));
    }
}

impl<T: Dump + ?Sized> Dump for Metered<T> {
    fn dump(
        &self,
        table: TableId,
        after: Option<Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>> {
        self.inner.dump(table, after)
    }
}

impl<T: Blob + ?Sized> Blob for Metered<T> {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        let (target, began) = (Target::of_blob(&op), (self.meter.clock)());
        let written = match &op {
            BlobOp::Put { body, .. } | BlobOp::PutIfAbsent { body, .. } => body.len() as u64,
            _ => 0,
        };
        let result = self.inner.apply(op);
        Box::pin(async move {
            let result = result.await;
            let mut usage = Usage {
                requests: 1,
                ..Usage::default()
            };
            match &result {
                Ok(BlobOutcome::Put(true)) => usage.written = written,
                Ok(BlobOutcome::Body(Some(body))) => usage.read = body.len() as u64,
                Err(StoreError::Invalid { .. } | StoreError::TooLarge { .. }) => usage.requests = 0,
                _ => {}
            }
            self.meter
                .count(target, usage, result.as_ref().err(), began);
            result
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

#[cfg(test)]
mod tests {
    use cirrus_schema::BucketId;

    use super::*;
    use crate::{
        Attrs, BlobKind, Condition, Direction, Item, Key, MemoryBlob, MemoryTable, RequestKind,
        SkRange,
    };

    fn key(sk: &'static str) -> Key {
        Key::new(TableId::Archive, &b"p"[..], sk)
    }

    /// An item of exactly so many bytes.
    fn item(sk: &'static str, bytes: usize) -> Item {
        let mut item = Item::new(key(sk), Attrs::new().with("z", vec![]));
        item.attrs.set("z", vec![0; bytes - item.size(false)]);
        item
    }

    fn put(item: Item, condition: Condition) -> Op {
        Op::Put {
            item,
            condition,
            nonce: 0,
        }
    }

    fn query(limit: u32) -> Op {
        Op::Query {
            table: TableId::Archive,
            pk: Bytes::from_static(b"p"),
            range: SkRange::All,
            direction: Direction::Forward,
            limit: Some(limit),
            after: None,
        }
    }

    /// A meter whose clock advances by 100 microseconds with each look at it.
    fn meter() -> Arc<Meter> {
        let ticks = AtomicU64::new(0);
        Meter::new(Arc::new(move || {
            Duration::from_micros(100 * ticks.fetch_add(1, Relaxed))
        }))
    }

    /// Each request with what the provider bills for it: write units and read units.
    #[tokio::test]
    async fn bills_as_the_provider() {
        let meter = meter();
        let memory = Arc::new(MemoryTable::new(Arc::new(|| 0)));
        let table = Metered::new(memory, Arc::clone(&meter));
        let big = || item("a", 5_000);
        for (op, units) in [
            (put(item("a", 1_024), Condition::Absent), (1, 0)),
            (put(item("a", 1_025), Condition::Any), (2, 0)),
            (put(big(), Condition::Any), (5, 0)),
            // Replacing costs the larger of old and new, and so does failing to.
            (put(item("a", 100), Condition::Absent), (5, 0)),
            (put(item("a", 100), Condition::Any), (5, 0)),
            (put(big(), Condition::Version(9)), (5, 0)),
            (put(big(), Condition::Any), (5, 0)),
            (Op::Get { key: key("a") }, (0, 2)),
            (Op::Get { key: key("none") }, (0, 1)),
            (put(item("b", 3_000), Condition::Absent), (3, 0)),
            (query(10), (0, 2)),
            (query(1), (0, 2)),
            // By item, absent ones included; the same key once.
            (
                Op::BatchGet {
                    keys: vec![key("a"), key("b"), key("none"), key("a")],
                },
                (0, 4),
            ),
            (
                Op::Delete {
                    key: key("a"),
                    condition: Condition::Version(1),
                },
                (5, 0),
            ),
            (
                Op::Delete {
                    key: key("a"),
                    condition: Condition::Any,
                },
                (5, 0),
            ),
            (
                Op::Delete {
                    key: key("a"),
                    condition: Condition::Any,
                },
                (1, 0),
            ),
            // Refused before it is sent.
            (put(item("a", 500_000), Condition::Any), (0, 0)),
        ] {
            let before = meter.snapshot();
            let what = format!("{op:?}");
            let _ = table.apply(op).await;
            assert_eq!(
                meter.snapshot().since(&before).units(),
                units,
                "{}",
                &what[..100]
            );
        }
        let puts = meter
            .snapshot()
            .get(Target::Table(RequestKind::Put, TableId::Archive));
        assert_eq!(
            (puts.requests, puts.conflicts, puts.failed, puts.calls()),
            (8, 2, 1, 9)
        );
        assert_eq!((puts.latency[1], puts.latency_sum), (9, 900));
    }

    #[tokio::test]
    async fn submitted_requests_and_blobs_count_too() {
        let meter = meter();
        let memory = Arc::new(MemoryTable::new(Arc::new(|| 0)));
        let table = Arc::new(Metered::new(memory, Arc::clone(&meter)));
        let (done, answer) = tokio::sync::oneshot::channel();
        let done = Box::new(move |answer: Answer| done.send(answer.usage).unwrap());
        table.submit(put(item("a", 2_000), Condition::Absent), done);
        assert_eq!(answer.await.unwrap().write_units, 2);
        let blobs = Metered::new(Arc::new(MemoryBlob::new()), Arc::clone(&meter));
        let blobs: &dyn Blob = &blobs;
        let at = BlobKey::new(BucketId::Data, "x");
        blobs
            .put_if_absent(at.clone(), Bytes::from_static(b"12345"))
            .await
            .unwrap();
        blobs.get(at, Some(1..3)).await.unwrap();
        let snapshot = meter.snapshot();
        let expected = "archive put: 1 requests, 2 WU, 0 RU\n\
                        data put_object: 1 requests, 0 WU, 0 RU\n\
                        data get_object: 1 requests, 0 WU, 0 RU\n";
        assert_eq!(snapshot.lines(), expected);
        assert_eq!(
            snapshot
                .get(Target::Blob(BlobKind::Get, BucketId::Data))
                .read,
            2
        );
        assert_eq!(
            snapshot
                .get(Target::Blob(BlobKind::Put, BucketId::Data))
                .written,
            5
        );
    }
}
