//! Where the accounts are: what nodes have of their slots.

use cirrus_store::Op;

use super::process::{Process, Stage};
use super::{Asker, World};
use crate::world::START;

impl World {
    /// A node asked the store for this when it was home of the slot: who is home now may have read
    /// what it changes.
    pub(super) fn note_late(&mut self, id: u64, asker: Asker, op: &Op) {
        let Some(cluster) = &self.cluster else { return };
        if let Asker::Slot(slot, _) = asker
            && cluster
                .processes
                .get(&id)
                .is_some_and(|it| !it.is_home(slot))
        {
            self.note_stray(self.life, op);
        }
    }

    /// Homes that began anew, as they and their copies were lost together.
    pub(super) fn look_at_lives(&mut self, id: u64) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.reckless) else {
            return;
        };
        let Some(node) = cluster.processes.get(&id).map(|process| &process.node) else {
            return;
        };
        let Some((replica, view)) = node
            .replica()
            .and_then(|it| it.view().map(|view| (it, view)))
        else {
            return;
        };
        for (account, user) in self.plan.users.iter().enumerate() {
            let local = user.local().unwrap_or_default();
            let slot = cirrus_cluster::slot(&view.slot_key, user.host(), local);
            let Some(began) = replica.began(slot) else {
                continue;
            };
            let life = cluster.lives.entry(account).or_insert((began, self.now));
            if life.0 == began {
                life.1 = self.now;
            } else if life.0 < began {
                self.history.began_anew(account, life.1, self.now);
                *life = (began, self.now);
                if let Some(tell) = self.tell {
                    tell(format!("{:>7} {user} begins anew", self.now - START));
                }
            }
        }
    }

    /// Every slot has its home and its copy, where there is a node for one, and nothing is under
    /// way.
    pub(in crate::world) fn is_cluster_at_rest(&self) -> bool {
        let Some(cluster) = &self.cluster else {
            return false;
        };
        let lone = cluster.processes.len() == 1;
        let rests = |process: &Process| {
            let census = process.node.census();
            let copied = lone || census.slots.single_copy == 0;
            let idle = process.serves() && process.stage == Stage::Serves && !process.suspended;
            idle && copied
                && census.slots.unconfirmed + census.detached == 0
                && process.node.is_quiet()
        };
        self.is_settled() && cluster.processes.values().all(rests)
    }

    /// Tells what a node has of each account's slot, when that changes.
    pub(super) fn tell_places(&mut self, id: u64) {
        let (Some(tell), Some(cluster)) = (self.tell, &mut self.cluster) else {
            return;
        };
        let Some(process) = cluster.processes.get(&id) else {
            return;
        };
        for user in &self.plan.users {
            let slot = process.node.place(user).map(|place| place.slot);
            let Some((slot, replica)) = slot.zip(process.node.replica()) else {
                continue;
            };
            let text = replica.told(slot);
            let told = cluster.told.entry((id, slot)).or_default();
            if *told != text {
                let now = self.now - START;
                tell(format!(
                    "{now:>7} node {id} has of {user} (slot {slot}): {text}"
                ));
                *told = text;
            }
        }
    }
}
