//! The user entity: sessions, roster, presence and the archive log of one account.

mod archive;
mod bind;
mod carbons;
mod csi;
mod ends;
mod erase;
mod exchange;
mod iq;
mod load;
mod message;
mod origins;
mod park;
mod pass;
mod presence;
mod retract;
mod seal;
mod session;
mod spool;
mod status;
mod storage;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use cirrus_jid::BareJid;
use cirrus_stanza::{Condition, Kind, Stanza, StanzaError, StreamError, Ty};
use cirrus_store::{BlobOp, Op, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use crate::codec::Since;
use crate::event::{Origin, PipeEvent, PipeId, SessionId};
use crate::home::{Body, Cx, Frame, Limits, Purpose};
use crate::log::{Log, LogEffect, Record, Ticket};
use crate::roster::Roster;
use crate::segment::Retraction;

use archive::Archive;
use ends::Looks;
use load::{Input, State, log_limits};
use origins::Origins;
pub(crate) use park::Lot;
pub use park::parked_owner;
use retract::Retractions;
use seal::Seals;
use session::{Keep, Session};
use spool::{Owed, Spool};
use status::Status;
use storage::{Storage, storage};

/// A stanza on its way to this user's sessions, in the order of arrival.
#[derive(Serialize, Deserialize)]
struct Inflow {
    stanza: Stanza,
    origin: Option<Origin>,
    /// What the log still owes.
    ticket: Option<Ticket>,
    /// What the log answered.
    landed: Option<Result<u64, StanzaError>>,
    /// It is worth keeping when nobody can take it.
    kept: bool,
    /// It can't be given to a session: its record is flagged for offline delivery.
    offline: bool,
    /// It is appended when everything before it has landed.
    parked: bool,
    /// Its record belongs to the archive, so it is delivered with its id there.
    archived: bool,
}

impl Inflow {
    /// A stanza that waits for nothing but those before it.
    fn passing(stanza: Stanza) -> Self {
        Self {
            stanza,
            origin: None,
            ticket: None,
            landed: None,
            kept: false,
            offline: false,
            parked: false,
            archived: false,
        }
    }
}

/// What waits for a record to be durable.
#[derive(Serialize, Deserialize)]
enum Waiting {
    /// The sender's own copy.
    Out {
        session: SessionId,
        k: u64,
        stanza: Box<Stanza>,
    },
    /// A queued delivery.
    In,
    /// A message that no session could take.
    Spooled {
        stanza: Box<Stanza>,
        origin: Option<Origin>,
        marker: bool,
        /// Its record belongs to the archive.
        archived: bool,
    },
    /// A record that refers to what an ended session left.
    Owed(Vec<Owed>),
}

/// One account's entity.
#[derive(Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) jid: BareJid,
    pub(crate) timer: Option<u64>,
    state: State,
    roster: Roster,
    log: Log,
    status: Status,
    sessions: Vec<Session>,
    inflow: VecDeque<Inflow>,
    #[serde(serialize_with = "crate::codec::sorted")]
    tickets: HashMap<Ticket, Waiting>,
    origins: Origins,
    /// Entries of `inflow` that are parked.
    parked: usize,
    spool: Spool,
    /// Messages that must be delivered again and that the log must be told of.
    owed: Vec<Owed>,
    /// Sessions whose unacknowledged log is over its bound.
    overflowing: Vec<SessionId>,
    /// The log is of no more use until it is loaded again.
    broken: bool,
    roster_waits: subscription::Waits,
    archive: Archive,
    looks: Looks,
    seals: Seals,
    retractions: Since<10, Retractions>,
    operations: usize,
    idle_since: u64,
    /// From the configuration, wherever the entity is.
    #[serde(skip)]
    idle_ms: u64,
}

