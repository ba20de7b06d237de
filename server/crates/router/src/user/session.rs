//! A session: one bound resource with its counters (XEP-0198), presence and unacknowledged log.

use std::collections::VecDeque;
use std::sync::Arc;

use cirrus_jid::Jid;
use cirrus_stanza::{Kind, Stanza, Ty, ns};
use serde::{Deserialize, Serialize};

use super::carbons::{self, Carbon};
use super::csi::ClientState;
use crate::event::{Effect, Effects, Enable, Enabled, PipeId, PipeOut, SessionId};

/// A stanza that the client has not acknowledged yet.
#[derive(Serialize, Deserialize)]
pub(super) struct Unacked {
    /// Its number.
    pub n: u64,
    /// Where else it is.
    pub keep: Keep,
    /// The stanza, to be sent again on resumption; of a copy, what it is of.
    pub stanza: Box<Stanza>,
}

impl Unacked {
    /// Upper bound of its bytes.
    fn size(&self) -> usize {
        let wrapping = self.keep.carbon.map_or(0, |_| carbons::WRAPPING);
        self.stanza.size() + wrapping
    }

    /// Whether it is what another session got at the same time.
    fn is_same(&self, other: &Self) -> bool {
        let place = |it: &Self| it.keep.archived.map(|archived| archived.position);
        self.keep.group.is_some()
            && place(self) == place(other)
            && (place(self).is_some() || self.stanza.to_bytes() == other.stanza.to_bytes())
    }
}

/// Where an unacknowledged stanza stands in the archive.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Archived {
    /// Position in the log.
    pub position: u64,
    /// The log obliges to deliver it, so the offline cursor waits for the acknowledgement.
    pub due: bool,
}

/// What is known of a stanza that a client must acknowledge.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Keep {
    /// Where the recipient's archive has it.
    pub archived: Option<Archived>,
    /// It must reach another session if this one ends without having acknowledged it.
    pub rescue: bool,
    /// The sessions that got it at the same time, where there are several.
    #[serde(with = "crate::codec::shared")]
    pub group: Option<Arc<[SessionId]>>,
    /// The client gets it as a copy.
    pub carbon: Option<Carbon>,
    /// It waits for the client like what must not get lost, but nobody else needs it: part of an
    /// answer that only this session asked for, or a message that another of the user's clients
    /// has acknowledged.
    pub own: bool,
}

/// Stream management as it was enabled (XEP-0198 section 3).
#[derive(Serialize, Deserialize)]
pub(super) struct Sm {
    /// The client may resume.
    pub resume: bool,
    /// Seconds a broken session is kept.
    pub max: u32,
    /// The inbound number at which counting began.
    pub base_k: u64,
    /// The outbound number at which counting began.
    pub base_n: u64,
}

/// What became of an inbound stanza that is not handled at once.
#[derive(Serialize, Deserialize)]
struct Unhandled {
    k: u64,
    outstanding: u8,
}

/// One bound resource.
#[derive(Serialize, Deserialize)]
pub(super) struct Session {
    pub id: SessionId,
    pub jid: Jid,
    /// What the client calls itself, the same at each of its logins.
    pub client: Option<Box<str>>,
    /// The connection; `None` while the session waits to be resumed.
    pub pipe: Option<PipeId>,
    /// When a session without a pipe ends, Unix milliseconds.
    pub deadline: Option<u64>,
    pub sm: Option<Sm>,
    /// Current presence; `None` when unavailable.
    pub presence: Option<Stanza>,
    pub priority: i8,
    /// Whom directed presence was sent to and not taken back (RFC 6121 section 4.6).
    pub directed: Vec<Jid>,
    /// Asked for the roster, so it gets pushes (RFC 6121 section 2.1.6).
    pub interested: bool,
    /// The last inbound number taken.
    pub k: u64,
    unhandled: VecDeque<Unhandled>,
    told: u64,
    n: u64,
    unacked: VecDeque<Unacked>,
    unacked_bytes: usize,
    /// Number and log position of what the offline cursor waits for.
    dues: VecDeque<(u64, u64)>,
    /// Some of it was acknowledged.
    ended: bool,
    /// Wants copies of what the user's other sessions send and get (XEP-0280).
    pub carbons: bool,
    /// Whether somebody looks at the client, and what waits until then (XEP-0352).
    pub client_state: ClientState,
}

