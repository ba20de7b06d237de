//! The task that owns a node's machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cirrus_node::{Answered, Census, Effect, Node, Public, SpreadOptions, Standing};
use cirrus_replica::{Now, Random};
use cirrus_router::{Entropy, HomeConfig, PipeEvent, PipeId, PipeOut};
use cirrus_store::{Blob, Op, StoreError, Table};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Accounts;
use crate::cluster::{About, Cluster, Wires};
use crate::entropy::{SystemEntropy, boot_ms, wall_ms};
use crate::handle::{HomeHandle, Message};
use crate::lanes::{self, Done, Lanes};

/// Bounds of the node's task.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Messages that wait for the task.
    pub inbox: usize,
    /// Writes to the store under way at once; more wait their turn, and while they do no new
    /// message is taken.
    pub operations: usize,
    /// Reads of the store under way at once, beside those: most load a user who was not in memory.
    /// More wait and hold up nothing else.
    pub reads: usize,
    /// Reads that wait; one more is refused as if the store had too much to do.
    pub reads_waiting: usize,
    /// Operations on the store of blobs under way at once; more wait their turn and hold up nothing
    /// else.
    pub blob_operations: usize,
    /// How long one of them may take.
    pub blob_deadline: Duration,
    /// How long a shutdown waits for the store.
    pub shutdown: Duration,
    /// How long the last node's sessions may take to be put into the store.
    pub park: Duration,
    /// Bounds of slots and their copies.
    pub replica: cirrus_replica::Options,
    /// When clients are moved to nodes with fewer; `None` = never.
    pub spread: Option<SpreadOptions>,
    /// The newest format that this node writes.
    pub newest: u8,
}

/// What the task counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pipes dropped because their queue was full.
    pub overflows: AtomicU64,
    /// Store operations that failed.
    pub store_failures: AtomicU64,
}

/// What a node is made of.
pub struct Parts {
    /// What every home is told about itself.
    pub home: Arc<HomeConfig>,
    /// The store.
    pub table: Arc<dyn Table>,
    /// The store of blobs.
    pub blobs: Arc<dyn Blob>,
    /// Carries out what users ask of their accounts.
    pub accounts: Arc<dyn Accounts>,
    /// The other nodes; `None` = the store is this process's own, so there are none.
    pub cluster: Option<Cluster>,
    /// Where clients reach this node itself; `None` = a balancer sends them, or nobody knows.
    pub public: Option<Public>,
}

/// A node that runs.
#[derive(Clone)]
pub struct Running {
    /// The way to speak to it.
    pub home: HomeHandle,
    /// Where it stands.
    pub standing: watch::Receiver<Standing>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Which connections are to be broken because other nodes have fewer.
    pub parting: watch::Receiver<Parting>,
}

/// Connections that are to be broken because other nodes have fewer.
#[derive(Clone, Debug, Default)]
pub struct Parting {
    /// How many, since the start.
    pub all: u64,
    /// Where they are to go, and how many each of these nodes lacks; empty where nodes have no
    /// addresses of their own.
    pub to: Vec<(Public, u64)>,
}

/// Starts the task on the current runtime.
pub fn start(parts: Parts, options: Options) -> Running {
    let (inbox, messages) = mpsc::channel(options.inbox);
    let (desk, asked) = mpsc::channel(DESK);
    let (answers, done) = lanes::answers(&options);
    let counters = Arc::new(Counters::default());
    let (tell, standing) = watch::channel(Standing::Joining);
    let (part, parting) = watch::channel(Parting::default());
    let (membership, wires, events) = match parts.cluster.map(Cluster::split) {
        Some((membership, wires, events)) => (Some(membership), Some(wires), Some(events)),
        None => (None, None, None),
    };
    let now = Now {
        steady: boot_ms(),
        wall: wall_ms(),
    };
    let mut rng = Source(SystemEntropy::default());
    let machine = cirrus_node::Options {
        home: parts.home,
        replica: options.replica,
        membership,
        spread: options.spread,
        newest: options.newest,
        public: parts.public,
    };
    let task = Task {
        node: Node::new(now, &mut rng, machine),
        lanes: Lanes::new(
            (Arc::clone(&parts.table), parts.blobs),
            parts.accounts,
            options,
            answers.clone(),
        ),
        table: parts.table,
        wires,
        options,
        answers,
        counters: Arc::clone(&counters),
        rng,
        now,
        pipes: HashMap::new(),
        erasures: HashMap::new(),
        last_erasure: 0,
        unparking: HashMap::new(),
        last_unparked: 0,
        end: End::HandsOn,
        stopped: Vec::new(),
        stop_at: u64::MAX,
        drained: Vec::new(),
        left: None,
        inbox_waits: 0,
        look_at: 0,
        tell,
        part,
    };
    tokio::spawn(task.run(messages, asked, done, events));
    Running {
        home: HomeHandle { inbox, desk },
        standing,
        counters,
        parting,
    }
}

