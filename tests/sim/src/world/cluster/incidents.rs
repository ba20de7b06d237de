//! What happens to nodes.

use std::sync::Arc;

use cirrus_cluster::members::Options as Membership;
use cirrus_cluster::{Member, MemberState};
use cirrus_node::{Node, Options};
use cirrus_replica::Census;
use cirrus_router::Entropy as _;
use cirrus_router::codec::{self, Older};

use super::process::{Clock, Input, Process, Stage};
use super::{Cluster, LOOK_MS, Step, World};
use crate::plan::{Incident, SKEW_MS};
use crate::store::Store;
use crate::world::Happening;

/// How far a steady clock's speed is from true time, in millionths: 2 %, with a lease's margin of
/// a tenth.
const DRIFT: u64 = 20_000;
/// A node that is silent for less is not missed, milliseconds.
const HARMLESS_MS: u64 = 600;
/// How often it is tried whether something may happen, milliseconds.
const TRY_MS: u64 = 100;
/// Time in which nodes are linked again, milliseconds.
const CALM_MS: u64 = 3_000;
/// Longest time until a service manager has started a process again, milliseconds.
const RESTART_MS: u64 = 3_000;

impl World {
    pub(super) fn start_soon(&mut self, machine: usize, within: u64) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if let Some(place) = cluster.machines.get_mut(machine)
            && !place.starts
        {
            place.starts = true;
            self.soon(within, Happening::Cluster(Step::Start(machine)));
        }
    }

    pub(super) fn start_on(&mut self, machine: usize) {
        let mut slot_key = [0; 16];
        self.chance.fill(&mut slot_key);
        let (boot, seed) = (self.chance.u128(), self.chance.u128());
        let drift = self.chance.below(2 * DRIFT + 1).cast_signed() - DRIFT.cast_signed();
        let skew = self.chance.below(2 * SKEW_MS + 1).cast_signed() - SKEW_MS.cast_signed();
        let clock = Clock {
            born: self.now,
            steady: self.chance.below(1_000_000),
            drift,
            skew,
        };
        let home = self.home_config();
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let zone = match cluster.machines.get_mut(machine) {
            Some(place) => {
                place.starts = false;
                place.zone
            }
            None => 0,
        };
        let runs = |process: &Process| process.machine == machine;
        if cluster.processes.values().any(runs) {
            return;
        }
        let format = cluster.program(boot);
        let me = Member {
            instance: format!("i-{machine}"),
            boot,
            address: format!("10.0.0.{machine}:7250"),
            zone: format!("zone-{zone}"),
            weight: 1,
            state: MemberState::Serving,
            wire: format.into(),
            storage: format.into(),
        };
        let id = me.node_id();
        let options = Options {
            home: Arc::new(home),
            replica: self.plan.replica,
            membership: Some(Membership {
                me,
                oldest: codec::OLDEST.into(),
                lease_ms: 3_000,
                renew_ms: 1_000,
                silence_ms: 1_000,
                cut_off_ms: 5_000,
                slot_key,
                seed,
            }),
            spread: None,
            newest: format,
            public: None,
        };
        let now = clock.now(self.now);
        let _old = Older::than(format);
        let node = Node::new(now, &mut self.chance, options);
        let process = Process::new(node, (machine, format), clock);
        cluster.processes.insert(id, process);
        self.report.starts += 1;
        if format == codec::OLDEST {
            *self.report.incidents.entry("older nodes").or_default() += 1;
        }
        self.tell(|| {
            format!("node {id} of format {format} starts on machine {machine}, {clock:?}")
        });
        self.begin_wake(id);
    }

    /// A client has done something: what is due by now may happen.
    pub(in crate::world) fn incidents(&mut self) {
        let operations = self.report.operations;
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        while cluster
            .coming
            .first_key_value()
            .is_some_and(|(at, _)| *at <= operations)
        {
            let some = cluster.coming.pop_first();
            cluster
                .due
                .extend(some.into_iter().flat_map(|(_, all)| all));
        }
        if self.now < cluster.tried_at + TRY_MS {
            return;
        }
        cluster.tried_at = self.now;
        cluster.look_whether_whole();
        // What may not happen now does not keep what may from happening.
        let due = cluster.due.clone();
        let calm = (!due.is_empty()).then(|| cluster.is_calm(self.now, &self.store));
        let calm = calm.unwrap_or_default();
        let next = due.iter().position(|it| self.happens(*it, calm));
        if let Some(index) = next
            && let Some(cluster) = &mut self.cluster
            && let Some(incident) = cluster.due.remove(index)
        {
            *self.report.incidents.entry(incident.name()).or_default() += 1;
        }
        self.keep_company();
    }

    /// Most of what can happen needs two nodes: a lone one that waits for it gets company.
    fn keep_company(&mut self) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let alone = cluster.processes.len() == 1 && cluster.serving().len() == 1;
        let comes = cluster.machines.iter().any(|machine| machine.starts);
        if alone && !comes && !cluster.due.is_empty() {
            self.join();
        }
    }

    /// Lets something happen, if it may now.
    fn happens(&mut self, incident: Incident, safe: bool) -> bool {
        let Some(cluster) = &self.cluster else {
            return false;
        };
        let serving = cluster.serving();
        let harmless = match incident {
            Incident::Suspend { ms, .. } => ms <= HARMLESS_MS,
            // Of a link that breaks without a word, nobody knows for long.
            Incident::CutOff { ms, reset, .. } => ms <= HARMLESS_MS && !reset,
            Incident::Kill => false,
            // Of two, one that drains leaves the other alone, without a copy, even if that one is
            // suspended.
            Incident::Drain { .. } => cluster.staying() != 2,
            // What two can't tell each other the store would have to, and so it is with the loss of
            // one of them.
            Incident::Outage(_) => {
                let known = cluster.links.blocked.is_empty() && cluster.lost.is_empty();
                known && !cluster.has_view_of_two()
            }
            _ => true,
        };
        if serving.is_empty() || !(harmless || safe) {
            return false;
        }
        let victim = serving[self.chance.index(serving.len())];
        self.tell(|| format!("{incident:?} for node {victim}"));
        match incident {
            Incident::Kill => self.kill_node(victim),
            Incident::Suspend { ms, held } => self.suspend(victim, ms, held),
            Incident::CutOff { ms, way, reset } => self.cut_off(victim, ms, way, reset),
            Incident::Reset => self.reset_a_link(victim),
            Incident::Bereave { ms } => {
                self.cut_off(victim, ms, 2, false);
                self.join();
                self.soon(2 * ms, Happening::Cluster(Step::Bereave(victim)));
            }
            Incident::Drain { back } => return self.drain_node(victim, back),
            Incident::Join => return self.join(),
            Incident::Outage(ms) => self.store.down_until = self.now + ms,
            Incident::Erase { account, kill } => {
                if kill && let Some(cluster) = &mut self.cluster {
                    cluster.doomed.insert(account);
                }
                self.begin_erasure(account);
            }
        }
        true
    }

    fn kill_node(&mut self, id: u64) {
        let machine = self.process(id).map(|process| process.machine);
        self.report.kills += 1;
        self.end_process(id, true);
        if let Some(machine) = machine {
            self.start_soon(machine, RESTART_MS);
        }
    }

    /// All nodes die but one.
    pub(super) fn bereave(&mut self, survivor: u64) {
        let serving = self.cluster.as_ref().map(Cluster::serving);
        let others = serving.into_iter().flatten().filter(|id| *id != survivor);
        if self.playing && self.runs(survivor) {
            others.for_each(|id| self.kill_node(id));
        }
    }

    /// The home of an account that is being erased dies, as soon as it may.
    pub(super) fn kill_home(&mut self, account: usize) {
        if !self.playing || !self.is_erasing_account(account) {
            return;
        }
        let user = self.user(account).clone();
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let its = |process: &&Process| process.is_home_of(&user);
        let home = cluster.processes.values().find(its);
        let home = home.filter(|it| it.serves() && !it.suspended);
        let victim = home.map(|process| process.node.id());
        match victim.filter(|_| cluster.is_calm(self.now, &self.store)) {
            Some(victim) => {
                cluster.doomed.remove(&account);
                self.tell(|| format!("kill of node {victim}, which erases user{account}"));
                let name = "kills in deletions";
                *self.report.incidents.entry(name).or_default() += 1;
                self.kill_node(victim);
            }
            None => self.soon(50, Happening::Cluster(Step::KillHome(account))),
        }
    }

    /// No other node may be lost before all have had time to talk to each other again.
    fn is_in_danger(&mut self, id: u64, until: u64) {
        let now = self.now;
        if let Some(process) = self.process(id) {
            process.troubled = process.troubled.or(Some(now));
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.danger_until = cluster.danger_until.max(until + CALM_MS);
        }
    }

    fn suspend(&mut self, id: u64, ms: u64, held: bool) {
        let until = self.now + ms;
        self.is_in_danger(id, until);
        let Some(process) = self.process(id) else {
            return;
        };
        if held {
            process.stall = Some(until);
        } else {
            process.suspended = true;
            self.at(until, Happening::Cluster(Step::Resume(id)));
        }
    }

    /// What a node says to others, or they to it, is held up; perhaps its links break meanwhile.
    fn cut_off(&mut self, id: u64, ms: u64, way: u8, reset: bool) {
        let until = self.now + ms;
        self.is_in_danger(id, until);
        let Some(machine) = self.process(id).map(|process| process.machine) else {
            return;
        };
        let machines = self.cluster.as_ref().map_or(0, |it| it.machines.len());
        for other in (0..machines).filter(|other| *other != machine) {
            if way & 1 != 0 {
                self.block(machine, other, until);
            }
            if way & 2 != 0 {
                self.block(other, machine, until);
            }
        }
        if reset {
            self.lose_links(id, machine);
        }
    }

    fn reset_a_link(&mut self, id: u64) {
        let others = self
            .process(id)
            .map(|it| it.links.keys().copied().collect());
        let others: Vec<u64> = others.unwrap_or_default();
        if !others.is_empty() {
            let other = others[self.chance.index(others.len())];
            self.break_link(id, other, false);
        }
    }

    pub(super) fn drain_node(&mut self, id: u64, back: Option<u64>) -> bool {
        if let Some(process) = self.process(id) {
            process.stage = Stage::Drains;
        }
        self.feed(id, Input::Drain);
        self.at(self.now + LOOK_MS, Happening::Cluster(Step::Look(id)));
        if let Some(ms) = back {
            self.at(self.now + ms, Happening::Cluster(Step::Undrain(id)));
        }
        true
    }

    pub(super) fn look_at_drain(&mut self, id: u64) {
        let runs = self.has_pipes(id);
        let Some(process) = self.process(id) else {
            return;
        };
        match process.stage {
            Stage::Serves | Stage::Leaves => return,
            Stage::Drains => match process.node.drained().filter(|_| !process.suspended) {
                Some(true) => {
                    process.stage = Stage::Parts;
                    self.tell(|| format!("node {id} has given its slots away"));
                    self.soon(1_000, Happening::Cluster(Step::Part(id)));
                }
                Some(false) => return self.undrain(id),
                None => {}
            },
            Stage::Parts => {
                let census = process.node.census();
                if census.slots.ports == 0 && !runs {
                    process.stage = Stage::Leaves;
                    return self.feed(id, Input::Leave);
                }
            }
        }
        self.at(self.now + LOOK_MS, Happening::Cluster(Step::Look(id)));
    }

    pub(super) fn undrain(&mut self, id: u64) {
        if let Some(process) = self.process(id).filter(|it| it.stage == Stage::Drains) {
            process.stage = Stage::Serves;
            self.feed(id, Input::Undrain);
        }
    }

    /// A drained node breaks its connections, and hears that they are gone.
    pub(super) fn part(&mut self, id: u64) {
        let pipes = self.pipes.keys().filter(|pipe| pipe.node == id);
        for pipe in pipes.copied().collect::<Vec<_>>() {
            self.cut_pipe(pipe);
            let event = cirrus_router::PipeEvent::Closed { clean: false };
            self.feed(id, Input::Pipe(pipe, event));
        }
    }

    fn has_pipes(&self, id: u64) -> bool {
        self.pipes.keys().any(|pipe| pipe.node == id)
    }

    fn join(&mut self) -> bool {
        let Some(cluster) = &self.cluster else {
            return false;
        };
        let taken = |n: &usize| cluster.processes.values().any(|it| it.machine == *n);
        let free = (0..cluster.machines.len()).find(|n| !taken(n) && !cluster.machines[*n].starts);
        if let Some(machine) = free {
            self.start_soon(machine, 10);
        }
        true
    }

    fn process(&mut self, id: u64) -> Option<&mut Process> {
        self.cluster.as_mut()?.processes.get_mut(&id)
    }

    /// Nothing more happens to nodes, and what has happened to them is over.
    pub(in crate::world) fn mend_cluster(&mut self) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.coming.clear();
        cluster.due.clear();
        let ways: Vec<_> = cluster.links.blocked.keys().copied().collect();
        for way in &ways {
            cluster.links.blocked.insert(*way, self.now);
        }
        for (from, to) in ways {
            self.unblock(from, to);
        }
    }
}

