//! Finding one page of an archive: a machine that asks the store and gives messages out in order.
//!
//! It first finds out which messages the page has, keeping as many bytes of them as it may, and
//! then gives them one by one, so it can say which is the last before the first is sent. What it
//! could not keep it reads again when its turn comes. Memory: [`Bounds::bytes`] and one message, a
//! page of the store or a segment, and a few bytes for each message of the page.
//!
//! Positions up to the last sealed one are looked for in segments, and the index says in which of
//! them it is worth it; those above are items of the table. A log that is sealed meanwhile is found
//! wherever it is by then.

mod sealed;

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_store::{BlobOp, Direction as Order, Item, Op, SkRange};
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::request::Page;
use crate::log::{Content, Hit, LogError, MAX_RECORDS, Record, decode};
use crate::segment::Index;
use sealed::{Footer, Part};

/// Positions in which a time is looked for by reading them all, rather than by halving: about what
/// is not sealed yet.
const SPAN: u32 = 512;
/// Requests, for items and for segments together, after which a page that has something is given
/// out though it is not full.
const REQUESTS: u32 = 4;
/// Items asked for at once where few of them may match.
const FILTERED_ITEMS: u32 = 2_048;
/// Items asked for first where what is looked for was mostly said a moment ago.
const NEAR_ITEMS: u32 = 32;
/// Items that a request may have to skip: those before the one that holds the first position,
/// references, and what is not archived.
const SPARE_ITEMS: u32 = MAX_RECORDS as u32 + 8;

/// How much a search may keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The last position of an erased account of that name: what is there belongs to no archive.
    pub floor: u64,
    /// The log's next position.
    pub next: u64,
    /// Bytes of messages.
    pub bytes: usize,
}

/// A message to give out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub hit: Hit,
    #[serde(with = "cirrus_store::raw")]
    pub stanza: Bytes,
}

/// What a search wants or has.
#[derive(Debug)]
pub(crate) enum Step {
    /// Carry out this query and give its page to [`Search::on_page`].
    Ask(Op),
    /// Get this segment and give it to [`Search::on_segment`].
    Fetch(BlobOp),
    /// [`Search::front`] is the next message.
    Give,
    /// An id that was asked for is not in the archive.
    Missing,
    /// Everything was given.
    Done,
}

/// Where a search stands.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// Nothing was looked at.
    Begin,
    /// Looking for the place where a time begins or ends: between these positions.
    Seek {
        low: u64,
        high: u64,
    },
    /// Reading in the page's direction; where the store's next page starts.
    Scan(#[serde(with = "cirrus_store::raw")] Option<Bytes>),
    /// Looking whether these positions are there.
    Check(VecDeque<u64>),
    Give,
    Missing,
}

/// The search for one page.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Search {
    owner: Vec<u8>,
    filter: Filter,
    page: Page,
    bytes: usize,
    /// Matching messages are at or above this position …
    low: u64,
    /// … and below this one.
    high: u64,
    stage: Stage,
    /// Where reading goes on: at this position, or, backward, below it.
    at: u64,
    /// The last sealed position, when that was last looked at.
    sealed: u64,
    /// The segment that was asked for.
    fetching: Option<Part>,
    /// Where the frames of a joined segment are.
    footer: Option<Footer>,
    /// Digests that turned out to have nothing with the peer, by their last positions.
    without: Vec<u64>,
    /// The page begins at a time.
    timed: bool,
    requests: u32,
    objects: u32,
    /// What was found, in the order of giving once that has begun.
    hits: VecDeque<(Hit, Option<Kept>)>,
    kept: usize,
    found: usize,
    ends: Option<(Hit, Hit)>,
    complete: bool,
}

/// Bytes that were read.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept(#[serde(with = "cirrus_store::raw")] Bytes);

impl Search {
    pub fn new(owner: &BareJid, filter: Filter, page: Page, bounds: Bounds) -> Self {
        let low = page.after.max(bounds.floor).saturating_add(1);
        let high = page.before.min(bounds.next);
        let timed = match page.backward {
            true => filter.end < u64::MAX,
            // An id that is asked from is hardly older than what is kept.
            false => filter.start > 0 || filter.kept > 0 && page.after == 0,
        };
        let mut search = Self {
            owner: owner.owner(),
            filter,
            page,
            bytes: bounds.bytes,
            low,
            high,
            at: 0,
            sealed: 0,
            fetching: None,
            footer: None,
            without: Vec::new(),
            stage: Stage::Begin,
            timed,
            requests: 0,
            objects: 0,
            hits: VecDeque::new(),
            kept: 0,
            found: 0,
            ends: None,
            complete: false,
        };
        search.at = if search.page.backward { high } else { low };
        if low >= high && search.page.ids.is_none() {
            search.finish(true);
        }
        if search.page.is_asked_by(1..=bounds.floor) {
            search.stage = Stage::Missing;
        }
        search
    }

