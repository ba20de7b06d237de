//! Ports of this node, and messages that arrive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cirrus_cluster::Slot;

use crate::frame::Frame;
use crate::home;
use crate::machine::{Input, Machine, Payload as _, Peer, Port, Random};
use crate::replicated::{Emit, Order, Said, life_of, order};
use crate::slots::{Held, Place, Queued, SlotSet, Want};
use crate::{Effect, Now, Replica};

/// Most nodes that pass a message on before its sender is left to say it again.
const MOST_HOPS: u8 = 3;

/// A port of this node.
pub(crate) struct Local<M: Machine> {
    /// The slot it speaks with.
    pub slot: Slot,
    said: u64,
    unacked: VecDeque<Said<M>>,
    /// The last number it was given.
    heard: u64,
    /// The epoch in which something that it said was taken first.
    known: Option<u64>,
    /// It says nothing more.
    closing: bool,
    front: u64,
}

/// The ports of this node.
pub(crate) struct Ports<M: Machine> {
    all: BTreeMap<u64, Local<M>>,
    /// Those that have said something that may not be taken.
    speaking: BTreeSet<u64>,
}

impl<M: Machine> Local<M> {
    /// The slot has begun anew since it came to know of this port.
    fn is_lost(&self, began: u64) -> bool {
        let known = match self.heard {
            0 => self.known,
            heard => Some(life_of(heard)),
        };
        !self.closing && known.is_some_and(|epoch| epoch < began)
    }
}

impl<M: Machine> Ports<M> {
    pub fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            speaking: BTreeSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Those that have said something, not taken yet, to a slot for which this holds.
    pub fn speaking(&self, which: impl Fn(Slot) -> bool) -> Vec<u64> {
        let speaking = self.speaking.iter().copied();
        let its = |port: &u64| self.all.get(port).is_some_and(|local| which(local.slot));
        speaking.filter(its).collect()
    }

    fn get(&self, port: u64) -> Option<&Local<M>> {
        self.all.get(&port)
    }

    fn get_mut(&mut self, port: u64) -> Option<&mut Local<M>> {
        self.all.get_mut(&port)
    }

    fn remove(&mut self, port: u64) {
        self.all.remove(&port);
        self.speaking.remove(&port);
    }
}

impl<M: Machine> Replica<M> {
    /// A new port, which speaks with the machine of that slot.
    pub fn open(&mut self, port: u64, slot: Slot) {
        self.ports.all.insert(
            port,
            Local {
                slot,
                said: 0,
                unacked: VecDeque::new(),
                heard: 0,
                known: None,
                closing: false,
                front: 0,
            },
        );
    }

    /// A port says something to its slot's machine; `last` = it says and hears nothing more.
    pub fn say(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        port: u64,
        message: M::Message,
        last: bool,
    ) {
        let epoch = self.epoch();
        let Some(local) = self.ports.get_mut(port) else {
            return;
        };
        local.said += 1;
        local.closing |= last;
        let (slot, seq) = (local.slot, local.said);
        let from = Peer::Port(Port {
            node: self.me,
            number: port,
        });
        let prev = local.unacked.back().map_or(0, |said| said.seq);
        let place = Place { seq, prev, hops: 0 };
        let home = self.slots.home(slot);
        let takes = home.is_some_and(|home| home.core.to_slots < self.options.queue);
        if takes && prev == 0 {
            // Its node is the home: the two live and die together.
            if last {
                self.ports.remove(port);
            } else if let Some(local) = self.ports.get_mut(port) {
                local.known.get_or_insert(epoch);
            }
            self.arrive(
                now,
                random,
                (from, Peer::Slot(slot)),
                place,
                (message, None),
            );
        } else {
            local.unacked.push_back(Said {
                seq,
                message: message.clone(),
            });
            self.ports.speaking.insert(port);
            self.dispatch(from, Peer::Slot(slot), place, message);
        }
        self.run(now, random);
    }

    /// How much a port has said that was not taken yet.
    pub fn port_backlog(&self, port: u64) -> usize {
        self.ports.get(port).map_or(0, |local| local.unacked.len())
    }

