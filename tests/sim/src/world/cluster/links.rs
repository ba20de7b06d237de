//! The network between nodes: at most one link between two, in order as long as it lasts. A
//! direction can be held up, as a lost packet holds up those behind it; a link can break, and what
//! was under way is gone; each side learns of it in its time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cirrus_node::LinkTo;
use cirrus_router::codec;

use super::process::Input;
use super::{Step, World};
use crate::world::Happening;

/// Longest way of a frame, milliseconds.
const WAY_MS: u64 = 5;
/// Longest time until a side learns that its link was reset, milliseconds.
const RESET_MS: u64 = 50;
/// Time until a side finds out by itself that the other is gone, milliseconds.
const KEEPALIVE_MS: (u64, u64) = (8_000, 12_000);
/// After which time the nodes of a new link have answered each other: beats are a quarter of the
/// time of silence apart, milliseconds.
const HEARD_MS: u64 = 1_000;
/// Longest pause before a node is dialled again, milliseconds.
const RETRY_MS: u64 = 1_000;

/// A frame under way.
pub struct Frame {
    from: u64,
    to: u64,
    link: u64,
    bytes: Vec<u8>,
}

/// A link that two nodes have, whatever they know of it.
struct Link {
    number: u64,
    dialler: u64,
    since: u64,
}

/// What is between the nodes.
#[derive(Default)]
pub struct Links {
    /// By the lower and the higher node.
    all: BTreeMap<(u64, u64), Link>,
    last: u64,
    /// When the last frame from one to the other arrives.
    arrives: BTreeMap<(u64, u64), u64>,
    /// Directions, by machines, that are held up, and until when.
    pub blocked: BTreeMap<(usize, usize), u64>,
    held: BTreeMap<(u64, u64), VecDeque<Frame>>,
    dialling: BTreeSet<(u64, u64)>,
}

impl Links {
    /// The number of the link that two nodes have, whatever they know of it.
    pub fn between(&self, a: u64, b: u64) -> Option<u64> {
        self.all.get(&pair(a, b)).map(|link| link.number)
    }

    /// Whether they have had it for long enough to have heard each other.
    pub fn is_heard(&self, now: u64, a: u64, b: u64) -> bool {
        let link = self.all.get(&pair(a, b));
        link.is_some_and(|link| now >= link.since + HEARD_MS)
    }
}

fn pair(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b))
}

impl World {
    fn machine_of(&self, id: u64) -> Option<usize> {
        let process = self.cluster.as_ref()?.processes.get(&id)?;
        Some(process.machine)
    }

    pub(super) fn is_blocked(&self, from: u64, to: u64) -> bool {
        let machines = self.machine_of(from).zip(self.machine_of(to));
        let cluster = self.cluster.as_ref();
        machines.is_some_and(|way| cluster.is_some_and(|it| it.links.blocked.contains_key(&way)))
    }

    pub(super) fn send_frame(&mut self, from: u64, to: u64, bytes: Vec<u8>) {
        let way = 1 + self.chance.below(WAY_MS);
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(link) = cluster
            .processes
            .get(&from)
            .and_then(|it| it.links.get(&to))
        else {
            return;
        };
        let link = *link;
        self.report.frame_bytes += bytes.len() as u64;
        let last = cluster.links.arrives.entry((from, to)).or_default();
        let time = (self.now + way).max(*last);
        *last = time;
        let frame = Frame {
            from,
            to,
            link,
            bytes,
        };
        self.at(time, Happening::Cluster(Step::Frame(Box::new(frame))));
    }

    pub(super) fn frame_arrives(&mut self, frame: Frame) {
        let (from, to, link) = (frame.from, frame.to, frame.link);
        let blocked = self.is_blocked(from, to);
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster.links.between(from, to) != Some(link) {
            return;
        }
        let behind = cluster.links.held.contains_key(&(from, to));
        if blocked || behind {
            let held = cluster.links.held.entry((from, to)).or_default();
            return held.push_back(frame);
        }
        self.feed(to, Input::Frame(from, link, frame.bytes));
    }

    /// Holds up a direction.
    pub(super) fn block(&mut self, from: usize, to: usize, until: u64) {
        if let Some(cluster) = &mut self.cluster {
            let end = cluster.links.blocked.entry((from, to)).or_default();
            *end = until.max(*end);
            let end = *end;
            self.at(end, Happening::Cluster(Step::Unblock(from, to)));
        }
    }

    pub(super) fn unblock(&mut self, from: usize, to: usize) {
        let now = self.now;
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        if cluster
            .links
            .blocked
            .get(&(from, to))
            .is_none_or(|at| *at > now)
        {
            return;
        }
        cluster.links.blocked.remove(&(from, to));
        if cluster.links.blocked.is_empty() {
            let all = cluster.processes.values_mut();
            all.filter(|process| !process.suspended)
                .for_each(|process| process.troubled = None);
        }
        let machine = |id: &u64| cluster.processes.get(id).map(|process| process.machine);
        let its = |(a, b): &&(u64, u64)| machine(a) == Some(from) && machine(b) == Some(to);
        let ways: Vec<_> = cluster.links.held.keys().filter(its).copied().collect();
        for way in ways {
            let Some(frames) = self
                .cluster
                .as_mut()
                .and_then(|cluster| cluster.links.held.remove(&way))
            else {
                continue;
            };
            // Nothing that was sent later is under way: it would have been held as well.
            for frame in frames {
                self.frame_arrives(frame);
            }
        }
    }

