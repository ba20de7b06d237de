//! The simulated world: what happens, in the order of simulated time.

use std::collections::BTreeMap;

use cirrus_jid::BareJid;
use cirrus_router::registry::About;
use cirrus_router::{
    Effect, Effects, Event, Home, HomeConfig, Limits, Login, PipeEvent, PipeId, PipeOut, Registry,
    Token,
};
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_stanza::{Kind, Stanza, Ty, ns};
use cirrus_store::{Attrs, Condition, Item, Op, Outcome, StoreError};

use crate::check::{History, Message, Violation, index_of};
use crate::client::{Client, Phase, Unacked};
use crate::rng::Rng;
use crate::store::{Fate, Store, throttled, timeout};

/// What a run did and showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// Clients that took part.
    pub clients: usize,
    /// What clients did: stanzas, binds, resumes, breaks.
    pub operations: usize,
    /// Messages sent.
    pub messages: usize,
    /// Messages acknowledged to their senders.
    pub accepted: usize,
    /// Kills and orderly restarts.
    pub restarts: usize,
    /// Operations that the store refused, lost or answered too late.
    pub faults: u64,
    /// Successful resumes.
    pub resumes: usize,
    /// What must not be.
    pub violations: Vec<Violation>,
}

/// Something on its way.
enum Happening {
    Act(usize),
    Up(PipeId, Up),
    Down(PipeId, PipeOut),
    Answer {
        life: u64,
        token: Token,
        op: Box<Op>,
        fate: Answer,
    },
    Stray(Box<Op>),
    Gone(PipeId),
    Written(PipeId, u64),
    Kill,
    Stop,
    Start,
    Tick,
}

enum Answer {
    Do,
    Done(Result<Outcome, StoreError>),
}

/// From a client to the server.
#[derive(Debug)]
enum Up {
    Bind,
    Resume { previd: String, h: u32 },
    Enable,
    Ack { h: u32 },
    Stanza(String),
    Close,
}

/// A connection.
struct Pipe {
    client: usize,
    open: bool,
    /// The server's count of inbound stanzas.
    k: u64,
    base: u64,
    up_at: u64,
    down_at: u64,
    session: u64,
}

struct World {
    rng: Rng,
    now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    home: Option<Home>,
    life: u64,
    store: Store,
    users: Vec<BareJid>,
    clients: Vec<Client>,
    pipes: BTreeMap<PipeId, Pipe>,
    last_pipe: PipeId,
    sessions: u64,
    history: History,
    report: Report,
    /// Operations that clients may still do.
    budget: usize,
    ticking: Option<u64>,
    tell: Option<fn(String)>,
}

const START: u64 = 1_700_000_000_000;
const RESUME_SECONDS: u32 = 20;

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    run_with(seed, None)
}

/// Runs one seed and tells what happens, line by line.
pub fn trace(seed: u64, tell: fn(String)) -> Report {
    run_with(seed, Some(tell))
}

