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
    /// It counts: nothing has left its home without it, so it may become home.
    pub sure: bool,
    /// It has been looked at since it came.
    pub idle: bool,
    /// Other copies that may count, as far as this node knew when it was home: whoever is home next
    /// has to know of them.
    pub others: Vec<u64>,
    /// It was handed over when nobody else had it, and the next home has not said a word of it yet.
    pub alone: bool,
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

/// A copy that some member has.
#[derive(Clone, Copy)]
pub(crate) struct Offer {
    pub node: u64,
    /// It counts.
    pub sure: bool,
    pub term: u64,
    pub entry: u64,
}

impl Offer {
    /// One that another has told of.
    pub fn of(node: u64) -> Self {
        Self {
            node,
            sure: true,
            term: 0,
            entry: 0,
        }
    }
}

pub(crate) struct SlotHere<M: Machine> {
    held: Held<M>,
    want: Want,
    pub queue: VecDeque<Queued<M>>,
    /// The copies that members have told of, while this node wants the slot.
    pub offers: Vec<Offer>,
    pub deadline: Option<u64>,
}

impl<M: Machine> SlotHere<M> {
    pub fn held(&self) -> &Held<M> {
        &self.held
    }

    pub fn want(&self) -> Want {
        self.want
    }
}

/// Every slot, and which of them are what: a large cluster has few of each at one node.
pub(crate) struct Slots<M: Machine> {
    all: Vec<SlotHere<M>>,
    homes: SlotSet,
    copies: SlotSet,
    wanted: SlotSet,
}

impl<M: Machine> Slots<M> {
    pub fn new() -> Self {
        let empty = |_| SlotHere {
            held: Held::Nothing,
            want: Want::Nothing,
            queue: VecDeque::new(),
            offers: Vec::new(),
            deadline: None,
        };
        Self {
            all: (0..SLOTS).map(empty).collect(),
            homes: SlotSet::default(),
            copies: SlotSet::default(),
            wanted: SlotSet::default(),
        }
    }

    /// The slots whose home is here.
    pub fn homes(&self) -> SlotSet {
        self.homes
    }

    /// The slots of which there is a copy here.
    pub fn copies(&self) -> SlotSet {
        self.copies
    }

    /// The slots that this node should be home of and is not yet.
    pub fn wanted(&self) -> SlotSet {
        self.wanted
    }

    pub fn get(&self, slot: Slot) -> &SlotHere<M> {
        &self.all[usize::from(slot % SLOTS)]
    }

    pub fn get_mut(&mut self, slot: Slot) -> &mut SlotHere<M> {
        &mut self.all[usize::from(slot % SLOTS)]
    }

    pub fn is_home(&self, slot: Slot) -> bool {
        matches!(self.get(slot).held, Held::Home(_))
    }

    pub fn home(&self, slot: Slot) -> Option<&Home<M>> {
        match &self.get(slot).held {
            Held::Home(home) => Some(home),
            _ => None,
        }
    }

    pub fn home_mut(&mut self, slot: Slot) -> Option<&mut Home<M>> {
        match &mut self.get_mut(slot).held {
            Held::Home(home) => Some(home),
            _ => None,
        }
    }

    pub fn copy_mut(&mut self, slot: Slot) -> Option<&mut Copy<M>> {
        match &mut self.get_mut(slot).held {
            Held::Copy(copy) => Some(copy),
            _ => None,
        }
    }

    /// Has something else of a slot from now on; returns what it had.
    pub fn hold(&mut self, slot: Slot, held: Held<M>) -> Held<M> {
        let slot = slot % SLOTS;
        self.homes.set(slot, matches!(held, Held::Home(_)));
        self.copies.set(slot, matches!(held, Held::Copy(_)));
        std::mem::replace(&mut self.get_mut(slot).held, held)
    }

    pub fn set_want(&mut self, slot: Slot, want: Want) {
        let slot = slot % SLOTS;
        self.wanted.set(slot, want != Want::Nothing);
        self.get_mut(slot).want = want;
    }

    /// Of the copies that a node keeps here, only those go on being some; in ascending order.
    pub fn keep_only(&mut self, leader: u64, slots: &[Slot]) {
        for slot in self.copies {
            if let Held::Copy(copy) = &self.get(slot).held
                && copy.leader == Some(leader)
                && slots.binary_search(&slot).is_err()
            {
                self.hold(slot, Held::Nothing);
            }
        }
    }

    /// A copy that `leader` keeps here, or one of an earlier term, is not needed any more.
    pub fn drop_copy(&mut self, slot: Slot, leader: u64, term: u64) {
        if let Held::Copy(copy) = &self.get(slot).held
            && (copy.leader == Some(leader) || copy.core.term < term)
        {
            self.hold(slot, Held::Nothing);
        }
    }
}

/// Some of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotSet([u64; WORDS]);

const WORDS: usize = SLOTS as usize / 64;

impl Default for SlotSet {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl SlotSet {
    pub fn set(&mut self, slot: Slot, is_in: bool) {
        let bit = 1 << (slot % 64);
        let word = &mut self.0[usize::from(slot % SLOTS) / 64];
        match is_in {
            true => *word |= bit,
            false => *word &= !bit,
        }
    }

    pub fn insert(&mut self, slot: Slot) {
        self.set(slot, true);
    }

    pub fn remove(&mut self, slot: Slot) {
        self.set(slot, false);
    }

    pub fn contains(&self, slot: Slot) -> bool {
        self.0[usize::from(slot % SLOTS) / 64] & 1 << (slot % 64) != 0
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The lowest slot, which is no longer in it.
    pub fn pop(&mut self) -> Option<Slot> {
        let (at, word) = (0..).zip(&mut self.0).find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        // Below 4,096.
        Some(at * 64 + bit as Slot)
    }

    pub fn retain(&mut self, keep: impl Fn(Slot) -> bool) {
        for slot in *self {
            self.set(slot, keep(slot));
        }
    }
}

impl Extend<Slot> for SlotSet {
    fn extend<I: IntoIterator<Item = Slot>>(&mut self, slots: I) {
        slots.into_iter().for_each(|slot| self.insert(slot));
    }
}

/// In ascending order, of the set as it was.
impl IntoIterator for SlotSet {
    type Item = Slot;
    type IntoIter = SlotIter;

    fn into_iter(self) -> SlotIter {
        SlotIter { left: self, at: 0 }
    }
}

pub(crate) struct SlotIter {
    left: SlotSet,
    at: usize,
}

impl Iterator for SlotIter {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        while let Some(word) = self.left.0.get_mut(self.at) {
            if *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                // Below 4,096.
                return Some(self.at as Slot * 64 + bit as Slot);
            }
            self.at += 1;
        }
        None
    }
}
