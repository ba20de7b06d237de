//! What an account's archive holds at the end.

use std::collections::{BTreeMap, BTreeSet};

use cirrus_jid::BareJid;
use cirrus_router::log::{Content, Direction, decode};
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_stanza::Stanza;

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
            let tombstone = archive::tombstone_seq(&item.key.sk).is_some();
            if digest || tombstone || archive::segment_last(&item.key.sk).is_some() {
                continue; // See [`Sealed`].
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
