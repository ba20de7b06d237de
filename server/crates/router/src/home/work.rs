//! What is under way between a home's entities, its store and its pipes.

use std::collections::{HashMap, VecDeque};

use cirrus_jid::BareJid;
use cirrus_stanza::Stanza;
use cirrus_store::{BlobOp, Op, StoreError};
use serde::{Deserialize, Serialize};

use super::config::HomeConfig;
use super::frame::{Body, Frame};
use crate::codec::{Known, Only};
use crate::entropy::Entropy;
use crate::event::{AccountRequest, Effect, Effects, Origin, PipeId, PipeOut, SessionId, Token};
use crate::roster::Planned;
use crate::user::Lot;

/// Why a store operation was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// Loading: the account's rows.
    LoadAccount,
    /// Loading: a page of the roster.
    LoadRoster,
    /// Loading: the archive's hot tail.
    LoadTail,
    /// An operation of the archive log, by its own token.
    Log(u64),
    /// A roster change.
    Roster(Box<Planned>),
    /// A page of messages for offline delivery.
    Spool { pass: u64 },
    /// The row with last activity and offline cursor.
    Status,
    /// A page of the archive for a session's query.
    Archive { session: SessionId, job: u64 },
    /// The row with what a user wants archived.
    Settings,
    /// An account request that a client waits for.
    Account {
        reply: Box<Stanza>,
        session: SessionId,
    },
    /// Removing what nothing depends on any more.
    Cleanup,
    /// Putting a session into the store.
    Park { session: SessionId },
    /// Removing the row of a session that goes on.
    Unpark,
    /// Erasing what the account owned.
    Erase,
    /// Rows of segments.
    Index { number: u64 },
    /// Sealing: a page of the log, a row, a segment.
    Seal { number: u64 },
    /// A segment for offline delivery.
    SpoolSegment { pass: u64 },
    /// Looking up the first or the last message of an archive.
    Ends { number: u64 },
    /// What a retraction is about: a page of the log, a segment, its row.
    Retract { number: Only<10, u64> },
}

/// Everything that is under way.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Work {
    pub frames: VecDeque<Frame>,
    #[serde(serialize_with = "crate::codec::sorted")]
    pub pipes: HashMap<PipeId, (BareJid, SessionId)>,
    /// Pipes whose bind or resume waits for its entity to load.
    #[serde(serialize_with = "crate::codec::sorted")]
    pub binding: HashMap<PipeId, BareJid>,
    pub erased: Erased,
    /// Sessions that the last process has parked and nobody has asked for.
    pub parked: Lot,
    pub tally: Tally,
    #[serde(serialize_with = "crate::codec::sorted")]
    operations: HashMap<Token, (BareJid, Purpose)>,
    last: Token,
    /// Up to this token operations were asked for by another node too, before it was gone.
    doubtful: Token,
    /// What the home was told of the cluster's format.
    pub format: Known,
}

/// What an operator should know of archives, counted since the home began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Segments sealed.
    pub sealed: u64,
    /// Attempts to seal that failed and are repeated.
    pub seal_failures: u64,
    /// Segments that are missing or damaged, and stretches of logs that are nowhere, each time
    /// that they were met.
    pub unreadable: u64,
}

/// Accounts that were erased not long ago: what a login read of one before that is out of date.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Erased {
    recent: VecDeque<(u64, BareJid)>,
    /// Until when more accounts were erased than can be remembered, Unix milliseconds.
    all_until: u64,
}

impl Erased {
    /// No login takes longer from reading the account to binding, milliseconds.
    const REMEMBERED_MS: u64 = 600_000;
    /// Accounts remembered by name.
    const NAMES: usize = 1_024;

    pub fn add(&mut self, now: u64, jid: &BareJid) {
        self.recent.retain(|(until, _)| *until > now);
        if self.recent.len() >= Self::NAMES
            && let Some((until, _)) = self.recent.pop_front()
        {
            self.all_until = self.all_until.max(until);
        }
        let until = now + Self::REMEMBERED_MS;
        self.recent.push_back((until, jid.compact()));
    }

    pub fn has(&self, now: u64, jid: &BareJid) -> bool {
        let mut recent = self.recent.iter();
        now < self.all_until || recent.any(|(until, erased)| *until > now && erased == jid)
    }
}

impl Work {
    fn begin(&mut self, jid: &BareJid, purpose: Purpose) -> Token {
        self.last += 1;
        self.operations.insert(self.last, (jid.clone(), purpose));
        self.last
    }

    /// Every operation under way will be asked for once more.
    pub fn doubt(&mut self) {
        self.doubtful = self.last;
    }

    /// The answer to an operation. A refusal of one that was asked for twice says nothing about
    /// the first time.
    pub fn judge<T>(&self, token: Token, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if token > self.doubtful || crate::planted::trust_refusal() {
            return result;
        }
        result.map_err(|error| match error {
            StoreError::Throttled { place, source }
            | StoreError::Unavailable { place, source, .. } => StoreError::Unavailable {
                place,
                outcome_unknown: true,
                source,
            },
            error => error,
        })
    }

    pub fn finish(&mut self, token: Token) -> Option<(BareJid, Purpose)> {
        self.operations.remove(&token)
    }

    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    pub fn is_quiet(&self) -> bool {
        self.operations.is_empty() && self.frames.is_empty()
    }
}

/// What an entity may use while it handles one event.
pub(crate) struct Cx<'a> {
    pub now: u64,
    pub rng: &'a mut dyn Entropy,
    pub out: &'a mut Effects,
    pub home: &'a HomeConfig,
    pub started_ms: u64,
    /// The process is at its end, and nobody else is there to go on.
    pub stopping: bool,
    pub work: &'a mut Work,
}

impl Cx<'_> {
    pub fn pipe(&mut self, pipe: PipeId, out: PipeOut) {
        self.out.push(Effect::Pipe { pipe, out });
    }

    pub fn store(&mut self, jid: &BareJid, purpose: Purpose, op: Op) {
        let token = self.work.begin(jid, purpose);
        self.out.push(Effect::Store { token, op });
    }

    pub fn blob(&mut self, jid: &BareJid, purpose: Purpose, op: BlobOp) {
        let token = self.work.begin(jid, purpose);
        self.out.push(Effect::Blob { token, op });
    }

    pub fn account(&mut self, jid: &BareJid, purpose: Purpose, request: AccountRequest) {
        let token = self.work.begin(jid, purpose);
        self.out.push(Effect::Account { token, request });
    }

    /// Sends a stanza to the entity it is addressed to.
    pub fn route(&mut self, stanza: Stanza, origin: Option<Origin>) {
        if let Some(to) = stanza.to.as_ref().map(cirrus_jid::Jid::bare) {
            self.work
                .frames
                .push_back(Frame::stanza(to, stanza, origin));
        }
    }

    pub fn confirm(&mut self, to: Option<&cirrus_jid::Jid>, origin: Option<Origin>) {
        if let (Some(to), Some(origin)) = (to, origin) {
            let body = Body::Confirm { origin };
            self.work.frames.push_back(Frame {
                to: to.bare(),
                body,
            });
        }
    }

    pub fn frame(&mut self, to: BareJid, body: Body) {
        self.work.frames.push_back(Frame { to, body });
    }
}
