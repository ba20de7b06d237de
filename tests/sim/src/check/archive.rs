//! What an account's archive holds at the end.

use std::collections::{BTreeMap, BTreeSet};

use cirrus_jid::BareJid;
use cirrus_router::log::{Content, Direction, Record, decode};
use cirrus_router::segment::{Segment, found_by, object_of, read_digest};
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_stanza::Stanza;
use cirrus_store::{BlobOp, BlobOutcome, Item};

use super::{History, Violation, index_of};
use crate::store::Store;

/// The messages of one archive.
#[derive(Default)]
pub struct Archive {
    /// By message, and whether the owner sent it to somebody else: how often it is there, and how
    /// often as part of what clients may query.
    counts: BTreeMap<(usize, bool), (usize, usize)>,
    /// Messages that the log obliges to deliver.
    waiting: BTreeSet<usize>,
}

impl Archive {
    /// Reads an archive, which must be dense from behind position `floor` on.
    pub fn read(store: &Store, user: &BareJid, floor: u64, history: &mut History) -> Self {
        let mut archive = Self::default();
        let mut expected = floor + 1;
        let mut places = BTreeMap::new();
        for item in store.rows(TableId::Archive, &archive::partition(&user.owner())) {
            let digest = archive::digest_last(&item.key.sk).is_some();
            if digest || archive::segment_last(&item.key.sk).is_some() {
                continue; // See [`check_segments`].
            }
            let Ok((seq, records)) = decode(&item) else {
                let text = format!("{user}: {} can't be read", item.key);
                history.wrong(Violation::Corrupt(text));
                continue;
            };
            if seq != expected {
                let text = format!("{user}: position {expected} is followed by {seq}");
                history.wrong(Violation::Corrupt(text));
            }
            expected = seq + records.len() as u64;
            for (position, record) in (seq..).zip(records) {
                match record.content {
                    Content::Message(message) => {
                        let stanza = Stanza::from_stored(&message.stanza);
                        let Some(index) = stanza.as_ref().and_then(index_of) else {
                            continue;
                        };
                        places.insert(position, index);
                        if message.flags.spool {
                            archive.waiting.insert(index);
                        }
                        let key = (index, message.direction == Direction::Out);
                        let (all, archived) = archive.counts.entry(key).or_default();
                        *all += 1;
                        *archived += usize::from(message.flags.archive);
                    }
                    Content::Respool(positions) => {
                        let again = positions.iter().filter_map(|p| places.get(p));
                        archive.waiting.extend(again);
                    }
                }
            }
        }
        archive
    }

    /// Reads what is sealed: every row has its object, which says of each position the same as its
    /// item, or that nobody will ask for it; together they have everything up to the last of them;
    /// and what no row names is a stray that a failed attempt left. Gives how many there are.
    pub fn check_segments(
        store: &Store,
        user: &BareJid,
        floor: u64,
        history: &mut History,
    ) -> usize {
        let mut items = BTreeMap::new();
        let (mut rows, mut digests) = (Vec::new(), Vec::new());
        for item in store.rows(TableId::Archive, &archive::partition(&user.owner())) {
            if archive::segment_last(&item.key.sk).is_some() {
                rows.push(item);
            } else if archive::digest_last(&item.key.sk).is_some() {
                digests.push(item);
            } else if let Ok((seq, records)) = decode(&item) {
                items.extend((seq..).zip(records));
            }
        }
        let mut sealed = BTreeMap::new();
        for row in &rows {
            let read = object_of(&user.owner(), row).and_then(|at| {
                let op = BlobOp::Get { at, range: None };
                match store.apply_blob(op) {
                    Ok(BlobOutcome::Body(Some(object))) => Segment::open(object).ok(),
                    _ => None,
                }
            });
            let records = read.and_then(|segment| segment.records(&(0..u64::MAX)).ok());
            let Some(records) = records else {
                let text = format!("{user}: the segment of {} can't be read", row.key);
                history.wrong(Violation::Corrupt(text));
                continue;
            };
            sealed.extend(records);
        }
        let last = sealed.last_key_value().map_or(floor, |(last, _)| *last);
        for (position, record) in items.range(..=last) {
            let same = sealed.get(position).is_some_and(|copy| {
                let empty = matches!(&copy.content, Content::Respool(all) if all.is_empty());
                let archived = record.as_message().is_some_and(|it| it.flags.archive);
                copy.t == record.t && (copy == record || (empty && !archived))
            });
            if !same {
                let text = format!("{user}: position {position} is sealed as something else");
                history.wrong(Violation::Corrupt(text));
            }
        }
        for row in &digests {
            Self::check_digest(store, user, row, &sealed, history);
        }
        rows.len()
    }

    /// A digest has all archived messages of its stretch with each peer that it has at all.
    fn check_digest(
        store: &Store,
        user: &BareJid,
        row: &Item,
        sealed: &BTreeMap<u64, Record>,
        history: &mut History,
    ) {
        let object = object_of(&user.owner(), row).and_then(|at| {
            match store.apply_blob(BlobOp::Get { at, range: None }) {
                Ok(BlobOutcome::Body(object)) => object,
                _ => None,
            }
        });
        let peers = object.and_then(|object| read_digest(&object, None).ok());
        let first = row.attrs.get_n("f").unwrap_or(0);
        let last = archive::digest_last(&row.key.sk).unwrap_or(0);
        let mut whole: BTreeMap<u32, Vec<(u64, Record)>> = BTreeMap::new();
        for (position, record) in sealed.range(first..=last) {
            if let Some(hash) = found_by(record) {
                let of_peer = whole.entry(hash).or_default();
                of_peer.push((*position, record.clone()));
            }
        }
        let right = |peers: BTreeMap<u32, Vec<(u64, Record)>>| {
            peers.iter().all(|(hash, all)| whole.get(hash) == Some(all))
        };
        if !peers.is_some_and(right) {
            let text = format!("{user}: the digest of {} is not what is sealed", row.key);
            history.wrong(Violation::Corrupt(text));
        }
    }

    /// How often a message is there in that direction, in all and as part of the archive.
    pub fn count(&self, index: usize, direction: Direction) -> (usize, usize) {
        let key = (index, direction == Direction::Out);
        self.counts.get(&key).copied().unwrap_or_default()
    }

    /// Whether the log obliges to deliver a message.
    pub fn waits(&self, index: usize) -> bool {
        self.waiting.contains(&index)
    }
}
