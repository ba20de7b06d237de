//! Sessions that outlive their process. When a node that is alone stops, those that can be resumed
//! are put into the store; the next node to start gives them to the homes of their accounts, where
//! they wait in memory, unread, until something is said to the account or their time is up.
//!
//! A row is removed before its session goes on: what a later process would find there would be out
//! of date.

use std::collections::BTreeMap;

use cirrus_jid::BareJid;
use cirrus_schema::keys::cluster;
use cirrus_store::limits::MAX_ITEM;
use cirrus_store::{Attrs, Condition, Item, Key, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use super::load::Input;
use super::session::Session;
use super::spool::Owed;
use crate::codec;
use crate::event::{PipeOut, SessionId};
use crate::home::{Cx, Purpose};

/// Format of a row: `v` this number, `t` when it was written (Unix milliseconds), `s` the session
/// as [`codec`] has it, `m` positions of messages, eight bytes each, that its client had not
/// acknowledged and nothing in the log obliges to deliver: another version may not read `s`.
const FORMAT: u64 = 1;
/// How long a row is kept, seconds: as long as messages are kept where they are read first.
const KEPT_S: u64 = 35 * 24 * 60 * 60;
/// A session that waited longer than this for a process is at its end, milliseconds; what its
/// client never got goes another way.
const FRESH_MS: u64 = 24 * 60 * 60 * 1_000;
/// What else a row holds, at most, in bytes: keys, names, numbers.
const OVERHEAD: usize = 16 * 1_024;

/// Sessions that no process has had since they were parked.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Lot(BTreeMap<BareJid, Vec<Waiting>>);

#[derive(Serialize, Deserialize)]
struct Waiting {
    id: SessionId,
    /// When it ends, Unix milliseconds.
    until: u64,
    what: What,
    /// Its row is being removed.
    claimed: bool,
}

#[derive(Serialize, Deserialize)]
enum What {
    Session(Box<Session>),
    /// What is left of one that can't go on.
    Messages(Vec<u64>),
}

impl Lot {
    /// Whether some of this account's are there.
    pub fn has(&self, jid: &BareJid) -> bool {
        // Nothing is parked most of the time, and this is asked with every event.
        !self.0.is_empty() && self.0.contains_key(jid)
    }

    /// When the first session of each account ends.
    pub fn deadlines(&self) -> impl Iterator<Item = (u64, &BareJid)> {
        let first = |all: &Vec<Waiting>| all.iter().map(|it| it.until).min();
        self.0
            .iter()
            .filter_map(move |(jid, all)| Some((first(all)?, jid)))
    }

    /// Takes a row in; when its session ends. `None` when it makes no sense here, or is there.
    pub fn add(&mut self, now: u64, jid: &BareJid, row: &Item) -> Option<u64> {
        let waiting = read(now, jid, row)?;
        let until = waiting.until;
        let all = self.0.entry(jid.compact()).or_default();
        if all.iter().any(|it| it.id == waiting.id) {
            return None;
        }
        all.push(waiting);
        Some(until)
    }

    /// The account is no more.
    fn forget(&mut self, jid: &BareJid) -> Vec<SessionId> {
        let gone = self.0.remove(jid).unwrap_or_default();
        gone.iter().map(|it| it.id).collect()
    }
}

fn read(now: u64, jid: &BareJid, row: &Item) -> Option<Waiting> {
    let (_, id) = cluster::parked_parts(&row.key.sk)?;
    let id = SessionId(u128::from_be_bytes(*id));
    if row.attrs.get_n("v") != Some(FORMAT) {
        tracing::warn!(user = %jid, "a parked session of a newer version is left where it is");
        return None;
    }
    let state = row.attrs.get_b("s").map_or(&[][..], |bytes| bytes);
    let session = match codec::decode::<Session>("a parked session", state) {
        Ok(session) if session.id == id && session.jid.bare() == *jid => Some(session),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(user = %jid, %error, "a session is at its end");
            None
        }
    };
    let parked = row.attrs.get_n("t").unwrap_or(0);
    let fresh = now.saturating_sub(parked) < FRESH_MS;
    let until = session.as_ref().filter(|_| fresh);
    let until = until.map_or(now, |session| session.detached_until(now));
    let what = match session {
        Some(mut session) => {
            session.pipe = None;
            session.deadline = Some(until);
            What::Session(Box::new(session))
        }
        None => {
            let positions = row.attrs.get_b("m");
            let positions = positions.map_or(&[][..], |bytes| bytes.as_chunks::<8>().0);
            What::Messages(positions.iter().map(|p| u64::from_be_bytes(*p)).collect())
        }
    };
    Some(Waiting {
        id,
        until,
        what,
        claimed: false,
    })
}

/// Where a session is parked.
fn row_key(jid: &BareJid, id: SessionId) -> Key {
    cluster::parked(&jid.owner(), &id.0.to_be_bytes()).into()
}

