//! Whole clusters of replicas with toys in them: links that break, nodes that come, go, hang and
//! die, views that arrive late. Nothing that a living port said may be lost, doubled or reordered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cirrus_cluster::View;

use super::toy::{Put, Toy, Toys, Word};
use super::{Rng, at, view};
use crate::{Effect, Options, Replica};

const SLOTS: u16 = 40;

struct Node {
    replica: Replica<Toy>,
    ports: BTreeMap<u64, Ear>,
    /// Answers of the store: when, slot, token, what.
    store: Vec<(u64, u16, u64, Put)>,
    views: VecDeque<(u64, Arc<View>)>,
}

/// What a port said and heard.
#[derive(Default)]
struct Ear {
    said: u64,
    echoes: BTreeMap<u64, u64>,
    stored: Vec<u64>,
    ended: bool,
}

/// One direction of a link.
#[derive(Default)]
struct Wire {
    frames: VecDeque<(u64, Vec<u8>)>,
}

struct World {
    rng: Rng,
    now: u64,
    nodes: BTreeMap<u64, Node>,
    wires: BTreeMap<(u64, u64), Wire>,
    broken: BTreeMap<(u64, u64), u64>,
    members: Vec<u64>,
    draining: Vec<u64>,
    epoch: u64,
    /// Views to be made: when, without whom.
    removals: Vec<(u64, u64)>,
    next: u64,
    ports: u64,
    faults: Vec<String>,
    log: Vec<String>,
    kills: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            now: 1_000,
            nodes: BTreeMap::new(),
            wires: BTreeMap::new(),
            broken: BTreeMap::new(),
            members: Vec::new(),
            draining: Vec::new(),
            epoch: 0,
            removals: Vec::new(),
            next: 0,
            ports: 0,
            faults: Vec::new(),
            log: Vec::new(),
            kills: 0,
        }
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{} {what}", self.now));
    }

    fn publish(&mut self) {
        self.epoch += 1;
        let view = Arc::new(view(self.epoch, &self.members, &self.draining));
        self.note(format!("view {} of {:?}", self.epoch, self.members));
        for node in self.members.clone() {
            let late = self.rng.below(60) as u64;
            let when = self.now + late;
            if let Some(node) = self.nodes.get_mut(&node) {
                // Views come in order.
                let when = node.views.back().map_or(when, |(last, _)| when.max(*last));
                node.views.push_back((when, Arc::clone(&view)));
            }
        }
    }

    fn join(&mut self) {
        self.next += 1;
        let id = self.next;
        let options = Options {
            states: 1 + self.rng.below(40),
            ..Options::default()
        };
        let mut replica = Replica::new(id, options, Box::new(Toys(SLOTS)));
        let others: Vec<u64> = self.nodes.keys().copied().collect();
        for other in others {
            if self.members.contains(&other) {
                self.wires.insert((id, other), Wire::default());
                self.wires.insert((other, id), Wire::default());
                replica.link_up(at(self.now), &mut self.rng, other);
                if let Some(node) = self.nodes.get_mut(&other) {
                    node.replica.link_up(at(self.now), &mut self.rng, id);
                }
            }
        }
        let node = Node {
            replica,
            ports: BTreeMap::new(),
            store: Vec::new(),
            views: VecDeque::new(),
        };
        self.nodes.insert(id, node);
        self.members.push(id);
        self.publish();
    }

    /// A node dies. Its links break now; it leaves the view a little later.
    fn kill(&mut self, id: u64) {
        self.note(format!("kill {id}"));
        self.kills += 1;
        self.nodes.remove(&id);
        let later = self.now + 20 + self.rng.below(200) as u64;
        self.cut_off(id);
        self.removals.push((later, id));
    }

    fn cut_off(&mut self, id: u64) {
        let others: Vec<u64> = self
            .nodes
            .keys()
            .copied()
            .filter(|other| *other != id)
            .collect();
        for other in others {
            self.break_link(id, other, u64::MAX);
        }
    }

    fn break_link(&mut self, a: u64, b: u64, until: u64) {
        let there = self.wires.remove(&(a, b)).is_some();
        self.wires.remove(&(b, a));
        let pair = (a.min(b), a.max(b));
        let old = self.broken.get(&pair).copied().unwrap_or(0);
        self.broken.insert(pair, until.max(old));
        if there {
            for (x, y) in [(a, b), (b, a)] {
                if let Some(node) = self.nodes.get_mut(&x) {
                    node.replica.link_down(y);
                }
            }
        }
    }

    fn mend_links(&mut self) {
        let due = self.broken.iter().filter(|(_, until)| **until <= self.now);
        let due: Vec<(u64, u64)> = due.map(|(pair, _)| *pair).collect();
        for (a, b) in due {
            self.broken.remove(&(a, b));
            if self.nodes.contains_key(&a) && self.nodes.contains_key(&b) {
                self.wires.insert((a, b), Wire::default());
                self.wires.insert((b, a), Wire::default());
                for (x, y) in [(a, b), (b, a)] {
                    if let Some(node) = self.nodes.get_mut(&x) {
                        node.replica.link_up(at(self.now), &mut self.rng, y);
                    }
                }
            }
        }
    }

    fn open_port(&mut self) {
        let live: Vec<u64> = self.members.clone();
        let id = live[self.rng.below(live.len())];
        let slot = self.rng.below(SLOTS.into()) as u16;
        if let Some(node) = self.nodes.get_mut(&id)
            && node.replica.epoch() > 0
        {
            self.ports += 1;
            node.ports.insert(self.ports, Ear::default());
            node.replica.open(self.ports, slot);
        }
    }

    fn speak(&mut self) {
        let all: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .flat_map(|(id, node)| {
                let live = node.ports.iter().filter(|(_, ear)| !ear.ended);
                live.map(|(port, _)| (*id, *port))
            })
            .collect();
        if all.is_empty() {
            return;
        }
        let (id, port) = all[self.rng.below(all.len())];
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let ear = node.ports.get_mut(&port).unwrap();
        let heard = ear.echoes.len() as u64 == ear.said && ear.stored.len() as u64 == ear.said;
        if heard && self.rng.chance(2) {
            ear.ended = true;
            node.replica
                .say(at(self.now), &mut self.rng, port, Word::End, true);
        } else {
            ear.said += 1;
            let word = Word::Say(ear.said);
            node.replica
                .say(at(self.now), &mut self.rng, port, word, false);
        }
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += 1;
        self.mend_links();
        let due: Vec<u64> = self
            .removals
            .iter()
            .filter(|(when, _)| *when <= self.now)
            .map(|(_, id)| *id)
            .collect();
        self.removals.retain(|(when, _)| *when > self.now);
        for id in due {
            self.members.retain(|member| *member != id);
            self.draining.retain(|member| *member != id);
            // One that still lives finds out, and is gone.
            self.nodes.remove(&id);
            self.wires.retain(|(a, b), _| *a != id && *b != id);
            self.publish();
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.step_node(id);
        }
    }

    fn step_node(&mut self, id: u64) {
        let now = at(self.now);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        while node
            .views
            .front()
            .is_some_and(|(when, _)| *when <= self.now)
        {
            let (_, view) = node.views.pop_front().unwrap();
            node.replica.adopt(now, &mut self.rng, view).unwrap();
        }
        let froms: Vec<u64> = self
            .wires
            .keys()
            .filter(|(_, to)| *to == id)
            .map(|(from, _)| *from)
            .collect();
        for from in froms {
            while let Some(wire) = self.wires.get_mut(&(from, id))
                && let Some((_, frame)) = wire.frames.pop_front_if(|(when, _)| *when <= self.now)
            {
                node.replica.frame(now, &mut self.rng, from, &frame);
            }
        }
        let due = node.store.extract_if(.., |(when, ..)| *when <= self.now);
        let due: Vec<_> = due.collect();
        for (_, slot, token, put) in due {
            node.replica.answer(now, &mut self.rng, slot, token, put);
        }
        let next = node.replica.next_deadline();
        if next.steady <= self.now || next.wall <= self.now {
            node.replica.tick(now, &mut self.rng);
        }
        let effects: Vec<_> = node.replica.effects(now, &mut self.rng).collect();
        for effect in effects {
            self.carry_out(id, effect);
        }
    }

    fn carry_out(&mut self, id: u64, effect: Effect<Toy>) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        match effect {
            Effect::Send { node: to, frame } => {
                if let Some(wire) = self.wires.get_mut(&(id, to)) {
                    let after = wire.frames.back().map_or(0, |(when, _)| *when);
                    let when = (self.now + self.rng.below(5) as u64).max(after);
                    wire.frames.push_back((when, frame));
                }
            }
            Effect::Request {
                slot,
                token,
                request,
            } => {
                let when = self.now + 1 + self.rng.below(20) as u64;
                node.store.push((when, slot, token, request));
            }
            // Nodes are lost when all is copied only.
            Effect::Lost { port } => self.faults.push(format!("port {port} is lost")),
            Effect::Deliver { port, message } => {
                let Some(ear) = node.ports.get_mut(&port) else {
                    return;
                };
                match message {
                    Word::Echo(n, drawn) => {
                        if ear.echoes.insert(n, drawn).is_some() {
                            self.faults.push(format!("port {port}: echo {n} twice"));
                        }
                    }
                    Word::Stored(n) if ear.stored.contains(&n) => {
                        self.faults.push(format!("port {port}: stored {n} twice"));
                    }
                    Word::Stored(n) => ear.stored.push(n),
                    word => self.faults.push(format!("port {port} hears {word:?}")),
                }
            }
        }
    }

    /// Every node is where it should be, and nothing is unheard.
    fn is_settled(&self) -> bool {
        self.removals.is_empty()
            && self.broken.values().all(|until| *until == u64::MAX)
            && self.nodes.values().all(|node| {
                let census = node.replica.census();
                let quiet = (census.awaited, census.leaving, census.single_copy) == (0, 0, 0);
                // Only members that don't drain keep copies.
                let lone = self.members.len() - self.draining.len() == 1;
                let copied = quiet || (lone && census.awaited == 0);
                let heard = node.ports.values().filter(|ear| !ear.ended).all(|ear| {
                    ear.echoes.len() as u64 == ear.said && ear.stored.len() as u64 == ear.said
                });
                copied && heard && node.views.is_empty()
            })
    }

    fn is_copied(&self) -> bool {
        self.removals.is_empty()
            && self.nodes.values().all(|node| {
                let census = node.replica.census();
                census.single_copy == 0
                    && census.awaited == 0
                    && census.leaving == 0
                    && node.views.is_empty()
            })
    }

    fn disturb(&mut self) {
        let victim = self.members[self.rng.below(self.members.len())];
        match self.rng.below(100) {
            0..10 if self.members.len() < 6 => self.join(),
            10..20 if self.members.len() > 1 && self.is_copied() => self.kill(victim),
            20..25 if self.members.len() > 2 && self.is_copied() => {
                // It is cut off, lives on, and is removed.
                self.note(format!("cut off {victim}"));
                self.kills += 1;
                self.cut_off(victim);
                let later = self.now + 50 + self.rng.below(300) as u64;
                self.removals.push((later, victim));
            }
            25..50 if self.members.len() > 1 => {
                let other = self.members[self.rng.below(self.members.len())];
                if other != victim {
                    let until = self.now + 1 + self.rng.below(150) as u64;
                    self.break_link(victim, other, until);
                }
            }
            50..56
                if self.members.len() - self.draining.len() > 1
                    && !self.draining.contains(&victim) =>
            {
                self.note(format!("drain {victim}"));
                self.draining.push(victim);
                self.publish();
            }
            56..60 => {
                if let Some(node) = self.draining.pop() {
                    self.note(format!("undrain {node}"));
                    self.publish();
                }
            }
            _ => {}
        }
    }

    fn describe(&self) -> String {
        let mut text = self.log.join("\n");
        for (id, node) in &self.nodes {
            text += &format!("\nnode {id}: {:?}", node.replica.census());
            for (port, ear) in node.ports.iter().filter(|(_, ear)| !ear.ended) {
                if ear.echoes.len() as u64 != ear.said || ear.stored.len() as u64 != ear.said {
                    text += &format!(
                        "\n  port {port}: said {}, echoes {}, stored {}",
                        ear.said,
                        ear.echoes.len(),
                        ear.stored.len()
                    );
                }
            }
        }
        text
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut world = World::new(seed);
    for _ in 0..1 + world.rng.below(4) {
        world.join();
    }
    for _ in 0..300 {
        world.step();
    }
    for _ in 0..1_500 {
        if world.rng.chance(5) {
            world.open_port();
        }
        if world.rng.chance(60) {
            world.speak();
        }
        if world.rng.chance(4) {
            world.disturb();
        }
        world.step();
    }
    let limit = world.now + 30_000;
    while !world.is_settled() && world.now < limit {
        world.step();
    }
    let mut faults = world.faults.clone();
    let mut takeovers = 0;
    for node in world.nodes.values() {
        for slot in 0..SLOTS {
            if let Some(toy) = node.replica.machine(slot) {
                faults.extend(toy.faults.clone());
                takeovers += toy.takeovers;
            }
        }
        if node.replica.census().diverged > 0 {
            faults.push("a copy came to other outputs".into());
        }
    }
    let homes: usize = world
        .nodes
        .values()
        .map(|node| node.replica.census().homes)
        .sum();
    if homes != usize::from(cirrus_cluster::SLOTS) {
        faults.push(format!("{homes} homes"));
    }
    if !world.is_settled() {
        faults.push("it does not settle".into());
    }
    assert!(
        faults.is_empty(),
        "seed {seed}: {faults:#?}\n{}",
        world.describe()
    );
    (world.kills, takeovers)
}

#[test]
fn nothing_is_lost_doubled_or_reordered() {
    let from = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = match from {
        Some(seed) => seed..seed + 1,
        None => 1..41,
    };
    let (mut kills, mut takeovers) = (0, 0);
    for seed in seeds.clone() {
        let (killed, taken) = run(seed);
        kills += killed;
        takeovers += taken;
    }
    println!("seeds {seeds:?}: {kills} kills, {takeovers} takeovers");
}
