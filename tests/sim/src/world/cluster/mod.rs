//! A whole cluster: nodes as a server runs them, each with clocks of its own, over links that
//! break, on one store.

pub mod grow;
mod incidents;
mod links;
mod places;
mod process;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use cirrus_cluster::Slot;
use cirrus_node::{Answered, Ask, Effect, Standing};
use cirrus_router::codec::{FORMAT, OLDEST, Older};
use cirrus_router::{PipeEvent, PipeId, PipeOut};
use cirrus_store::{Op, Outcome, StoreError};

use super::{Answer, Happening, World, blobs};
use crate::check::Violation;
use crate::plan::{Incident, Nodes};

use links::Links;
pub use process::Input;
use process::{Process, Stage};

/// How often it is looked whether a drain is over, milliseconds.
const LOOK_MS: u64 = 50;

/// Something that happens in a cluster.
pub enum Step {
    /// A timer of a node.
    Wake(u64),
    /// A suspended node goes on.
    Resume(u64),
    /// A frame arrives.
    Frame(Box<links::Frame>),
    /// A node learns something about a link.
    Told(u64, Box<Input>),
    /// A node dials another.
    Dial(u64, u64),
    /// The store answers a node.
    Answer(u64, Asker, Box<Op>, Box<Answer>),
    /// A process starts on a machine.
    Start(usize),
    /// Frames that were held back pass again, from one machine to another.
    Unblock(usize, usize),
    /// Is a node's drain over?
    Look(u64),
    /// A node that is drained breaks its connections.
    Part(u64),
    /// A drain is taken back.
    Undrain(u64),
    /// All nodes die but this one.
    Bereave(u64),
    /// The node dies that erases an account.
    KillHome(usize),
    /// The links of a process that ended in order are closed.
    Close(u64, u64),
}

/// Who asked the store.
#[derive(Clone, Copy, Debug)]
pub enum Asker {
    Slot(Slot, u64),
    Membership(u64),
}

/// A machine that nodes run on, one after the other.
#[derive(Default)]
struct Machine {
    zone: usize,
    /// A process starts there soon.
    starts: bool,
}

/// The nodes and what is between them.
pub struct Cluster {
    processes: BTreeMap<u64, Process>,
    machines: Vec<Machine>,
    links: Links,
    /// What is to happen, after so many operations of clients; and what is due.
    coming: BTreeMap<usize, Vec<Incident>>,
    due: VecDeque<Incident>,
    tried_at: u64,
    /// Until when a node may be lost by what has happened.
    danger_until: u64,
    /// Nodes may be lost faster than copies are made.
    reckless: bool,
    /// Nodes that were lost and that others have not made up for yet.
    lost: BTreeSet<u64>,
    /// Accounts whose homes are to die while they are erased.
    doomed: BTreeSet<usize>,
    /// Hash of what was sent as a session's nth stanza.
    sent: BTreeMap<(u64, u64), u64>,
    /// By account: the epoch in which its slot began, and when such a home was last seen.
    lives: BTreeMap<usize, (u64, u64)>,
    /// The newest view that a node serves in.
    pub epoch: u64,
    /// Programs of two formats run, until no older one is left.
    pub mixed: bool,
    /// What a trace said last of a node's part in a slot.
    told: BTreeMap<(u64, Slot), String>,
}

impl Cluster {
    /// Nothing runs yet.
    pub fn new(nodes: Nodes, mixed: bool) -> Self {
        let Nodes {
            machines,
            zones,
            reckless,
            incidents,
            ..
        } = nodes;
        let machine = |n| Machine {
            zone: n % zones.max(1),
            starts: false,
        };
        Self {
            processes: BTreeMap::new(),
            machines: (0..machines).map(machine).collect(),
            links: Links::default(),
            coming: incidents,
            due: VecDeque::new(),
            tried_at: 0,
            danger_until: 0,
            reckless,
            lost: BTreeSet::new(),
            doomed: BTreeSet::new(),
            sent: BTreeMap::new(),
            lives: BTreeMap::new(),
            epoch: 0,
            mixed,
            told: BTreeMap::new(),
        }
    }

