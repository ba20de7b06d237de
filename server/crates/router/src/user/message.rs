//! Messages: archived on both sides, delivered by the rules of RFC 6121 section 8.5.

use cirrus_jid::Jid;
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, Ty};

use super::session::{Archived, Keep, Session};
use super::{Inflow, Storage, User, Waiting, storage};
use crate::event::{Origin, SessionId};
use crate::home::Cx;
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
        let session = self.sessions[index].id;
        let to_self = stanza.to.as_ref().is_some_and(|to| to.bare() == self.jid);
        let mut outstanding = 1;
        if !to_self && cx.home.archive {
            match storage(&stanza) {
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
                Storage::Never => {}
            }
        }
        self.sessions[index].hold(k, outstanding);
        cx.route(stanza, Some(Origin { session, k }));
    }

    /// A message that another entity, or this user, addressed to this user.
    pub(super) fn receive_message(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: Stanza,
        origin: Option<Origin>,
    ) {
        if let Some(origin) = origin
            && !self.origins.fresh(origin, cx.now, &cx.home.limits)
        {
            let under_way = self
                .inflow
                .iter()
                .any(|inflow| inflow.origin == Some(origin));
            if !under_way {
                cx.confirm(stanza.from.as_ref(), Some(origin));
            }
            return;
        }
        let kept = storage(&stanza);
        let audience = self.audience(&stanza);
        match audience {
            Audience::Refuse => return self.refuse(cx, &stanza, origin, &unavailable()),
            Audience::Spool | Audience::All
                if kept == Storage::Archive && self.spool_is_full(cx) =>
            {
                let text = "the recipient is offline and has as many messages waiting as allowed";
                let error = StanzaError::new(Condition::ServiceUnavailable, text);
                return self.refuse(cx, &stanza, origin, &error);
            }
            _ => {}
        }
        let offline = matches!(audience, Audience::Spool)
            || (self.spool.is_passing() && !matches!(audience, Audience::Nobody));
        let ticket = match kept {
            Storage::Archive if cx.home.archive || offline => {
                let record = self.record(cx, &stanza, Direction::In, origin, (offline, false));
                let Some(ticket) = self.append(cx, record) else {
                    return self.refuse(cx, &stanza, origin, &busy());
                };
                self.tickets.insert(ticket, Waiting::In);
                Some(ticket)
            }
            Storage::Deferred if cx.home.archive || offline => {
                let spool = matches!(audience, Audience::Spool);
                let record = self.record(cx, &stanza, Direction::In, None, (spool, true));
                if let Some(ticket) = self.append(cx, record)
                    && spool
                {
                    self.spool.flagged();
                    self.tickets.insert(ticket, Waiting::Spooled);
                }
                None
            }
            _ => None,
        };
        if offline && ticket.is_some() {
            self.spool.flagged();
        }
        self.inflow.push_back(Inflow {
            stanza,
            origin,
            ticket,
            landed: None,
            offline,
        });
        self.advance(cx);
    }

    /// Delivers what stands at the front of the queue and waits for nothing more. The queue
    /// keeps the order between what is archived first and what is not.
    pub(super) fn advance(&mut self, cx: &mut Cx<'_>) {
        while self
            .inflow
            .front()
            .is_some_and(|front| front.ticket.is_none())
        {
            let Some(next) = self.inflow.pop_front() else {
                return;
            };
            match next.landed {
                Some(Err(error)) => self.refuse(cx, &next.stanza, next.origin, &error),
                landed => {
                    let position = landed.and_then(Result::ok);
                    let archived = position.map(|position| Archived {
                        position,
                        spooled: next.offline,
                    });
                    cx.confirm(next.stanza.from.as_ref(), next.origin);
                    if next.offline && archived.is_some() && !self.spool.is_passing() {
                        continue; // The next pass reads it, whoever is there by now.
                    }
                    self.deliver(cx, next.stanza, archived);
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

    /// Gives a stanza to the sessions it is for.
    pub(super) fn deliver(&mut self, cx: &mut Cx<'_>, stanza: Stanza, archived: Option<Archived>) {
        match stanza.kind {
            Kind::Presence => return self.deliver_presence(cx, &stanza),
            Kind::Iq => return self.deliver_iq(cx, stanza),
            Kind::Message => {}
        }
        let rescue = storage(&stanza) == Storage::Archive;
        let chat = matches!(stanza.ty, Ty::Chat | Ty::Normal);
        if chat && self.spool.is_passing() {
            self.spool.set_aside(stanza, archived);
            return;
        }
        match self.audience(&stanza) {
            Audience::One(index) => {
                let group = None;
                let keep = Keep {
                    archived,
                    rescue,
                    group,
                };
                self.give(cx, index, stanza, keep);
            }
            Audience::All => {
                let reached = self.sessions.iter().filter(|s| s.takes_messages());
                let ids: Vec<_> = reached.map(|session| session.id).collect();
                let group = (ids.len() > 1).then(|| ids.into());
                let keep = Keep {
                    archived,
                    rescue,
                    group,
                };
                for index in (0..self.sessions.len()).rev() {
                    if self.sessions[index].takes_messages() {
                        self.give(cx, index, stanza.clone(), keep.clone());
                    }
                }
            }
            Audience::Spool => match archived {
                Some(archived) if archived.spooled => {}
                Some(archived) => self.respool.push(archived.position),
                None if rescue => self.append_spooled(cx, &stanza, None),
                None => {}
            },
            Audience::Nobody => {}
            Audience::Refuse => {
                if stanza.may_bounce() {
                    cx.route(stanza.error(&unavailable()), None);
                }
            }
        }
    }

    /// Sends to one session and ends it when it no longer fits its log.
    pub(super) fn give(&mut self, cx: &mut Cx<'_>, index: usize, stanza: Stanza, keep: Keep) {
        let session = &mut self.sessions[index];
        session.send(stanza, keep, cx.out);
        if session.unacked_bytes() > cx.home.limits.unacked_bytes {
            self.overflowing.push(session.id);
        }
    }

    /// Keeps a message for a user whom no session can take it for.
    pub(super) fn append_spooled(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: &Stanza,
        origin: Option<Origin>,
    ) {
        let record = self.record(cx, stanza, Direction::In, origin, (true, false));
        if let Some(ticket) = self.append(cx, record) {
            self.spool.flagged();
            self.tickets.insert(ticket, Waiting::Spooled);
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

    fn refuse(
        &mut self,
        cx: &mut Cx<'_>,
        stanza: &Stanza,
        origin: Option<Origin>,
        error: &StanzaError,
    ) {
        if stanza.may_bounce() {
            cx.route(stanza.error(error), None);
        }
        cx.confirm(stanza.from.as_ref(), origin);
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

fn busy() -> StanzaError {
    let text = "too many messages wait for the store; try again later";
    StanzaError::new(Condition::ResourceConstraint, text)
}

fn unavailable() -> StanzaError {
    Condition::ServiceUnavailable.into()
}
