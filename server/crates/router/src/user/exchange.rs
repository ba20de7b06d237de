//! Subscription stanzas between homes: numbered, confirmed, and sent again until they are.

use cirrus_jid::BareJid;
use cirrus_stanza::{Kind as StanzaKind, Stanza};

use super::User;
use crate::home::{Body, Cx};
use crate::roster::Kind;

/// First pause before subscription stanzas are sent again; it doubles.
const DRIVE_MS: u64 = 5_000;
/// After a pause as long as this only the next activation sends again.
const LAST_DRIVE_MS: u64 = 600_000;

impl User {
    /// After a load: stanzas that the other homes may not have got.
    pub(super) fn drive_unsent(&mut self, cx: &mut Cx<'_>) {
        for (contact, kind) in self.roster.unsent() {
            self.send_again(cx, &contact, kind);
        }
        self.expect_confirmation(cx);
    }

    /// Sends a subscription stanza once more, and what follows from it: sessions that the other
    /// side has got meanwhile did not see that.
    fn send_again(&self, cx: &mut Cx<'_>, contact: &BareJid, kind: Kind) {
        self.send_kind(cx, contact, kind);
        match kind {
            Kind::Subscribed => self.show_presence(cx, contact),
            Kind::Unsubscribed => self.hide_presence(cx, contact),
            Kind::Subscribe | Kind::Unsubscribe => {}
        }
    }

    /// Subscription stanzas may be under way to other homes: if so, they are sent again after a
    /// pause. An account that is being erased takes everything back instead.
    pub(super) fn expect_confirmation(&mut self, cx: &Cx<'_>) {
        if !self.state.is_active() {
            return;
        }
        if self.roster_waits.drive.is_none() && !self.unconfirmed(cx).is_empty() {
            self.roster_waits.drive = Some((cx.now.saturating_add(DRIVE_MS), DRIVE_MS));
        }
    }

    /// Another home has confirmed something. When that was the last, the pause ends with it: what
    /// is sent next has a whole one.
    pub(super) fn confirmation_came(&mut self, cx: &Cx<'_>) {
        if self.unconfirmed(cx).is_empty() {
            self.roster_waits.drive = None;
        }
    }

    /// What other homes have not confirmed. Other servers are told when they can be reached.
    fn unconfirmed(&self, cx: &Cx<'_>) -> Vec<(BareJid, Kind)> {
        let mut unsent = self.roster.unsent();
        unsent.retain(|(contact, _)| cx.home.serves(contact.host()));
        unsent
    }

    /// Sends again what other homes have not confirmed, if that is due.
    pub(super) fn retry_unsent(&mut self, cx: &mut Cx<'_>) {
        let due = self.roster_waits.drive.take_if(|(at, _)| *at <= cx.now);
        let Some((_, pause)) = due else { return };
        let unsent = self.unconfirmed(cx);
        if unsent.is_empty() || pause > LAST_DRIVE_MS {
            return;
        }
        let pause = pause * 2;
        self.roster_waits.drive = Some((cx.now.saturating_add(pause), pause));
        for (contact, kind) in unsent {
            self.send_again(cx, &contact, kind);
        }
    }

    pub(super) fn send_kind(&self, cx: &mut Cx<'_>, contact: &BareJid, kind: Kind) {
        let stanza = Stanza::new(StanzaKind::Presence, kind.ty())
            .from(self.jid.clone())
            .to(contact.clone());
        self.send_numbered(cx, contact, kind, stanza);
    }

    pub(super) fn send_numbered(
        &self,
        cx: &mut Cx<'_>,
        contact: &BareJid,
        kind: Kind,
        stanza: Stanza,
    ) {
        let number = self.roster.number(contact, kind);
        let stanza = Box::new(stanza);
        let body = Body::Subscription {
            stanza,
            kind,
            number,
        };
        cx.frame(contact.clone(), body);
    }

    /// Tells a contact's home that its stanza is settled here.
    pub(super) fn confirm_subscription(
        &self,
        cx: &mut Cx<'_>,
        to: BareJid,
        kind: Kind,
        number: Option<u64>,
    ) {
        let Some(number) = number else { return };
        let contact = self.jid.clone();
        let body = Body::Subscribed {
            contact,
            kind,
            number,
        };
        cx.frame(to, body);
    }
}
