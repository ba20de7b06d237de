//! Message carbons (XEP-0280): what one of a user's sessions sends or is sent, those of its others
//! that asked for it see too.

use cirrus_jid::Jid;
use cirrus_stanza::{Kind, Stanza, Ty, ns};
use cirrus_xml::Writer;
use serde::{Deserialize, Serialize};

use super::session::Keep;
use super::{Session, User};
use crate::event::SessionId;
use crate::home::Cx;

/// What a copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Carbon {
    /// A message that another session of the user sent.
    Sent,
    /// A message that was delivered to another session of the user.
    Received,
}

/// More than a copy has around its message, its receiver's address apart.
pub(super) const WRAPPING: usize = 512;

/// Whether a request switches copies on (`true`) or off (XEP-0280 sections 4 and 5).
pub(super) fn switch(stanza: &Stanza) -> Option<bool> {
    if stanza.ty != Ty::Set {
        return None;
    }
    let on = stanza.is_payload("enable", ns::CARBONS);
    (on || stanza.is_payload("disable", ns::CARBONS)).then_some(on)
}

/// Invitations to a room (XEP-0249).
const CONFERENCE: &str = "jabber:x:conference";

/// Whether other sessions may see a copy (XEP-0280 section 6): messages between people, and what
/// belongs to them, unless a room passes them on or the sender keeps them to one session (section
/// 9; XEP-0334 `no-copy`).
fn eligible(stanza: &Stanza) -> bool {
    let normal = stanza.ty == Ty::Normal;
    let mut talk = stanza.ty == Ty::Chat;
    for child in stanza.children() {
        match (child.name(), child.ns()) {
            // Neither what is private nor a copy that somebody sends on.
            (_, ns::CARBONS) | ("no-copy", ns::HINTS) => return false,
            // A room sends to each client that is in it; it invites one.
            ("x", ns::MUC_USER) if child.child("invite", ns::MUC_USER).is_none() => return false,
            ("body", ns::CLIENT)
            | ("x", CONFERENCE | ns::MUC_USER)
            | (_, ns::CHAT_STATES | ns::MARKERS | ns::RECEIPTS) => talk |= normal,
            _ => {}
        }
    }
    talk
}

/// The copy of a message for that session (XEP-0280 sections 7 and 8, XEP-0297).
pub(super) fn copy(carbon: Carbon, original: &Stanza, to: &Jid) -> Stanza {
    let mut inner = original.clone();
    let mut extra = format!(" xmlns='{}'", ns::CLIENT).into_bytes();
    extra.extend_from_slice(&original.extra);
    inner.extra = extra.into();
    let mut w = Writer::new();
    let element = match carbon {
        Carbon::Sent => "sent",
        Carbon::Received => "received",
    };
    w.start(element).attr("xmlns", ns::CARBONS);
    w.start("forwarded").attr("xmlns", ns::FORWARD);
    w.raw(&inner.to_bytes()).end().end();
    Stanza::new(Kind::Message, original.ty)
        .from(to.bare())
        .to(to.clone())
        .content(w.into_bytes())
}

impl User {
    /// A session wants copies, or no longer.
    pub(super) fn set_carbons(&mut self, cx: &mut Cx<'_>, index: usize, on: bool, stanza: &Stanza) {
        self.sessions[index].carbons = on;
        cx.route(stanza.reply(), None);
    }

    /// The sessions that get a copy of a message that is delivered to `targets`.
    pub(super) fn copied(&self, stanza: &Stanza, targets: &[SessionId]) -> Vec<SessionId> {
        if !self.sessions.iter().any(|session| session.carbons) || !eligible(stanza) {
            return Vec::new();
        }
        let wants = |session: &&Session| {
            session.carbons
                && !targets.contains(&session.id)
                && stanza.from.as_ref() != Some(&session.jid)
        };
        let others = self.sessions.iter().filter(wants);
        others.map(|session| session.id).collect()
    }

    /// Copies what a session has sent to the others. Not what goes to the own account: that is
    /// delivered there, and copied on its way in.
    pub(super) fn copy_sent(&mut self, cx: &mut Cx<'_>, sender: SessionId, stanza: &Stanza) {
        if stanza.to.as_ref().is_some_and(|to| to.bare() == self.jid) {
            return;
        }
        let keep = Keep {
            carbon: Some(Carbon::Sent),
            ..Keep::default()
        };
        for id in self.copied(stanza, &[sender]) {
            if let Some(index) = self.session_of(id) {
                self.give(cx, index, stanza.clone(), keep.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied() {
        let of = |ty, content: &str| {
            let stanza = Stanza::new(Kind::Message, ty);
            eligible(&stanza.content(content.as_bytes().to_vec()))
        };
        let body = "<body>a</body>";
        assert!(of(Ty::Chat, body) && of(Ty::Normal, body));
        assert!(of(
            Ty::Chat,
            "<active xmlns='http://jabber.org/protocol/chatstates'/>"
        ));
        assert!(!of(Ty::Normal, "<x xmlns='jabber:x:data'/>"));
        for content in [
            "<received xmlns='urn:xmpp:receipts' id='1'/>",
            "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
            "<gone xmlns='http://jabber.org/protocol/chatstates'/>",
            "<x xmlns='jabber:x:conference' jid='room@example.com'/>",
            "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@example.com'/></x>",
        ] {
            assert!(of(Ty::Normal, content), "{content}");
            assert!(!of(Ty::Headline, content), "{content}");
        }
        for ty in [Ty::Groupchat, Ty::Headline, Ty::Error] {
            assert!(!of(ty, body), "{ty:?}");
        }
        for child in [
            "<private xmlns='urn:xmpp:carbons:2'/>",
            "<received xmlns='urn:xmpp:carbons:2'/>",
            "<no-copy xmlns='urn:xmpp:hints'/>",
            "<x xmlns='http://jabber.org/protocol/muc#user'/>",
        ] {
            assert!(!of(Ty::Chat, &format!("{body}{child}")), "{child}");
        }
    }
}
