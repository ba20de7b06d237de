//! One node of a cluster as a pure machine: membership, slots, and the connections that speak with
//! them.
//!
//! [`Node`] is what the server runs and what the simulation runs. Events of links, of connections,
//! of the store and of time go in; what is to be sent, written, asked and told comes out. It never
//! sees a socket, a clock or the store.
//!
//! * Membership comes first in everything: it may say that nothing else may be done. What slots
//!   make due leaves only while [`Node::may_serve`] holds.
//! * A connection speaks through a *port* to the home of its account, wherever that is.
//! * A node that will always be alone has no membership: it has one slot, and it may always serve.

mod membership;
mod pipes;
mod public;
mod slot;
mod spread;
mod standing;

use std::collections::VecDeque;
use std::sync::Arc;

use cirrus_cluster::planted::{self, Bug};
use cirrus_cluster::{Member, MemberState, Slot, View, members};
use cirrus_jid::BareJid;
use cirrus_replica::{Machine as _, Now, Random, Replica, Token};
use cirrus_router::codec::OLDEST;
use cirrus_router::{Home, HomeConfig, PipeId, PipeOut};
use cirrus_store::{Op, Outcome, StoreError};

pub use cirrus_replica::Work;
pub use membership::{About, LinkTo};
pub use public::Public;
pub use slot::{Answered, Ask, SlotHome};
pub use spread::Options as SpreadOptions;
pub use standing::{Census, NodeSeen, Place, Standing, ViewSeen};

use membership::{Load, Membership, Told};
use pipes::Ears;
use slot::{Homes, Word};
use spread::Spread;

/// What a node is told about itself.
pub struct Options {
    /// What every home is told about itself.
    pub home: Arc<HomeConfig>,
    /// Bounds of slots and their copies.
    pub replica: cirrus_replica::Options,
    /// The node among others; `None` = the store is this process's own, so there are none.
    pub membership: Option<members::Options>,
    /// When clients are moved to nodes with fewer; `None` = never.
    pub spread: Option<SpreadOptions>,
    /// The newest [format](cirrus_router::codec) that it writes.
    pub newest: u8,
    /// Where clients reach this node itself; `None` = a balancer sends them, or nobody knows.
    pub public: Option<Public>,
}

/// What a node wants done, in order.
#[derive(Debug)]
pub enum Effect {
    /// Give this to a connection. One that can't take it is [broken](Node::broken).
    Pipe {
        /// Which.
        pipe: PipeId,
        /// What.
        out: PipeOut,
    },
    /// [`Node::erase`] or [`Node::seal`] is done, or failed and may be repeated.
    Erased {
        /// Its token.
        token: u64,
        /// The refusal.
        result: Result<(), String>,
    },
    /// [`Node::unpark`] is done.
    Unparked {
        /// Its token.
        token: u64,
    },
    /// Carry this out and answer with [`Node::answered`].
    Ask {
        /// The slot that asks.
        slot: Slot,
        /// The answer's token.
        token: Token,
        /// What to do.
        ask: Ask,
    },
    /// Ask the store for this and answer with [`Node::membership_answered`] within the time
    /// between renewals, if need be with a timeout.
    Membership {
        /// The answer's token.
        token: cirrus_cluster::Token,
        /// The operation.
        op: Op,
    },
    /// Send this over the link with a node, if there is one. A link that can't take it is broken.
    Send {
        /// To whom.
        node: u64,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Keep links to exactly these; links that others open are welcome as well.
    Links(Vec<LinkTo>),
    /// Where the node stands from now on.
    Standing(Standing),
    /// Break so many connections, of those whose sessions can go on elsewhere: other nodes have
    /// fewer.
    Part {
        /// How many.
        clients: u64,
        /// Where they are to go, and how many each of these nodes lacks; empty where nodes have no
        /// addresses of their own.
        to: Vec<(Public, u64)>,
    },
    /// [`Node::leave`] is done: the process may exit.
    Left,
}

/// One node.
pub struct Node {
    me: u64,
    options: Options,
    membership: Option<Membership>,
    replica: Option<Replica<SlotHome>>,
    /// Key of the slots' hash.
    key: [u8; 16],
    ears: Ears,
    spread: Option<Spread>,
    /// What it says of itself, and when that is looked at again.
    about: (u64, About),
    /// Homes that are being told that the process is at its end, and through which ports.
    told: Vec<(Slot, u64)>,
    effects: VecDeque<Effect>,
}

/// How often it is looked what a node has, for people, milliseconds.
const ABOUT_MS: u64 = 2_000;

impl Node {
    /// A node that has done nothing yet.
    pub fn new(now: Now, random: &mut dyn Random, mut options: Options) -> Self {
        let membership = options.membership.take();
        let public = options.public.take();
        let me = membership.as_ref().map_or(1, |it| it.me.node_id());
        let alone = membership.is_none();
        let mut node = Self {
            me,
            spread: options.spread.map(Spread::new),
            options,
            membership: membership.map(|it| Membership::new(it, public)),
            replica: None,
            key: [0; 16],
            ears: Ears::default(),
            told: Vec::new(),
            about: (0, About::default()),
            effects: VecDeque::new(),
        };
        if alone {
            let view = node.view_of_one();
            node.adopt(now, random, view);
            let standing = Standing::Serving { epoch: 0 };
            node.effects.push_back(Effect::Standing(standing));
        }
        node
    }

