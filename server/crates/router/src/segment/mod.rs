//! A segment: a stretch of a log as one object, sealed once and never changed.
//!
//! Format 1. All numbers are varints as in the log's items, unless said otherwise:
//!
//! ```text
//! "CAS1"
//! frames   each up to 32 records, the way they stand in items, in one zstd frame with checksum
//! footer   one zstd frame with checksum:
//!          position of the first record, its time (Unix milliseconds)
//!          number of frames; for each: bytes, bytes unpacked, records, and its first record's time
//!          as milliseconds since that of the frame before
//!          number of peers; for each, ascending: hash (4 bytes, big-endian), and one bit for each
//!          frame, lowest first: it has archived messages with that peer
//! 4 bytes  length of the footer, big-endian
//! 4 bytes  length of the footer unpacked, big-endian
//! "1SAC"
//! ```
//!
//! Positions are dense. What is not to be kept (see [`thin`]) leaves a reference to nothing in its
//! place, and a message that was retracted what is shown instead (see [`tombstone`]). An object may
//! come damaged or made up from its bucket: reading it never panics and takes no more memory than
//! the constants here allow.

mod digest;
mod index;
mod join;
mod tombstone;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use cirrus_jid::BareJid;
use siphasher::sip::SipHasher13;

use crate::log::{Content, Cursor, Direction, Message, Record, encode_record, put_varint};

pub(crate) use digest::Digest;
pub use digest::{Peers as DigestPeers, read as read_digest};
pub use index::object_of;
pub(crate) use index::{Index, Row, folder};
pub(crate) use join::join;
pub(crate) use tombstone::{Retraction, Tombstone, Tombstones, lay, was_replaced};

/// Records of a frame: what is unpacked to read one of them.
const FRAME_RECORDS: usize = 32;
/// A frame that has so many bytes takes no more records.
const FRAME_BYTES: usize = 256 * 1_024;
/// Most bytes of a frame, unpacked: the last record may be as large as an item.
const MAX_FRAME: usize = FRAME_BYTES + crate::log::MAX_BYTES + 1_024;
/// Most records of a segment.
pub const MAX_RECORDS: usize = 4_096;
/// Most bytes of a footer, unpacked: 4,096 peers in 128 frames, and then some.
const MAX_FOOTER: usize = 256 * 1_024;
/// How hard to pack: 3 packs chat 4:1 at 200 MB/s, and 9 takes five times that for a tenth less.
const LEVEL: i32 = 3;

const HEAD: &[u8; 4] = b"CAS1";
const TAIL: &[u8; 4] = b"1SAC";
/// Two lengths and the mark.
const TRAILER: usize = 12;

/// Why an object is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a segment of an archive: {0}")]
pub struct SegmentError(pub(crate) &'static str);

/// A segment that was made, and what its row in the index says of it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The object.
    pub bytes: Bytes,
    /// Time of the last record, Unix milliseconds.
    pub last_t: u64,
    /// Messages that belong to the archive.
    pub archived: u64,
    /// Hashes of those whom they were exchanged with, ascending.
    pub peers: Vec<u32>,
}

/// What a peer is found by: four bytes of a hash. One that is chosen to collide costs its chooser's
/// contact a request; nothing is decided by it.
pub fn peer_hash(peer: &BareJid) -> u32 {
    let mut hasher = SipHasher13::new();
    hasher.write(peer.as_str().as_bytes());
    hasher.finish() as u32
}

/// What messages to oneself are found by.
pub const OWN: u32 = 0;

fn hash_of(message: &Message) -> u32 {
    match message.direction {
        Direction::Own => OWN,
        _ => peer_hash(&message.peer),
    }
}

/// What an archived message is found by, in digests too; `None` for what is not archived.
pub fn found_by(record: &Record) -> Option<u32> {
    let message = record.as_message().filter(|it| it.flags.archive);
    message.map(hash_of)
}