/// How many handled stanzas a pipe without stream management is told of at once.
const TOLD_EVERY: u64 = 16;

/// A resumption's acknowledgement that can't be true.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overacked;

impl Session {
    pub fn new(id: SessionId, jid: Jid, pipe: PipeId) -> Self {
        Self {
            id,
            jid,
            client: None,
            pipe: Some(pipe),
            deadline: None,
            sm: None,
            presence: None,
            priority: 0,
            directed: Vec::new(),
            interested: false,
            k: 0,
            unhandled: VecDeque::new(),
            told: 0,
            n: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            dues: VecDeque::new(),
            ended: false,
            carbons: false,
            client_state: ClientState::default(),
        }
    }

    pub fn resource(&self) -> &str {
        self.jid.resource().unwrap_or_default()
    }

    /// Available, and willing to get messages for the bare JID (RFC 6121 section 8.5.2).
    pub fn takes_messages(&self) -> bool {
        self.presence.is_some() && self.priority >= 0
    }

    /// Takes messages and has a connection: what waited may be read for it.
    pub fn reads_messages(&self) -> bool {
        self.pipe.is_some() && self.takes_messages()
    }

    /// Starts counting. What was sent before and is not known to be written stays until the
    /// client's first count, which proves it received. A broken session is kept for `limit`
    /// seconds at most.
    pub fn enable_sm(&mut self, enable: Enable, limit: u32) -> Enabled {
        let wanted = enable.max.filter(|max| *max > 0);
        let max = wanted.map_or(limit, |max| max.min(limit));
        self.sm = Some(Sm {
            resume: enable.resume && max > 0,
            max,
            base_k: self.k,
            base_n: self.n,
        });
        self.told = self.k;
        Enabled {
            id: self.resumable().then(|| self.id.text()),
            max,
            base: self.k,
        }
    }

    pub fn resumable(&self) -> bool {
        self.sm.as_ref().is_some_and(|sm| sm.resume)
    }

    /// When a session that loses its pipe now ends, Unix milliseconds.
    pub fn detached_until(&self, now: u64) -> u64 {
        let max = self.sm.as_ref().map_or(0, |sm| u64::from(sm.max));
        now.saturating_add(max * 1_000)
    }

    /// The number of the last stanza that the client acknowledged.
    fn acked(&self) -> u64 {
        self.unacked.front().map_or(self.n, |first| first.n - 1)
    }

    /// The lowest position in the log that the offline cursor waits for.
    pub fn first_due(&self) -> Option<u64> {
        self.dues.iter().map(|(_, position)| *position).min()
    }

    /// The positions in the log that the offline cursor waits for.
    pub fn dues(&self) -> impl Iterator<Item = u64> {
        self.dues.iter().map(|(_, position)| *position)
    }

    /// The positions of unacknowledged messages that the log does not oblige to deliver.
    pub fn not_due(&self) -> impl Iterator<Item = u64> {
        let unacked = self.unacked.iter().filter(|it| {
            it.stanza.kind == Kind::Message && it.keep.rescue && it.keep.carbon.is_none()
        });
        let archived = unacked.filter_map(|it| it.keep.archived);
        archived.filter(|it| !it.due).map(|it| it.position)
    }

    /// What was taken and is not handled counts as not taken: the client sends it again.
    pub fn forget_unhandled(&mut self) {
        self.k = self.handled();
        self.unhandled.clear();
    }

    /// Whether the offline cursor waits for that message.
    pub fn is_due(&self, position: u64) -> bool {
        self.dues.iter().any(|(_, due)| *due == position)
    }

