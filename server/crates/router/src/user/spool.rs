//! Offline delivery (XEP-0160) as a cursor into the archive log.
//!
//! A record that found nobody at home is flagged. When a resource becomes available, a pass
//! reads the flagged records behind the cursor and sends them in order; what arrives meanwhile
//! waits behind them. The cursor moves when the client has acknowledged the last of them, so a
//! crash repeats a message rather than losing it.

use std::collections::VecDeque;

use cirrus_jid::BareJid;
use cirrus_stanza::{Stanza, delay};
use cirrus_store::{Outcome, StoreError};

use super::session::{Archived, Keep, Session};
use super::{User, Waiting};
use crate::event::SessionId;
use crate::home::{Cx, Purpose};
use crate::log::{Content, Record, SpoolReader, Spooled, Step, Tail, Ticket};

/// How long a pass that the store refused rests, milliseconds.
const RETRY_MS: u64 = 5_000;

/// Where a user's offline delivery stands.
#[derive(Default)]
pub(super) struct Spool {
    /// Everything flagged up to this position has been acknowledged.
    cursor: u64,
    /// Everything flagged up to this position has been sent or handed on.
    read: u64,
    /// Flagged records may stand behind `read`.
    dirty: bool,
    /// Flagged records behind `read`, as far as this node has seen them.
    count: usize,
    /// Flagged records that the log has not confirmed yet.
    in_flight: usize,
    pass: Option<Pass>,
    awaiting: VecDeque<Awaiting>,
    /// The store refused a page: when to ask again, Unix milliseconds.
    retry_at: Option<u64>,
}

/// A pass over the flagged records for one session.
struct Pass {
    session: SessionId,
    reader: SpoolReader,
    /// The last position that the reader covers.
    last: u64,
    reading: bool,
    aside: VecDeque<(Stanza, Option<Archived>)>,
}

/// A stretch of records that was sent and is not acknowledged.
struct Awaiting {
    who: Who,
    target: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The session must acknowledge its stanza of that number.
    Session(SessionId, u64),
    /// The session ended; what it left is about to be appended again.
    Nobody,
    /// The log must have the record that refers to what the session left.
    Log(Ticket),
    Done,
}

impl Spool {
    /// At activation: the durable cursor, and what the log's tail shows behind it.
    pub fn load(&mut self, cursor: u64, tail: &Tail) {
        self.cursor = cursor;
        self.read = cursor;
        let behind = tail
            .records
            .iter()
            .filter(|(position, _)| *position > cursor);
        let waiting = behind.filter(|(_, record)| match &record.content {
            Content::Message(message) => message.flags.spool,
            Content::Respool(_) => true,
        });
        self.count = waiting.count();
        let first = tail
            .records
            .first()
            .map_or(tail.next, |(position, _)| *position);
        self.dirty = self.count > 0 || first > cursor + 1;
    }

    pub fn is_passing(&self) -> bool {
        self.pass.is_some()
    }

    /// A flagged record was given to the log.
    pub fn flagged(&mut self) {
        self.dirty = true;
        self.count += 1;
        self.in_flight += 1;
    }

    /// The log has, or will never have, a flagged record.
    pub fn flagged_landed(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A message that arrives during a pass waits behind it.
    pub fn set_aside(&mut self, stanza: Stanza, archived: Option<Archived>) {
        if let Some(pass) = &mut self.pass {
            pass.aside.push_back((stanza, archived));
        }
    }

    /// When a pass that the store refused is due again.
    pub fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Where the next activation has to read from.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Nothing flagged is left behind the cursor, so it may move to the log's head.
    fn is_clean(&self) -> bool {
        !self.dirty && self.pass.is_none() && self.awaiting.is_empty() && self.in_flight == 0
    }

    fn advance(&mut self) -> bool {
        let before = self.cursor;
        while self
            .awaiting
            .front()
            .is_some_and(|first| first.who == Who::Done)
        {
            if let Some(first) = self.awaiting.pop_front() {
                self.cursor = self.cursor.max(first.target);
            }
        }
        self.cursor > before
    }
}

impl User {
    pub(super) fn spool_is_full(&self, cx: &Cx<'_>) -> bool {
        self.spool.count >= cx.home.limits.offline_messages
    }

