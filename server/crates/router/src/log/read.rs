//! Reading a log: its tail when it is loaded, and what waits for offline delivery.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_store::{BlobOp, Direction, Item, Op, SkRange};
use serde::{Deserialize, Serialize};

use super::LogError;
use super::record::{self, Content, MAX_RECORDS, Message, Record};
use crate::event::SessionId;
use crate::segment::{Index, Row, Segment, SegmentError};

/// The first position of a log. So an offline cursor of 0 means "nothing was delivered".
const FIRST: u64 = 1;
/// Items of the tail that are read when a log is loaded: enough for what was said in the last
/// minutes, and at a hundred bytes a message one or two read units.
const TAIL_ITEMS: u32 = 32;
/// Items that one request for offline delivery reads, unless a page of the store holds fewer.
const PAGE_ITEMS: u32 = 256;
/// Positions to deliver again that lie further apart than this are fetched by separate requests.
const RUN_GAP: u64 = 64;

/// Where a log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// The next position.
    pub next: u64,
    /// Time of the last record, Unix milliseconds; 0 in an empty log.
    pub last_t: u64,
    /// The highest k of every session that a record of the tail came from: what is at or below it
    /// was taken before.
    pub origins: BTreeMap<SessionId, u64>,
    /// The last records, ascending, with their positions; not more than a page of them.
    pub records: Vec<(u64, Record)>,
    /// When the last item expires, Unix seconds.
    pub expires: Option<u64>,
}

/// Loads the tail of a log: one strongly consistent query, unless everything it saw was expired.
/// Items expire in their order, so if the last one that is there will expire too, none behind it
/// has. Otherwise the log may go on behind it, and the last row of the index says up to where.
#[derive(Debug, Serialize, Deserialize)]
pub struct TailReader {
    owner: Vec<u8>,
    floor: u64,
    #[serde(with = "cirrus_store::raw")]
    after: Option<Bytes>,
    /// The items say this; the index is asked.
    hot: Option<Tail>,
}

impl TailReader {
    /// A reader of the log of `owner`. `floor` = the last position of an erased account of that
    /// name, 0 if there was none: a new log begins right behind it, and what stands before is
    /// nobody's, for instance of a put that was given up and landed when all was removed.
    pub fn new(owner: &BareJid, floor: u64) -> Self {
        Self {
            owner: owner.owner(),
            floor,
            after: None,
            hot: None,
        }
    }

    /// The query to carry out next.
    pub fn op(&self) -> Op {
        if self.hot.is_some() {
            let (first, last) = (archive::segment_sk(0), archive::segment_sk(u64::MAX));
            let range = SkRange::Between(first.into(), last.into());
            return query(&self.owner, range, Direction::Backward, 1, None);
        }
        let (first, last) = archive::hot_from(self.floor.saturating_add(1));
        let range = SkRange::Between(first.into(), last.into());
        query(
            &self.owner,
            range,
            Direction::Backward,
            TAIL_ITEMS,
            self.after.clone(),
        )
    }

    /// Takes a page; `None` = ask [`TailReader::op`] again.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] or [`LogError::Gap`] name the item that can't be understood.
    pub fn on_page(
        &mut self,
        items: &[Item],
        next: Option<Bytes>,
    ) -> Result<Option<Tail>, LogError> {
        if let Some(tail) = self.hot.take() {
            return Ok(Some(tail.behind(items.first())));
        }
        if items.is_empty() && next.is_some() {
            self.after = next;
            return Ok(None);
        }
        let mut tail = Tail {
            next: self.floor.saturating_add(1),
            expires: items.first().and_then(|item| item.expires),
            ..Tail::default()
        };
        let mut expected = None;
        for item in items.iter().rev() {
            let (seq, records) = record::decode(item)?;
            match expected {
                Some(expected) if expected != seq => {
                    return Err(LogError::Gap {
                        key: item.key.clone(),
                        expected,
                    });
                }
                _ => expected = Some(seq + records.len() as u64),
            }
            for (position, record) in (seq..).zip(records) {
                tail.add(position, record);
            }
        }
        tail.next = expected.unwrap_or(FIRST).max(tail.next);
        if tail.expires.is_none() {
            self.hot = Some(tail);
            return Ok(None);
        }
        Ok(Some(tail))
    }
}

