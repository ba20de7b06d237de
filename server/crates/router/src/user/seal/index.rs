//! The index of an archive in memory: read when it is first needed, and kept up to date.

use bytes::Bytes;
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_store::{Direction, Op, Outcome, SkRange, StoreError};

use super::{Known, Stage};
use crate::home::{Cx, Purpose};
use crate::segment::Index;
use crate::user::User;

impl User {
    /// Begins to read the index, unless that is known or being read. `true`: it is known.
    pub(in crate::user) fn want_index(&mut self, cx: &mut Cx<'_>) -> bool {
        match self.seals.index {
            Known::All(_) => return true,
            Known::Reading(_) => return false,
            Known::Nothing => {}
        }
        self.seals.readings += 1;
        self.seals.index = Known::Reading(Index::default());
        self.read_index(cx, None);
        false
    }

    fn read_index(&mut self, cx: &mut Cx<'_>, after: Option<Bytes>) {
        let number = self.seals.readings;
        let (first, last) = archive::index_range();
        let op = Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&self.jid.owner()).into(),
            range: SkRange::Between(first.into(), last.into()),
            direction: Direction::Forward,
            limit: None,
            after,
        };
        self.begin(cx, Purpose::Index { number }, op);
    }

    /// Rows of the index arrived.
    pub(in crate::user) fn on_index(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<Outcome, StoreError>,
    ) {
        let Known::Reading(index) = &mut self.seals.index else {
            return;
        };
        if number != self.seals.readings {
            return; // Of an earlier life.
        }
        match result {
            Ok(Outcome::Page { items, next }) if index.take(&items).is_ok() => match next {
                Some(_) => self.read_index(cx, next),
                None => {
                    let mut index = std::mem::take(index);
                    index.finish();
                    self.seals.index = Known::All(index);
                    self.index_for_pass(cx);
                }
            },
            result => {
                if result.is_ok() {
                    cx.work.tally.unreadable += 1;
                }
                self.seals.index = Known::Nothing;
                self.fail_queries(cx);
                self.fail_look(cx);
                self.index_for_pass(cx);
                self.retractions.0.index_failed(cx.now);
                if self.seals.under_way.is_some() {
                    self.fail_seal(cx);
                }
            }
        }
    }

    /// The index has changed; what comes next is decided by it.
    pub(super) fn index_is(&mut self, change: impl FnOnce(&mut Index)) {
        if let Known::All(index) = &mut self.seals.index {
            change(index);
        }
        self.seals.under_way = Some(Stage::Index);
    }

    /// A long index does not stay in memory when nothing needs it.
    pub(in crate::user) fn trim_index(&mut self, cx: &Cx<'_>) {
        let Some(index) = self.seals.index() else {
            return;
        };
        let needed = self.seals.under_way.is_some()
            || self.archive.has_queries()
            || !self.retractions.0.is_idle()
            || self.spool.pass.is_some();
        if !needed && index.len() > cx.home.limits.index_rows {
            self.seals.doubt_index();
        }
    }
}
