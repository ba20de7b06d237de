//! The history of messages and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cirrus_jid::BareJid;
use cirrus_router::log::{Content, Direction, decode};
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_stanza::Stanza;
use cirrus_store::{Direction as Way, Item, Op, Outcome, SkRange};

use crate::store::Store;

/// What a run showed that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged to the sender, and in nobody's archive or nowhere to be seen.
    Lost(String),
    /// In an archive, or at a client, twice.
    Doubled(String),
    /// Out of the order in which one session sent to another.
    Reordered(String),
    /// An archive has a gap or something nobody sent.
    Corrupt(String),
    /// The server did not come to rest.
    Stuck(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Lost(text) => ("lost", text),
            Self::Doubled(text) => ("doubled", text),
            Self::Reordered(text) => ("reordered", text),
            Self::Corrupt(text) => ("corrupt", text),
            Self::Stuck(text) => ("stuck", text),
        };
        write!(f, "{what}: {text}")
    }
}

/// One message and its fate.
#[derive(Default)]
pub struct Message {
    pub from: usize,
    pub to: usize,
    /// The sender's session.
    pub session: u64,
    /// The address it was sent to: order holds between two addresses only (RFC 6120 10.1).
    pub address: String,
    /// When its sender was told that it is handled.
    pub accepted: Option<u64>,
    /// Its sender got an error for it.
    pub refused: bool,
    /// Sessions that the server sent it to, in order.
    pub emitted: Vec<u64>,
    /// The server took it from the archive for its first recipient.
    pub emitted_late: bool,
    /// Sessions that received it.
    pub received: Vec<u64>,
    /// Sessions whose acknowledgement the server has taken, and when the last one came.
    pub confirmed: BTreeSet<u64>,
    pub confirmed_at: u64,
}

/// Everything that happened.
#[derive(Default)]
pub struct History {
    pub messages: Vec<Message>,
    /// When the server was killed.
    pub kills: Vec<u64>,
    /// When each session was bound.
    pub bound: BTreeMap<u64, u64>,
    /// Accounts with a client that has no stream management: what was written to its socket may
    /// be lost with the connection.
    pub unmanaged: BTreeSet<usize>,
    /// The last message that a session got first, by the sender's session.
    order: BTreeMap<(u64, u64, String), usize>,
    /// Message, session, and the later message that came before it.
    reordered: Vec<(usize, u64, usize)>,
    pub violations: Vec<Violation>,
}

/// The index of a message's id, `m<index>`.
pub fn index_of(stanza: &Stanza) -> Option<usize> {
    stanza.id.as_deref()?.strip_prefix('m')?.parse().ok()
}

impl History {
    fn killed_since(&self, time: u64) -> bool {
        self.kills.iter().any(|kill| *kill >= time)
    }

    /// The server gave a message to a session's pipe.
    pub fn emitted(&mut self, index: usize, session: u64, late: bool) {
        if let Some(message) = self.messages.get_mut(index)
            && !message.emitted.contains(&session)
        {
            message.emitted_late |= late && message.emitted.is_empty();
            message.emitted.push(session);
        }
    }

    /// A client received a message.
    pub fn received(&mut self, index: usize, session: u64) {
        let bound = self.bound.get(&session).copied().unwrap_or(0);
        let Some(message) = self.messages.get(index) else {
            return;
        };
        let earlier = message
            .emitted
            .iter()
            .take_while(|other| **other != session);
        let earlier: Vec<_> = earlier.copied().collect();
        let all = !earlier.is_empty() && earlier.iter().all(|s| message.confirmed.contains(s));
        if message.received.contains(&session) {
            let text = format!("m{index} reached session {session} twice");
            self.violations.push(Violation::Doubled(text));
        } else if all && message.confirmed_at < bound && !self.killed_since(message.confirmed_at) {
            let text = format!("m{index} was acknowledged, and reached session {session} too");
            self.violations.push(Violation::Doubled(text));
        }
        let first = self.messages[index].emitted.first() == Some(&session);
        if first {
            let message = &self.messages[index];
            let key = (session, message.session, message.address.clone());
            let last = self.order.entry(key).or_insert(index);
            if *last > index {
                self.reordered.push((index, session, *last));
            }
            *last = (*last).max(index);
        }
        self.messages[index].received.push(session);
    }