impl Cluster {
    /// The nodes that serve and run.
    fn serving(&self) -> Vec<u64> {
        let serves = |it: &&Process| it.serves() && !it.suspended && it.stage == Stage::Serves;
        let all = self.processes.values().filter(serves);
        all.map(|process| process.node.id()).collect()
    }

    /// How many nodes serve, suspended or not, and do not drain.
    fn staying(&self) -> usize {
        let stays = |it: &&Process| it.serves() && it.stage == Stage::Serves;
        self.processes.values().filter(stays).count()
    }

    /// Some node is in a view of two, though one of them may be about to leave.
    fn has_view_of_two(&self) -> bool {
        let replicas = self.processes.values().filter_map(|it| it.node.replica());
        let mut views = replicas.filter_map(cirrus_replica::Replica::view);
        views.any(|view| view.members.len() == 2)
    }

    pub(super) fn censuses(&self) -> impl Iterator<Item = Census> {
        let replicas = self.processes.values().filter_map(|it| it.node.replica());
        replicas.map(cirrus_replica::Replica::census)
    }

    /// After the loss of a node: everything has a home and a copy again.
    fn look_whether_whole(&mut self) {
        if self.lost.is_empty() {
            return;
        }
        let settled = |c: Census| c.awaited + c.leaving + c.single_copy == 0;
        let all = self.processes.values().all(Process::serves);
        let names = |process: &Process| self.lost.iter().any(|id| process.names(*id));
        let known = !self.processes.values().any(names);
        if known && all && self.censuses().all(settled) {
            self.lost.clear();
        }
    }

