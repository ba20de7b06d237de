//! What the log keeps, and its bytes in the store.
//!
//! Format 1 of a hot item, key `h` and the position of its first record (8 bytes, big-endian):
//! `v` = 1; `t` = time of the first record, Unix milliseconds; `n` = number of records, 1 to
//! [`MAX_RECORDS`]; `z` = the records one after the other:
//!
//! ```text
//! head      1 byte   bits 0-1  0 in, 1 out, 2 own, 3 respool
//!                    bit 2     archive      bit 3  spool      bit 4  marker
//!                    bit 5     an origin follows the peer     bits 6-7  zero
//! time      varint   milliseconds since `t`
//! in, out, own:
//!   peer    varint length, bare JID in UTF-8
//!   origin  16 bytes session id (big-endian), varint k
//!   stanza  varint length, bytes
//! respool:
//!   varint count, then the positions in ascending order: the first as it is, each further one as
//!   its distance from the one before; all varints
//! ```
//!
//! A varint has seven bits a byte, the lowest first, and the top bit set on all but the last byte.
//! Overhead: 2 + 3 + 1 + the peer's address + 17 + 2 bytes a message, and about 50 an item.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::keys::archive;
use cirrus_store::{Attrs, Item};
use serde::{Deserialize, Serialize};

use super::LogError;
use crate::event::{Origin, SessionId};

/// Most records of one item: a reader that wants position p starts 15 before it.
pub const MAX_RECORDS: usize = 16;
/// Most bytes of one item's records, so that an item stays below what a table takes (400 KB).
pub const MAX_BYTES: usize = 300 * 1_024;
/// Most positions in one respool record: 4,096 x 10 bytes at worst.
pub const MAX_RESPOOL: usize = 4_096;

const FORMAT: u64 = 1;
const KIND: u8 = 0b11;
const RESPOOL: u8 = 3;
const ARCHIVE: u8 = 1 << 2;
const SPOOL: u8 = 1 << 3;
const MARKER: u8 = 1 << 4;
const ORIGIN: u8 = 1 << 5;

/// Which way a stanza went, seen from the log's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Somebody sent it to the owner.
    In,
    /// The owner sent it.
    Out,
    /// The owner sent it to itself.
    Own,
}

/// What a record is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// It belongs to the archive that clients query.
    pub archive: bool,
    /// No session was there to take it: it waits for offline delivery.
    pub spool: bool,
    /// It is a receipt or a displayed marker: it may be written late.
    pub marker: bool,
}

/// A stanza in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which way it went.
    pub direction: Direction,
    /// What it is there for.
    pub flags: Flags,
    /// The other side.
    pub peer: BareJid,
    /// What it came from, by which a repetition is recognised.
    pub origin: Option<Origin>,
    /// The stanza as it was delivered or sent.
    #[serde(with = "cirrus_store::raw")]
    pub stanza: Bytes,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A stanza.
    Message(Message),
    /// A session ended without having acknowledged the records at these positions, ascending:
    /// they must be delivered again.
    Respool(Box<[u64]>),
}

/// One entry of the log. Its position is that of its item plus its index in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was accepted, Unix milliseconds; never less than that of the record before.
    pub t: u64,
    /// What it says.
    pub content: Content,
}

impl Record {
    /// A stanza without flags.
    pub fn message(
        t: u64,
        direction: Direction,
        peer: BareJid,
        origin: Option<Origin>,
        stanza: impl Into<Bytes>,
    ) -> Self {
        let (flags, stanza) = (Flags::default(), stanza.into());
        Self {
            t,
            content: Content::Message(Message {
                direction,
                flags,
                peer,
                origin,
                stanza,
            }),
        }
    }

    /// The same record with these flags; a respool record has none.
    #[must_use]
    pub fn with_flags(mut self, flags: Flags) -> Self {
        if let Content::Message(message) = &mut self.content {
            message.flags = flags;
        }
        self
    }

    /// Whether it belongs to the archive; a respool record never does.
    pub fn set_archived(&mut self, archived: bool) {
        if let Content::Message(message) = &mut self.content {
            message.flags.archive = archived;
        }
    }

    /// References to records that must be delivered again, in any order.
    pub fn respool(t: u64, mut positions: Vec<u64>) -> Self {
        positions.sort_unstable();
        positions.dedup();
        Self {
            t,
            content: Content::Respool(positions.into()),
        }
    }

    /// The stanza, unless it is a respool record.
    pub fn as_message(&self) -> Option<&Message> {
        match &self.content {
            Content::Message(message) => Some(message),
            Content::Respool(_) => None,
        }
    }

    /// Whether it belongs to the archive that clients query.
    pub fn is_archived(&self) -> bool {
        self.as_message().is_some_and(|it| it.flags.archive)
    }

    /// Whether it may wait for the owner's next write.
    pub fn may_wait(&self) -> bool {
        matches!(&self.content, Content::Message(message) if message.flags.marker)
    }

    /// Whether it is the same stanza of the same session, written by whomever.
    pub(super) fn is_repetition_of(&self, other: &Record) -> bool {
        let key = |record: &Record| match &record.content {
            Content::Message(message) => message.origin.map(|origin| (origin, message.direction)),
            Content::Respool(_) => None,
        };
        key(self).is_some_and(|own| key(other) == Some(own))
    }

    /// Upper bound of its bytes in an item.
    pub(super) fn size(&self) -> usize {
        /// Head, time, two lengths and an origin, at worst.
        const FIXED: usize = 1 + 10 + 10 + 10 + 16 + 10;
        FIXED
            + match &self.content {
                Content::Message(message) => message.peer.as_str().len() + message.stanza.len(),
                Content::Respool(positions) => 10 * positions.len(),
            }
    }
}

