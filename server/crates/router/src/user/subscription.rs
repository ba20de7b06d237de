//! Roster requests and subscription stanzas (RFC 6121 sections 2 and 3): one change at a time,
//! each followed by what its write made true.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use cirrus_jid::{BareJid, Jid};
use cirrus_stanza::{Condition, Kind as StanzaKind, Stanza, StanzaError, Ty, ns};
use cirrus_store::{Item, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use super::message::unknown;
use super::session::Keep;
use crate::event::SessionId;
use crate::home::{Cx, Purpose};
use crate::roster::{Done, Fetched, Kind, Planned, Push, Roster, RosterError, Set, parse_set};

/// A roster of more bytes is not given again before it has arrived: each answer is one more copy.
const LARGE: usize = 64 * 1_024;

/// Changes that wait until the one before them is written.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Waits {
    queue: VecDeque<Change>,
    writing: Option<Change>,
    /// Rows read so far while the roster is read again.
    reload: Option<Vec<Item>>,
    /// The store refused that: when to ask again, Unix milliseconds.
    reload_at: Option<u64>,
    /// When what other homes have not confirmed is sent again, Unix milliseconds, and how long
    /// the pause after that is; `None` when everything is confirmed or patience has ended.
    pub(super) drive: Option<(u64, u64)>,
}

/// How long a roster that can't be read again rests, milliseconds.
const RELOAD_MS: u64 = 2_000;

/// A change of the roster, and who asked for it.
#[derive(Serialize, Deserialize)]
enum Change {
    Set {
        session: SessionId,
        k: u64,
        request: Box<Stanza>,
        set: Option<Set>,
    },
    Outbound {
        session: SessionId,
        k: u64,
        stanza: Box<Stanza>,
        contact: BareJid,
        kind: Kind,
    },
    Inbound {
        stanza: Box<Stanza>,
        contact: BareJid,
        kind: Kind,
        /// Another server's stanza has none.
        number: Option<u64>,
    },
    Confirmed {
        contact: BareJid,
        kind: Kind,
        number: u64,
    },
    /// Presence that came behind a subscription stanza and must not overtake it.
    Pass { stanza: Box<Stanza> },
}

impl Waits {
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.writing.is_none() && self.reload.is_none()
    }

    /// Whether something must come before that presence. While the roster is read again it may be
    /// any sender's subscription stanza.
    fn holds_up(&self, presence: &Stanza) -> bool {
        if self.is_reloading() {
            return true;
        }
        if self.is_idle() {
            return false;
        }
        let sender = presence.from.as_ref().map(Jid::bare);
        let mut ahead = self.writing.iter().chain(&self.queue);
        ahead.any(|change| match change {
            Change::Inbound { contact, .. } => Some(contact) == sender.as_ref(),
            Change::Pass { stanza } => stanza.from.as_ref().map(Jid::bare) == sender,
            Change::Set { .. } | Change::Outbound { .. } | Change::Confirmed { .. } => false,
        })
    }

    pub fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// When unconfirmed stanzas are due again, Unix milliseconds.
    pub fn drive_at(&self) -> Option<u64> {
        self.drive.map(|(at, _)| at)
    }

    /// When the roster is to be read again, Unix milliseconds.
    pub fn reload_at(&self) -> Option<u64> {
        self.reload_at
    }
}

impl User {
    /// Whether the contact may see this user's presence.
    pub(super) fn is_subscriber(&self, contact: &BareJid) -> bool {
        self.roster
            .contact(contact)
            .is_some_and(|contact| contact.subscription.is_from())
    }

    /// A roster request of one of this user's sessions.
    pub(super) fn roster_iq(&mut self, cx: &mut Cx<'_>, index: usize, k: u64, stanza: &Stanza) {
        let Some(query) = stanza.child("query", ns::ROSTER) else {
            return cx.route(stanza.error(&Condition::BadRequest.into()), None);
        };
        if stanza.ty == Ty::Get {
            let ver = query.attr("ver");
            self.sessions[index].interested = true;
            if self.sessions[index].awaits_roster(LARGE) && self.roster.bytes() > LARGE {
                let text = "the roster that you asked for before has not reached you yet";
                let error = StanzaError::new(Condition::ResourceConstraint, text);
                let session = self.sessions[index].id;
                return self.error_to(cx, session, stanza, &error);
            }
            let fetched = self.roster.fetch(cx.now, ver.as_deref());
            return self.send_roster(cx, index, stanza, fetched);
        }
        let session = self.sessions[index].id;
        let limits = super::roster_limits(&cx.home.limits);
        match parse_set(&self.jid, &query, &limits) {
            Ok(set) => {
                let request = Box::new(stanza.head());
                self.sessions[index].hold(k, 1);
                self.change(
                    cx,
                    Change::Set {
                        session,
                        k,
                        request,
                        set: Some(set),
                    },
                );
            }
            Err(error) => self.error_to(cx, session, stanza, &error.stanza_error()),
        }
    }

