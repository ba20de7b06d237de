//! Messages: who got them, how often, in what order.

use std::collections::BTreeSet;

use cirrus_router::Limits;
use cirrus_router::log::Direction;
use cirrus_stanza::Stanza;

use super::{Archive, History, Violation};
use crate::plan::SKEW_MS;

/// What a connection says, and what its home says meanwhile, are under way for no longer than this.
const ON_THE_WAY_MS: u64 = 20;

/// What a message promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Archived, and delivered sooner or later.
    #[default]
    Kept,
    /// A receipt: kept, but not before it is acknowledged.
    Receipt,
    /// A message that is not to be stored, or for whoever is there.
    Passing,
}

/// One message and its fate.
#[derive(Default)]
pub struct Message {
    pub class: Class,
    pub from: usize,
    pub to: usize,
    /// The sender's session.
    pub session: u64,
    /// It retracts this one (XEP-0424), perhaps without a right to.
    pub retracts: Option<usize>,
    /// The address it was sent to: order holds between two addresses only (RFC 6120 10.1).
    pub address: String,
    pub sent_at: u64,
    /// When the server got it first.
    pub taken_at: Option<u64>,
    /// When a connection took it last: what it took before may have died with its node.
    pub repeated_at: Option<u64>,
    /// When its sender was told that it is handled.
    pub accepted: Option<u64>,
    /// Its sender was sent an error for it.
    pub answered: bool,
    /// Its sender got an error for it.
    pub refused: bool,
    /// Sessions that the server sent it to, in order, and when it did first.
    pub emitted: Vec<u64>,
    pub emitted_at: u64,
    /// It was written to a socket without stream management.
    pub exposed: bool,
    /// Sessions that received it.
    pub received: Vec<u64>,
    /// Sessions whose acknowledgement the server has taken, and when the last one came.
    pub confirmed: BTreeSet<u64>,
    pub confirmed_at: u64,
}

/// One direction between two addresses: recipient's session, sender's session, address.
pub type Pair = (u64, u64, String);

/// The last message that a session got first.
#[derive(Default)]
pub struct Last {
    /// While it took messages for the bare JID.
    taking: Option<usize>,
    /// While it did not, so that only what was addressed to it came.
    addressed: Option<usize>,
}

/// A message that a session got first, and later ones that it had got before.
pub struct Overtaken {
    index: usize,
    session: u64,
    taking: Option<usize>,
    addressed: Option<usize>,
}

/// The index of a message's id, `m<index>`.
pub fn index_of(stanza: &Stanza) -> Option<usize> {
    stanza.id.as_deref()?.strip_prefix('m')?.parse().ok()
}

impl History {
    /// The server gave a message to a session's pipe; `exposed`: without stream management.
    pub fn emitted(&mut self, index: usize, session: u64, exposed: bool, now: u64) {
        let Some(message) = self.messages.get_mut(index) else {
            return;
        };
        message.exposed |= exposed;
        if message.emitted.contains(&session) {
            return;
        }
        message.emitted.push(session);
        if message.emitted.len() > 1 {
            return;
        }
        message.emitted_at = now;
        if message.class == Class::Kept {
            self.check_order(index, session);
        }
    }

    /// Order holds between two addresses (RFC 6120 section 10.1).
    fn check_order(&mut self, index: usize, session: u64) {
        let message = &self.messages[index];
        // A home on another node may have let the message go before it heard of that.
        let knows = |at: u64| message.emitted_at >= at + ON_THE_WAY_MS;
        let taker = self.sessions.get(&session);
        let taker = taker.is_some_and(|s| s.taker && knows(s.taker_at));
        let key = (session, message.session, message.address.clone());
        let last = self.order.entry(key).or_default();
        let overtaken = Overtaken {
            index,
            session,
            taking: last.taking.filter(|before| *before > index),
            addressed: last.addressed.filter(|before| *before > index),
        };
        let slot = if taker {
            &mut last.taking
        } else {
            &mut last.addressed
        };
        *slot = (*slot).max(Some(index));
        if overtaken.taking.is_some() || overtaken.addressed.is_some() {
            self.overtaken.push(overtaken);
        }
    }

