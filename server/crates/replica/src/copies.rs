//! The copies of slots: what homes and copies say to each other.
//!
//! A copy *counts* from when it has confirmed the state and been told so: nothing leaves the home
//! without it, and only such a copy may become home. One that is not needed any more is given up
//! when its node has said that it is gone: until then nothing leaves the home, so that no copy that
//! has missed something is left for when home and copies die together.

use std::collections::BTreeMap;

use cirrus_cluster::Slot;
use cirrus_cluster::planted::{self, Bug};

use crate::Replica;
use crate::frame::Frame;
use crate::machine::Machine;
use crate::replicated::Entry;
use crate::slots::Copy;

/// A copy of a slot on another node, as its home sees it.
#[derive(Debug)]
pub(crate) struct CopyAt {
    pub node: u64,
    /// It has had the whole state: what leaves the home waits for it.
    pub ready: bool,
    /// It knows that: it may become home. Before, another copy is not given up for it.
    pub sure: bool,
    /// The entry of the state that was sent to it.
    pub sent: Option<u64>,
    /// The last entry that it has confirmed.
    pub acked: u64,
}

impl CopyAt {
    /// One that has nothing yet.
    pub fn new(node: u64) -> Self {
        Self {
            node,
            ready: false,
            sure: false,
            sent: None,
            acked: 0,
        }
    }

    /// The state that was sent to it is not confirmed.
    pub fn is_under_way(&self) -> bool {
        self.sent.is_some_and(|sent| self.acked < sent)
    }

    /// The last entry that need not be sent to it again.
    pub fn base(&self) -> Option<u64> {
        let sent = self.sent.map(|sent| sent.max(self.acked));
        sent.or(self.ready.then_some(self.acked))
    }
}

impl<M: Machine> Replica<M> {
    /// A copy confirms entries.
    pub(crate) fn has(&mut self, node: u64, slot: Slot, (term, number, sure): (u64, u64, bool)) {
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        if term != home.core.term || number > home.core.entry {
            return;
        }
        let Some(copy) = home.copies.iter_mut().find(|copy| copy.node == node) else {
            return;
        };
        copy.acked = copy.acked.max(number);
        let there = copy.sent.is_some_and(|sent| copy.acked >= sent);
        let told = there && !copy.sure && !sure;
        if there && !copy.sure {
            (copy.ready, copy.sure) = (true, sure);
            self.pacing.unchosen.insert(slot);
        }
        if told {
            self.send(node, &Frame::Counts { slot, term });
        }
        self.pacing.due = true;
        if let Some(home) = self.slots.home_mut(slot) {
            home.prune();
        }
        self.release_waiting(slot);
    }

    /// What is not confirmed may have come to a node that did not know this one yet, or not have
    /// come: whoever misses something says so.
    pub(crate) fn ask_copies(&mut self) {
        let mut unsure: BTreeMap<u64, Vec<(Slot, u64)>> = BTreeMap::new();
        let mut due = self.waiting;
        due.extend(self.pacing.under_way());
        for slot in due {
            let Some(home) = self.slots.home(slot) else {
                self.waiting.remove(slot);
                continue;
            };
            self.waiting.set(slot, !home.waiting.is_empty());
            for copy in &home.copies {
                let last = match copy.ready {
                    true => Some(home.core.entry),
                    false => copy.sent,
                };
                if let Some(last) = last.filter(|last| copy.acked < *last && copy.sent.is_some()) {
                    unsure.entry(copy.node).or_default().push((slot, last));
                }
            }
        }
        for (node, slots) in unsure {
            self.send(node, &Frame::Holds { slots });
        }
    }

    /// A home asks whether copies here have everything.
    pub(crate) fn holds(&mut self, node: u64, slots: &[(Slot, u64)]) {
        for (slot, last) in slots {
            let copy = self.slots.copy_mut(*slot);
            let its = copy.filter(|copy| copy.leader == Some(node));
            if its.is_some_and(|copy| copy.core.entry >= *last) {
                self.confirm.insert((node, *slot));
            } else {
                self.slots.drop_copy(*slot, node, 0);
                let (slot, diverged) = (*slot, false);
                self.send(node, &Frame::Lost { slot, diverged });
            }
        }
    }

    /// The copy counts from now on.
    pub(crate) fn counts(&mut self, node: u64, slot: Slot, term: u64) {
        match self.slots.copy_mut(slot) {
            Some(copy) if copy.leader == Some(node) && copy.core.term == term => {
                copy.sure = true;
                self.confirm.insert((node, slot));
            }
            _ => {
                let diverged = false;
                self.send(node, &Frame::Lost { slot, diverged });
            }
        }
    }

