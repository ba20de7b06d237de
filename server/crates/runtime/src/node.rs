//! The task that owns a node's part in the cluster: slots, membership, pipes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cirrus_cluster::{Slot, View};
use cirrus_replica::{Effect, Machine as _, Now, Random, Replica, Token};
use cirrus_router::{Entropy, HomeConfig, PipeId};
use cirrus_store::{Answer, Op, StoreError, Table};
use tokio::sync::{mpsc, oneshot, watch};

use crate::Accounts;
use crate::cluster::{Cluster, Told};
use crate::entropy::{SystemEntropy, boot_ms, wall_ms};
use crate::handle::{HomeHandle, Message};
use crate::pipes::{Ear, Pipe};
use crate::slot::{Answered, Ask, Homes, SlotHome, Word, slot_of};
use crate::standing::{Census, Standing};

/// Bounds of the node's task.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Messages that wait for the task.
    pub inbox: usize,
    /// Store operations under way at once; more wait their turn, and while they do no new
    /// message is taken.
    pub operations: usize,
    /// How long a shutdown waits for the store.
    pub shutdown: Duration,
    /// Bounds of slots and their copies.
    pub replica: cirrus_replica::Options,
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
    /// Carries out what users ask of their accounts.
    pub accounts: Arc<dyn Accounts>,
    /// The other nodes; `None` = the store is this process's own, so there are none.
    pub cluster: Option<Cluster>,
}

/// A running node.
#[derive(Clone)]
pub struct Node {
    /// The way to speak to it.
    pub home: HomeHandle,
    /// Where it stands.
    pub standing: watch::Receiver<Standing>,
    /// What it counts.
    pub counters: Arc<Counters>,
}

/// An answer for the task.
pub(crate) enum Done {
    Slot(Slot, Token, Answered),
    Members(
        cirrus_cluster::Token,
        Result<cirrus_store::Outcome, StoreError>,
    ),
}

/// Starts the task on the current runtime.
pub fn start(parts: Parts, options: Options) -> Node {
    let (inbox, messages) = mpsc::channel(options.inbox);
    // Members ask for a few things at once, beside the homes.
    let (answers, done) = mpsc::channel(options.operations.max(1) + 16);
    let counters = Arc::new(Counters::default());
    let (tell, standing) = watch::channel(Standing::Joining);
    let mut task = Task {
        me: parts.cluster.as_ref().map_or(1, Cluster::node_id),
        home: parts.home,
        table: parts.table,
        accounts: parts.accounts,
        cluster: parts.cluster,
        options,
        answers,
        counters: Arc::clone(&counters),
        rng: Source(SystemEntropy::default()),
        now: Now {
            steady: boot_ms(),
            wall: wall_ms(),
        },
        replica: None,
        key: [0; 16],
        pipes: HashMap::new(),
        ports: HashMap::new(),
        last_port: 0,
        operations: 0,
        waiting: VecDeque::new(),
        stopped: Vec::new(),
        stop_at: u64::MAX,
        drained: Vec::new(),
        look_at: 0,
        tell,
    };
    if task.cluster.is_none() {
        task.be_alone();
    }
    tokio::spawn(task.run(messages, done));
    Node {
        home: HomeHandle { inbox },
        standing,
        counters,
    }
}

pub(crate) struct Source(SystemEntropy);

impl Random for Source {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0.fill(buffer);
    }
}

pub(crate) struct Task {
    me: u64,
    home: Arc<HomeConfig>,
    table: Arc<dyn Table>,
    accounts: Arc<dyn Accounts>,
    pub cluster: Option<Cluster>,
    options: Options,
    answers: mpsc::Sender<Done>,
    pub counters: Arc<Counters>,
    pub rng: Source,
    pub now: Now,
    pub replica: Option<Replica<SlotHome>>,
    pub key: [u8; 16],
    pub pipes: HashMap<PipeId, Pipe>,
    pub ports: HashMap<u64, Ear>,
    pub last_port: u64,
    operations: usize,
    waiting: VecDeque<(Slot, Token, Ask)>,
    stopped: Vec<oneshot::Sender<()>>,
    stop_at: u64,
    drained: Vec<oneshot::Sender<bool>>,
    look_at: u64,
    tell: watch::Sender<Standing>,
}

