//! Slots and their copies: deterministic machines, one for each slot, that live on whichever node
//! the view makes their home, and survive it.
//!
//! The home of a slot gives each input to the slot's machine and, with what time and chance add to
//! it, to the slot's backup, which runs the same machine and keeps what it says to itself. Nothing
//! that an input made due leaves the home before the backup has the input (*output commit*). So the
//! backup can take the home's place at any moment: what it then says again, its listeners know by
//! its number.
//!
//! [`Replica`] is what one node does of this, as a pure machine: frames of other nodes, words of
//! local ports, answers and time go in, effects come out. It never sees a socket, a clock or the
//! store, and it does not know what the machines do.
//!
//! * **Channels**: what one peer says to another arrives once and in order, across changes of home
//!   on both sides (see `replicated`). What is not taken is said again when a link or a home is
//!   new, when the listener misses something, and after a while.
//! * **View**: [`Replica::adopt`] takes the next one. Every member then tells every other what it
//!   has of the slots that are the other's now. Who is home of a slot takes it from its last home;
//!   if there is none any more, when all members have spoken, from its most advanced copy.
//! * **Hand-over**: a slot goes from home to home one at a time. Until it is asked for, the old
//!   home goes on, and the new one passes on what is meant for it.
//! * **Copies**: the home sends its state to the backup that the view names. Until that one has it,
//!   a backup of before goes on being one.

mod census;
mod copies;
mod frame;
mod home;
mod machine;
mod pace;
mod ports;
mod replicated;
mod slots;
mod take;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use cirrus_cluster::planted::{self, Bug};
use cirrus_cluster::{Placement, Slot, View};

pub use census::{Census, Work};
use frame::{Copied, Frame, Has, Taken};
use home::Said;
pub use machine::{Factory, Input, Machine, Output, Payload, Peer, Port, Random, Token};
use pace::Pacing;
use ports::Ports;
use slots::{Held, Place, SlotSet, Slots};

/// Bounds and times of a replica.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The machines' requests are answered by a store that only this node can open, so there will
    /// never be another node: nothing is kept for one.
    pub alone: bool,
    /// States under way to one node at once.
    pub states: usize,
    /// Messages kept for a slot that is being taken over, and messages of one slot that other
    /// slots have not taken. Past it, what comes from ports is dropped, and said again later.
    pub queue: usize,
    /// Milliseconds after which what was not taken is said again.
    pub repeat_ms: u64,
    /// Milliseconds that a slot of which no copy is left waits before it begins anew: by then a
    /// node that was removed while it lived has noticed.
    pub fresh_ms: u64,
    /// Most bytes of a state that goes to another node, which is one frame. A slot with more has no
    /// copy, and stands still while it should have its home elsewhere.
    pub state_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            alone: false,
            states: 64,
            queue: 4_096,
            repeat_ms: 2_000,
            fresh_ms: 3_300,
            state_bytes: 67_043_328,
        }
    }
}

/// What a node does for its replica, in order.
#[derive(Debug)]
pub enum Effect<M: Machine> {
    /// Give a message to a port of this node.
    Deliver {
        /// The port's number.
        port: u64,
        /// What for.
        message: M::Message,
    },
    /// Carry out a request and answer it with [`Replica::answer`].
    Request {
        /// The slot it is of.
        slot: Slot,
        /// The answer's token.
        token: Token,
        /// What to do.
        request: M::Request,
    },
    /// The home with which this port spoke is lost with every copy, so nobody knows of the port any
    /// more: it is closed.
    Lost {
        /// The port's number.
        port: u64,
    },
    /// Send a frame to a node with whom there is a link. A frame that can't be sent ends the link.
    Send {
        /// To whom.
        node: u64,
        /// The bytes.
        frame: Vec<u8>,
    },
}

/// The time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back.
    pub steady: u64,
    /// Unix milliseconds.
    pub wall: u64,
}