    /// Its number ([`Member::node_id`]).
    pub fn id(&self) -> u64 {
        self.me
    }

    /// Whether what slots and connections say may be taken and sent, at this moment of the steady
    /// clock, which runs while the process is suspended.
    pub fn may_serve(&self, steady: u64) -> bool {
        let membership = self.membership.as_ref();
        membership.is_none_or(|it| it.may_serve(steady))
    }

    /// It is no member any more, and will be none.
    pub fn has_ended(&self) -> bool {
        self.membership.as_ref().is_some_and(|it| it.ended)
    }

    /// When [`Node::begin`] and [`Node::effects`] have something to do, on each clock.
    pub fn wake_at(&self) -> Now {
        let mut at = Now {
            steady: u64::MAX,
            wall: u64::MAX,
        };
        if let Some(replica) = &self.replica {
            at.wall = replica.next_deadline().wall;
        }
        if let Some(membership) = &self.membership {
            let repeat = self.replica.as_ref().map(|it| it.next_deadline().steady);
            at.steady = membership.wake_at().min(repeat.unwrap_or(u64::MAX));
        }
        at
    }

    /// Comes first in every batch of events: time passed.
    pub fn begin(&mut self, now: Now, random: &mut dyn Random) {
        let tells = self.membership.as_ref().map(|it| it.tells(now.steady));
        let about = (tells == Some(true)).then(|| self.about(now.steady));
        if let Some(membership) = &mut self.membership {
            let load = self.spread.as_ref().map(|spread| Load {
                connections: self.ears.pipes.len() as u64,
                parted: spread.parted(now.steady),
            });
            let about = about.map(|about| About {
                lease_ms: membership.lease_ms(now.steady),
                ..about
            });
            membership.tick(now, load, about);
        }
        self.heed(now, random);
        self.spread(now.steady);
    }

    /// Lets clients go where other nodes have fewer.
    fn spread(&mut self, now: u64) {
        let Some(spread) = self.spread.as_mut().filter(|it| it.is_due(now)) else {
            return;
        };
        let mine = self.ears.pipes.len() as u64;
        let membership = self.membership.as_ref();
        let seen = membership.and_then(|it| it.survey(now, mine));
        // Slots that move, and copies that are being made, come first.
        let calm = self.replica.as_ref().is_some_and(|replica| {
            let census = replica.census();
            census.awaited + census.leaving + census.single_copy == 0
        });
        let clients = spread.look(now, seen.as_ref().filter(|_| calm));
        if clients > 0 {
            let to = membership.map(|it| it.emptier(now, mine));
            let to = to.unwrap_or_default();
            self.effects.push_back(Effect::Part { clients, to });
        }
    }