    /// The first and the last message of the page in the order of the archive, once found.
    pub fn ends(&self) -> Option<(Hit, Hit)> {
        self.ends
    }

    /// Nothing matches beyond the page, in its direction.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// How many messages match in all, where the page has them all.
    pub fn count(&self) -> Option<u64> {
        let whole = self.page.after == 0 && self.page.before == u64::MAX;
        (self.complete && whole).then_some(self.found as u64)
    }

    /// What to do next, by the index as it is now.
    pub fn step(&mut self, index: &Index) -> Step {
        self.sealed = index.sealed();
        if matches!(self.stage, Stage::Begin) {
            self.begin(index);
        }
        if let Stage::Seek { low, high } = self.stage
            && high.saturating_sub(low) <= u64::from(SPAN)
        {
            self.stage = Stage::Scan(None);
        }
        match &self.stage {
            Stage::Begin | Stage::Missing => Step::Missing,
            Stage::Seek { low, high } => {
                let middle = low + (high - low) / 2;
                Step::Ask(self.query(middle, self.high, Order::Forward, 1, None))
            }
            Stage::Scan(_) => self.scan(index),
            Stage::Check(ids) => match ids.front().copied() {
                Some(id) => self.one(index, id),
                None => {
                    self.take_part();
                    self.step(index)
                }
            },
            Stage::Give => match self.hits.front() {
                None => Step::Done,
                Some((_, Some(_))) => Step::Give,
                Some((hit, None)) => self.one(index, hit.position),
            },
        }
    }

    /// Decides where to begin.
    fn begin(&mut self, index: &Index) {
        if let Some(ids) = &self.page.ids {
            self.stage = Stage::Check(ids.iter().copied().collect());
            return;
        }
        if self.filter.kept > 0 && self.leave_out(index.gone_to(self.filter.kept)) {
            return;
        }
        self.stage = Stage::Scan(None);
        let newest = index.rows().last().map(|row| row.last_t);
        let hot = self.low.max(self.sealed.saturating_add(1));
        if !self.timed || hot >= self.high {
            return;
        }
        // Times never go back along a log: the newest segment says on which side of its end the
        // time is.
        match self.page.backward {
            true if newest.is_some_and(|t| self.filter.end < t) => self.at = hot,
            false if newest.is_some_and(|t| self.filter.from() <= t) => {}
            backward => {
                if !backward {
                    self.at = hot;
                }
                self.stage = Stage::Seek {
                    low: hot,
                    high: self.high,
                };
            }
        }
    }

    /// What stands up to this position is not kept. `true`: the page is asked for by an id there.
    fn leave_out(&mut self, gone: u64) -> bool {
        if self.page.is_asked_by(1..=gone) {
            self.stage = Stage::Missing;
            return true;
        }
        self.low = self.low.max(gone.saturating_add(1));
        if !self.page.backward {
            self.at = self.at.max(self.low);
        }
        false
    }

    /// The next thing to read in the page's direction.
    fn scan(&mut self, index: &Index) -> Step {
        let (hot, over) = match self.page.backward {
            true => (self.at > self.sealed.saturating_add(1), self.at <= self.low),
            false => (self.at > self.sealed, self.at >= self.high),
        };
        if over {
            self.finish(true);
            return self.step(index);
        }
        if hot {
            return Step::Ask(self.scan_hot());
        }
        let found = match self.page.backward {
            true => self.segment_below(index),
            false => self.segment_above(index),
        };
        match found {
            // It has more, and what is not in the page need not be read.
            Some(row) if self.is_full() && self.has_all(&row) => {
                self.finish(false);
                self.step(index)
            }
            Some(row) => self.fetch_for(index, &row),
            None => self.step(index),
        }
    }

    fn is_full(&self) -> bool {
        self.hits.len() >= self.page.max
    }

