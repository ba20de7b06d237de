//! Offline delivery (XEP-0160) as a cursor into the archive log.
//!
//! The log *obliges* to deliver a message when its record is flagged, because nobody could take
//! it when it was appended, or when a later record refers to it, because the session that had it
//! ended without having acknowledged it. While an obligation waits in the log, whatever arrives
//! for the same sessions becomes one too, so nothing overtakes it; a [pass](super::pass) works
//! them off in the order of the log.
//!
//! An obligation ends when the client of every session that got the message has acknowledged it.
//! The durable cursor stays below the first one that has not ended, so a crash repeats a message
//! rather than losing it. It is written when the last one has ended, and when a session ends.

use std::collections::BTreeSet;

use cirrus_jid::Jid;
use cirrus_stanza::{Condition, Stanza, StanzaError};
use serde::{Deserialize, Serialize};

use super::message::busy;
use super::pass::Pass;
use super::session::{Archived, Session, Unacked};
use super::{Storage, User, Waiting, storage};
use crate::event::Origin;
use crate::home::Cx;
use crate::log::{Content, Direction, MAX_RESPOOL, Record, Tail};

/// How long a record that was given up, or one that a former life of this node wrote, may still
/// turn up in the log, milliseconds: no put is tried longer.
const STRAY_MS: u64 = 60_000;

/// Where a user's offline delivery stands.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Spool {
    /// No obligation up to this position is open.
    cursor: u64,
    /// Every obligation up to this position was given to a session.
    pub read: u64,
    /// Obligations stand in the log behind `read`.
    pub behind: bool,
    /// Messages that wait behind `read`, as far as this node has seen them.
    pub count: usize,
    /// Records under way into the log that will oblige and may not be overtaken.
    appending: usize,
    pub pass: Option<Pass>,
    pub passes: u64,
    /// Messages that passes gave and nobody gave back, while second references may turn up.
    given: BTreeSet<u64>,
    /// The same since `read` last stood behind a whole batch: a record that refers to several
    /// messages may have been worked through in part. The next pass meets it again.
    partial: BTreeSet<u64>,
    /// Until when a second reference to a message may turn up, Unix milliseconds.
    strays_until: u64,
}

/// A message that no session has any more and that must be delivered again.
#[derive(Serialize, Deserialize)]
pub(super) struct Owed {
    /// Where it stands in the log.
    pub position: u64,
    /// The log obliges already, by a record that was read.
    pub due: bool,
    /// The sender that waits until the message is safe.
    pub confirm: Option<(Jid, Origin)>,
}

impl Spool {
    /// At activation: the durable cursor, and what the log's tail shows behind it.
    pub fn load(&mut self, cursor: Cursor, tail: &Tail, now: u64) {
        let Cursor { position, partial } = cursor;
        *self = Self {
            cursor: position,
            read: position,
            partial: partial.into_iter().collect(),
            strays_until: now.saturating_add(STRAY_MS),
            ..Self::default()
        };
        let records = tail.records.iter();
        for (_, record) in records.filter(|(at, _)| *at > position) {
            self.count += match &record.content {
                Content::Message(message) => usize::from(message.flags.spool),
                Content::Respool(positions) => positions.len(),
            };
        }
        let first = tail
            .records
            .first()
            .map_or(tail.next, |(position, _)| *position);
        self.behind = self.count > 0 || first > position + 1;
    }

    /// Another node's cursor, which may be ahead.
    pub fn take_cursor(&mut self, cursor: u64) {
        self.cursor = self.cursor.max(cursor);
    }

    /// Nothing waits in the log or is on its way there: messages may be given to sessions.
    pub fn is_caught_up(&self) -> bool {
        !self.behind && self.pass.is_none() && self.appending == 0
    }

    /// An obligation landed that no pass can have met: it waits for the next one, or, with its
    /// stanza at hand, for the end of the one under way.
    fn obliged(&mut self, stanza: Option<(Stanza, Archived)>) {
        match &mut self.pass {
            Some(pass) => pass.keep(stanza),
            None => self.behind = true,
        }
    }

    /// A session that comes back has these messages: no pass gives them again.
    pub fn given_before(&mut self, dues: impl Iterator<Item = u64>) {
        self.partial.extend(dues);
    }

    /// A pass gives a message. `false`: it was given before.
    pub fn give(&mut self, position: u64, now: u64) -> bool {
        self.count = self.count.saturating_sub(1);
        self.read = self.read.max(position);
        let fresh = !self.given.contains(&position) && self.partial.insert(position);
        if fresh && now < self.strays_until {
            self.given.insert(position);
        }
        fresh
    }

