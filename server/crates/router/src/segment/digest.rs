//! A digest: copies of the messages with peers who are seldom met, from a long stretch of a log.
//!
//! A peer who was met ten times in 100,000 messages is in ten segments, each of which would be a
//! request. A digest has all archived messages of its stretch with each peer that it has at all;
//! peers who are met more often are found in segments quickly enough, and are in none. So nothing
//! depends on a digest: whom it does not have, or what can't be read, is looked for in segments.
//!
//! Format 1, numbers as in segments:
//!
//! ```text
//! "CAD1"
//! number of blocks; for each: bytes, bytes unpacked, hash of its last peer (4 bytes, big-endian)
//! blocks, each one zstd frame with checksum, of peers in the order of their hashes:
//!   hash (4 bytes, big-endian), number of records, time of the first one (Unix milliseconds)
//!   for each record: its position as the distance from that of the one before, and the record
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Built, Index, Row, Segment, SegmentError, found_by, packer, unpack};
use crate::log::{Content, Cursor, Record, encode_record, put_varint};

/// Segments that a digest is made of or goes on by: 4,096 messages at their usual size.
pub(crate) const BATCH: usize = 16;
/// A peer with more than one in so many messages of the stretch is in no digest: a segment has
/// eight of them, and a page of them few segments.
const SELDOM: u64 = 32;
/// Most bytes of messages, not packed; past it the peers with the most of them are left out.
const MAX_BYTES: usize = 2 * 1_024 * 1_024;
/// A digest that has so many bytes does not grow any more: a quarter of the above, packed 4:1.
const FULL_BYTES: u64 = 128 * 1_024;
/// A block that has so many bytes takes no more peers.
const BLOCK_BYTES: usize = 64 * 1_024;
/// Most bytes of a block, unpacked: one peer may have them all, with what stands around them.
const MAX_BLOCK: usize = 4 * MAX_BYTES;
const MAX_BLOCKS: u64 = 1_024;
/// Most records: what is around each is never less than four bytes.
const MAX_RECORDS: u64 = (MAX_BLOCK / 4) as u64;

const HEAD: &[u8; 4] = b"CAD1";

/// A digest in the making.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Digest {
    /// The positions that it is about, and the time of the first one.
    first: u64,
    last: u64,
    first_t: u64,
    /// It has all up to here.
    behind: u64,
    /// What is older is not kept, Unix milliseconds.
    kept: u64,
    /// The segments that are still to be read, the next one last.
    left: Vec<Row>,
    /// The digest that it takes in, until that is read.
    before: Option<Row>,
    peers: BTreeMap<u32, Vec<(u64, Record)>>,
    /// Peers that it must not have, because it would not have all of them.
    often: BTreeSet<u32>,
    bytes: usize,
}

impl Digest {
    /// The next digest of an archive, if it is due: of the segments that are in none, but for the
    /// newest, which may be replaced.
    pub fn due(index: &Index, kept: u64) -> Option<Self> {
        let newest = index.digests().last();
        let behind = newest.map_or(0, |digest| index.at_or_after(digest.last.saturating_add(1)));
        let rows = index.rows().get(behind..)?;
        let gone = rows.iter().take_while(|row| row.is_gone()).count();
        let rows = rows.get(gone..)?;
        let batch = rows.get(..BATCH).filter(|_| rows.len() > BATCH)?;
        let before = newest.filter(|digest| digest.bytes < FULL_BYTES).cloned();
        let behind = newest.map_or(0, |digest| digest.last);
        let first = batch.first()?.from.max(behind + 1);
        Some(Self {
            behind,
            kept,
            first: before.as_ref().map_or(first, |digest| digest.first),
            first_t: before
                .as_ref()
                .map_or(batch.first()?.first_t, |digest| digest.first_t),
            last: batch.last()?.last,
            left: batch.iter().rev().cloned().collect(),
            before,
            peers: BTreeMap::new(),
            often: BTreeSet::new(),
            bytes: 0,
        })
    }