    /// One exception to order: a resource that takes no messages for the bare JID gets what is
    /// addressed to it at once (RFC 6121 section 8.5.3.1), while what waits in the log waits for
    /// a resource that does (XEP-0160). So what it was given in that state may be newer than what
    /// it gets out of the log afterwards.
    fn judge_order(&mut self, archives: &[Archive]) {
        for overtaken in std::mem::take(&mut self.overtaken) {
            let Overtaken { index, session, .. } = overtaken;
            let message = &self.messages[index];
            // An erased archive no longer says what waited in it.
            let waited =
                archives[message.to].waits(index) || self.erased_since(message.to, message.sent_at);
            if message.is_late() || self.was_kept(message, session) {
                continue;
            }
            let addressed = overtaken.addressed.filter(|_| !waited);
            if let Some(before) = overtaken.taking.or(addressed) {
                let text = format!("m{index} reached session {session} after m{before}");
                self.wrong(Violation::Reordered(text));
            }
        }
    }

    /// Another session had it and waited to be resumed, or was closed without acknowledging it.
    /// When that one ends, what it has not acknowledged goes to those that are there, who may have
    /// got newer messages already, or behind what waits in the log since it went unavailable.
    fn was_kept(&self, message: &Message, session: u64) -> bool {
        let others = self.sessions.iter().filter(|(id, _)| **id != session);
        let mut others = others.filter(|(_, other)| other.account == message.to);
        others.any(|(_, other)| {
            let left = other.left.map(|at| (at, at));
            let mut waits = other.detached.iter().copied().chain(left);
            waits.any(|(from, to)| from <= message.emitted_at && to >= message.sent_at)
        })
    }

    /// A client received a message.
    pub fn received(&mut self, index: usize, session: u64) {
        let bound = self.sessions.get(&session).map_or(0, |s| s.bound_at);
        let account = self.sessions.get(&session).map_or(0, |s| s.account);
        let Some(message) = self.messages.get(index) else {
            return;
        };
        let mut earlier = message
            .emitted
            .iter()
            .take_while(|other| **other != session)
            .peekable();
        let some = earlier.peek().is_some();
        let all = some && earlier.all(|other| message.confirmed.contains(other));
        // The cursor is written behind the acknowledgement; a kill between repeats.
        let repeats = self.forgot_between(message.to, message.confirmed_at, bound)
            || self.is_said_again(message);
        let erased = self.erased.get(&message.to);
        let before = |time: u64| message.repeated_at.is_some_and(|taken| taken < time);
        let gone = erased.is_some_and(|(_, gone)| before(*gone) && *gone <= bound);
        // Who erased it would know what was sent before.
        let gone = gone && !self.forgot_between(message.to, message.sent_at, bound);
        let mut found = Vec::new();
        if account != message.to {
            let text = format!("m{index} reached session {session} of account {account}");
            found.push(Violation::Corrupt(text));
        }
        if message.received.contains(&session) && !self.is_said_again(message) {
            let text = format!("m{index} reached session {session} twice");
            found.push(Violation::Doubled(text));
        } else if all && message.confirmed_at < bound && !repeats {
            let text = format!("m{index} was acknowledged, and reached session {session} too");
            found.push(Violation::Doubled(text));
        }
        if gone {
            let text = format!("m{index} reached session {session} after its account was erased");
            found.push(Violation::Erased(text));
        }
        self.messages[index].received.push(session);
        self.violations.extend(found);
    }

    /// The server took a client's acknowledgement.
    pub fn confirmed(&mut self, index: usize, session: u64, now: u64) {
        if let Some(message) = self.messages.get_mut(index)
            && message.confirmed.insert(session)
        {
            message.confirmed_at = now;
        }
    }

    /// That acknowledgement may have been lost.
    pub fn doubted(&mut self, index: usize, session: u64) {
        if let Some(message) = self.messages.get_mut(index) {
            message.confirmed.remove(&session);
        }
    }

    /// Whether its sender's home may say it again, and its recipient's not know. What it came from
    /// stands in the log, and nobody waits for a receipt's put; nor for that of any message that a
    /// session has where there are no archives, so that what the session gives back has no origin.
    /// Where a home and its copies die, that is all there is.
    fn is_said_again(&self, message: &Message) -> bool {
        let forgot = |account| self.forgot_between(account, message.sent_at, u64::MAX);
        let unknown = message.class == Class::Receipt || !self.archived;
        unknown && (forgot(message.to) || forgot(message.from))
    }

    /// Its sender knows it handled, and it was worth keeping. What says otherwise may be lost with
    /// the sender's session.
    fn is_promised(&self, message: &Message) -> bool {
        let answered =
            message.answered && self.forgot_between(message.from, message.sent_at, u64::MAX);
        let handled = message.accepted.is_some() && !message.refused && !answered;
        message.class == Class::Kept && handled
    }

