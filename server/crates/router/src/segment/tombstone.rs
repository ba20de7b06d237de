//! Tombstones: what is left of a message that its author has retracted (XEP-0424).
//!
//! A retraction names the message's `id` and counts only if it comes from the same side of the
//! same conversation. Of several messages with that id the newest before the retraction is meant.
//!
//! Format 1 of a row, key `t` and the position of the retracted message: `v` = 1; `p` = position of
//! the retraction; `t` = its time, Unix milliseconds; `i` = its id. A row is written once and never
//! changed. It stands for the message's content until that is replaced where it is stored, and
//! longer where a digest may have a copy.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::keys::{KeyBytes, archive};
use cirrus_stanza::{Kind, Stanza, ns, stamp};
use cirrus_store::{Attrs, Item, Value};
use cirrus_xml::Writer;
use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::{Index, Row, found_by};
use crate::log::{Content, Direction, LogError, Message, Record};

const FORMAT: u64 = 1;
/// Longest id of a message, bytes: rows have to be small, and cost one unit each.
const MAX_ID: usize = 512;

/// The tombstones of an archive, by the positions of what was retracted.
pub(crate) type Tombstones = BTreeMap<u64, Tombstone>;

/// Says of a position that what stands there was retracted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    /// Where the retraction is in the log.
    pub by: u64,
    /// When it was accepted, Unix milliseconds.
    pub t: u64,
    /// Its id.
    pub id: Box<str>,
}

impl Tombstone {
    /// Its row.
    pub fn item(&self, owner: &[u8], position: u64) -> Item {
        let attrs = Attrs::new()
            .with("v", FORMAT)
            .with("p", self.by)
            .with("t", self.t)
            .with("i", Value::S(self.id.to_string()));
        Item::new(Self::key(owner, position), attrs)
    }

    /// Where its row is in the table.
    pub fn key(owner: &[u8], position: u64) -> KeyBytes {
        archive::tombstone(owner, position)
    }

    /// A row's position and tombstone; `None` for another kind of row.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] names a row that can't be understood.
    pub fn read(item: &Item) -> Result<Option<(u64, Self)>, LogError> {
        let Some(position) = archive::tombstone_seq(&item.key.sk) else {
            return Ok(None);
        };
        let corrupt = |reason: &'static str| LogError::Corrupt {
            key: item.key.clone(),
            reason: reason.into(),
        };
        if item.attrs.get_n("v") != Some(FORMAT) {
            return Err(corrupt("unknown format"));
        }
        let (by, t, id) = (
            item.attrs.get_n("p"),
            item.attrs.get_n("t"),
            item.attrs.get_s("i"),
        );
        let read = by.zip(t).zip(id).map(|((by, t), id)| Self {
            by,
            t,
            id: id.into(),
        });
        let read = read.ok_or_else(|| corrupt("an attribute is missing"))?;
        Ok(Some((position, read)))
    }

    /// What is shown in the place of a message (XEP-0424 section 5): who sent it to whom, its id,
    /// and what has retracted it. `None` when that is there already, or it is no message.
    pub fn instead_of(&self, stored: &Bytes) -> Option<Bytes> {
        let stanza = Stanza::from_stored(stored)?;
        if is_replaced(&stanza) {
            return None;
        }
        let mut w = Writer::with_capacity(192);
        w.start("retracted")
            .attr("xmlns", ns::RETRACT)
            .attr("id", &self.id)
            .attr("stamp", &stamp(self.t));
        w.end();
        let mut left = Stanza::new(Kind::Message, stanza.ty).content(w.into_bytes());
        (left.id, left.to, left.from) = (stanza.id, stanza.to, stanza.from);
        Some(left.to_bytes().into())
    }

    /// Replaces what a record says. `false`: there was nothing to replace.
    pub fn replace(&self, record: &mut Record) -> bool {
        let Content::Message(message) = &mut record.content else {
            return false;
        };
        let instead = self.instead_of(&message.stanza);
        let replaced = instead.is_some();
        if let Some(instead) = instead {
            message.stanza = instead;
        }
        replaced
    }
}

/// Whether a message says only that it was retracted.
fn is_replaced(stanza: &Stanza) -> bool {
    stanza.is_payload("retracted", ns::RETRACT) && stanza.children().count() == 1
}

/// Whether a stored message says only that it was retracted.
pub(crate) fn was_replaced(stored: &Bytes) -> bool {
    Stanza::from_stored(stored).is_some_and(|stanza| is_replaced(&stanza))
}

/// Whether a message can be retracted: a retraction stays in the archive, and who has written what
/// an occupant of a room says in private is not known by the bare address (section 6).
fn can_be_retracted(stanza: &Stanza) -> bool {
    stanza.child("retract", ns::RETRACT).is_none() && !is_of_room(stanza)
}

fn is_of_room(stanza: &Stanza) -> bool {
    stanza.child("x", ns::MUC_USER).is_some()
}

/// A retraction in an archive, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Retraction {
    /// The id of what is retracted.
    target: Box<str>,
    pub peer: BareJid,
    pub direction: Direction,
    /// When it was accepted, Unix milliseconds.
    t: u64,
    /// Its own id.
    id: Box<str>,
}

