//! A user's sessions ask for its archive (XEP-0313) and say what is to be archived (XEP-0441).
//!
//! A session has one query at work; further ones wait, up to a bound. A query begins when the log
//! has answered for everything that was accepted before it, so that a client finds what it has just
//! said. Results fill half of what a session may leave unacknowledged and then wait for the client,
//! as offline delivery does: a slow reader holds nothing but its own query.

use std::collections::{BTreeMap, VecDeque};

use cirrus_schema::keys::accounts::{self, Row};
use cirrus_stanza::{Condition, ErrorType, Kind, Stanza, StanzaError, Ty, delay, ns};
use cirrus_store::{Attrs, BlobOutcome, Condition as If, Item, Op, Outcome, StoreError};
use cirrus_xml::Writer;
use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::User;
use super::retract::RETRACTIONS;
use super::session::Keep;
use crate::archive::{self, Bounds, Filter, Found, Ids, Page, Prefs, Request, Search, Step};
use crate::event::SessionId;
use crate::home::{Cx, Purpose};
use crate::log::Ticket;

/// How often a change of preferences is tried that another node keeps getting ahead of.
const TRIES: u32 = 4;

/// What belongs to the archive, beside the log.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Archive {
    pub prefs: Prefs,
    /// The row `p` as it is in the store.
    row: Option<Item>,
    /// Changes of the preferences in their order; the first one is being written.
    changes: VecDeque<Change>,
    /// The last position of an erased account of that name.
    floor: u64,
    /// The sessions that ask, with their queries in order.
    jobs: BTreeMap<SessionId, VecDeque<Job>>,
    last_job: u64,
}

/// A change of the preferences.
#[derive(Serialize, Deserialize)]
struct Change {
    request: Box<Stanza>,
    prefs: Prefs,
    tries: u32,
}

/// A query, from its request to its answer.
#[derive(Serialize, Deserialize)]
struct Job {
    number: u64,
    request: Box<Stanza>,
    kind: What,
    filter: Filter,
    page: Page,
    /// It begins when the log has answered for this ticket and those before.
    since: Ticket,
    search: Option<Search>,
    /// The store was asked.
    asked: bool,
    /// A segment was missing, and the index is read again.
    missed: bool,
}

impl Job {
    /// It asks how many there are in all: that is known without a look at them.
    fn only_counts(&self) -> bool {
        self.page.max == 0 && self.filter.is_open() && self.page.ids.is_none()
    }

    /// It asks the store.
    fn asks(&mut self, session: SessionId) -> Purpose {
        self.asked = true;
        let job = self.number;
        Purpose::Archive { session, job }
    }
}

/// What a query wants.
#[derive(Serialize, Deserialize)]
enum What {
    Messages {
        query_id: Option<Box<str>>,
    },
    /// The first message and the last one.
    Metadata,
}

impl Archive {
    /// At activation: what the account's rows say.
    pub fn load(&mut self, rows: &[Item], floor: u64) {
        self.floor = floor;
        let row = |item: &&Item| Row::parse(&item.key.sk) == Some(Row::Settings);
        self.take_row(rows.iter().find(row).cloned());
    }

    fn take_row(&mut self, row: Option<Item>) {
        let read = row.as_ref().map(|row| Prefs::read(&row.attrs));
        // What a newer version wrote and this one can't read must not archive anything.
        self.prefs = match read {
            None => Prefs::default(),
            Some(Ok(prefs)) => prefs,
            Some(Err(_)) => Prefs::nothing(),
        };
        self.row = row;
    }

    /// The last position of an erased account of that name.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// The query that asked the store, now that it is answered.
    fn asked(&mut self, session: SessionId, number: u64) -> Option<&mut Job> {
        let job = self.jobs.get_mut(&session)?.front_mut()?;
        if job.number != number {
            return None;
        }
        job.asked = false;
        Some(job)
    }