fn run_with(seed: u64, tell: Option<fn(String)>) -> Report {
    let mut world = World::new(seed);
    world.tell = tell;
    world.play();
    world.settle();
    world.judge();
    world.report
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let store = Store::new();
        store.set_clock(START);
        let accounts = 3 + rng.index(2);
        let users: Vec<_> = (0..accounts)
            .filter_map(|n| BareJid::parse(&format!("user{n}@example.com")).ok())
            .collect();
        let mut clients = Vec::new();
        let mut history = History::default();
        for (account, user) in users.iter().enumerate() {
            for n in 0..=rng.index(2) {
                let sm = !rng.one_in(5);
                if !sm {
                    history.unmanaged.insert(account);
                }
                clients.push(Client::new(account, user.clone(), format!("r{n}"), sm));
            }
            let key = accounts::key(&user.owner(), Row::Credentials);
            let item = Item::new(key, Attrs::new().with("v", 1u64));
            let condition = Condition::Absent;
            let _ = store.apply(Op::Put {
                item,
                condition,
                nonce: 1,
            });
        }
        let budget = 200 + rng.index(200);
        let report = Report {
            seed,
            clients: clients.len(),
            ..Report::default()
        };
        Self {
            rng,
            now: START,
            seq: 0,
            queue: BTreeMap::new(),
            home: None,
            life: 0,
            store,
            users,
            clients,
            pipes: BTreeMap::new(),
            last_pipe: 0,
            sessions: 0,
            history,
            report,
            budget,
            ticking: None,
            tell: None,
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.seq += 1;
        self.queue.insert((time, self.seq), happening);
    }

    fn soon(&mut self, within: u64, happening: Happening) {
        let time = self.now + 1 + self.rng.below(within);
        self.at(time, happening);
    }

    fn play(&mut self) {
        self.start();
        for client in 0..self.clients.len() {
            self.soon(50, Happening::Act(client));
        }
        let restarts = 1 + self.rng.below(3);
        for _ in 0..restarts {
            let time = self.now + 500 + self.rng.below(12_000);
            let happening = if self.rng.one_in(3) {
                Happening::Stop
            } else {
                Happening::Kill
            };
            self.at(time, happening);
        }
        while self.budget > 0 && self.step() {}
    }

    /// Lets faults end, sessions expire and a last client of every account collect its messages.
    fn settle(&mut self) {
        self.store.faulty = false;
        let until = self.now + 30_000;
        self.run_until(until);
        for index in 0..self.clients.len() {
            if self.clients[index].phase == Phase::On {
                self.acknowledge(index);
                self.send(index, Up::Close);
            }
        }
        let until = self.now + u64::from(RESUME_SECONDS) * 1000 + 60_000;
        self.run_until(until);
        let first = self.clients.len();
        for account in 0..self.users.len() {
            let user = self.users[account].clone();
            self.clients
                .push(Client::new(account, user, "last".into(), true));
            self.connect(first + account);
        }
        self.run_until(self.now + 60_000);
        for index in first..self.clients.len() {
            self.acknowledge(index);
        }
        self.run_until(self.now + 60_000);
        let quiet = self.home.as_ref().is_some_and(Home::is_quiet);
        if !quiet {
            let census = self.home.as_ref().map(Home::census);
            self.history
                .violations
                .push(Violation::Stuck(format!("{census:?}")));
        }
    }

    fn judge(&mut self) {
        self.history.judge(&self.store, &self.users);
        self.report.messages = self.history.messages.len();
        let accepted = self
            .history
            .messages
            .iter()
            .filter(|message| message.accepted.is_some());
        self.report.accepted = accepted.count();
        self.report.faults = self.store.faults;
        self.report.violations = std::mem::take(&mut self.history.violations);
    }

    fn run_until(&mut self, time: u64) {
        while self
            .queue
            .first_key_value()
            .is_some_and(|((at, _), _)| *at <= time)
        {
            self.step();
        }
        self.now = self.now.max(time);
        self.store.set_clock(self.now);
    }

    /// One thing happens; `false` when nothing is left to happen.
    fn step(&mut self) -> bool {
        let Some(((time, _), happening)) = self.queue.pop_first() else {
            return false;
        };
        self.now = self.now.max(time);
        self.store.set_clock(self.now);
        match happening {
            Happening::Act(client) => self.act(client),
            Happening::Up(pipe, up) => self.arrive(pipe, up),
            Happening::Down(pipe, out) => self.receive(pipe, out),
            Happening::Answer {
                life,
                token,
                op,
                fate,
            } => self.answered(life, token, *op, fate),
            Happening::Stray(op) => drop(self.store.apply(*op)),
            Happening::Gone(pipe) => self.closed(pipe, false),
            Happening::Written(pipe, n) => {
                self.home_event(Event::Pipe {
                    pipe,
                    event: PipeEvent::Written { n },
                });
            }
            Happening::Kill => self.kill(),
            Happening::Stop => self.stop(),
            Happening::Start => self.start(),
            Happening::Tick => {
                self.ticking = None;
                self.home_event(Event::Tick);
            }
        }
        true
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(tell) = self.tell {
            tell(format!("{:>7} {}", self.now - START, text()));
        }
    }

    // The server's life.

    fn start(&mut self) {
        if self.home.is_some() {
            return;
        }
        self.life += 1;
        self.tell(|| "the server starts".into());
        let limits = Limits {
            resume_seconds: RESUME_SECONDS,
            entity_idle_ms: 5_000,
            spool_page: 4,
            ..Limits::default()
        };
        let about = About {
            name: "Cirrus".into(),
            version: "sim".into(),
            domains: vec!["example.com".into()],
            registration: false,
        };
        let registry = Registry::new(&[]);
        let config = HomeConfig {
            limits,
            about,
            registry,
            archive: true,
            started_ms: self.now,
        };
        self.home = Some(Home::new(config));
    }

    fn kill(&mut self) {
        if self.home.take().is_none() {
            return;
        }
        self.report.restarts += 1;
        self.tell(|| "the server is killed".into());
        self.history.kills.push(self.now);
        self.orphan_operations();
        self.break_all();
        self.soon(2_000, Happening::Start);
    }

    /// Writes of a dead server land, vanish, or land late.
    fn orphan_operations(&mut self) {
        let life = self.life;
        let mine = |happening: &Happening| matches!(happening, Happening::Answer { life: l, .. } if *l == life);
        let keys: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, h)| mine(h))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(Happening::Answer {
                op,
                fate: Answer::Do,
                ..
            }) = self.queue.remove(&key)
            {
                match self.rng.below(3) {
                    0 => drop(self.store.apply(*op)),
                    1 => self.soon(5_000, Happening::Stray(op)),
                    _ => {}
                }
            }
        }
    }

    fn break_all(&mut self) {
        for pipe in self.pipes.values_mut() {
            pipe.open = false;
        }
        for client in &mut self.clients {
            if client.phase != Phase::Off {
                client.phase = Phase::Broken;
            }
        }
    }

    fn stop(&mut self) {
        if self.home.is_none() {
            return;
        }
        self.report.restarts += 1;
        self.tell(|| "the server is stopped".into());
        self.home_event(Event::Shutdown);
        let deadline = self.now + 20_000;
        while self.home.as_ref().is_some_and(|home| !home.is_quiet()) && self.now < deadline {
            if !self.step() {
                break;
            }
        }
        if self.home.as_ref().is_some_and(|home| !home.is_quiet()) {
            self.history.kills.push(self.now);
        }
        self.home = None;
        self.orphan_operations();
        self.break_all();
        self.soon(2_000, Happening::Start);
    }

    fn home_event(&mut self, event: Event) {
        let Some(home) = &mut self.home else { return };
        let mut out = Effects::default();
        home.handle(self.now, &mut self.rng, event, &mut out);
        let due = home.next_deadline();
        for output in out.outputs {
            match output.effect {
                Effect::Pipe { pipe, out } => self.emit(pipe, out),
                Effect::Store { token, op } => self.operate(token, op),
                Effect::Account { .. } | Effect::Erased { .. } => {}
            }
        }
        if let Some(due) = due
            && self.ticking.is_none_or(|at| due < at)
        {
            self.ticking = Some(due);
            self.at(due.max(self.now + 1), Happening::Tick);
        }
    }

    fn operate(&mut self, token: Token, op: Op) {
        let life = self.life;
        let fate = self.store.fate(&mut self.rng);
        self.tell(|| format!("store {token} {fate:?} {op:?}"));
        let fate = match fate {
            Fate::Late => Answer::Do,
            Fate::Early => Answer::Done(self.store.apply(op.clone())),
            Fate::Throttled => Answer::Done(Err(throttled(&op))),
            Fate::Lost => {
                drop(self.store.apply(op.clone()));
                Answer::Done(Err(timeout(&op)))
            }
            Fate::Vanished => Answer::Done(Err(timeout(&op))),
        };
        let happening = Happening::Answer {
            life,
            token,
            op: Box::new(op),
            fate,
        };
        self.soon(40, happening);
    }

    fn answered(&mut self, life: u64, token: Token, op: Op, fate: Answer) {
        if life != self.life || self.home.is_none() {
            return;
        }
        let result = match fate {
            Answer::Do => self.store.apply(op),
            Answer::Done(result) => result,
        };
        self.tell(|| format!("answer {token} {result:?}"));
        self.home_event(Event::Store { token, result });
    }

    // The network.

    fn emit(&mut self, pipe: PipeId, out: PipeOut) {
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        match &out {
            PipeOut::Stanza { n, stanza } => {
                let (n, session) = (*n, state.session);
                if stanza.kind == Kind::Message
                    && stanza.ty != Ty::Error
                    && let Some(index) = index_of(stanza)
                {
                    let late = stanza.child("delay", ns::DELAY).is_some();
                    self.history.emitted(index, session, late);
                }
                self.soon(3, Happening::Written(pipe, n));
            }
            PipeOut::SmEnabled { base, .. } => state.base = *base,
            PipeOut::Resumed { k, base, .. } => (state.k, state.base) = (*k, *base),
            _ => {}
        }
        self.tell(|| format!("pipe {pipe} <- {out:?}"));
        let latency = 1 + self.rng.below(20);
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        state.down_at = state.down_at.max(self.now + latency);
        let time = state.down_at;
        self.at(time, Happening::Down(pipe, out));
    }

    fn send(&mut self, client: usize, up: Up) {
        let pipe = self.clients[client].pipe;
        let latency = 1 + self.rng.below(20);
        let Some(state) = self.pipes.get_mut(&pipe) else {
            return;
        };
        state.up_at = state.up_at.max(self.now + latency);
        let time = state.up_at;
        self.at(time, Happening::Up(pipe, up));
    }

    /// Something reaches the server.
    fn arrive(&mut self, pipe: PipeId, up: Up) {
        let Some(state) = self.pipes.get_mut(&pipe).filter(|state| state.open) else {
            return;
        };
        let client = &self.clients[state.client];
        if let Some(tell) = self.tell {
            let (who, session) = (&client.user, state.session);
            tell(format!(
                "{:>7} pipe {pipe} {who} s{session} -> {up:?}",
                self.now - START
            ));
        }
        let event = match up {
            Up::Bind => PipeEvent::Bind {
                user: client.user.clone(),
                resource: Some(client.resource.clone()),
                login: Login::default(),
            },
            Up::Resume { previd, h } => {
                let user = client.user.clone();
                PipeEvent::Resume {
                    user,
                    previd,
                    h,
                    login: Login::default(),
                }
            }
            Up::Enable => PipeEvent::EnableSm {
                resume: true,
                max: None,
            },
            Up::Ack { h } => {
                let got = client.got.iter().filter(|(count, _)| *count <= h);
                let (session, got) = (state.session, got.map(|(_, m)| *m).collect::<Vec<_>>());
                for message in got {
                    self.history.confirmed(message, session, self.now);
                }
                PipeEvent::Ack { h }
            }
            Up::Stanza(xml) => {
                state.k += 1;
                let Some(stanza) = Stanza::from_stored(&xml.into()) else {
                    return;
                };
                PipeEvent::Stanza {
                    k: state.k,
                    stanza: Box::new(stanza),
                }
            }
            Up::Close => return self.closed(pipe, true),
        };
        self.home_event(Event::Pipe { pipe, event });
    }

    fn closed(&mut self, pipe: PipeId, clean: bool) {
        self.tell(|| format!("pipe {pipe} closed, clean: {clean}"));
        if let Some(state) = self.pipes.get_mut(&pipe) {
            state.open = false;
            if clean {
                let client = &mut self.clients[state.client];
                client.phase = Phase::Off;
                client.forget();
            }
        }
        self.home_event(Event::Pipe {
            pipe,
            event: PipeEvent::Closed { clean },
        });
    }

    // Clients.

    fn act(&mut self, index: usize) {
        self.soon(120, Happening::Act(index));
        if self.budget == 0 {
            return;
        }
        match self.clients[index].phase {
            Phase::Off => self.connect(index),
            Phase::Broken => self.reconnect(index),
            Phase::On => self.talk(index),
            Phase::Binding | Phase::Enabling | Phase::Resuming => {}
        }
    }

    fn spend(&mut self) {
        self.budget = self.budget.saturating_sub(1);
        self.report.operations += 1;
    }

    fn dial(&mut self, index: usize) {
        self.last_pipe += 1;
        let session = self.clients[index].session;
        let pipe = Pipe {
            client: index,
            open: self.home.is_some(),
            k: 0,
            base: 0,
            up_at: 0,
            down_at: 0,
            session,
        };
        self.pipes.insert(self.last_pipe, pipe);
        self.clients[index].pipe = self.last_pipe;
    }

    fn connect(&mut self, index: usize) {
        if self.home.is_none() {
            return;
        }
        self.spend();
        self.sessions += 1;
        let session = self.sessions;
        self.clients[index].forget();
        self.clients[index].session = session;
        self.history.bound.insert(session, self.now);
        self.dial(index);
        self.clients[index].phase = Phase::Binding;
        self.send(index, Up::Bind);
    }

    fn reconnect(&mut self, index: usize) {
        if self.home.is_none() {
            return;
        }
        let Some(previd) = self.clients[index].previd.clone() else {
            return self.connect(index);
        };
        self.spend();
        self.dial(index);
        let h = self.clients[index].received;
        self.clients[index].phase = Phase::Resuming;
        self.send(index, Up::Resume { previd, h });
    }

    fn talk(&mut self, index: usize) {
        self.spend();
        match self.rng.below(100) {
            0..=5 => self.break_pipe(index),
            6..=8 => {
                if self.rng.one_in(2) {
                    self.acknowledge(index);
                }
                self.send(index, Up::Close);
            }
            9..=22 => self.acknowledge(index),
            23..=28 => {
                let available = !self.clients[index].available;
                self.clients[index].available = available;
                let xml = if available {
                    "<presence/>"
                } else {
                    "<presence type='unavailable'/>"
                };
                self.stanza(index, xml.into(), None);
            }
            29..=33 => {
                let to = self.rng.index(self.users.len());
                let kinds = ["subscribe", "subscribed", "unsubscribe", "unsubscribed"];
                let kind = kinds[self.rng.index(kinds.len())];
                let xml = format!("<presence to='{}' type='{kind}'/>", self.users[to]);
                self.stanza(index, xml, None);
            }
            34..=37 => {
                let xml = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
                self.stanza(index, xml.into(), None);
            }
            _ => self.message(index),
        }
    }

    fn message(&mut self, index: usize) {
        let to = self.rng.index(self.users.len());
        let number = self.history.messages.len();
        let mut address = self.users[to].to_string();
        if self.rng.one_in(4) {
            address.push_str(if self.rng.one_in(3) { "/r1" } else { "/r0" });
        }
        let client = &self.clients[index];
        let message = Message {
            from: client.account,
            to,
            session: client.session,
            address: address.clone(),
            ..Message::default()
        };
        self.history.messages.push(message);
        let xml = format!(
            "<message to='{address}' type='chat' id='m{number}'><body>{number}</body></message>"
        );
        self.stanza(index, xml, Some(number));
    }

    fn stanza(&mut self, index: usize, xml: String, message: Option<usize>) {
        let client = &mut self.clients[index];
        if client.counting {
            client.sent += 1;
            let unacked = Unacked {
                count: client.sent,
                xml: xml.clone(),
                message,
            };
            client.unacked.push_back(unacked);
        }
        self.send(index, Up::Stanza(xml));
    }

    fn break_pipe(&mut self, index: usize) {
        let pipe = self.clients[index].pipe;
        if let Some(state) = self.pipes.get_mut(&pipe) {
            state.open = false;
        }
        self.clients[index].phase = Phase::Broken;
        self.soon(4_000, Happening::Gone(pipe));
    }

    fn acknowledge(&mut self, index: usize) {
        if self.clients[index].counting {
            let h = self.clients[index].received;
            self.send(index, Up::Ack { h });
        }
    }

    /// Something reaches a client.
    fn receive(&mut self, pipe: PipeId, out: PipeOut) {
        let Some(state) = self.pipes.get(&pipe).filter(|state| state.open) else {
            return;
        };
        let (index, base) = (state.client, state.base);
        if self.clients[index].pipe != pipe {
            return;
        }
        match out {
            PipeOut::Bound { .. } => self.bound(index),
            PipeOut::SmEnabled { id, .. } => {
                let client = &mut self.clients[index];
                (client.previd, client.counting) = (id, true);
                self.ready(index);
            }
            PipeOut::Resumed { k, base, .. } => self.resumed(index, k, base),
            PipeOut::ResumeFailed { .. } => {
                self.clients[index].phase = Phase::Off;
                self.closed(pipe, true);
                self.connect(index);
            }
            PipeOut::Stanza { stanza, .. } => self.took(index, &stanza),
            PipeOut::Handled { k } => {
                let h = u32::try_from(k.saturating_sub(base)).unwrap_or(u32::MAX);
                self.accepted(index, h);
            }
            PipeOut::Close { .. } => {
                if let Some(state) = self.pipes.get_mut(&pipe) {
                    state.open = false;
                }
                self.clients[index].phase = Phase::Broken;
            }
            PipeOut::BindRefused { .. } | PipeOut::SmRefused { .. } => {}
        }
    }

    fn bound(&mut self, index: usize) {
        if self.clients[index].sm {
            self.clients[index].phase = Phase::Enabling;
            self.send(index, Up::Enable);
        } else {
            self.ready(index);
        }
    }

    fn ready(&mut self, index: usize) {
        self.clients[index].phase = Phase::On;
        self.clients[index].available = true;
        self.stanza(index, "<presence/>".into(), None);
    }

    fn resumed(&mut self, index: usize, k: u64, base: u64) {
        self.report.resumes += 1;
        let h = u32::try_from(k.saturating_sub(base)).unwrap_or(u32::MAX);
        self.accepted(index, h);
        self.clients[index].phase = Phase::On;
        let again: Vec<_> = self.clients[index]
            .unacked
            .iter()
            .map(|u| u.xml.clone())
            .collect();
        for xml in again {
            self.send(index, Up::Stanza(xml));
        }
    }

    fn accepted(&mut self, index: usize, h: u32) {
        for message in self.clients[index].handled(h) {
            self.history.messages[message].accepted = Some(self.now);
        }
    }

    fn took(&mut self, index: usize, stanza: &Stanza) {
        let client = &mut self.clients[index];
        if client.counting {
            client.received += 1;
        }
        if stanza.kind != Kind::Message {
            return;
        }
        let Some(message) = index_of(stanza) else {
            return;
        };
        if stanza.ty == Ty::Error {
            self.history.messages[message].refused = true;
            return;
        }
        client.got.push((client.received, message));
        let session = client.session;
        self.history.received(message, session);
    }
}
