//! A layer that makes any store fail as a provider fails, by a plan, so that tests repeat.
//!
//! The plan sees every request before the store does and says what goes wrong with it. The same
//! [`Faults`] can steer a [`Faulty`] wrapper or anything else in front of a store, such as an
//! emulator's front end; [`Faults::clear`] makes the store healthy again.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cirrus_schema::TableId;

use crate::{
    Answer, Blob, BlobKey, BlobOp, BlobOutcome, BoxFuture, Dump, DumpPage, Op, Outcome, Place,
    Presign, StoreError, Table, Target, Usage,
};

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is carried out after this time.
    Delay(Duration),
    /// It is refused for load.
    Throttle,
    /// The store fails; the request was carried out or not, the caller can't know.
    Fail {
        /// Whether it was.
        carried_out: bool,
    },
    /// No answer comes. The wrapper says so at once, without waiting.
    Timeout {
        /// Whether it was carried out.
        carried_out: bool,
    },
    /// No answer comes, and the request is carried out when this many more have been made.
    Late {
        /// Number of requests before it, at least 1.
        after: u32,
    },
    /// The store dies: this request and all later ones fail, until the plan is replaced.
    Die {
        /// Whether this request was carried out.
        carried_out: bool,
    },
}

/// Decides on each request, given its number (from 0, counted since the plan was set).
pub type Plan = Box<dyn FnMut(u64, Target) -> Fault + Send>;

/// How often faults of each kind befall requests, in parts of a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// [`Fault::Throttle`].
    pub throttle: u16,
    /// [`Fault::Fail`], half of them carried out.
    pub fail: u16,
    /// [`Fault::Timeout`], half of them carried out.
    pub timeout: u16,
    /// [`Fault::Late`] by 1 to 8 requests.
    pub late: u16,
}

/// A plan of faults and its state. Clones share it.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    number: u64,
    dead: bool,
    late: Vec<(u64, Op)>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (planned, number, dead) = (state.plan.is_some(), state.number, state.dead);
        write!(
            f,
            "Faults {{ planned: {planned}, number: {number}, dead: {dead} }}"
        )
    }
}

impl Faults {
    /// No faults.
    #[must_use]
    pub fn none() -> Faults {
        Faults::default()
    }

    /// Makes this the plan, from now on; the requests are counted from 0 again.
    pub fn set(&self, plan: impl FnMut(u64, Target) -> Fault + Send + 'static) {
        let mut state = self.lock();
        state.plan = Some(Box::new(plan));
        (state.number, state.dead) = (0, false);
    }

    /// The first requests have these faults, in this order; later ones have none.
    pub fn set_list(&self, faults: impl Into<Vec<Fault>>) {
        let faults = faults.into();
        let at = move |number| {
            usize::try_from(number)
                .ok()
                .and_then(|at| faults.get(at).copied())
        };
        self.set(move |number, _| at(number).unwrap_or(Fault::None));
    }

    /// Every request has this fault.
    pub fn set_always(&self, fault: Fault) {
        self.set(move |_, _| fault);
    }

    /// Requests have faults at random; the same seed and requests give the same faults.
    pub fn set_seeded(&self, seed: u64, rates: Rates) {
        let mut random = SplitMix(seed);
        self.set(move |_, _| rates.draw(&mut random));
    }

    /// Ends all faults. A [`Fault::Late`] request still comes.
    pub fn clear(&self) {
        let mut state = self.lock();
        (state.plan, state.dead) = (None, false);
    }

    /// Number of requests since the plan was set.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.lock().number
    }

    /// What befalls the next request, which is this one.
    #[must_use]
    pub fn next(&self, target: Target) -> Fault {
        let mut state = self.lock();
        let number = state.number;
        state.number += 1;
        if state.dead {
            return Fault::Fail { carried_out: false };
        }
        let fault = state
            .plan
            .as_mut()
            .map_or(Fault::None, |plan| plan(number, target));
        state.dead = matches!(fault, Fault::Die { .. });
        fault
    }

    fn postpone(&self, op: Op, after: u32) {
        let mut state = self.lock();
        let due = state.number + u64::from(after.max(1)) - 1;
        state.late.push((due, op));
    }

    fn take_due(&self) -> Vec<Op> {
        let mut state = self.lock();
        if state.late.is_empty() {
            return Vec::new();
        }
        let number = state.number;
        let due = state.late.extract_if(.., |(due, _)| *due <= number);
        due.map(|(_, op)| op).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A plan that panics leaves at worst a count behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rates {
    fn draw(self, random: &mut SplitMix) -> Fault {
        let (mut dice, detail) = ((random.next() % 1_000) as u16, random.next());
        let carried_out = detail.is_multiple_of(2);
        let kinds = [
            (self.throttle, Fault::Throttle),
            (self.fail, Fault::Fail { carried_out }),
            (self.timeout, Fault::Timeout { carried_out }),
            (
                self.late,
                Fault::Late {
                    after: 1 + (detail % 8) as u32,
                },
            ),
        ];
        for (rate, fault) in kinds {
            if dice < rate {
                return fault;
            }
            dice -= rate;
        }
        Fault::None
    }
}

/// A small generator with good spread, for plans only.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A store whose requests suffer the faults of a plan.
#[derive(Debug, Clone)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
}

impl<T> Faulty<T> {
    /// Puts `faults` in front of `inner`.
    pub fn new(inner: T, faults: Faults) -> Faulty<T> {
        Faulty { inner, faults }
    }
}

