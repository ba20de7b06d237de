//! What one entity tells another.

use std::collections::VecDeque;

use cirrus_jid::BareJid;
use cirrus_stanza::{Kind, Stanza, StanzaError};
use serde::{Deserialize, Serialize};

use crate::event::Origin;

/// What one entity tells another, on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Frame {
    pub(crate) to: BareJid,
    pub(crate) body: Body,
}

/// A frame's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Body {
    /// A stanza; `from` is verified. With an origin, the sender waits for a confirmation.
    Stanza {
        stanza: Box<Stanza>,
        origin: Option<Origin>,
    },
    /// A subscription stanza with its number (see [`crate::roster::Exchange`]).
    Subscription {
        stanza: Box<Stanza>,
        kind: crate::roster::Kind,
        number: u64,
    },
    /// What the origin's stanza implied here is durable.
    Confirm { origin: Origin },
    /// The origin's stanza was refused. The error goes straight to its session, so that it is in
    /// the session's log when the stanza counts as handled.
    Refused { origin: Origin, error: Box<Stanza> },
    /// The contact's home has made a subscription stanza of ours durable.
    Subscribed {
        contact: BareJid,
        kind: crate::roster::Kind,
        number: u64,
    },
}

impl Frame {
    /// The entity that it is for.
    pub fn to(&self) -> &BareJid {
        &self.to
    }

    pub(crate) fn stanza(to: BareJid, stanza: Stanza, origin: Option<Origin>) -> Self {
        Self {
            to,
            body: Body::Stanza {
                stanza: Box::new(stanza),
                origin,
            },
        }
    }

    /// Answers the frame's stanza with an error and confirms it. A subscription stanza is not
    /// confirmed, so the sender's home will repeat it.
    pub(crate) fn refuse(self, error: StanzaError, frames: &mut VecDeque<Frame>) {
        let Body::Stanza { stanza, origin } = self.body else {
            return;
        };
        frames.extend(Self::refusal(&stanza, origin, &error));
    }

    /// The answer to a stanza that is refused, if it gets one.
    pub(crate) fn refusal(
        stanza: &Stanza,
        origin: Option<Origin>,
        error: &StanzaError,
    ) -> Option<Self> {
        let to = stanza.from.as_ref()?.bare();
        let bounces = stanza.kind != Kind::Presence && stanza.may_bounce();
        let reply = bounces.then(|| stanza.error(error));
        match (origin, reply) {
            (Some(origin), Some(error)) => {
                let error = Box::new(error);
                let body = Body::Refused { origin, error };
                Some(Self { to, body })
            }
            (Some(origin), None) => {
                let body = Body::Confirm { origin };
                Some(Self { to, body })
            }
            (None, reply) => Some(Self::stanza(to, reply?, None)),
        }
    }

    /// Answers the frame's stanza because there is no such account. RFC 6121 section 8.5.1:
    /// presence does not tell that; the sender's home need not repeat it.
    pub(crate) fn nobody(self, error: StanzaError, frames: &mut VecDeque<Frame>) {
        if let Body::Subscription {
            stanza,
            kind,
            number,
        } = self.body
        {
            let contact = self.to;
            let body = Body::Subscribed {
                contact,
                kind,
                number,
            };
            let sender = stanza.from.as_ref().map(cirrus_jid::Jid::bare);
            frames.extend(sender.map(|to| Frame { to, body }));
            return;
        }
        self.refuse(error, frames);
    }
}
