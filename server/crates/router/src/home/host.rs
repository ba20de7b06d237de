//! The server as an addressee: stanzas to a domain that is served here.

use cirrus_stanza::{Condition, Kind, Stanza, Ty};

use super::frame::{Body, Frame};
use super::work::{Cx, Purpose};
use crate::event::SessionId;
use crate::registry::{IqReply, IqRequest, Scope};

/// Answers an IQ; takes messages and presence without a reaction, as a server is nobody's
/// contact (RFC 6120 section 10.5.1, RFC 6121 section 8.2).
pub(crate) fn on_frame(cx: &mut Cx<'_>, frame: Frame) {
    let Body::Stanza { stanza, origin } = frame.body else {
        return;
    };
    if stanza.kind == Kind::Iq && matches!(stanza.ty, Ty::Get | Ty::Set) {
        answer(cx, &stanza, frame.to.host());
    } else if stanza.kind == Kind::Message {
        let text = "a server reads no messages; address one of its users";
        let error = cirrus_stanza::StanzaError::new(Condition::ServiceUnavailable, text);
        let refusal = Frame::refusal(&stanza, origin, &error);
        cx.work.frames.extend(refusal);
        return;
    }
    cx.confirm(stanza.from.as_ref(), origin);
}

fn answer(cx: &mut Cx<'_>, stanza: &Stanza, host: &str) {
    let Some(handle) = cx.home.registry.route(Scope::Server, stanza) else {
        cx.route(stanza.error(&Condition::ServiceUnavailable.into()), None);
        return;
    };
    let request = IqRequest {
        stanza,
        host,
        account: None,
        own: false,
        now_ms: cx.now,
        started_ms: cx.started_ms,
        registry: &cx.home.registry,
        about: &cx.home.about,
    };
    match handle(&request) {
        IqReply::Result(content) => cx.route(stanza.reply().content(content), None),
        IqReply::Error(error) => cx.route(stanza.error(&error), None),
        IqReply::Account(change) => {
            let Some(from) = &stanza.from else { return };
            let reply = Box::new(stanza.clone());
            let purpose = Purpose::Account {
                reply,
                session: SessionId(0),
            };
            cx.account(&from.bare(), purpose, change);
        }
    }
}