impl User {
    pub(crate) fn new(jid: BareJid, limits: &Limits) -> Self {
        Self {
            timer: None,
            state: State::default(),
            roster: Roster::new(&jid, roster_limits(limits)),
            log: Log::new(&jid, log_limits(limits), 1, 0, 0),
            status: Status::default(),
            sessions: Vec::new(),
            inflow: VecDeque::new(),
            tickets: HashMap::new(),
            origins: Origins::default(),
            parked: 0,
            spool: Spool::default(),
            owed: Vec::new(),
            overflowing: Vec::new(),
            broken: false,
            roster_waits: subscription::Waits::default(),
            archive: Archive::default(),
            looks: Looks::default(),
            seals: Seals::default(),
            retractions: Since::default(),
            operations: 0,
            idle_since: 0,
            idle_ms: limits.entity_idle_ms,
            jid,
        }
    }

    /// Gives an entity that was read from a snapshot its bounds, which are not in one.
    pub(crate) fn set_limits(&mut self, limits: &Limits) {
        self.roster.set_limits(roster_limits(limits));
        self.log.set_limits(log_limits(limits));
        self.idle_ms = limits.entity_idle_ms;
        if crate::planted::forget_origins() {
            self.origins = Origins::default();
        }
    }

    pub(crate) fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// A pipe speaks.
    pub(crate) fn on_pipe(&mut self, cx: &mut Cx<'_>, pipe: PipeId, event: PipeEvent) {
        if let Some(input) = self.wait_for_load(cx, Input::Pipe(pipe, event)) {
            self.input(cx, input);
        }
    }

    /// Another entity speaks.
    pub(crate) fn on_frame(&mut self, cx: &mut Cx<'_>, frame: Frame) {
        if let Some(input) = self.wait_for_load(cx, Input::Frame(frame)) {
            self.input(cx, input);
        }
    }

    fn input(&mut self, cx: &mut Cx<'_>, input: Input) {
        match input {
            Input::Pipe(pipe, event) => self.pipe_event(cx, pipe, event),
            Input::Frame(frame) => self.frame(cx, frame),
            Input::Erase(token) => self.erase_loaded(cx, token),
            // What it was woken for has come with the load.
            Input::Wake => {}
            Input::Seal(token) => self.seal_loaded(token),
        }
    }

    fn pipe_event(&mut self, cx: &mut Cx<'_>, pipe: PipeId, event: PipeEvent) {
        match event {
            PipeEvent::Bind {
                resource, login, ..
            } => {
                return self.bind(cx, pipe, resource.as_deref(), &login);
            }
            PipeEvent::Resume { previd, h, .. } => return self.resume(cx, pipe, &previd, h),
            _ => {}
        }
        let Some(index) = self.session_at(cx, pipe) else {
            return;
        };
        match event {
            PipeEvent::Stanza { k, stanza } => self.take_stanza(cx, index, k, *stanza),
            PipeEvent::Refused { k, reply } => {
                if self.sessions[index].take(k)
                    && let Some(mut reply) = reply
                {
                    reply.to = Some(self.sessions[index].jid.clone());
                    self.give(cx, index, *reply, Keep::default());
                }
            }
            PipeEvent::Ack { h } => self.client_ack(cx, index, h),
            PipeEvent::Written { n } => {
                if self.sessions[index].sm.is_none() {
                    let shared = self.sessions[index].written(n);
                    self.acknowledged(cx, index, &shared);
                }
            }
            PipeEvent::EnableSm { resume, max } => self.enable_sm(cx, index, resume, max),
            PipeEvent::ClientState { active } => self.set_active(cx, index, active),
            PipeEvent::Closed { clean } => self.closed(cx, index, clean),
            PipeEvent::Bind { .. } | PipeEvent::Resume { .. } => {}
        }
    }