    /// Starts a pass when something may wait and somebody is there to get it.
    pub(super) fn start_pass(&mut self, cx: &mut Cx<'_>) {
        if !self.spool.dirty || self.spool.pass.is_some() {
            return;
        }
        let Some(index) = self.sessions.iter().position(Session::takes_messages) else {
            return;
        };
        let session = self.sessions[index].id;
        let end = self.log.next();
        let reader = SpoolReader::new(&self.jid, self.spool.read, end);
        let reader = reader.with_page_items(cx.home.limits.spool_page);
        let (last, aside) = (end.saturating_sub(1), VecDeque::new());
        self.spool.pass = Some(Pass {
            session,
            reader,
            last,
            reading: true,
            aside,
        });
        self.step_pass(cx);
    }

    /// Asks the store again for a page that it refused, if that is due.
    pub(super) fn retry_pass(&mut self, cx: &mut Cx<'_>) {
        if self.spool.retry_at.take_if(|at| *at <= cx.now).is_some() {
            self.step_pass(cx);
        }
    }

    /// Sends what the reader has until it needs the store.
    fn step_pass(&mut self, cx: &mut Cx<'_>) {
        while let Some(pass) = &mut self.spool.pass {
            let session = pass.session;
            match pass.reader.step() {
                Step::Ask(op) => return self.begin(cx, Purpose::Spool, op),
                Step::Batch(batch) => {
                    let Some(index) = self.session_of(session) else {
                        return;
                    };
                    for spooled in batch {
                        self.send_spooled(cx, index, spooled);
                    }
                }
                Step::Done => {
                    pass.reading = false;
                    self.spool.read = self.spool.read.max(pass.last);
                    return self.finish_pass(cx);
                }
            }
        }
    }

    /// A page of the log arrived.
    pub(super) fn on_spool_page(&mut self, cx: &mut Cx<'_>, result: Result<Outcome, StoreError>) {
        let Some(pass) = &mut self.spool.pass else {
            return;
        };
        let read = match result {
            Ok(Outcome::Page { items, next }) => pass.reader.on_page(&items, next).is_ok(),
            _ => false,
        };
        if read {
            self.step_pass(cx);
        } else {
            // The pass holds its place, so that nothing overtakes what it has not read.
            self.spool.retry_at = Some(cx.now + RETRY_MS);
        }
    }

    fn send_spooled(&mut self, cx: &mut Cx<'_>, index: usize, spooled: Spooled) {
        let position = spooled.position;
        self.spool.count = self.spool.count.saturating_sub(1);
        self.spool.read = self.spool.read.max(position);
        if let Some(stanza) = revive(&spooled, &self.jid) {
            let archived = Some(Archived {
                position,
                spooled: true,
            });
            let keep = Keep {
                archived,
                rescue: true,
                group: None,
            };
            self.give(cx, index, stanza, keep);
        }
    }

    /// Ends the pass once the log owes no flagged record: then the rest is live again.
    pub(super) fn finish_pass(&mut self, cx: &mut Cx<'_>) {
        let Some(pass) = &self.spool.pass else { return };
        if pass.reading || self.spool.in_flight > 0 {
            return;
        }
        let session = pass.session;
        let index = self.session_of(session);
        let Some(index) = index.filter(|index| self.sessions[*index].takes_messages()) else {
            return self.abandon_pass(cx, session);
        };
        let Some(pass) = self.spool.pass.take() else {
            return;
        };
        self.spool.dirty = false;
        for (stanza, archived) in pass.aside {
            if let Some(archived) = archived.filter(|archived| archived.spooled) {
                self.spool.read = self.spool.read.max(archived.position);
                self.spool.count = self.spool.count.saturating_sub(1);
            }
            self.deliver(cx, stanza, archived);
        }
        let n = self.sessions[index].sent();
        let who = if crate::planted::cursor_before_ack() {
            Who::Done
        } else {
            Who::Session(pass.session, n)
        };
        self.spool.awaiting.push_back(Awaiting {
            who,
            target: self.spool.read,
        });
        self.acknowledged(cx, pass.session);
    }

