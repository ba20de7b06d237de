//! Presence: broadcast, probes and directed presence (RFC 6121 section 4).

use cirrus_jid::Jid;
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, Ty, ns};

use super::User;
use super::session::{Keep, Session};
use crate::home::Cx;

impl User {
    /// Presence from one of this user's own sessions.
    pub(super) fn send_presence(&mut self, cx: &mut Cx<'_>, index: usize, k: u64, stanza: Stanza) {
        let bytes = stanza.inner().len() + stanza.extra.len();
        let limit = cx.home.limits.presence_bytes;
        if bytes > limit && stanza.ty != Ty::Error {
            let id = self.sessions[index].id;
            let text =
                format!("presence of {bytes} bytes, which each contact gets; at most {limit}");
            let error = StanzaError::new(Condition::NotAcceptable, text);
            return self.error_to(cx, id, &stanza, &error);
        }
        match (&stanza.to, stanza.ty) {
            (None, Ty::Available) => self.broadcast_available(cx, index, stanza),
            (None, Ty::Unavailable) => self.broadcast_unavailable(cx, index, &stanza),
            (Some(_), Ty::Available | Ty::Unavailable) => self.direct_presence(cx, index, stanza),
            (Some(_), Ty::Error) => cx.route(stanza, None),
            (Some(_), Ty::Subscribe | Ty::Subscribed | Ty::Unsubscribe | Ty::Unsubscribed) => {
                self.send_subscription(cx, index, k, stanza);
            }
            // Probes are the server's (RFC 6121 section 4.3); the rest needs an address.
            (None, Ty::Error) | (_, Ty::Probe) => {}
            _ => {
                let id = self.sessions[index].id;
                let text = "subscription stanzas need a 'to' address";
                let error = StanzaError::new(Condition::BadRequest, text);
                self.error_to(cx, id, &stanza, &error);
            }
        }
    }

    fn broadcast_available(&mut self, cx: &mut Cx<'_>, index: usize, stanza: Stanza) {
        let Some(priority) = priority(&stanza) else {
            let id = self.sessions[index].id;
            let text = "a priority is an integer from -128 to 127";
            let error = StanzaError::new(Condition::BadRequest, text);
            return self.error_to(cx, id, &stanza, &error);
        };
        let session = &mut self.sessions[index];
        let initial = session.presence.is_none();
        session.priority = priority;
        session.presence = Some(stanza.clone());
        let id = session.id;
        self.broadcast(cx, &stanza);
        for index in 0..self.sessions.len() {
            if self.sessions[index].presence.is_some() {
                self.send_to(cx, index, stanza.clone());
            }
        }
        if initial && let Some(index) = self.session_of(id) {
            self.introduce(cx, index);
        }
    }

    /// A newly available resource learns who else is there (RFC 6121 section 4.2.2).
    fn introduce(&mut self, cx: &mut Cx<'_>, index: usize) {
        let jid = self.sessions[index].jid.clone();
        for other in 0..self.sessions.len() {
            if other != index
                && let Some(presence) = self.sessions[other].presence.clone()
            {
                self.send_to(cx, index, presence);
            }
        }
        let probed = self
            .roster
            .contacts()
            .filter(|contact| contact.subscription.is_to());
        for contact in probed.map(|contact| contact.jid.clone()) {
            let probe = Stanza::new(Kind::Presence, Ty::Probe)
                .from(jid.clone())
                .to(contact);
            cx.route(probe, None);
        }
        // What has no room comes with another initial presence, when some of these are answered.
        let unacked = self.sessions[index].unacked_bytes();
        let mut room = (cx.home.limits.unacked_bytes / 2).saturating_sub(unacked);
        for request in self.pending_requests() {
            if let Some(stanza) = Stanza::from_stored(&request) {
                let Some(left) = room.checked_sub(stanza.size()) else {
                    break;
                };
                room = left;
                self.send_to(cx, index, stanza);
            }
        }
    }

    fn broadcast_unavailable(&mut self, cx: &mut Cx<'_>, index: usize, stanza: &Stanza) {
        let session = &mut self.sessions[index];
        let was = session.presence.take().is_some();
        session.priority = 0;
        let directed = std::mem::take(&mut session.directed);
        let id = session.id;
        if was {
            self.broadcast(cx, stanza);
        }
        for to in directed {
            if !was || !self.sees_broadcasts(&to) {
                self.show_to(cx, stanza.clone().to(to));
            }
        }
        if was {
            for index in 0..self.sessions.len() {
                if self.sessions[index].presence.is_some() || self.sessions[index].id == id {
                    self.send_to(cx, index, stanza.clone());
                }
            }
        }
    }