    /// A pass has given everything up to here.
    pub fn given_to(&mut self, position: u64) {
        self.read = self.read.max(position);
        self.partial.clear();
    }
}

/// What the durable cursor says.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// No obligation up to here is open.
    pub position: u64,
    /// Messages behind a record at a higher position that were acknowledged nevertheless.
    pub partial: Vec<u64>,
}

impl User {
    /// Nothing older waits: messages may be given to sessions.
    pub(super) fn is_caught_up(&self) -> bool {
        self.spool.is_caught_up() && self.owed.is_empty()
    }

    /// Whether as many messages wait as allowed, with those that are queued for the log.
    pub(super) fn spool_is_full(&self, cx: &Cx<'_>, queued: usize) -> bool {
        self.spool.count + queued >= cx.home.limits.offline_messages
    }

    /// Keeps a message that can't be given to a session now. Its sender is told that it is
    /// handled when a kill can no longer lose it.
    pub(super) fn hold(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: Stanza,
        archived: Option<Archived>,
        origin: Option<Origin>,
    ) {
        match archived {
            Some(archived) if archived.due => {
                cx.confirm(stanza.from.as_ref(), origin);
                self.spool.count += 1;
                self.spool.obliged(Some((stanza, archived)));
            }
            Some(Archived { position, .. }) => self.owe(Owed {
                position,
                due: false,
                confirm: stanza.from.zip(origin),
            }),
            None if storage(&stanza, cx.work.format).is_kept() => {
                self.append_spooled(cx, stanza, origin, false);
            }
            None => {
                cx.confirm(stanza.from.as_ref(), origin);
                self.hold_passing(cx, stanza);
            }
        }
    }

    /// A chat state or a receipt, which are not worth a wait: its place is behind a pass.
    pub(super) fn hold_passing(&mut self, cx: &mut Cx<'_>, stanza: Stanza) {
        let left = match &mut self.spool.pass {
            Some(pass) => pass.keep_passing(stanza),
            None => Some(stanza),
        };
        let Some(stanza) = left else { return };
        if self.sessions.iter().any(Session::takes_messages) {
            self.give_out(cx, stanza, None);
        } else if storage(&stanza, cx.work.format) == Storage::Deferred {
            self.append_spooled(cx, stanza, None, false);
        }
    }

    /// A message is in no session's hands any more.
    pub(super) fn owe(&mut self, owed: Owed) {
        self.spool.given.remove(&owed.position);
        self.spool.partial.remove(&owed.position);
        self.spool.count += 1;
        self.owed.push(owed);
    }

    /// Appends records that refer to the messages which must be delivered again.
    pub(super) fn append_owed(&mut self, cx: &mut Cx<'_>) {
        while !self.owed.is_empty() && self.state.is_active() {
            let rest = self.owed.split_off(self.owed.len().min(MAX_RESPOOL));
            let owed = std::mem::replace(&mut self.owed, rest);
            let positions = owed.iter().map(|owed| owed.position).collect();
            let Some(ticket) = self.append(cx, Record::respool(cx.now, positions)) else {
                // The log is full; this is tried again after the next event.
                self.owed.splice(0..0, owed);
                return;
            };
            self.spool.appending += 1;
            self.tickets.insert(ticket, Waiting::Owed(owed));
        }
    }

    /// The log has, or does not have, a record that refers to messages.
    pub(super) fn owed_landed(&mut self, cx: &mut Cx<'_>, owed: Vec<Owed>, landed: bool) {
        self.spool.appending = self.spool.appending.saturating_sub(1);
        if landed {
            for owed in owed {
                if let Some((sender, origin)) = owed.confirm {
                    cx.confirm(Some(&sender), Some(origin));
                }
            }
            self.spool.obliged(None);
        } else {
            // It may yet land, so that the log refers twice to the same messages.
            self.spool.strays_until = cx.now.saturating_add(STRAY_MS);
            self.owed.splice(0..0, owed);
        }
    }

    /// Another writer's record refers to messages.
    pub(super) fn owed_learned(&mut self) {
        self.spool.obliged(None);
    }

    /// Appends a message for a user whom no session can take it for. `first`: the archive does
    /// not have it yet.
    pub(super) fn append_spooled(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: Stanza,
        origin: Option<Origin>,
        first: bool,
    ) {
        let marker = storage(&stanza, cx.work.format) == Storage::Deferred;
        if marker && self.spool_is_full(cx, self.inflow.len()) {
            return self.not_spooled(cx, &stanza, origin, marker, &busy());
        }
        let mut record = self.record(cx, &stanza, Direction::In, None, (true, marker));
        let archived = first && self.archives(cx, stanza.from.as_ref());
        record.set_archived(archived);
        let Some(ticket) = self.append(cx, record) else {
            return self.not_spooled(cx, &stanza, origin, marker, &busy());
        };
        if marker {
            // Its sender does not wait for it, and nothing else does.
            cx.confirm(stanza.from.as_ref(), origin);
        } else {
            self.spool.appending += 1;
        }
        let stanza = Box::new(stanza);
        let origin = origin.filter(|_| !marker);
        let waiting = Waiting::Spooled {
            stanza,
            origin,
            marker,
            archived,
        };
        self.tickets.insert(ticket, waiting);
    }