    /// The pass's session is gone: flagged records are read again for the next one, the others
    /// go on now.
    pub(super) fn abandon_pass(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let Some(pass) = self.spool.pass.take_if(|pass| pass.session == session) else {
            return;
        };
        self.spool.dirty = true;
        self.spool.retry_at = None;
        for (stanza, archived) in pass.aside {
            if !archived.is_some_and(|archived| archived.spooled) {
                self.deliver(cx, stanza, archived);
            }
        }
        // What this pass had sent waits for whoever takes over the session's leftovers.
        let target = self.spool.read;
        let n = self
            .session_of(session)
            .map_or(u64::MAX, |index| self.sessions[index].sent());
        self.spool.awaiting.push_back(Awaiting {
            who: Who::Session(session, n),
            target,
        });
    }

    /// A session has ended and its leftovers were delivered to others or noted for the log.
    pub(super) fn hand_on(&mut self, ended: SessionId) {
        let heir = self
            .sessions
            .iter()
            .find(|s| s.takes_messages())
            .map(|s| (s.id, s.sent()));
        for entry in &mut self.spool.awaiting {
            if matches!(entry.who, Who::Session(id, _) if id == ended) {
                entry.who = match heir {
                    Some((id, n)) => Who::Session(id, n),
                    None if self.respool.is_empty() => Who::Done,
                    None => Who::Nobody,
                };
            }
        }
    }

    /// Appends a record that refers to messages which must be delivered again.
    pub(super) fn append_respool(&mut self, cx: &mut Cx<'_>) {
        if self.respool.is_empty() {
            return;
        }
        let positions = std::mem::take(&mut self.respool);
        let mut sorted = positions.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.truncate(crate::log::MAX_RESPOOL);
        let record = Record {
            t: cx.now,
            content: Content::Respool(sorted.into()),
        };
        let Some(ticket) = self.append(cx, record) else {
            self.respool = positions;
            return;
        };
        self.spool.flagged();
        self.tickets.insert(ticket, Waiting::Respool { positions });
        for entry in &mut self.spool.awaiting {
            if entry.who == Who::Nobody {
                entry.who = Who::Log(ticket);
            }
        }
    }

    pub(super) fn respool_landed(&mut self, cx: &mut Cx<'_>, ticket: Ticket, landed: bool) {
        for entry in &mut self.spool.awaiting {
            if entry.who == Who::Log(ticket) {
                entry.who = if landed { Who::Done } else { Who::Nobody };
            }
        }
        if self.spool.advance() {
            self.record_status(cx);
        }
    }

    /// A session's client has acknowledged more: the cursor may move.
    pub(super) fn acknowledged(&mut self, cx: &mut Cx<'_>, id: SessionId) {
        if self.spool.awaiting.is_empty() {
            return;
        }
        let Some(index) = self.session_of(id) else {
            return;
        };
        let acked = self.sessions[index].acked();
        for entry in &mut self.spool.awaiting {
            if matches!(entry.who, Who::Session(session, n) if session == id && n <= acked) {
                entry.who = Who::Done;
            }
        }
        if self.spool.advance() {
            self.record_status(cx);
        }
    }

    /// The cursor to write when a session ends: the log's head when nothing waits.
    pub(super) fn cursor(&mut self) -> u64 {
        self.spool.advance();
        if self.spool.is_clean() && self.inflow.is_empty() && self.respool.is_empty() {
            let head = self.log.next().saturating_sub(1);
            self.spool.cursor = self.spool.cursor.max(head);
            self.spool.read = self.spool.read.max(head);
        }
        self.spool.cursor()
    }
}

/// The stanza of a record, with the time it was taken (XEP-0203).
fn revive(spooled: &Spooled, owner: &BareJid) -> Option<Stanza> {
    let stanza = Stanza::from_stored(&spooled.message.stanza)?;
    Some(stanza.with_child(&delay(owner.host(), spooled.t)))
}