    /// Somebody's query is at work.
    pub fn has_queries(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Nothing of it is under way.
    pub fn is_idle(&self) -> bool {
        self.changes.is_empty()
    }
}

impl User {
    /// A request of a session to its own archive. `false`: it is none.
    pub(super) fn archive_iq(&mut self, cx: &mut Cx<'_>, index: usize, stanza: &Stanza) -> bool {
        if !cx.home.archive || stanza.payload.as_ref().is_none_or(|(_, ns)| ns != ns::MAM) {
            return false;
        }
        let is = |ty, name| stanza.ty == ty && stanza.is_payload(name, ns::MAM);
        let done = if is(Ty::Set, "query") {
            self.query(cx, index, stanza)
        } else if is(Ty::Get, "metadata") {
            let (kind, page) = (What::Metadata, Page::end(false));
            self.push_job(cx, index, stanza, kind, Filter::default(), page)
        } else if is(Ty::Get, "prefs") {
            let prefs = self.archive.prefs.to_xml();
            self.give(cx, index, stanza.reply().content(prefs), Keep::default());
            Ok(())
        } else if is(Ty::Set, "prefs") {
            self.change_prefs(cx, stanza)
        } else {
            return false;
        };
        if let Err(error) = done {
            self.give(cx, index, stanza.error(&error), Keep::default());
        }
        true
    }

    fn query(&mut self, cx: &mut Cx<'_>, index: usize, stanza: &Stanza) -> Result<(), StanzaError> {
        let owner = self.jid.owner();
        let ids = Ids::new(&cx.home.archive_key, &owner);
        let limit = cx.home.limits.archive_page;
        let request = Request::parse(stanza, &self.jid, &ids, limit)?;
        let query_id = request.query_id;
        let kind = What::Messages { query_id };
        self.push_job(cx, index, stanza, kind, request.filter, request.page)
    }

    fn push_job(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        stanza: &Stanza,
        kind: What,
        filter: Filter,
        page: Page,
    ) -> Result<(), StanzaError> {
        let jobs = self
            .archive
            .jobs
            .entry(self.sessions[index].id)
            .or_default();
        if jobs.len() > cx.home.limits.archive_queries {
            let text = "too many queries of this session wait; try again later";
            return Err(StanzaError::new(Condition::ResourceConstraint, text));
        }
        self.archive.last_job += 1;
        jobs.push_back(Job {
            number: self.archive.last_job,
            request: Box::new(stanza.head()),
            kind,
            filter,
            page,
            since: self.log.last_ticket(),
            search: None,
            asked: false,
            missed: false,
        });
        // It waits for what the log has accepted, and a receipt in it for the next write.
        if !self.tickets.is_empty() {
            let mut effects = Vec::new();
            self.log.flush(cx.now, &mut effects);
            self.log_effects(cx, effects);
        }
        Ok(())
    }

    /// Goes on with every session's query as far as that is possible now.
    pub(super) fn drive_queries(&mut self, cx: &mut Cx<'_>) {
        if self.archive.jobs.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.archive.jobs);
        for (id, jobs) in &mut all {
            while let (Some(index), Some(job)) = (self.session_of(*id), jobs.front_mut()) {
                if !self.drive_query(cx, index, job) {
                    break;
                }
                jobs.pop_front();
            }
        }
        all.retain(|id, jobs| !jobs.is_empty() && self.session_of(*id).is_some());
        self.archive.jobs = all;
    }

    /// Goes on with a query. `true`: it is answered.
    fn drive_query(&mut self, cx: &mut Cx<'_>, index: usize, job: &mut Job) -> bool {
        if job.asked || job.search.is_none() && self.awaits(job.since) {
            return false;
        }
        let query_id = match &job.kind {
            What::Messages { query_id } => query_id.clone(),
            What::Metadata => {
                let Some(ends) = self.find_ends(cx) else {
                    return false;
                };
                let reply = job.request.reply().content(self.metadata(cx, ends));
                self.give(cx, index, reply, Keep::default());
                return true;
            }
        };
        let counts = job.only_counts();
        if !counts && !self.want_index(cx) {
            return false;
        }
        let bounds = Bounds {
            floor: self.archive.floor(),
            next: self.log.next(),
            bytes: cx.home.limits.archive_page_bytes,
        };
        job.filter.kept = cx.home.limits.kept_since(cx.now);
        loop {
            let search = job.search.get_or_insert_with(|| {
                Search::new(&self.jid, job.filter.clone(), job.page.clone(), bounds)
            });
            let index_known = self.seals.index().filter(|_| !counts);
            let step = index_known.map_or(Step::Done, |known| search.step(known));
            let reply = match step {
                Step::Ask(op) => {
                    let purpose = job.asks(self.sessions[index].id);
                    self.begin(cx, purpose, op);
                    return false;
                }
                Step::Fetch(op) => {
                    let purpose = job.asks(self.sessions[index].id);
                    self.begin_blob(cx, purpose, op);
                    return false;
                }
                Step::Give => {
                    let Some(found) = search.front() else {
                        return false;
                    };
                    let result = self.result(cx, index, query_id.as_deref(), &found);
                    if !self.has_room_for(cx, index, result.size()) {
                        return false;
                    }
                    search.pop();
                    let keep = Keep {
                        own: true,
                        ..Keep::default()
                    };
                    self.give(cx, index, result, keep);
                    continue;
                }
                Step::Missing => job.request.error(&archive::not_found()),
                Step::Done => {
                    let content = self.fin(cx, job);
                    job.request.reply().content(content)
                }
            };
            self.give(cx, index, reply, Keep::default());
            return true;
        }
    }

