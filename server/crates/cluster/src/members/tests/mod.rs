//! Membership rule by rule, and simulated with links, slow clocks, pauses and a faulty store.

mod cut_off;
mod joining;
mod removal;
mod sim;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cirrus_schema::TableId;
use cirrus_schema::keys::cluster;
use cirrus_store::{Condition, Item, Key, Op, Outcome, Place, StoreError};

use super::*;

const LEASE: u64 = 3_000;
const RENEW: u64 = 1_000;
const SILENCE: u64 = 1_000;
const CUT_OFF: u64 = 5_000;
const WALL: u64 = 1_795_488_480_000;
/// A full lease and its margin, as a watcher waits.
const LAPSE: u64 = 3_300;

fn options(instance: &str, boot: u128) -> Options {
    Options {
        me: Member {
            instance: instance.into(),
            boot,
            address: format!("10.0.0.{}:7250", boot % 256),
            zone: String::new(),
            weight: 1,
            state: MemberState::Serving,
            wire: 12,
            storage: 12,
        },
        oldest: 11,
        lease_ms: LEASE,
        renew_ms: RENEW,
        silence_ms: SILENCE,
        cut_off_ms: CUT_OFF,
        slot_key: [7; 16],
        seed: boot << 64,
    }
}

/// The cluster table, by the rules of the store's contract.
#[derive(Default)]
struct Rows(BTreeMap<Key, (Item, u128)>);

impl Rows {
    fn apply(&mut self, op: Op) -> Result<Outcome, StoreError> {
        let get = |key: &Key| self.0.get(key).map(|(item, _)| item.clone());
        match op {
            Op::Get { key } => Ok(Outcome::Item(get(&key))),
            Op::BatchGet { keys } => Ok(Outcome::Items(keys.iter().filter_map(get).collect())),
            Op::Put {
                item,
                condition,
                nonce,
            } => {
                let existing = self.0.get(&item.key);
                if existing.is_some_and(|(_, by)| *by == nonce) {
                    return Ok(Outcome::Put);
                }
                let version = existing.map(|(item, _)| item.version);
                let holds = match condition {
                    Condition::Any => true,
                    Condition::Absent => version.is_none(),
                    Condition::Version(wanted) => version == Some(wanted),
                };
                if !holds {
                    let existing = existing.map(|(item, _)| Box::new(item.clone()));
                    return Err(StoreError::Conflict {
                        key: item.key,
                        existing,
                    });
                }
                self.0.insert(item.key.clone(), (item, nonce));
                Ok(Outcome::Put)
            }
            other => panic!("{other:?}"),
        }
    }

    fn view(&self) -> Option<View> {
        let item = self.0.get(&cluster::view().into());
        item.map(|(item, _)| View::from_item(item).unwrap())
    }
}

fn timeout() -> StoreError {
    StoreError::Timeout {
        place: Place::Table(TableId::Cluster),
        source: None,
    }
}

/// Nodes with one clock, on a table and links that answer at once, or not at all.
struct Bench {
    rows: Rows,
    now: u64,
    nodes: Vec<Members>,
    /// Nodes that don't reach the store.
    cut: BTreeSet<usize>,
    /// Nodes that can't read leases.
    blind: BTreeSet<usize>,
    /// Nodes that are suspended, or dead.
    still: BTreeSet<usize>,
    /// Ways, from and to, on which nothing gets through.
    deaf: BTreeSet<(usize, usize)>,
    said: Vec<String>,
    beats_at: u64,
}

impl Bench {
    /// Nodes a, b, c and so on with ids 1, 2, 3 and so on.
    fn new(count: usize) -> Self {
        let mut bench = Self {
            rows: Rows::default(),
            now: 1_000_000,
            nodes: Vec::new(),
            cut: BTreeSet::new(),
            blind: BTreeSet::new(),
            still: BTreeSet::new(),
            deaf: BTreeSet::new(),
            said: Vec::new(),
            beats_at: 0,
        };
        for n in 0..count {
            let name = char::from(b'a' + n as u8).to_string();
            bench.add(options(&name, n as u128 + 1));
        }
        bench
    }

    /// A cluster of that many that are all members.
    fn cluster(count: usize) -> Self {
        let mut bench = Self::new(count);
        bench.pass(8_000);
        assert_eq!(bench.members(), (1..=count as u64).collect::<Vec<_>>());
        assert_eq!(bench.serving(), (0..count).collect::<Vec<_>>());
        bench.said();
        bench
    }

    fn add(&mut self, options: Options) -> usize {
        self.nodes.push(Members::new(options));
        self.nodes.len() - 1
    }

