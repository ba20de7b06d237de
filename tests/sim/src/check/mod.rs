//! The history of a run and what must be true of it.

mod archive;
mod messages;
mod sealed;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cirrus_stanza::{Kind, Stanza, Ty, ns};

pub use archive::Archive;
pub use messages::{Class, Message, index_of};
pub use sealed::Sealed;
pub use state::{check_clients, check_rosters, is_any_unconfirmed};

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
    /// The server acknowledged what it can't have, or took an acknowledgement back.
    Counted(String),
    /// A client sees somebody who is not there, or does not see who is.
    Presence(String),
    /// Rosters contradict each other, or what clients were told.
    Roster(String),
    /// Something of an account that was erased can be read.
    Erased(String),
    /// A copy of the home is none any more.
    Copy(String),
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
            Self::Counted(text) => ("counted", text),
            Self::Presence(text) => ("presence", text),
            Self::Roster(text) => ("roster", text),
            Self::Erased(text) => ("erased", text),
            Self::Copy(text) => ("copy", text),
            Self::Stuck(text) => ("stuck", text),
        };
        write!(f, "{what}: {text}")
    }
}

/// A bound resource as the world knows it.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub account: usize,
    pub bound_at: u64,
    /// Takes messages for the bare JID, as the server has been told.
    pub taker: bool,
    /// When the server was told that it does.
    pub taker_at: u64,
    /// Stretches in which it had no connection and was kept.
    pub detached: Vec<(u64, u64)>,
    /// When its client closed it.
    pub left: Option<u64>,
    /// The highest inbound number that it gave the server, and that the server called handled.
    pub taken: u64,
    pub handled: u64,
}

/// Everything that happened.
#[derive(Default)]
pub struct History {
    pub messages: Vec<Message>,
    archived: bool,
    /// When a server without others was killed.
    pub kills: Vec<u64>,
    /// When the homes of accounts began anew, without what sessions they had: when the last one was
    /// there, and when the new one was.
    anew: BTreeMap<usize, Vec<(u64, u64)>>,
    pub sessions: BTreeMap<u64, Session>,
    /// When an account began to be erased, and when nothing of it was left.
    pub erased: BTreeMap<usize, (u64, u64)>,
    /// Accounts whose roster a dead server has written after it was read.
    pub strays: BTreeSet<usize>,
    /// What a session got last, in the order that counts for it.
    order: BTreeMap<messages::Pair, messages::Last>,
    overtaken: Vec<messages::Overtaken>,
    pub violations: Vec<Violation>,
}

impl History {
    /// Of a run in which messages are archived, or only kept until they are delivered.
    pub fn new(archived: bool) -> Self {
        Self {
            archived,
            ..Self::default()
        }
    }

    /// A home of an account began anew: home and copies were lost together.
    pub fn began_anew(&mut self, account: usize, since: u64, now: u64) {
        self.anew.entry(account).or_default().push((since, now));
    }

    /// What the home of an account knew of sessions was lost in that time.
    pub fn forgot_between(&self, account: usize, from: u64, to: u64) -> bool {
        let anew = self.anew.get(&account).into_iter().flatten();
        let mut anew = anew.filter(|(since, now)| *since <= to && *now >= from);
        anew.next().is_some() || self.kills.iter().any(|kill| (from..=to).contains(kill))
    }

    pub fn wrong(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// A session lost its connection, and is kept.
    pub fn detached(&mut self, session: u64, now: u64, until: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.detached.push((now, until));
        }
    }

    /// A session was closed by its client.
    pub fn left(&mut self, session: u64, now: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.left.get_or_insert(now);
        }
    }

    /// The sessions that wait now are kept until another time.
    pub fn detached_anew(&mut self, now: u64, until: u64) {
        for session in self.sessions.values_mut() {
            if let Some((_, kept)) = session.detached.last_mut()
                && *kept > now
            {
                *kept = until;
            }
        }
    }

    /// A session was resumed.
    pub fn resumed(&mut self, session: u64, now: u64) {
        if let Some(session) = self.sessions.get_mut(&session)
            && let Some((_, until)) = session.detached.last_mut()
        {
            *until = now.min(*until);
        }
    }

    /// The server ended, and with it every session.
    pub fn end_sessions(&mut self, now: u64) {
        let all: Vec<_> = self.sessions.keys().copied().collect();
        for session in all {
            self.resumed(session, now);
        }
    }

    /// A session broadcasts its presence.
    pub fn shown(&mut self, id: u64, stanza: &Stanza, now: u64) {
        if stanza.kind == Kind::Presence
            && stanza.to.is_none()
            && let Some(session) = self.sessions.get_mut(&id)
        {
            let priority = stanza.child("priority", ns::CLIENT);
            let negative = priority.is_some_and(|element| element.text().starts_with('-'));
            let taker = stanza.ty == Ty::Available && !negative;
            if taker && !session.taker {
                session.taker_at = now;
            }
            session.taker = taker;
        }
    }

    /// A session gives the server an inbound stanza.
    pub fn taken(&mut self, session: u64, k: u64, message: Option<usize>, now: u64) {
        let message = message.and_then(|index| self.messages.get_mut(index));
        if let Some(message) = message {
            message.taken_at.get_or_insert(now);
            message.repeated_at = Some(now);
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.taken = session.taken.max(k);
        }
    }

    /// The server says that everything up to `k` is handled.
    pub fn handled(&mut self, session: u64, k: u64, resumed: bool) {
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        let (taken, before) = (known.taken, known.handled);
        // A resumed stream may repeat the count; otherwise it is told when it has grown.
        let back = if resumed { k < before } else { k <= before };
        known.handled = known.handled.max(k);
        if back {
            let text = format!("session {session}: {k} handled after {before}");
            self.wrong(Violation::Counted(text));
        }
        if k > taken {
            let text = format!("session {session}: {k} handled of {taken}");
            self.wrong(Violation::Counted(text));
        }
    }

    /// Whether an account was being erased at that time or later.
    pub fn erased_since(&self, account: usize, time: u64) -> bool {
        self.erased
            .get(&account)
            .is_some_and(|(_, gone)| *gone >= time)
    }
}