    /// A stanza from one of this user's sessions.
    fn take_stanza(&mut self, cx: &mut Cx<'_>, index: usize, k: u64, mut stanza: Stanza) {
        let session = &mut self.sessions[index];
        if !session.take(k) {
            return;
        }
        if session.unhandled() >= cx.home.limits.max_unhandled {
            return self.end_session(cx, index, Some(StreamError::ResourceConstraint));
        }
        stanza.from = Some(session.jid.clone());
        match stanza.kind {
            Kind::Message => {
                if stanza.to.is_none() {
                    stanza.to = Some(self.jid.clone().into());
                }
                self.send_message(cx, index, k, stanza);
            }
            Kind::Presence => self.send_presence(cx, index, k, stanza),
            Kind::Iq => self.send_iq(cx, index, k, stanza),
        }
    }

    fn frame(&mut self, cx: &mut Cx<'_>, frame: Frame) {
        match frame.body {
            Body::Confirm { origin } => {
                if let Some(index) = self.session_of(origin.session) {
                    self.sessions[index].settle(origin.k);
                }
            }
            Body::Refused { origin, error } => {
                if let Some(index) = self.session_of(origin.session) {
                    self.give(cx, index, *error, Keep::default());
                    self.sessions[index].settle(origin.k);
                }
            }
            Body::Subscribed {
                contact,
                kind,
                number,
            } => self.subscription_sent(cx, contact, kind, number),
            Body::Subscription { stanza, number, .. } => {
                self.receive_subscription(cx, *stanza, Some(number));
            }
            Body::Stanza { stanza, origin } => match (stanza.kind, stanza.ty) {
                (Kind::Message, _) => self.receive_message(cx, *stanza, origin),
                (Kind::Presence, _) => self.receive_presence(cx, *stanza),
                (Kind::Iq, Ty::Get | Ty::Set)
                    if stanza.to.as_ref().is_some_and(cirrus_jid::Jid::is_bare) =>
                {
                    self.answer(cx, &stanza);
                }
                (Kind::Iq, _) => self.queue(cx, *stanza),
            },
        }
    }

    /// Delivers a stanza that is not archived, behind those that wait for the archive.
    fn queue(&mut self, cx: &mut Cx<'_>, stanza: Stanza) {
        self.inflow.push_back(Inflow::passing(stanza));
        self.advance(cx);
    }

    /// The store answered one of this entity's operations.
    pub(crate) fn on_store(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        result: Result<Outcome, StoreError>,
    ) {
        self.operations = self.operations.saturating_sub(1);
        match purpose {
            Purpose::LoadRoster if self.roster_waits.is_reloading() => {
                self.on_roster_page(cx, result);
            }
            Purpose::LoadAccount | Purpose::LoadRoster | Purpose::LoadTail | Purpose::Unpark => {
                self.on_load(cx, &purpose, result);
            }
            Purpose::Log(token) => {
                let mut effects = Vec::new();
                self.log.on_result(cx.now, token, result, &mut effects);
                self.log_effects(cx, effects);
            }
            Purpose::Roster(planned) => self.on_roster_written(cx, *planned, result),
            Purpose::Spool { pass } => self.on_spool_page(cx, pass, result),
            Purpose::Status => self.on_status_written(cx, result),
            Purpose::Archive { session, job } => self.on_archive_page(cx, session, job, result),
            Purpose::Settings => self.on_prefs_written(cx, result),
            Purpose::Erase => self.on_erased(cx, result),
            Purpose::Park { session } => self.on_parked(cx, session, result),
            Purpose::Index { number } => self.on_index(cx, number, result),
            Purpose::Seal { number } => self.on_seal_store(cx, number, result),
            Purpose::Ends { number } => self.on_ends_page(cx, number, result),
            Purpose::Retract { number } => self.on_retract_store(cx, number.0, result),
            Purpose::SpoolSegment { .. } | Purpose::Cleanup | Purpose::Account { .. } => {}
        }
    }

    /// An account change that a session asked for is done or refused.
    pub(crate) fn on_account(
        &mut self,
        cx: &mut Cx<'_>,
        _session: SessionId,
        request: Stanza,
        result: Result<(), StanzaError>,
    ) {
        let reply = match result {
            Ok(()) => request.reply(),
            Err(error) => request.error(&error),
        };
        cx.route(reply, None);
    }

