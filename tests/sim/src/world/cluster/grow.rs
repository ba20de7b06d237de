//! A cluster grows node by node and shrinks again, under load: how many slots move, and what a node
//! has to keep and to say.

use std::collections::BTreeMap;
use std::fmt;

use cirrus_cluster::{SLOTS, Slot};
use cirrus_replica::Replica;

use super::World;
use super::process::Process;
use crate::check::Violation;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::world::{Happening, Report};

/// How often it is looked whether a change is over, milliseconds.
const LOOK_MS: u64 = 100;
/// A change that takes longer is stuck, milliseconds.
const MOST_MS: u64 = 60_000;
/// How long it is measured what nodes say, milliseconds.
const LISTEN_MS: u64 = 5_000;

/// One change of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Nodes before and after.
    pub nodes: (usize, usize),
    /// Slots whose home is another.
    pub moved: usize,
    /// Until every slot had its home and its copy, milliseconds.
    pub took_ms: u64,
}

impl Change {
    /// Slots that may move: 1.3 times an even share of the larger cluster.
    pub fn most_moved(&self) -> usize {
        usize::from(SLOTS) * 13 / 10 / self.nodes.0.max(self.nodes.1)
    }
}

/// What a node has at some size of the cluster, on average, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Nodes.
    pub nodes: usize,
    /// Links of a node.
    pub links: usize,
    /// The view as it is stored and sent.
    pub view: usize,
    /// The state of the slots that a node is home of or has a copy of, as a link carries it.
    pub state: usize,
    /// What a node says to others in a second: beats, and what it does for its clients.
    pub said: u64,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Growth {
    /// Every change, in order.
    pub changes: Vec<Change>,
    /// At some sizes on the way up.
    pub loads: Vec<Load>,
    /// What the clients did and saw.
    pub report: Report,
}

impl Growth {
    /// Nothing was lost, and no more slots moved than may.
    pub fn is_right(&self) -> bool {
        let few = |change: &Change| change.moved <= change.most_moved();
        self.report.violations.is_empty() && self.changes.iter().all(few)
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.report.violations {
            writeln!(f, "{violation}")?;
        }
        writeln!(f, "  nodes  moved  may move  took (ms)")?;
        for change in &self.changes {
            let (before, after) = change.nodes;
            let (moved, most) = (change.moved, change.most_moved());
            writeln!(
                f,
                "{before:>3} ->{after:>3} {moved:>5} {most:>9} {:>10}",
                change.took_ms
            )?;
        }
        writeln!(
            f,
            "bytes of a node:\n  nodes  links   view   state  said in a second"
        )?;
        for load in &self.loads {
            let Load {
                nodes,
                links,
                view,
                state,
                said,
            } = load;
            writeln!(f, "{nodes:>7} {links:>6} {view:>6} {state:>7} {said:>17}")?;
        }
        let report = &self.report;
        write!(
            f,
            "{} clients sent {} messages, {} were acknowledged; {} resumes, {} views; {} wrong",
            report.clients,
            report.messages,
            report.accepted,
            report.resumes,
            report.views,
            report.violations.len()
        )
    }
}

/// Grows a cluster from one node to `most` and back.
pub fn grow(seed: u64, most: usize) -> Growth {
    let plan = move |rng: &mut Rng| Plan::growth(rng, most);
    let mut world = World::new(seed, plan, None);
    for client in 0..world.clients.len() {
        world.soon(500, Happening::Act(client));
    }
    let mut growth = Growth::default();
    let whole = world.until_whole(1);
    world.listen(whole, &mut growth);
    for n in 1..most {
        world.change(n, n + 1, &mut growth);
    }
    for n in (1..most).rev() {
        world.change(n + 1, n, &mut growth);
    }
    world.playing = false;
    world.settle();
    world.judge();
    growth.report = world.report;
    growth
}

impl World {
    /// One node comes or goes; the last machine is the last to have come.
    fn change(&mut self, before: usize, after: usize, growth: &mut Growth) {
        let (homes, began) = (self.homes(), self.now);
        if after > before {
            self.start_soon(after - 1, 10);
        } else if let Some(id) = self.node_on(before - 1) {
            self.drain_node(id, None);
        }
        let whole = self.until_whole(after);
        let now = self.homes();
        let moved = homes
            .iter()
            .filter(|(slot, node)| now.get(slot) != Some(*node));
        growth.changes.push(Change {
            nodes: (before, after),
            moved: moved.count(),
            took_ms: self.now - began,
        });
        if after > before {
            self.listen(whole, growth);
        }
    }

    fn node_on(&self, machine: usize) -> Option<u64> {
        let mut all = self.cluster.as_ref()?.processes.iter();
        let its = all.find(|(_, process)| process.machine == machine);
        its.map(|(id, _)| *id)
    }

    /// The home of every slot that has one.
    fn homes(&self) -> BTreeMap<Slot, u64> {
        let processes = self.cluster.iter().flat_map(|it| &it.processes);
        let replicas = processes.filter_map(|(id, it)| Some((*id, it.node.replica()?)));
        let homes = replicas.flat_map(|(id, it)| it.machines().map(move |(slot, _)| (slot, id)));
        homes.collect()
    }

    /// Lets time pass until so many nodes serve, are linked, and every slot has a home and a copy.
    fn until_whole(&mut self, nodes: usize) -> bool {
        let deadline = self.now + MOST_MS;
        while self.now < deadline {
            self.run_until(self.now + LOOK_MS);
            if self.is_whole(nodes) {
                return true;
            }
        }
        let text = format!("{nodes} nodes do not come to rest");
        self.wrong(Violation::Stuck(text));
        false
    }

    fn is_whole(&self, nodes: usize) -> bool {
        let Some(cluster) = &self.cluster else {
            return false;
        };
        let serve = cluster.processes.len() == nodes
            && cluster.processes.values().all(Process::serves)
            && cluster.processes.keys().all(|id| cluster.is_linked(*id));
        let named = |it: &Replica<_>| it.view().map_or(0, |view| view.members.len());
        let replicas = cluster.processes.values().map(|it| it.node.replica());
        let agree = |it: Option<&Replica<_>>| it.is_some_and(|it| named(it) == nodes);
        serve
            && replicas.into_iter().all(agree)
            && cluster.censuses().map(|it| it.homes).sum::<usize>() == usize::from(SLOTS)
            && cluster.censuses().all(|census| {
                census.awaited + census.leaving == 0 && (census.single_copy == 0 || nodes == 1)
            })
    }

    /// Measures what nodes have and say, at sizes worth printing.
    fn listen(&mut self, whole: bool, growth: &mut Growth) {
        let nodes = self.cluster.as_ref().map_or(0, |it| it.processes.len());
        if !whole || !matches!(nodes, 1 | 10 | 50) {
            return;
        }
        let before = self.report.frame_bytes;
        self.run_until(self.now + LISTEN_MS);
        let said = self.report.frame_bytes - before;
        let Some(cluster) = &self.cluster else {
            return;
        };
        let replicas: Vec<_> = cluster
            .processes
            .values()
            .filter_map(|it| it.node.replica())
            .collect();
        let view = replicas.iter().find_map(|it| it.view()?.to_item().ok());
        let state: usize = replicas.iter().map(|it| it.state_bytes()).sum();
        let links: usize = cluster.processes.values().map(|it| it.links.len()).sum();
        growth.loads.push(Load {
            nodes,
            links: links / nodes,
            view: view.map_or(0, |item| item.size(false)),
            state: state / nodes,
            said: said * 1_000 / LISTEN_MS / nodes as u64,
        });
    }
}
