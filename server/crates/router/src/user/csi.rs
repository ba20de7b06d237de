//! Client state indication (XEP-0352): what a client that nobody looks at need not be woken for
//! waits until it is looked at again, or until something comes that matters.
//!
//! Held is, of each sender, the latest presence and the latest chat state (XEP-0085). Nothing that
//! is held has a number of stream management: it gets one when it is sent.

use std::collections::VecDeque;

use cirrus_stanza::{Kind, Stanza, Ty, delay, ns};
use serde::{Deserialize, Serialize};

use super::User;
use super::carbons::Carbon;
use super::session::Keep;
use crate::home::{Cx, Limits};

/// What a client has said about itself, and what waits for it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ClientState {
    inactive: bool,
    held: VecDeque<Held>,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct Held {
    state: Passing,
    stanza: Stanza,
    keep: Keep,
    /// When it came, Unix milliseconds.
    at: u64,
}

/// What a later one of the same sender replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Passing {
    Presence,
    ChatState,
}

impl Passing {
    fn of(stanza: &Stanza) -> Option<Self> {
        match (stanza.kind, stanza.ty) {
            (Kind::Presence, Ty::Available | Ty::Unavailable) => Some(Self::Presence),
            (Kind::Message, Ty::Chat | Ty::Normal | Ty::Groupchat) => {
                is_chat_state(stanza).then_some(Self::ChatState)
            }
            _ => None,
        }
    }
}

/// A chat state and nothing else (XEP-0085 section 5.1).
fn is_chat_state(stanza: &Stanza) -> bool {
    let mut found = false;
    for child in stanza.children() {
        match (child.name(), child.ns()) {
            (_, ns::CHAT_STATES) => found = true,
            ("thread", ns::CLIENT) | (_, ns::HINTS) => {}
            _ => return false,
        }
    }
    found
}

impl ClientState {
    /// Holds a stanza, or gives it back because it is to be sent, after what is held.
    fn hold(&mut self, now: u64, stanza: Stanza, keep: Keep) -> Option<(Stanza, Keep)> {
        if !self.inactive {
            return Some((stanza, keep));
        }
        let Some(state) = Passing::of(&stanza) else {
            if stanza.kind == Kind::Message {
                // It says more of its sender than a chat state from before does.
                self.forget(Passing::ChatState, &stanza);
            }
            return Some((stanza, keep));
        };
        if keep.carbon == Some(Carbon::Sent) {
            return None; // What the user types elsewhere.
        }
        self.forget(state, &stanza);
        self.bytes += stanza.size();
        self.held.push_back(Held {
            state,
            stanza,
            keep,
            at: now,
        });
        None
    }

    fn forget(&mut self, state: Passing, newer: &Stanza) {
        let older = |held: &Held| held.state == state && held.stanza.from == newer.from;
        if let Some(index) = self.held.iter().position(older)
            && let Some(held) = self.held.remove(index)
        {
            self.bytes = self.bytes.saturating_sub(held.stanza.size());
        }
    }

    fn is_over(&self, limits: &Limits) -> bool {
        self.held.len() > limits.held_stanzas || self.bytes > limits.held_bytes
    }

    fn take(&mut self) -> VecDeque<Held> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }
}

impl User {
    /// A client says whether somebody looks at it.
    pub(super) fn set_active(&mut self, cx: &mut Cx<'_>, index: usize, active: bool) {
        self.sessions[index].client_state.inactive = !active;
        if active {
            self.release(cx, index);
        }
    }

    /// Gives a stanza to one session: at once, behind what was held, or not yet.
    pub(super) fn give(&mut self, cx: &mut Cx<'_>, index: usize, stanza: Stanza, keep: Keep) {
        let state = &mut self.sessions[index].client_state;
        if let Some((stanza, keep)) = state.hold(cx.now, stanza, keep) {
            self.release(cx, index);
            self.give_now(cx, index, stanza, keep);
            return;
        }
        let over = state.is_over(&cx.home.limits);
        self.sessions[index].held();
        if over {
            self.release(cx, index);
        }
    }

    /// Sends what was held, in the order in which it came.
    fn release(&mut self, cx: &mut Cx<'_>, index: usize) {
        for held in self.sessions[index].client_state.take() {
            let Held {
                mut stanza,
                keep,
                at,
                ..
            } = held;
            if at < cx.now && stanza.child("delay", ns::DELAY).is_none() {
                stanza = stanza.with_child(&delay(self.jid.host(), at));
            }
            self.give_now(cx, index, stanza, keep);
        }
    }
}
