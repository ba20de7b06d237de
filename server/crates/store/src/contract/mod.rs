//! The one contract suite: what every backend of [`Table`] and [`Blob`] must do.
//!
//! The cases are data ([`CASES`]); [`run`] executes all of them against a [`Subject`] and reports
//! each by name. A backend's test compares the executed names with one golden list, so that no
//! backend passes by leaving cases out. Nothing here knows a backend.

mod batches;
mod blobs;
mod conditions;
mod expiry;
mod failures;
mod limits;
mod ranges;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use cirrus_schema::TableId;

use crate::fault::Faults;
use crate::{Attrs, Blob, BoxFuture, Clock, Dump, Item, Key, Op, Outcome, StoreError, Table};

/// The time at which every case starts, in Unix milliseconds: far enough ahead that no backend
/// removes by its own clock what the test's clock calls alive.
pub const START_MS: u64 = 4_000_000_000_000;

/// A clock that stands still until it is set.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl Default for TestClock {
    fn default() -> TestClock {
        TestClock(Arc::new(AtomicU64::new(START_MS)))
    }
}

impl TestClock {
    /// The time in Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Sets the time in Unix milliseconds.
    pub fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }

    /// The clock as a backend wants it.
    #[must_use]
    pub fn as_clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now_ms())
    }
}

/// A backend under test and the handles on its surroundings.
#[derive(Clone)]
pub struct Subject {
    /// Its tables.
    pub table: Arc<dyn Table>,
    /// The same tables, to be read from end to end.
    pub dump: Arc<dyn Dump>,
    /// Its buckets.
    pub blob: Arc<dyn Blob>,
    /// The clock that its tables were built with.
    pub clock: TestClock,
    /// The faults between the tables and buckets and what carries their requests out, below any
    /// retries of the backend's own.
    pub faults: Faults,
    /// The most times that one request is tried.
    pub attempts: u64,
    /// A number that no earlier run on the same tables had: it is part of every key.
    pub run: u64,
}

impl Subject {
    /// A partition of the archive table that belongs to one case.
    fn pk(&self, case: &str) -> Bytes {
        format!("t{:016x}\0{case}", self.run).into()
    }

    fn key(&self, case: &str, sk: impl AsRef<[u8]>) -> Key {
        Key::new(
            TableId::Archive,
            self.pk(case),
            Bytes::copy_from_slice(sk.as_ref()),
        )
    }

    /// An item with one attribute that tells it from others.
    fn item(&self, case: &str, sk: impl AsRef<[u8]>, mark: u64) -> Item {
        Item::new(self.key(case, sk), Attrs::new().with("t", mark))
    }

    async fn page(&self, op: Op) -> Result<(Vec<Item>, Option<Bytes>), Failure> {
        match self.table.apply(op).await? {
            Outcome::Page { items, next } => Ok((items, next)),
            other => Err(Failure(format!("a query was answered with {other:?}"))),
        }
    }
}

/// Why a case failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure(format!("unexpected error: {error:?}"))
    }
}

/// What a case returns.
pub type Checked = Result<(), Failure>;

/// One case of the contract.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name, `<group>/<case>`.
    pub name: &'static str,
    run: for<'a> fn(&'a Subject) -> BoxFuture<'a, Checked>,
}

macro_rules! cases {
    ($($group:ident: $($case:ident)*;)*) => {
        &[$($(Case {
            name: concat!(stringify!($group), "/", stringify!($case)),
            run: |subject| Box::pin($group::$case(subject)),
        },)*)*]
    };
}

/// Every case, in the order of execution.
pub const CASES: &[Case] = cases! {
    conditions:
        put_then_get put_replaces_whole_items put_if_absent put_on_version
        version_zero_is_no_version delete_of_absent delete_on_version same_nonce_is_success
        overwritten_nonce_is_forgotten parallel_increments parallel_inserts_have_one_winner
        tables_are_separate;
    ranges:
        sorted_bytewise partition_keys_of_all_bytes each_kind_of_range empty_bounds
        pages_forward pages_backward tokens_of_missing_items tokens_outside_the_range
        pages_of_large_items confusable_owners empty_partition;
    batches:
        in_order_of_keys beyond_one_request beyond_one_answer repeated_keys refused_batches;
    expiry:
        absent_to_reads absent_to_conditions by_whole_seconds pages_skip_expired
        rewritten_expiry_counts;
    limits:
        largest_item item_too_large key_lengths attribute_names many_attributes;
    failures:
        throttled_then_repeated throttled_for_ever failing_for_ever never_answering
        slower_than_the_deadline success_behind_a_timeout success_behind_a_failure
        timeout_without_success late_write_finds_the_place_taken death_in_mid_batch
        blobs_throttled_then_repeated blobs_failing_for_ever blob_success_behind_a_timeout;
    blobs:
        put_then_get put_replaces put_if_absent parallel_inserts_have_one_winner parts
        delete_is_idempotent list_in_pages names_of_all_kinds refused_names
        buckets_are_separate large_blob dump_has_everything;
};

/// What became of each case.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Names of the executed cases in order, and how each ended.
    pub results: Vec<(&'static str, Checked)>,
}

impl Report {
    /// The names of the executed cases, one a line.
    #[must_use]
    pub fn executed(&self) -> String {
        self.results
            .iter()
            .map(|(name, _)| format!("{name}\n"))
            .collect()
    }

    /// The names of the cases that failed.
    #[must_use]
    pub fn red(&self) -> Vec<&'static str> {
        let failed = self.results.iter().filter(|(_, result)| result.is_err());
        failed.map(|(name, _)| *name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, result) in &self.results {
            match result {
                Ok(()) => writeln!(f, "ok   {name}")?,
                Err(failure) => writeln!(f, "FAIL {name}: {failure}")?,
            }
        }
        Ok(())
    }
}

/// Executes every case, one after the other.
pub async fn run(subject: &Subject) -> Report {
    let mut report = Report::default();
    for case in CASES {
        subject.clock.set(START_MS);
        subject.faults.clear();
        report.results.push((case.name, (case.run)(subject).await));
    }
    subject.faults.clear();
    report
}

fn ensure(holds: bool, what: impl Into<String>) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(Failure(what.into()))
    }
}

fn equal<T: PartialEq + fmt::Debug>(got: &T, expected: &T, what: &str) -> Checked {
    ensure(
        got == expected,
        format!("{what}: got {got:?}, expected {expected:?}"),
    )
}

/// The conflict that a request must have ended with, as what was there instead.
fn conflict(result: Result<(), StoreError>, what: &str) -> Result<Option<Item>, Failure> {
    match result {
        Err(StoreError::Conflict { existing, .. }) => Ok(existing.map(|item| *item)),
        other => Err(Failure(format!(
            "{what}: expected a conflict, got {other:?}"
        ))),
    }
}

/// The sort keys of items.
fn sks(items: &[Item]) -> Vec<Bytes> {
    items.iter().map(|item| item.key.sk.clone()).collect()
}