    /// Nodes are told again that their copies are not needed.
    pub(crate) fn drop_retired(&mut self, node: Option<u64>) {
        for slot in self.retiring {
            let home = self.slots.home(slot);
            let Some(home) = home.filter(|home| !home.retired.is_empty()) else {
                self.retiring.remove(slot);
                continue;
            };
            let term = home.core.term;
            let retired = home.retired.iter().copied();
            let retired: Vec<u64> = retired.filter(|it| node.is_none_or(|n| n == *it)).collect();
            for node in retired {
                self.send(node, &Frame::Drop { slot, term });
            }
        }
    }

    /// A node has a copy of a slot here that is not needed.
    pub(crate) fn retire(&mut self, slot: Slot, node: u64) {
        if let Some(home) = self.slots.home_mut(slot) {
            let term = home.core.term;
            if !planted::is(Bug::RetireUnasked) {
                home.retired.insert(node);
            }
            self.retiring.insert(slot);
            self.send(node, &Frame::Drop { slot, term });
        }
    }

    /// A copy that is not needed is gone.
    pub(crate) fn dropped(&mut self, node: u64, slot: Slot, term: u64) {
        if let Some(home) = self.slots.home_mut(slot)
            && home.core.term == term
            && home.retired.remove(&node)
        {
            self.pacing.unchosen.insert(slot);
            self.pacing.due = true;
            self.release_waiting(slot);
        }
    }

    /// A copy can't go on: it gets the state once more.
    pub(crate) fn lost(&mut self, node: u64, slot: Slot, diverged: bool) {
        self.diverged += u64::from(diverged);
        if let Some(home) = self.slots.home_mut(slot) {
            for copy in home.copies.iter_mut().filter(|copy| copy.node == node) {
                (copy.sent, copy.sure) = (None, false);
            }
            self.pacing.unchosen.insert(slot);
            self.pacing.due = true;
        }
    }

    /// Members that are no more keep no copies.
    pub(crate) fn leave_gone_copies(&mut self, slot: Slot) {
        let nodes = &self.nodes;
        if let Some(home) = self.slots.home_mut(slot) {
            home.copies.retain(|copy| nodes.contains(&copy.node));
            home.retired.retain(|node| nodes.contains(node));
            home.prune();
        }
        self.release_waiting(slot);
    }

    /// A new link with a node: what it keeps copies of, what these miss, and what its ports and
    /// slots were told and have not taken.
    pub(crate) fn greet_copies(&mut self, node: u64) {
        let mut slots = Vec::new();
        let mut frames = Vec::new();
        self.drop_retired(Some(node));
        for slot in self.slots.homes() {
            let Some(home) = self.slots.home_mut(slot) else {
                continue;
            };
            let copy = home.copies.iter().find(|copy| copy.node == node);
            if let Some(base) = copy.and_then(CopyAt::base) {
                slots.push(slot);
                let missed = home.log.iter().filter(|(number, _)| *number > base);
                frames.extend(missed.map(|(_, frame)| frame.clone()));
                if copy.is_some_and(|copy| copy.ready && !copy.sure) {
                    let term = home.core.term;
                    frames.push(Frame::Counts { slot, term }.bytes());
                }
            }
        }
        self.send(node, &Frame::Copies { slots });
        for frame in frames {
            self.send_again(node, frame);
        }
    }

    /// An entry for a copy here.
    pub(crate) fn entry(&mut self, node: u64, slot: Slot, at: (u64, u64), entry: &Entry<'_>) {
        let follows = match self.slots.copy_mut(slot) {
            Some(copy) if copy.leader == Some(node) || at.0 > copy.core.term => {
                let follows = Self::follow(copy, at, entry);
                if follows != Follows::Behind && copy.leader.replace(node) != Some(node) {
                    copy.others.clear();
                    copy.alone = false;
                }
                follows
            }
            _ => Follows::Behind,
        };
        if follows == Follows::Yes {
            self.work.copied += 1;
            self.confirm.insert((node, slot));
        } else {
            let diverged = follows == Follows::Otherwise;
            self.slots.drop_copy(slot, node, 0);
            self.send(node, &Frame::Lost { slot, diverged });
        }
    }

    fn follow(copy: &mut Copy<M>, (term, number): (u64, u64), entry: &Entry<'_>) -> Follows {
        if number <= copy.core.entry {
            return Follows::Yes;
        }
        if number != copy.core.entry + 1 || term < copy.core.term {
            return Follows::Behind;
        }
        copy.core.term = term;
        match copy.core.follow(entry) {
            true => Follows::Yes,
            false => Follows::Otherwise,
        }
    }
}

/// How a copy took an entry.
#[derive(PartialEq, Eq)]
enum Follows {
    Yes,
    /// It misses something.
    Behind,
    /// It came to other outputs than the home.
    Otherwise,
}
