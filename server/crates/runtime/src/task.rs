//! The task that owns the home.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cirrus_router::{Effect, Effects, Event, Home, PipeEvent, PipeId, PipeOut, Token};
use cirrus_stanza::StanzaError;
use cirrus_store::{Answer, Op, Outcome, StoreError, Table};
use tokio::sync::{mpsc, oneshot};

use crate::Accounts;
use crate::entropy::{SystemEntropy, wall_ms};
use crate::gate::Gate;
use crate::handle::{HomeHandle, Message};

/// Bounds of the shell.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Messages that wait for the home.
    pub inbox: usize,
    /// Store operations under way at once; more wait their turn, and while they do no new
    /// message is taken.
    pub operations: usize,
    /// How long a shutdown waits for the store.
    pub shutdown: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inbox: 4_096,
            operations: 1_024,
            shutdown: Duration::from_secs(10),
        }
    }
}

/// What the shell counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Pipes dropped because their queue was full.
    pub overflows: AtomicU64,
    /// Store operations that failed.
    pub store_failures: AtomicU64,
}

/// An answer for the home.
enum Done {
    Store(Token, Result<Outcome, StoreError>),
    Account(Token, Result<(), StanzaError>),
}

/// Starts the task on the current runtime and returns the way to speak to it.
pub fn start(
    home: Home,
    table: Arc<dyn Table>,
    accounts: Arc<dyn Accounts>,
    gate: Gate,
    options: Options,
) -> (HomeHandle, Arc<Counters>) {
    let (inbox, messages) = mpsc::channel(options.inbox);
    let (answers, done) = mpsc::channel(options.operations.max(1));
    let counters = Arc::new(Counters::default());
    let shell = Shell {
        home,
        table,
        accounts,
        gate,
        options,
        answers,
        counters: Arc::clone(&counters),
        rng: SystemEntropy::default(),
        now: wall_ms(),
        pipes: HashMap::new(),
        erasing: HashMap::new(),
        operations: 0,
        waiting: VecDeque::new(),
        last_token: 0,
        stopped: Vec::new(),
        stop_at: u64::MAX,
        effects: Effects::default(),
    };
    tokio::spawn(shell.run(messages, done));
    (HomeHandle { inbox }, counters)
}

struct Shell {
    home: Home,
    table: Arc<dyn Table>,
    accounts: Arc<dyn Accounts>,
    gate: Gate,
    options: Options,
    answers: mpsc::Sender<Done>,
    counters: Arc<Counters>,
    rng: SystemEntropy,
    now: u64,
    pipes: HashMap<PipeId, mpsc::Sender<PipeOut>>,
    erasing: HashMap<Token, oneshot::Sender<Result<(), String>>>,
    operations: usize,
    waiting: VecDeque<(Token, Op)>,
    last_token: Token,
    stopped: Vec<oneshot::Sender<()>>,
    stop_at: u64,
    effects: Effects,
}

/// Messages taken before the effects are carried out.
const BATCH: usize = 256;

