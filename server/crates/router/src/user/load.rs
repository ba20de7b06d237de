//! Activation: reading what the entity needs before it can take its first event.
//!
//! The account comes first, so that a stranger's stanza to an account that does not exist costs
//! one read; then roster and archive tail at once.

use std::collections::VecDeque;

use cirrus_schema::keys::{accounts, rosters};
use cirrus_stanza::{Condition, StanzaError, StreamError};
use cirrus_store::{Direction, Item, Op, Outcome, SkRange, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use super::spool::Cursor;
use super::status::Status;
use crate::event::{Effect, Origin, PipeEvent, PipeId, PipeOut, Token};
use crate::home::{Body, Cx, Frame, Limits, Purpose};
use crate::log::{Cover, Ends, Hit, Limits as LogLimits, Log, Tail, TailReader};

/// Attributes of the account's row: it is being deleted, and the last archive position of an
/// earlier account of that name.
const DELETING: &str = "x";
const FLOOR: &str = "f";

/// An event that may have to wait for the load.
#[derive(Serialize, Deserialize)]
pub(super) enum Input {
    Pipe(PipeId, PipeEvent),
    Frame(Frame),
    Erase(Token),
    /// Sessions that were parked are due.
    Wake,
    Seal(Token),
}

/// Where an entity's life stands.
#[derive(Default, Serialize, Deserialize)]
pub(super) enum State {
    /// Nothing read, nothing waiting.
    #[default]
    New,
    Loading(Box<Loading>),
    Active,
    /// The account does not exist.
    Absent,
    Erasing(super::erase::Erasure),
}

/// A load under way.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Loading {
    waiting: VecDeque<Input>,
    /// Pages still to come.
    pages: usize,
    roster: Vec<Item>,
    cursor: Cursor,
    tail: Option<TailReader>,
    floor: u64,
    /// What the last session knew as the first message of the archive.
    first: Option<Hit>,
    failed: bool,
    /// The account is being deleted: it is there for its erasure only.
    deleting: bool,
}

impl State {
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Loading(_) | Self::Erasing(_))
    }

    pub fn is_erasing(&self) -> bool {
        matches!(self, Self::Erasing(_))
    }

    /// When an erasure has something to do, Unix milliseconds.
    pub fn due_at(&self) -> Option<u64> {
        match self {
            Self::Erasing(erasure) => erasure.due_at(),
            _ => None,
        }
    }

    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active)
    }

    pub fn take_waiting(&mut self) -> VecDeque<Input> {
        match self {
            Self::Loading(loading) => std::mem::take(&mut loading.waiting),
            _ => VecDeque::new(),
        }
    }
}

impl User {
    /// Gives the input back when the entity is ready for it; otherwise it waits, or is refused.
    pub(super) fn wait_for_load(&mut self, cx: &mut Cx<'_>, mut input: Input) -> Option<Input> {
        if let Input::Pipe(pipe, event) = &input {
            match event {
                PipeEvent::Bind { .. } | PipeEvent::Resume { .. } => {
                    cx.work.binding.insert(*pipe, self.jid.clone());
                }
                PipeEvent::Closed { .. } if !self.state.is_active() => {
                    self.forget_binding(cx, *pipe);
                    return None;
                }
                _ => {}
            }
        }
        match &mut self.state {
            State::Active => return Some(input),
            // An account on its way out is absent to everybody else.
            State::Absent if matches!(input, Input::Erase(_)) => {}
            State::Absent => {
                Self::refuse_input(cx, input, None);
                return None;
            }
            State::Erasing(_) => {
                self.input_while_erasing(cx, input);
                return None;
            }
            State::Loading(loading) => {
                let erases = matches!(input, Input::Erase(_));
                if loading.deleting && !erases {
                    Self::refuse_input(cx, input, None);
                } else if loading.waiting.len() >= cx.home.limits.entity_queue && !erases {
                    let error = Condition::ResourceConstraint.into();
                    Self::refuse_input(cx, input, Some(&error));
                } else {
                    loading.waiting.push_back(input);
                }
                return None;
            }
            State::New => {}
        }
        let known = match &mut input {
            Input::Pipe(_, PipeEvent::Bind { login, .. } | PipeEvent::Resume { login, .. })
                if !cx.work.erased.has(cx.now, &self.jid) =>
            {
                std::mem::take(&mut login.account)
            }
            _ => Vec::new(),
        };
        self.state = State::Loading(Box::new(Loading {
            waiting: [input].into(),
            ..Loading::default()
        }));
        if known.is_empty() {
            let pk = accounts::partition(&self.jid.owner());
            self.page(
                cx,
                Purpose::LoadAccount,
                cirrus_schema::TableId::Accounts,
                pk,
                None,
            );
        } else {
            self.load_account(cx, &known);
        }
        None
    }