    fn scan_hot(&self) -> Op {
        let wanted = u32::try_from(self.page.max + 1 - self.hits.len().min(self.page.max));
        let limit = match self.filter.with {
            Some(_) if self.filter.retracted.0.is_some() && self.requests == 0 => NEAR_ITEMS,
            Some(_) => FILTERED_ITEMS,
            // A time was found to be within so many items.
            None => wanted
                .unwrap_or(u32::MAX)
                .saturating_add(SPARE_ITEMS + SPAN * u32::from(self.timed)),
        };
        let after = match &self.stage {
            Stage::Scan(after) => after.clone(),
            _ => None,
        };
        match self.page.backward {
            true => {
                let first = reach(self.low.max(self.sealed.saturating_add(1)));
                self.query(first, self.at, Order::Backward, limit, after)
            }
            false => self.query(reach(self.at), self.high, Order::Forward, limit, after),
        }
    }

    /// The message that is given next, after [`Step::Give`].
    pub fn front(&self) -> Option<Found> {
        let (hit, kept) = self.hits.front()?;
        Some(Found {
            hit: *hit,
            stanza: kept.as_ref()?.0.clone(),
        })
    }

    /// The message was given.
    pub fn pop(&mut self) {
        if let Some((_, Some(kept))) = self.hits.pop_front() {
            self.kept = self.kept.saturating_sub(kept.0.len());
        }
    }

    /// Takes the page that [`Step::Ask`] asked for.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the item that can't be understood.
    pub fn on_page(&mut self, items: &[Item], next: Option<Bytes>) -> Result<(), LogError> {
        self.requests += u32::from(matches!(self.stage, Stage::Scan(_)));
        match &self.stage {
            Stage::Begin => Ok(()),
            Stage::Seek { .. } => self.on_probe(items),
            Stage::Scan(_) => self.on_scan(items, next),
            Stage::Check(_) => self.on_check(items),
            Stage::Give => self.on_refill(items),
            Stage::Missing => Ok(()),
        }
    }

    /// An item in the middle says on which side the time begins or ends.
    fn on_probe(&mut self, items: &[Item]) -> Result<(), LogError> {
        let Stage::Seek { low, high } = &mut self.stage else {
            return Ok(());
        };
        let middle = *low + (*high - *low) / 2;
        let probe = match items.first() {
            Some(item) => {
                let (seq, records) = decode(item)?;
                records.first().map(|record| (seq, record.t))
            }
            None => None,
        };
        // Times never go back along a log.
        match (probe, self.page.backward) {
            (None, _) => *high = middle,
            (Some((seq, t)), false) if t < self.filter.from() => {
                self.at = seq + 1;
                *low = seq + 1;
            }
            (Some((seq, t)), true) if t > self.filter.end => {
                self.at = seq;
                *high = middle;
            }
            (Some(_), false) => *high = middle,
            (Some((seq, _)), true) => *low = seq + 1,
        }
        Ok(())
    }

    fn on_scan(&mut self, items: &[Item], next: Option<Bytes>) -> Result<(), LogError> {
        let mut end = self.at;
        for item in items {
            let (seq, records) = decode(item)?;
            end = match self.page.backward {
                true => seq,
                false => seq.saturating_add(records.len() as u64),
            };
            let reach = match self.page.backward {
                true => self.low.max(self.sealed.saturating_add(1))..self.at,
                false => self.at..self.high,
            };
            if self.look_through(&reach, (seq..).zip(records).collect()) {
                return Ok(());
            }
        }
        match next {
            None => {
                self.at = match self.page.backward {
                    true => self.sealed.saturating_add(1),
                    false => self.high,
                };
                self.stage = Stage::Scan(None);
            }
            Some(_) if self.requests + self.objects >= REQUESTS && !self.hits.is_empty() => {
                self.finish(false);
            }
            next => {
                // The first items may all lie before the place where this has begun.
                self.at = match self.page.backward {
                    true => self.at.min(end),
                    false => self.at.max(end),
                };
                self.stage = Stage::Scan(next);
            }
        }
        Ok(())
    }

    /// Takes the messages of the page out of these records. `true`: the page is known.
    fn look_through(&mut self, reach: &Range<u64>, mut records: Vec<(u64, Record)>) -> bool {
        if self.page.backward {
            records.reverse();
        }
        for (position, record) in records {
            if !reach.contains(&position) {
                continue;
            }
            let past = match self.page.backward {
                true => record.t < self.filter.from(),
                false => record.t > self.filter.end,
            };
            if past {
                self.finish(true);
                return true;
            }
            if !self.filter.matches(&record) {
                continue;
            }
            if self.hits.len() >= self.page.max {
                self.finish(false);
                return true;
            }
            self.hit(position, &record);
        }
        false
    }

