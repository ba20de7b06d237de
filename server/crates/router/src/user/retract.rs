//! Retractions (XEP-0424): when one is in the log, what it is about is looked for, and a row of the
//! index says from then on that it was retracted. Nobody waits for that, and what is not found in a
//! few requests stays, which section 5 allows: the retraction itself is in the archive in any case.
//!
//! One retraction of an account is looked after at a time; at most [`Limits::tombstones`] wait, and
//! as many rows there may be. A process that dies loses those that wait; sealing finds again what
//! is in the same segment as its retraction.
//!
//! [`Limits::tombstones`]: crate::home::Limits::tombstones

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cirrus_store::{BlobOutcome, Condition, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use crate::archive::{Bounds, Filter, Page, Search, Step};
use crate::codec::Only;
use crate::home::{Cx, Purpose};
use crate::log::{Record, Ticket};
use crate::segment::{Retraction, Tombstone, was_replaced};

/// The first [format](crate::codec) that has what is made of retractions. In a cluster of an older
/// one they are messages like others.
pub(super) const RETRACTIONS: u8 = 10;
/// Requests for items and segments after which a message that was not found stays as it is.
const REQUESTS: u32 = 4;
/// Items of the log after which it stays, too.
const ITEMS: usize = 2_048;
/// Pause after a failure; it doubles.
const FIRST_PAUSE_MS: u64 = 1_000;
/// Failures in a row after which a retraction is only archived.
const TRIES: u32 = 6;

/// Retractions that are looked after.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retractions {
    /// Those of which the log has not answered.
    landing: BTreeMap<Ticket, Retraction>,
    /// Those in the log, with their positions; the first one is at work.
    due: VecDeque<(u64, Retraction)>,
    look: Option<Box<Look>>,
    /// Tells the answers of one look from those of one before.
    number: u64,
    failures: u32,
    retry_at: Option<u64>,
}

/// What a retraction is about is looked for, and then a row is written.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    search: Search,
    requests: u32,
    items: usize,
    /// The store was asked.
    asked: bool,
    /// A segment was missing, and the index is read again.
    missed: bool,
    /// A row is written for this position.
    found: Option<u64>,
}

impl Retractions {
    /// A record was given to the log.
    pub fn landing(&mut self, ticket: Ticket, retraction: Option<Retraction>) {
        if let Some(retraction) = retraction {
            self.landing.insert(ticket, retraction);
        }
    }

    /// The log has, or does not have, a record.
    pub fn landed(&mut self, ticket: Ticket, position: Option<u64>, limit: usize) {
        if let Some((retraction, position)) = self.landing.remove(&ticket).zip(position) {
            self.add(position, retraction, limit);
        }
    }

    /// The log has a record that another writer, or an attempt given up, put there.
    pub fn learned(&mut self, position: u64, record: &Record, limit: usize) {
        if let Some(retraction) = Retraction::of(record) {
            self.add(position, retraction, limit);
        }
    }

    fn add(&mut self, position: u64, retraction: Retraction, limit: usize) {
        if self.due.len() < limit {
            self.due.push_back((position, retraction));
        }
    }

    /// Nothing of it is under way.
    pub fn is_idle(&self) -> bool {
        self.due.is_empty()
    }

    /// When a failed attempt is due again, Unix milliseconds.
    pub fn due_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// The first one is looked after.
    fn done(&mut self) {
        self.due.pop_front();
        (self.look, self.retry_at, self.failures) = (None, None, 0);
        self.number += 1;
    }

    /// The index can't be read; what is asked for besides has its own answer.
    pub fn index_failed(&mut self, now: u64) {
        if !self.look.as_ref().is_some_and(|look| look.asked) {
            self.failed(now);
        }
    }

    /// The store does not answer: it is asked again later, or not any more. `true`: given up, and
    /// the row may be there all the same.
    fn failed(&mut self, now: u64) -> bool {
        if self.due.is_empty() {
            return false;
        }
        self.failures += 1;
        if self.failures >= TRIES {
            let found = self.look.as_ref().is_some_and(|look| look.found.is_some());
            self.done();
            return found;
        }
        let pause = FIRST_PAUSE_MS << (self.failures - 1);
        self.retry_at = Some(now.saturating_add(pause));
        false
    }

    /// The look that asked the store, now that it is answered.
    fn looked(&mut self, number: u64) -> Option<&mut Look> {
        let current = number == self.number;
        let look = self.look.as_deref_mut().filter(|_| current)?;
        look.asked = false;
        Some(look)
    }
}

impl User {
    /// Nothing is looked after any more.
    pub(super) fn drop_retractions(&mut self) {
        if self.retractions.0 != Retractions::default() {
            self.retractions.0 = Retractions {
                number: self.retractions.0.number + 1,
                ..Retractions::default()
            };
        }
    }

