//! The index of an archive: one row for each segment.
//!
//! Format 1 of a row, key `s` and the segment's last position: `v` = 1; `f` = first position; `a`,
//! `b` = times of the first and the last record; `c` = archived messages; `z` = the object's bytes;
//! `k` = first 8 bytes of the object's SHA-256; `p` = hashes of up to [`LISTED`] peers, ascending,
//! 4 bytes each, or `m` = a Bloom filter of more; `y` = bytes of a joined segment's footer and what
//! follows it, so that it need not be read whole.
//!
//! The row of a [digest](super::digest) has the same attributes under a key of its own, `r` and its
//! last position.
//!
//! A row without bytes is all that is left of a segment that is too old to be kept. Only the newest
//! may be so: it says where the log goes on.
//!
//! Beside them are the rows of [tombstones](super::tombstone).
//!
//! Rows may overlap: a segment that takes in another one is there before the other's row goes, and
//! of two nodes that believe they own a log each may have sealed it. All of them are true, so of a
//! position any row will do.

use std::ops::RangeInclusive;

use bytes::Bytes;
use cirrus_schema::BucketId;
use cirrus_schema::keys::{KeyBytes, archive};
use cirrus_store::{Attrs, BlobKey, Item};
use serde::{Deserialize, Serialize};

use super::join::Joined;
use super::{Built, Tombstone, Tombstones};
use crate::codec::Since;
use crate::log::LogError;

const FORMAT: u64 = 1;
/// Peers that are listed one by one.
const LISTED: usize = 64;
/// Bits of a filter for each peer, and how many of them are set: one stranger in a hundred passes.
const BITS: usize = 10;
const SET: u32 = 4;
/// Most bytes of a filter: 6,500 peers, more than a segment has records.
const MAX_FILTER: usize = 8_192;

/// The folder of an owner's segments.
pub(crate) fn folder(owner: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, owner);
    let hash = hex(&hash.as_ref()[..16]);
    format!("seg/{}/{hash}/", &hash[..2])
}

/// Where the object of a row is; `None` when that is no row.
pub fn object_of(owner: &[u8], row: &Item) -> Option<BlobKey> {
    Row::read(row).ok().map(|row| row.object(owner))
}

/// Which peers a segment has archived messages with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Peers {
    /// Hashes, ascending.
    List(Vec<u32>),
    /// A Bloom filter.
    Filter(#[serde(with = "cirrus_store::raw")] Bytes),
}

