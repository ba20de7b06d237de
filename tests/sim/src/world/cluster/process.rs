//! One process: a node, its clocks, and what waits for it while it does not run.

use std::collections::{BTreeMap, VecDeque};

use cirrus_cluster::Slot;
use cirrus_jid::BareJid;
use cirrus_node::{Answered, Node, Standing};
use cirrus_replica::Now;
use cirrus_router::{PipeEvent, PipeId};
use cirrus_store::{Outcome, StoreError};

use crate::rng::Rng;

/// What happens to a node.
pub enum Input {
    /// A link, with its number, and the format that both sides know.
    LinkUp(u64, u64, u8),
    LinkDown(u64, u64),
    Frame(u64, u64, Vec<u8>),
    Answer(Slot, u64, Answered),
    Membership(u64, Result<Outcome, StoreError>),
    Pipe(PipeId, PipeEvent),
    Erase(u64, BareJid),
    Drain,
    Undrain,
    Leave,
}

/// What a process does besides serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Serves,
    /// It gives its slots away.
    Drains,
    /// It has none, and takes no more connections.
    Parts,
    Leaves,
}

/// A process.
pub struct Process {
    pub node: Node,
    pub machine: usize,
    /// The newest format that its program knows.
    pub newest: u8,
    pub clock: Clock,
    /// When its next timer is set to, in true time.
    pub wake: Option<u64>,
    /// It does not run.
    pub suspended: bool,
    /// Since when it may not reach others.
    pub troubled: Option<u64>,
    /// It is to be suspended before its next output, until then.
    pub stall: Option<u64>,
    pub inbox: VecDeque<Input>,
    /// What connections say while it may not serve.
    pub waiting: VecDeque<Input>,
    pub stage: Stage,
    pub standing: Standing,
    /// The links that count, by node.
    pub links: BTreeMap<u64, u64>,
    /// Whom it keeps links with, and whether it dials.
    pub keeps: BTreeMap<u64, bool>,
}

/// A machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub born: u64,
    /// What the steady clock showed then.
    pub steady: u64,
    /// How much faster it runs than true time, in millionths.
    pub drift: i64,
    /// How far the wall clock is ahead, milliseconds.
    pub skew: i64,
}

impl Clock {
    pub fn now(&self, time: u64) -> Now {
        let run = time.saturating_sub(self.born);
        let extra = run.cast_signed() * self.drift / 1_000_000;
        Now {
            steady: (self.steady + run).saturating_add_signed(extra),
            wall: time.saturating_add_signed(self.skew),
        }
    }

    /// The true time at which the clocks show that, whichever does first.
    fn due(&self, at: Now) -> u64 {
        let run = at.steady.saturating_sub(self.steady);
        let run = u128::from(run) * 1_000_000 / (1_000_000 + i128::from(self.drift)).unsigned_abs();
        // Rounded down on both ways.
        let steady = self
            .born
            .saturating_add(u64::try_from(run).unwrap_or(u64::MAX))
            .saturating_add(1);
        steady.min(at.wall.saturating_add_signed(-self.skew))
    }
}

impl Process {
    pub fn new(node: Node, (machine, newest): (usize, u8), clock: Clock) -> Self {
        Self {
            node,
            machine,
            newest,
            clock,
            wake: None,
            suspended: false,
            stall: None,
            troubled: None,
            inbox: VecDeque::new(),
            waiting: VecDeque::new(),
            stage: Stage::Serves,
            standing: Standing::Joining,
            links: BTreeMap::new(),
            keeps: BTreeMap::new(),
        }
    }

    pub fn now(&self, time: u64) -> Now {
        self.clock.now(time)
    }

    pub fn due(&self) -> u64 {
        self.clock.due(self.node.wake_at())
    }

    /// Whether its view names a node.
    pub fn names(&self, id: u64) -> bool {
        let view = self.node.replica().and_then(cirrus_replica::Replica::view);
        view.is_some_and(|view| view.members.iter().any(|member| member.node_id() == id))
    }

    /// Whether the home of an account is here.
    pub fn is_home_of(&self, user: &BareJid) -> bool {
        let slot = self.node.place(user).map(|place| place.slot);
        slot.is_some_and(|slot| self.is_home(slot))
    }

    /// Whether it is home of a slot.
    pub fn is_home(&self, slot: Slot) -> bool {
        let replica = self.node.replica();
        replica.is_some_and(|replica| replica.machine(slot).is_some())
    }

    pub fn serves(&self) -> bool {
        matches!(self.standing, Standing::Serving { .. } | Standing::Degraded)
    }

    /// Whether new connections come to it.
    pub fn accepts(&self) -> bool {
        self.serves() && matches!(self.stage, Stage::Serves | Stage::Drains)
    }

    /// Takes an input, and what connections have said before if the node may serve now.
    pub fn take(&mut self, now: Now, rng: &mut Rng, input: Option<Input>) {
        match input {
            Some(Input::Pipe(..) | Input::Erase(..)) => self.waiting.extend(input),
            Some(input) => self.take_now(now, rng, input),
            None => {}
        }
        while self.node.may_serve(now.steady)
            && let Some(input) = self.waiting.pop_front()
        {
            self.take_now(now, rng, input);
        }
    }

    fn take_now(&mut self, now: Now, rng: &mut Rng, input: Input) {
        match input {
            Input::Pipe(pipe, event) => self.node.pipe(now, rng, pipe, event),
            Input::Erase(token, user) => self.node.erase(now, rng, token, user),
            Input::LinkUp(node, link, format) => {
                if self.links.insert(node, link).is_some() {
                    self.node.link_down(now, rng, node);
                }
                self.node.link_up(now, rng, node, format.into());
            }
            Input::LinkDown(node, link) => {
                if self.links.get(&node) == Some(&link) {
                    self.links.remove(&node);
                    self.node.link_down(now, rng, node);
                }
            }
            Input::Frame(node, link, frame) => {
                if self.links.get(&node) == Some(&link) {
                    self.node.frame(now, rng, node, &frame);
                }
            }
            Input::Answer(slot, token, answer) => {
                self.node.answered(now, rng, (slot, token), answer);
            }
            Input::Membership(token, result) => {
                self.node.membership_answered(now, rng, token, result);
            }
            Input::Drain => self.node.drain(now, rng),
            Input::Undrain => self.node.undrain(now, rng),
            Input::Leave => self.node.leave(now, rng),
        }
    }
}