impl User {
    /// The process is about to stop: a session that can be resumed loses its connection.
    pub(super) fn detach(&mut self, cx: &mut Cx<'_>, index: usize) {
        let session = &mut self.sessions[index];
        if let Some(pipe) = session.pipe.take() {
            cx.work.pipes.remove(&pipe);
            session.deadline = Some(session.detached_until(cx.now));
            // Without a word: an error would tell the client that its session is lost.
            cx.pipe(pipe, PipeOut::Close { error: None });
        }
    }

    /// Puts every session that waits to be resumed into the store. Comes when nothing is under way
    /// any more.
    pub(crate) fn park(&mut self, cx: &mut Cx<'_>) {
        self.refuse_queries(cx);
        let mut large = Vec::new();
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            if session.pipe.is_some() || !session.resumable() {
                continue;
            }
            session.forget_unhandled();
            let id = session.id;
            // The next process may be of the version before.
            let state = codec::encode(cx.work.format.newest(), session);
            let small = |state: &Vec<u8>| state.len() + OVERHEAD <= MAX_ITEM;
            let Some(state) = state.ok().filter(small) else {
                large.push(id);
                continue;
            };
            let mut attrs = Attrs::new()
                .with("v", FORMAT)
                .with("t", cx.now)
                .with("s", state);
            let left: Vec<u8> = session.not_due().flat_map(u64::to_be_bytes).collect();
            attrs.set_opt("m", (!left.is_empty()).then_some(left));
            let item = Item::new(row_key(&self.jid, id), attrs);
            let op = Op::Put {
                item: item.expiring(cx.now / 1_000 + KEPT_S),
                condition: Condition::Any,
                nonce: cx.rng.u128(),
            };
            self.begin(cx, Purpose::Park { session: id }, op);
        }
        for id in large {
            self.end_unparked(cx, id);
        }
    }

    /// A session is in the store, or can't be put there.
    pub(super) fn on_parked(
        &mut self,
        cx: &mut Cx<'_>,
        id: SessionId,
        result: Result<Outcome, StoreError>,
    ) {
        match (result, self.session_of(id)) {
            // Not at its end: nobody is told anything.
            (Ok(_), Some(index)) if cx.stopping => drop(self.sessions.remove(index)),
            // It may have been written all the same.
            (Err(_), _) if cx.stopping => {
                self.remove_row(cx, id);
                self.end_unparked(cx, id);
            }
            // Its time was up, or another node has taken over and it goes on there.
            _ => self.remove_row(cx, id),
        }
    }

    fn end_unparked(&mut self, cx: &mut Cx<'_>, id: SessionId) {
        if let Some(index) = self.session_of(id) {
            self.end_session(cx, index, None);
        }
    }

    /// The time of a session that was parked is up: it is at its end as any other.
    pub(crate) fn wake(&mut self, cx: &mut Cx<'_>) {
        if let Some(input) = self.wait_for_load(cx, Input::Wake) {
            self.input(cx, input);
        }
    }

    /// Removes the rows of sessions that are about to go on here. How many operations that takes.
    pub(super) fn claim_parked(&mut self, cx: &mut Cx<'_>) -> usize {
        let mut claimed = Vec::new();
        for waiting in cx.work.parked.0.get_mut(&self.jid).into_iter().flatten() {
            waiting.claimed = true;
            claimed.push(waiting.id);
        }
        for id in &claimed {
            let op = Op::Delete {
                key: row_key(&self.jid, *id),
                condition: Condition::Any,
            };
            self.begin(cx, Purpose::Unpark, op);
        }
        claimed.len()
    }

    /// Sessions that were parked go on: they wait to be resumed.
    pub(super) fn take_back(&mut self, cx: &mut Cx<'_>) {
        if !self.state.is_active() {
            return;
        }
        for waiting in cx.work.parked.0.remove(&self.jid).unwrap_or_default() {
            if !waiting.claimed {
                self.remove_row(cx, waiting.id);
            }
            match waiting.what {
                What::Session(session) if self.session_of(session.id).is_some() => {}
                What::Session(mut session) => {
                    self.spool.given_before(session.dues());
                    let resource = session.resource();
                    if !self.sessions.iter().any(|it| it.resource() == resource) {
                        self.sessions.push(*session);
                        continue;
                    }
                    // Its client has logged in anew.
                    for unacked in session.take_unacked() {
                        self.rescue(cx, unacked);
                    }
                }
                What::Messages(positions) => {
                    for position in positions {
                        let (due, confirm) = (false, None);
                        self.owe(Owed {
                            position,
                            due,
                            confirm,
                        });
                    }
                }
            }
        }
    }

    /// The account is no more, and with it what was parked of it.
    pub(super) fn forget_parked(&mut self, cx: &mut Cx<'_>) {
        for id in cx.work.parked.forget(&self.jid) {
            self.remove_row(cx, id);
        }
    }

    fn remove_row(&mut self, cx: &mut Cx<'_>, id: SessionId) {
        let op = Op::Delete {
            key: row_key(&self.jid, id),
            condition: Condition::Any,
        };
        self.begin(cx, Purpose::Cleanup, op);
    }
}

/// The account whose session is in that row.
pub fn parked_owner(key: &Key) -> Option<BareJid> {
    let (owner, _) = cluster::parked_parts(&key.sk)?;
    BareJid::from_owner(owner)
}