    /// The newest format of the program that starts next, by chance; an older one does not come
    /// back when every node has been newer.
    fn program(&self, chance: u128) -> u8 {
        let views = self.processes.values().filter_map(|it| it.node.replica());
        let mut commons = views.filter_map(|it| it.view()?.common());
        let risen = commons.any(|format| format > OLDEST.into());
        match self.mixed && !risen && !chance.is_multiple_of(4) {
            true => OLDEST,
            false => FORMAT,
        }
    }

    /// Everything that was planned has happened.
    pub fn is_through(&self) -> bool {
        self.coming.is_empty() && self.due.is_empty()
    }

    /// Serving nodes that the view which a node has just adopted lacks.
    fn removed(&self, id: u64) -> Vec<u64> {
        let all = self.processes.iter();
        let stays = all.filter(|(_, it)| it.serves() && it.stage != Stage::Leaves);
        let named = |other: u64| self.processes.get(&id).is_some_and(|it| it.names(other));
        let removed = stays
            .map(|(other, _)| *other)
            .filter(|other| !named(*other));
        removed.collect()
    }

    fn accepting(&self) -> Vec<u64> {
        let accepts = |process: &&Process| process.accepts();
        let all = self.processes.values().filter(accepts);
        all.map(|process| process.node.id()).collect()
    }
}

impl World {
    /// A node that a new connection comes to.
    pub(super) fn accepting(&mut self) -> Option<u64> {
        let all = self.cluster.as_ref()?.accepting();
        (!all.is_empty()).then(|| all[self.rng.index(all.len())])
    }

