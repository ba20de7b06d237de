//! Sealing: what a log has gathered becomes a [segment](crate::segment), an object in the store of
//! blobs and a row in the index.
//!
//! A full segment is made when the log has passed a multiple of [`Limits::seal_records`]; when the
//! log is due, the rest is sealed too, together with the newest segment if that is not full. So at
//! most one segment of a log is not full, but for those behind which the log has a gap.
//!
//! The steps are: read the log's items, put the object, insert its row, remove the rows that it
//! covers and then their objects. So no row is ever without its object. Each can be repeated,
//! because an object is named after its content and a row after its last position; whatever fails,
//! all of it begins anew with the index. Items are never removed here: they expire
//! ([`Cover`](crate::log::Cover)), so until the row is there, and long after, they are there too.
//!
//! When nothing is left to seal, and sixteen segments and one are in no digest, the next
//! [digest](crate::segment::Digest) is made in the same steps: read, put, insert, remove what is
//! covered. Whoever waits for the sealing is answered before.
//!
//! The index is read when it is first needed and then kept up to date, for queries too.
//!
//! Limits: one segment is in memory at a time, [`Limits::seal_bytes`] and one item unpacked, or one
//! and a digest.

mod chores;
mod digest;
mod index;
mod join;
mod tombstone;

use bytes::Bytes;
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_store::{BlobOp, BlobOutcome, Condition, Direction, Op, Outcome, SkRange, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use super::session::Session;
use crate::codec::{Only, Since};
use crate::event::{Effect, Token};
use crate::home::{Cx, HomeConfig, Limits, Purpose};
use crate::log::{MAX_RECORDS, Record, decode};
use crate::planted;
use crate::segment::{self, Digest, Index, Row, Segment};
use chores::Chore;
use join::Joining;

/// Pause after a failure; it doubles.
const FIRST_PAUSE_MS: u64 = 1_000;
const LAST_PAUSE_MS: u64 = 300_000;

/// Bytes of a record's stanza, which is most of it.
fn bytes_of(record: &Record) -> usize {
    record.as_message().map_or(0, |it| it.stanza.len())
}

/// Whether these are enough for a segment.
fn is_full(home: &HomeConfig, records: &[Record], bytes: usize) -> bool {
    records.len() as u64 >= home.limits.seal_records || bytes >= home.limits.seal_bytes
}

/// Where sealing stands.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Seals {
    index: Known,
    /// Tells the answers of one attempt from those of one before.
    number: u64,
    /// The same of readings of the index.
    readings: u64,
    under_way: Option<Stage>,
    /// How many full segments' worth the log had when that was last looked at.
    mark: u64,
    /// Who waits until the log is sealed up to a position.
    waiting: Vec<(Token, u64)>,
    /// What else is done for who waits.
    chore: Chore,
    /// The object of this row, which is not in the index any more, could not be removed yet.
    left: Option<Box<Row>>,
    /// Tombstones that have done their work in the segment under way, with what their messages are
    /// found by; and those whose rows may go.
    laid: Since<10, Vec<(u64, u32)>>,
    spent: Since<10, Vec<u64>>,
    retry_at: Option<u64>,
    pause: u64,
    /// A segment can't be read: no digest is made until the account is loaded again, and no
    /// segments are joined.
    no_digest: bool,
    /// Segments that were joined in one go.
    joined: u32,
}

/// What is known of the index.
#[derive(Default, Serialize, Deserialize)]
enum Known {
    #[default]
    Nothing,
    Reading(Index),
    All(Index),
}

#[derive(Serialize, Deserialize)]
enum Stage {
    /// The index must be known.
    Index,
    /// The row of a segment that another covers is removed, and then its object.
    RemoveRow(Box<Row>),
    Remove(Box<Row>),
    /// The newest segment, which is not full, is read.
    Absorb(Box<Row>),
    /// The log's items are read, behind what is there already.
    Read {
        first: Option<u64>,
        records: Vec<Record>,
        bytes: usize,
        #[serde(with = "cirrus_store::raw")]
        after: Option<Bytes>,
        asked: bool,
    },
    Put(Box<Row>),
    Insert(Box<Row>),
    /// Segments are read for a digest.
    Gather(Box<Digest>),
    /// Segments are read to be joined.
    Join(Box<Joining>),
    /// The object of something too old is removed, and then its row; or that is emptied.
    Lapsed(Box<Row>),
    LapsedRow(Box<Row>),
    Emptied(Box<Row>),
    /// Objects that no row names are looked for, or one is removed.
    Tidy,
    /// The log is put on the list of another day.
    List,
    /// The row of a tombstone is removed.
    Spent(Only<10, u64>),
}