    /// Compares everything with the archives, at the end.
    pub fn judge(&mut self, archives: &[Archive]) {
        self.judge_order(archives);
        let mut found = Vec::new();
        for index in 0..self.messages.len() {
            self.judge_copies(index, archives, &mut found);
            self.judge_delivery(index, &archives[self.messages[index].to], &mut found);
        }
        self.violations.extend(found);
    }

    /// The archives hold exactly what was accepted, once.
    fn judge_copies(&self, index: usize, archives: &[Archive], found: &mut Vec<Violation>) {
        let message = &self.messages[index];
        let own = message.from == message.to;
        let direction = if own { Direction::Own } else { Direction::In };
        let (there, shown) = archives[message.to].count(index, direction);
        let (here, _) = archives[message.from].count(index, Direction::Out);
        // A receipt that its recipient left behind is kept once more, for delivery only.
        let there = match message.class {
            Class::Receipt => shown,
            _ => there,
        };
        let text = format!("m{index} is {there} and {here} times in the archives");
        let archived = self.archived;
        if (there > 1 && !self.is_said_again(message)) || here > 1 {
            found.push(Violation::Doubled(text));
        } else if message.class == Class::Passing || own && here > 0 || !archived && here > 0 {
            if there + here > 0 {
                found.push(Violation::Corrupt(text));
            }
        } else if self.is_promised(message) {
            let spared = |account| self.erased_since(account, message.sent_at);
            let there_missing = there == 0 && archived && !spared(message.to);
            let here_missing = here == 0 && archived && !own && !spared(message.from);
            if there_missing || here_missing {
                found.push(Violation::Lost(text));
            }
        }
    }

    /// What was accepted reached somebody.
    fn judge_delivery(&self, index: usize, archive: &Archive, found: &mut Vec<Violation>) {
        let message = &self.messages[index];
        if !self.is_promised(message) || !message.received.is_empty() {
            return;
        }
        let accepted = message.accepted.unwrap_or_default();
        let erased = self.erased_since(message.to, message.sent_at);
        if !erased && !self.may_be_lost(message, accepted, archive.waits(index)) {
            let text = format!("m{index} was acknowledged and nobody received it");
            found.push(Violation::Lost(text));
        }
    }

    /// Two things lose a delivery, though not the archive's copy. What was written to the socket of
    /// a client without stream management may never arrive: nobody can know (XEP-0198 section 1).
    /// And the loss of a home with all copies takes sessions with it, and so what they had not
    /// acknowledged, unless the log obliges to deliver it.
    fn may_be_lost(&self, message: &Message, accepted: u64, waits: bool) -> bool {
        if message.exposed || waits {
            return message.exposed;
        }
        let forgot = |from, to| self.forgot_between(message.to, from, to);
        let given = !message.emitted.is_empty() && forgot(message.emitted_at, u64::MAX);
        let mut sessions = self.sessions.values().filter(|s| s.account == message.to);
        let held = sessions.any(|session| {
            let kept = |(from, to): &(u64, u64)| {
                *to >= message.sent_at && forgot(accepted.max(*from), *to)
            };
            session.detached.iter().any(kept)
        });
        // The home had it, for somebody who was there, and was lost before it could deliver it:
        // when its sender's home says it again, the archive has it, and a client finds it there.
        // So it is where it was lost on the way to that connection, which another node has.
        let mut there = self.sessions.values().filter(|s| s.account == message.to);
        let on_its_way = there.any(|session| {
            let left = session.left.unwrap_or(u64::MAX);
            session.bound_at <= accepted && accepted <= left && forgot(accepted, left)
        });
        let unseen = forgot(message.sent_at, accepted) || on_its_way;
        given || held || message.emitted.is_empty() && unseen
    }
}

impl Message {
    /// The store did not answer in time, so its sender was told that it may still arrive, or would
    /// have been if it was there: what was sent afterwards does not wait for it. The deadline is
    /// measured by the clocks of up to two nodes.
    fn is_late(&self) -> bool {
        let taken = self.taken_at.unwrap_or(self.emitted_at);
        let told = self.refused || self.accepted.is_none();
        let deadline = Limits::default().store_deadline_ms - 2 * SKEW_MS;
        told && self.emitted_at >= taken + deadline
    }
}
