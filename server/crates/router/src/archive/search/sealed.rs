//! The part of a search that is about segments.

use std::ops::Range;

use bytes::Bytes;
use cirrus_store::BlobOp;
use serde::{Deserialize, Serialize};

use super::{Kept, REQUESTS, Search, Stage, Step};
use crate::log::{Hit, LogError};
use crate::segment::{Index, Row, Segment, SegmentError, read_digest};

/// What of a segment counts: positions from the first up to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    first: u64,
    last: u64,
    what: What,
}

/// What of it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Segment,
    Digest,
    /// The end of a joined segment of so many bytes: where its frames are.
    Footer {
        first: u64,
        bytes: u64,
    },
    /// The frames from one to another, which begin at that byte.
    Frames {
        from: usize,
        upto: usize,
        at: u64,
    },
}

/// The footer of a joined segment that was read last.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Footer {
    first: u64,
    last: u64,
    bytes: u64,
    #[serde(with = "cirrus_store::raw")]
    footer: Bytes,
}

/// Most bytes of frames that are asked for at once, unless one has more.
const RANGE_BYTES: usize = 256 * 1_024;
/// Records that may have to be skipped in it: references, and what is not archived.
const SPARE_RECORDS: u64 = 16;

impl Footer {
    fn open(&self) -> Option<Segment> {
        let length = usize::try_from(self.bytes).ok()?;
        Segment::open_end(self.footer.clone(), length).ok()
    }
}

impl Search {
    /// The first segment from the place on that may have something. Without one the place moves
    /// behind all of them, or the page ends.
    pub(super) fn segment_above(&mut self, index: &Index) -> Option<Row> {
        let hash = self.filter.hash();
        let rows = index.rows().get(index.at_or_after(self.at)..);
        for row in rows.unwrap_or_default() {
            if row.from >= self.high || row.first_t > self.filter.end {
                self.finish(true);
                return None;
            }
            if row.last_t >= self.filter.from() && row.may_have(hash) {
                return Some(row.clone());
            }
        }
        self.at = self.sealed.saturating_add(1);
        None
    }

    /// As [`Self::segment_above`], in the other direction.
    pub(super) fn segment_below(&mut self, index: &Index) -> Option<Row> {
        let hash = self.filter.hash();
        let end = index.rows().partition_point(|row| row.from < self.at);
        for row in index.rows().iter().take(end).rev() {
            if row.last < self.low || row.last_t < self.filter.from() {
                break;
            }
            if row.first_t <= self.filter.end && row.may_have(hash) {
                return Some(row.clone());
            }
        }
        self.finish(true);
        None
    }

    pub(super) fn fetch(&mut self, row: &Row) -> Step {
        self.fetching = Some(Part {
            first: row.from,
            last: row.last,
            what: What::Segment,
        });
        Step::Fetch(BlobOp::Get {
            at: row.object(&self.owner),
            range: None,
        })
    }

    /// Reads on in a segment, or in a digest that has all its messages with the peer, and more.
    pub(super) fn fetch_for(&mut self, index: &Index, row: &Row) -> Step {
        let digest = self
            .filter
            .hash()
            .and_then(|hash| index.digest_of(row, hash));
        let digest = digest.filter(|digest| !self.without.contains(&digest.last));
        let Some(digest) = digest else {
            return match row.footer {
                0 => self.fetch(row),
                _ => self.fetch_frames(index, row),
            };
        };
        let step = self.fetch(digest);
        if let Some(part) = &mut self.fetching {
            (part.first, part.what) = (digest.first, What::Digest);
        }
        step
    }