    /// The queries of sessions whose process stops have no answer.
    pub(super) fn refuse_queries(&mut self, cx: &mut Cx<'_>) {
        for (id, jobs) in std::mem::take(&mut self.archive.jobs) {
            for job in jobs {
                if let Some(index) = self.session_of(id) {
                    self.give(cx, index, job.request.error(&unreadable()), Keep::default());
                }
            }
        }
    }

    /// Whether the log owes an answer about this record or one before it.
    fn awaits(&self, ticket: Ticket) -> bool {
        self.tickets.keys().any(|waiting| *waiting <= ticket)
    }

    /// What a session may leave unacknowledged is filled to its half with results.
    fn has_room_for(&self, cx: &Cx<'_>, index: usize, bytes: usize) -> bool {
        let unacked = self.sessions[index].unacked_bytes();
        unacked == 0 || unacked + bytes <= cx.home.limits.unacked_bytes / 2
    }

    /// A message of a page (XEP-0313 section 4.2).
    fn result(&self, cx: &Cx<'_>, index: usize, query_id: Option<&str>, found: &Found) -> Stanza {
        let owner = self.jid.owner();
        let id = Ids::new(&cx.home.archive_key, &owner).encode(found.hit.position);
        let mut w = Writer::with_capacity(found.stanza.len() + 512);
        w.start("result")
            .attr("xmlns", ns::MAM)
            .attr_opt("queryid", query_id)
            .attr("id", &id);
        w.start("forwarded").attr("xmlns", ns::FORWARD);
        w.raw(&delay(self.jid.host(), found.hit.t));
        let mark = stanza_id(self.jid.as_str(), &id);
        let stanza = self.as_left(found.hit.position, &found.stanza);
        w.raw(&embedded(&stanza, &mark).unwrap_or_default());
        w.end().end();
        Stanza::new(Kind::Message, Ty::Normal)
            .from(self.jid.clone())
            .to(self.sessions[index].jid.clone())
            .content(w.into_bytes())
    }

    /// What ends an answer. How many messages there are in all is said where nothing is filtered:
    /// exactly if the page has them all, else as an estimate, which XEP-0059 allows: all positions
    /// of the log, a few more than are archived.
    fn fin(&self, cx: &Cx<'_>, job: &Job) -> Vec<u8> {
        let owner = self.jid.owner();
        let ids = Ids::new(&cx.home.archive_key, &owner);
        let open = job.filter.is_open() && job.page.ids.is_none();
        let gone = self.seals.index().map(|it| it.gone_to(job.filter.kept));
        let before = self.archive.floor.max(gone.unwrap_or(0));
        let all = self.log.last_position().saturating_sub(before);
        let search = job.search.as_ref();
        let ends = search.and_then(Search::ends);
        let ends = ends.map(|(first, last)| (first.position, last.position));
        let complete = search.is_some_and(Search::is_complete);
        let count = search.and_then(Search::count).unwrap_or(all);
        archive::fin(&ids, ends, complete, open.then_some(count))
    }