struct Source(SystemEntropy);

impl Random for Source {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

struct Task {
    node: Node,
    lanes: Lanes,
    table: Arc<dyn Table>,
    wires: Option<Wires>,
    options: Options,
    answers: mpsc::Sender<Done>,
    counters: Arc<Counters>,
    rng: Source,
    now: Now,
    /// Connections of this node.
    pipes: HashMap<PipeId, mpsc::Sender<PipeOut>>,
    /// Who waits for an account to be erased or sealed.
    erasures: HashMap<u64, oneshot::Sender<Result<(), String>>>,
    last_erasure: u64,
    /// Who waits for a session that was parked.
    unparking: HashMap<u64, oneshot::Sender<()>>,
    last_unparked: u64,
    stopped: Vec<oneshot::Sender<()>>,
    stop_at: u64,
    end: End,
    drained: Vec<oneshot::Sender<bool>>,
    left: Option<oneshot::Sender<()>>,
    /// Messages that pipes have sent and that were not taken yet.
    inbox_waits: usize,
    look_at: u64,
    tell: watch::Sender<Standing>,
    part: watch::Sender<Parting>,
}

/// What a node that stops waits for, one after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// That others have what is here. Where there is none, or none is left, sessions end.
    HandsOn,
    /// That nothing is under way.
    Rests,
    /// That the sessions which can be resumed are in the store.
    Parks,
}

/// Messages taken before the effects are carried out.
const BATCH: usize = 256;
/// Questions to the node itself that wait for the task.
const DESK: usize = 64;
/// How often it is looked whether a drain is over, milliseconds.
const LOOK_MS: u64 = 50;

