//! Finding one page of an archive: a machine that asks the store and gives messages out in order.
//!
//! It first finds out which messages the page has, keeping as many bytes of them as it may, and
//! then gives them one by one, so it can say which is the last before the first is sent. What it
//! could not keep it reads again when its turn comes. Memory: [`Bounds::bytes`] and one message, a
//! page of the store, and a few bytes for each message of the page.

use std::collections::VecDeque;

use bytes::Bytes;
use cirrus_jid::{BareJid, Jid};
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_stanza::Stanza;
use cirrus_store::{Direction as Order, Item, Op, SkRange};
use serde::{Deserialize, Serialize};

use super::request::Page;
use crate::log::{Content, Direction, LogError, MAX_RECORDS, Message, Record, decode};

/// Positions in which a time is looked for by reading them all, rather than by halving.
const SPAN: u32 = 128;
/// Requests after which a page that has something is given out though it is not full.
const REQUESTS: u32 = 4;
/// Items asked for at once where few of them may match.
const FILTERED_ITEMS: u32 = 2_048;
/// Items that a request may have to skip: those before the one that holds the first position,
/// references, and what is not archived.
const SPARE_ITEMS: u32 = MAX_RECORDS as u32 + 8;

/// Which messages are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    pub with: Option<With>,
    /// Not before this time, Unix milliseconds.
    pub start: u64,
    /// Not after this time.
    pub end: u64,
}

/// With whom (XEP-0313 section 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum With {
    /// With oneself.
    Own,
    /// With somebody, whatever the resource.
    Bare(BareJid),
    /// With that very address.
    Full(Jid),
}

impl With {
    /// With `jid`, in the archive of `owner`.
    pub fn new(jid: &Jid, owner: &BareJid) -> Self {
        match jid.bare() {
            bare if bare == *owner => Self::Own,
            bare if jid.is_bare() => Self::Bare(bare),
            _ => Self::Full(jid.clone()),
        }
    }

    fn matches(&self, message: &Message) -> bool {
        let own = message.direction == Direction::Own;
        match self {
            Self::Own => own,
            Self::Bare(bare) => !own && message.peer == *bare,
            Self::Full(jid) => {
                !own && message.peer == jid.bare() && {
                    let stanza = Stanza::from_stored(&message.stanza);
                    stanza.is_some_and(|stanza| {
                        let peer = match message.direction {
                            Direction::Out => stanza.to,
                            _ => stanza.from,
                        };
                        peer.as_ref() == Some(jid)
                    })
                }
            }
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            with: None,
            start: 0,
            end: u64::MAX,
        }
    }
}

impl Filter {
    /// Whether it lets every message through.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    fn matches(&self, record: &Record) -> bool {
        let Content::Message(message) = &record.content else {
            return false;
        };
        message.flags.archive
            && (self.start..=self.end).contains(&record.t)
            && self.with.as_ref().is_none_or(|with| with.matches(message))
    }
}

/// How much a search may keep.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// The log's next position.
    pub next: u64,
    /// Bytes of messages.
    pub bytes: usize,
}

/// A message of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub position: u64,
    /// When it was accepted, Unix milliseconds.
    pub t: u64,
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
    /// [`Search::front`] is the next message.
    Give,
    /// An id that was asked for is not in the archive.
    Missing,
    /// Everything was given.
    Done,
}

/// Where a search stands.
#[derive(Debug, Serialize, Deserialize)]
enum Stage {
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
#[derive(Debug, Serialize, Deserialize)]
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
    /// The page begins at a time.
    timed: bool,
    requests: u32,
    /// What was found, in the order of giving once that has begun.
    hits: VecDeque<(Hit, Option<Kept>)>,
    kept: usize,
    found: usize,
    ends: Option<(Hit, Hit)>,
    complete: bool,
}