impl Seals {
    /// At activation: the log's next position.
    pub fn load(&mut self, next: u64, limits: &Limits) {
        *self = Self {
            mark: next.saturating_sub(1) / limits.seal_records.max(1),
            number: self.number + 1,
            readings: self.readings + 1,
            ..Self::default()
        };
    }

    /// The index, once it is known.
    pub fn index(&self) -> Option<&Index> {
        match &self.index {
            Known::All(index) => Some(index),
            _ => None,
        }
    }

    /// The last position that is known to be sealed.
    fn sealed(&self) -> u64 {
        self.index().map_or(0, Index::sealed)
    }

    /// Nothing of it is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.waiting.is_empty()
    }

    /// When a failed attempt is due again, Unix milliseconds.
    pub fn due_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// A segment is not where the index says: it may have been sealed anew by somebody else.
    pub fn doubt_index(&mut self) {
        if matches!(self.index, Known::All(_)) {
            self.index = Known::Nothing;
        }
    }
}

impl User {
    /// The store of blobs answered one of this entity's operations.
    pub(crate) fn on_blob(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        result: Result<BlobOutcome, StoreError>,
    ) {
        self.operations = self.operations.saturating_sub(1);
        match purpose {
            Purpose::Archive { session, job } => {
                self.on_archive_segment(cx, session, job, result);
            }
            Purpose::Seal { number } => self.on_seal_blob(cx, number, result),
            Purpose::Ends { number } => self.on_ends_segment(cx, number, result),
            Purpose::Retract { number } => self.on_retract_blob(cx, number.0, result),
            Purpose::SpoolSegment { pass } => self.on_spool_segment(cx, pass, result),
            Purpose::Erase => self.on_erased_blob(cx, result),
            _ => {}
        }
    }

    /// The log is due: everything up to now is to be sealed.
    pub(super) fn seal_loaded(&mut self, token: Token) {
        self.seals.waiting.push((token, self.log.last_position()));
        self.seals.retry_at = None;
    }

    /// Nothing more can be sealed: who waits must ask again.
    pub(super) fn drop_seals(&mut self, cx: &mut Cx<'_>, why: &str) {
        let dropped = std::mem::take(&mut self.seals);
        self.seals.number = dropped.number + 1;
        self.seals.readings = dropped.readings + 1;
        for (token, _) in dropped.waiting {
            let result = Err(why.to_owned());
            cx.out.push(Effect::Erased { token, result });
        }
    }

    /// Goes on with sealing as far as that is possible now.
    pub(super) fn drive_seal(&mut self, cx: &mut Cx<'_>) {
        if !self.state.is_active() || self.seals.retry_at.is_some_and(|at| cx.now < at) {
            return;
        }
        let size = cx.home.limits.seal_records.max(1);
        if self.seals.under_way.is_none() {
            let full = self.log.last_position() / size != self.seals.mark;
            let failed = self.seals.retry_at.is_some();
            if !full && !failed && self.seals.waiting.is_empty() {
                return;
            }
            self.seals.under_way = Some(Stage::Index);
            self.seals.joined = 0;
        }
        self.seals.retry_at = None;
        if matches!(self.seals.under_way, Some(Stage::Index)) && self.want_index(cx) {
            self.next_seal(cx, size);
        }
    }