impl Tail {
    /// How many messages wait for offline delivery behind `cursor`; `None` when the tail does not
    /// reach back that far.
    pub fn spooled_after(&self, cursor: u64) -> Option<usize> {
        let first = self
            .records
            .first()
            .map_or(self.next, |(position, _)| *position);
        if first > cursor + 1 && first > FIRST {
            return None;
        }
        let behind = self
            .records
            .iter()
            .filter(|(position, _)| *position > cursor);
        let waiting = behind.map(|(_, record)| match &record.content {
            Content::Message(message) => usize::from(message.flags.spool),
            Content::Respool(positions) => positions.len(),
        });
        Some(waiting.sum())
    }

    /// The tail of a log that had that position. Where nothing of it is left, neither in items nor
    /// in segments, its end is known from elsewhere only, and no position may be used twice.
    #[must_use]
    pub fn not_before(mut self, position: u64) -> Self {
        // Otherwise it says itself where it ends, and a gap behind that would be a fault.
        if self.records.is_empty() {
            self.next = self.next.max(position.saturating_add(1));
        }
        self
    }

    /// The tail, if it is not behind the last sealed position.
    fn behind(mut self, newest: Option<&Item>) -> Self {
        let last = newest.and_then(|row| archive::segment_last(&row.key.sk));
        if let (Some(row), Some(last)) = (newest, last)
            && last >= self.next
        {
            self.next = last + 1;
            self.last_t = self.last_t.max(row.attrs.get_n("b").unwrap_or(0));
            self.records.clear();
        }
        self
    }

    fn add(&mut self, position: u64, record: Record) {
        self.last_t = self.last_t.max(record.t);
        if let Content::Message(Message {
            origin: Some(origin),
            ..
        }) = &record.content
        {
            let highest = self.origins.entry(origin.session).or_default();
            *highest = origin.k.max(*highest);
        }
        self.records.push((position, record));
    }
}

/// A message for offline delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// Where it is in the log.
    pub position: u64,
    /// When it was accepted, Unix milliseconds.
    pub t: u64,
    /// The message.
    pub message: Message,
}

/// What a [`SpoolReader`] wants or has.
#[derive(Debug)]
pub enum Step {
    /// Carry out this query and give its page to [`SpoolReader::on_page`].
    Ask(Op),
    /// Get this segment and give it to [`SpoolReader::on_segment`].
    Fetch(BlobOp),
    /// Say again with the index.
    Index,
    /// The next messages, in order.
    Batch(Vec<Spooled>),
    /// That was all.
    Done,
}

/// Reads what waits for offline delivery, page by page: the spooled messages behind the cursor in
/// the order of the log, and where a record says that earlier ones must be delivered again, those.
/// No message comes twice. What has expired is read from segments. Memory: one page, one segment,
/// and eight bytes for every message delivered.
#[derive(Debug, Serialize, Deserialize)]
pub struct SpoolReader {
    owner: Vec<u8>,
    cursor: u64,
    end: u64,
    page_items: u32,
    /// Where the scan goes on; `None` at the end.
    #[serde(with = "cirrus_store::raw")]
    scan: Option<Option<Bytes>>,
    /// The page in hand, and how far it was worked through.
    page: BTreeMap<u64, Record>,
    read_to: u64,
    delivered: BTreeSet<u64>,
    /// Positions to deliver again that the page lacks, and the requests that fetch them.
    wanted: BTreeSet<u64>,
    fetched: BTreeMap<u64, Record>,
    runs: VecDeque<Run>,
    /// Wanted positions whose items have expired.
    expired: BTreeSet<u64>,
    /// Positions before the page in `held` whose items have expired.
    older: Option<(u64, u64)>,
    held: BTreeMap<u64, Record>,
    /// The first position that the next page should have.
    scan_next: u64,
    /// The segment that was asked for.
    fetching: Option<Part>,
}

/// What of a segment counts, and whether for references or for the page.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    first: u64,
    last: u64,
    again: bool,
}

/// Positions that one query fetches, and where its next page starts.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    first: u64,
    last: u64,
    #[serde(with = "cirrus_store::raw")]
    after: Option<Bytes>,
}