/// Messages taken before the effects are carried out.
const BATCH: usize = 256;
/// How often it is looked whether a drain is over, milliseconds.
const LOOK_MS: u64 = 50;

impl Task {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, mut done: mpsc::Receiver<Done>) {
        let mut inbox = Vec::with_capacity(BATCH);
        let mut answers = Vec::with_capacity(BATCH);
        let mut told = Vec::with_capacity(BATCH);
        let mut links = self.cluster.as_mut().map(Cluster::events);
        loop {
            let timer = self.timer();
            let ended = self.cluster.as_ref().is_some_and(Cluster::has_ended);
            let takes = ended || (self.waiting.is_empty() && self.may_serve());
            tokio::select! {
                biased;
                _ = done.recv_many(&mut answers, BATCH) => {}
                _ = some(&mut links, &mut told) => {}
                count = messages.recv_many(&mut inbox, BATCH), if takes => {
                    if count == 0 {
                        return; // Nobody holds a handle any more.
                    }
                }
                () = tokio::time::sleep(timer) => {}
            }
            self.now = Now {
                steady: boot_ms(),
                wall: wall_ms().max(self.now.wall),
            };
            self.members_first();
            for event in told.drain(..) {
                self.link_event(event);
            }
            for answer in answers.drain(..) {
                self.answer(answer);
            }
            for message in inbox.drain(..) {
                self.message(message);
            }
            self.tick();
            self.carry_out();
            if self.is_done() {
                return;
            }
        }
    }

    /// The node of a store that no other can open.
    fn be_alone(&mut self) {
        let member = cirrus_cluster::Member {
            instance: String::new(),
            boot: u128::from(self.me),
            address: String::new(),
            zone: String::new(),
            weight: 1,
            state: cirrus_cluster::MemberState::Serving,
            wire: 1,
            storage: 1,
        };
        let view = View {
            epoch: 1,
            slot_key: self.key,
            members: vec![member],
        };
        self.adopt(view);
        self.tell.send_replace(Standing::Serving { epoch: 0 });
    }

    fn adopt(&mut self, view: View) {
        let alone = self.cluster.is_none();
        let epoch = view.epoch;
        let (home, me, mut options) = (Arc::clone(&self.home), self.me, self.options.replica);
        options.alone = alone;
        self.key = view.slot_key;
        let key = view.slot_key;
        let fresh = self.replica.is_none();
        let replica = self.replica.get_or_insert_with(|| {
            let homes = Homes {
                config: home,
                key,
                alone,
            };
            Replica::new(me, options, Box::new(homes))
        });
        if fresh && let Some(cluster) = &self.cluster {
            for node in cluster.linked() {
                replica.link_up(self.now, &mut self.rng, node);
            }
        }
        if let Err(error) = replica.adopt(self.now, &mut self.rng, Arc::new(view)) {
            tracing::warn!(epoch, %error, "a view");
        }
    }

    fn may_serve(&self) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_none_or(|cluster| cluster.may_serve(boot_ms()))
    }

    /// Membership comes before everything: it may say that nothing else may be done.
    fn members_first(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.tick(self.now);
        }
        self.heed_members();
    }

    /// Does what membership wants.
    fn heed_members(&mut self) {
        loop {
            let Some(told) = self.cluster.as_mut().and_then(Cluster::told) else {
                return;
            };
            match told {
                Told::Store(token, op, patience) => self.ask_for_members(token, op, patience),
                Told::Adopt(view) => self.adopt(view),
                Told::Standing(standing) => {
                    self.tell.send_replace(standing);
                }
            }
        }
    }

    fn ask_for_members(&self, token: cirrus_cluster::Token, op: Op, patience: Duration) {
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
            let _ = answers.send(Done::Members(token, result)).await;
        });
    }

    fn link_event(&mut self, event: cirrus_link::LinkEvent) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let about = cluster.link_event(self.now, event);
        self.heed_members();
        let Some(replica) = &mut self.replica else {
            return;
        };
        match about {
            crate::cluster::About::Up(node) => replica.link_up(self.now, &mut self.rng, node),
            crate::cluster::About::Down(node) => replica.link_down(node),
            crate::cluster::About::Frame(node, frame) => {
                replica.frame(self.now, &mut self.rng, node, &frame);
            }
            crate::cluster::About::Members => {}
        }
    }

    fn timer(&self) -> Duration {
        /// The longest sleep; waking more often than needed is harmless.
        const LONGEST_MS: u64 = 60_000;
        let (steady, wall) = (boot_ms(), self.now.wall);
        let mut wait = self.stop_at.saturating_sub(wall);
        if let Some(replica) = &self.replica {
            let due = replica.next_deadline();
            wait = wait.min(due.wall.saturating_sub(wall));
            if self.cluster.is_some() {
                wait = wait.min(due.steady.saturating_sub(steady));
            }
        }
        if let Some(cluster) = &self.cluster {
            wait = wait.min(cluster.wake_at().saturating_sub(steady));
        }
        if !self.drained.is_empty() {
            wait = wait.min(LOOK_MS);
        }
        Duration::from_millis(wait.clamp(1, LONGEST_MS))
    }

    fn tick(&mut self) {
        if !self.may_serve() {
            return;
        }
        if let Some(replica) = &mut self.replica {
            let due = replica.next_deadline();
            if due.wall <= self.now.wall || due.steady <= self.now.steady {
                replica.tick(self.now, &mut self.rng);
            }
        }
        if !self.drained.is_empty() && self.now.steady >= self.look_at {
            self.look_at = self.now.steady + LOOK_MS;
            self.look_at_drain();
        }
    }

    /// Whether the drain is over: nothing here is anybody's home or copy any more.
    fn look_at_drain(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let over = match &self.replica {
            Some(replica) if cluster.has_others() => {
                (cluster.is_draining() && !replica.has_slots()).then_some(true)
            }
            // There is nobody to give anything to.
            _ => Some(false),
        };
        if let Some(over) = over {
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
        let quiet = || {
            let replica = self.replica.as_ref()?;
            let mut machines = replica.machines();
            let quiet = machines.all(|(_, machine)| machine.home().is_quiet());
            Some(quiet && self.operations == 0)
        };
        let done = quiet().unwrap_or(true) || self.now.wall >= self.stop_at;
        if done {
            for stopped in self.stopped.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = stopped.send(());
            }
        }
        // One of several still has to leave.
        done && self.cluster.is_none()
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Attach(pipe, queue) => {
                self.pipes.insert(pipe, Pipe { queue, port: None });
            }
            Message::Pipe(pipe, event) => self.pipe(pipe, event),
            Message::Erase(user, answer) => {
                let port = self.open(&user, Ear::Erase(answer));
                self.say(port, Word::Erase(user), false);
            }
            Message::Census(answer) => {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(self.census());
            }
            Message::View(answer) => {
                let view = self.cluster.as_ref().and_then(Cluster::seen);
                // Whoever asked may have stopped waiting.
                let _ = answer.send(view);
            }
            Message::Place(user, answer) => {
                let slot = slot_of(&self.key, self.cluster.is_none(), &user);
                let place = self.cluster.as_ref().and_then(|it| it.place(slot));
                // Whoever asked may have stopped waiting.
                let _ = answer.send(place);
            }
            Message::Shutdown(answer) => {
                self.stopped.push(answer);
                let wait = u64::try_from(self.options.shutdown.as_millis()).unwrap_or(u64::MAX);
                self.stop_at = self.now.wall.saturating_add(wait).min(self.stop_at);
                self.shutdown();
            }
            Message::Drain(answer) => {
                self.drained.push(answer);
                if let Some(cluster) = &mut self.cluster {
                    cluster.drain(self.now);
                }
                self.heed_members();
                if self.cluster.is_none() {
                    self.drained.drain(..).for_each(|drained| {
                        // Whoever asked may have stopped waiting.
                        let _ = drained.send(false);
                    });
                }
            }
            Message::Undrain => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.undrain(self.now);
                }
                self.drained.clear();
                self.heed_members();
            }
            Message::Leave(answer) => {
                match &mut self.cluster {
                    Some(cluster) => cluster.leave(self.now, answer),
                    // Whoever asked may have stopped waiting.
                    None => drop(answer.send(())),
                }
                self.heed_members();
            }
        }
    }

    /// Every session that has its home here ends.
    fn shutdown(&mut self) {
        let Some(replica) = &mut self.replica else {
            return;
        };
        let slots = replica
            .machines()
            .filter(|(_, machine)| machine.entities() > 0);
        let slots: Vec<Slot> = slots.map(|(slot, _)| slot).collect();
        for slot in slots {
            self.last_port += 1;
            replica.open(self.last_port, slot);
            let (now, rng) = (self.now, &mut self.rng);
            replica.say(now, rng, self.last_port, Word::Shutdown, true);
        }
    }

    fn census(&self) -> Census {
        let mut census = Census::default();
        let Some(replica) = &self.replica else {
            return census;
        };
        census.slots = replica.census();
        for (_, machine) in replica.machines() {
            let home = machine.home().census();
            census.attached += home.attached;
            census.detached += home.detached;
        }
        census.operations = self.operations;
        census.pipes = self.pipes.len();
        census.members = self.cluster.as_ref().map_or(1, Cluster::member_count);
        census.linked = self.cluster.as_ref().map_or(0, |it| it.linked().count());
        census
    }

    fn answer(&mut self, done: Done) {
        match done {
            Done::Members(token, result) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.answered(self.now, token, result);
                }
                self.heed_members();
            }
            Done::Slot(slot, token, answered) => {
                self.operations -= 1;
                if let Answered::Store(Err(error)) = &answered
                    && !matches!(error, StoreError::Conflict { .. })
                {
                    self.counters.store_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a store operation failed");
                }
                if let Some(replica) = &mut self.replica {
                    replica.answer(self.now, &mut self.rng, slot, token, answered);
                }
            }
        }
        while self.operations < self.options.operations {
            let Some((slot, token, ask)) = self.waiting.pop_front() else {
                break;
            };
            self.start_operation(slot, token, ask);
        }
    }

    /// Carries out effects until none is left: a full queue makes new events.
    fn carry_out(&mut self) {
        loop {
            // A process that was suspended finds here that it may not go on.
            if !self.may_serve() {
                return;
            }
            let Some(replica) = &mut self.replica else {
                return;
            };
            let effects: Vec<_> = replica.effects(self.now, &mut self.rng).collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.effect(effect);
            }
        }
    }

    fn effect(&mut self, effect: Effect<SlotHome>) {
        match effect {
            Effect::Deliver { port, message } => self.deliver(port, message),
            Effect::Request {
                slot,
                token,
                request,
            } => {
                if self.operations < self.options.operations {
                    self.start_operation(slot, token, request);
                } else {
                    self.waiting.push_back((slot, token, request));
                }
            }
            Effect::Send { node, frame } => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.send(node, &frame);
                }
            }
        }
    }

    fn start_operation(&mut self, slot: Slot, token: Token, ask: Ask) {
        self.operations += 1;
        let answers = self.answers.clone();
        match ask {
            Ask::Store(op) => {
                // The channel has room for an answer to everything that may be under way. If it
                // is closed, the task is gone and nobody waits.
                let done = move |answer: Answer| {
                    let answered = Answered::Store(answer.result);
                    let _ = answers.try_send(Done::Slot(slot, token, answered));
                };
                Arc::clone(&self.table).submit(op, Box::new(done));
            }
            Ask::Account(request) => {
                let accounts = Arc::clone(&self.accounts);
                tokio::spawn(async move {
                    let answered = Answered::Account(accounts.change(request).await);
                    // The task may be gone; then nobody waits for the answer.
                    let _ = answers.send(Done::Slot(slot, token, answered)).await;
                });
            }
        }
    }
}

/// Events of links, where there are links.
async fn some(
    links: &mut Option<mpsc::Receiver<cirrus_link::LinkEvent>>,
    told: &mut Vec<cirrus_link::LinkEvent>,
) -> usize {
    match links {
        Some(links) => links.recv_many(told, BATCH).await,
        None => std::future::pending().await,
    }
}
