//! Messages: archived on both sides, delivered by the rules of RFC 6121 section 8.5.

use cirrus_jid::Jid;
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, Ty};

use super::carbons::Carbon;
use super::retract::RETRACTIONS;
use super::session::{Archived, Keep, Session};
use super::spool::full;
use super::{Inflow, Storage, User, Waiting, storage};
use crate::event::{Origin, SessionId};
use crate::home::{Cx, Frame};
use crate::log::{Content, Direction, Flags, Message, Record, Ticket};

/// Who gets a message now.
enum Audience {
    /// One bound resource.
    One(usize),
    /// Every resource that takes messages for the bare JID.
    All,
    /// Nobody is there: keep it for later.
    Spool,
    /// Nobody is there, and it is not worth keeping.
    Nobody,
    /// Nobody is there, and the sender must know.
    Refuse,
}

impl User {
    /// A message from one of this user's own sessions.
    pub(super) fn send_message(&mut self, cx: &mut Cx<'_>, index: usize, k: u64, stanza: Stanza) {
        let stanza = self.without_forgeries(cx, stanza);
        let session = self.sessions[index].id;
        let to_self = stanza.to.as_ref().is_some_and(|to| to.bare() == self.jid);
        let mut outstanding = 1;
        if !to_self && self.archives(cx, stanza.to.as_ref()) {
            match storage(&stanza, cx.work.format) {
                Storage::Archive => {
                    let origin = Origin { session, k };
                    let plain = (false, false);
                    let record = self.record(cx, &stanza, Direction::Out, Some(origin), plain);
                    let Some(ticket) = self.append(cx, record) else {
                        self.error_to(cx, session, &stanza, &busy());
                        return;
                    };
                    let copy = Box::new(stanza.clone());
                    self.tickets.insert(
                        ticket,
                        Waiting::Out {
                            session,
                            k,
                            stanza: copy,
                        },
                    );
                    outstanding += 1;
                }
                Storage::Deferred => {
                    let record = self.record(cx, &stanza, Direction::Out, None, (false, true));
                    // A receipt that finds the log full is not worth an error.
                    let _ = self.append(cx, record);
                }
                Storage::Offline | Storage::Never => {}
            }
        }
        self.sessions[index].hold(k, outstanding);
        if outstanding == 1 {
            self.copy_sent(cx, session, &stanza);
        }
        cx.route(stanza, Some(Origin { session, k }));
    }

    /// A message that another entity, or this user, addressed to this user.
    pub(super) fn receive_message(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: Stanza,
        origin: Option<Origin>,
    ) {
        let stanza = self.without_forgeries(cx, stanza);
        if let Some(origin) = origin
            && !self.origins.fresh(origin, cx.now, &cx.home.limits)
        {
            let mut queued = self.inflow.iter();
            if !queued.any(|entry| entry.origin == Some(origin)) {
                cx.confirm(stanza.from.as_ref(), Some(origin));
            }
            return;
        }
        let audience = self.audience(&stanza);
        if matches!(audience, Audience::Refuse) {
            return self.refuse(cx, &stanza, origin, &unavailable());
        }
        let kept = storage(&stanza, cx.work.format);
        if kept == Storage::Deferred && matches!(audience, Audience::Spool) {
            return self.append_spooled(cx, stanza, origin, true);
        }
        let offline = self.waits(&stanza, &audience, false);
        let mut entry = Inflow::passing(stanza);
        (entry.origin, entry.offline) = (origin, offline);
        entry.kept = kept.is_kept();
        entry.archived = kept == Storage::Archive && self.archives(cx, entry.stanza.from.as_ref());
        if entry.kept && self.must_park(offline) {
            if self.parked >= cx.home.limits.entity_queue {
                return self.refuse(cx, &entry.stanza, origin, &busy());
            }
            self.parked += 1;
            entry.parked = true;
        } else {
            let queued = self.inflow.len();
            match self.keep(cx, &entry, kept, queued) {
                Ok(ticket) => entry.ticket = ticket,
                Err(error) => return self.refuse(cx, &entry.stanza, origin, &error),
            }
        }
        self.inflow.push_back(entry);
        self.advance(cx);
    }