/// Takes out of a record what nobody will ask for: a message that is not archived, and references,
/// when everything up to position `delivered` was delivered and acknowledged, whatever refers to
/// it.
pub fn thin(position: u64, record: &mut Record, delivered: u64) {
    let archived = record.as_message().is_some_and(|it| it.flags.archive);
    if !archived && position <= delivered {
        record.content = Content::Respool(Box::default());
    }
}

struct Packed {
    bytes: Vec<u8>,
    unpacked: usize,
    records: usize,
    t: u64,
}

/// Makes the segment of these records, the first of which has position `first`; `None` without
/// records, or with too many.
pub fn build(first: u64, records: &[Record]) -> Option<Built> {
    if records.len() > MAX_RECORDS {
        return None;
    }
    let mut packer = packer()?;
    let (mut frames, mut peers) = (Vec::new(), BTreeMap::<u32, Vec<usize>>::new());
    let (mut archived, mut rest) = (0, records);
    while let Some(head) = rest.first() {
        let (mut body, mut count) = (Vec::new(), 0);
        for record in rest.iter().take(FRAME_RECORDS) {
            if body.len() >= FRAME_BYTES {
                break;
            }
            encode_record(record, record.t.saturating_sub(head.t), &mut body);
            count += 1;
            if let Some(message) = record.as_message().filter(|it| it.flags.archive) {
                archived += 1;
                let at = peers.entry(hash_of(message)).or_default();
                if at.last() != Some(&frames.len()) {
                    at.push(frames.len());
                }
            }
        }
        frames.push(Packed {
            bytes: packer.compress(&body).ok()?,
            unpacked: body.len(),
            records: count,
            t: head.t,
        });
        rest = &rest[count..];
    }
    let (bytes, _) = assemble(first, &frames, &peers)?;
    Some(Built {
        bytes,
        last_t: records.last()?.t,
        archived,
        peers: peers.into_keys().collect(),
    })
}

/// The object of these frames, and the length of what follows them.
fn assemble(
    first: u64,
    frames: &[Packed],
    peers: &BTreeMap<u32, Vec<usize>>,
) -> Option<(Bytes, u64)> {
    let footer = footer(first, frames, peers)?;
    let packed = packer()?.compress(&footer).ok()?;
    join::object(frames, &footer, &packed)
}

fn packer() -> Option<zstd::bulk::Compressor<'static>> {
    let mut packer = zstd::bulk::Compressor::new(LEVEL).ok()?;
    packer.include_checksum(true).ok()?;
    Some(packer)
}

fn footer(first: u64, frames: &[Packed], peers: &BTreeMap<u32, Vec<usize>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut t = frames.first()?.t;
    put_varint(first, &mut out);
    put_varint(t, &mut out);
    put_varint(frames.len() as u64, &mut out);
    for frame in frames {
        put_varint(frame.bytes.len() as u64, &mut out);
        put_varint(frame.unpacked as u64, &mut out);
        put_varint(frame.records as u64, &mut out);
        put_varint(frame.t.saturating_sub(t), &mut out);
        t = t.max(frame.t);
    }
    put_varint(peers.len() as u64, &mut out);
    for (hash, at) in peers {
        out.extend_from_slice(&hash.to_be_bytes());
        let start = out.len();
        out.resize(start + frames.len().div_ceil(8), 0);
        for frame in at {
            if let Some(byte) = out.get_mut(start + frame / 8) {
                *byte |= 1 << (frame % 8);
            }
        }
    }
    Some(out)
}

struct Frame {
    /// Where it is in the object.
    bytes: Range<usize>,
    unpacked: usize,
    first: u64,
    records: u64,
    t: u64,
}

impl Frame {
    fn positions(&self) -> Range<u64> {
        self.first..self.first.saturating_add(self.records)
    }
}

/// Reads a segment.
pub struct Segment {
    /// The object, or the part of it that is at hand, and where that begins.
    object: Bytes,
    offset: usize,
    frames: Vec<Frame>,
    /// Hash and bits of each peer, ascending.
    peers: Vec<(u32, Bytes)>,
}

