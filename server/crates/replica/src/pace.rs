//! States go to copies, and slots come from their last homes, some at once.

use std::collections::BTreeMap;

use cirrus_cluster::Slot;

use crate::Replica;
use crate::copies::CopyAt;
use crate::frame::Frame;
use crate::machine::Machine;
use crate::slots::{SlotSet, Want};

/// What is to be moved, and what is under way. A slot may stand in a set that it should have left:
/// it is looked at again before anything is done.
#[derive(Default)]
pub(crate) struct Pacing {
    /// Slots here whose copies have to be looked at.
    pub unchosen: SlotSet,
    /// Slots here of which a node needs the state.
    missing: BTreeMap<u64, SlotSet>,
    /// Slots whose state is on its way to a node.
    sending: BTreeMap<u64, SlotSet>,
    /// Slots that this node takes from another when it is their turn.
    pub turns: BTreeMap<u64, SlotSet>,
    /// Slots that it has asked another for.
    pub asked: BTreeMap<u64, SlotSet>,
    /// Slots whose state is too large to be sent: it is looked at again some time.
    large: SlotSet,
    /// Repetitions since then.
    rounds: u32,
    /// There may be room for more.
    pub due: bool,
}

/// A state that is too large is made again with every so many repetitions: that takes as long as it
/// is large.
const ROUNDS: u32 = 16;

impl Pacing {
    /// Slots whose state may be on its way.
    pub fn under_way(&self) -> SlotSet {
        let mut all = SlotSet::default();
        self.sending.values().for_each(|some| all.extend(*some));
        all
    }

    /// What was not taken is said again.
    pub fn repeat(&mut self) {
        self.due = true;
        self.rounds += 1;
        if self.rounds >= ROUNDS {
            self.rounds = 0;
            self.unchosen.extend(std::mem::take(&mut self.large));
        }
    }

    /// The view is another: everything is looked at anew.
    pub fn reset(&mut self, homes: SlotSet) {
        *self = Self {
            unchosen: homes,
            sending: std::mem::take(&mut self.sending),
            due: true,
            ..Self::default()
        };
    }
}

impl<M: Machine> Replica<M> {
    /// Sends states to copies that need them, and asks for slots whose turn has come, as many at
    /// once as is allowed.
    pub(crate) fn pace(&mut self) {
        for slot in std::mem::take(&mut self.pacing.unchosen) {
            self.choose_copy(slot);
            let Some(home) = self.slots.home(slot) else {
                continue;
            };
            let misses = |copy: &&CopyAt| copy.sent.is_none() && !home.retired.contains(&copy.node);
            for copy in home.copies.iter().filter(misses) {
                self.pacing
                    .missing
                    .entry(copy.node)
                    .or_default()
                    .insert(slot);
            }
        }
        for node in self.linked(self.pacing.missing.keys()) {
            self.send_states(node);
        }
        self.ask_for_slots();
    }

    fn linked<'a>(&self, nodes: impl Iterator<Item = &'a u64>) -> Vec<u64> {
        let linked = nodes.filter(|node| self.links.contains(node));
        linked.copied().collect()
    }

    fn send_states(&mut self, node: u64) {
        let slots = &self.slots;
        let copy_at = |slot| {
            let home = slots.home(slot)?;
            let copy = home.copies.iter().find(|copy| copy.node == node);
            copy.filter(|_| !home.retired.contains(&node))
        };
        let sending = self.pacing.sending.entry(node).or_default();
        sending.retain(|slot| copy_at(slot).is_some_and(CopyAt::is_under_way));
        let mut room = self.options.states.saturating_sub(sending.len());
        let Some(missing) = self.pacing.missing.get_mut(&node) else {
            return;
        };
        let mut due = Vec::new();
        while room > 0
            && let Some(slot) = missing.pop()
        {
            if copy_at(slot).is_some_and(|copy| copy.sent.is_none()) {
                due.push(slot);
                room -= 1;
            }
        }
        if missing.is_empty() {
            self.pacing.missing.remove(&node);
        }
        sending.extend(due.iter().copied());
        for slot in due {
            self.send_state(node, slot);
        }
    }

    fn send_state(&mut self, node: u64, slot: Slot) {
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        // It is not said to have been sent: it is tried again.
        let Some(image) = home.core.image(self.format) else {
            self.pacing.unchosen.insert(slot);
            return;
        };
        if image.len() > self.options.state_bytes {
            self.work.too_large += 1;
            self.pacing.large.insert(slot);
            return;
        }
        let entry = home.core.entry;
        for copy in home.copies.iter_mut().filter(|copy| copy.node == node) {
            copy.sent = Some(entry);
        }
        let state = Frame::State {
            epoch: None,
            slot,
            image,
            copies: Vec::new(),
        };
        self.send(node, &state);
    }

    /// Makes the node that the view names the copy of a slot here. Until that one is ready, those
    /// of before go on.
    fn choose_copy(&mut self, slot: Slot) {
        let (mine, backup) = (self.home_of(slot) == Some(self.me), self.backup_of(slot));
        let Some(home) = self.slots.home_mut(slot) else {
            return;
        };
        if !mine {
            return; // It goes on with the copy it has until it is taken over.
        }
        let chosen = home.copies.iter().find(|copy| Some(copy.node) == backup);
        // Where nobody else serves, who drains is not kept waiting.
        let sure = backup.is_none() || chosen.is_some_and(|copy| copy.sure);
        if chosen.is_none() {
            home.copies.extend(backup.map(CopyAt::new));
        }
        let needed = |copy: &CopyAt| Some(copy.node) == backup || (copy.ready && !sure);
        if home.copies.iter().all(needed) {
            return;
        }
        let unneeded = home.copies.extract_if(.., |copy| !needed(copy));
        let unneeded: Vec<(u64, bool)> = unneeded.map(|copy| (copy.node, copy.ready)).collect();
        home.prune();
        let term = home.core.term;
        for (node, counts) in unneeded {
            match counts {
                true => self.retire(slot, node),
                false => self.send(node, &Frame::Drop { slot, term }),
            }
        }
        self.release_waiting(slot);
    }

    /// What was on its way to that node may not have arrived.
    pub(crate) fn unsend(&mut self, node: u64) {
        for slot in self.slots.homes() {
            if let Some(home) = self.slots.home_mut(slot)
                && home.unsend(node)
            {
                self.pacing.unchosen.insert(slot);
            }
        }
        self.pacing.due = true;
    }

    /// Asks for slots whose homes go on until they are asked.
    fn ask_for_slots(&mut self) {
        let epoch = self.epoch();
        for node in self.linked(self.pacing.turns.keys()) {
            let slots = &self.slots;
            let wants = |slot, want| slots.get(slot).want() == want;
            let asked = self.pacing.asked.entry(node).or_default();
            asked.retain(|slot| wants(slot, Want::State(node)));
            let mut room = self.options.states.saturating_sub(asked.len());
            let Some(turns) = self.pacing.turns.get_mut(&node) else {
                continue;
            };
            let mut due = Vec::new();
            while room > 0
                && let Some(slot) = turns.pop()
            {
                if wants(slot, Want::Turn(node)) {
                    due.push(slot);
                    room -= 1;
                }
            }
            if turns.is_empty() {
                self.pacing.turns.remove(&node);
            }
            asked.extend(due.iter().copied());
            for slot in due {
                self.slots.set_want(slot, Want::State(node));
                self.send(node, &Frame::Take { epoch, slot });
            }
        }
    }
}