    /// What there is to do. Comes last in every batch of events, until there is nothing. `now` is
    /// the time of this call: a process that was suspended finds here that it may not go on.
    pub fn effects(&mut self, now: Now, random: &mut dyn Random, out: &mut Vec<Effect>) {
        if self.may_serve(now.steady)
            && let Some(replica) = &mut self.replica
        {
            let due = replica.next_deadline();
            if due.wall <= now.wall || due.steady <= now.steady {
                replica.tick(now, random);
            }
            let effects: Vec<_> = replica.effects(now, random).collect();
            for effect in effects {
                self.effect(now, random, effect);
            }
        }
        out.extend(self.effects.drain(..));
    }

    fn effect(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        effect: cirrus_replica::Effect<SlotHome>,
    ) {
        let effect = match effect {
            cirrus_replica::Effect::Deliver { port, message } => {
                self.deliver(now, random, port, message)
            }
            cirrus_replica::Effect::Lost { port } => self.lost(port),
            cirrus_replica::Effect::Request {
                slot,
                token,
                request: ask,
            } => Some(Effect::Ask { slot, token, ask }),
            cirrus_replica::Effect::Send { node, frame } => {
                let frame = membership::about_slots(&frame);
                Some(Effect::Send { node, frame })
            }
        };
        self.effects.extend(effect);
    }

    /// The view of a node that no other can join.
    fn view_of_one(&self) -> View {
        let member = Member {
            instance: String::new(),
            boot: u128::from(self.me),
            address: String::new(),
            zone: String::new(),
            weight: 1,
            state: MemberState::Serving,
            wire: self.options.newest.into(),
            storage: self.options.newest.into(),
        };
        View {
            epoch: 1,
            slot_key: self.key,
            reached: 0,
            members: vec![member],
        }
    }

    fn adopt(&mut self, now: Now, random: &mut dyn Random, view: View) {
        let alone = self.membership.is_none();
        let epoch = view.epoch;
        let (me, key, mut options) = (self.me, view.slot_key, self.options.replica);
        options.alone = alone;
        self.key = key;
        if self.replica.is_none() {
            let config = Arc::clone(&self.options.home);
            let homes = Homes { config, key, alone };
            let mut replica = Replica::new(me, options, Box::new(homes));
            let linked = self.membership.iter().flat_map(|it| it.linked.keys());
            for node in linked {
                replica.link_up(now, random, *node);
            }
            self.replica = Some(replica);
        }
        if let Some(replica) = &mut self.replica
            && let Err(error) = replica.adopt(now, random, Arc::new(view))
        {
            tracing::warn!(epoch, %error, "a view");
        }
    }

    /// Does what membership wants.
    fn heed(&mut self, now: Now, random: &mut dyn Random) {
        while let Some(told) = self.membership.as_mut().and_then(Membership::told) {
            let effect = match told {
                Told::Adopt(view) => {
                    self.adopt(now, random, view);
                    continue;
                }
                Told::Store(token, op) => Effect::Membership { token, op },
                Told::Send(node, frame) => Effect::Send { node, frame },
                Told::Links(links) => Effect::Links(links),
                Told::Standing(standing) => Effect::Standing(standing),
                Told::Left => Effect::Left,
            };
            self.effects.push_back(effect);
        }
    }

    /// There is a link with a node, which understands what is written in that format as well. At
    /// most one at a time.
    pub fn link_up(&mut self, now: Now, random: &mut dyn Random, node: u64, format: u16) {
        if let Some(membership) = &mut self.membership {
            membership.link_up(now, node, format);
        }
        self.heed(now, random);
        if let Some(replica) = &mut self.replica {
            replica.link_up(now, random, node);
        }
    }

    /// The link with a node is gone.
    pub fn link_down(&mut self, now: Now, random: &mut dyn Random, node: u64) {
        if let Some(membership) = &mut self.membership {
            membership.link_down(now, node);
        }
        self.heed(now, random);
        if let Some(replica) = &mut self.replica {
            replica.link_down(node);
        }
    }