    /// An account that is on its way out hears what its contacts' homes confirm, and nothing else.
    fn input_while_erasing(&mut self, cx: &mut Cx<'_>, input: Input) {
        match input {
            Input::Erase(token) => self.erase_too(token),
            Input::Frame(Frame {
                body: Body::Subscribed { contact, kind, .. },
                ..
            }) => self.erasure_told(cx, &contact, kind),
            input => Self::refuse_input(cx, input, None),
        }
    }

    fn forget_binding(&mut self, cx: &mut Cx<'_>, pipe: PipeId) {
        cx.work.binding.remove(&pipe);
        if let State::Loading(loading) = &mut self.state {
            loading
                .waiting
                .retain(|input| !matches!(input, Input::Pipe(p, _) if *p == pipe));
        }
    }

    fn page(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: Purpose,
        table: cirrus_schema::TableId,
        pk: Vec<u8>,
        after: Option<bytes::Bytes>,
    ) {
        if let State::Loading(loading) = &mut self.state {
            loading.pages += 1;
        }
        let range = SkRange::All;
        let direction = Direction::Forward;
        let op = Op::Query {
            table,
            pk: pk.into(),
            range,
            direction,
            limit: None,
            after,
        };
        self.begin(cx, purpose, op);
    }

    fn load_account(&mut self, cx: &mut Cx<'_>, rows: &[Item]) {
        let account = rows
            .iter()
            .find(|row| accounts::Row::parse(&row.key.sk) == Some(accounts::Row::Credentials));
        let Some(account) = account else {
            return self.absent_account(cx);
        };
        if account.attrs.get_n(DELETING).is_some_and(|mark| mark > 0) {
            let erases = |input: &Input| matches!(input, Input::Erase(_));
            let waiting = self.state.take_waiting();
            let (erase, others) = waiting.into_iter().partition::<VecDeque<_>, _>(erases);
            for input in others {
                Self::refuse_input(cx, input, None);
            }
            match &mut self.state {
                State::Loading(loading) if !erase.is_empty() => {
                    loading.waiting = erase;
                    loading.deleting = true;
                }
                _ => return self.absent_account(cx),
            }
        }
        let floor = account.attrs.get_n(FLOOR).unwrap_or(0);
        self.archive.load(rows, floor);
        let last = rows
            .iter()
            .find(|row| accounts::Row::parse(&row.key.sk) == Some(accounts::Row::Last));
        if !last.is_none_or(Status::knows) {
            // Writing it would lose what is in it: nobody is served until the version that wrote it
            // is back.
            tracing::error!(user = %self.jid, "the row of last activity has an unknown format");
            if let State::Loading(loading) = &mut self.state {
                // An account that is deleted has nothing to lose.
                loading.failed |= !loading.deleting;
            }
        }
        let mut cursor = last.map_or_else(Cursor::default, |row| self.status.load(row));
        cursor.position = cursor.position.max(floor);
        let deleting = matches!(&self.state, State::Loading(loading) if loading.deleting);
        if deleting {
            self.forget_parked(cx);
        }
        let claimed = self.claim_parked(cx);
        if let State::Loading(loading) = &mut self.state
            && !loading.deleting
        {
            loading.pages += claimed;
            let tail = TailReader::new(&self.jid, floor);
            let op = tail.op();
            loading.cursor = cursor;
            loading.floor = floor;
            loading.first = last.and_then(Status::first_message);
            loading.tail = Some(tail);
            loading.pages += 1;
            self.begin(cx, Purpose::LoadTail, op);
        }
        let pk = rosters::partition(&self.jid.owner());
        self.page(
            cx,
            Purpose::LoadRoster,
            cirrus_schema::TableId::Rosters,
            pk,
            None,
        );
    }

    fn absent_account(&mut self, cx: &mut Cx<'_>) {
        self.forget_parked(cx);
        self.fail_waiting(cx, None);
        self.state = State::Absent;
    }

    /// A page of the load arrived.
    pub(super) fn on_load(
        &mut self,
        cx: &mut Cx<'_>,
        purpose: &Purpose,
        result: Result<Outcome, StoreError>,
    ) {
        let State::Loading(loading) = &mut self.state else {
            return;
        };
        loading.pages = loading.pages.saturating_sub(1);
        match (purpose, result) {
            (Purpose::LoadAccount, Ok(Outcome::Page { items, .. })) => {
                return self.load_account(cx, &items);
            }
            (Purpose::LoadRoster, Ok(Outcome::Page { items, next })) => {
                loading.roster.extend(items);
                if let Some(next) = next {
                    let pk = rosters::partition(&self.jid.owner());
                    let table = cirrus_schema::TableId::Rosters;
                    self.page(cx, Purpose::LoadRoster, table, pk, Some(next));
                }
            }
            (Purpose::Unpark, Ok(_)) => {}
            (Purpose::LoadTail, Ok(Outcome::Page { items, next })) => {
                match loading.tail.as_mut().map(|tail| tail.on_page(&items, next)) {
                    Some(Ok(Some(tail))) => self.take_tail(cx, tail),
                    Some(Ok(None)) => {
                        loading.pages += 1;
                        if let Some(op) = loading.tail.as_ref().map(TailReader::op) {
                            self.begin(cx, Purpose::LoadTail, op);
                        }
                    }
                    other => {
                        if let Some(Err(error)) = other {
                            tracing::error!(user = %self.jid, %error, "an archive can't be read");
                        }
                        loading.failed = true;
                    }
                }
            }
            _ => loading.failed = true,
        }
        self.finish_load(cx);
    }