    fn send_roster(&mut self, cx: &mut Cx<'_>, index: usize, request: &Stanza, fetched: Fetched) {
        let mut reply = request.reply();
        reply.to = Some(self.sessions[index].jid.clone());
        match fetched {
            Fetched::Full(query) => {
                let keep = Keep {
                    own: true,
                    ..Keep::default()
                };
                self.give(cx, index, reply.content(query), keep);
            }
            Fetched::Changes(pushes) => {
                self.give(cx, index, reply, Keep::default());
                for push in &pushes {
                    self.push_to(cx, index, push);
                }
            }
        }
    }

    fn push_to(&mut self, cx: &mut Cx<'_>, index: usize, push: &Push) {
        let to = self.sessions[index].jid.clone();
        let stanza = Stanza::new(StanzaKind::Iq, Ty::Set)
            .id(format!("push-{}", push.version))
            .from(Jid::from(self.jid.clone()))
            .to(to)
            .content(push.query.clone());
        self.give(cx, index, stanza, Keep::default());
    }

    /// A subscription stanza from one of this user's sessions.
    pub(super) fn send_subscription(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        k: u64,
        mut stanza: Stanza,
    ) {
        let session = self.sessions[index].id;
        let (Some(contact), Some(kind)) =
            (stanza.to.as_ref().map(Jid::bare), Kind::from_ty(stanza.ty))
        else {
            return;
        };
        if contact == self.jid {
            let text = "you see your own presence without a subscription";
            let error = StanzaError::new(Condition::NotAllowed, text);
            return self.error_to(cx, session, &stanza, &error);
        }
        // RFC 6121 section 3.1.2: from and to are bare JIDs on the way to the contact.
        stanza.from = Some(self.jid.clone().into());
        stanza.to = Some(contact.clone().into());
        self.sessions[index].hold(k, 1);
        let stanza = Box::new(stanza);
        self.change(
            cx,
            Change::Outbound {
                session,
                k,
                stanza,
                contact,
                kind,
            },
        );
    }

    /// A subscription stanza from a contact.
    pub(super) fn receive_subscription(
        &mut self,
        cx: &mut Cx<'_>,
        mut stanza: Stanza,
        number: Option<u64>,
    ) {
        let (Some(contact), Some(kind)) = (
            stanza.from.as_ref().map(Jid::bare),
            Kind::from_ty(stanza.ty),
        ) else {
            return;
        };
        stanza.from = Some(contact.clone().into());
        stanza.to = Some(self.jid.clone().into());
        self.change(
            cx,
            Change::Inbound {
                stanza: Box::new(stanza),
                contact,
                kind,
                number,
            },
        );
    }

    /// Delivers presence in its place behind its sender's subscription stanzas that are being
    /// written. Other changes don't hold it up: a session that comes meanwhile would see it twice,
    /// late and in the answer to its probe.
    pub(super) fn pass_presence(&mut self, cx: &mut Cx<'_>, stanza: Stanza) {
        if !self.roster_waits.holds_up(&stanza) {
            self.queue(cx, stanza);
        } else {
            self.change(
                cx,
                Change::Pass {
                    stanza: Box::new(stanza),
                },
            );
        }
    }

    /// The contact's home has made our subscription stanza durable.
    pub(super) fn subscription_sent(
        &mut self,
        cx: &mut Cx<'_>,
        contact: BareJid,
        kind: Kind,
        number: u64,
    ) {
        self.change(
            cx,
            Change::Confirmed {
                contact,
                kind,
                number,
            },
        );
    }

    /// The account is being erased: nobody's changes are made any more.
    pub(super) fn drop_changes(&mut self, cx: &mut Cx<'_>, error: &StanzaError) {
        self.roster_waits.drive = None;
        for change in std::mem::take(&mut self.roster_waits.queue) {
            self.changed_not(cx, change, error);
        }
    }

    fn change(&mut self, cx: &mut Cx<'_>, change: Change) {
        if self.roster_waits.queue.len() >= cx.home.limits.entity_queue {
            self.changed_not(cx, change, &Condition::ResourceConstraint.into());
            return;
        }
        self.roster_waits.queue.push_back(change);
        self.next_change(cx);
    }