    /// What has to be read next.
    pub fn next(&self) -> Option<&Row> {
        self.before.as_ref().or(self.left.last())
    }

    /// Takes what [`Self::next`] wants.
    ///
    /// # Errors
    /// [`SegmentError`] when it can't be understood.
    pub fn take(&mut self, object: Bytes, index: &Index) -> Result<(), SegmentError> {
        if self.before.is_some() {
            self.peers = read(&object, None)?;
            let kept = self.kept;
            self.peers.retain(|_, records| {
                records.retain(|(_, record)| record.t >= kept);
                for (position, record) in records.iter_mut() {
                    lay(*position, record, index);
                }
                !records.is_empty()
            });
            let all = self.peers.values().flatten();
            self.bytes = all.map(|(_, record)| size(record)).sum();
            self.before = None;
            return Ok(());
        }
        let Some(row) = self.left.last().cloned() else {
            return Ok(());
        };
        let segment = Segment::open(object)?;
        let wanted = row.from..row.last.saturating_add(1);
        let records = segment.records(&wanted)?;
        if records.len() as u64 != row.last - row.from + 1 {
            return Err(SegmentError("its records"));
        }
        self.left.pop();
        for (position, record) in records {
            if position > self.behind && record.t >= self.kept {
                self.add(position, record, row.from, index);
            }
        }
        Ok(())
    }

    /// Whether messages with a peer that it does not have are in segments before that position.
    fn lacks(&self, hash: u32, from: u64, index: &Index) -> bool {
        let inside = |row: &&Row| row.last >= self.first && row.from < from;
        !self.peers.contains_key(&hash)
            && index
                .rows()
                .iter()
                .filter(inside)
                .any(|row| row.may_have(Some(hash)))
    }

    fn add(&mut self, position: u64, record: Record, from: u64, index: &Index) {
        let Some(hash) = found_by(&record) else {
            return;
        };
        if self.often.contains(&hash) {
            return;
        }
        if self.lacks(hash, from, index) {
            self.often.insert(hash);
            return;
        }
        let mut record = record;
        lay(position, &mut record, index);
        if let Content::Message(message) = &mut record.content {
            // The frame's buffer holds other records too.
            message.stanza = Bytes::copy_from_slice(&message.stanza);
        }
        self.bytes += size(&record);
        let most = (self.last - self.first + 1) / SELDOM;
        let of_peer = self.peers.entry(hash).or_default();
        of_peer.push((position, record));
        if of_peer.len() as u64 > most.max(1) {
            self.leave_out(hash);
        }
        while self.bytes > MAX_BYTES {
            let bytes = |all: &[(u64, Record)]| all.iter().map(|(_, it)| size(it)).sum::<usize>();
            let Some(most) = self.peers.iter().max_by_key(|(_, all)| bytes(all)) else {
                return;
            };
            self.leave_out(*most.0);
        }
    }

    fn leave_out(&mut self, hash: u32) {
        self.often.insert(hash);
        for (_, record) in self.peers.remove(&hash).unwrap_or_default() {
            self.bytes = self.bytes.saturating_sub(size(&record));
        }
    }

    /// The object, and its row; `None` when it can't be packed.
    pub fn finish(&self, index: &Index) -> Option<(Row, Bytes)> {
        let bytes = build(&self.peers)?;
        let built = Built {
            bytes: bytes.clone(),
            last_t: index.of(self.last)?.last_t,
            archived: self.peers.values().map(|all| all.len() as u64).sum(),
            peers: self.peers.keys().copied().collect(),
        };
        let (first, last) = (self.first, self.last);
        Some((Row::digest(first..=last, self.first_t, &built), bytes))
    }
}

/// What was retracted gets into no digest.
fn lay(position: u64, record: &mut Record, index: &Index) {
    if let Some(tombstone) = index.tombstone(position) {
        tombstone.replace(record);
    }
}

fn size(record: &Record) -> usize {
    record
        .as_message()
        .map_or(0, |message| message.stanza.len())
}