    /// A page of the log arrived for a query.
    pub(super) fn on_archive_page(
        &mut self,
        cx: &mut Cx<'_>,
        session: SessionId,
        number: u64,
        result: Result<Outcome, StoreError>,
    ) {
        let Some(job) = self.archive.asked(session, number) else {
            return; // The session has ended.
        };
        let read = match (result, &mut job.search) {
            (Ok(Outcome::Page { items, next }), Some(search)) => {
                search.on_page(&items, next).is_ok()
            }
            _ => false,
        };
        // The query goes on when this event settles.
        if !read {
            self.fail_query(cx, session);
        }
    }

    /// A segment arrived for a query.
    pub(super) fn on_archive_segment(
        &mut self,
        cx: &mut Cx<'_>,
        session: SessionId,
        number: u64,
        result: Result<BlobOutcome, StoreError>,
    ) {
        let Some(job) = self.archive.asked(session, number) else {
            return;
        };
        let read = match (result, &mut job.search) {
            (Ok(BlobOutcome::Body(Some(object))), Some(search)) => {
                let read = search.on_segment(object).is_ok();
                cx.work.tally.unreadable += u64::from(!read);
                job.missed &= !read;
                read || search.do_without()
            }
            // The index may be out of date; once.
            (Ok(BlobOutcome::Body(None)), _) if !job.missed => {
                job.missed = true;
                self.seals.doubt_index();
                true
            }
            (Ok(_), search) => {
                cx.work.tally.unreadable += 1;
                search.as_mut().is_some_and(Search::do_without)
            }
            (Err(_), _) => false,
        };
        if !read {
            self.fail_query(cx, session);
        }
    }

    /// Refuses a session's query that the store has no answer for.
    fn fail_query(&mut self, cx: &mut Cx<'_>, session: SessionId) {
        let jobs = self.archive.jobs.get_mut(&session);
        let Some(job) = jobs.and_then(VecDeque::pop_front) else {
            return;
        };
        if let Some(index) = self.session_of(session) {
            let error = job.request.error(&unreadable());
            self.give(cx, index, error, Keep::default());
        }
    }