    pub(crate) fn port_says_again(&mut self, port: u64) {
        let Some(local) = self.ports.get(port) else {
            return;
        };
        let from = Peer::Port(Port {
            node: self.me,
            number: port,
        });
        let slot = local.slot;
        let mut prev = 0;
        let mut all = Vec::new();
        for said in &local.unacked {
            let seq = said.seq;
            all.push((Place { seq, prev, hops: 0 }, said.message.clone()));
            prev = seq;
        }
        for (place, message) in all {
            self.dispatch(from, Peer::Slot(slot), place, message);
        }
    }

    pub(crate) fn repeat_ports(&mut self) {
        let mut stuck = Vec::new();
        let all = &mut self.ports.all;
        self.ports.speaking.retain(|number| {
            let Some(port) = all.get_mut(number) else {
                return false;
            };
            let front = port.unacked.front().map_or(0, |said| said.seq);
            if front != 0 && front == port.front {
                stuck.push(*number);
            }
            port.front = front;
            front != 0
        });
        for port in stuck {
            self.port_says_again(port);
        }
    }

    /// Gives a port what a slot here says to it.
    pub(crate) fn deliver(&mut self, port: u64, seq: u64, message: M::Message) {
        if let Some(local) = self.ports.get_mut(port)
            && seq > local.heard
        {
            local.heard = seq;
            if !local.closing {
                self.effects.push(Effect::Deliver { port, message });
            }
        }
    }

    /// A message came from another node.
    pub(crate) fn message(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        (from, to): (Peer, Peer),
        mut place: Place,
        bytes: &[u8],
    ) {
        place.hops = place.hops.saturating_add(1);
        if let Some(message) = M::Message::decode(bytes) {
            let message = (message, Some(bytes));
            self.arrive(now, random, (from, to), place, message);
        }
    }

    /// A message has come to this node, maybe as bytes.
    pub(crate) fn arrive(
        &mut self,
        now: Now,
        random: &mut dyn Random,
        (from, to): (Peer, Peer),
        place: Place,
        (message, raw): (M::Message, Option<&[u8]>),
    ) {
        let slot = match to {
            Peer::Port(port) => return self.arrive_at_port(from, port, place, message),
            Peer::Slot(slot) => slot,
        };
        if let Peer::Port(port) = from
            && !self.nodes.contains(&port.node)
        {
            return; // Of a node that is gone, and its ports with it.
        }
        let limit = self.options.queue;
        let here = self.slots.get_mut(slot);
        match (here.held(), here.want()) {
            (Held::Home(home), _) => {
                let last = home.core.last_from(&from);
                let full = matches!(from, Peer::Port(_)) && home.core.to_slots >= limit;
                match order(last, place.seq, place.prev) {
                    // It is said again.
                    Order::Next if full => {}
                    Order::Next => {
                        let input = Input::Message { from, message };
                        let seq = place.seq;
                        self.feed(now, random, slot, Some(input), home::Said { seq, raw });
                    }
                    Order::Again => self.after_last(slot, Emit::Taken { from, seq: last }),
                    Order::Gap => self.tell_gap(from, to),
                }
            }
            (_, Want::Turn(node)) if self.links.contains(&node) => {
                self.pass_on(node, (from, to), place, &message);
            }
            (_, Want::Nothing) => {
                if let Some(node) = self.home_of(slot).filter(|node| *node != self.me) {
                    self.pass_on(node, (from, to), place, &message);
                }
            }
            _ if here.queue.len() < limit => here.queue.push_back(Queued {
                from,
                place,
                message,
            }),
            // It is said again.
            _ => {}
        }
    }

    fn pass_on(&mut self, node: u64, peers: (Peer, Peer), place: Place, message: &M::Message) {
        if place.hops < MOST_HOPS {
            self.send_message(node, peers, place, message);
        }
    }

