//! What a node has of each slot.

use std::collections::VecDeque;

use cirrus_cluster::{SLOTS, Slot};

use crate::home::Home;
use crate::machine::{Machine, Peer};
use crate::replicated::Replicated;

/// What a node has of a slot.
pub(crate) enum Held<M: Machine> {
    Nothing,
    Home(Box<Home<M>>),
    Copy(Box<Copy<M>>),
}

/// A copy, and whose.
pub(crate) struct Copy<M: Machine> {
    pub core: Replicated<M>,
    /// The node whose entries it takes; `None` = this node was home, and nobody is since.
    pub leader: Option<u64>,
}

/// What a node that should be home of a slot waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Nothing,
    /// The members' inventories.
    Inventories,
    /// Its turn: that node is home of it, and goes on being it.
    Turn(u64),
    /// The state that it has asked that node for.
    State(u64),
    /// That a node which was removed while it lived has noticed.
    Fresh,
}

/// Something for a slot that is not here yet.
pub(crate) struct Queued<M: Machine> {
    pub from: Peer,
    pub place: Place,
    pub message: M::Message,
}

/// Where a message stands in its channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub seq: u64,
    /// The last one before it that was not taken when it was sent.
    pub prev: u64,
    /// How often it was passed on.
    pub hops: u8,
}

/// A copy that some member has: who, term and entry.
pub(crate) type Offer = (u64, u64, u64);

pub(crate) struct SlotHere<M: Machine> {
    pub held: Held<M>,
    pub want: Want,
    pub queue: VecDeque<Queued<M>>,
    /// The copies that members have told of, while this node wants the slot.
    pub offers: Vec<Offer>,
    pub deadline: Option<u64>,
}

pub(crate) struct Slots<M: Machine>(Vec<SlotHere<M>>);

impl<M: Machine> Slots<M> {
    pub fn new() -> Self {
        let empty = |_| SlotHere {
            held: Held::Nothing,
            want: Want::Nothing,
            queue: VecDeque::new(),
            offers: Vec::new(),
            deadline: None,
        };
        Self((0..SLOTS).map(empty).collect())
    }

    pub fn get(&self, slot: Slot) -> &SlotHere<M> {
        &self.0[usize::from(slot % SLOTS)]
    }

    pub fn get_mut(&mut self, slot: Slot) -> &mut SlotHere<M> {
        &mut self.0[usize::from(slot % SLOTS)]
    }

    pub fn home_mut(&mut self, slot: Slot) -> Option<&mut Home<M>> {
        match &mut self.get_mut(slot).held {
            Held::Home(home) => Some(home),
            _ => None,
        }
    }

    /// Of the copies that a node keeps here, only those go on being some; in ascending order.
    pub fn keep_only(&mut self, leader: u64, slots: &[Slot]) {
        for (slot, here) in (0..SLOTS).zip(&mut self.0) {
            if let Held::Copy(copy) = &here.held
                && copy.leader == Some(leader)
                && slots.binary_search(&slot).is_err()
            {
                here.held = Held::Nothing;
            }
        }
    }

    /// A copy that `leader` keeps here, or one of an earlier term, is not needed any more.
    pub fn drop_copy(&mut self, slot: Slot, leader: u64, term: u64) {
        let here = self.get_mut(slot);
        if let Held::Copy(copy) = &here.held
            && (copy.leader == Some(leader) || copy.core.term < term)
        {
            here.held = Held::Nothing;
        }
    }

    /// What was on its way to that node may not have arrived.
    pub fn unsend(&mut self, node: u64) {
        for here in &mut self.0 {
            if let Held::Home(home) = &mut here.held {
                home.unsend(node);
            }
        }
    }
}