    /// Whether that node is there.
    pub(super) fn runs(&self, id: u64) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|cluster| cluster.processes.contains_key(&id))
    }

    pub(super) fn has_accepting(&self) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.processes.values().any(Process::accepts))
    }

    pub(super) fn cluster_step(&mut self, step: Step) {
        match step {
            Step::Wake(id) => self.wake(id),
            Step::Resume(id) => self.resume(id),
            Step::Frame(frame) => self.frame_arrives(*frame),
            Step::Told(id, input) => self.feed(id, *input),
            Step::Dial(from, to) => self.dial_node(from, to),
            Step::Answer(id, asker, op, answer) => self.node_answered(id, asker, *op, *answer),
            Step::Start(machine) => self.start_on(machine),
            Step::Unblock(from, to) => self.unblock(from, to),
            Step::Look(id) => self.look_at_drain(id),
            Step::Part(id) => self.part(id),
            Step::Undrain(id) => self.undrain(id),
            Step::Bereave(survivor) => self.bereave(survivor),
            Step::KillHome(account) => self.kill_home(account),
            Step::Close(a, b) => self.break_link(a, b, false),
        }
    }

    /// A connection speaks to its node.
    pub(super) fn node_pipe(&mut self, pipe: PipeId, event: PipeEvent) {
        self.feed(pipe.node, Input::Pipe(pipe, event));
    }

    /// Something happens to a node.
    pub(super) fn feed(&mut self, id: u64, input: Input) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(process) = cluster.processes.get_mut(&id) else {
            return;
        };
        if process.suspended {
            process.inbox.push_back(input);
            return;
        }
        let now = process.now(self.now);
        self.report.events += 1;
        let _old = Older::than(process.newest);
        process.node.begin(now, &mut self.chance);
        process.take(now, &mut self.chance, Some(input));
        if let Some(until) = process.stall.take() {
            process.suspended = true;
            return self.at(until, Happening::Cluster(Step::Resume(id)));
        }
        self.carry_out(id);
    }

    fn wake(&mut self, id: u64) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(process) = cluster.processes.get_mut(&id) else {
            return;
        };
        if process.wake != Some(self.now) {
            return;
        }
        process.wake = None;
        if process.suspended {
            return;
        }
        let now = process.now(self.now);
        let _old = Older::than(process.newest);
        process.node.begin(now, &mut self.chance);
        process.take(now, &mut self.chance, None);
        self.carry_out(id);
    }

    fn resume(&mut self, id: u64) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(process) = cluster.processes.get_mut(&id) else {
            return;
        };
        process.suspended = false;
        let inbox = std::mem::take(&mut process.inbox);
        self.tell(|| format!("node {id} goes on"));
        // It was stopped before what it did last had left.
        self.carry_out(id);
        for input in inbox {
            self.feed(id, input);
        }
        // If it is there still, it was not missed.
        let processes = self.cluster.as_mut().map(|it| &mut it.processes);
        if let Some(process) = processes.and_then(|all| all.get_mut(&id)) {
            process.troubled = None;
        }
    }

    /// Carries out what a node wants, until that is nothing.
    fn carry_out(&mut self, id: u64) {
        let mut effects = Vec::new();
        loop {
            let Some(process) = self
                .cluster
                .as_mut()
                .and_then(|cluster| cluster.processes.get_mut(&id))
            else {
                return;
            };
            let now = process.now(self.now);
            let _old = Older::than(process.newest);
            process.node.effects(now, &mut self.chance, &mut effects);
            if effects.is_empty() {
                break;
            }
            for effect in effects.drain(..) {
                self.node_effect(id, effect);
            }
        }
        self.look_at_lives(id);
        self.tell_places(id);
        self.set_wake(id);
    }

    fn set_wake(&mut self, id: u64) {
        let Some(process) = self
            .cluster
            .as_mut()
            .and_then(|cluster| cluster.processes.get_mut(&id))
        else {
            return;
        };
        let due = process.due().max(self.now + 1);
        if process.wake.is_none_or(|at| due < at) {
            process.wake = Some(due);
            self.at(due, Happening::Cluster(Step::Wake(id)));
        }
    }

    fn node_effect(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Pipe { pipe, out } => self.node_emits(pipe, out),
            Effect::Erased { token, result } => self.erased(token, result),
            Effect::Unparked { .. } => {}
            Effect::Ask { slot, token, ask } => match ask {
                Ask::Store(op) => self.node_asks(id, Asker::Slot(slot, token), op),
                Ask::Blob(op) => self.ask_blob(blobs::Asker::Node(id, slot, token), op),
                Ask::Account(_) => {}
            },
            Effect::Membership { token, op } => self.node_asks(id, Asker::Membership(token), op),
            Effect::Send { node, frame } => self.send_frame(id, node, frame),
            Effect::Links(links) => self.keep_links(id, links),
            Effect::Standing(standing) => self.stands(id, standing),
            // Connections break often enough without.
            Effect::Part { .. } => {}
            Effect::Left => {
                self.tell(|| format!("node {id} has left"));
                self.end_process(id, false);
            }
        }
    }

    fn node_emits(&mut self, pipe: PipeId, out: PipeOut) {
        if let PipeOut::Stanza { n, stanza } = &out
            && let Some(session) = self.session_of(pipe)
            && let Some(cluster) = &mut self.cluster
        {
            let mut hasher = DefaultHasher::new();
            stanza.to_bytes().hash(&mut hasher);
            let hash = hasher.finish();
            let before = *cluster.sent.entry((session, *n)).or_insert(hash);
            if before != hash {
                let n = *n;
                let text = format!("session {session} gets two stanzas as its number {n}");
                self.wrong(Violation::Copy(text));
            }
        }
        if matches!(out, PipeOut::Close { .. }) {
            // What was acknowledged lately met a session that had ended.
            self.doubt_acks(pipe);
        }
        self.emit(pipe, out);
    }

    fn stands(&mut self, id: u64, standing: Standing) {
        self.tell(|| format!("node {id} stands: {standing:?}"));
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if let Standing::Serving { epoch } = standing
            && epoch > cluster.epoch
        {
            cluster.epoch = epoch;
            let removed = cluster.removed(id);
            cluster.lost.extend(removed);
            self.doubt_parting();
        }
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        // Whoever runs it sees why it waits.
        let late = matches!(&standing, Standing::Waiting { why } if why.contains("writes format"));
        let stopped = late || matches!(standing, Standing::Stopped(_));
        let Some(process) = cluster.processes.get_mut(&id) else {
            return;
        };
        process.standing = standing;
        if stopped {
            let machine = process.machine;
            self.end_process(id, true);
            self.start_soon(machine, 3_000);
        }
        let until = self.resumable_until();
        self.history.detached_anew(self.now, until);
    }

    fn node_asks(&mut self, id: u64, asker: Asker, op: Op) {
        let fate = self.store.fate(&mut self.rng);
        self.tell(|| {
            format!(
                "node {id} store {asker:?} {fate:?} {}",
                crate::tell::op(&op)
            )
        });
        let answer = self.answer(fate, &op);
        let step = Step::Answer(id, asker, Box::new(op), Box::new(answer));
        self.soon(self.plan.faults.slowest_ms, Happening::Cluster(step));
    }

    fn node_answered(&mut self, id: u64, asker: Asker, op: Op, answer: Answer) {
        let runs = |cluster: &Cluster| cluster.processes.contains_key(&id);
        if !self.cluster.as_ref().is_some_and(runs) {
            return;
        }
        let result = match answer {
            Answer::Do => {
                self.note_late(id, asker, &op);
                self.store.apply(op)
            }
            Answer::Done(result) => result,
        };
        self.tell(|| {
            let result = crate::tell::answer(&result);
            format!("node {id} answer {asker:?} {result}")
        });
        self.feed(id, Input::of_store(asker, result));
    }

    /// A process is no more.
    fn end_process(&mut self, id: u64, lost: bool) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(process) = cluster.processes.remove(&id) else {
            return;
        };
        if lost {
            cluster.lost.insert(id);
        }
        self.died_at = self.now;
        self.doubt_parting();
        let strays = lost && !self.is_erasing();
        self.orphan_answers(id, strays);
        match lost {
            true => self.lose_links(id, process.machine),
            false => self.close_links(id),
        }
        let pipes = self.pipes.keys().filter(|pipe| pipe.node == id);
        for pipe in pipes.copied().collect::<Vec<_>>() {
            self.doubt_acks(pipe);
            if let Some(session) = self.session_of(pipe) {
                // What it was given since did not reach it.
                let since = process.troubled.unwrap_or(self.now);
                let until = self.resumable_until();
                self.history.detached(session, since, until);
            }
            self.cut_pipe(pipe);
        }
    }

    /// Every slot has its home, and every node reaches every other.
    pub(super) fn is_settled(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| {
            let moves = cluster.censuses().any(|it| it.awaited + it.leaving > 0);
            let linked = cluster.processes.keys().all(|id| cluster.is_linked(*id));
            cluster.lost.is_empty() && cluster.links.blocked.is_empty() && linked && !moves
        })
    }

    /// Whether what a client acknowledges to a node reaches its home soon, unless the node dies.
    pub(super) fn passes_on(&self, id: u64) -> bool {
        let Some(cluster) = &self.cluster else {
            return true;
        };
        cluster.processes.get(&id).is_some_and(|process| {
            let cut = |(from, to): &(usize, usize)| [from, to].contains(&&process.machine);
            let runs = !process.suspended && process.stall.is_none();
            let now = process.now(self.now);
            let serves = process.node.may_serve(now.steady);
            let blocked = cluster.links.blocked.keys().any(cut);
            runs && serves && !blocked && cluster.is_linked(id)
        })
    }

    /// What a dead node asked for lands, vanishes, or, if it may, lands late.
    fn orphan_answers(&mut self, id: u64, strays: bool) {
        let its = |happening: &Happening| match happening {
            Happening::Cluster(Step::Answer(of, ..)) => *of == id,
            _ => false,
        };
        let queued = self.queue.iter().filter(|(_, happening)| its(happening));
        let keys: Vec<_> = queued.map(|(key, _)| *key).collect();
        for key in keys {
            let gone = self.queue.remove(&key).map(|it| *it);
            let Some(Happening::Cluster(Step::Answer(_, _, op, answer))) = gone else {
                continue;
            };
            if matches!(*answer, Answer::Do) {
                self.orphan(op, strays);
            }
        }
    }

    /// A connection is cut on both sides.
    fn cut_pipe(&mut self, pipe: PipeId) {
        let Some(index) = self.lose_pipe(pipe, false) else {
            return;
        };
        let client = &mut self.clients[index];
        if client.pipe == pipe && client.phase != crate::client::Phase::Off {
            client.phase = crate::client::Phase::Broken;
        }
    }

    /// Asks a node to erase an account.
    pub(super) fn erase_at_a_node(&mut self, account: usize, token: u64) {
        if let Some(id) = self.accepting() {
            let user = self.user(account).clone();
            self.feed(id, Input::Erase(token, user));
            let cluster = self.cluster.as_ref();
            if cluster.is_some_and(|cluster| cluster.doomed.contains(&account)) {
                self.soon(300, Happening::Cluster(Step::KillHome(account)));
            }
        }
    }

    /// The first nodes start.
    pub(super) fn begin_cluster(&mut self, nodes: Nodes) {
        let count = nodes.count;
        self.report.reckless = nodes.reckless;
        // An upgrade that is under way, back and forth.
        let mixed = self.report.seed.is_multiple_of(2);
        self.cluster = Some(Cluster::new(nodes, mixed));
        for machine in 0..count {
            self.start_soon(machine, 500);
        }
    }

    /// Time begins for a process.
    fn begin_wake(&mut self, id: u64) {
        self.carry_out(id);
    }

    /// The nodes and their slots have come to rest.
    pub(super) fn check_cluster(&mut self) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let mut found = Vec::new();
        let (mut homes, mut epochs) = (0, BTreeSet::new());
        let lone = cluster.processes.len() == 1;
        for (id, process) in &cluster.processes {
            let census = process.node.census();
            let slots = census.slots;
            homes += slots.homes;
            epochs.extend(process.node.replica().map(cirrus_replica::Replica::epoch));
            let single = slots.single_copy > 0 && !lone;
            if slots.awaited + slots.leaving > 0 || single || !process.node.is_quiet() {
                found.push(Violation::Stuck(format!("node {id}: {census:?}")));
            }
            if process.stage != Stage::Serves {
                let text = format!("node {id} does not leave: {:?}, {slots:?}", process.stage);
                found.push(Violation::Stuck(text));
            }
            if slots.diverged > 0 {
                let text = format!("copies of node {id}'s slots have diverged");
                found.push(Violation::Copy(text));
            }
        }
        if homes != usize::from(cirrus_cluster::SLOTS) || epochs.len() != 1 {
            let text = format!("{homes} homes, in views {epochs:?}");
            found.push(Violation::Stuck(text));
        }
        for violation in found {
            self.wrong(violation);
        }
    }

    /// Whether a session that can't be resumed is a fault.
    pub(super) fn keeps_sessions(&self) -> bool {
        let strict = |cluster: &Cluster| !cluster.reckless;
        self.cluster.as_ref().is_some_and(strict)
    }
}

impl Input {
    fn of_store(asker: Asker, result: Result<Outcome, StoreError>) -> Self {
        match asker {
            Asker::Slot(slot, token) => Self::Answer(slot, token, Answered::Store(result)),
            Asker::Membership(token) => Self::Membership(token, result),
        }
    }
}
