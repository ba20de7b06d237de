//! Reading a log: its tail when it is loaded, and what waits for offline delivery.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_store::{Direction, Item, Op, SkRange};
use serde::{Deserialize, Serialize};

use super::LogError;
use super::record::{self, Content, MAX_RECORDS, Message, Record};
use crate::event::SessionId;

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
#[derive(Debug, Default, PartialEq, Eq)]
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
}

/// Loads the tail of a log: one strongly consistent query, unless everything it saw was expired.
#[derive(Debug, Serialize, Deserialize)]
pub struct TailReader {
    owner: Vec<u8>,
    floor: u64,
    #[serde(with = "cirrus_store::raw")]
    after: Option<Bytes>,
}

impl TailReader {
    /// A reader of the log of `owner`. `floor` = the last position of an erased account of that
    /// name, 0 if there was none: a new log starts above it.
    pub fn new(owner: &BareJid, floor: u64) -> Self {
        Self {
            owner: owner.owner(),
            floor,
            after: None,
        }
    }

    /// The query to carry out next.
    pub fn op(&self) -> Op {
        let range = SkRange::Between(archive::hot_sk(0).into(), archive::hot_sk(u64::MAX).into());
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
        if items.is_empty() && next.is_some() {
            self.after = next;
            return Ok(None);
        }
        let mut tail = Tail {
            next: self.floor + 1,
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
    /// The next messages, in order.
    Batch(Vec<Spooled>),
    /// That was all.
    Done,
}

/// Reads what waits for offline delivery, page by page: the spooled messages behind the cursor in
/// the order of the log, and where a record says that earlier ones must be delivered again, those.
/// No message comes twice. Memory: one page, and eight bytes for every message delivered.
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

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if let Some(run) = self.runs.front() {
            let first = run.first.saturating_sub(MAX_RECORDS as u64 - 1);
            return Step::Ask(self.ask(first, run.last, run.after.clone()));
        }
        let batch = self.deliver();
        if !batch.is_empty() {
            return Step::Batch(batch);
        }
        if !self.runs.is_empty() {
            return self.step();
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
            return Ok(());
        }
        if crate::planted::drop_page() && next.is_some() {
            records.clear();
        }
        self.page = records;
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
                        // What is found nowhere is older than the hot items.
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