    /// Reads on in a joined segment: first where its frames are, then those that the page wants.
    fn fetch_frames(&mut self, index: &Index, row: &Row) -> Step {
        let (first, bytes) = (row.first, row.bytes);
        let same = |it: &&Footer| (it.first, it.last, it.bytes) == (first, row.last, bytes);
        let known = self.footer.as_ref().filter(same);
        let segment = known.and_then(Footer::open);
        let mut part = Part {
            first: row.from,
            last: row.last,
            what: What::Footer { first, bytes },
        };
        let mut range = bytes.saturating_sub(row.footer)..bytes;
        if let Some(segment) = segment {
            let Some((from, upto)) = self.frames_of(part, &segment) else {
                // Only its filter has the peer, or the time is between two messages.
                self.leave(part);
                return self.step(index);
            };
            let frames = segment.bytes_of(from..=upto);
            range = frames.start as u64..frames.end as u64;
            let at = range.start;
            part.what = What::Frames { from, upto, at };
        }
        self.fetching = Some(part);
        Step::Fetch(BlobOp::Get {
            at: row.object(&self.owner),
            range: Some(range),
        })
    }

    /// The first and the last frame that the page wants next.
    fn frames_of(&self, part: Part, segment: &Segment) -> Option<(usize, usize)> {
        let mut frames = segment.frames(&self.positions_of(part), self.filter.hash());
        let times = self.filter.from()..=self.filter.end;
        frames.retain(|frame| segment.may_be_of(*frame, &times));
        if self.page.backward {
            frames.reverse();
        }
        let first = *frames.first()?;
        let wanted = (self.page.max + 1).saturating_sub(self.hits.len()) as u64 + SPARE_RECORDS;
        let (mut last, mut records) = (first, 0);
        for frame in frames {
            let bytes = segment.bytes_of(first.min(frame)..=first.max(frame));
            let enough = self.filter.with.is_none() && records >= wanted;
            if frame != first && (enough || bytes.len() > RANGE_BYTES) {
                break;
            }
            last = frame;
            // The first one may begin before the page does.
            let positions = segment.positions_of(frame);
            let inside = self.positions_of(part);
            let start = positions.start.max(inside.start);
            records += positions.end.min(inside.end).saturating_sub(start);
        }
        Some((first.min(last), first.max(last)))
    }

    /// Takes the frames that were asked for.
    fn scan_frames(&mut self, part: Part, body: Bytes) -> Result<(), SegmentError> {
        const LOST: SegmentError = SegmentError("its footer");
        let What::Frames { from, upto, at } = part.what else {
            return Ok(());
        };
        let known = self.footer.as_ref().and_then(Footer::open).ok_or(LOST)?;
        let offset = usize::try_from(at).map_err(|_| LOST)?;
        let segment = known.holding(body, offset);
        let positions = self.positions_of(part);
        let mut frames = segment.frames(&positions, self.filter.hash());
        frames.retain(|frame| (from..=upto).contains(frame));
        if self.page.backward {
            frames.reverse();
        }
        self.objects += 1;
        for frame in frames {
            if self.look_through(&positions, segment.frame(frame)?) {
                return Ok(());
            }
        }
        let (first, last) = (segment.positions_of(from), segment.positions_of(upto));
        self.leave(Part {
            first: first.start.max(part.first),
            last: last.end.saturating_sub(1).min(part.last),
            what: part.what,
        });
        Ok(())
    }

    /// What was asked for can't be had. `true`: it was a digest, and segments have it too.
    pub fn do_without(&mut self) -> bool {
        match self.fetching.take() {
            Some(part) if part.what == What::Digest => {
                self.without.push(part.last);
                true
            }
            _ => false,
        }
    }

    /// Takes the messages of a digest. It may have none with that peer, whatever its row says:
    /// then segments have them.
    fn scan_digest(&mut self, part: Part, object: &Bytes) -> Result<(), SegmentError> {
        self.objects += 1;
        let peers = read_digest(object, self.filter.hash())?;
        let records: Vec<_> = peers.into_values().flatten().collect();
        if records.is_empty() {
            self.without.push(part.last);
            return Ok(());
        }
        let positions = self.positions_of(part);
        if self.look_through(&positions, records) {
            return Ok(());
        }
        self.leave(part);
        Ok(())
    }

    /// The first message that was found, and what it says if that was kept.
    pub fn newest(&self) -> Option<(Hit, Option<Bytes>)> {
        let (hit, kept) = self.hits.front()?;
        Some((*hit, kept.as_ref().map(|kept| kept.0.clone())))
    }

