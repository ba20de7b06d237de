//! IQs of a user's sessions, and those that its account answers (RFC 6120 section 8.2.3).

use cirrus_jid::Jid;
use cirrus_stanza::{Condition, Stanza, Ty, ns};

use super::session::Keep;
use super::{User, carbons};
use crate::home::{Cx, Purpose};
use crate::registry::{AccountView, IqReply, IqRequest, Scope};

impl User {
    /// An IQ from one of this user's own sessions.
    pub(super) fn send_iq(&mut self, cx: &mut Cx<'_>, index: usize, k: u64, mut stanza: Stanza) {
        let own = stanza
            .to
            .as_ref()
            .is_none_or(|to| to.is_bare() && to.bare() == self.jid);
        if !own {
            return cx.route(stanza, None);
        }
        if !matches!(stanza.ty, Ty::Get | Ty::Set) {
            return; // An answer to the server, which asked nothing.
        }
        let addressed = stanza.to.is_some();
        if stanza
            .payload
            .as_ref()
            .is_some_and(|(_, space)| space == ns::ROSTER)
        {
            return self.roster_iq(cx, index, k, &stanza);
        }
        if !addressed {
            stanza.to = Some(self.jid.clone().into());
        }
        if let Some(on) = carbons::switch(&stanza) {
            return self.set_carbons(cx, index, on, &stanza);
        }
        if !self.archive_iq(cx, index, &stanza) {
            self.answer(cx, &stanza);
        }
    }

    /// A request to this account, from whomever.
    pub(super) fn answer(&mut self, cx: &mut Cx<'_>, stanza: &Stanza) {
        let Some(from) = stanza.from.as_ref().map(Jid::bare) else {
            return;
        };
        let own = from == self.jid;
        let Some(handle) = cx.home.registry.route(Scope::Account, stanza) else {
            return cx.route(stanza.error(&Condition::ServiceUnavailable.into()), None);
        };
        let available = self
            .sessions
            .iter()
            .filter(|session| session.presence.is_some());
        let resources: Vec<_> = available.map(|session| session.jid.to_string()).collect();
        let account = AccountView {
            jid: &self.jid,
            subscribed: own || self.is_subscriber(&from),
            available: !resources.is_empty(),
            last_seen: self.status.last_seen(),
            resources,
        };
        let request = IqRequest {
            stanza,
            host: self.jid.host(),
            account: Some(account),
            own,
            now_ms: cx.now,
            started_ms: cx.started_ms,
            registry: &cx.home.registry,
            about: &cx.home.about,
        };
        match handle(&request) {
            IqReply::Result(content) => cx.route(stanza.reply().content(content), None),
            IqReply::Error(error) => cx.route(stanza.error(&error), None),
            IqReply::Account(change) => {
                let reply = Box::new(stanza.clone());
                let session = crate::event::SessionId(0);
                let purpose = Purpose::Account { reply, session };
                cx.account(&self.jid, purpose, change);
            }
        }
    }

    /// An IQ for a full JID.
    pub(super) fn deliver_iq(&mut self, cx: &mut Cx<'_>, stanza: Stanza) {
        let resource = stanza
            .to
            .as_ref()
            .and_then(Jid::resource)
            .unwrap_or_default();
        match self
            .sessions
            .iter()
            .position(|session| session.resource() == resource)
        {
            Some(index) => self.give(cx, index, stanza, Keep::default()),
            None if stanza.may_bounce() => {
                cx.route(stanza.error(&Condition::ServiceUnavailable.into()), None);
            }
            None => {}
        }
    }
}