    /// Starts changes until one has to be written.
    fn next_change(&mut self, cx: &mut Cx<'_>) {
        while !self.roster.is_busy() && !self.roster.is_stale() {
            let Some(mut change) = self.roster_waits.queue.pop_front() else {
                return;
            };
            if let Change::Pass { stanza } = change {
                self.queue(cx, *stanza);
                continue;
            }
            match self.plan(cx, &mut change) {
                Ok(None) => {}
                Ok(Some(mut planned)) => match planned.write.take() {
                    None => {
                        let done = self.roster.commit(planned);
                        self.changed(cx, change, done);
                    }
                    Some(op) => {
                        self.roster_waits.writing = Some(change);
                        self.begin(cx, Purpose::Roster(Box::new(planned)), op);
                    }
                },
                Err(error) => {
                    if let Change::Inbound {
                        contact,
                        kind,
                        number,
                        ..
                    } = &change
                        && error.is_final()
                    {
                        // There is no room for it, so it counts as taken: its sender must not
                        // repeat it for ever.
                        self.confirm_subscription(cx, contact.clone(), *kind, *number);
                    }
                    self.changed_not(cx, change, &error.stanza_error());
                }
            }
        }
        let waits = &mut self.roster_waits;
        if self.roster.is_stale() && waits.reload.is_none() && waits.reload_at.is_none() {
            waits.reload = Some(Vec::new());
            self.begin(cx, Purpose::LoadRoster, Roster::query(&self.jid, None));
        }
    }

    fn plan(
        &mut self,
        cx: &mut Cx<'_>,
        change: &mut Change,
    ) -> Result<Option<Planned>, RosterError> {
        let nonce = cx.rng.u128();
        match change {
            Change::Set { set, .. } => match set.take() {
                Some(set) => self.roster.plan_set(cx.now, nonce, set).map(Some),
                None => Ok(None),
            },
            Change::Outbound { contact, kind, .. } => self
                .roster
                .plan_outbound(cx.now, nonce, contact, *kind)
                .map(Some),
            Change::Inbound {
                stanza,
                contact,
                kind,
                number,
            } => {
                let kept = stanza.to_bytes();
                self.roster
                    .plan_inbound(cx.now, nonce, contact, *kind, &kept, *number)
                    .map(Some)
            }
            Change::Confirmed {
                contact,
                kind,
                number,
            } => self.roster.plan_confirmed(nonce, contact, *kind, *number),
            Change::Pass { .. } => Ok(None),
        }
    }

    pub(super) fn on_roster_written(
        &mut self,
        cx: &mut Cx<'_>,
        planned: Planned,
        result: Result<Outcome, StoreError>,
    ) {
        let change = self.roster_waits.writing.take();
        if planned.is_written(&result) {
            let done = self.roster.commit(planned);
            if let Some(change) = change {
                self.changed(cx, change, done);
            }
        } else if let Err(error) = result {
            self.roster.abort(planned, &error);
            if let Some(change) = change {
                self.changed_not(cx, change, &unknown());
            }
        }
        self.next_change(cx);
    }

    /// A page of a roster that had to be read again.
    pub(super) fn on_roster_page(&mut self, cx: &mut Cx<'_>, result: Result<Outcome, StoreError>) {
        let Some(mut rows) = self.roster_waits.reload.take() else {
            return;
        };
        let Ok(Outcome::Page { items, next }) = result else {
            // It is asked again; until then what is in memory serves.
            self.roster_waits.reload_at = Some(cx.now.saturating_add(RELOAD_MS));
            while let Some(change) = self.roster_waits.queue.pop_front() {
                self.changed_not(cx, change, &unknown());
            }
            return;
        };
        rows.extend(items);
        if next.is_some() {
            self.roster_waits.reload = Some(rows);
            return self.begin(cx, Purpose::LoadRoster, Roster::query(&self.jid, next));
        }
        if let Ok(roster) = self.read_roster(cx, &rows) {
            let before = std::mem::replace(&mut self.roster, roster);
            self.catch_up_roster(cx, &before);
        }
        self.next_change(cx);
    }

    /// Asks again for a roster that could not be read, if that is due.
    pub(super) fn retry_reload(&mut self, cx: &mut Cx<'_>) {
        let due = self.roster_waits.reload_at.take_if(|at| *at <= cx.now);
        if due.is_some() {
            self.next_change(cx);
        }
    }