/// One node's part in the slots.
pub struct Replica<M: Machine> {
    me: u64,
    options: Options,
    factory: Box<dyn Factory<M> + Send>,
    view: Option<Arc<View>>,
    placement: Option<Placement>,
    /// The view's format.
    format: u16,
    /// Numbers of the view's members, in its order.
    nodes: Vec<u64>,
    links: BTreeSet<u64>,
    slots: Slots<M>,
    ports: Ports<M>,
    /// Whose inventories of this epoch are here.
    reported: BTreeSet<u64>,
    /// Inventories of epochs that this node does not know yet, by node.
    early: BTreeMap<u64, (u64, Vec<Has>)>,
    /// Messages between slots of this node.
    inner: VecDeque<Inner<M>>,
    /// Slots with something to do at that time, steady or wall.
    deadlines: BTreeSet<(u64, Slot)>,
    repeat_at: u64,
    /// When slots without any copy may begin anew.
    fresh_at: u64,
    /// What to confirm when the batch ends.
    confirm: BTreeSet<(u64, Slot)>,
    taken: BTreeMap<(Peer, Peer), u64>,
    /// Slots whose home is here since the batch began.
    arrived: SlotSet,
    diverged: u64,
    work: Work,
    pacing: Pacing,
    /// Slots here that have said something that is not taken.
    speaking: SlotSet,
    /// Slots here of which something waits for copies.
    waiting: SlotSet,
    /// Slots here that copies elsewhere are to be given up of.
    retiring: SlotSet,
    effects: Vec<Effect<M>>,
}

struct Inner<M: Machine> {
    from: Peer,
    to: Slot,
    place: Place,
    message: M::Message,
}

impl<M: Machine> Replica<M> {
    /// The replica of node `me`, without a view: it does nothing until it has one.
    pub fn new(me: u64, options: Options, factory: Box<dyn Factory<M> + Send>) -> Self {
        Self {
            me,
            options,
            factory,
            view: None,
            placement: None,
            format: 0,
            nodes: Vec::new(),
            links: BTreeSet::new(),
            slots: Slots::new(),
            ports: Ports::new(),
            reported: BTreeSet::new(),
            early: BTreeMap::new(),
            inner: VecDeque::new(),
            deadlines: BTreeSet::new(),
            repeat_at: 0,
            fresh_at: 0,
            confirm: BTreeSet::new(),
            taken: BTreeMap::new(),
            arrived: SlotSet::default(),
            diverged: 0,
            work: Work::default(),
            pacing: Pacing::default(),
            speaking: SlotSet::default(),
            waiting: SlotSet::default(),
            retiring: SlotSet::default(),
            effects: Vec::new(),
        }
    }