    /// A node keeps links to exactly these.
    pub(super) fn keep_links(&mut self, id: u64, links: Vec<LinkTo>) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(process) = cluster.processes.get_mut(&id) else {
            return;
        };
        process.keeps = links.iter().map(|link| (link.node, link.dial)).collect();
        let keeps = process.keeps.clone();
        let mine = cluster
            .links
            .all
            .iter()
            .filter(|(_, link)| link.dialler == id);
        let others = mine.map(|((a, b), _)| if *a == id { *b } else { *a });
        let unnamed: Vec<u64> = others.filter(|other| !keeps.contains_key(other)).collect();
        for other in unnamed {
            self.break_link(id, other, false);
        }
        for (to, dial) in keeps {
            if dial {
                self.dial_soon(id, to, 5);
            }
        }
    }

    /// A link breaks; of a silent break each side finds out by itself.
    pub(super) fn break_link(&mut self, a: u64, b: u64, silent: bool) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let Some(Link { number: link, .. }) = cluster.links.all.remove(&pair(a, b)) else {
            return;
        };
        for (from, to) in [(a, b), (b, a)] {
            cluster.links.held.remove(&(from, to));
        }
        for (id, other) in [(a, b), (b, a)] {
            let after = match silent {
                true => KEEPALIVE_MS.0 + self.chance.below(KEEPALIVE_MS.1 - KEEPALIVE_MS.0),
                false => 1 + self.chance.below(RESET_MS),
            };
            let down = Box::new(Input::LinkDown(other, link));
            self.at(self.now + after, Happening::Cluster(Step::Told(id, down)));
            self.dial_soon(id, other, after + 50);
        }
    }

    /// The links of a process that is no more: the system resets them, unless the machine is gone.
    pub(super) fn lose_links(&mut self, id: u64, machine: usize) {
        let Some(cluster) = &self.cluster else {
            return;
        };
        let its = cluster
            .links
            .all
            .keys()
            .filter(|(a, b)| *a == id || *b == id);
        let all: Vec<_> = its.copied().collect();
        let silent = self.chance.one_in(4);
        self.tell(|| format!("machine {machine} resets its links: {}", !silent));
        for (a, b) in all {
            self.break_link(a, b, silent);
        }
    }

    /// The links of a process that has ended in order: what it has sent arrives.
    pub(super) fn close_links(&mut self, id: u64) {
        let all = self.cluster.iter().flat_map(|it| it.links.all.keys());
        let its: Vec<_> = all.filter(|(a, b)| *a == id || *b == id).copied().collect();
        for (a, b) in its {
            let step = Step::Close(a, b);
            self.at(self.now + WAY_MS + 1, Happening::Cluster(step));
        }
    }

    fn dial_soon(&mut self, from: u64, to: u64, within: u64) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let wants = cluster
            .processes
            .get(&from)
            .and_then(|it| it.keeps.get(&to))
            == Some(&true);
        if wants && cluster.links.dialling.insert((from, to)) {
            let time = self.now + 1 + self.chance.below(within);
            self.at(time, Happening::Cluster(Step::Dial(from, to)));
        }
    }

    pub(super) fn dial_node(&mut self, from: u64, to: u64) {
        let way = 1 + self.chance.below(WAY_MS);
        let reached = !self.is_blocked(from, to) && !self.is_blocked(to, from);
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.links.dialling.remove(&(from, to));
        let runs = |id| cluster.processes.get(id).is_some_and(|it| !it.suspended);
        if cluster.links.all.contains_key(&pair(from, to)) || !cluster.processes.contains_key(&from)
        {
            return;
        }
        if !reached || !runs(&from) || !runs(&to) {
            return self.dial_soon(from, to, RETRY_MS);
        }
        let newest = |id| cluster.processes.get(id).map(|it| it.newest);
        let format = newest(&from).min(newest(&to)).unwrap_or(codec::OLDEST);
        cluster.links.last += 1;
        let link = cluster.links.last;
        let up = self.now + way;
        let opened = Link {
            number: link,
            dialler: from,
            since: up,
        };
        cluster.links.all.insert(pair(from, to), opened);
        // Nothing arrives before the link is known.
        cluster.links.arrives.insert((to, from), up);
        cluster.links.arrives.insert((from, to), up);
        let told = Box::new(Input::LinkUp(to, link, format));
        self.at(up, Happening::Cluster(Step::Told(from, told)));
        self.feed(to, Input::LinkUp(from, link, format));
    }
}