    /// All of a part was looked through.
    fn leave(&mut self, part: Part) {
        self.at = match self.page.backward {
            true => part.first,
            false => part.last.saturating_add(1),
        };
        if self.requests + self.objects >= REQUESTS && !self.hits.is_empty() {
            self.finish(false);
        }
    }

    /// The positions of a part that the page is about.
    fn positions_of(&self, part: Part) -> Range<u64> {
        match self.page.backward {
            true => self.low.max(part.first)..self.at.min(part.last.saturating_add(1)),
            false => self.at.max(part.first)..self.high.min(part.last.saturating_add(1)),
        }
    }

    /// Whether a segment has something that is kept.
    pub(super) fn is_kept(&self, row: &Row) -> bool {
        !row.is_gone() && row.last_t >= self.filter.kept
    }

    /// Whether every message of a segment matches.
    pub(super) fn has_all(&self, row: &Row) -> bool {
        self.filter.is_open()
            && row.from == row.first
            && row.first_t >= self.filter.kept
            && row.first >= self.low
            && row.last < self.high
    }

    /// Takes the segment that [`Step::Fetch`] asked for.
    ///
    /// # Errors
    /// [`LogError::Broken`] when it can't be understood.
    pub fn on_segment(&mut self, object: Bytes) -> Result<(), LogError> {
        let Some(part) = self.fetching else {
            return Ok(());
        };
        let damaged = |error: SegmentError| LogError::Broken(error.to_string());
        match part.what {
            What::Segment => {}
            What::Digest => self.scan_digest(part, &object).map_err(damaged)?,
            What::Footer { first, bytes } => {
                self.objects += 1;
                let footer = Footer {
                    first,
                    last: part.last,
                    bytes,
                    footer: object.clone(),
                };
                footer
                    .open()
                    .ok_or(SegmentError("the footer"))
                    .map_err(damaged)?;
                self.footer = Some(footer);
            }
            What::Frames { .. } => self.scan_frames(part, object.clone()).map_err(damaged)?,
        }
        self.fetching = None;
        if part.what != What::Segment {
            return Ok(());
        }
        let segment = Segment::open(object).map_err(damaged)?;
        match &self.stage {
            Stage::Scan(_) => self.scan_segment(part, &segment).map_err(damaged),
            Stage::Check(ids) => {
                // Ids that follow each other are often neighbours.
                let inside = |id: &&u64| (part.first..=part.last).contains(id);
                let ids: Vec<u64> = ids.iter().take_while(inside).copied().collect();
                for id in ids {
                    let record = segment.records(&(id..id.saturating_add(1)));
                    self.checked(record.map_err(damaged)?.pop());
                }
                Ok(())
            }
            Stage::Give => self.refill_from(part, &segment).map_err(damaged),
            Stage::Begin | Stage::Seek { .. } | Stage::Missing => Ok(()),
        }
    }

    pub(super) fn scan_segment(
        &mut self,
        part: Part,
        segment: &Segment,
    ) -> Result<(), SegmentError> {
        self.objects += 1;
        let positions = self.positions_of(part);
        let mut frames = segment.frames(&positions, self.filter.hash());
        if self.page.backward {
            frames.reverse();
        }
        for frame in frames {
            if self.look_through(&positions, segment.frame(frame)?) {
                return Ok(());
            }
        }
        self.leave(part);
        Ok(())
    }

    /// Reads again what of a segment comes next, as far as there is room for it.
    pub(super) fn refill_from(
        &mut self,
        part: Part,
        segment: &Segment,
    ) -> Result<(), SegmentError> {
        let wanted = |(hit, kept): &&(Hit, Option<Kept>)| {
            kept.is_none() && (part.first..=part.last).contains(&hit.position)
        };
        let hits = self.hits.iter().take_while(wanted);
        let positions: Vec<u64> = hits.map(|(hit, _)| hit.position).collect();
        for (index, position) in positions.into_iter().enumerate() {
            if index > 0 && self.kept >= self.bytes {
                break;
            }
            let found = segment
                .records(&(position..position.saturating_add(1)))?
                .pop();
            let gone = found.is_none();
            self.refill(index, found.map(|(_, record)| record));
            if gone {
                break; // The places have moved.
            }
        }
        Ok(())
    }
}