    /// A frame came over the link with a node.
    pub fn frame(&mut self, now: Now, random: &mut dyn Random, node: u64, frame: &[u8]) {
        let membership = self.membership.as_mut();
        let about_slots = membership.and_then(|it| it.frame(now, node, frame));
        self.heed(now, random);
        if let (Some(frame), Some(replica)) = (about_slots, &mut self.replica) {
            replica.frame(now, random, node, frame);
        }
    }

    /// What a slot asked for is answered.
    pub fn answered(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        (slot, token): (Slot, Token),
        answered: Answered,
    ) {
        if let Some(replica) = &mut self.replica {
            replica.answer(now, random, slot, token, answered);
        }
    }

    /// What membership asked the store for is answered.
    pub fn membership_answered(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        token: cirrus_cluster::Token,
        result: Result<Outcome, StoreError>,
    ) {
        if let Some(membership) = &mut self.membership {
            membership.answered(now, token, result);
        }
        self.heed(now, random);
    }

    /// Every slot of this node is to go to others; it stays a pipe.
    pub fn drain(&mut self, now: Now, random: &mut dyn Random) {
        if let Some(membership) = &mut self.membership {
            membership.drain(now);
        }
        self.heed(now, random);
    }

    /// The node is to have slots again, and to keep its clients.
    pub fn undrain(&mut self, now: Now, random: &mut dyn Random) {
        if let Some(spread) = &mut self.spread {
            spread.abort();
        }
        if let Some(membership) = &mut self.membership {
            membership.undrain(now);
        }
        self.heed(now, random);
    }

    /// Takes the node out of the view; [`Effect::Left`] follows.
    pub fn leave(&mut self, now: Now, random: &mut dyn Random) {
        match &mut self.membership {
            Some(membership) => membership.leave(now),
            None => self.effects.push_back(Effect::Left),
        }
        self.heed(now, random);
    }

    /// How a drain went, once it is over: `true` when nothing here is anybody's home or copy any
    /// more, `false` when there is nobody to give anything to.
    pub fn drained(&self) -> Option<bool> {
        let Some(membership) = &self.membership else {
            return Some(false);
        };
        match &self.replica {
            Some(replica) if membership.has_others() => {
                let early = planted::is(Bug::DrainEndsEarly);
                let over = membership.is_draining() && (early || !replica.has_slots());
                over.then_some(true)
            }
            _ => Some(false),
        }
    }

    /// Ends every session that has its home here, but for those that can be resumed: they are to be
    /// [parked](Node::park). Only for the [last](Node::is_last) node: where there are others,
    /// sessions go on there. Whether there was a home that had not been told before: slots may come
    /// back from one that leaves.
    pub fn shutdown(&mut self, now: Now, random: &mut dyn Random) -> bool {
        let mut told = std::mem::take(&mut self.told);
        if let Some(replica) = &self.replica {
            told.retain(|(_, port)| replica.port_backlog(*port) > 0);
        }
        let word = Word::Shutdown { park: true };
        let said = self.say_to_all(now, random, &word, |slot, home| {
            !home.is_stopping() && told.iter().all(|(other, _)| *other != slot)
        });
        let any = !said.is_empty();
        told.extend(said);
        self.told = told;
        any
    }

    /// Nothing would be lost with this node: others have all that is here, and what its connections
    /// said has arrived. Looks at every slot.
    pub fn is_spare(&self) -> bool {
        self.replica.as_ref().is_none_or(|replica| {
            let census = replica.census();
            census.single_copy + census.ports == 0
        })
    }

    /// Whether sessions have nowhere to go but into the store when this node stops.
    pub fn is_last(&self) -> bool {
        let membership = self.membership.as_ref();
        membership.is_none_or(|membership| !membership.has_others())
    }