    /// The index can't be read: refuses the queries that wait for it.
    pub(super) fn fail_queries(&mut self, cx: &mut Cx<'_>) {
        let waits = |job: &Job| !job.asked;
        let jobs = self.archive.jobs.iter();
        let waiting = jobs.filter(|(_, jobs)| jobs.front().is_some_and(waits));
        for session in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail_query(cx, session);
        }
    }

    /// The ends of the archive can't be looked up: refuses who asks for them.
    pub(super) fn fail_metadata(&mut self, cx: &mut Cx<'_>) {
        let asks = |job: &Job| matches!(job.kind, What::Metadata);
        let jobs = self.archive.jobs.iter();
        let asking = jobs.filter(|(_, jobs)| jobs.front().is_some_and(asks));
        for session in asking.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail_query(cx, session);
        }
    }

    fn change_prefs(&mut self, cx: &mut Cx<'_>, stanza: &Stanza) -> Result<(), StanzaError> {
        let limits = &cx.home.limits;
        let text = "a change has one child, <prefs/>";
        let element = stanza.child("prefs", ns::MAM);
        let element = element.ok_or_else(|| StanzaError::new(Condition::BadRequest, text))?;
        let prefs = Prefs::parse(&element, limits.archive_prefs)?;
        if self.archive.changes.len() > limits.archive_queries {
            let text = "too many changes wait for the store; try again later";
            return Err(StanzaError::new(Condition::ResourceConstraint, text));
        }
        self.archive.changes.push_back(Change {
            request: Box::new(stanza.head()),
            prefs,
            tries: 0,
        });
        if self.archive.changes.len() == 1 {
            self.write_prefs(cx);
        }
        Ok(())
    }

    /// Writes the first change.
    fn write_prefs(&mut self, cx: &mut Cx<'_>) {
        let Some(item) = self.changed_row() else {
            return;
        };
        let op = Op::Put {
            condition: match item.version {
                1 => If::Absent,
                version => If::Version(version - 1),
            },
            item,
            nonce: cx.rng.u128(),
        };
        self.begin(cx, Purpose::Settings, op);
    }

    /// The row with the first change: what others keep there stays.
    fn changed_row(&self) -> Option<Item> {
        let change = self.archive.changes.front()?;
        let mut item = self.archive.row.clone().unwrap_or_else(|| {
            let key = accounts::key(&self.jid.owner(), Row::Settings);
            Item::new(key, Attrs::new())
        });
        item.version += 1;
        change.prefs.write(&mut item.attrs);
        Some(item)
    }

    /// A change of the preferences is written, or not.
    pub(super) fn on_prefs_written(
        &mut self,
        cx: &mut Cx<'_>,
        result: Result<Outcome, StoreError>,
    ) {
        let written = self.changed_row();
        let Some(mut change) = self.archive.changes.pop_front() else {
            return;
        };
        let reply = match result {
            Ok(_) => {
                self.archive.take_row(written);
                change.request.reply().content(change.prefs.to_xml())
            }
            Err(StoreError::Conflict { existing, .. }) if change.tries < TRIES => {
                self.archive.take_row(existing.map(|item| *item));
                change.tries += 1;
                self.archive.changes.push_front(change);
                return self.write_prefs(cx);
            }
            Err(_) => change.request.error(&unreadable()),
        };
        cx.route(reply, None);
        self.write_prefs(cx);
    }

    /// Whether messages with that address belong to this archive.
    pub(super) fn archives(&self, cx: &Cx<'_>, peer: Option<&cirrus_jid::Jid>) -> bool {
        let in_roster = |jid: &cirrus_jid::BareJid| self.roster.contact(jid).is_some();
        cx.home.archive && peer.is_none_or(|peer| self.archive.prefs.allow(peer, in_roster))
    }

    /// The stanza with its id in this archive (XEP-0359).
    pub(super) fn identified(&self, cx: &Cx<'_>, stanza: &Stanza, position: u64) -> Stanza {
        let owner = self.jid.owner();
        let id = Ids::new(&cx.home.archive_key, &owner).encode(position);
        stanza.with_child(&stanza_id(self.jid.as_str(), &id))
    }

    /// The stanza without what only archives may say: ids that only this account's server may give
    /// (XEP-0359 section 4, rules 3 and 4), and that it was retracted (XEP-0424 section 5), but for
    /// rooms, which have archives of their own.
    pub(super) fn without_forgeries(&self, cx: &Cx<'_>, stanza: Stanza) -> Stanza {
        // No other spelling is possible: names have no references.
        let named = |name| memmem::find(stanza.inner(), name).is_some();
        if !named(b"stanza-id") && !named(b"retracted") {
            return stanza;
        }
        let passes = stanza.ty == Ty::Groupchat || !cx.work.format.has(RETRACTIONS);
        let genuine = stanza.without(|child| {
            let by = child
                .attr("by")
                .and_then(|by| cirrus_jid::Jid::parse(&by).ok());
            let own = by.is_none_or(|by| by.bare() == self.jid);
            child.is("stanza-id", ns::SID) && own || child.is("retracted", ns::RETRACT) && !passes
        });
        genuine.unwrap_or(stanza)
    }
}

/// The `<stanza-id/>` of XEP-0359 section 3.1.
fn stanza_id(by: &str, id: &str) -> Vec<u8> {
    let mut w = Writer::with_capacity(128);
    w.start("stanza-id")
        .attr("xmlns", ns::SID)
        .attr("by", by)
        .attr("id", id);
    w.end();
    w.into_bytes()
}

/// A stored stanza as a child of another element, with a further child. Its bytes are those of
/// [`Stanza::write`], whose root has neither a prefix nor a declaration of the default namespace.
fn embedded(stored: &[u8], child: &[u8]) -> Option<Vec<u8>> {
    let rest = stored.strip_prefix(b"<message")?;
    let mut out = Vec::with_capacity(stored.len() + child.len() + 64);
    out.extend_from_slice(b"<message xmlns='");
    out.extend_from_slice(ns::CLIENT.as_bytes());
    out.push(b'\'');
    match rest.strip_suffix(b"</message>") {
        Some(rest) => out.extend_from_slice(rest),
        None => {
            out.extend_from_slice(rest.strip_suffix(b"/>")?);
            out.push(b'>');
        }
    }
    out.extend_from_slice(child);
    out.extend_from_slice(b"</message>");
    Some(out)
}

fn unreadable() -> StanzaError {
    let text = "the archive can't be read or changed now; try again later";
    StanzaError::new(Condition::InternalServerError, text).with_type(ErrorType::Wait)
}