impl Task {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        asked: mpsc::Receiver<Message>,
        mut done: mpsc::Receiver<Done>,
        mut links: Option<mpsc::Receiver<cirrus_link::LinkEvent>>,
    ) {
        let mut inbox = Vec::with_capacity(BATCH);
        let mut answers = Vec::with_capacity(BATCH);
        let mut told = Vec::with_capacity(BATCH);
        let mut questions = Vec::with_capacity(DESK);
        // Both senders are in every handle, so it does not end before the other.
        let mut asked = Some(asked);
        // One that is alone serves at once.
        self.carry_out();
        loop {
            let timer = self.timer();
            let may_serve = self.node.may_serve(boot_ms());
            let takes = self.node.has_ended() || (!self.lanes.is_full() && may_serve);
            tokio::select! {
                biased;
                _ = done.recv_many(&mut answers, BATCH) => {}
                _ = some(&mut links, &mut told) => {}
                count = some(&mut asked, &mut questions) => {
                    if count == 0 {
                        asked = None;
                    }
                }
                count = messages.recv_many(&mut inbox, BATCH), if takes => {
                    if count == 0 {
                        return; // Nobody holds a handle any more.
                    }
                }
                () = tokio::time::sleep(timer) => {}
            }
            self.inbox_waits = messages.len();
            self.look_at_clocks();
            self.node.begin(self.now, &mut self.rng);
            for event in told.drain(..) {
                self.link_event(event);
            }
            for answer in answers.drain(..) {
                self.answer(answer);
            }
            for message in inbox.drain(..).chain(questions.drain(..)) {
                self.message(message);
            }
            self.carry_out();
            self.look_at_drain();
            if self.is_done() {
                return;
            }
        }
    }

    fn look_at_clocks(&mut self) {
        self.now = Now {
            steady: boot_ms(),
            wall: wall_ms().max(self.now.wall),
        };
    }

    fn link_event(&mut self, event: cirrus_link::LinkEvent) {
        let about = self.wires.as_mut().and_then(|wires| wires.event(event));
        let (now, rng) = (self.now, &mut self.rng);
        match about {
            Some(About::Up(node, format)) => self.node.link_up(now, rng, node, format),
            Some(About::Down(node)) => self.node.link_down(now, rng, node),
            Some(About::Frame(node, frame)) => self.node.frame(now, rng, node, &frame),
            None => {}
        }
    }

    fn timer(&self) -> Duration {
        /// The longest sleep; waking more often than needed is harmless.
        const LONGEST_MS: u64 = 60_000;
        let (steady, wall) = (boot_ms(), self.now.wall);
        let due = self.node.wake_at();
        let mut wait = self.stop_at.min(due.wall).saturating_sub(wall);
        wait = wait.min(due.steady.saturating_sub(steady));
        if !self.drained.is_empty() {
            wait = wait.min(LOOK_MS);
        }
        Duration::from_millis(wait.clamp(1, LONGEST_MS))
    }

    /// Whether the drain is over.
    fn look_at_drain(&mut self) {
        if self.drained.is_empty() || self.now.steady < self.look_at {
            return;
        }
        self.look_at = self.now.steady + LOOK_MS;
        if let Some(over) = self.node.drained() {
            for drained in self.drained.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = drained.send(over);
            }
        }
    }

    fn is_done(&mut self) -> bool {
        if self.stopped.is_empty() {
            return false;
        }
        if !self.node.is_last() {
            if self.end != End::HandsOn {
                // Another has come, and has what is left.
                self.end = End::HandsOn;
                self.stop_at = self.time_after(self.options.shutdown);
            }
        } else if self.node.shutdown(self.now, &mut self.rng) || self.end == End::HandsOn {
            self.end = End::Rests;
            self.carry_out();
        }
        if self.end == End::Rests && self.is_over() {
            self.end = End::Parks;
            self.stop_at = self.time_after(self.options.park);
            self.node.park(self.now, &mut self.rng);
            self.carry_out();
        }
        let done = self.is_over();
        if done {
            for stopped in self.stopped.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = stopped.send(());
            }
        }
        // One of several still has to leave.
        done && self.wires.is_none()
    }

    /// Whether that part of the end is over, or may take no longer.
    fn is_over(&self) -> bool {
        let over = match self.end {
            End::HandsOn => self.node.is_spare(),
            End::Rests | End::Parks => self.lanes.is_empty() && self.node.is_quiet(),
        };
        over || self.now.wall >= self.stop_at
    }

    /// When so much time is over, on the wall clock.
    fn time_after(&self, wait: Duration) -> u64 {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.now.wall.saturating_add(wait)
    }

    fn message(&mut self, message: Message) {
        let (now, rng) = (self.now, &mut self.rng);
        match message {
            Message::Attach(pipe, queue) => drop(self.pipes.insert(pipe, queue)),
            Message::Pipe(pipe, event) => self.pipe(pipe, event),
            Message::Erase(user, answer) => {
                self.last_erasure += 1;
                self.erasures.insert(self.last_erasure, answer);
                self.node.erase(now, rng, self.last_erasure, user);
            }
            Message::Seal(user, answer) => {
                self.last_erasure += 1;
                self.erasures.insert(self.last_erasure, answer);
                self.node.seal(now, rng, self.last_erasure, user);
            }
            Message::Census(answer) => {
                let mut census: Census = self.node.census();
                census.operations = self.lanes.operations;
                (census.reads, census.reads_waiting) =
                    (self.lanes.reads, self.lanes.reads_waiting());
                census.reads_refused = self.lanes.reads_refused;
                census.pipes = self.pipes.len();
                census.waiting = self.inbox_waits;
                // Whoever asked may have stopped waiting.
                let _ = answer.send(census);
            }
            // As above.
            Message::View(answer) => drop(answer.send(self.node.view(self.now.steady))),
            // As above.
            Message::Place(user, answer) => drop(answer.send(self.node.place(&user))),
            // As above.
            Message::Elsewhere(user, answer) => drop(answer.send(self.node.elsewhere(&user))),
            Message::Shutdown(answer) => {
                self.stopped.push(answer);
                self.stop_at = self.time_after(self.options.shutdown).min(self.stop_at);
            }
            Message::Unpark(user, row, answer) => {
                self.last_unparked += 1;
                self.unparking.insert(self.last_unparked, answer);
                self.node.unpark(now, rng, self.last_unparked, (user, row));
            }
            Message::Drain { anyway, answer } => {
                if self.node.is_last() && !anyway {
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(false);
                    return;
                }
                self.drained.push(answer);
                self.look_at = 0;
                self.node.drain(now, rng);
            }
            Message::Undrain => {
                self.node.undrain(now, rng);
                self.drained.clear();
            }
            Message::Leave(answer) => {
                self.left = Some(answer);
                self.node.leave(now, rng);
            }
        }
    }

    fn pipe(&mut self, pipe: PipeId, event: PipeEvent) {
        if !self.pipes.contains_key(&pipe) {
            return;
        }
        if matches!(event, PipeEvent::Closed { .. }) {
            self.pipes.remove(&pipe);
        }
        self.node.pipe(self.now, &mut self.rng, pipe, event);
    }

    fn answer(&mut self, done: Done) {
        let (now, rng) = (self.now, &mut self.rng);
        match done {
            Done::Membership(token, result) => {
                self.node.membership_answered(now, rng, token, result);
            }
            Done::Slot(slot, token, answered, lane) => {
                self.lanes.answered(lane);
                if let Answered::Store(Err(error)) | Answered::Blob(Err(error)) = &answered
                    && !matches!(error, StoreError::Conflict { .. })
                {
                    self.counters.store_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a store operation failed");
                }
                self.node.answered(now, rng, (slot, token), answered);
            }
        }
    }

    /// Carries out effects until none is left: a full queue makes new events.
    fn carry_out(&mut self) {
        let mut effects = Vec::new();
        loop {
            // A process that was suspended finds here that it may not go on.
            self.look_at_clocks();
            self.node.effects(self.now, &mut self.rng, &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects.drain(..) {
                self.effect(effect);
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Pipe { pipe, out } => self.give_pipe(pipe, out),
            Effect::Erased { token, result } => {
                if let Some(answer) = self.erasures.remove(&token) {
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(result);
                }
            }
            Effect::Unparked { token } => {
                if let Some(answer) = self.unparking.remove(&token) {
                    // As above.
                    let _ = answer.send(());
                }
            }
            Effect::Ask { slot, token, ask } => {
                if let Some(refusal) = self.lanes.ask(slot, token, ask) {
                    let (now, rng) = (self.now, &mut self.rng);
                    self.node.answered(now, rng, (slot, token), refusal);
                }
            }
            Effect::Membership { token, op } => self.ask_for_membership(token, op),
            Effect::Send { node, frame } => {
                if let Some(wires) = &self.wires {
                    wires.send(node, frame);
                }
            }
            Effect::Links(links) => {
                if let Some(wires) = &self.wires {
                    wires.keep(links);
                }
            }
            Effect::Standing(standing) => drop(self.tell.send_replace(standing)),
            Effect::Part { clients, to } => self.part.send_modify(|parting| {
                parting.all += clients;
                parting.to = to;
            }),
            Effect::Left => {
                if let Some(left) = self.left.take() {
                    // Whoever asked may have stopped waiting.
                    let _ = left.send(());
                }
            }
        }
    }

    fn give_pipe(&mut self, pipe: PipeId, out: PipeOut) {
        let last = matches!(out, PipeOut::Close { .. });
        let Some(queue) = self.pipes.get(&pipe) else {
            return;
        };
        let broken = queue.try_send(out).is_err();
        if broken || last {
            self.pipes.remove(&pipe);
        }
        if broken && !last {
            self.counters.overflows.fetch_add(1, Ordering::Relaxed);
            self.node.broken(self.now, &mut self.rng, pipe);
        }
    }

    fn ask_for_membership(&self, token: cirrus_cluster::Token, op: Op) {
        let Some(wires) = &self.wires else { return };
        let patience = wires.patience;
        let (table, answers) = (Arc::clone(&self.table), self.answers.clone());
        tokio::spawn(async move {
            let place = op.place();
            let result = match tokio::time::timeout(patience, table.apply(op)).await {
                Ok(result) => result,
                Err(_) => Err(StoreError::Timeout {
                    place,
                    source: None,
                }),
            };
            // The task may have ended; then nobody waits for the answer.
            let _ = answers.send(Done::Membership(token, result)).await;
        });
    }
}

/// What a queue has, where there is one.
async fn some<T>(queue: &mut Option<mpsc::Receiver<T>>, taken: &mut Vec<T>) -> usize {
    match queue {
        Some(queue) => queue.recv_many(taken, BATCH).await,
        None => std::future::pending().await,
    }
}
