//! A pass: the messages that wait in the log, given to one session in the order of the log.
//!
//! It reads page by page and gives no more than the session has room for. What arrives meanwhile
//! waits behind it, at hand in memory unless it is too much; then another pass follows. A pass
//! ends early when its session can't go on, and leaves everything that it has not given to the
//! next one.

use std::collections::VecDeque;

use cirrus_jid::BareJid;
use cirrus_stanza::{Stanza, delay};
use cirrus_store::{BlobOutcome, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use super::session::{Archived, Keep};
use crate::event::SessionId;
use crate::home::{Cx, Purpose};
use crate::log::{SpoolReader, Spooled, Step};

/// How long a pass that the store refused rests, milliseconds; it doubles each time.
const RETRY_MS: u64 = 250;
const LAST_RETRY_MS: u64 = 8_000;
/// Messages that wait in memory for the end of a pass; further ones are read from the log.
const ASIDE: usize = 256;

/// A pass under way.
#[derive(Serialize, Deserialize)]
pub(super) struct Pass {
    /// Tells its pages from those of one before.
    number: u64,
    session: SessionId,
    reader: SpoolReader,
    /// The last position that the reader covers.
    last: u64,
    /// A page was asked for, or is not yet due to be asked for again.
    asked: bool,
    /// A segment was missing, and the index is read again.
    missed: bool,
    retry_at: Option<u64>,
    pause: u64,
    /// Read and not given.
    batch: VecDeque<Spooled>,
    /// A batch was read; when none of it is left, everything so far is given.
    gave: bool,
    /// What arrived since, in order; with its place in the log, or not kept there.
    aside: VecDeque<(Stanza, Option<Archived>)>,
    /// More arrived than `aside` holds: it stands in the log behind that.
    more: bool,
}

impl Pass {
    pub fn is_for(&self, session: SessionId) -> bool {
        self.session == session
    }

    /// An obligation landed: its stanza is kept, unless one before it could not be.
    pub fn keep(&mut self, stanza: Option<(Stanza, Archived)>) {
        match stanza {
            Some((stanza, archived)) if !self.more && self.aside.len() < ASIDE => {
                self.aside.push_back((stanza, Some(archived)));
            }
            _ => self.more = true,
        }
    }

    /// A stanza that is not in the log takes its place; it comes back where there is no room.
    pub fn keep_passing(&mut self, stanza: Stanza) -> Option<Stanza> {
        if self.aside.len() >= ASIDE {
            return Some(stanza);
        }
        self.aside.push_back((stanza, None));
        None
    }
}

impl User {
    /// Ends a pass whose session can't go on, and starts one when something waits and somebody is
    /// there to get it.
    pub(super) fn drive_pass(&mut self, cx: &mut Cx<'_>) {
        if let Some(pass) = &self.spool.pass {
            let index = self.session_of(pass.session);
            if index.is_some_and(|index| self.sessions[index].reads_messages()) {
                return;
            }
            self.abandon_pass(cx);
        }
        while self.spool.behind && self.spool.pass.is_none() {
            let reads = self.sessions.iter().find(|s| s.reads_messages());
            let Some(session) = reads.map(|session| session.id) else {
                return;
            };
            self.start_pass(cx, session);
        }
    }

    fn start_pass(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let end = self.log.next();
        let reader = SpoolReader::new(&self.jid, self.spool.read, end);
        let reader = reader.with_page_items(cx.home.limits.spool_page);
        self.spool.behind = false;
        self.spool.passes += 1;
        self.spool.pass = Some(Pass {
            number: self.spool.passes,
            session,
            reader,
            last: end.saturating_sub(1),
            asked: false,
            missed: false,
            retry_at: None,
            pause: RETRY_MS,
            batch: VecDeque::new(),
            gave: false,
            aside: VecDeque::new(),
            more: false,
        });
        self.step_pass(cx);
    }

    /// Gives what was read as far as there is room, and reads on.
    pub(super) fn step_pass(&mut self, cx: &mut Cx<'_>) {
        while let Some(pass) = &mut self.spool.pass {
            if let Some(next) = pass.batch.pop_front() {
                let index = self.session_of_pass();
                let room = index.filter(|index| self.has_room(cx, *index, &next));
                match (room, &mut self.spool.pass) {
                    (Some(index), _) => self.give_spooled(cx, index, next),
                    (None, Some(pass)) => return pass.batch.push_front(next),
                    (None, None) => return,
                }
                continue;
            }
            if std::mem::take(&mut pass.gave) {
                let read_to = pass.reader.read_to();
                self.spool.given_to(read_to);
                continue;
            }
            if pass.asked {
                return;
            }
            match pass.reader.step(self.seals.index()) {
                Step::Index => {
                    // It goes on when the index is read, or that is due again.
                    self.want_index(cx);
                    return;
                }
                Step::Fetch(op) => {
                    pass.asked = true;
                    let pass = pass.number;
                    return self.begin_blob(cx, Purpose::SpoolSegment { pass }, op);
                }
                Step::Ask(op) => {
                    pass.asked = true;
                    let pass = pass.number;
                    return self.begin(cx, Purpose::Spool { pass }, op);
                }
                Step::Batch(batch) => {
                    pass.gave = true;
                    pass.batch.extend(batch);
                }
                Step::Done => return self.finish_pass(cx),
            }
        }
    }

    fn session_of_pass(&self) -> Option<usize> {
        let session = self.spool.pass.as_ref()?.session;
        self.session_of(session)
    }

    /// A pass fills half of what a session may leave unacknowledged and then waits.
    fn has_room(&self, cx: &Cx<'_>, index: usize, next: &Spooled) -> bool {
        let unacked = self.sessions[index].unacked_bytes();
        unacked == 0 || unacked + next.message.stanza.len() <= cx.home.limits.unacked_bytes / 2
    }

    fn give_spooled(&mut self, cx: &mut Cx<'_>, index: usize, mut spooled: Spooled) {
        let position = spooled.position;
        if !self.spool.give(position, cx.now) {
            return;
        }
        if spooled.message.flags.archive {
            spooled.message.stanza = self.as_left(position, &spooled.message.stanza);
        }
        if let Some(mut stanza) = revive(&spooled, &self.jid) {
            if spooled.message.flags.archive {
                stanza = self.identified(cx, &stanza, position);
            }
            let archived = Some(Archived {
                position,
                due: true,
            });
            let keep = Keep {
                archived,
                rescue: true,
                ..Keep::default()
            };
            self.give(cx, index, stanza, keep);
        }
    }

    /// A page of the log arrived.
    pub(super) fn on_spool_page(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<Outcome, StoreError>,
    ) {
        let pass = self.spool.pass.as_mut();
        let Some(pass) = pass.filter(|pass| pass.number == number) else {
            return; // Of a pass that was given up.
        };
        let read = match result {
            Ok(Outcome::Page { items, next }) => pass.reader.on_page(&items, next).is_ok(),
            _ => false,
        };
        if read {
            pass.asked = false;
            pass.pause = RETRY_MS;
            self.step_pass(cx);
        } else {
            // The pass holds its place, so that nothing overtakes what it has not read.
            pass.retry_at = Some(cx.now.saturating_add(pass.pause));
            pass.pause = (pass.pause * 2).min(LAST_RETRY_MS);
        }
    }

    /// A segment arrived. One that is missing or damaged can't hold up everything behind it.
    pub(super) fn on_spool_segment(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<BlobOutcome, StoreError>,
    ) {
        let pass = self.spool.pass.as_mut();
        let Some(pass) = pass.filter(|pass| pass.number == number) else {
            return; // Of a pass that was given up.
        };
        let read = match result {
            Ok(BlobOutcome::Body(Some(object))) => pass.reader.on_segment(object).is_ok(),
            Ok(BlobOutcome::Body(None)) if !pass.missed => {
                // The index may be out of date; once.
                pass.missed = true;
                pass.asked = false;
                pass.reader.ask_again();
                self.seals.doubt_index();
                return self.step_pass(cx);
            }
            Ok(_) => false,
            Err(_) => {
                pass.retry_at = Some(cx.now.saturating_add(pass.pause));
                pass.pause = (pass.pause * 2).min(LAST_RETRY_MS);
                return;
            }
        };
        if !read {
            cx.work.tally.unreadable += 1;
            pass.reader.skip_segment();
        }
        pass.asked = false;
        pass.pause = RETRY_MS;
        self.step_pass(cx);
    }

    /// The index was read, or could not be.
    pub(super) fn index_for_pass(&mut self, cx: &mut Cx<'_>) {
        let known = self.seals.index().is_some();
        let Some(pass) = &mut self.spool.pass else {
            return;
        };
        if known && !pass.asked {
            self.step_pass(cx);
        } else if !known && !pass.asked {
            pass.asked = true;
            pass.retry_at = Some(cx.now.saturating_add(pass.pause));
            pass.pause = (pass.pause * 2).min(LAST_RETRY_MS);
        }
    }

    /// When a page that the store refused is due again, Unix milliseconds.
    pub(super) fn pass_retry_at(&self) -> Option<u64> {
        self.spool.pass.as_ref()?.retry_at
    }

    /// Asks the store again for a page that it refused, if that is due.
    pub(super) fn retry_pass(&mut self, cx: &mut Cx<'_>) {
        if let Some(pass) = &mut self.spool.pass
            && pass.retry_at.take_if(|at| *at <= cx.now).is_some()
        {
            pass.asked = false;
            self.step_pass(cx);
        }
    }

    /// Everything was read and given: what arrived meanwhile goes to whom it is for.
    fn finish_pass(&mut self, cx: &mut Cx<'_>) {
        let Some(pass) = self.spool.pass.take() else {
            return;
        };
        self.spool.given_to(pass.last);
        self.spool.behind = pass.more;
        for (stanza, archived) in pass.aside {
            if let Some(archived) = archived {
                self.spool.count = self.spool.count.saturating_sub(1);
                self.spool.read = self.spool.read.max(archived.position);
            }
            self.give_out(cx, stanza, archived);
        }
        self.caught_up(cx.now);
    }

    /// The session can't go on. What was given is its own; the rest is read again.
    pub(super) fn abandon_pass(&mut self, cx: &mut Cx<'_>) {
        let Some(pass) = self.spool.pass.take() else {
            return;
        };
        self.spool.behind = true;
        for (stanza, archived) in pass.aside {
            if archived.is_none() {
                self.hold_passing(cx, stanza);
            }
        }
    }
}

/// The stanza of a record, with the time it was taken (XEP-0203).
fn revive(spooled: &Spooled, owner: &BareJid) -> Option<Stanza> {
    let stanza = Stanza::from_stored(&spooled.message.stanza)?;
    Some(stanza.with_child(&delay(owner.host(), spooled.t)))
}