    fn take_tail(&mut self, cx: &mut Cx<'_>, tail: Tail) {
        for (session, k) in &tail.origins {
            self.origins.seed(
                Origin {
                    session: *session,
                    k: *k,
                },
                cx.now,
            );
        }
        let kept = cx.home.limits.kept_since(cx.now);
        let State::Loading(loading) = &mut self.state else {
            return;
        };
        let cursor = std::mem::take(&mut loading.cursor);
        let tail = tail.not_before(cursor.position);
        let ends = Ends::of(&tail, loading.floor, loading.first, kept);
        self.spool.load(cursor, &tail, cx.now);
        let limits = log_limits(&cx.home.limits);
        let log = Log::new(&self.jid, limits, tail.next, tail.last_t, cx.rng.u128());
        let log = log.with_ends(ends);
        self.log = match tail.expires {
            Some(expires) => log.covered(Cover::day(expires, cx.home.limits.day_ms)),
            None => log,
        };
        self.seals.load(tail.next, &cx.home.limits);
    }

    fn finish_load(&mut self, cx: &mut Cx<'_>) {
        let State::Loading(loading) = &mut self.state else {
            return;
        };
        if loading.pages > 0 {
            return;
        }
        let roster = std::mem::take(&mut loading.roster);
        let failed = loading.failed;
        let roster = if failed {
            None
        } else {
            self.read_roster(cx, &roster).ok()
        };
        let Some(roster) = roster else {
            let text = "the account's data could not be read; try again later";
            let error = StanzaError::new(Condition::InternalServerError, text)
                .with_type(cirrus_stanza::ErrorType::Wait);
            self.fail_waiting(cx, Some(&error));
            self.state = State::New;
            return;
        };
        self.roster = roster;
        let State::Loading(loading) = std::mem::replace(&mut self.state, State::Active) else {
            return;
        };
        self.idle_since = cx.now;
        self.drive_unsent(cx);
        self.take_back(cx);
        for input in loading.waiting {
            self.input(cx, input);
        }
    }

    /// The account's log is due to be sealed.
    pub(crate) fn seal(&mut self, cx: &mut Cx<'_>, token: Token) {
        if let Some(input) = self.wait_for_load(cx, Input::Seal(token)) {
            self.input(cx, input);
        }
    }

    /// The account is gone: end its sessions and remove what it owns.
    pub(crate) fn erase(&mut self, cx: &mut Cx<'_>, token: Token) {
        if let Some(input) = self.wait_for_load(cx, Input::Erase(token)) {
            self.input(cx, input);
        }
    }

    /// Refuses what waits for the load; without an error because there is no such account.
    pub(super) fn fail_waiting(&mut self, cx: &mut Cx<'_>, error: Option<&StanzaError>) {
        for input in self.state.take_waiting() {
            Self::refuse_input(cx, input, error);
        }
    }

    pub(super) fn refuse_input(cx: &mut Cx<'_>, input: Input, error: Option<&StanzaError>) {
        if error.is_none() && Self::nothing_to_erase(cx, &input) {
            return;
        }
        match input {
            Input::Pipe(pipe, PipeEvent::Bind { .. } | PipeEvent::Resume { .. }) => {
                cx.work.binding.remove(&pipe);
                let error = Some(StreamError::InternalServerError);
                cx.pipe(pipe, PipeOut::Close { error });
            }
            Input::Pipe(..) | Input::Wake => {}
            Input::Frame(frame) => match error {
                Some(error) => frame.refuse(error.clone(), &mut cx.work.frames),
                None => frame.nobody(Self::absent(), &mut cx.work.frames),
            },
            Input::Erase(token) | Input::Seal(token) => {
                let error = error.map_or("no such account", |error| error.condition.as_str());
                let result = Err(error.to_owned());
                cx.out.push(Effect::Erased { token, result });
            }
        }
    }
}

/// The bounds of an account's log.
pub(super) fn log_limits(limits: &Limits) -> LogLimits {
    LogLimits {
        deadline_ms: limits.store_deadline_ms,
        day_ms: limits.day_ms,
        ..LogLimits::default()
    }
}