    /// Nodes may be lost at that time.
    fn is_calm(&self, now: u64, store: &Store) -> bool {
        let calm = now >= self.danger_until.max(store.down_until + CALM_MS);
        self.reckless || (calm && self.may_lose_one(now))
    }

    /// A node has a link with every other, and none of them has broken without a word.
    pub fn is_linked(&self, id: u64) -> bool {
        let Some(process) = self.processes.get(&id) else {
            return false;
        };
        let others = self.processes.keys().filter(|other| **other != id);
        others.into_iter().all(|other| {
            let link = process.links.get(other);
            link.is_some() && link.copied() == self.links.between(id, *other)
        })
    }

    /// The loss of one more node loses nothing: no other is in danger, and every home has a copy.
    fn may_lose_one(&self, now: u64) -> bool {
        let runs = |it: &Process| !it.suspended && it.stall.is_none();
        let idle = self.lost.is_empty() && self.links.blocked.is_empty();
        idle && self.processes.values().all(runs)
            && self.serving().len() >= 2
            && self.processes.keys().all(|id| self.is_linked(*id))
            && self.hear_each_other(now)
            // Last, as every slot is looked at.
            && self.censuses().all(|census| census.single_copy == 0)
    }

    /// A node that has just been linked again may still count the time in which it heard nobody.
    fn hear_each_other(&self, now: u64) -> bool {
        self.processes.keys().all(|id| {
            let mut others = self.processes.keys().filter(|other| *other > id);
            others.all(|other| self.links.is_heard(now, *id, *other))
        })
    }
}