    /// Lets time pass in steps of 50 ms; answers come with the step.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now += 50;
            for n in 0..self.nodes.len() {
                if !self.still.contains(&n)
                    && self.nodes[n].wake_at().is_some_and(|at| at <= self.now)
                {
                    self.on(n, |node, now, out| node.tick(now, WALL, out));
                }
            }
            if self.now >= self.beats_at {
                self.beats_at = self.now + SILENCE / BEATS;
                self.beats();
            }
        }
    }

    /// Lets time pass until this holds, and says how long it took.
    fn until(&mut self, limit: u64, holds: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now;
        while !holds(self) {
            assert!(
                self.now - start < limit,
                "not within {limit} ms: {:?}",
                self.said
            );
            self.pass(50);
        }
        self.now - start
    }

    fn beats(&mut self) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                let (sender, node) = (&self.nodes[from], &self.nodes[to]);
                let wants = |a: &Members, b: &Members| {
                    a.links.0.iter().any(|member| member.node_id() == b.me)
                };
                let linked = wants(sender, node) || wants(node, sender);
                if from == to || !linked || self.still.contains(&from) || !self.hears(from, to) {
                    continue;
                }
                let (id, beat) = (sender.me, sender.beat(self.now, node.me));
                self.on(to, |node, now, out| node.heard(now, id, &beat, out));
            }
        }
    }

    fn hears(&self, from: usize, to: usize) -> bool {
        self.nodes[from].phase != Phase::Stopped && self.reaches(from, to)
    }

    /// Whether what a node has sent, perhaps as its last word, arrives.
    fn reaches(&self, from: usize, to: usize) -> bool {
        let over = self.nodes[to].phase == Phase::Stopped;
        !(self.deaf.contains(&(from, to)) || self.still.contains(&to) || over)
    }

    /// Between these nodes nothing gets through, both ways.
    fn part(&mut self, some: &[usize], others: &[usize]) {
        for (a, b) in some
            .iter()
            .flat_map(|a| others.iter().map(move |b| (*a, *b)))
        {
            self.deaf.extend([(a, b), (b, a)]);
        }
    }

    fn on(&mut self, n: usize, event: impl FnOnce(&mut Members, u64, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        event(&mut self.nodes[n], self.now, &mut out);
        self.effects(n, out);
    }

    fn effects(&mut self, n: usize, effects: Vec<Effect>) {
        let mut queue: VecDeque<(usize, Effect)> = effects.into_iter().map(|e| (n, e)).collect();
        let mut steps = 0;
        while let Some((n, effect)) = queue.pop_front() {
            steps += 1;
            assert!(
                steps < 10_000,
                "it does the same again and again: {effect:?}"
            );
            let mut out = Vec::new();
            let (mut other, now) = (n, self.now);
            match effect {
                Effect::Store { token, op } => {
                    let leases = matches!(op, Op::BatchGet { .. });
                    let fails = self.cut.contains(&n) || leases && self.blind.contains(&n);
                    let result = match fails {
                        true => Err(timeout()),
                        false => self.rows.apply(op),
                    };
                    self.nodes[n].on_result(now, WALL, token, result, &mut out);
                }
                Effect::Push { node, view } => {
                    let Some(to) = self.nodes.iter().position(|other| other.me == node) else {
                        continue;
                    };
                    if self.reaches(n, to) {
                        other = to;
                        self.nodes[to].view_pushed(now, view, &mut out);
                    }
                }
                Effect::Links { .. } => {}
                Effect::Adopt { view } => self.said.push(format!("{n} adopts {}", view.epoch)),
                Effect::Degraded => self.said.push(format!("{n} degraded")),
                Effect::Restored => self.said.push(format!("{n} restored")),
                Effect::Stop { reason } => self.said.push(format!("{n} stops: {reason:?}")),
                Effect::Left => self.said.push(format!("{n} left")),
                Effect::Fault { error } => self.said.push(format!("{n}: {error}")),
                Effect::JoinWaits { text } => self.said.push(format!("{n} waits: {text}")),
            }
            queue.extend(out.into_iter().map(|effect| (other, effect)));
        }
    }

    /// What was said since the last time.
    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    /// The ids in the store's view, in order.
    fn members(&self) -> Vec<u64> {
        let view = self.rows.view().unwrap();
        let ids: BTreeSet<u64> = view.members.iter().map(Member::node_id).collect();
        ids.into_iter().collect()
    }

    fn serving(&self) -> Vec<usize> {
        let serves = |n: &usize| !self.still.contains(n) && self.nodes[*n].may_serve(self.now);
        (0..self.nodes.len()).filter(serves).collect()
    }
}