impl SpoolReader {
    /// A reader of what was not delivered yet: everything above `cursor` and below `end`, which
    /// is the log's next position, or `u64::MAX` to go on to whatever is there by then.
    pub fn new(owner: &BareJid, cursor: u64, end: u64) -> Self {
        Self {
            owner: owner.owner(),
            cursor,
            end,
            page_items: PAGE_ITEMS,
            scan: (cursor + 1 < end).then_some(None),
            page: BTreeMap::new(),
            read_to: cursor,
            delivered: BTreeSet::new(),
            wanted: BTreeSet::new(),
            fetched: BTreeMap::new(),
            runs: VecDeque::new(),
            expired: BTreeSet::new(),
            older: None,
            held: BTreeMap::new(),
            scan_next: cursor + 1,
            fetching: None,
        }
    }

    /// With pages of so many items.
    #[must_use]
    pub fn with_page_items(self, page_items: u32) -> Self {
        Self { page_items, ..self }
    }

    /// Everything that waits up to this position was given out.
    pub fn read_to(&self) -> u64 {
        self.read_to
    }

    /// What to do next; with the index, if it is known.
    pub(crate) fn step(&mut self, index: Option<&Index>) -> Step {
        if let Some(run) = self.runs.front() {
            let first = run.first.saturating_sub(MAX_RECORDS as u64 - 1);
            return Step::Ask(self.ask(first, run.last, run.after.clone()));
        }
        if let Some(step) = self.fetch_expired(index) {
            return step;
        }
        let batch = self.deliver();
        if !batch.is_empty() {
            return Step::Batch(batch);
        }
        if !self.runs.is_empty() {
            return self.step(index);
        }
        if let Some(step) = self.fetch_older(index) {
            return step;
        }
        match &self.scan {
            Some(after) => {
                // The item that holds the first wanted record may begin 15 before it.
                let first = (self.cursor + 1).saturating_sub(MAX_RECORDS as u64 - 1);
                Step::Ask(self.ask(first, self.end.saturating_sub(1), after.clone()))
            }
            None => Step::Done,
        }
    }

    /// Segments that have what a record refers to.
    fn fetch_expired(&mut self, index: Option<&Index>) -> Option<Step> {
        while let Some(position) = self.expired.first().copied() {
            let Some(index) = index else {
                return Some(Step::Index);
            };
            match index.of(position).filter(|row| !row.is_gone()) {
                Some(row) => return Some(self.fetch(row, true)),
                // It is older than what is kept.
                None => drop(self.expired.remove(&position)),
            }
        }
        None
    }

    /// Segments that come before the page in hand.
    fn fetch_older(&mut self, index: Option<&Index>) -> Option<Step> {
        let (first, end) = self.older?;
        let Some(index) = index else {
            return Some(Step::Index);
        };
        let rows = index.rows().get(index.at_or_after(first)..)?;
        let row = rows.iter().find(|row| !row.is_gone());
        match row.filter(|row| row.from < end) {
            Some(row) => Some(self.fetch(row, false)),
            None => {
                self.older = None;
                self.page = std::mem::take(&mut self.held);
                Some(self.step(Some(index)))
            }
        }
    }

    fn fetch(&mut self, row: &Row, again: bool) -> Step {
        self.fetching = Some(Part {
            first: row.from,
            last: row.last,
            again,
        });
        Step::Fetch(BlobOp::Get {
            at: row.object(&self.owner),
            range: None,
        })
    }

    /// Takes the segment that [`Step::Fetch`] asked for.
    ///
    /// # Errors
    /// [`SegmentError`] when it is none.
    pub fn on_segment(&mut self, object: Bytes) -> Result<(), SegmentError> {
        let Some(part) = &self.fetching else {
            return Ok(());
        };
        let positions = part.first..part.last.saturating_add(1);
        let read = Segment::open(object)?.records(&positions)?.into_iter();
        if part.again {
            let wanted = &self.wanted;
            let read = read.filter(|(position, _)| wanted.contains(position));
            self.fetched.extend(read);
        } else {
            let before = self.older.map_or(0, |(_, before)| before);
            self.page = read.filter(|(position, _)| *position < before).collect();
        }
        self.skip_segment();
        Ok(())
    }

    /// Forgets what was asked for: it is asked for again, by another index.
    pub fn ask_again(&mut self) {
        self.fetching = None;
    }