    /// Whether something that the cursor waited for was acknowledged since this was asked.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// Whether a roster of more than so many bytes is on its way to the client.
    pub fn awaits_roster(&self, bytes: usize) -> bool {
        self.unacked.iter().any(|it| {
            let answer = it.stanza.kind == Kind::Iq && it.stanza.ty == Ty::Result;
            answer && it.stanza.size() > bytes && it.stanza.is_payload("query", ns::ROSTER)
        })
    }

    pub fn unacked_bytes(&self) -> usize {
        self.unacked_bytes
    }

    /// Whether the client leaves more unacknowledged than so many bytes. One stanza alone never is
    /// too much: what is given back would end the next session too, and every one after it.
    pub fn overflows(&self, bytes: usize) -> bool {
        self.unacked_bytes > bytes && self.unacked.len() > 1
    }

    /// A stanza waits. It has no number before it is sent.
    pub fn held(&mut self) {
        if crate::planted::number_before_hold() {
            self.n += 1;
        }
    }

    /// Numbers a stanza and gives it to the pipe, if there is one. It is kept until the client
    /// has acknowledged it or, without stream management, until the pipe has written it when it
    /// must not get lost.
    pub fn send(&mut self, stanza: Stanza, keep: Keep, out: &mut Effects) {
        self.n += 1;
        let n = self.n;
        let carbon = keep.carbon;
        if self.sm.is_some() || keep.rescue || keep.own {
            if let Some(archived) = keep.archived.filter(|archived| archived.due)
                && !crate::planted::cursor_before_ack()
            {
                self.dues.push_back((n, archived.position));
            }
            let stanza = Box::new(stanza.clone());
            let unacked = Unacked { n, keep, stanza };
            self.unacked_bytes += unacked.size();
            self.unacked.push_back(unacked);
        }
        if let Some(pipe) = self.pipe {
            let out_stanza = PipeOut::Stanza {
                n,
                stanza: Box::new(self.shown(stanza, carbon)),
            };
            out.push(Effect::Pipe {
                pipe,
                out: out_stanza,
            });
        }
    }

    /// What the client sees of a stanza.
    fn shown(&self, stanza: Stanza, carbon: Option<Carbon>) -> Stanza {
        match carbon {
            Some(carbon) => carbons::copy(carbon, &stanza, &self.jid),
            None => stanza,
        }
    }