    /// The index is known: decides what to do by it.
    fn next_seal(&mut self, cx: &mut Cx<'_>, size: u64) {
        let Known::All(index) = &mut self.seals.index else {
            return;
        };
        let covered = index.covered.pop().map(Box::new);
        if let Some(row) = covered.or_else(|| self.seals.left.take()) {
            return self.remove_covered(cx, row);
        }
        // Whoever reads just now may have the message, and shows it by these.
        let is_read = self.archive.has_queries() || self.spool.pass.is_some();
        if let Some(position) = self.seals.spent.0.last().copied().filter(|_| !is_read) {
            return self.remove_tombstone(cx, position);
        }
        let Known::All(index) = &self.seals.index else {
            return;
        };
        let sealed = index.sealed().max(self.archive.floor());
        let unsealed = self.log.last_position().saturating_sub(sealed);
        let rest = self.seals.waiting.iter().any(|(_, upto)| *upto > sealed);
        if unsealed >= size || (rest && unsealed > 0) {
            // Only a row that is not full is worth the work, and only with something behind it.
            let newest = index.rows().last();
            let partial = newest.filter(|row| {
                row.records() < size
                    && !row.is_gone()
                    && row.last > self.archive.floor()
                    && row.bytes < cx.home.limits.seal_bytes as u64 / 4
            });
            if let Some(row) = partial.cloned() {
                let (at, range) = (row.object(&self.jid.owner()), None);
                let op = BlobOp::Get { at, range };
                return self.ask_blob(cx, Stage::Absorb(Box::new(row)), op);
            }
            return self.read_log(cx, None, Vec::new(), 0);
        }
        if !self.seals.waiting.is_empty() && self.drive_chores(cx) {
            return;
        }
        self.seals.mark = self.log.last_position() / size;
        self.seals.under_way = None;
        self.seals.chore = Chore::default();
        for (token, _) in std::mem::take(&mut self.seals.waiting) {
            let result = Ok(());
            cx.out.push(Effect::Erased { token, result });
        }
        let digest = self.seals.index().filter(|_| !self.seals.no_digest);
        let kept = cx.home.limits.kept_since(cx.now);
        match digest.and_then(|index| Digest::due(index, kept)) {
            Some(digest) => self.gather(cx, digest),
            None => self.join_next(cx),
        }
        if self.seals.under_way.is_none() {
            self.seals.pause = 0;
        }
    }

    /// Removes what another row covers; where that one has taken the row's place in the table,
    /// only the object.
    fn remove_covered(&mut self, cx: &mut Cx<'_>, row: Box<Row>) {
        if self
            .seals
            .index()
            .is_some_and(|index| index.has_key_of(&row))
        {
            return self.remove_object(cx, row);
        }
        let number = self.seals.number;
        let op = Op::Delete {
            key: row.key(&self.jid.owner()).into(),
            condition: Condition::Version(row.version),
        };
        self.seals.under_way = Some(Stage::RemoveRow(row));
        self.begin(cx, Purpose::Seal { number }, op);
    }

    fn remove_object(&mut self, cx: &mut Cx<'_>, row: Box<Row>) {
        // Two rows of the same content have the same object.
        if self
            .seals
            .index()
            .is_none_or(|index| index.has_object_of(&row))
        {
            self.seals.under_way = Some(Stage::Index);
            return self.drive_seal(cx);
        }
        let at = row.object(&self.jid.owner());
        self.ask_blob(cx, Stage::Remove(row), BlobOp::Delete { at });
    }

    fn read_log(
        &mut self,
        cx: &mut Cx<'_>,
        first: Option<u64>,
        records: Vec<Record>,
        bytes: usize,
    ) {
        self.seals.under_way = Some(Stage::Read {
            first,
            records,
            bytes,
            after: None,
            asked: false,
        });
        self.read_on(cx);
    }