pub(super) fn build(peers: &Peers) -> Option<Bytes> {
    let mut packer = packer()?;
    let (mut directory, mut blocks) = (Vec::new(), Vec::new());
    let (mut count, mut body) = (0u64, Vec::new());
    let last = peers.keys().next_back().copied();
    for (hash, records) in peers {
        body.extend_from_slice(&hash.to_be_bytes());
        put_varint(records.len() as u64, &mut body);
        let first = records.first().map_or(0, |(_, record)| record.t);
        put_varint(first, &mut body);
        let mut before = 0;
        for (position, record) in records {
            put_varint(position.saturating_sub(before), &mut body);
            encode_record(record, record.t.saturating_sub(first), &mut body);
            before = *position;
        }
        if body.len() >= BLOCK_BYTES || Some(*hash) == last {
            let packed = packer.compress(&body).ok()?;
            put_varint(packed.len() as u64, &mut directory);
            put_varint(body.len() as u64, &mut directory);
            directory.extend_from_slice(&hash.to_be_bytes());
            blocks.extend_from_slice(&packed);
            body.clear();
            count += 1;
        }
    }
    let mut object = HEAD.to_vec();
    put_varint(count, &mut object);
    object.extend_from_slice(&directory);
    object.extend_from_slice(&blocks);
    Some(object.into())
}

/// The records with each peer, by the peer's hash, in the order of positions.
pub type Peers = BTreeMap<u32, Vec<(u64, Record)>>;

/// The records of a digest with a peer, or all of them, in the order of positions.
///
/// # Errors
/// [`SegmentError`] when it is damaged, or none.
pub fn read(object: &Bytes, with: Option<u32>) -> Result<Peers, SegmentError> {
    const DIRECTORY: SegmentError = SegmentError("a digest's directory");
    let mut cursor = Cursor::new(object);
    if cursor.take(HEAD.len()).as_deref() != Some(HEAD) {
        return Err(SegmentError("a digest's mark"));
    }
    let count = cursor.varint().filter(|count| *count <= MAX_BLOCKS);
    let mut directory = Vec::new();
    for _ in 0..count.ok_or(DIRECTORY)? {
        let (packed, unpacked) = cursor.varint().zip(cursor.varint()).ok_or(DIRECTORY)?;
        let last = cursor
            .take(4)
            .and_then(|four| number(&four))
            .ok_or(DIRECTORY)?;
        directory.push((packed, unpacked, last));
    }
    let (mut peers, mut wanted) = (Peers::new(), with);
    for (packed, unpacked, last) in directory {
        let length = |n: u64| usize::try_from(n).map_err(|_| DIRECTORY);
        let block = cursor.take(length(packed)?).ok_or(DIRECTORY)?;
        match (with, wanted) {
            (Some(_), None) => continue,
            (Some(_), Some(hash)) if hash > last => continue,
            _ => wanted = None,
        }
        let body = unpack(&block, length(unpacked)?, MAX_BLOCK)?;
        read_block(&body, with, &mut peers).ok_or(SegmentError("a digest's block"))?;
    }
    match cursor.is_at_end() {
        true => Ok(peers),
        false => Err(SegmentError("bytes after a digest's last block")),
    }
}

fn number(four: &Bytes) -> Option<u32> {
    Some(u32::from_be_bytes(four.as_ref().try_into().ok()?))
}

fn read_block(body: &Bytes, with: Option<u32>, peers: &mut Peers) -> Option<()> {
    let mut cursor = Cursor::new(body);
    while !cursor.is_at_end() {
        let hash = number(&cursor.take(4)?)?;
        let count = cursor.varint().filter(|count| *count <= MAX_RECORDS)?;
        let first = cursor.varint()?;
        let (mut position, mut records) = (0u64, Vec::new());
        for _ in 0..count {
            position = position.checked_add(cursor.varint()?)?;
            records.push((position, cursor.record(first)?));
        }
        if with.is_none_or(|with| with == hash) {
            peers.insert(hash, records);
        }
    }
    Some(())
}
