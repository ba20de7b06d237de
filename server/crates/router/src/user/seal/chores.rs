//! What is done for a log that is due once it is sealed: what is too old is removed, objects that
//! no row names are removed, and the log is put on the list again for the day on which there is
//! more to remove.

use std::collections::BTreeSet;

use cirrus_schema::BucketId;
use cirrus_store::{BlobKey, BlobOp, BlobPage, Condition, Op};
use serde::{Deserialize, Serialize};

use super::{Known, Stage};
use crate::home::{Cx, Purpose};
use crate::log::{Cover, put_due};
use crate::segment::{Row, folder};
use crate::user::User;

/// Segments and digests that one look at a log removes because they are too old; the others are
/// due again the next day. Two requests each.
const REMOVED_AT_ONCE: u32 = 512;

/// How old an object is at least that no row names, in days, before it is taken for left behind.
/// Who puts one inserts its row as soon as that is answered, within minutes.
const LEFT_BEHIND_DAYS: u64 = 1;
/// Names in a page of the list of objects.
const NAMES: u32 = 1_000;

/// How far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Chore {
    /// What is too old is removed; so many were.
    Remove(u32),
    /// The index is read anew: another node may have written rows.
    Reread,
    /// Objects behind this one are looked at.
    Tidy(Option<String>),
    /// These are removed, and then those behind the last one looked at.
    Discard(Vec<String>, Option<String>),
    /// The log is put on a list.
    List,
    Done,
}

impl Default for Chore {
    fn default() -> Self {
        Self::Remove(0)
    }
}

impl User {
    /// Goes on with it. `true`: something was asked for.
    pub(super) fn drive_chores(&mut self, cx: &mut Cx<'_>) -> bool {
        let kept = cx.home.limits.kept_since(cx.now);
        if let Chore::Remove(removed) = self.seals.chore {
            if removed < REMOVED_AT_ONCE && self.remove_lapsed_tombstone(cx, kept) {
                self.seals.chore = Chore::Remove(removed + 1);
                return true;
            }
            let lapsed = self.seals.index().and_then(|index| index.lapsed(kept));
            match lapsed.filter(|_| removed < REMOVED_AT_ONCE).cloned() {
                Some(row) => {
                    self.seals.chore = Chore::Remove(removed + 1);
                    self.remove_lapsed(cx, row);
                    return true;
                }
                None => self.seals.chore = Chore::Reread,
            }
        }
        if let Chore::Reread = self.seals.chore {
            self.seals.chore = Chore::Tidy(None);
            self.seals.under_way = Some(Stage::Index);
            self.seals.doubt_index();
            self.want_index(cx);
            return true;
        }
        if self.tidy(cx) {
            return true;
        }
        if let Chore::List = self.seals.chore {
            self.seals.chore = Chore::Done;
            if let Some(day) = self.next_removal(cx, kept) {
                let number = self.seals.number;
                self.seals.under_way = Some(Stage::List);
                let op = put_due(&self.jid.owner(), day);
                self.begin(cx, Purpose::Seal { number }, op);
                return true;
            }
        }
        false
    }

    /// Looks for objects that no row names. `true`: something was asked for.
    fn tidy(&mut self, cx: &mut Cx<'_>) -> bool {
        let op = match &mut self.seals.chore {
            Chore::Discard(names, after) => match names.pop() {
                Some(name) => BlobOp::Delete {
                    at: BlobKey::new(BucketId::Data, name),
                },
                None => {
                    self.seals.chore = match after.take() {
                        None => Chore::List,
                        after => Chore::Tidy(after),
                    };
                    return self.tidy(cx);
                }
            },
            Chore::Tidy(after) => BlobOp::List {
                bucket: BucketId::Data,
                prefix: folder(&self.jid.owner()),
                after: after.take(),
                limit: NAMES,
            },
            _ => return false,
        };
        self.ask_blob(cx, Stage::Tidy, op);
        true
    }

    /// Objects were listed.
    pub(super) fn take_names(&mut self, cx: &Cx<'_>, page: BlobPage) {
        let owner = self.jid.owner();
        let index = self.seals.index();
        let rows = index.map(|it| it.rows().iter().chain(it.digests()).chain(&it.covered));
        let named = rows
            .into_iter()
            .flatten()
            .map(|row| row.object(&owner).name);
        let named: BTreeSet<String> = named.collect();
        let before = LEFT_BEHIND_DAYS * cx.home.limits.day_ms;
        let before = cx.now.saturating_sub(before);
        let left = page.blobs.into_iter().filter(|blob| {
            let old = blob.modified.is_some_and(|at| at < before);
            index.is_some() && old && !named.contains(&blob.name)
        });
        let left = left.map(|blob| blob.name).collect();
        self.seals.chore = Chore::Discard(left, page.next);
        self.seals.under_way = Some(Stage::Index);
    }

    /// The object goes first, so that what is left after a failure is found again.
    fn remove_lapsed(&mut self, cx: &mut Cx<'_>, row: Row) {
        if row.is_gone() {
            return self.remove_lapsed_row(cx, row);
        }
        let at = row.object(&self.jid.owner());
        self.ask_blob(cx, Stage::Lapsed(Box::new(row)), BlobOp::Delete { at });
    }

    /// The row goes too, but for that of the newest segment: without it a log whose items have
    /// expired would begin anew at positions that it had before.
    pub(super) fn remove_lapsed_row(&mut self, cx: &mut Cx<'_>, row: Row) {
        let Known::All(index) = &self.seals.index else {
            return self.fail_seal(cx);
        };
        let (owner, number) = (self.jid.owner(), self.seals.number);
        let newest = index.sealed() == row.last && !row.is_digest();
        let condition = Condition::Version(row.version);
        let (stage, op) = match newest {
            true => {
                let row = row.emptied();
                let item = row.item(&owner);
                let nonce = cx.rng.u128();
                let op = Op::Put {
                    item,
                    condition,
                    nonce,
                };
                (Stage::Emptied(Box::new(row)), op)
            }
            false => {
                let key = row.key(&owner).into();
                (
                    Stage::LapsedRow(Box::new(row)),
                    Op::Delete { key, condition },
                )
            }
        };
        self.seals.under_way = Some(stage);
        self.begin(cx, Purpose::Seal { number }, op);
    }

    /// The day of the list on which the log has to stand for its next removal: that on which its
    /// oldest segment is too old, but not within a week.
    fn next_removal(&self, cx: &Cx<'_>, kept: u64) -> Option<u64> {
        let limits = &cx.home.limits;
        let index = self.seals.index().filter(|_| kept > 0)?;
        let today = cx.now / limits.day_ms.max(1);
        if index.lapsed(kept).is_some() {
            return Some(today);
        }
        let oldest = index.rows().iter().find(|row| !row.is_gone())?;
        let day = oldest.last_t / limits.day_ms.max(1) + limits.retention_days;
        Some(day.max(today + Cover::AHEAD_DAYS))
    }
}