    /// Forgets everything up to the client's counter `h`; what of it other sessions got too.
    pub fn ack(&mut self, h: u32) -> Result<Vec<Unacked>, Overacked> {
        let Some(base) = self.sm.as_ref().map(|sm| sm.base_n) else {
            return Err(Overacked);
        };
        let mut shared = self.written(base);
        let acked = self.acked();
        let counted = acked - base;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "XEP-0198 counts modulo 2^32"
        )]
        let step = h.wrapping_sub(counted as u32);
        let last = acked + u64::from(step);
        if last > self.n {
            return Err(Overacked);
        }
        shared.extend(self.written(last));
        Ok(shared)
    }

    /// Whether the client counts fewer than it has acknowledged before: what is between is not kept
    /// any more, so it can't have that again.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "XEP-0198 counts modulo 2^32"
    )]
    pub fn is_behind(&self, h: u32) -> bool {
        let base = self.sm.as_ref().map_or(0, |sm| sm.base_n);
        let counted = self.acked().saturating_sub(base) as u32;
        h.wrapping_sub(counted) > u32::MAX / 2
    }

    /// Forgets everything up to `n`; what of it other sessions got too.
    #[must_use]
    pub fn written(&mut self, n: u64) -> Vec<Unacked> {
        let mut shared = Vec::new();
        while self.unacked.front().is_some_and(|first| first.n <= n) {
            if let Some(gone) = self.unacked.pop_front() {
                self.unacked_bytes = self.unacked_bytes.saturating_sub(gone.size());
                shared.extend(Some(gone).filter(|gone| gone.keep.group.is_some()));
            }
        }
        while self.dues.front().is_some_and(|(number, _)| *number <= n) {
            self.dues.pop_front();
            self.ended = true;
        }
        shared
    }

    /// Another session that got it too has acknowledged a message: this one need not pass it on.
    pub fn need_not_pass_on(&mut self, message: &Unacked) {
        let last = self.unacked.iter_mut().rev();
        if let Some(unacked) = last.into_iter().find(|it| it.is_same(message)) {
            (unacked.keep.own, unacked.keep.rescue) = (true, false);
            unacked.keep.group = None;
        }
    }

    /// Sends everything unacknowledged once more, to a new pipe.
    pub fn repeat(&self, pipe: PipeId, out: &mut Effects) {
        for unacked in &self.unacked {
            let stanza = Stanza::clone(&unacked.stanza);
            let stanza = Box::new(self.shown(stanza, unacked.keep.carbon));
            let repeated = PipeOut::Stanza {
                n: unacked.n,
                stanza,
            };
            out.push(Effect::Pipe {
                pipe,
                out: repeated,
            });
        }
    }

    /// Takes what the client has not acknowledged; the session is about to end.
    pub fn take_unacked(&mut self) -> VecDeque<Unacked> {
        self.unacked_bytes = 0;
        std::mem::take(&mut self.unacked)
    }

    /// Takes inbound stanza `k`. `false` when it was taken before and must change nothing.
    pub fn take(&mut self, k: u64) -> bool {
        let fresh = k > self.k || crate::planted::skip_dedupe();
        self.k = self.k.max(k);
        fresh
    }

    /// Stanza `k` is handled only when `outstanding` more calls of [`Self::settle`] have come.
    pub fn hold(&mut self, k: u64, outstanding: u8) {
        if outstanding > 0 && !crate::planted::ack_before_durable() {
            self.unhandled.push_back(Unhandled { k, outstanding });
        }
    }

    /// One thing that `k` waited for is done.
    pub fn settle(&mut self, k: u64) {
        if let Ok(index) = self.unhandled.binary_search_by_key(&k, |entry| entry.k) {
            let entry = &mut self.unhandled[index];
            entry.outstanding = entry.outstanding.saturating_sub(1);
        }
        while self
            .unhandled
            .front()
            .is_some_and(|first| first.outstanding == 0)
        {
            self.unhandled.pop_front();
        }
    }

    pub fn unhandled(&self) -> usize {
        self.unhandled.len()
    }

    /// The longest prefix of inbound stanzas that are handled.
    pub fn handled(&self) -> u64 {
        self.unhandled.front().map_or(self.k, |first| first.k - 1)
    }

    /// Tells the pipe when the handled prefix grew: at once where the client may ask for it, else
    /// often enough that the pipe does not take the session for stalled.
    pub fn tell_handled(&mut self, out: &mut Effects) {
        let handled = self.handled();
        let step = if self.sm.is_some() { 1 } else { TOLD_EVERY };
        if handled < self.told + step {
            return;
        }
        self.told = handled;
        if let Some(pipe) = self.pipe {
            let out_handled = PipeOut::Handled { k: handled };
            out.push(Effect::Pipe {
                pipe,
                out: out_handled,
            });
        }
    }

    /// What a resumed stream counts on from: the handled prefix. What came before stream
    /// management is not counted, so the client does not repeat it, handled or not.
    pub fn resume_from(&self) -> u64 {
        let base = self.sm.as_ref().map_or(0, |sm| sm.base_k);
        self.handled().max(base)
    }

    /// Goes on at another pipe.
    pub fn attach(&mut self, pipe: PipeId) {
        self.pipe = Some(pipe);
        self.deadline = None;
        self.told = self.resume_from();
    }

    /// Remembers, or forgets, an address that directed presence went to.
    pub fn direct(&mut self, to: &Jid, available: bool, limit: usize) {
        let known = self.directed.iter().position(|jid| jid == to);
        match known {
            Some(index) if !available => {
                self.directed.swap_remove(index);
            }
            None if available && self.directed.len() < limit => self.directed.push(to.clone()),
            _ => {}
        }
    }
}
