//! What of an account's archive is sealed at the end, and what was retracted.

use std::collections::BTreeMap;

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_router::log::{Content, Message, Record, decode};
use cirrus_router::segment::{Segment, found_by, object_of, read_digest};
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_stanza::{Stanza, ns};
use cirrus_store::{BlobOp, BlobOutcome, Item};

use super::{History, Violation, index_of};
use crate::store::Store;

/// The rows beside those of the log, and the log.
#[derive(Default)]
pub struct Sealed {
    log: BTreeMap<u64, Record>,
    segments: Vec<Item>,
    digests: Vec<Item>,
    tombstones: BTreeMap<u64, Item>,
    /// What the segments say.
    records: BTreeMap<u64, Record>,
    /// Retractions always were more than messages like others.
    replaced: bool,
}

impl Sealed {
    /// Looks at what is sealed: every row has its object, which says of each position the same as
    /// its item, that it was retracted, or that nobody will ask for it; together they have
    /// everything up to the last of them; and what no row names is a stray that a failed attempt
    /// left. Gives how many segments there are, and how many messages are shown as retracted.
    /// `replaced`: the cluster never had an older format, in which none are.
    pub fn check(
        store: &Store,
        user: &BareJid,
        (floor, replaced): (u64, bool),
        history: &mut History,
    ) -> (usize, usize) {
        let mut it = Self {
            replaced,
            ..Self::default()
        };
        for item in store.rows(TableId::Archive, &archive::partition(&user.owner())) {
            if archive::segment_last(&item.key.sk).is_some() {
                it.segments.push(item);
            } else if archive::digest_last(&item.key.sk).is_some() {
                it.digests.push(item);
            } else if let Some(position) = archive::tombstone_seq(&item.key.sk) {
                it.tombstones.insert(position, item);
            } else if let Ok((seq, records)) = decode(&item) {
                it.log.extend((seq..).zip(records));
            }
        }
        let mut found = Vec::new();
        it.read_segments(store, user, history, &mut found);
        let last = it.records.last_key_value().map_or(floor, |(last, _)| *last);
        for (position, record) in it.log.range(..=last) {
            let copy = it.records.get(position);
            if !copy.is_some_and(|copy| it.is_right(*position, record, copy, history)) {
                found.push(format!("position {position} is sealed as something else"));
            }
        }
        for row in &it.digests {
            if !it.is_right_digest(store, user, row, history) {
                found.push(format!("the digest of {} is not what is sealed", row.key));
            }
        }
        for (position, row) in &it.tombstones {
            let by = row.attrs.get_n("p").unwrap_or(0);
            if !it.is_about(by, *position, history) {
                found.push(format!("{}: nobody has retracted that", row.key));
            }
        }
        for text in found {
            history.wrong(Violation::Corrupt(format!("{user}: {text}")));
        }
        let replaced = it.records.iter();
        let replaced = replaced.filter(|(position, record)| {
            left_by(record).is_some() && !it.tombstones.contains_key(position)
        });
        (it.segments.len(), it.tombstones.len() + replaced.count())
    }

    /// Reads the segments. Where a message is together with its retraction, it is gone, unless they
    /// came together only when segments were joined.
    fn read_segments(
        &mut self,
        store: &Store,
        user: &BareJid,
        history: &History,
        found: &mut Vec<String>,
    ) {
        for row in &self.segments {
            let object = object(store, user, row).and_then(|it| Segment::open(it).ok());
            let records = object.and_then(|it| it.records(&(0..u64::MAX)).ok());
            let Some(records) = records else {
                if self.is_covered(row) {
                    continue;
                }
                found.push(format!("the segment of {} can't be read", row.key));
                continue;
            };
            let joined = row.attrs.get_n("y").is_some();
            for (by, _) in records.iter().filter(|_| self.replaced && !joined) {
                let shown = |(position, record): &&(u64, Record)| {
                    left_by(record).is_none() && self.is_about(*by, *position, history)
                };
                if let Some((position, _)) = records.iter().find(shown) {
                    let key = &row.key;
                    found.push(format!(
                        "{key}: {position} is shown beside its retraction {by}"
                    ));
                }
            }
            self.records.extend(records);
        }
    }