impl Shell {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>, mut done: mpsc::Receiver<Done>) {
        let mut inbox = Vec::with_capacity(BATCH);
        let mut answers = Vec::with_capacity(BATCH);
        loop {
            let timer = self.timer();
            tokio::select! {
                biased;
                _ = done.recv_many(&mut answers, BATCH) => {}
                count = messages.recv_many(&mut inbox, BATCH), if self.waiting.is_empty() => {
                    if count == 0 {
                        return; // Nobody holds a handle any more.
                    }
                }
                () = tokio::time::sleep(timer) => {}
            }
            if !self.gate.is_open() {
                self.gate.opened().await;
            }
            self.now = wall_ms().max(self.now);
            for answer in answers.drain(..) {
                self.answer(answer);
            }
            for message in inbox.drain(..) {
                self.message(message);
            }
            if self.home.next_deadline().is_some_and(|at| at <= self.now) {
                self.event(Event::Tick);
            }
            self.carry_out();
            if self.is_done() {
                for stopped in self.stopped.drain(..) {
                    // Whoever asked may have stopped waiting.
                    let _ = stopped.send(());
                }
                return;
            }
        }
    }

    fn timer(&self) -> Duration {
        /// The longest sleep; waking more often than needed is harmless.
        const LONGEST_MS: u64 = 60_000;
        let due = self
            .home
            .next_deadline()
            .unwrap_or(u64::MAX)
            .min(self.stop_at);
        let due = due.saturating_sub(self.now);
        Duration::from_millis(due.clamp(1, LONGEST_MS))
    }

    fn is_done(&self) -> bool {
        let quiet = self.home.is_quiet() && self.operations == 0;
        !self.stopped.is_empty() && (quiet || self.now >= self.stop_at)
    }

    fn event(&mut self, event: Event) {
        self.home
            .handle(self.now, &mut self.rng, event, &mut self.effects);
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Attach(pipe, queue) => {
                self.pipes.insert(pipe, queue);
            }
            Message::Pipe(pipe, event) => {
                if matches!(event, PipeEvent::Closed { .. }) {
                    self.pipes.remove(&pipe);
                }
                self.event(Event::Pipe { pipe, event });
            }
            Message::Erase(user, answer) => {
                self.last_token += 1;
                let token = self.last_token;
                self.erasing.insert(token, answer);
                self.event(Event::Erase { user, token });
            }
            Message::Census(answer) => {
                // Whoever asked may have stopped waiting.
                let _ = answer.send(self.home.census());
            }
            Message::Shutdown(answer) => {
                self.stopped.push(answer);
                let wait = u64::try_from(self.options.shutdown.as_millis()).unwrap_or(u64::MAX);
                self.stop_at = self.now.saturating_add(wait).min(self.stop_at);
                self.event(Event::Shutdown);
            }
        }
    }

    fn answer(&mut self, done: Done) {
        match done {
            Done::Store(token, result) => {
                self.operations -= 1;
                if let Err(error) = &result
                    && !matches!(error, StoreError::Conflict { .. })
                {
                    self.counters.store_failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a store operation failed");
                }
                self.event(Event::Store { token, result });
            }
            Done::Account(token, result) => {
                self.operations -= 1;
                self.event(Event::Account { token, result });
            }
        }
        while self.operations < self.options.operations {
            let Some((token, op)) = self.waiting.pop_front() else {
                break;
            };
            self.start_operation(token, op);
        }
    }

    /// Carries out effects until none is left: a full queue makes new events.
    fn carry_out(&mut self) {
        while !self.effects.outputs.is_empty() {
            let outputs = std::mem::take(&mut self.effects.outputs);
            for output in outputs {
                // One node has no backup to wait for: every entry counts as confirmed.
                self.effect(output.effect);
            }
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Pipe { pipe, out } => self.give_pipe(pipe, out),
            Effect::Store { token, op } => {
                if self.operations < self.options.operations {
                    self.start_operation(token, op);
                } else {
                    self.waiting.push_back((token, op));
                }
            }
            Effect::Account { token, request } => {
                self.operations += 1;
                let (accounts, answers) = (Arc::clone(&self.accounts), self.answers.clone());
                tokio::spawn(async move {
                    let result = accounts.change(request).await;
                    // The home may be gone; then nobody waits for the answer.
                    let _ = answers.send(Done::Account(token, result)).await;
                });
            }
            // A node alone is home of everybody: nobody lives elsewhere.
            Effect::Frame { .. } => {}
            Effect::Erased { token, result } => {
                if let Some(answer) = self.erasing.remove(&token) {
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(result);
                }
            }
        }
    }

    fn start_operation(&mut self, token: Token, op: Op) {
        self.operations += 1;
        let answers = self.answers.clone();
        // The channel has room for an answer to everything that may be under way. If it is
        // closed, the home is gone and nobody waits.
        let done = move |answer: Answer| {
            let _ = answers.try_send(Done::Store(token, answer.result));
        };
        Arc::clone(&self.table).submit(op, Box::new(done));
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
            let event = PipeEvent::Closed { clean: false };
            self.event(Event::Pipe { pipe, event });
        }
    }
}