    /// Whether the position in front is in the archive.
    fn on_check(&mut self, items: &[Item]) -> Result<(), LogError> {
        if let Stage::Check(ids) = &self.stage
            && let Some(position) = ids.front().copied()
        {
            let record = record_at(items, position)?;
            self.checked(record.map(|record| (position, record)));
        }
        Ok(())
    }

    /// What stands at the position in front.
    fn checked(&mut self, found: Option<(u64, Record)>) {
        let Stage::Check(ids) = &mut self.stage else {
            return;
        };
        ids.pop_front();
        let kept = self.filter.kept;
        let archived = |(_, record): &(u64, Record)| record.is_archived() && record.t >= kept;
        match found.filter(archived) {
            None => self.stage = Stage::Missing,
            Some((position, record)) => {
                let inside = (self.low..self.high).contains(&position);
                if inside && self.filter.matches(&record) {
                    self.hit(position, &record);
                }
            }
        }
    }

    /// All ids are there: takes the part of them that the page wants.
    fn take_part(&mut self) {
        let beyond = self.hits.len().saturating_sub(self.page.max);
        match self.page.backward {
            true => drop(self.hits.drain(..beyond)),
            false => self.hits.truncate(self.page.max),
        }
        self.page.backward = false;
        self.finish(beyond == 0);
    }

    fn on_refill(&mut self, items: &[Item]) -> Result<(), LogError> {
        if let Some((hit, _)) = self.hits.front() {
            let record = record_at(items, hit.position)?;
            self.refill(0, record);
        }
        Ok(())
    }

    fn refill(&mut self, index: usize, record: Option<Record>) {
        match (record, self.hits.get_mut(index)) {
            (
                Some(Record {
                    content: Content::Message(message),
                    ..
                }),
                Some((_, kept)),
            ) => {
                self.kept += message.stanza.len();
                *kept = Some(Kept(Bytes::copy_from_slice(&message.stanza)));
            }
            // It was removed since it was found.
            _ => drop(self.hits.remove(index)),
        }
    }

    fn hit(&mut self, position: u64, record: &Record) {
        let Some(message) = record.as_message() else {
            return;
        };
        let fits = self.kept + message.stanza.len() <= self.bytes;
        let kept = fits.then(|| {
            self.kept += message.stanza.len();
            // The item's buffer holds other records too.
            Kept(Bytes::copy_from_slice(&message.stanza))
        });
        let t = record.t;
        self.hits.push_back((Hit { position, t }, kept));
    }

    /// The page is known: from now on it is given out.
    fn finish(&mut self, complete: bool) {
        self.complete = complete;
        self.found = self.hits.len();
        let hits = self.hits.make_contiguous();
        if self.page.backward {
            hits.reverse();
        }
        let ends = hits.first().zip(hits.last());
        self.ends = ends.map(|((first, _), (last, _))| (*first, *last));
        if self.page.flip {
            hits.reverse();
        }
        self.stage = Stage::Give;
    }

    /// Asks for a position: for its segment, or for the last item that begins at or before it.
    fn one(&mut self, index: &Index, position: u64) -> Step {
        if position > self.sealed {
            let before = position.saturating_add(1);
            return Step::Ask(self.query(reach(position), before, Order::Backward, 1, None));
        }
        match index.of(position).filter(|row| self.is_kept(row)).cloned() {
            Some(row) => self.fetch(&row),
            // It is older than what is kept.
            None => {
                match self.stage {
                    Stage::Check(_) => self.stage = Stage::Missing,
                    _ => drop(self.hits.pop_front()),
                }
                self.step(index)
            }
        }
    }

    fn query(&self, first: u64, before: u64, order: Order, limit: u32, after: Option<Bytes>) -> Op {
        let last = before.saturating_sub(1);
        Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&self.owner).into(),
            range: SkRange::Between(archive::hot_sk(first).into(), archive::hot_sk(last).into()),
            direction: order,
            limit: Some(limit),
            after,
        }
    }
}

/// The lowest position at which an item that holds `position` may begin.
fn reach(position: u64) -> u64 {
    position.saturating_sub(MAX_RECORDS as u64 - 1)
}

fn record_at(items: &[Item], position: u64) -> Result<Option<Record>, LogError> {
    let Some(item) = items.first() else {
        return Ok(None);
    };
    let (seq, records) = decode(item)?;
    let index = position
        .checked_sub(seq)
        .and_then(|at| usize::try_from(at).ok());
    Ok(index.and_then(|index| records.into_iter().nth(index)))
}

#[cfg(test)]
#[path = "search/tests.rs"]
mod tests;