    /// Asks for the next page of the log.
    fn read_on(&mut self, cx: &mut Cx<'_>) {
        let size = cx.home.limits.seal_records;
        let sealed = self.seals.sealed().max(self.archive.floor());
        let Some(Stage::Read {
            first,
            records,
            after,
            asked,
            ..
        }) = &mut self.seals.under_way
        else {
            return;
        };
        *asked = true;
        let next = first.map_or(sealed + 1, |first| first + records.len() as u64);
        // The item that holds the first position may begin before it.
        let from = next.saturating_sub(MAX_RECORDS as u64 - 1);
        let op = Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&self.jid.owner()).into(),
            range: SkRange::Between(
                archive::hot_sk(from).into(),
                archive::hot_sk(self.log.last_position()).into(),
            ),
            direction: Direction::Forward,
            limit: u32::try_from(size + MAX_RECORDS as u64).ok(),
            after: after.clone(),
        };
        let number = self.seals.number;
        self.begin(cx, Purpose::Seal { number }, op);
    }

    fn ask_blob(&mut self, cx: &mut Cx<'_>, stage: Stage, op: BlobOp) {
        self.seals.under_way = Some(stage);
        let number = self.seals.number;
        self.begin_blob(cx, Purpose::Seal { number }, op);
    }

    /// A page of the log or a row was read or written.
    pub(super) fn on_seal_store(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<Outcome, StoreError>,
    ) {
        if number != self.seals.number {
            return; // Of an attempt that was given up.
        }
        match (self.seals.under_way.take(), result) {
            // Perhaps it was removed before.
            (
                Some(Stage::RemoveRow(row)),
                Ok(_) | Err(StoreError::Conflict { existing: None, .. }),
            ) => self.remove_object(cx, row),
            (
                Some(Stage::Read {
                    first,
                    records,
                    bytes,
                    ..
                }),
                Ok(Outcome::Page { items, next }),
            ) => self.take_log(cx, (first, records, bytes), &items, next),
            (Some(Stage::Insert(row)), Ok(_)) => {
                cx.work.tally.sealed += u64::from(!row.is_digest() && row.footer == 0);
                // It goes on: a store that now and then fails must not fall behind the log.
                self.seals.pause = 0;
                let places = row.first..=row.last;
                self.index_is(|index| index.add(*row));
                self.spend(places);
            }
            (Some(Stage::Spent(position)), Ok(_)) => self.tombstone_is_gone(position.0),
            (Some(Stage::Emptied(row)), Ok(_)) => self.index_is(|index| index.replace(*row)),
            (
                Some(Stage::LapsedRow(row)),
                Ok(_) | Err(StoreError::Conflict { existing: None, .. }),
            ) => self.index_is(|index| index.remove(&row)),
            (Some(Stage::List), Ok(_)) => self.seals.under_way = Some(Stage::Index),
            _ => self.fail_seal(cx),
        }
    }

    /// Adds a page of the log to the segment that is to be made.
    fn take_log(
        &mut self,
        cx: &mut Cx<'_>,
        (mut first, mut records, mut bytes): (Option<u64>, Vec<Record>, usize),
        items: &[cirrus_store::Item],
        next: Option<Bytes>,
    ) {
        let full = |records: &Vec<Record>, bytes| is_full(cx.home, records, bytes);
        let sealed = self.seals.sealed().max(self.archive.floor());
        let mut broken = false;
        for item in items {
            let Ok((seq, read)) = decode(item) else {
                // What can't be understood stays where it is; a later version may.
                cx.work.tally.unreadable += 1;
                return self.fail_seal(cx);
            };
            for (position, record) in (seq..).zip(read) {
                let due = first.map_or(sealed + 1, |first| first + records.len() as u64);
                if position < due || broken || full(&records, bytes) {
                    continue;
                }
                if position > due {
                    // What should be here has expired before it was sealed.
                    cx.work.tally.unreadable += 1;
                    broken = !records.is_empty();
                    if broken {
                        continue;
                    }
                }
                first.get_or_insert(position);
                bytes += bytes_of(&record);
                records.push(record);
            }
        }
        if next.is_some() && !broken && !full(&records, bytes) {
            self.seals.under_way = Some(Stage::Read {
                first,
                records,
                bytes,
                after: next,
                asked: false,
            });
            return self.read_on(cx);
        }
        match first {
            // What comes next has expired: the segment that was read stays as it is, and a new one
            // begins behind the gap.
            Some(first) if first + records.len() as u64 <= sealed + 1 => {
                self.read_log(cx, None, Vec::new(), 0);
            }
            Some(first) => self.put_segment(cx, first, records),
            None => {
                // Nothing is left of what should be sealed.
                cx.work.tally.unreadable += 1;
                self.fail_seal(cx);
            }
        }
    }

    fn put_segment(&mut self, cx: &mut Cx<'_>, first: u64, mut records: Vec<Record>) {
        let delivered = self.delivered();
        if planted::seal_too_far() && records.len() > 1 {
            records.remove(1);
        }
        for (position, record) in (first..).zip(&mut records) {
            segment::thin(position, record, delivered);
        }
        self.lay_among(cx, first, &mut records);
        let start = records.first().map_or(0, |record| record.t);
        let Some(built) = segment::build(first, &records) else {
            return self.fail_seal(cx);
        };
        let row = Box::new(Row::new(first, start, records.len(), &built));
        let op = BlobOp::PutIfAbsent {
            at: row.object(&self.jid.owner()),
            body: built.bytes,
        };
        self.ask_blob(cx, Stage::Put(row), op);
    }

    /// The position up to which nothing will have to be delivered again; 0 = that is not known.
    pub(super) fn delivered(&self) -> u64 {
        let acknowledged = |session: &Session| session.unacked_bytes() == 0;
        let all = self.is_caught_up() && self.inflow.is_empty();
        match all && self.sessions.iter().all(acknowledged) {
            true => self.log.last_position(),
            false => 0,
        }
    }

    /// A segment was read, written or removed.
    pub(super) fn on_seal_blob(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<BlobOutcome, StoreError>,
    ) {
        if number != self.seals.number {
            return;
        }
        let owner = self.jid.owner();
        match (self.seals.under_way.take(), result) {
            (Some(Stage::Remove(_)), Ok(_)) => self.seals.under_way = Some(Stage::Index),
            (Some(Stage::Remove(row)), Err(_)) => {
                self.seals.left = Some(row);
                self.fail_seal(cx);
            }
            (Some(Stage::Absorb(row)), Ok(BlobOutcome::Body(body))) => {
                let read = body.and_then(|body| Segment::open(body).ok());
                let records = read.and_then(|segment| {
                    let all = segment.records(&(row.first..row.last.saturating_add(1)));
                    all.ok()
                });
                let whole = records.filter(|all| all.len() as u64 == row.records());
                let Some(all) = whole else {
                    cx.work.tally.unreadable += 1;
                    return self.read_log(cx, None, Vec::new(), 0);
                };
                let records: Vec<Record> = all.into_iter().map(|(_, it)| it).collect();
                let bytes = records.iter().map(bytes_of).sum();
                // One that can't be read, or is full but packs well, stays as it is, and what
                // comes behind it is sealed by itself.
                match is_full(cx.home, &records, bytes) {
                    true => self.read_log(cx, None, Vec::new(), 0),
                    false => self.read_log(cx, Some(row.first), records, bytes),
                }
            }
            (Some(Stage::Join(joining)), Ok(BlobOutcome::Body(body))) => {
                self.take_joining(cx, *joining, body);
            }
            (Some(Stage::Tidy), Ok(BlobOutcome::Page(page))) => self.take_names(cx, page),
            (Some(Stage::Tidy), Ok(_)) => self.seals.under_way = Some(Stage::Index),
            (Some(Stage::Lapsed(row)), Ok(_)) => self.remove_lapsed_row(cx, *row),
            (Some(Stage::Gather(digest)), Ok(BlobOutcome::Body(body))) => {
                self.gathered(cx, *digest, body);
            }
            (Some(Stage::Put(row)), result) if result.is_ok() || planted::row_before_object() => {
                let op = Op::Put {
                    item: row.item(&owner),
                    // A joined segment's row takes the place of another.
                    condition: match row.version {
                        1 => Condition::Absent,
                        version => Condition::Version(version - 1),
                    },
                    nonce: cx.rng.u128(),
                };
                self.seals.under_way = Some(Stage::Insert(row));
                self.begin(cx, Purpose::Seal { number }, op);
            }
            _ => self.fail_seal(cx),
        }
    }

    /// All of it is tried again later, from the index on.
    fn fail_seal(&mut self, cx: &mut Cx<'_>) {
        cx.work.tally.seal_failures += 1;
        let pause = self.seals.pause.clamp(FIRST_PAUSE_MS, LAST_PAUSE_MS);
        self.seals.pause = (pause * 2).min(LAST_PAUSE_MS);
        self.seals.retry_at = Some(cx.now.saturating_add(pause));
        self.seals.number += 1;
        self.seals.under_way = None;
        self.seals.laid.0.clear();
        self.seals.chore = Chore::default();
        self.seals.doubt_index();
        for (token, _) in std::mem::take(&mut self.seals.waiting) {
            let result = Err("the archive can't be sealed now".to_owned());
            cx.out.push(Effect::Erased { token, result });
        }
    }
}