    fn begin(&mut self, cx: &mut Cx<'_>, purpose: Purpose, op: Op) {
        self.operations += 1;
        cx.store(&self.jid, purpose, op);
    }

    fn begin_blob(&mut self, cx: &mut Cx<'_>, purpose: Purpose, op: BlobOp) {
        self.operations += 1;
        cx.blob(&self.jid, purpose, op);
    }

    fn append(&mut self, cx: &mut Cx<'_>, record: Record) -> Option<Ticket> {
        let mut effects = Vec::new();
        let wanted = cx.work.format.has(retract::RETRACTIONS);
        let retraction = wanted.then(|| Retraction::of(&record)).flatten();
        let ticket = self.log.append(cx.now, record, &mut effects).ok()?;
        self.retractions.0.landing(ticket, retraction);
        self.log_effects(cx, effects);
        Some(ticket)
    }

    fn log_effects(&mut self, cx: &mut Cx<'_>, effects: Vec<LogEffect>) {
        for effect in effects {
            match effect {
                LogEffect::Store { token, op } => self.begin(cx, Purpose::Log(token), op),
                LogEffect::Durable {
                    ticket, position, ..
                } => {
                    let limit = cx.home.limits.tombstones;
                    self.retractions.0.landed(ticket, Some(position), limit);
                    self.ticket_done(cx, ticket, Ok(position));
                }
                LogEffect::Failed { ticket, .. } => {
                    self.retractions.0.landed(ticket, None, 0);
                    self.ticket_done(cx, ticket, Err(message::unknown()));
                }
                LogEffect::Learned { position, record }
                | LogEffect::LandedLate {
                    position, record, ..
                } => {
                    self.learned(cx, position, &record);
                }
                LogEffect::Broken { .. } => self.broken = true,
            }
        }
    }

