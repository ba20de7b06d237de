//! The simulated world: what happens, in the order of simulated time.

mod acts;
mod blobs;
mod cluster;
mod erase;
mod network;
mod server;
mod settle;
mod shadow;

use std::collections::BTreeMap;

use cirrus_jid::BareJid;
use cirrus_router::{Home, PipeId, PipeOut, Token};
use cirrus_schema::TableId;
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_schema::keys::rosters;
use cirrus_store::{Attrs, BlobOp, Condition, Item, Op, Outcome, StoreError};

use crate::check::{History, Violation};
use crate::client::{Client, Phase};
use crate::plan::{Plan, Turn};
use crate::rng::Rng;
use crate::store::Store;

use erase::Erasure;
use network::{Pipe, Up};
use shadow::Shadow;

/// What a run did and showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Messages delivered to clients, repetitions included.
    pub delivered: usize,
    /// Kills.
    pub kills: usize,
    /// Orderly stops.
    pub stops: usize,
    /// Operations that the store was asked for.
    pub store_operations: u64,
    /// Operations that the store refused, lost or answered too late.
    pub faults: u64,
    /// Successful resumes.
    pub resumes: usize,
    /// Accounts erased.
    pub erased: usize,
    /// Times that a copy of the home took its place.
    pub takeovers: usize,
    /// Times that a copy began anew from a snapshot.
    pub snapshots: usize,
    /// Events that the server handled.
    pub events: u64,
    /// Nodes may have been lost faster than copies are made.
    pub reckless: bool,
    /// Processes started, of a cluster.
    pub starts: usize,
    /// Changes of the view, of a cluster.
    pub views: u64,
    /// Bytes that nodes sent to each other.
    pub frame_bytes: u64,
    /// What happened to nodes, by kind.
    pub incidents: BTreeMap<&'static str, u64>,
    /// Operations of the store that went wrong, by kind.
    pub store_faults: BTreeMap<&'static str, u64>,
    /// Segments of archives at the end.
    pub segments: usize,
    /// Retracted messages that archives show as such at the end.
    pub retracted: usize,
    /// What must not be.
    pub violations: Vec<Violation>,
}

/// Something on its way.
enum Happening {
    /// A client does something.
    Act(usize),
    /// Something reaches the server.
    Up(PipeId, Up),
    /// Something reaches a client.
    Down(PipeId, PipeOut),
    /// The store answers.
    Answer {
        life: u64,
        token: Token,
        op: Box<Op>,
        fate: Answer,
    },
    /// The store of blobs answers.
    Blob(blobs::Asker, Box<BlobOp>, Box<blobs::Said>),
    /// A write of a dead server lands; with its life.
    Stray(u64, Box<Op>),
    /// The server notices that a connection broke.
    Gone(PipeId),
    /// The server has written to a socket.
    Written(PipeId, u64),
    /// The server starts.
    Start,
    /// The server dies.
    Kill,
    /// A timer of the server.
    Tick,
    /// The next step of a deletion.
    Erase(usize),
    /// Something in a cluster.
    Cluster(cluster::Step),
}

/// When the store carries out an operation.
enum Answer {
    /// When it answers.
    Do,
    /// It has, or has not, already.
    Done(Result<Outcome, StoreError>),
}

struct World {
    rng: Rng,
    plan: Plan,
    now: u64,
    /// Numbers happenings, so that those of one time keep their order.
    sequence: u64,
    /// Boxed, as what is not due yet is moved about a lot.
    queue: BTreeMap<(u64, u64), Box<Happening>>,
    home: Option<Home>,
    /// Many nodes in the home's place.
    cluster: Option<cluster::Cluster>,
    shadow: Option<Shadow>,
    /// Decides about copies; apart, so that a run without takeover does not depend on it.
    chance: Rng,
    /// How far the home's clock is ahead, milliseconds.
    skew: i64,
    /// The home has lost its network, and will die.
    fading: bool,
    /// When a node died last, Unix milliseconds.
    died_at: u64,
    /// Counts the server's starts, and takeovers.
    life: u64,
    store: Store,
    clients: Vec<Client>,
    pipes: BTreeMap<PipeId, Pipe>,
    last_pipe: u64,
    /// What clients acknowledged before they closed their streams: when, which, in which session.
    parting: Vec<(u64, usize, u64)>,
    sessions: u64,
    /// Numbers whatever must be told apart: presence, names, ids.
    marks: u64,
    history: History,
    report: Report,
    /// Clients act on their own.
    playing: bool,
    ticking: Option<u64>,
    erasures: BTreeMap<usize, Erasure>,
    tell: Option<fn(String)>,
}