    /// The roster was read again: what was written and not confirmed takes effect now.
    fn catch_up_roster(&mut self, cx: &mut Cx<'_>, before: &Roster) {
        for push in self.roster.changes_since(before.version()) {
            self.push(cx, &push);
        }
        let lets = |roster: &Roster| -> BTreeSet<BareJid> {
            let contacts = roster.contacts().filter(|c| c.subscription.is_from());
            contacts.map(|contact| contact.jid.clone()).collect()
        };
        let (old, new) = (lets(before), lets(&self.roster));
        // Who has not confirmed gets the subscription stanza again, and presence behind it.
        self.drive_unsent(cx);
        let unsent = self.roster.unsent();
        let driven: BTreeSet<_> = unsent
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Subscribed | Kind::Unsubscribed))
            .map(|(contact, _)| contact)
            .collect();
        for contact in old.difference(&new).filter(|c| !driven.contains(c)) {
            self.hide_presence(cx, contact);
        }
        for contact in new.difference(&old).filter(|c| !driven.contains(c)) {
            self.show_presence(cx, contact);
        }
    }

    /// To every interested resource (RFC 6121 section 2.1.6).
    fn push(&mut self, cx: &mut Cx<'_>, push: &Push) {
        for index in 0..self.sessions.len() {
            if self.sessions[index].interested {
                self.push_to(cx, index, push);
            }
        }
    }

    pub(super) fn read_roster(
        &mut self,
        cx: &mut Cx<'_>,
        rows: &[Item],
    ) -> Result<Roster, RosterError> {
        let limits = super::roster_limits(&cx.home.limits);
        let loaded = Roster::load(&self.jid, limits, rows)?;
        for op in loaded.cleanup {
            self.begin(cx, Purpose::Cleanup, op);
        }
        Ok(loaded.roster)
    }

    /// The change is written: tell everybody whom it concerns.
    fn changed(&mut self, cx: &mut Cx<'_>, change: Change, done: Done) {
        if let Some(push) = &done.push {
            self.push(cx, push);
        }
        match change {
            Change::Set {
                session,
                k,
                request,
                ..
            } => {
                if let Some(index) = self.session_of(session) {
                    let mut reply = request.reply();
                    reply.to = Some(self.sessions[index].jid.clone());
                    self.give(cx, index, reply, Keep::default());
                    self.sessions[index].settle(k);
                }
            }
            Change::Outbound {
                session,
                k,
                stanza,
                kind,
                ..
            } => {
                if done.pass {
                    self.send_numbered(cx, &done.jid, kind, *stanza);
                }
                if let Some(index) = self.session_of(session) {
                    self.sessions[index].settle(k);
                }
            }
            Change::Inbound {
                stanza,
                contact,
                kind,
                number,
            } => {
                if done.pass {
                    self.queue(cx, *stanza);
                }
                self.confirm_subscription(cx, contact, kind, number);
            }
            Change::Confirmed { .. } => self.confirmation_came(cx),
            Change::Pass { .. } => {}
        }
        for kind in &done.sends {
            self.send_kind(cx, &done.jid, *kind);
        }
        if done.pass || !done.sends.is_empty() {
            self.expect_confirmation(cx);
        }
        let was = done.before.subscription().is_from();
        let is = done.after.subscription().is_from();
        // Whoever is told again that it may see presence has not seen what came with it before.
        if is && (!was || done.sends.contains(&Kind::Subscribed)) {
            self.show_presence(cx, &done.jid);
        } else if was && !is {
            self.hide_presence(cx, &done.jid);
        }
        if let Some(op) = done.cleanup {
            self.begin(cx, Purpose::Cleanup, op);
        }
    }

    /// The change is refused, or nobody knows whether it was written.
    fn changed_not(&mut self, cx: &mut Cx<'_>, change: Change, error: &StanzaError) {
        let (session, k, stanza) = match change {
            Change::Set {
                session,
                k,
                request,
                ..
            } => (session, k, request),
            Change::Outbound {
                session, k, stanza, ..
            } => (session, k, stanza),
            // The contact's home sends it again, because it has no confirmation.
            Change::Inbound { .. } | Change::Confirmed { .. } => return,
            Change::Pass { stanza } => return self.queue(cx, *stanza),
        };
        if let Some(index) = self.session_of(session) {
            let mut reply = stanza.error(error);
            reply.to = Some(self.sessions[index].jid.clone());
            self.give(cx, index, reply, Keep::default());
            self.sessions[index].settle(k);
        }
    }

    /// Everything the roster's rows say, as it was read.
    pub(super) fn pending_requests(&self) -> Vec<Bytes> {
        self.roster
            .requests()
            .map(|(_, stanza)| stanza.clone())
            .collect()
    }
}
