//! A home that was handed over and has died: whoever is home next knows of every copy there was.

use std::collections::BTreeMap;
use std::sync::Arc;

use cirrus_cluster::{Placement, Slot};

use super::toy::{Toy, Toys, Word};
use super::{Rng, at, view};
use crate::frame::Frame;
use crate::{Effect, Options, Replica};

/// Some replicas, linked with each other; frames that are kept back stay under way for ever.
struct Few {
    all: BTreeMap<u64, Replica<Toy>>,
    rng: Rng,
    now: u64,
    heard: usize,
    lost: Vec<u64>,
}

impl Few {
    fn new(nodes: &[u64]) -> Self {
        Self::with(nodes, Options::default())
    }

    fn with(nodes: &[u64], options: Options) -> Self {
        let replica = |node: &u64| (*node, Replica::new(*node, options, Box::new(Toys(40))));
        let mut few = Self {
            all: nodes.iter().map(replica).collect(),
            rng: Rng::new(1),
            now: 1_000,
            heard: 0,
            lost: Vec::new(),
        };
        for (node, replica) in &mut few.all {
            for other in nodes.iter().filter(|other| *other != node) {
                replica.link_up(at(few.now), &mut few.rng, *other);
            }
        }
        few
    }

    fn adopt(&mut self, epoch: u64, nodes: &[u64]) {
        let view = Arc::new(view(epoch, nodes, &[]));
        for node in nodes {
            let replica = self.all.get_mut(node).unwrap();
            let adopted = replica.adopt(at(self.now), &mut self.rng, Arc::clone(&view));
            adopted.unwrap();
        }
    }

    /// Carries frames until there are none, but for those that are held back.
    fn run(&mut self, held: impl Fn(u64, u64, &Frame) -> bool) {
        for _ in 0..400 {
            self.now += 100;
            let mut frames = Vec::new();
            for (node, replica) in &mut self.all {
                replica.tick(at(self.now), &mut self.rng);
                for effect in replica.effects(at(self.now), &mut self.rng) {
                    match effect {
                        Effect::Send { node: to, frame } => frames.push((*node, to, frame)),
                        Effect::Deliver { .. } => self.heard += 1,
                        Effect::Lost { port } => self.lost.push(port),
                        Effect::Request { .. } => {}
                    }
                }
            }
            for (from, to, bytes) in frames {
                let frame = Frame::parse(&bytes).unwrap();
                if let Some(replica) = self.all.get_mut(&to)
                    && !held(from, to, &frame)
                {
                    replica.frame(at(self.now), &mut self.rng, from, &bytes);
                }
            }
        }
    }

    fn say(&mut self, node: u64, port: u64, n: u64) {
        let replica = self.all.get_mut(&node).unwrap();
        replica.say(at(self.now), &mut self.rng, port, Word::Say(n), false);
    }
}

/// A slot whose homes in these views are these nodes, and its backup in the first.
fn slot_with(homes: [(&[u64], u64); 3], backup: u64) -> Slot {
    let node = |nodes: &[u64], index: usize| nodes[index];
    let right = |slot: &Slot| {
        homes.iter().all(|(nodes, home)| {
            let placement = Placement::new(&view(1, nodes, &[])).unwrap();
            node(nodes, placement.home(*slot)) == *home
        }) && {
            let placement = Placement::new(&view(1, homes[0].0, &[])).unwrap();
            placement.backup(*slot).map(|it| node(homes[0].0, it)) == Some(backup)
        }
    };
    // The toys of these slots say something to the port itself.
    (0..40).find(right).unwrap()
}

#[test]
fn a_former_home_that_becomes_home_again_gives_up_the_copy_of_its_own_time() {
    let slot = slot_with([(&[1, 2], 1), (&[1, 2, 3], 3), (&[1, 2], 1)], 2);
    let mut few = Few::new(&[1, 2, 3]);
    few.adopt(1, &[1, 2]);
    few.run(|_, _, _| false);
    few.all.get_mut(&1).unwrap().open(u64::from(slot), slot);
    few.say(1, u64::from(slot), 1);
    few.run(|_, _, _| false);
    let heard = few.heard;
    assert!(heard > 0, "the port hears the slot");
    // The slot goes to node 3, which dies before it has said a word of it.
    few.adopt(2, &[1, 2, 3]);
    few.run(|from, _, _| from == 3);
    few.all.remove(&3);
    few.adopt(3, &[1, 2]);
    // Node 2 has a copy that counts, and nobody can tell it anything: nothing leaves the home.
    few.run(|_, to, frame| {
        to == 2 && !matches!(frame, Frame::Inventory { .. } | Frame::Ask { .. })
    });
    few.say(1, u64::from(slot), 2);
    few.run(|_, to, frame| {
        to == 2 && !matches!(frame, Frame::Inventory { .. } | Frame::Ask { .. })
    });
    assert_eq!(few.heard, heard, "a copy that counts has missed something");
    few.run(|_, _, _| false);
    assert!(few.heard > heard, "and then it is heard");
}