impl Peers {
    fn of(hashes: &[u32]) -> Self {
        if hashes.len() <= LISTED {
            return Self::List(hashes.to_vec());
        }
        let mut filter = vec![0u8; (hashes.len() * BITS).div_ceil(8).min(MAX_FILTER)];
        for hash in hashes {
            for bit in bits(*hash, filter.len()) {
                if let Some(byte) = filter.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        Self::Filter(filter.into())
    }

    /// Whether there may be messages with that peer.
    pub fn may_have(&self, hash: u32) -> bool {
        match self {
            Self::List(hashes) => hashes.binary_search(&hash).is_ok(),
            Self::Filter(filter) => bits(hash, filter.len()).all(|bit| {
                let byte = filter.get(bit / 8).copied().unwrap_or(0);
                byte & (1 << (bit % 8)) != 0
            }),
        }
    }
}

/// The bits of a filter that stand for a peer.
fn bits(hash: u32, bytes: usize) -> impl Iterator<Item = usize> {
    let (a, b) = (hash, hash.wrapping_mul(0x9e37_79b9).rotate_left(15) | 1);
    let bits = u32::try_from(bytes * 8).unwrap_or(u32::MAX).max(1);
    (0..SET).map(move |n| (a.wrapping_add(b.wrapping_mul(n)) % bits) as usize)
}

/// A segment, as its row tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub first: u64,
    pub last: u64,
    /// Times of the first and the last record, Unix milliseconds.
    pub first_t: u64,
    pub last_t: u64,
    /// Messages that belong to the archive.
    pub archived: u64,
    /// Bytes of the object.
    pub bytes: u64,
    name: [u8; 8],
    peers: Peers,
    /// The row's version.
    pub version: u64,
    /// The first position that no row before this one has.
    pub from: u64,
    /// It is a digest's.
    is_digest: bool,
    /// Bytes at the end of the object that say where its frames are; 0 = it is read whole.
    pub footer: u64,
}

impl Row {
    /// The row of a segment from position `first` on, which begins at that time.
    pub fn new(first: u64, first_t: u64, records: usize, built: &Built) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &built.bytes);
        let mut name = [0; 8];
        name.copy_from_slice(&hash.as_ref()[..8]);
        Self {
            first,
            last: first + records as u64 - 1,
            first_t,
            last_t: built.last_t,
            archived: built.archived,
            bytes: built.bytes.len() as u64,
            name,
            peers: Peers::of(&built.peers),
            version: 1,
            from: first,
            is_digest: false,
            footer: 0,
        }
    }

    /// The row of a digest of these positions, which begin at that time.
    pub fn digest(positions: RangeInclusive<u64>, first_t: u64, built: &Built) -> Self {
        let row = Self::new(*positions.start(), first_t, 1, built);
        Self {
            last: *positions.end(),
            is_digest: true,
            ..row
        }
    }

    /// The row of the segment that these are joined to: it takes the place of the last one's.
    pub fn joined(rows: &[Self], joined: &Joined) -> Option<Self> {
        let (first, last) = (rows.first()?, rows.last()?);
        let records = usize::try_from(last.last - first.first + 1).ok()?;
        let row = Self::new(first.first, first.first_t, records, &joined.built);
        Some(Self {
            version: last.version + 1,
            footer: joined.footer,
            ..row
        })
    }

    /// Whether it is a digest's.
    pub fn is_digest(&self) -> bool {
        self.is_digest
    }

    /// Where it is in the table.
    pub fn key(&self, owner: &[u8]) -> KeyBytes {
        match self.is_digest {
            true => archive::digest(owner, self.last),
            false => archive::segment(owner, self.last),
        }
    }

    /// Where its object is.
    pub fn object(&self, owner: &[u8]) -> BlobKey {
        let (first, last) = (self.first, self.last);
        let name = format!(
            "{}{}{first:016x}-{last:016x}-{}",
            folder(owner),
            if self.is_digest { "d-" } else { "" },
            hex(&self.name)
        );
        BlobKey::new(BucketId::Data, name)
    }

    /// Only the row is left.
    pub fn is_gone(&self) -> bool {
        self.bytes == 0
    }

    /// What takes the row's place when the segment is too old.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self {
            archived: 0,
            bytes: 0,
            peers: Peers::List(Vec::new()),
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// Whether it may have archived messages with a peer, or any.
    pub fn may_have(&self, with: Option<u32>) -> bool {
        self.archived > 0 && with.is_none_or(|hash| self.peers.may_have(hash))
    }

    /// Its records.
    pub fn records(&self) -> u64 {
        self.last - self.first + 1
    }

    pub fn item(&self, owner: &[u8]) -> Item {
        let mut attrs = Attrs::new()
            .with("v", FORMAT)
            .with("f", self.first)
            .with("a", self.first_t)
            .with("b", self.last_t)
            .with("c", self.archived)
            .with("z", self.bytes)
            .with("k", &self.name[..]);
        if self.footer > 0 {
            attrs.set("y", self.footer);
        }
        match &self.peers {
            Peers::List(hashes) => {
                let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_be_bytes()).collect();
                attrs.set("p", bytes);
            }
            Peers::Filter(filter) => drop(attrs.set("m", filter.clone())),
        }
        Item::new(self.key(owner), attrs).versioned(self.version)
    }

    fn read(item: &Item) -> Result<Self, LogError> {
        let corrupt = |reason: &'static str| LogError::Corrupt {
            key: item.key.clone(),
            reason: reason.into(),
        };
        let digest = archive::digest_last(&item.key.sk);
        let last = digest.or(archive::segment_last(&item.key.sk));
        let last = last.ok_or_else(|| corrupt("not a segment's row"))?;
        if item.attrs.get_n("v") != Some(FORMAT) {
            return Err(corrupt("unknown format"));
        }
        let number = |name| {
            let missing = || corrupt("an attribute is missing");
            item.attrs.get_n(name).ok_or_else(missing)
        };
        let name = item
            .attrs
            .get_b("k")
            .and_then(|k| k.as_ref().try_into().ok());
        let peers = match (item.attrs.get_b("p"), item.attrs.get_b("m")) {
            (Some(list), None) if list.len() % 4 == 0 && list.len() <= 4 * LISTED => {
                let hash = |four: &[u8]| four.iter().fold(0, |all, b| all << 8 | u32::from(*b));
                let list: Vec<u32> = list.chunks_exact(4).map(hash).collect();
                let ascend = list.is_sorted();
                ascend.then_some(Peers::List(list))
            }
            (None, Some(filter)) if filter.len() <= MAX_FILTER => {
                Some(Peers::Filter(Bytes::copy_from_slice(filter)))
            }
            _ => None,
        };
        let first = number("f")?;
        let row = Self {
            first,
            last,
            first_t: number("a")?,
            last_t: number("b")?,
            archived: number("c")?,
            bytes: number("z")?,
            name: name.ok_or_else(|| corrupt("the object's name"))?,
            peers: peers.ok_or_else(|| corrupt("the peers"))?,
            version: item.version,
            from: first,
            is_digest: digest.is_some(),
            footer: item.attrs.get_n("y").unwrap_or(0),
        };
        let long = last.saturating_sub(first) >= super::MAX_RECORDS as u64;
        if first > last || long && !row.is_digest {
            return Err(corrupt("its positions"));
        }
        Ok(row)
    }
}