    /// Puts every session that waits to be resumed into the store. Comes when the node
    /// [is quiet](Node::is_quiet) after a shutdown.
    pub fn park(&mut self, now: Now, random: &mut dyn Random) {
        self.say_to_all(now, random, &Word::Park, |_, _| true);
    }

    /// To every home here that has something in it and for which this holds; through which ports.
    fn say_to_all(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        word: &Word,
        which: impl Fn(Slot, &Home) -> bool,
    ) -> Vec<(Slot, u64)> {
        let Some(replica) = &mut self.replica else {
            return Vec::new();
        };
        let slots = replica.machines();
        let slots = slots.filter(|(slot, it)| it.entities() > 0 && which(*slot, it.home()));
        let slots: Vec<Slot> = slots.map(|(slot, _)| slot).collect();
        let say = |slot| {
            let port = self.ears.next();
            replica.open(port, slot);
            replica.say(now, random, port, word.clone(), true);
            (slot, port)
        };
        slots.into_iter().map(say).collect()
    }

    /// Nothing is under way in any home here that an orderly stop would lose, but for what was
    /// asked and not answered. Looks at every entity.
    pub fn is_quiet(&self) -> bool {
        let homes = self.replica.iter().flat_map(Replica::machines);
        homes.into_iter().all(|(_, home)| home.home().is_quiet())
    }

    /// The slots and their copies; `None` before the first view.
    pub fn replica(&self) -> Option<&Replica<SlotHome>> {
        self.replica.as_ref()
    }

    /// The view, for people, at that moment of the steady clock; `None` where this node is and will
    /// be alone.
    pub fn view(&mut self, now: u64) -> Option<ViewSeen> {
        let connections = self.ears.pipes.len() as u64;
        let mut about = self.about(now);
        let membership = self.membership.as_ref()?;
        about.lease_ms = membership.lease_ms(now);
        membership.seen(now, connections, &about)
    }

    /// What this node says of itself, but for its lease. Looks at every entity, now and then.
    fn about(&mut self, now: u64) -> About {
        let (at, about) = &mut self.about;
        if now < *at {
            return about.clone();
        }
        let census = self.census();
        let newest = self.options.newest;
        let about = About {
            version: self.options.home.about.version.clone(),
            formats: (OLDEST.min(newest), newest),
            lease_ms: 0,
            slots: census.slots.homes as u64,
            copies: census.slots.copies as u64,
            coming: census.slots.awaited as u64,
            leaving: census.slots.leaving as u64,
            sessions: (census.attached + census.detached) as u64,
        };
        self.about = (now.saturating_add(ABOUT_MS), about.clone());
        about
    }

    /// Where an account is; `None` where this node is and will be alone, or has no view yet.
    pub fn place(&self, user: &BareJid) -> Option<Place> {
        let membership = self.membership.as_ref()?;
        membership.place(slot::slot_of(&self.key, false, user))
    }

    /// Where a client of an account is best off on another node; `None` where nodes have no
    /// addresses of their own, and where there is no other.
    pub fn elsewhere(&self, user: &BareJid) -> Option<Public> {
        let membership = self.membership.as_ref()?;
        let slot = slot::slot_of(&self.key, false, user);
        membership.elsewhere(slot).cloned()
    }

    /// Counts of what it has; `operations` is not known here.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        let Some(replica) = &self.replica else {
            return census;
        };
        census.slots = replica.census();
        for (_, machine) in replica.machines() {
            let home = machine.home().census();
            census.attached += home.attached;
            census.detached += home.detached;
            census.tally.sealed += home.tally.sealed;
            census.tally.seal_failures += home.tally.seal_failures;
            census.tally.unreadable += home.tally.unreadable;
        }
        census.pipes = self.ears.pipes.len();
        census.moving = self.spread.as_ref().map_or(0, Spread::left);
        let view = self.membership.as_ref().and_then(Membership::view);
        census.members = match &self.membership {
            Some(_) => view.map_or(0, |view| view.members.len()),
            None => 1,
        };
        census.linked = self.membership.as_ref().map_or(0, |it| it.linked.len());
        census
    }
}
