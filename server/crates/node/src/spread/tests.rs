//! Nodes that look at each other, and balancers of several kinds between them.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const OPTIONS: Options = Options {
    percent: 20,
    at_least: 10,
    per_second: 100,
    settle_ms: 10_000,
};
/// How often a node looks when it is due.
const TICK_MS: u64 = 250;

/// Where a balancer sends a client that comes from a node.
type Balance = fn(&World, usize, u64) -> usize;

/// Nodes and their clients.
struct World {
    nodes: Vec<Spread>,
    clients: Vec<u64>,
    /// Clients without a node: when they come back, and from where.
    away: VecDeque<(u64, usize)>,
    now: u64,
    epoch: u64,
    moved: u64,
    /// State of a generator.
    random: u64,
}

impl World {
    fn new(clients: &[u64]) -> Self {
        Self {
            nodes: clients.iter().map(|_| Spread::new(OPTIONS)).collect(),
            clients: clients.to_vec(),
            away: VecDeque::new(),
            now: 0,
            epoch: 1,
            moved: 0,
            random: 1,
        }
    }

    fn seen(&self, node: usize) -> Seen {
        let all: u64 = self.clients.iter().sum();
        let others = self.nodes.iter().enumerate().filter(|(n, _)| *n != node);
        Seen {
            parted: others.map(|(_, it)| it.parted(self.now)).sum(),
            epoch: self.epoch,
            mine: self.clients[node],
            others: all - self.clients[node],
            nodes: self.clients.len() as u64,
        }
    }

    /// Lets time pass. A client is without a node for two seconds.
    fn run(&mut self, seconds: u64, balance: Balance) {
        let end = self.now + seconds * 1_000;
        while self.now < end {
            self.now += TICK_MS;
            while let Some((at, from)) = self.away.front().copied()
                && at <= self.now
            {
                self.away.pop_front();
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005) + 1;
                let to = balance(self, from, self.random >> 33);
                self.clients[to] += 1;
            }
            for node in 0..self.nodes.len() {
                if !self.nodes[node].is_due(self.now) {
                    continue;
                }
                let seen = self.seen(node);
                let clients = self.nodes[node].look(self.now, Some(&seen));
                assert!(clients <= OPTIONS.per_second, "{clients} at once");
                self.clients[node] -= clients;
                self.moved += clients;
                let back = (self.now + 2_000, node);
                self.away.extend((0..clients).map(|_| back));
            }
        }
    }

    fn surplus(&self) -> u64 {
        (0..self.nodes.len())
            .map(|node| self.seen(node).surplus())
            .sum()
    }

    fn is_spread(&self) -> bool {
        (0..self.nodes.len()).all(|node| !self.seen(node).is_crowded(&OPTIONS))
    }
}

/// To the node that has the fewest.
fn least(world: &World, _: usize, _: u64) -> usize {
    let fewest = world.clients.iter().enumerate().min_by_key(|(_, it)| **it);
    fewest.map_or(0, |(node, _)| node)
}

/// To any.
fn any(world: &World, _: usize, random: u64) -> usize {
    (random % world.clients.len() as u64) as usize
}

/// To where it was.
fn same(_: &World, from: usize, _: u64) -> usize {
    from
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    /// Whatever there is at first: nobody is crowded at last, nobody was moved for nothing, and
    /// nobody is moved after that.
    #[test]
    fn behind_a_balancer_that_counts(clients in prop::collection::vec(0_u64..2_000, 1..8)) {
        let mut world = World::new(&clients);
        let (needed, spread) = (world.surplus(), world.is_spread());
        world.run(120, least);
        prop_assert!(world.is_spread(), "{:?} of {clients:?}", world.clients);
        prop_assert!(world.moved <= needed, "{} of {needed}", world.moved);
        prop_assert!(!spread || world.moved == 0);
        let moved = world.moved;
        world.run(3_600, least);
        prop_assert_eq!(world.moved, moved);
    }

    /// Some come back to where they were; that must not go on for ever, nor to and fro.
    #[test]
    fn behind_a_balancer_that_does_not(clients in prop::collection::vec(0_u64..2_000, 1..6)) {
        let mut world = World::new(&clients);
        let (needed, nodes) = (world.surplus(), clients.len() as u64);
        world.run(3_600, any);
        prop_assert!(world.is_spread(), "{:?} of {clients:?}", world.clients);
        // Of those that are moved, one share stays; what is moved anew is ever less.
        prop_assert!(world.moved <= 4 * (needed + nodes * OPTIONS.at_least), "{}", world.moved);
    }
}