    fn ticket_done(&mut self, cx: &mut Cx<'_>, ticket: Ticket, outcome: Result<u64, StanzaError>) {
        match self.tickets.remove(&ticket) {
            Some(Waiting::Out { session, k, stanza }) => {
                match outcome {
                    Ok(position) => {
                        let stanza = self.identified(cx, &stanza, position);
                        self.copy_sent(cx, session, &stanza);
                    }
                    Err(error) => self.error_to(cx, session, &stanza, &error),
                }
                self.out_landed(session, k);
            }
            Some(Waiting::In) => self.landed(cx, ticket, outcome),
            Some(Waiting::Owed(owed)) => self.owed_landed(cx, owed, outcome.is_ok()),
            Some(Waiting::Spooled {
                stanza,
                origin,
                marker,
                archived,
            }) => {
                let stanza = match outcome {
                    Ok(position) if archived => self.identified(cx, &stanza, position),
                    _ => *stanza,
                };
                self.spooled_landed(cx, stanza, origin, marker, outcome);
            }
            None => {}
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, cx: &mut Cx<'_>) {
        let mut effects = Vec::new();
        self.log.tick(cx.now, &mut effects);
        self.log_effects(cx, effects);
        self.retry_pass(cx);
        self.retry_unsent(cx);
        self.retry_reload(cx);
        self.retry_erasure(cx);
        let now = cx.now;
        let due = |session: &Session| session.deadline.is_some_and(|at| at <= now);
        while let Some(index) = self.sessions.iter().position(due) {
            self.end_session(cx, index, None);
        }
    }

    /// After every event: what several steps may have made due.
    pub(crate) fn settle(&mut self, cx: &mut Cx<'_>) {
        while let Some(id) = self.overflowing.pop() {
            if let Some(index) = self.session_of(id) {
                self.end_session(cx, index, Some(StreamError::PolicyViolation));
            }
        }
        if self.broken {
            self.start_over(cx);
        }
        if cx.work.parked.has(&self.jid) {
            self.take_back(cx);
        }
        self.append_owed(cx);
        self.drive_pass(cx);
        self.write_status(cx);
        self.go_on_erasing(cx);
        self.drive_seal(cx);
        self.drive_queries(cx);
        self.drive_retractions(cx);
        self.trim_index(cx);
        for session in &mut self.sessions {
            session.tell_handled(cx.out);
        }
    }

    /// The log can't go on: everything is read again with the next event.
    fn start_over(&mut self, cx: &mut Cx<'_>) {
        self.broken = false;
        if self.state.is_erasing() {
            return self.end_erasure(cx, Err("the archive can't be written".into()));
        }
        for ticket in self.waiting_tickets() {
            self.ticket_done(cx, ticket, Err(message::unknown()));
        }
        while let Some(index) = self.sessions.len().checked_sub(1) {
            self.end_session(cx, index, Some(StreamError::InternalServerError));
        }
        // What waits again is in the archive, but nothing refers to it.
        for owed in std::mem::take(&mut self.owed) {
            if let Some((sender, origin)) = owed.confirm {
                cx.confirm(Some(&sender), Some(origin));
            }
        }
        self.drop_seals(cx, "the archive can't be written");
        self.drop_looks();
        self.drop_retractions();
        self.state = State::New;
    }

    /// Tickets of the log that somebody waits for, in their order.
    fn waiting_tickets(&self) -> Vec<Ticket> {
        let mut tickets: Vec<_> = self.tickets.keys().copied().collect();
        tickets.sort_unstable();
        tickets
    }

    /// When this entity next has something to do, Unix milliseconds.
    pub(crate) fn deadline(&self, _now: u64) -> Option<u64> {
        let sessions = self
            .sessions
            .iter()
            .filter_map(|session| session.deadline)
            .min();
        let idle = self.is_idle().then(|| self.idle_since + self.idle_ms());
        let retries = [
            self.pass_retry_at(),
            self.status_due(),
            self.roster_waits.drive_at(),
            self.roster_waits.reload_at(),
            self.state.due_at(),
            self.seals.due_at(),
            self.retractions.0.due_at(),
        ];
        let retry = retries.into_iter().flatten().min();
        [sessions, self.log.wake_at(), retry, idle]
            .into_iter()
            .flatten()
            .min()
    }

    fn idle_ms(&self) -> u64 {
        if self.state.is_active() {
            self.idle_ms
        } else {
            0
        }
    }

    fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.is_settled() && self.roster_waits.drive_at().is_none()
    }

    /// Nothing is under way that must not be interrupted.
    pub(crate) fn is_settled(&self) -> bool {
        self.operations == 0
            && self.inflow.is_empty()
            && self.tickets.is_empty()
            && self.owed.is_empty()
            && self.archive.is_idle()
            && self.seals.is_idle()
            && self.retractions.0.is_idle()
            && !self.status_is_owed()
            && self.log.is_idle()
            && self.roster_waits.is_idle()
            && !self.state.is_waiting()
    }

    /// Nothing is left that another activation could not read again.
    pub(crate) fn is_gone(&self, now: u64) -> bool {
        self.is_idle() && now >= self.idle_since.saturating_add(self.idle_ms())
    }

    /// Leaves memory with the next event, if it is idle.
    pub(crate) fn hurry(&mut self) {
        self.idle_since = 0;
    }

    /// An account that does not exist answers like this (RFC 6121 section 8.5.1).
    fn absent() -> StanzaError {
        Condition::ServiceUnavailable.into()
    }
}

fn roster_limits(limits: &Limits) -> crate::roster::Limits {
    crate::roster::Limits {
        items: limits.roster_items,
        bytes: limits.roster_bytes,
        groups: limits.roster_groups,
        requests: limits.pending_subscriptions,
        ..crate::roster::Limits::default()
    }
}