    /// Another segment has all that this one had. Whoever reads the index passes its row over, so
    /// it needs no object: an attempt to write it, given up long before, was late.
    fn is_covered(&self, row: &Item) -> bool {
        let range = |row: &Item| {
            let first = row.attrs.get_n("f")?;
            Some((first, archive::segment_last(&row.key.sk)?))
        };
        let Some((first, last)) = range(row) else {
            return false;
        };
        let mut others = self.segments.iter().filter(|other| other.key != row.key);
        others.any(|other| range(other).is_some_and(|it| it.0 <= first && last <= it.1))
    }

    /// A digest has all archived messages of its stretch with each peer that it has at all. What is
    /// retracted in one of them only, a tombstone is still there for.
    fn is_right_digest(
        &self,
        store: &Store,
        user: &BareJid,
        row: &Item,
        history: &History,
    ) -> bool {
        let object = object(store, user, row);
        let Some(peers) = object.and_then(|object| read_digest(&object, None).ok()) else {
            return false;
        };
        let first = row.attrs.get_n("f").unwrap_or(0);
        let last = archive::digest_last(&row.key.sk).unwrap_or(0);
        let mut whole: BTreeMap<u32, Vec<(u64, &Record)>> = BTreeMap::new();
        for (position, record) in self.records.range(first..=last) {
            if let Some(hash) = found_by(record) {
                whole.entry(hash).or_default().push((*position, record));
            }
        }
        let same = |a: &(u64, Record), b: &(u64, &Record)| {
            let (position, gone) = (a.0, self.tombstones.contains_key(&a.0));
            let either = || {
                self.is_right(position, &a.1, b.1, history)
                    || self.is_right(position, b.1, &a.1, history)
            };
            position == b.0 && (a.1 == *b.1 || gone && either())
        };
        peers.iter().all(|(hash, all)| {
            let sealed = whole.get(hash).map_or(&[][..], |it| it);
            all.len() == sealed.len() && all.iter().zip(sealed).all(|(a, b)| same(a, b))
        })
    }

    /// Whether a copy of a record says the same, or what it should instead.
    fn is_right(&self, position: u64, record: &Record, copy: &Record, history: &History) -> bool {
        if copy == record || copy.t != record.t {
            return copy == record;
        }
        let message = record.as_message();
        match (&copy.content, message) {
            (Content::Respool(all), _) => {
                all.is_empty() && !message.is_some_and(|it| it.flags.archive)
            }
            (Content::Message(_), None) => false,
            (Content::Message(left), Some(message)) => {
                let whole = Message {
                    stanza: message.stanza.clone(),
                    ..left.clone()
                };
                let ids = [&message.stanza, &left.stanza].map(index);
                let mut after = self.log.range(position + 1..);
                let by = left_by(copy).and_then(|id| {
                    let mut by = after.by_ref().filter(|(_, it)| index_in(it) == Some(id));
                    by.find(|(by, _)| self.is_about(**by, position, history))
                });
                whole == *message && ids[0] == ids[1] && by.is_some()
            }
        }
    }

    /// Whether the message at position `by` retracts the one at that position before it, and may.
    fn is_about(&self, by: u64, position: u64, history: &History) -> bool {
        let both = self.log.get(&by).zip(self.log.get(&position));
        let both = both.and_then(|(by, it)| by.as_message().zip(it.as_message()));
        let Some((retraction, message)) = both.filter(|_| position < by) else {
            return false;
        };
        let named = index(&retraction.stanza).and_then(|by| history.messages.get(by)?.retracts);
        let same = (retraction.direction, &retraction.peer) == (message.direction, &message.peer);
        let archived = retraction.flags.archive && message.flags.archive;
        named.is_some() && named == index(&message.stanza) && same && archived
    }
}

fn object(store: &Store, user: &BareJid, row: &Item) -> Option<Bytes> {
    let at = object_of(&user.owner(), row)?;
    match store.apply_blob(BlobOp::Get { at, range: None }) {
        Ok(BlobOutcome::Body(object)) => object,
        _ => None,
    }
}

fn index(stored: &Bytes) -> Option<usize> {
    index_of(&Stanza::from_stored(stored)?)
}

fn index_in(record: &Record) -> Option<usize> {
    index(&record.as_message()?.stanza)
}

/// The message that has retracted this one, if nothing else is left of it (XEP-0424 section 5).
fn left_by(record: &Record) -> Option<usize> {
    let stanza = Stanza::from_stored(&record.as_message()?.stanza)?;
    let left = stanza.child("retracted", ns::RETRACT)?;
    let id = left.attr("id")?.strip_prefix('m')?.parse().ok()?;
    (stanza.children().count() == 1).then_some(id)
}