/// The segments of an archive in the order of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    rows: Vec<Row>,
    digests: Vec<Row>,
    /// Rows that others cover wholly: what a node left behind that did not get to remove them.
    pub covered: Vec<Row>,
    /// Messages that were retracted.
    pub tombstones: Since<10, Tombstones>,
}

impl Index {
    /// Takes a page of rows.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names the row that can't be understood.
    pub fn take(&mut self, items: &[Item]) -> Result<(), LogError> {
        for item in items {
            match Tombstone::read(item)? {
                Some((position, it)) => drop(self.tombstones.0.insert(position, it)),
                None => self.push(Row::read(item)?),
            }
        }
        Ok(())
    }

    fn push(&mut self, row: Row) {
        match row.is_digest {
            true => self.digests.push(row),
            false => self.rows.push(row),
        }
    }

    /// All pages were taken.
    pub fn finish(&mut self) {
        for rows in [&mut self.rows, &mut self.digests] {
            let mut all = std::mem::take(rows);
            all.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
            let mut next = 0;
            for mut row in all {
                if row.last < next {
                    self.covered.push(row);
                    continue;
                }
                row.from = row.first.max(next);
                next = row.last.saturating_add(1);
                rows.push(row);
            }
        }
    }

    /// A segment was sealed, or a digest made: rows that it covers go, and are given back.
    pub fn add(&mut self, row: Row) {
        self.push(row);
        self.finish();
    }

    /// The oldest segment or digest, all of which is older than that, Unix milliseconds. The row
    /// of the newest segment stays.
    pub fn lapsed(&self, kept: u64) -> Option<&Row> {
        let old = |row: &&Row| row.last_t < kept;
        let oldest = self.rows.first().filter(old);
        let oldest = oldest.filter(|row| !row.is_gone() || self.rows.len() > 1);
        oldest.or(self.digests.first().filter(old))
    }

    /// Whether another row has taken this one's place in the table.
    pub fn has_key_of(&self, row: &Row) -> bool {
        let rows = match row.is_digest {
            true => &self.digests,
            false => &self.rows,
        };
        rows.iter().any(|it| it.last == row.last)
    }

    /// Whether a row that counts has the same object as this one, which does not.
    pub fn has_object_of(&self, row: &Row) -> bool {
        let rows = match row.is_digest {
            true => &self.digests,
            false => &self.rows,
        };
        let same = |it: &Row| (it.first, it.last, it.name) == (row.first, row.last, row.name);
        rows.iter().any(same)
    }

    /// A row is removed from the table.
    pub fn remove(&mut self, gone: &Row) {
        let other = |row: &Row| row.last != gone.last;
        match gone.is_digest {
            true => self.digests.retain(other),
            false => self.rows.retain(other),
        }
    }

    /// A row has another content.
    pub fn replace(&mut self, new: Row) {
        let rows = match new.is_digest {
            true => &mut self.digests,
            false => &mut self.rows,
        };
        if let Some(row) = rows.iter_mut().find(|row| row.last == new.last) {
            *row = new;
        }
    }

    /// The last position of what is older than that, or was removed; 0 if nothing is.
    pub fn gone_to(&self, kept: u64) -> u64 {
        let old = self.rows.partition_point(|row| row.last_t < kept);
        match (old.checked_sub(1), self.rows.first()) {
            (Some(last), _) => self.rows.get(last).map_or(0, |row| row.last),
            (None, Some(first)) => first.from.saturating_sub(1),
            (None, None) => 0,
        }
    }

    /// How many rows there are of all kinds.
    pub fn len(&self) -> usize {
        let rows = self.rows.len() + self.digests.len() + self.covered.len();
        rows + self.tombstones.0.len()
    }

    /// The segments, ascending.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The digests, ascending.
    pub fn digests(&self) -> &[Row] {
        &self.digests
    }

    /// The digest that may have all messages of a segment with that peer.
    pub fn digest_of(&self, row: &Row, hash: u32) -> Option<&Row> {
        let at = self
            .digests
            .partition_point(|digest| digest.last < row.last);
        let digest = self.digests.get(at)?;
        (digest.first <= row.from && digest.may_have(Some(hash))).then_some(digest)
    }

    /// The last position that is in a segment; 0 without segments.
    pub fn sealed(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.last)
    }

    /// The segment that has the first position from `position` on that is in one.
    pub fn at_or_after(&self, position: u64) -> usize {
        self.rows.partition_point(|row| row.last < position)
    }

    /// The segment that has a position.
    pub fn of(&self, position: u64) -> Option<&Row> {
        let row = self.rows.get(self.at_or_after(position))?;
        (row.from <= position).then_some(row)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}