    /// Gives a message to the log, if the log is to have it.
    fn keep(
        &mut self,
        cx: &mut Cx<'_>,
        entry: &Inflow,
        kept: Storage,
        queued: usize,
    ) -> Result<Option<Ticket>, StanzaError> {
        let (stanza, origin, offline) = (&entry.stanza, entry.origin, entry.offline);
        match kept {
            Storage::Archive | Storage::Offline if entry.archived || offline => {
                if offline && self.spool_is_full(cx, queued) {
                    return Err(full());
                }
                let mut record = self.record(cx, stanza, Direction::In, origin, (offline, false));
                record.set_archived(entry.archived);
                let ticket = self.append(cx, record).ok_or_else(busy)?;
                self.tickets.insert(ticket, Waiting::In);
                Ok(Some(ticket))
            }
            Storage::Deferred if self.archives(cx, stanza.from.as_ref()) => {
                let record = self.record(cx, stanza, Direction::In, None, (false, true));
                // A receipt that finds the log full is not worth an error.
                let _ = self.append(cx, record);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// Whether a message must not be appended yet. One that is appended flagged stands in the
    /// log as an obligation; those before it that are not flagged, because somebody was there
    /// to take them, may become obligations behind it when nobody is there any more. So it waits
    /// until they have been delivered, and order holds.
    fn must_park(&self, offline: bool) -> bool {
        let unflagged = |entry: &Inflow| entry.kept && !entry.offline;
        self.parked > 0 || offline && self.inflow.iter().any(unflagged)
    }

    /// Everything before them has landed: appends the messages that waited for it.
    fn unpark(&mut self, cx: &mut Cx<'_>) {
        self.append_owed(cx);
        self.parked = 0;
        let mut inflow = std::mem::take(&mut self.inflow);
        let queued = inflow.len();
        for entry in inflow.iter_mut().filter(|entry| entry.parked) {
            entry.parked = false;
            let audience = self.audience(&entry.stanza);
            entry.offline = self.waits(&entry.stanza, &audience, false);
            match self.keep(cx, entry, storage(&entry.stanza, cx.work.format), queued) {
                Ok(ticket) => entry.ticket = ticket,
                Err(error) => entry.landed = Some(Err(error)),
            }
        }
        self.inflow = inflow;
    }

    /// Delivers what stands at the front of the queue and waits for nothing more. The queue
    /// keeps the order between what is archived first and what is not.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        while let Some(front) = self.inflow.front() {
            if front.parked {
                self.unpark(cx);
                continue;
            }
            if front.ticket.is_some() {
                return;
            }
            let Some(next) = self.inflow.pop_front() else {
                return;
            };
            match next.landed {
                Some(Err(error)) => self.refuse(cx, &next.stanza, next.origin, &error),
                landed => {
                    let position = landed.and_then(Result::ok);
                    let stanza = match position.filter(|_| next.archived) {
                        Some(position) => self.identified(cx, &next.stanza, position),
                        None => next.stanza,
                    };
                    let archived = position.map(|position| Archived {
                        position,
                        due: next.offline,
                    });
                    self.deliver(cx, stanza, archived, next.origin);
                }
            }
        }
    }

    /// The log has, or will never have, what a queued stanza waits for.
    pub(super) fn landed(
        &mut self,
        cx: &mut Cx<'_>,
        ticket: Ticket,
        outcome: Result<u64, StanzaError>,
    ) {
        if let Some(entry) = self
            .inflow
            .iter_mut()
            .find(|entry| entry.ticket == Some(ticket))
        {
            entry.ticket = None;
            entry.landed = Some(outcome);
        }
        self.advance(cx);
    }

    /// Gives a stanza to the sessions it is for, or keeps it until it can be given.
    pub(super) fn deliver(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: Stanza,
        archived: Option<Archived>,
        origin: Option<Origin>,
    ) {
        match stanza.kind {
            Kind::Presence => return self.deliver_presence(cx, &stanza),
            Kind::Iq => return self.deliver_iq(cx, stanza),
            Kind::Message => {}
        }
        let audience = self.audience(&stanza);
        if self.waits(
            &stanza,
            &audience,
            archived.is_some_and(|archived| archived.due),
        ) {
            return self.hold(cx, stanza, archived, origin);
        }
        if matches!(audience, Audience::Refuse) {
            return self.refuse(cx, &stanza, origin, &unavailable());
        }
        cx.confirm(stanza.from.as_ref(), origin);
        self.give_to(cx, &audience, stanza, archived);
    }

    /// Whether a message can't be given to a session now.
    pub(super) fn must_wait(&self, stanza: &Stanza, due: bool) -> bool {
        self.waits(stanza, &self.audience(stanza), due)
    }

    /// Whether a message can't be given to its audience now: nobody is there, or older ones wait
    /// in the log. A resource that is addressed and takes no messages for the bare JID gets what
    /// is sent to it at once (RFC 6121 section 8.5.3.1): what waits in the log waits for a
    /// resource that does (XEP-0160), perhaps for ever.
    fn waits(&self, stanza: &Stanza, audience: &Audience, due: bool) -> bool {
        let chat = matches!(stanza.ty, Ty::Chat | Ty::Normal);
        match audience {
            Audience::Spool => true,
            Audience::All => chat && !self.is_caught_up(),
            Audience::One(index) => {
                let bare = due || self.sessions[*index].takes_messages();
                chat && bare && !self.is_caught_up()
            }
            Audience::Nobody | Audience::Refuse => false,
        }
    }

    /// Gives a message to the sessions it is for.
    pub(super) fn give_out(&mut self, cx: &mut Cx<'_>, stanza: Stanza, archived: Option<Archived>) {
        let audience = self.audience(&stanza);
        self.give_to(cx, &audience, stanza, archived);
    }

    fn give_to(
        &mut self,
        cx: &mut Cx<'_>,
        audience: &Audience,
        stanza: Stanza,
        archived: Option<Archived>,
    ) {
        let rescue = archived.is_some() || storage(&stanza, cx.work.format).is_kept();
        let reached = match *audience {
            Audience::One(index) => vec![self.sessions[index].id],
            Audience::All => {
                let reached = self.sessions.iter().filter(|s| s.takes_messages());
                reached.map(|session| session.id).collect()
            }
            Audience::Spool => return self.hold(cx, stanza, archived, None),
            Audience::Nobody | Audience::Refuse => Vec::new(),
        };
        if !reached.is_empty() {
            let keep = Keep {
                archived,
                rescue,
                ..Keep::default()
            };
            self.give_each(cx, &reached, &stanza, keep);
        }
        if let Some(archived) = archived.filter(|archived| archived.due) {
            self.spool.read = self.spool.read.max(archived.position);
        }
    }

    /// Sends to these sessions, and a copy to the others that want one. Each of them answers for
    /// all: the message needs another way only when the last has ended and none has acknowledged
    /// it.
    fn give_each(&mut self, cx: &mut Cx<'_>, ids: &[SessionId], stanza: &Stanza, mut keep: Keep) {
        let copied = self.copied(stanza, ids);
        let mut group = ids.to_vec();
        group.extend_from_slice(&copied);
        keep.group = (group.len() > 1).then(|| group.into());
        for index in (0..self.sessions.len()).rev() {
            let id = self.sessions[index].id;
            let mut keep = keep.clone();
            keep.carbon = copied.contains(&id).then_some(Carbon::Received);
            if keep.carbon.is_some() || ids.contains(&id) {
                self.give(cx, index, stanza.clone(), keep);
            }
        }
    }

    /// Sends to one session and ends it when it no longer fits its log.
    pub(super) fn give_now(&mut self, cx: &mut Cx<'_>, index: usize, stanza: Stanza, keep: Keep) {
        let session = &mut self.sessions[index];
        session.send(stanza, keep, cx.out);
        if session.overflows(cx.home.limits.unacked_bytes) {
            self.overflowing.push(session.id);
        }
    }

    pub(super) fn record(
        &self,
        cx: &Cx<'_>,
        stanza: &Stanza,
        direction: Direction,
        origin: Option<Origin>,
        (spool, marker): (bool, bool),
    ) -> Record {
        let peer = match direction {
            Direction::Out => stanza.to.as_ref(),
            _ => stanza.from.as_ref(),
        };
        let own = peer.is_none_or(|peer| peer.bare() == self.jid);
        let message = Message {
            direction: if own { Direction::Own } else { direction },
            flags: Flags {
                archive: cx.home.archive,
                spool,
                marker,
            },
            peer: peer.map_or_else(|| self.jid.clone(), Jid::bare),
            origin,
            stanza: stanza.to_bytes().into(),
        };
        Record {
            t: cx.now,
            content: Content::Message(message),
        }
    }

    /// Answers a message with an error, which handles it.
    pub(super) fn refuse(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: &Stanza,
        origin: Option<Origin>,
        error: &StanzaError,
    ) {
        cx.work.frames.extend(Frame::refusal(stanza, origin, error));
    }

    /// The log has a record that another writer, or an attempt given up, put there.
    pub(super) fn learned(&mut self, cx: &mut Cx<'_>, position: u64, record: &Record) {
        if !self.state.is_active() {
            return; // The account is being erased.
        }
        if cx.work.format.has(RETRACTIONS) {
            let limit = cx.home.limits.tombstones;
            self.retractions.0.learned(position, record, limit);
        }
        let Content::Message(message) = &record.content else {
            return self.owed_learned();
        };
        // A receipt is delivered before it is archived, unless it waits for delivery.
        let delivered = message.flags.marker && !message.flags.spool;
        if message.direction == Direction::Out || delivered {
            return;
        }
        if let Some(origin) = message.origin {
            self.origins.seed(origin, cx.now);
        }
        if let Some(mut stanza) = Stanza::from_stored(&message.stanza) {
            if message.flags.archive {
                stanza = self.identified(cx, &stanza, position);
            }
            let due = message.flags.spool;
            self.deliver(cx, stanza, Some(Archived { position, due }), None);
        }
    }

    fn audience(&self, stanza: &Stanza) -> Audience {
        let resource = stanza.to.as_ref().and_then(Jid::resource);
        if let Some(resource) = resource
            && let Some(index) = self.sessions.iter().position(|s| s.resource() == resource)
        {
            return Audience::One(index);
        }
        let anybody = self.sessions.iter().any(Session::takes_messages);
        match stanza.ty {
            Ty::Error => Audience::Nobody,
            Ty::Groupchat => Audience::Refuse,
            Ty::Headline if anybody && resource.is_none() => Audience::All,
            Ty::Headline => Audience::Nobody,
            _ if anybody => Audience::All,
            _ => Audience::Spool,
        }
    }

    /// An own message is archived or will never be.
    pub(super) fn out_landed(&mut self, session: SessionId, k: u64) {
        if let Some(index) = self.session_of(session) {
            self.sessions[index].settle(k);
        }
    }
}

/// The store has not answered in time: the message may still arrive, at most once.
pub(super) fn unknown() -> StanzaError {
    let text = "the store did not answer in time; the message may still arrive, at most once";
    StanzaError::new(Condition::InternalServerError, text).with_type(cirrus_stanza::ErrorType::Wait)
}

pub(super) fn busy() -> StanzaError {
    let text = "too many messages wait for the store; try again later";
    StanzaError::new(Condition::ResourceConstraint, text)
}

fn unavailable() -> StanzaError {
    Condition::ServiceUnavailable.into()
}