impl Retraction {
    /// The retraction that a record is, if it is one. Without an id of its own nothing could refer
    /// to it, so nothing is replaced.
    pub fn of(record: &Record) -> Option<Self> {
        let message = record.as_message().filter(|it| it.flags.archive)?;
        if !has(&message.stanza, ns::RETRACT.as_bytes()) {
            return None;
        }
        let stanza = Stanza::from_stored(&message.stanza)?;
        let retract = stanza.child("retract", ns::RETRACT)?;
        let target: Box<str> = retract.attr("id")?.into();
        let id = stanza.id.clone()?;
        let fits = |id: &str| (1..=MAX_ID).contains(&id.len());
        (fits(&target) && fits(&id) && !is_of_room(&stanza)).then(|| Self {
            target,
            peer: message.peer.clone(),
            direction: message.direction,
            t: record.t,
            id,
        })
    }

    /// Whether it is about that message: by the same author, in the same conversation, with that
    /// id.
    pub fn is_about(&self, message: &Message) -> bool {
        let same = message.direction == self.direction && message.peer == self.peer;
        if !same || !message.flags.archive {
            return false;
        }
        // Stored bytes have their attributes as they are written here.
        let mut attribute = b" id='".to_vec();
        cirrus_xml::escape_attr(&self.target, &mut attribute);
        attribute.push(b'\'');
        has(&message.stanza, &attribute) && {
            let stanza = Stanza::from_stored(&message.stanza);
            stanza
                .is_some_and(|it| it.id.as_deref() == Some(&*self.target) && can_be_retracted(&it))
        }
    }

    /// What it leaves of its target, when it stands at that position.
    pub fn tombstone(&self, by: u64) -> Tombstone {
        Tombstone {
            by,
            t: self.t,
            id: self.id.clone(),
        }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    memmem::find(bytes, part).is_some()
}

/// Replaces what was retracted among records that stand from position `first` on: by the
/// tombstones that are known, and by retractions that are among them too. Gives the positions of
/// all of it, with what the messages are found by.
pub(crate) fn lay(first: u64, records: &mut [Record], known: &Tombstones) -> Vec<(u64, u32)> {
    let end = first.saturating_add(records.len() as u64);
    let mut laid = Vec::new();
    for (position, tombstone) in known.range(first..end) {
        let at = usize::try_from(position - first).ok();
        if let Some(record) = at.and_then(|at| records.get_mut(at)) {
            tombstone.replace(record);
            laid.extend(found_by(record).map(|hash| (*position, hash)));
        }
    }
    for (target, tombstone) in inside(first, records) {
        if let Some(record) = records.get_mut(target) {
            tombstone.replace(record);
            let position = first.saturating_add(target as u64);
            laid.extend(found_by(record).map(|hash| (position, hash)));
        }
    }
    laid
}

/// What the retractions among these records leave of others of them, as if each had been looked
/// after when it came: the first one of a message counts.
fn inside(first: u64, records: &[Record]) -> BTreeMap<usize, Tombstone> {
    let mut about = BTreeMap::new();
    let retractions = records.iter().zip(first..).enumerate();
    let mut retractions = retractions
        .filter_map(|(at, (record, position))| Some((at, position, Retraction::of(record)?)))
        .peekable();
    let mut newest: HashMap<_, usize> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        if retractions.peek().is_none() {
            break; // Mostly there is none, and nothing else is looked at.
        }
        let next = retractions.next_if(|(retraction, ..)| *retraction == at);
        if let Some((_, position, retraction)) = next {
            let tombstone = retraction.tombstone(position);
            let key = (retraction.direction, retraction.peer, retraction.target);
            if let Some(target) = newest.get(&key) {
                about.entry(*target).or_insert(tombstone);
            }
            continue;
        }
        let message = record.as_message().filter(|it| it.flags.archive);
        let stanza = message.and_then(|it| Stanza::from_stored(&it.stanza));
        if let Some((message, stanza)) = message.zip(stanza)
            && can_be_retracted(&stanza)
            && let Some(id) = stanza.id
        {
            newest.insert((message.direction, message.peer.clone(), id), at);
        }
    }
    about
}

impl Index {
    /// What is left of the message at that position, if it was retracted.
    pub fn tombstone(&self, position: u64) -> Option<&Tombstone> {
        self.tombstones.0.get(&position)
    }

    /// Whether the retraction at position `by` has been in effect when what it is about was sealed.
    pub fn was_sealed_with(&self, position: u64, by: u64) -> bool {
        let row = self.of(position);
        row.is_some_and(|row| by <= row.last && row.footer == 0)
    }

    /// Whether a digest may have a copy of the message at that position, which is found by that.
    pub fn is_in_digest(&self, position: u64, hash: u32) -> bool {
        let copied = |digest: &Row| {
            (digest.first..=digest.last).contains(&position) && digest.may_have(Some(hash))
        };
        self.digests().iter().any(copied)
    }
}