    /// A session that is already taken out ends: its contacts see it leave. Returns the status
    /// text for last activity.
    pub(super) fn leave(&mut self, cx: &mut Cx<'_>, session: &mut Session) -> String {
        let gone = Stanza::new(Kind::Presence, Ty::Unavailable).from(session.jid.clone());
        let presence = session.presence.take();
        let was = presence.is_some();
        if was {
            self.broadcast(cx, &gone);
            for index in 0..self.sessions.len() {
                if self.sessions[index].presence.is_some() {
                    self.send_to(cx, index, gone.clone());
                }
            }
        }
        for to in std::mem::take(&mut session.directed) {
            if !was || !self.sees_broadcasts(&to) {
                self.show_to(cx, gone.clone().to(to));
            }
        }
        let text = presence
            .as_ref()
            .and_then(|stanza| stanza.child("status", ns::CLIENT));
        text.map(|status| status.text().into_owned())
            .unwrap_or_default()
    }

    /// To everybody who is subscribed.
    fn broadcast(&self, cx: &mut Cx<'_>, stanza: &Stanza) {
        let subscribers = self
            .roster
            .contacts()
            .filter(|contact| contact.subscription.is_from());
        for contact in subscribers {
            cx.route(stanza.clone().to(contact.jid.clone()), None);
        }
    }

    fn direct_presence(&mut self, cx: &mut Cx<'_>, index: usize, stanza: Stanza) {
        let limit = cx.home.limits.directed_presence;
        if let Some(to) = &stanza.to {
            self.sessions[index].direct(to, stanza.ty == Ty::Available, limit);
        }
        self.show_to(cx, stanza);
    }

    /// Whether a broadcast reaches that address.
    fn sees_broadcasts(&self, to: &Jid) -> bool {
        let to = to.bare();
        to == self.jid || self.is_subscriber(&to)
    }

    /// Sends presence to the address in it. The own resources get it at once, like a broadcast, so
    /// that the two keep their order.
    fn show_to(&mut self, cx: &mut Cx<'_>, stanza: Stanza) {
        let own = stanza.to.as_ref().is_some_and(|to| to.bare() == self.jid);
        if own {
            self.deliver_presence(cx, &stanza);
        } else {
            cx.route(stanza, None);
        }
    }

    /// Presence that another entity, or another own session, addressed to this user.
    pub(super) fn receive_presence(&mut self, cx: &mut Cx<'_>, stanza: Stanza) {
        match stanza.ty {
            Ty::Probe => self.answer_probe(cx, &stanza),
            Ty::Subscribe | Ty::Subscribed | Ty::Unsubscribe | Ty::Unsubscribed => {
                self.receive_subscription(cx, stanza, None);
            }
            _ => self.pass_presence(cx, stanza),
        }
    }

    pub(super) fn deliver_presence(&mut self, cx: &mut Cx<'_>, stanza: &Stanza) {
        let Some(to) = &stanza.to else { return };
        if let Some(resource) = to.resource() {
            let found = self.sessions.iter().position(|s| s.resource() == resource);
            if let Some(index) = found {
                self.send_to(cx, index, stanza.clone());
            }
            return;
        }
        for index in 0..self.sessions.len() {
            if self.sessions[index].presence.is_some() {
                self.send_to(cx, index, stanza.clone());
            }
        }
    }

    /// RFC 6121 section 4.3.2: only subscribers learn anything.
    fn answer_probe(&mut self, cx: &mut Cx<'_>, probe: &Stanza) {
        let Some(from) = &probe.from else { return };
        if from.bare() != self.jid && !self.is_subscriber(&from.bare()) {
            return;
        }
        for session in &self.sessions {
            if let Some(presence) = &session.presence {
                cx.route(presence.clone().to(from.clone()), None);
            }
        }
    }

    /// Presence of every available resource to one contact, which has just been let in.
    pub(super) fn show_presence(&self, cx: &mut Cx<'_>, contact: &cirrus_jid::BareJid) {
        for session in &self.sessions {
            if let Some(presence) = &session.presence {
                cx.route(presence.clone().to(contact.clone()), None);
            }
        }
    }

    /// Every available resource looks unavailable to a contact that is no longer subscribed.
    pub(super) fn hide_presence(&self, cx: &mut Cx<'_>, contact: &cirrus_jid::BareJid) {
        for session in self
            .sessions
            .iter()
            .filter(|session| session.presence.is_some())
        {
            let gone = Stanza::new(Kind::Presence, Ty::Unavailable).from(session.jid.clone());
            cx.route(gone.to(contact.clone()), None);
        }
    }

    /// Sends a stanza that is not archived to one session, addressed to it.
    pub(super) fn send_to(&mut self, cx: &mut Cx<'_>, index: usize, mut stanza: Stanza) {
        if stanza.to.is_none() {
            stanza.to = Some(Jid::from(self.jid.clone()));
        }
        self.give(cx, index, stanza, Keep::default());
    }
}

/// The presence's priority (RFC 6121 section 4.7.2.3); `None` when it is not one.
fn priority(stanza: &Stanza) -> Option<i8> {
    match stanza.child("priority", ns::CLIENT) {
        Some(element) => element.text().trim().parse().ok(),
        None => Some(0),
    }
}