    /// What there is to do since the last call. To be called when a batch of events is over.
    pub fn effects(&mut self, now: Now, random: &mut dyn Random) -> std::vec::Drain<'_, Effect<M>> {
        if std::mem::take(&mut self.pacing.due) {
            self.pace();
            self.run(now, random);
        }
        self.tell_arrived();
        self.settle();
        self.effects.drain(..)
    }

    /// The epoch of the view; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.view.as_ref().map_or(0, |view| view.epoch)
    }

    /// The view; `None` before the first.
    pub fn view(&self) -> Option<&View> {
        self.view.as_deref()
    }

    /// The epoch in which a slot began whose home is here: nobody knows what was before.
    pub fn began(&self, slot: Slot) -> Option<u64> {
        self.slots.home(slot).map(|home| home.core.began())
    }

    /// What is here of a slot, in words for people.
    pub fn told(&self, slot: Slot) -> String {
        let want = self.slots.get(slot).want();
        match self.slots.get(slot).held() {
            Held::Nothing => format!("nothing, wants {want:?}"),
            Held::Home(home) => {
                let copies = home.copies.iter();
                let copies: Vec<_> = copies
                    .map(|it| (it.node, it.ready, it.sure, it.is_under_way()))
                    .collect();
                format!(
                    "home of term {}, copies {copies:?}, retired {:?}, copied {}",
                    home.core.term,
                    home.retired,
                    home.is_copied()
                )
            }
            Held::Copy(copy) => format!(
                "copy of term {}, sure {}, leader {:?}, others {:?}, wants {want:?}",
                copy.core.term, copy.sure, copy.leader, copy.others
            ),
        }
    }

    /// The machine of a slot whose home is here.
    pub fn machine(&self, slot: Slot) -> Option<&M> {
        self.slots.home(slot).map(|home| &home.core.machine)
    }

    /// The machines whose homes are here, by slot.
    pub fn machines(&self) -> impl Iterator<Item = (Slot, &M)> {
        let homes = self.slots.homes().into_iter();
        homes.filter_map(|slot| Some((slot, self.machine(slot)?)))
    }

    /// Whether this node is home of anything, or keeps a copy of anything.
    pub fn has_slots(&self) -> bool {
        !self.slots.homes().is_empty() || !self.slots.copies().is_empty()
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now, random: &mut dyn Random) {
        while let Some((at, slot)) = self.deadlines.first().copied() {
            if at > now.wall {
                break;
            }
            self.deadlines.remove(&(at, slot));
            self.slots.get_mut(slot).deadline = None;
            if let Some(home) = self.slots.home(slot) {
                if home
                    .core
                    .machine
                    .next_deadline()
                    .is_some_and(|at| at <= now.wall)
                {
                    self.feed(now, random, slot, Some(Input::Tick), Said::default());
                } else {
                    self.set_deadline(slot);
                }
            }
        }
        if now.steady >= self.repeat_at {
            self.repeat_at = now.steady + self.options.repeat_ms / 2;
            self.repeat(now, random);
        }
        self.run(now, random);
    }

    /// When [`Replica::tick`] is next due, on each clock.
    pub fn next_deadline(&self) -> Now {
        Now {
            steady: self.repeat_at,
            wall: self.deadlines.first().map_or(u64::MAX, |(at, _)| *at),
        }
    }

    /// A request was answered. An answer that nobody waits for is ignored.
    pub fn answer(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        slot: Slot,
        token: Token,
        answer: M::Answer,
    ) {
        let Some(home) = self.slots.home(slot) else {
            return;
        };
        if self.options.alone || home.core.pending.contains_key(&token) {
            let input = Input::Answer { token, answer };
            self.feed(now, random, slot, Some(input), Said::default());
            self.run(now, random);
        }
    }

    /// The next view. `Err` = it is not newer than the last, or this node is no member of it.
    pub fn adopt(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        view: Arc<View>,
    ) -> Result<(), Stale> {
        let me = view
            .members
            .iter()
            .any(|member| member.node_id() == self.me);
        let newer = match planted::is(Bug::ViewBackwards) {
            true => view.epoch != self.epoch(),
            false => view.epoch > self.epoch(),
        };
        if !newer || !me {
            return Err(Stale);
        }
        self.take_view(now, random, view);
        self.run(now, random);
        Ok(())
    }

    /// There is a link with a node: whatever was under way to it before is lost.
    pub fn link_up(&mut self, now: Now, random: &mut dyn Random, node: u64) {
        self.unsend(node);
        self.links.insert(node);
        self.greet(node);
        self.run(now, random);
    }

    /// The link with a node is gone.
    pub fn link_down(&mut self, node: u64) {
        self.links.remove(&node);
        self.unsend(node);
    }

    /// A frame came over the link with a node. What can't be understood is ignored: who said it
    /// says it again.
    pub fn frame(&mut self, now: Now, random: &mut dyn Random, node: u64, bytes: &[u8]) {
        let Some(frame) = Frame::parse(bytes) else {
            return;
        };
        // A node that is no member has nothing to say; one that will be says it again.
        if !self.nodes.contains(&node) {
            if let Frame::Inventory { epoch, has } = frame {
                self.early.insert(node, (epoch, has));
            }
            return;
        }
        match frame {
            Frame::Inventory { epoch, has } => self.inventory(now, random, node, epoch, has),
            Frame::Ask { epoch } if epoch == self.epoch() => self.send_inventory(node),
            Frame::Ask { .. } => {}
            Frame::Take { epoch, slot } => self.hand_over(node, epoch, slot),
            Frame::Nothing { epoch, slot } => self.nothing(node, epoch, slot),
            Frame::State {
                epoch,
                slot,
                image,
                copies,
            } => self.state(now, random, node, (epoch, slot), (&image, &copies)),
            Frame::Holds { slots } => self.holds(node, &slots),
            Frame::Idle { slots } => self.idle(node, &slots),
            Frame::Began { slots } => self.lose_sessions(&slots),
            Frame::Counts { slot, term } => self.counts(node, slot, term),
            Frame::Copies { slots } => self.slots.keep_only(node, &slots),
            Frame::Entry {
                slot,
                term,
                number,
                entry,
            } => self.entry(node, slot, (term, number), &entry),
            Frame::Acks { has, taken } => {
                for it in has {
                    self.has(node, it.slot, (it.term, it.number, it.sure));
                }
                for it in taken {
                    self.was_taken(it.from, it.to, it.seq);
                }
            }
            Frame::Lost { slot, diverged } => self.lost(node, slot, diverged),
            Frame::Drop { slot, term } => {
                self.slots.drop_copy(slot, node, term);
                if !self.slots.is_home(slot) {
                    self.send(node, &Frame::Dropped { slot, term });
                }
            }
            Frame::Dropped { slot, term } => self.dropped(node, slot, term),
            Frame::Message {
                from,
                to,
                seq,
                prev,
                hops,
                message,
            } => self.message(now, random, (from, to), Place { seq, prev, hops }, &message),
            Frame::Gap { from, to } => self.gap(from, to),
        }
        self.run(now, random);
    }

    fn home_of(&self, slot: Slot) -> Option<u64> {
        let placement = self.placement.as_ref()?;
        self.nodes.get(placement.home(slot)).copied()
    }

    fn backup_of(&self, slot: Slot) -> Option<u64> {
        let placement = self.placement.as_ref()?;
        self.nodes.get(placement.backup(slot)?).copied()
    }

    fn send(&mut self, node: u64, frame: &Frame<'_>) {
        let work = &mut self.work;
        let count = match frame {
            Frame::Entry { .. } => &mut work.entries,
            Frame::Message { .. } => &mut work.messages,
            Frame::Acks { .. } => &mut work.acks,
            _ => &mut work.others,
        };
        if self.links.contains(&node) {
            *count += 1;
            self.push(node, frame.bytes());
        }
    }

    /// Sends an entry, which is encoded once for all copies.
    fn send_entry(&mut self, node: u64, frame: Vec<u8>) {
        if self.links.contains(&node) {
            self.work.entries += 1;
            self.push(node, frame);
        }
    }

    /// Sends what was said before, over a link that is new.
    fn send_again(&mut self, node: u64, frame: Vec<u8>) {
        if self.links.contains(&node) {
            self.work.others += 1;
            self.push(node, frame);
        }
    }

    fn push(&mut self, node: u64, frame: Vec<u8>) {
        self.work.bytes += frame.len() as u64;
        self.effects.push(Effect::Send { node, frame });
    }

    fn set_deadline(&mut self, slot: Slot) {
        let due = self.machine(slot).and_then(Machine::next_deadline);
        let here = self.slots.get_mut(slot);
        // One that has become later fires early and finds nothing to do.
        if let Some(at) = due
            && here.deadline.is_none_or(|set| at < set)
        {
            if let Some(old) = here.deadline.replace(at) {
                self.deadlines.remove(&(old, slot));
            }
            self.deadlines.insert((at, slot));
        }
    }

    /// Carries on what one event began between slots of this node.
    fn run(&mut self, now: Now, random: &mut dyn Random) {
        while let Some(inner) = self.inner.pop_front() {
            let Inner {
                from,
                to,
                place,
                message,
            } = inner;
            self.arrive(now, random, (from, Peer::Slot(to)), place, (message, None));
        }
    }

    /// Confirms what the events since the last call did, once for each copy and channel, with one
    /// frame to each node.
    fn settle(&mut self) {
        let mut acks: BTreeMap<u64, (Vec<Copied>, Vec<Taken>)> = BTreeMap::new();
        for (node, slot) in std::mem::take(&mut self.confirm) {
            if let Held::Copy(copy) = self.slots.get(slot).held()
                && copy.leader == Some(node)
            {
                acks.entry(node).or_default().0.push(Copied {
                    slot,
                    term: copy.core.term,
                    number: copy.core.entry,
                    sure: copy.sure,
                });
            }
        }
        for ((from, to), seq) in std::mem::take(&mut self.taken) {
            let node = match from {
                Peer::Port(port) => Some(port.node),
                Peer::Slot(slot) => self.home_of(slot),
            };
            if let Some(node) = node {
                let taken = Taken { from, to, seq };
                acks.entry(node).or_default().1.push(taken);
            }
        }
        for (node, (has, taken)) in acks {
            self.send(node, &Frame::Acks { has, taken });
        }
    }
}

/// A view that can't be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the view is not newer than the last one, or does not name this node")]
pub struct Stale;
