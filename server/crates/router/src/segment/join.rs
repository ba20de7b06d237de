//! Joining neighbouring segments to a larger one: frames are copied as they are, but for those in
//! which something was retracted, and one footer is made of several.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Built, Frame, Index, MAX_FOOTER, MAX_FRAME, MAX_RECORDS, Packed, Row, Segment, Tombstones,
    assemble, found_by, packer,
};
use crate::log::encode_record;

/// Most segments that are joined at once, and as many are worth it: 4,096 messages at their usual
/// size.
const AT_ONCE: usize = 16;
/// So many are joined when with one more they would be too large.
const WORTH: usize = 4;
/// Most bytes of a joined segment, packed: what offline delivery reads at once.
const MAX_BYTES: u64 = 1_024 * 1_024;
/// A segment with more than this part of either bound is left as it is.
const LARGE: u64 = 2;

/// A joined segment, and the length of its footer with all that follows the frames.
pub(crate) struct Joined {
    pub built: Built,
    pub footer: u64,
    /// Tombstones that have done their work in it, with what their messages are found by.
    pub laid: Vec<(u64, u32)>,
}

/// The segment of these neighbours, without what was retracted; `None` when they are none, or have
/// more than one may.
pub(crate) fn join(parts: &[Segment], rows: &[Row], known: &Tombstones) -> Option<Joined> {
    let (mut frames, mut peers) = (Vec::new(), BTreeMap::<u32, Vec<usize>>::new());
    let mut laid = Vec::new();
    let first = parts.first()?.range().start;
    let mut next = first;
    for part in parts {
        if part.range().start != next {
            return None;
        }
        next = part.range().end;
        let before = frames.len();
        for (hash, bits) in &part.peers {
            let at = peers.entry(*hash).or_default();
            let has = |frame: &usize| {
                let byte = bits.get(frame / 8).copied().unwrap_or(0);
                byte & (1 << (frame % 8)) != 0
            };
            let inside = (0..part.frames.len()).filter(has);
            at.extend(inside.map(|frame| before + frame));
        }
        for frame in &part.frames {
            frames.push(match known.range(frame.positions()).next() {
                Some(_) => without_retracted(part, frame, known, &mut laid)?,
                None => as_it_is(part, frame)?,
            });
        }
    }
    if next - first > MAX_RECORDS as u64 {
        return None;
    }
    let (bytes, footer) = assemble(first, &frames, &peers)?;
    Some(Joined {
        footer,
        laid,
        built: Built {
            bytes,
            last_t: rows.last()?.last_t,
            archived: rows.iter().map(|row| row.archived).sum(),
            peers: peers.into_keys().collect(),
        },
    })
}

fn as_it_is(part: &Segment, frame: &Frame) -> Option<Packed> {
    Some(Packed {
        bytes: part.object.get(frame.bytes.clone())?.to_vec(),
        unpacked: frame.unpacked,
        records: usize::try_from(frame.records).ok()?,
        t: frame.t,
    })
}

/// A frame once more, with what is left of messages that were retracted. Who it has messages with
/// stays as it is.
fn without_retracted(
    part: &Segment,
    frame: &Frame,
    known: &Tombstones,
    laid: &mut Vec<(u64, u32)>,
) -> Option<Packed> {
    let mut records = part.unpack(frame).ok()?;
    let mut replaced = Vec::new();
    for (record, position) in records.iter_mut().zip(frame.first..) {
        if let Some(tombstone) = known.get(&position) {
            tombstone.replace(record);
            replaced.extend(found_by(record).map(|hash| (position, hash)));
        }
    }
    let mut body = Vec::with_capacity(frame.unpacked);
    for record in &records {
        encode_record(record, record.t.saturating_sub(frame.t), &mut body);
    }
    // What is left of a message may be longer than the message was: a frame that nobody could
    // unpack is not made, and the tombstones stay.
    if body.len() > MAX_FRAME {
        return as_it_is(part, frame);
    }
    laid.append(&mut replaced);
    Some(Packed {
        bytes: packer()?.compress(&body).ok()?,
        unpacked: body.len(),
        records: records.len(),
        t: frame.t,
    })
}

/// The object of a segment: its frames, and what says where they are.
pub(super) fn object(frames: &[Packed], footer: &[u8], packed: &[u8]) -> Option<(Bytes, u64)> {
    if footer.len() > MAX_FOOTER {
        return None;
    }
    let mut bytes = super::HEAD.to_vec();
    for frame in frames {
        bytes.extend_from_slice(&frame.bytes);
    }
    let start = bytes.len();
    bytes.extend_from_slice(packed);
    bytes.extend_from_slice(&u32::try_from(packed.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(footer.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(super::TAIL);
    let length = (bytes.len() - start) as u64;
    Some((bytes.into(), length))
}

impl Index {
    /// The oldest neighbours that are to become one segment. They are in one digest, so that it
    /// still has all that the joined one has; none is partly in another segment; and between the
    /// first and the last message is no more than that time, in milliseconds.
    pub fn joinable(&self, span: u64) -> Option<Vec<Row>> {
        let mut run: Vec<Row> = Vec::new();
        let mut digests = self.digests().iter().peekable();
        for row in self.rows() {
            while digests.next_if(|digest| digest.last < row.last).is_some() {
                run.clear();
            }
            let digest = digests.peek()?;
            let small =
                row.records() * LARGE <= MAX_RECORDS as u64 && row.bytes * LARGE <= MAX_BYTES;
            let whole = row.from == row.first && digest.first <= row.first;
            if row.is_gone() || !small || !whole {
                run.clear();
                continue;
            }
            // Joined ones are joined with their like: else the oldest would be copied every time.
            let like = |before: &Row| {
                before.last + 1 == row.first && (before.footer > 0) == (row.footer > 0)
            };
            if !run.last().is_none_or(like) {
                run.clear();
            }
            let records = row.records() + run.iter().map(Row::records).sum::<u64>();
            let bytes = row.bytes + run.iter().map(|row| row.bytes).sum::<u64>();
            let start = run.first().map_or(row.first_t, |first| first.first_t);
            let fits = records <= MAX_RECORDS as u64
                && bytes <= MAX_BYTES
                && row.last_t.saturating_sub(start) <= span;
            if !fits {
                if run.len() >= WORTH {
                    return Some(run);
                }
                run.clear();
            }
            run.push(row.clone());
            if run.len() == AT_ONCE {
                return Some(run);
            }
        }
        None
    }
}