/// The item that holds these records from position `seq` on. Times that go backwards are raised.
pub(crate) fn encode(owner: &[u8], seq: u64, records: &[&Record], not_before: u64) -> Item {
    let first = records.first().map_or(0, |record| record.t).max(not_before);
    let mut body = Vec::with_capacity(records.iter().map(|record| record.size()).sum());
    let mut t = first;
    for record in records {
        t = t.max(record.t);
        encode_record(record, t - first, &mut body);
    }
    body.shrink_to_fit();
    let attrs = Attrs::new()
        .with("v", FORMAT)
        .with("t", first)
        .with("n", records.len() as u64)
        .with("z", body);
    Item::new(archive::hot(owner, seq), attrs)
}

/// Appends a record of so many milliseconds after the time that its neighbours are measured from.
pub(crate) fn encode_record(record: &Record, elapsed: u64, out: &mut Vec<u8>) {
    match &record.content {
        Content::Message(message) => {
            let bits = [
                (message.flags.archive, ARCHIVE),
                (message.flags.spool, SPOOL),
                (message.flags.marker, MARKER),
                (message.origin.is_some(), ORIGIN),
            ];
            let direction = match message.direction {
                Direction::In => 0,
                Direction::Out => 1,
                Direction::Own => 2,
            };
            let flags = bits
                .iter()
                .filter(|(on, _)| *on)
                .fold(direction, |head, (_, bit)| head | bit);
            out.push(flags);
            put_varint(elapsed, out);
            put_bytes(message.peer.as_str().as_bytes(), out);
            if let Some(origin) = message.origin {
                out.extend_from_slice(&origin.session.0.to_be_bytes());
                put_varint(origin.k, out);
            }
            put_bytes(&message.stanza, out);
        }
        Content::Respool(positions) => {
            out.push(RESPOOL);
            put_varint(elapsed, out);
            put_varint(positions.len() as u64, out);
            let mut before = 0;
            for position in positions {
                put_varint(position.saturating_sub(before), out);
                before = *position;
            }
        }
    }
}

/// The position of an item's first record and its records.
///
/// # Errors
/// [`LogError::Corrupt`] when the item is none of a log, of an unknown format or damaged.
pub fn decode(item: &Item) -> Result<(u64, Vec<Record>), LogError> {
    let corrupt = |reason: &'static str| LogError::Corrupt {
        key: item.key.clone(),
        reason: reason.into(),
    };
    let seq = archive::hot_seq(&item.key.sk).ok_or_else(|| corrupt("not a hot item"))?;
    if item.attrs.get_n("v") != Some(FORMAT) {
        return Err(corrupt("unknown format"));
    }
    let (Some(first), Some(count), Some(body)) = (
        item.attrs.get_n("t"),
        item.attrs.get_n("n"),
        item.attrs.get_b("z"),
    ) else {
        return Err(corrupt("an attribute is missing"));
    };
    if count == 0 || count > MAX_RECORDS as u64 {
        return Err(corrupt("the number of records"));
    }
    let mut reader = Cursor::new(body);
    let mut records = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let record = reader
            .record(first)
            .ok_or_else(|| corrupt("a damaged record"))?;
        records.push(record);
    }
    if !reader.is_at_end() {
        return Err(corrupt("bytes after the last record"));
    }
    Ok((seq, records))
}

/// Reads records and what else is written the same way. What it gives shares the buffer: what is
/// kept for long must be copied.
pub(crate) struct Cursor<'a> {
    body: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(body: &'a Bytes) -> Self {
        Self { body, at: 0 }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.body.len()
    }

    /// The next record, whose time is measured from `first`.
    pub fn record(&mut self, first: u64) -> Option<Record> {
        let head = self.take(1)?[0];
        if head & !(KIND | ARCHIVE | SPOOL | MARKER | ORIGIN) != 0 {
            return None;
        }
        let t = first.checked_add(self.varint()?)?;
        let direction = match head & KIND {
            0 => Direction::In,
            1 => Direction::Out,
            2 => Direction::Own,
            _ if head == RESPOOL => {
                let content = Content::Respool(self.positions()?);
                return Some(Record { t, content });
            }
            _ => return None,
        };
        let flags = Flags {
            archive: head & ARCHIVE != 0,
            spool: head & SPOOL != 0,
            marker: head & MARKER != 0,
        };
        let peer = self.bytes()?;
        let peer = BareJid::parse(std::str::from_utf8(&peer).ok()?).ok()?;
        let origin = if head & ORIGIN == 0 {
            None
        } else {
            Some(self.origin()?)
        };
        let stanza = self.bytes()?;
        Some(Record {
            t,
            content: Content::Message(Message {
                direction,
                flags,
                peer,
                origin,
                stanza,
            }),
        })
    }

    fn origin(&mut self) -> Option<Origin> {
        let session = u128::from_be_bytes(self.take(16)?.as_ref().try_into().ok()?);
        Some(Origin {
            session: SessionId(session),
            k: self.varint()?,
        })
    }

    fn positions(&mut self) -> Option<Box<[u64]>> {
        let count = usize::try_from(self.varint()?).ok()?;
        if count > MAX_RESPOOL {
            return None;
        }
        let mut before = 0u64;
        let mut positions = Vec::with_capacity(count);
        for _ in 0..count {
            before = before.checked_add(self.varint()?)?;
            positions.push(before);
        }
        Some(positions.into())
    }

    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }

    pub fn take(&mut self, length: usize) -> Option<Bytes> {
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.body.len())?;
        let bytes = self.body.slice(self.at..end);
        self.at = end;
        Some(bytes)
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
