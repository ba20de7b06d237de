//! Tombstones meet the segments: what was retracted is replaced in what is sealed or joined, and
//! then its row is not needed any more.

use std::ops::RangeInclusive;

use cirrus_store::{Condition, Op};

use super::{Known, Seals, Stage};
use crate::codec::Only;
use crate::home::{Cx, Purpose};
use crate::log::Record;
use crate::segment::{Tombstone, Tombstones, lay};
use crate::user::User;
use crate::user::retract::RETRACTIONS;

impl Seals {
    /// The row of a tombstone is written.
    pub fn lay(&mut self, position: u64, tombstone: Tombstone) {
        // One that is being read may have been asked for before.
        if let Known::Reading(index) | Known::All(index) = &mut self.index {
            index.tombstones.0.insert(position, tombstone);
        }
    }
}

impl User {
    /// Replaces what was retracted in what is to be a segment from position `first` on.
    pub(super) fn lay_among(&mut self, cx: &Cx<'_>, first: u64, records: &mut [Record]) {
        if !cx.work.format.has(RETRACTIONS) {
            return;
        }
        let none = Tombstones::new();
        let index = self.seals.index();
        let known = index.map_or(&none, |index| &index.tombstones.0);
        self.seals.laid.0 = lay(first, records, known);
    }

    /// The row of a segment of these positions is there: those of tombstones that have done their
    /// work in it may go, unless the message may be somewhere else too: in a digest, or in the
    /// items of the log, which offline delivery reads.
    pub(super) fn spend(&mut self, positions: RangeInclusive<u64>) {
        let laid = std::mem::take(&mut self.seals.laid.0);
        let Some(index) = self.seals.index() else {
            return; // They go with the next segment that takes this one in.
        };
        let here = |position: &u64| {
            let row = index.of(*position);
            row.is_some_and(|row| (row.first..=row.last) == positions)
        };
        let delivered = self.delivered();
        let spent = laid.into_iter().filter(|(position, hash)| {
            let known = index.tombstone(*position).is_some() && *position <= delivered;
            known && here(position) && !index.is_in_digest(*position, *hash)
        });
        let spent: Vec<u64> = spent.map(|(position, _)| position).collect();
        self.seals.spent.0.extend(spent);
    }

    pub(super) fn remove_tombstone(&mut self, cx: &mut Cx<'_>, position: u64) {
        let number = self.seals.number;
        let op = Op::Delete {
            key: Tombstone::key(&self.jid.owner(), position).into(),
            condition: Condition::Any,
        };
        self.seals.under_way = Some(Stage::Spent(Only(position)));
        self.begin(cx, Purpose::Seal { number }, op);
    }

    pub(super) fn tombstone_is_gone(&mut self, position: u64) {
        self.seals.spent.0.retain(|it| *it != position);
        self.index_is(|index| drop(index.tombstones.0.remove(&position)));
    }

    /// Removes the next tombstone of what is too old. `true`: something was asked for.
    pub(super) fn remove_lapsed_tombstone(&mut self, cx: &mut Cx<'_>, kept: u64) -> bool {
        let index = self.seals.index();
        let next = index.and_then(|index| {
            let gone = index.tombstones.0.range(..=index.gone_to(kept)).next();
            gone.map(|(position, _)| *position)
        });
        if let Some(position) = next {
            self.remove_tombstone(cx, position);
        }
        next.is_some()
    }
}