/// Bytes that were read.
#[derive(Debug, Serialize, Deserialize)]
struct Kept(#[serde(with = "cirrus_store::raw")] Bytes);

impl Search {
    pub fn new(owner: &BareJid, filter: Filter, page: Page, bounds: Bounds) -> Self {
        let low = page.after.saturating_add(1);
        let high = page.before.min(bounds.next);
        let timed = match page.backward {
            true => filter.end < u64::MAX,
            false => filter.start > 0,
        };
        let stage = match &page.ids {
            Some(ids) => Stage::Check(ids.iter().copied().collect()),
            None if timed => Stage::Seek { low, high },
            None => Stage::Scan(None),
        };
        let mut search = Self {
            owner: owner.owner(),
            filter,
            page,
            bytes: bounds.bytes,
            low,
            high,
            stage,
            timed,
            requests: 0,
            hits: VecDeque::new(),
            kept: 0,
            found: 0,
            ends: None,
            complete: false,
        };
        if low >= high && search.page.ids.is_none() {
            search.finish(true);
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

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if let Stage::Seek { low, high } = self.stage
            && high.saturating_sub(low) <= u64::from(SPAN)
        {
            self.stage = Stage::Scan(None);
        }
        match &self.stage {
            Stage::Seek { low, high } => {
                let middle = low + (high - low) / 2;
                Step::Ask(self.query(middle, self.high, Order::Forward, 1, None))
            }
            Stage::Scan(after) => {
                let first = reach(self.low);
                let order = match self.page.backward {
                    true => Order::Backward,
                    false => Order::Forward,
                };
                let wanted = u32::try_from(self.page.max + 1 - self.hits.len().min(self.page.max));
                let limit = match self.filter.with {
                    Some(_) => FILTERED_ITEMS,
                    // A time was found to be within so many items.
                    None => wanted
                        .unwrap_or(u32::MAX)
                        .saturating_add(SPARE_ITEMS + SPAN * u32::from(self.timed)),
                };
                Step::Ask(self.query(first, self.high, order, limit, after.clone()))
            }
            Stage::Check(ids) => match ids.front() {
                Some(id) => Step::Ask(self.one(*id)),
                None => {
                    self.take_part();
                    self.step()
                }
            },
            Stage::Give => match self.hits.front() {
                None => Step::Done,
                Some((_, Some(_))) => Step::Give,
                Some((hit, None)) => Step::Ask(self.one(hit.position)),
            },
            Stage::Missing => Step::Missing,
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
            (Some((seq, t)), false) if t < self.filter.start => {
                self.low = seq + 1;
                *low = seq + 1;
            }
            (Some((seq, t)), true) if t > self.filter.end => {
                self.high = seq;
                *high = middle;
            }
            (Some(_), false) => *high = middle,
            (Some((seq, _)), true) => *low = seq + 1,
        }
        Ok(())
    }

    fn on_scan(&mut self, items: &[Item], next: Option<Bytes>) -> Result<(), LogError> {
        for item in items {
            let (seq, records) = decode(item)?;
            let mut records: Vec<_> = (seq..).zip(records).collect();
            if self.page.backward {
                records.reverse();
            }
            for (position, record) in records {
                if !(self.low..self.high).contains(&position) {
                    continue;
                }
                let past = match self.page.backward {
                    true => record.t < self.filter.start,
                    false => record.t > self.filter.end,
                };
                if past {
                    self.finish(true);
                    return Ok(());
                }
                if !self.filter.matches(&record) {
                    continue;
                }
                if self.hits.len() >= self.page.max {
                    self.finish(false);
                    return Ok(());
                }
                self.hit(position, &record);
            }
        }
        match next {
            None => self.finish(true),
            Some(_) if self.requests >= REQUESTS && !self.hits.is_empty() => self.finish(false),
            next => self.stage = Stage::Scan(next),
        }
        Ok(())
    }

    /// Whether the position in front is in the archive.
    fn on_check(&mut self, items: &[Item]) -> Result<(), LogError> {
        let Stage::Check(ids) = &mut self.stage else {
            return Ok(());
        };
        let Some(position) = ids.pop_front() else {
            return Ok(());
        };
        let archived = |record: &Record| {
            let message = record.as_message();
            message.is_some_and(|message| message.flags.archive)
        };
        match record_at(items, position)?.filter(archived) {
            None => self.stage = Stage::Missing,
            Some(record) => {
                let inside = (self.low..self.high).contains(&position);
                if inside && self.filter.matches(&record) {
                    self.hit(position, &record);
                }
            }
        }
        Ok(())
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
        let Some((hit, kept)) = self.hits.front_mut() else {
            return Ok(());
        };
        match record_at(items, hit.position)? {
            Some(Record {
                content: Content::Message(message),
                ..
            }) => {
                self.kept += message.stanza.len();
                *kept = Some(Kept(Bytes::copy_from_slice(&message.stanza)));
            }
            // It was removed since it was found.
            _ => drop(self.hits.pop_front()),
        }
        Ok(())
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

    /// The item that holds a position: the last one that begins at or before it.
    fn one(&self, position: u64) -> Op {
        let before = position.saturating_add(1);
        self.query(reach(position), before, Order::Backward, 1, None)
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