    /// Goes on with retractions as far as that is possible now.
    pub(super) fn drive_retractions(&mut self, cx: &mut Cx<'_>) {
        let paused = self.retractions.0.retry_at.is_some_and(|at| cx.now < at);
        if paused || !self.state.is_active() {
            return;
        }
        self.retractions.0.retry_at = None;
        while let Some((by, retraction)) = self.retractions.0.due.front() {
            if self.retractions.0.look.as_ref().is_some_and(|it| it.asked) {
                return;
            }
            let (by, retraction) = (*by, retraction.clone());
            if !self.want_index(cx) {
                return;
            }
            let look = self.retractions.0.look.take();
            let look = look.unwrap_or_else(|| Box::new(self.look_for(cx, by, &retraction)));
            match self.step_look(cx, look, &retraction.tombstone(by)) {
                Some(look) => self.retractions.0.look = Some(look),
                None => self.retractions.0.done(),
            }
        }
    }

    fn look_for(&self, cx: &Cx<'_>, by: u64, retraction: &Retraction) -> Look {
        let limits = &cx.home.limits;
        let filter = Filter::retracted(retraction, limits.kept_since(cx.now));
        let page = Page {
            before: by,
            ..Page::end(true)
        };
        let bounds = Bounds {
            floor: self.archive.floor(),
            next: self.log.next(),
            bytes: limits.archive_page_bytes,
        };
        Look {
            search: Search::new(&self.jid, filter, page, bounds),
            requests: 0,
            items: 0,
            asked: false,
            missed: false,
            found: None,
        }
    }

    /// Asks the store for what comes next; `None`: there is nothing more to do.
    fn step_look(
        &mut self,
        cx: &mut Cx<'_>,
        mut look: Box<Look>,
        tombstone: &Tombstone,
    ) -> Option<Box<Look>> {
        let number = Only(self.retractions.0.number);
        let index = self.seals.index()?;
        look.asked = true;
        if let Some((hit, stanza)) = look.search.newest() {
            // Sealed together: the segment has it, but the items of the log have not.
            let sealed = index.was_sealed_with(hit.position, tombstone.by)
                && hit.position <= self.delivered();
            let known = sealed || index.tombstone(hit.position).is_some();
            let full = index.tombstones.0.len() >= cx.home.limits.tombstones;
            if known || full || stanza.is_some_and(|it| was_replaced(&it)) {
                return None;
            }
            look.found = Some(hit.position);
            let op = Op::Put {
                item: tombstone.item(&self.jid.owner(), hit.position),
                condition: Condition::Absent,
                nonce: cx.rng.u128(),
            };
            self.begin(cx, Purpose::Retract { number }, op);
            return Some(look);
        }
        if look.requests >= REQUESTS || look.items >= ITEMS {
            return None;
        }
        match look.search.step(index) {
            Step::Ask(op) => self.begin(cx, Purpose::Retract { number }, op),
            Step::Fetch(op) => self.begin_blob(cx, Purpose::Retract { number }, op),
            Step::Give | Step::Missing | Step::Done => return None,
        }
        Some(look)
    }

    /// A page of the log was read, or a row written.
    pub(super) fn on_retract_store(
        &mut self,
        cx: &Cx<'_>,
        number: u64,
        result: Result<Outcome, StoreError>,
    ) {
        let Some(look) = self.retractions.0.looked(number) else {
            return;
        };
        match (look.found, result) {
            (None, Ok(Outcome::Page { items, next })) => {
                look.requests += 1;
                look.items += items.len();
                if look.search.on_page(&items, next).is_err() {
                    self.retractions.0.done();
                }
            }
            (Some(position), Ok(_)) => {
                if let Some((by, retraction)) = self.retractions.0.due.front() {
                    let tombstone = retraction.tombstone(*by);
                    self.seals.lay(position, tombstone);
                }
                self.retractions.0.done();
            }
            (Some(_), Err(StoreError::Conflict { existing, .. })) => {
                // Somebody else was there first, and the row says what is shown.
                let read = existing.and_then(|row| Tombstone::read(&row).ok().flatten());
                if let Some((position, tombstone)) = read {
                    self.seals.lay(position, tombstone);
                }
                self.retractions.0.done();
            }
            _ => {
                if self.retractions.0.failed(cx.now) {
                    self.seals.doubt_index();
                }
            }
        }
    }

    /// A segment arrived.
    pub(super) fn on_retract_blob(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<BlobOutcome, StoreError>,
    ) {
        let Some(look) = self.retractions.0.looked(number) else {
            return;
        };
        let goes_on = match result {
            Ok(BlobOutcome::Body(Some(object))) => {
                look.requests += 1;
                look.missed = false;
                let read = look.search.on_segment(object).is_ok();
                cx.work.tally.unreadable += u64::from(!read);
                read || look.search.do_without()
            }
            // The index may be out of date; once.
            Ok(BlobOutcome::Body(None)) if !look.missed => {
                look.missed = true;
                self.seals.doubt_index();
                true
            }
            Ok(_) => {
                cx.work.tally.unreadable += 1;
                look.search.do_without()
            }
            Err(_) => {
                self.retractions.0.failed(cx.now);
                return;
            }
        };
        if !goes_on {
            self.retractions.0.done();
        }
    }

    /// What is shown of a stored message: that it was retracted, if it was and the index is known.
    pub(super) fn as_left(&self, position: u64, stored: &Bytes) -> Bytes {
        let index = self.seals.index();
        let tombstone = index.and_then(|index| index.tombstone(position));
        let left = tombstone.and_then(|it| it.instead_of(stored));
        left.unwrap_or_else(|| stored.clone())
    }
}