impl Segment {
    /// The segment of an object; looks at its footer only.
    ///
    /// # Errors
    /// [`SegmentError`] when it is none.
    pub fn open(object: Bytes) -> Result<Self, SegmentError> {
        if !object.starts_with(HEAD) {
            return Err(SegmentError("its marks"));
        }
        let length = object.len();
        Self::open_end(object, length)
    }

    /// The segment of an object of that length, of which only the end is at hand, with the footer.
    ///
    /// # Errors
    /// [`SegmentError`] when it is none.
    pub fn open_end(object: Bytes, length: usize) -> Result<Self, SegmentError> {
        const SHORT: SegmentError = SegmentError("too short");
        let end = object.len().checked_sub(TRAILER).ok_or(SHORT)?;
        let offset = length.checked_sub(object.len()).ok_or(SHORT)?;
        if !object.ends_with(TAIL) {
            return Err(SegmentError("its marks"));
        }
        let number = |at: usize| {
            let bytes: [u8; 4] = object.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(bytes)).ok()
        };
        let (packed, unpacked) = number(end).zip(number(end + 4)).ok_or(SHORT)?;
        let start = end.checked_sub(packed);
        let start = start.filter(|at| at + offset >= HEAD.len());
        let start = start.ok_or(SegmentError("the footer's length"))?;
        let footer = unpack(&object[start..end], unpacked, MAX_FOOTER)?;
        let (frames, peers) =
            read_footer(&footer, start + offset).ok_or(SegmentError("the footer"))?;
        Ok(Self {
            object,
            offset,
            frames,
            peers,
        })
    }

    /// The same segment with another part of its object at hand, which begins there.
    #[must_use]
    pub fn holding(self, object: Bytes, offset: usize) -> Self {
        Self {
            object,
            offset,
            ..self
        }
    }

    /// The bytes of the object that these frames take.
    pub fn bytes_of(&self, frames: RangeInclusive<usize>) -> Range<usize> {
        let (first, last) = (
            self.frames.get(*frames.start()),
            self.frames.get(*frames.end()),
        );
        let start = first.map_or(0, |frame| frame.bytes.start);
        start..last.map_or(start, |frame| frame.bytes.end)
    }

    /// The positions that a frame has.
    pub fn positions_of(&self, frame: usize) -> Range<u64> {
        self.frames.get(frame).map_or(0..0, Frame::positions)
    }

    /// Whether a frame may have something of these times, Unix milliseconds.
    pub fn may_be_of(&self, frame: usize, times: &RangeInclusive<u64>) -> bool {
        let next = self
            .frames
            .get(frame + 1)
            .is_none_or(|next| next.t >= *times.start());
        next && self
            .frames
            .get(frame)
            .is_some_and(|it| it.t <= *times.end())
    }

    /// The positions that it has.
    pub fn range(&self) -> Range<u64> {
        let first = self.frames.first().map_or(0, |frame| frame.first);
        let last = self.frames.last();
        first..last.map_or(first, |frame| frame.first.saturating_add(frame.records))
    }

    /// The numbers of the frames that have these positions; with a peer's hash, of those that have
    /// archived messages with that peer.
    pub fn frames(&self, positions: &Range<u64>, with: Option<u32>) -> Vec<usize> {
        let bits = match with {
            None => None,
            Some(hash) => match self.peers.binary_search_by_key(&hash, |(hash, _)| *hash) {
                Ok(at) => self.peers.get(at).map(|(_, bits)| bits),
                Err(_) => return Vec::new(),
            },
        };
        let wanted = |(index, frame): &(usize, &Frame)| {
            let end = frame.first.saturating_add(frame.records);
            let has = bits.is_none_or(|bits| {
                let byte = bits.get(index / 8).copied().unwrap_or(0);
                byte & (1 << (index % 8)) != 0
            });
            has && positions.start < end && frame.first < positions.end
        };
        let frames = self.frames.iter().enumerate().filter(wanted);
        frames.map(|(index, _)| index).collect()
    }

    /// The records of a frame, ascending.
    ///
    /// # Errors
    /// [`SegmentError`] when it is damaged.
    pub fn frame(&self, index: usize) -> Result<Vec<(u64, Record)>, SegmentError> {
        let frame = self.frames.get(index);
        let frame = frame.ok_or(SegmentError("a frame's number"))?;
        Ok((frame.first..).zip(self.unpack(frame)?).collect())
    }

    /// Its records at these positions, ascending.
    ///
    /// # Errors
    /// [`SegmentError`] when a frame is damaged.
    pub fn records(&self, positions: &Range<u64>) -> Result<Vec<(u64, Record)>, SegmentError> {
        let mut found = Vec::new();
        for index in self.frames(positions, None) {
            let records = self.frame(index)?.into_iter();
            found.extend(records.filter(|(position, _)| positions.contains(position)));
        }
        Ok(found)
    }

    fn unpack(&self, frame: &Frame) -> Result<Vec<Record>, SegmentError> {
        let (start, end) = (frame.bytes.start, frame.bytes.end);
        let here = start
            .checked_sub(self.offset)
            .zip(end.checked_sub(self.offset));
        let bytes = here.and_then(|(start, end)| self.object.get(start..end));
        let bytes = bytes.ok_or(SegmentError("a frame's place"))?;
        let body = unpack(bytes, frame.unpacked, MAX_FRAME)?;
        let mut cursor = Cursor::new(&body);
        let mut records = Vec::with_capacity(FRAME_RECORDS);
        for _ in 0..frame.records {
            let record = cursor.record(frame.t);
            records.push(record.ok_or(SegmentError("a damaged record"))?);
        }
        match cursor.is_at_end() {
            true => Ok(records),
            false => Err(SegmentError("bytes after a frame's last record")),
        }
    }
}