    /// The server took a client's acknowledgement.
    pub fn confirmed(&mut self, index: usize, session: u64, now: u64) {
        if let Some(message) = self.messages.get_mut(index) {
            message.confirmed.insert(session);
            message.confirmed_at = now;
        }
    }

    /// Compares everything with the archives, at the end.
    pub fn judge(&mut self, store: &Store, users: &[BareJid]) {
        let archives: Vec<_> = users.iter().map(|user| self.archive(store, user)).collect();
        for index in 0..self.messages.len() {
            self.judge_message(index, &archives);
        }
        for (index, session, last) in std::mem::take(&mut self.reordered) {
            // A message whose recipient left while it was being written is taken up again later.
            let message = &self.messages[index];
            let again = message.emitted_late && !archives[message.to].spooled.contains(&index);
            if !again {
                let text = format!("m{index} reached session {session} after m{last}");
                self.violations.push(Violation::Reordered(text));
            }
        }
    }

    fn judge_message(&mut self, index: usize, archives: &[Archive]) {
        let message = &self.messages[index];
        let own = message.from == message.to;
        let there =
            archives[message.to].count(index, if own { Direction::Own } else { Direction::In });
        let here = archives[message.from].count(index, Direction::Out);
        let mut found = Vec::new();
        if there > 1 || here > 1 {
            let text = format!("m{index} is {there} and {here} times in the archives");
            found.push(Violation::Doubled(text));
        }
        if let Some(accepted) = message.accepted.filter(|_| !message.refused) {
            if there == 0 || (here == 0 && !own) {
                let text = format!("m{index} is {there} and {here} times in the archives");
                found.push(Violation::Lost(text));
            }
            let spooled = archives[message.to].spooled.contains(&index);
            let excused =
                self.unmanaged.contains(&message.to) || (self.killed_since(accepted) && !spooled);
            if message.received.is_empty() && !excused {
                let text = format!("m{index} was acknowledged and nobody received it");
                found.push(Violation::Lost(text));
            }
        }
        self.violations.extend(found);
    }

    fn archive(&mut self, store: &Store, user: &BareJid) -> Archive {
        let mut archive = Archive::default();
        let mut expected = 1;
        for item in items(store, user) {
            let Ok((seq, records)) = decode(&item) else {
                let text = format!("{user}: {} can't be read", item.key);
                self.violations.push(Violation::Corrupt(text));
                continue;
            };
            if seq != expected {
                let text = format!("{user}: position {expected} is followed by {seq}");
                self.violations.push(Violation::Corrupt(text));
            }
            expected = seq + records.len() as u64;
            for record in records {
                let Content::Message(message) = record.content else {
                    continue;
                };
                let stanza = Stanza::from_stored(&message.stanza);
                let Some(index) = stanza.as_ref().and_then(index_of) else {
                    continue;
                };
                *archive
                    .counts
                    .entry((index, message.direction == Direction::Out))
                    .or_default() += 1;
                if message.flags.spool {
                    archive.spooled.insert(index);
                }
            }
        }
        archive
    }
}

/// What one archive holds.
#[derive(Default)]
struct Archive {
    /// By message, and whether the owner sent it to somebody else.
    counts: BTreeMap<(usize, bool), usize>,
    spooled: BTreeSet<usize>,
}

impl Archive {
    fn count(&self, index: usize, direction: Direction) -> usize {
        self.counts
            .get(&(index, direction == Direction::Out))
            .copied()
            .unwrap_or(0)
    }
}

fn items(store: &Store, user: &BareJid) -> Vec<Item> {
    let pk = archive::partition(&user.owner());
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let op = Op::Query {
            table: TableId::Archive,
            pk: pk.clone().into(),
            range: SkRange::All,
            direction: Way::Forward,
            limit: None,
            after,
        };
        let Ok(Outcome::Page { items, next }) = store.apply(op) else {
            return all;
        };
        all.extend(items);
        match next {
            Some(_) => after = next,
            None => return all,
        }
    }
}