#[test]
fn a_slot_that_is_handed_over_before_its_copy_has_it_counts_as_single() {
    let slot = slot_with([(&[1, 2], 1), (&[1, 2, 3], 3), (&[1, 2], 1)], 2);
    let mut few = Few::new(&[1, 2, 3]);
    few.adopt(1, &[1, 2]);
    few.all.get_mut(&1).unwrap().open(u64::from(slot), slot);
    few.say(1, u64::from(slot), 1);
    let single = |few: &Few| {
        let censuses = few.all.values().map(Replica::census);
        censuses.map(|census| census.single_copy).sum::<usize>()
    };
    // No copy is made before the slot goes to node 3, and its state does not arrive there.
    let under_way = |frame: &Frame| matches!(frame, Frame::State { .. });
    few.run(|_, _, frame| under_way(frame));
    let before = single(&few);
    assert!(before > 0);
    few.adopt(2, &[1, 2, 3]);
    few.run(|_, to, frame| under_way(frame) || to == 2);
    assert!(few.all[&1].machine(slot).is_none(), "it is handed over");
    assert_eq!(single(&few), before);
    few.run(|_, _, _| false);
    assert!(few.all[&3].machine(slot).is_some());
    assert_eq!(single(&few), 0);
}

/// A state that no link carries: its slot stays, and all others go.
#[test]
fn a_slot_that_has_grown_too_large_holds_up_no_other() {
    let placement = Placement::new(&view(2, &[1, 2], &[])).unwrap();
    let slot = (0..40).find(|slot| placement.home(*slot) == 1).unwrap();
    let options = Options {
        state_bytes: 400,
        ..Options::default()
    };
    let mut few = Few::with(&[1, 2], options);
    few.adopt(1, &[1]);
    few.run(|_, _, _| false);
    for port in 0..100 {
        few.all.get_mut(&1).unwrap().open(port, slot);
        few.say(1, port, 1);
    }
    few.run(|_, _, _| false);
    few.adopt(2, &[1, 2]);
    few.run(|_, _, _| false);
    let (one, two) = (few.all[&1].census(), few.all[&2].census());
    assert_eq!((one.leaving, two.awaited), (1, 1), "only that one stays");
    assert!(
        (1..400).contains(&one.work.too_large),
        "{}",
        one.work.too_large
    );
    assert!(few.all[&1].machine(slot).is_some());
    few.adopt(3, &[1]);
    let heard = few.heard;
    few.say(1, 7, 2);
    few.run(|_, _, _| false);
    assert!(few.heard > heard, "nothing of it is lost");
}

#[test]
fn ports_hear_when_home_and_copy_are_lost_together() {
    let slot = slot_with([(&[1, 2, 3], 1), (&[2, 3], 2), (&[3], 3)], 2);
    let other = slot_with([(&[1, 2, 3], 1), (&[2, 3], 3), (&[3], 3)], 3);
    let (lost, kept, fresh) = (u64::from(slot), u64::from(other), 100);
    let mut few = Few::new(&[1, 2, 3]);
    few.adopt(1, &[1, 2, 3]);
    few.run(|_, _, _| false);
    let node = few.all.get_mut(&3).unwrap();
    node.open(lost, slot);
    node.open(kept, other);
    few.say(3, lost, 1);
    few.say(3, kept, 1);
    few.run(|_, _, _| false);
    few.all.remove(&1);
    few.all.remove(&2);
    // What nobody has taken yet begins with the new home.
    few.all.get_mut(&3).unwrap().open(fresh, slot);
    few.say(3, fresh, 1);
    few.adopt(2, &[3]);
    few.run(|_, _, _| false);
    assert_eq!(few.lost, [lost]);
    assert_eq!(few.all[&3].port_backlog(fresh), 0, "the new home has it");
}

#[test]
fn a_port_elsewhere_hears_it_though_the_first_word_was_lost() {
    let slot = slot_with([(&[1, 2, 3, 4], 1), (&[3, 4], 3), (&[4], 4)], 2);
    let port = u64::from(slot);
    let mut few = Few::new(&[1, 2, 3, 4]);
    few.adopt(1, &[1, 2, 3, 4]);
    few.run(|_, _, _| false);
    few.all.get_mut(&4).unwrap().open(port, slot);
    few.say(4, port, 1);
    few.run(|_, _, _| false);
    few.all.remove(&1);
    few.all.remove(&2);
    few.adopt(2, &[3, 4]);
    few.run(|_, _, frame| matches!(frame, Frame::Began { .. }));
    assert_eq!(few.lost, []);
    few.adopt(3, &[3, 4]);
    few.run(|_, _, _| false);
    assert_eq!(few.lost, [port], "once");
}