/// Fewest things that happen to nodes in one seed of a cluster.
const FEWEST_INCIDENTS: u64 = 3;
/// In one of so many seeds of a cluster clients retract messages.
const RETRACTING: u64 = 5;
/// Where simulated time begins, Unix milliseconds.
const START: u64 = 1_700_000_000_000;

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    run_with(seed, Plan::new, None)
}

/// Runs one seed of a cluster.
pub fn run_cluster(seed: u64) -> Report {
    run_with(seed, Plan::cluster, None)
}

/// Runs one seed and tells what happens, line by line.
pub fn trace(seed: u64, tell: fn(String)) -> Report {
    run_with(seed, Plan::new, Some(tell))
}

/// The same of a cluster.
pub fn trace_cluster(seed: u64, tell: fn(String)) -> Report {
    run_with(seed, Plan::cluster, Some(tell))
}

pub use cluster::grow::{Change, Growth, Load, grow};

fn run_with(seed: u64, plan: fn(&mut Rng) -> Plan, tell: Option<fn(String)>) -> Report {
    let mut world = World::new(seed, plan, tell);
    world.play();
    world.settle();
    world.judge();
    world.report
}

impl World {
    fn new(seed: u64, plan: impl FnOnce(&mut Rng) -> Plan, tell: Option<fn(String)>) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = plan(&mut rng);
        // What a seed finds depends on every request: most clusters go without these.
        plan.retracts &= plan.nodes.is_none() || seed.is_multiple_of(RETRACTING);
        let store = Store::new(plan.faults);
        store.set_clock(START);
        let clients = plan.clients.iter();
        let clients: Vec<_> = clients
            .map(|setup| Client::new(setup, plan.users[setup.account].clone()))
            .collect();
        let report = Report {
            seed,
            clients: clients.len(),
            ..Report::default()
        };
        let nodes = plan.nodes.take();
        let history = History::new(plan.archive);
        let mut world = Self {
            rng,
            plan,
            now: START,
            sequence: 0,
            queue: BTreeMap::new(),
            home: None,
            cluster: None,
            shadow: None,
            chance: Rng::new(!seed),
            skew: 0,
            fading: false,
            died_at: 0,
            life: 0,
            store,
            clients,
            pipes: BTreeMap::new(),
            last_pipe: 0,
            parting: Vec::new(),
            sessions: 0,
            marks: 0,
            history,
            report,
            playing: true,
            ticking: None,
            erasures: BTreeMap::new(),
            tell,
        };
        for account in 0..world.plan.users.len() {
            world.create_account(account, 0);
        }
        if let Some(nodes) = nodes {
            world.begin_cluster(nodes);
        }
        world
    }

    /// The row that an account consists of, with the position that an erased one left.
    fn create_account(&mut self, account: usize, floor: u64) {
        let key = accounts::key(&self.plan.users[account].owner(), Row::Credentials);
        let attrs = Attrs::new().with("v", 1u64).with("f", floor);
        self.put(Item::new(key, attrs));
    }

    /// Writes a row as another part of the server would, without faults.
    fn put(&self, item: Item) {
        let op = Op::Put {
            item,
            condition: Condition::Any,
            nonce: 1,
        };
        drop(self.store.apply(op));
    }

    fn user(&self, account: usize) -> &BareJid {
        &self.plan.users[account]
    }

    fn mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.sequence += 1;
        let key = (time, self.sequence);
        self.queue.insert(key, Box::new(happening));
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
        while self.goes_on() && self.step() {}
        self.playing = false;
    }

    /// Clients have not done enough, or not everything that was planned has happened to nodes.
    fn goes_on(&self) -> bool {
        let cluster = self.cluster.as_ref();
        let waits = cluster.is_some_and(|cluster| !cluster.is_through());
        // In every seed a few things happen, however long they have to wait.
        let happened: u64 = self.report.incidents.values().sum();
        let times = match (waits, happened < FEWEST_INCIDENTS) {
            (false, _) => 1,
            (true, false) => 4,
            (true, true) => 32,
        };
        self.report.operations < self.plan.operations.saturating_mul(times)
    }

    /// A client has done something: perhaps it is time for something to happen to the server.
    fn spend(&mut self) {
        self.report.operations += 1;
        match self.plan.turns.remove(&self.report.operations) {
            None => {}
            Some(Turn::Kill) if self.rng.one_in(2) => self.kill_slowly(),
            Some(Turn::Kill) => self.kill(),
            Some(Turn::Stop) => self.stop(),
            Some(Turn::Outage(milliseconds)) => {
                self.tell(|| format!("the store is down for {milliseconds} ms"));
                self.store.down_until = self.now + milliseconds;
            }
            Some(Turn::Erase(account)) => self.begin_erasure(account),
        }
        self.incidents();
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
        match *happening {
            Happening::Act(client) => self.act(client),
            Happening::Up(pipe, up) => self.arrive(pipe, up),
            Happening::Down(pipe, out) => self.receive(pipe, out),
            Happening::Answer {
                life,
                token,
                op,
                fate,
            } => self.answered(life, token, *op, fate),
            Happening::Blob(asker, op, said) => self.blob_answered(asker, *op, *said),
            Happening::Stray(life, op) => {
                self.tell(|| format!("a late write lands: {}", crate::tell::op(&op)));
                self.note_stray(life, &op);
                drop(self.store.apply(*op));
            }
            Happening::Gone(pipe) => self.closed(pipe, false),
            Happening::Written(pipe, n) => self.written(pipe, n),
            Happening::Start => self.start(),
            Happening::Kill => self.kill(),
            Happening::Tick => {
                self.ticking = None;
                self.home_event(cirrus_router::Event::Tick);
            }
            Happening::Erase(account) => self.go_on_erasing(account),
            Happening::Cluster(step) => self.cluster_step(step),
        }
        true
    }

    /// A roster that was read before a write of a dead server landed in it does not show that until
    /// it is read again, and a request that was taken back meanwhile may land behind that: nobody
    /// was told that the write had succeeded.
    fn note_stray(&mut self, life: u64, op: &Op) {
        let (Op::Put {
            item: Item { key, .. },
            ..
        }
        | Op::Delete { key, .. }) = op
        else {
            return;
        };
        let owners = self
            .plan
            .users
            .iter()
            .map(|user| rosters::partition(&user.owner()));
        if (self.life > life || self.cluster.is_some()) && key.table == TableId::Rosters {
            let account = owners.into_iter().position(|pk| pk == key.pk);
            self.history.strays.extend(account);
        }
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(tell) = self.tell {
            tell(format!("{:>7} {}", self.now - START, text()));
        }
    }

    fn wrong(&mut self, violation: Violation) {
        self.tell(|| format!("WRONG {violation}"));
        self.history.wrong(violation);
    }

    /// Whether somebody takes connections.
    fn is_up(&self) -> bool {
        self.home.is_some() && !self.fading || self.has_accepting()
    }

    /// A connection speaks to the server.
    fn pipe_event(&mut self, pipe: PipeId, event: cirrus_router::PipeEvent) {
        match self.cluster {
            Some(_) => self.node_pipe(pipe, event),
            None => self.home_event(cirrus_router::Event::Pipe { pipe, event }),
        }
    }

    /// Whether a client has a stream that it can talk on.
    fn is_on(&self, client: usize) -> bool {
        self.clients[client].phase == Phase::On
    }
}