    /// The log has, or does not have, a message that no session could take.
    pub(super) fn spooled_landed(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: Stanza,
        origin: Option<Origin>,
        marker: bool,
        outcome: Result<u64, StanzaError>,
    ) {
        if !marker {
            self.spool.appending = self.spool.appending.saturating_sub(1);
        }
        match outcome {
            Ok(position) => {
                let due = true;
                self.deliver(cx, stanza, Some(Archived { position, due }), origin);
            }
            Err(error) => self.not_spooled(cx, &stanza, origin, marker, &error),
        }
    }

    fn not_spooled(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: &Stanza,
        origin: Option<Origin>,
        marker: bool,
        error: &StanzaError,
    ) {
        // A lost receipt is not worth an error.
        if marker {
            cx.confirm(stanza.from.as_ref(), origin);
        } else {
            self.refuse(cx, stanza, origin, error);
        }
    }

    /// A session's client has acknowledged more: room for a pass, and the cursor may move. What
    /// others got too has reached the user, so none of them passes it on when it ends.
    pub(super) fn acknowledged(&mut self, cx: &mut Cx<'_>, index: usize, shared: &[Unacked]) {
        for message in shared {
            for id in message.keep.group.as_deref().unwrap_or_default() {
                if let Some(other) = self.session_of(*id) {
                    self.sessions[other].need_not_pass_on(message);
                }
            }
        }
        let ended = self.sessions[index].take_ended();
        let id = self.sessions[index].id;
        if self.spool.pass.as_ref().is_some_and(|pass| pass.is_for(id)) {
            self.step_pass(cx);
        }
        if ended {
            self.note_cursor();
        }
    }

    /// Wants the cursor written when the last obligation that is not in the log has ended.
    pub(super) fn note_cursor(&mut self) {
        if self.is_caught_up() && self.first_due().is_none() {
            self.status.want();
        }
    }

    /// The first obligation that was given to a session and has not ended.
    fn first_due(&self) -> Option<u64> {
        let sessions = self.sessions.iter().filter_map(Session::first_due);
        let waiting = self.tickets.values().filter_map(|waiting| match waiting {
            Waiting::Owed(owed) => Some(owed),
            _ => None,
        });
        let owed = waiting.chain([&self.owed]).flatten();
        let owed = owed.filter(|owed| owed.due).map(|owed| owed.position);
        sessions.chain(owed).min()
    }

    /// The cursor: where the next activation has to read from.
    pub(super) fn cursor(&mut self) -> Cursor {
        let landed = self.inflow.iter().filter(|entry| entry.offline);
        let landed = landed.filter_map(|entry| entry.landed.as_ref()?.as_ref().ok());
        let waits = self.spool.behind || self.spool.pass.is_some();
        let read = if waits {
            self.spool.read
        } else {
            self.log.last_position()
        };
        let open = landed.copied().chain(self.first_due()).min();
        let safe = open.map_or(read, |open| read.min(open.saturating_sub(1)));
        self.spool.cursor = self.spool.cursor.max(safe);
        if !waits {
            self.spool.given_to(read);
        }
        let due = |position: &u64| self.sessions.iter().any(|s| s.is_due(*position));
        let partial = self.spool.partial.iter().filter(|position| !due(position));
        Cursor {
            partial: partial.copied().collect(),
            position: self.spool.cursor,
        }
    }

    /// A pass is at its end.
    pub(super) fn caught_up(&mut self, now: u64) {
        if self.is_caught_up() {
            self.spool.count = 0;
        }
        if now >= self.spool.strays_until {
            self.spool.given.clear();
        }
        self.note_cursor();
    }

    /// Whether the status row may be written: what ended sessions left is in the log.
    pub(super) fn cursor_is_settled(&self) -> bool {
        self.owed.is_empty() && self.spool.appending == 0
    }
}

/// The error of a user who has as many messages waiting as allowed.
pub(super) fn full() -> StanzaError {
    let text = "the recipient is offline and has as many messages waiting as allowed";
    StanzaError::new(Condition::ServiceUnavailable, text)
}