    /// Goes on behind the segment that [`Step::Fetch`] asked for.
    pub fn skip_segment(&mut self) {
        let Some(part) = self.fetching.take() else {
            return;
        };
        if part.again {
            let inside = part.first..=part.last;
            self.expired.retain(|position| !inside.contains(position));
        } else if let Some((first, _)) = &mut self.older {
            *first = part.last.saturating_add(1);
        }
    }

    fn ask(&self, first: u64, last: u64, after: Option<Bytes>) -> Op {
        let range = SkRange::Between(archive::hot_sk(first).into(), archive::hot_sk(last).into());
        query(
            &self.owner,
            range,
            Direction::Forward,
            self.page_items,
            after,
        )
    }

    /// Takes the page that [`Step::Ask`] asked for.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the item that can't be understood.
    pub fn on_page(&mut self, items: &[Item], next: Option<Bytes>) -> Result<(), LogError> {
        let mut records = BTreeMap::new();
        for item in items {
            let (seq, read) = record::decode(item)?;
            records.extend((seq..).zip(read));
        }
        if let Some(run) = self.runs.front_mut() {
            records.retain(|position, _| self.wanted.contains(position));
            self.fetched.append(&mut records);
            match next {
                Some(_) => run.after = next,
                None => drop(self.runs.pop_front()),
            }
            if self.runs.is_empty() {
                let found = |position: &&u64| !self.fetched.contains_key(position);
                self.expired = self.wanted.iter().filter(found).copied().collect();
            }
            return Ok(());
        }
        if crate::planted::drop_page() && next.is_some() {
            records.clear();
        }
        let due = self.scan_next;
        let first = records.range(due..).next().map(|(position, _)| *position);
        // Items expire in the order of their positions: what is not there before the first one
        // that is, or before the end, is in segments.
        let first = first.or(next.is_none().then_some(self.end)).unwrap_or(due);
        if let Some((last, _)) = records.last_key_value() {
            self.scan_next = due.max(*last + 1);
        }
        if first > due {
            self.older = Some((due, first));
            self.held = records;
        } else {
            self.page = records;
        }
        self.scan = next.map(Some);
        Ok(())
    }

    /// Works through the page in hand up to a record that needs others fetched first.
    fn deliver(&mut self) -> Vec<Spooled> {
        let mut batch = Vec::new();
        for (position, record) in self.page.range(self.read_to + 1..self.end) {
            match &record.content {
                Content::Message(message) => {
                    if message.flags.spool && self.delivered.insert(*position) {
                        batch.push(spooled(*position, record.t, message));
                    }
                }
                Content::Respool(again) => {
                    let missing = again.iter().filter(|position| {
                        let known = self.wanted.contains(position);
                        !known
                            && !self.delivered.contains(position)
                            && !self.page.contains_key(position)
                    });
                    let missing: Vec<u64> = missing.copied().collect();
                    if !missing.is_empty() {
                        self.runs = runs(&missing);
                        self.wanted.extend(missing);
                        return batch;
                    }
                    for again in again {
                        let found = self.page.get(again).or_else(|| self.fetched.get(again));
                        // What is found nowhere is older than what is kept.
                        if let Some(Record {
                            t,
                            content: Content::Message(message),
                        }) = found
                            && self.delivered.insert(*again)
                        {
                            batch.push(spooled(*again, *t, message));
                        }
                    }
                }
            }
            self.read_to = *position;
        }
        self.page.clear();
        self.fetched.clear();
        self.wanted.clear();
        batch
    }
}

fn spooled(position: u64, t: u64, message: &Message) -> Spooled {
    Spooled {
        position,
        t,
        message: message.clone(),
    }
}

/// Groups ascending positions into stretches worth one query each.
fn runs(positions: &[u64]) -> VecDeque<Run> {
    let mut runs: VecDeque<Run> = VecDeque::new();
    for position in positions {
        match runs.back_mut() {
            Some(run) if position - run.last <= RUN_GAP => run.last = *position,
            _ => runs.push_back(Run {
                first: *position,
                last: *position,
                after: None,
            }),
        }
    }
    runs
}

fn query(
    owner: &[u8],
    range: SkRange,
    direction: Direction,
    limit: u32,
    after: Option<Bytes>,
) -> Op {
    Op::Query {
        table: TableId::Archive,
        pk: archive::partition(owner).into(),
        range,
        direction,
        limit: Some(limit),
        after,
    }
}