    fn arrive_at_port(&mut self, from: Peer, port: Port, place: Place, message: M::Message) {
        if port.node != self.me {
            return;
        }
        let to = Peer::Port(port);
        let Some(local) = self.ports.get_mut(port.number) else {
            // It has closed: whatever is said to it is taken.
            return self.tell_taken(from, to, place.seq);
        };
        match order(local.heard, place.seq, place.prev) {
            Order::Next => {
                local.heard = place.seq;
                if !local.closing {
                    let port = port.number;
                    self.effects.push(Effect::Deliver { port, message });
                }
                self.tell_taken(from, to, place.seq);
            }
            Order::Again => {
                let heard = local.heard;
                self.tell_taken(from, to, heard);
            }
            Order::Gap => self.tell_gap(from, to),
        }
    }

    /// Tells a peer that what it said was taken.
    pub(crate) fn tell_taken(&mut self, from: Peer, to: Peer, seq: u64) {
        let here = match from {
            Peer::Port(port) => port.node == self.me,
            Peer::Slot(slot) => self.slots.is_home(slot),
        };
        if here {
            self.was_taken(from, to, seq);
        } else {
            let last = self.taken.entry((from, to)).or_default();
            *last = seq.max(*last);
        }
    }

    /// What a peer here said was taken.
    pub(crate) fn was_taken(&mut self, from: Peer, to: Peer, seq: u64) {
        match from {
            Peer::Port(port) => {
                let epoch = self.epoch();
                let Some(local) = self.ports.get_mut(port.number) else {
                    return;
                };
                local.known.get_or_insert(epoch);
                while local.unacked.front().is_some_and(|said| said.seq <= seq) {
                    local.unacked.pop_front();
                }
                if local.closing && local.unacked.is_empty() {
                    self.ports.remove(port.number);
                }
            }
            Peer::Slot(slot) => self.trim(slot, to, seq),
        }
    }

    /// Tells every node which slots have come here, once a batch.
    pub(crate) fn tell_arrived(&mut self) {
        let arrived = std::mem::take(&mut self.arrived);
        if arrived.is_empty() {
            return;
        }
        for node in self.links.clone() {
            self.tell_began(node, arrived);
        }
        let slots = self.began_of(arrived);
        self.lose_sessions(&slots);
    }

    /// Tells a node when slots here began.
    pub(crate) fn tell_began(&mut self, node: u64, slots: SlotSet) {
        let slots = self.began_of(slots);
        if !slots.is_empty() {
            self.send(node, &Frame::Began { slots });
        }
    }

    fn began_of(&self, slots: SlotSet) -> Vec<(u64, Vec<Slot>)> {
        let mut all: BTreeMap<u64, Vec<Slot>> = BTreeMap::new();
        for slot in slots {
            if let Some(began) = self.began(slot) {
                all.entry(began).or_default().push(slot);
            }
        }
        all.into_iter().collect()
    }

    /// Closes ports whose slots began after they had come to know of them: home and copies were
    /// lost together, and with them the sessions.
    pub(crate) fn lose_sessions(&mut self, slots: &[(u64, Vec<Slot>)]) {
        let of_slot = |(epoch, slots): &(u64, Vec<Slot>)| {
            let epoch = *epoch;
            let pairs: Vec<_> = slots.iter().map(|slot| (*slot, epoch)).collect();
            pairs
        };
        let began: BTreeMap<Slot, u64> = slots.iter().flat_map(of_slot).collect();
        let all = self.ports.all.iter();
        let lost = all.filter(|(_, local)| {
            began
                .get(&local.slot)
                .is_some_and(|began| local.is_lost(*began))
        });
        for port in lost.map(|(port, _)| *port).collect::<Vec<_>>() {
            self.ports.remove(port);
            self.effects.push(Effect::Lost { port });
        }
    }

    fn tell_gap(&mut self, from: Peer, to: Peer) {
        let node = match from {
            Peer::Port(port) => Some(port.node),
            Peer::Slot(slot) => self.home_of(slot),
        };
        match node {
            Some(node) if node == self.me => self.gap(from, to),
            Some(node) => self.send(node, &Frame::Gap { from, to }),
            None => {}
        }
    }

    /// A listener misses something that a peer here said.
    pub(crate) fn gap(&mut self, from: Peer, to: Peer) {
        match from {
            Peer::Port(port) if port.node == self.me => self.port_says_again(port.number),
            Peer::Slot(slot) => self.say_again(slot, to),
            Peer::Port(_) => {}
        }
    }
}
