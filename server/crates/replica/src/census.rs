//! What a replica has, does and says, in numbers.

use cirrus_cluster::Slot;

use crate::Replica;
use crate::machine::Machine;
use crate::slots::Held;

/// What a node has, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Slots that this node is home of.
    pub homes: usize,
    /// Slots that it keeps a copy of.
    pub copies: usize,
    /// Slots that it should be home of and is not yet.
    pub awaited: usize,
    /// Slots that it is home of and should not be any more.
    pub leaving: usize,
    /// Entities of which there is no copy.
    pub single_copy: usize,
    /// Entities whose home it is.
    pub entities: usize,
    /// Ports.
    pub ports: usize,
    /// Entries that a copy has not confirmed.
    pub unconfirmed: usize,
    /// Copies that did not come to the home's outputs and were replaced.
    pub diverged: u64,
    /// What was done and said so far.
    pub work: Work,
}

/// What a node has done and said since its start: where a message's cost comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Events that its homes have taken.
    pub taken: u64,
    /// Events that its copies have run after their homes.
    pub copied: u64,
    /// Frames that gave an event to a copy.
    pub entries: u64,
    /// Frames from slot to slot, or between slots and connections.
    pub messages: u64,
    /// Frames that confirmed either.
    pub acks: u64,
    /// All other frames.
    pub others: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    /// How often a state did not go to another node because it was too large.
    pub too_large: u64,
}

impl<M: Machine> Replica<M> {
    /// What this node has. Looks at every slot here.
    pub fn census(&self) -> Census {
        let mut census = Census {
            homes: self.slots.homes().len(),
            copies: self.slots.copies().len(),
            awaited: self.slots.wanted().len(),
            ports: self.ports.len(),
            diverged: self.diverged,
            work: self.work,
            ..Census::default()
        };
        for slot in self.slots.homes() {
            let Some(home) = self.slots.home(slot) else {
                continue;
            };
            census.leaving += usize::from(self.home_of(slot) != Some(self.me));
            let entities = home.core.machine.entities();
            census.entities += entities;
            census.unconfirmed += home.unconfirmed();
            if !home.is_copied() {
                census.single_copy += entities;
            }
        }
        for slot in self.slots.copies() {
            if let Held::Copy(copy) = self.slots.get(slot).held()
                && copy.alone
            {
                census.single_copy += copy.core.machine.entities();
            }
        }
        census
    }

    /// Bytes of the state of everything here, homes and copies, as a link would carry it. Makes the
    /// state of every slot, so it is for measurements only.
    pub fn state_bytes(&self) -> usize {
        let mut here = self.slots.homes();
        here.extend(self.slots.copies());
        let image = |slot: Slot| match self.slots.get(slot).held() {
            Held::Home(home) => home.core.image(self.format).map_or(0, |it| it.len()),
            Held::Copy(copy) => copy.core.image(self.format).map_or(0, |it| it.len()),
            Held::Nothing => 0,
        };
        here.into_iter().map(image).sum()
    }
}