#[test]
fn two_nodes_of_which_one_is_new() {
    let mut world = World::new(&[60, 0]);
    world.run(9, least);
    assert_eq!(
        world.clients,
        [60, 0],
        "it waits until the view has settled"
    );
    world.run(10, least);
    assert_eq!((&*world.clients, world.moved), (&[30, 30][..], 30));
    // A larger one takes its time: at most so many a second.
    let mut world = World::new(&[20_000, 0]);
    world.run(20, least);
    assert!(world.moved <= 1_000, "{}", world.moved);
    world.run(100, least);
    assert_eq!(world.clients, [10_000, 10_000]);
}

#[test]
fn a_difference_that_is_none_stays() {
    // 60 % of two, 19 beyond the share, and a few beyond it.
    for clients in [&[60, 40][..], &[600, 400], &[119, 100, 81], &[9, 0]] {
        let mut world = World::new(clients);
        world.run(600, least);
        assert_eq!((world.moved, &*world.clients), (0, clients));
    }
}

/// A balancer that sends everybody back is asked ever less.
#[test]
fn what_does_not_help_is_not_repeated_for_ever() {
    let mut world = World::new(&[100, 0]);
    world.run(60, same);
    assert!(world.moved >= 50);
    world.run(24 * 3_600, same);
    let rounds = world.moved / 50;
    assert!((10..=40).contains(&rounds), "{rounds}");
    // Another node is another chance.
    let before = world.moved;
    world.epoch += 1;
    world.run(30, least);
    assert_eq!((world.moved - before, &*world.clients), (50, &[50, 50][..]));
}

/// Whatever moves besides ends a round, and the next one waits until all has settled.
#[test]
fn it_is_quiet_while_something_else_moves() {
    let seen = |mine| Seen {
        epoch: 1,
        mine,
        others: 0,
        parted: 0,
        nodes: 2,
    };
    let mut node = Spread::new(OPTIONS);
    assert_eq!(node.look(0, None), 0);
    assert_eq!(node.look(1_000, Some(&seen(1_000))), 0);
    assert_eq!(node.look(10_999, Some(&seen(1_000))), 0);
    assert_eq!(node.left(), 0);
    assert_eq!(node.look(11_000, Some(&seen(1_000))), 0);
    assert_eq!(node.left(), 500);
    assert_eq!(node.look(11_250, Some(&seen(1_000))), 25);
    assert_eq!((node.look(11_500, None), node.left()), (0, 0));
    assert_eq!(node.look(12_500, Some(&seen(975))), 0);
    assert_eq!(node.look(22_499, Some(&seen(975))), 0);
    assert_eq!((node.left(), node.is_due(22_500)), (0, false));
    assert_eq!(node.look(23_499, Some(&seen(975))), 0);
    assert_eq!(node.left(), 487);
    // A process that was suspended does not make up for it.
    assert_eq!(node.look(99_000, Some(&seen(975))), 100);
    // Those who come meanwhile to the others are not needed here.
    let others = Seen {
        others: 860,
        ..seen(870)
    };
    assert_eq!((node.look(99_250, Some(&others)), node.left()), (5, 0));
}

#[test]
fn what_was_stopped_begins_again_when_nodes_come_or_go() {
    let mut world = World::new(&[1_000, 0]);
    world.run(11, least);
    assert!(world.moved > 0 && world.moved < 500, "{}", world.moved);
    let moved = world.moved;
    world.nodes[0].abort();
    world.run(7_200, least);
    assert_eq!((world.moved, world.nodes[0].left()), (moved, 0));
    world.epoch += 1;
    world.run(60, least);
    assert_eq!(world.clients, [500, 500]);
}