/// What is left to do with a request after its fault.
enum Fate {
    CarryOut,
    Delay(Duration),
    Refuse(StoreError),
    CarryOutThen(StoreError),
}

fn fate(fault: Fault, place: impl FnOnce() -> Place) -> Fate {
    let then = |carried_out, error| match carried_out {
        true => Fate::CarryOutThen(error),
        false => Fate::Refuse(error),
    };
    match fault {
        Fault::None => Fate::CarryOut,
        Fault::Delay(time) => Fate::Delay(time),
        Fault::Throttle => Fate::Refuse(StoreError::Throttled {
            place: place(),
            source: None,
        }),
        Fault::Fail { carried_out } | Fault::Die { carried_out } => {
            let error = StoreError::Unavailable {
                place: place(),
                outcome_unknown: true,
                source: None,
            };
            then(carried_out, error)
        }
        Fault::Timeout { carried_out } => then(
            carried_out,
            StoreError::Timeout {
                place: place(),
                source: None,
            },
        ),
        Fault::Late { .. } => Fate::Refuse(StoreError::Timeout {
            place: place(),
            source: None,
        }),
    }
}

impl<T: Table> Table for Faulty<T> {
    fn apply(&self, op: Op) -> BoxFuture<'_, Result<Outcome, StoreError>> {
        Box::pin(async move { self.apply_counted(op).await.result })
    }

    fn apply_counted(&self, op: Op) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            for late in self.faults.take_due() {
                // Its caller was told long ago that it timed out: nobody waits for the outcome.
                let _ = self.inner.apply(late).await;
            }
            let Some(target) = Target::of(&op) else {
                return self.inner.apply_counted(op).await;
            };
            let fault = self.faults.next(target);
            let refused = |error| Answer {
                result: Err(error),
                usage: Usage {
                    requests: 1,
                    ..Usage::default()
                },
            };
            match fate(fault, || op.place()) {
                Fate::CarryOut => self.inner.apply_counted(op).await,
                Fate::Delay(time) => {
                    tokio::time::sleep(time).await;
                    self.inner.apply_counted(op).await
                }
                Fate::Refuse(error) => {
                    if let Fault::Late { after } = fault {
                        self.faults.postpone(op, after);
                    }
                    refused(error)
                }
                Fate::CarryOutThen(error) => {
                    let Answer { usage, .. } = self.inner.apply_counted(op).await;
                    Answer {
                        result: Err(error),
                        usage,
                    }
                }
            }
        })
    }
}

impl<T: Dump> Dump for Faulty<T> {
    fn dump(
        &self,
        table: TableId,
        after: Option<bytes::Bytes>,
    ) -> BoxFuture<'_, Result<DumpPage, StoreError>> {
        self.inner.dump(table, after)
    }
}

impl<T: Blob> Blob for Faulty<T> {
    fn apply(&self, op: BlobOp) -> BoxFuture<'_, Result<BlobOutcome, StoreError>> {
        Box::pin(async move {
            let fault = self.faults.next(Target::of_blob(&op));
            match fate(fault, || op.place()) {
                Fate::CarryOut => self.inner.apply(op).await,
                Fate::Delay(time) => {
                    tokio::time::sleep(time).await;
                    self.inner.apply(op).await
                }
                Fate::Refuse(error) => Err(error),
                Fate::CarryOutThen(error) => {
                    let _ = self.inner.apply(op).await;
                    Err(error)
                }
            }
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
    use super::*;
    use crate::{Attrs, Condition, Item, Key, MemoryTable, RequestKind};

    const TARGET: Target = Target::Table(RequestKind::Put, TableId::Archive);

    #[test]
    fn seeds_repeat_and_rates_hold() {
        let draw = |seed| {
            let faults = Faults::none();
            faults.set_seeded(
                seed,
                Rates {
                    throttle: 100,
                    fail: 100,
                    timeout: 100,
                    late: 100,
                },
            );
            (0..10_000).map(|_| faults.next(TARGET)).collect::<Vec<_>>()
        };
        let first = draw(1);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
        let healthy = first.iter().filter(|fault| **fault == Fault::None).count();
        assert!((5_800..6_200).contains(&healthy), "{healthy}");
    }

    #[test]
    fn the_dead_stay_dead_until_cleared() {
        let faults = Faults::none();
        faults.set_list([Fault::None, Fault::Die { carried_out: true }]);
        let seen: Vec<Fault> = (0..4).map(|_| faults.next(TARGET)).collect();
        let failed = Fault::Fail { carried_out: false };
        assert_eq!(
            seen,
            [
                Fault::None,
                Fault::Die { carried_out: true },
                failed,
                failed
            ]
        );
        faults.clear();
        assert_eq!(faults.next(TARGET), Fault::None);
    }

    #[tokio::test]
    async fn a_late_write_lands_later() {
        let faults = Faults::none();
        let memory = MemoryTable::new(Arc::new(|| 0));
        let table = Faulty::new(memory, faults.clone());
        let table: &dyn Table = &table;
        let key = Key::new(TableId::Archive, &b"a"[..], &b"b"[..]);
        faults.set_list([Fault::Late { after: 2 }]);
        let item = Item::new(key.clone(), Attrs::new());
        let error = table
            .put(item.clone(), Condition::Absent, 1)
            .await
            .unwrap_err();
        assert!(error.outcome_unknown());
        assert_eq!(table.get(key.clone()).await.unwrap(), None);
        assert_eq!(table.get(key).await.unwrap(), Some(item));
    }
}