fn unpack(bytes: &[u8], unpacked: usize, most: usize) -> Result<Bytes, SegmentError> {
    if unpacked > most {
        return Err(SegmentError("an unpacked length"));
    }
    let body = zstd::bulk::decompress(bytes, unpacked);
    let body = body.map_err(|_| SegmentError("a frame's bytes"))?;
    match body.len() == unpacked {
        true => Ok(body.into()),
        false => Err(SegmentError("a frame's length")),
    }
}

type Footer = (Vec<Frame>, Vec<(u32, Bytes)>);

/// Frames and peers of a footer that stands at `end` in its object.
fn read_footer(footer: &Bytes, end: usize) -> Option<Footer> {
    let mut cursor = Cursor::new(footer);
    let (mut first, mut t) = (cursor.varint()?, cursor.varint()?);
    let count = usize::try_from(cursor.varint()?).ok()?;
    if count == 0 || count > MAX_RECORDS {
        return None;
    }
    let (mut frames, mut at, mut all) = (Vec::new(), HEAD.len(), 0);
    for _ in 0..count {
        let length = usize::try_from(cursor.varint()?).ok()?;
        let unpacked = usize::try_from(cursor.varint()?).ok()?;
        let records = cursor.varint()?;
        t = t.checked_add(cursor.varint()?)?;
        let next = at.checked_add(length).filter(|next| *next <= end)?;
        all += records;
        if records == 0 || records > FRAME_RECORDS as u64 || all > MAX_RECORDS as u64 {
            return None;
        }
        frames.push(Frame {
            bytes: at..next,
            unpacked,
            first,
            records,
            t,
        });
        at = next;
        first = first.checked_add(records)?;
    }
    if at != end {
        return None;
    }
    let count = usize::try_from(cursor.varint()?).ok()?;
    let mut peers: Vec<(u32, Bytes)> = Vec::new();
    for _ in 0..count {
        let hash = u32::from_be_bytes(cursor.take(4)?.as_ref().try_into().ok()?);
        let bits = cursor.take(frames.len().div_ceil(8))?;
        if peers.last().is_some_and(|(before, _)| *before >= hash) {
            return None;
        }
        peers.push((hash, bits));
    }
    cursor.is_at_end().then_some((frames, peers))
}

#[cfg(test)]
mod tests;
