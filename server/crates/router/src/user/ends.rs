//! Where the archive begins and ends: who binds a resource is told (XEP-0386 section 3.2), and who
//! asks (XEP-0313 section 5).
//!
//! Mostly that is known: the newest message from the log's tail, which is read at activation; the
//! oldest from there too, or from the row with the offline cursor, which is written when a session
//! ends. Otherwise who binds is told nothing, because a login asks the store for no more than it
//! has to; and who asks has it looked up, once for all who ask at that time.

use cirrus_store::{BlobOutcome, Outcome, StoreError};
use serde::{Deserialize, Serialize};

use super::User;
use crate::archive::{self, Bounds, Filter, Ids, Page, Search, Step};
use crate::event::Login;
use crate::home::{Cx, Purpose};
use crate::log::{End, Hit};

/// What is looked up.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Looks {
    look: Option<Look>,
    /// Tells the answers of one look from those of one before.
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct Look {
    search: Search,
    /// The log's next position when it began.
    next: u64,
    /// The first message, once the last one is looked for.
    first: Option<Hit>,
    backward: bool,
    asked: bool,
    /// A segment was missing, and the index is read again.
    missed: bool,
}

impl User {
    /// The first and the last message, if that is known.
    pub(super) fn known_ends(&self, cx: &Cx<'_>) -> Option<[Option<Hit>; 2]> {
        let kept = cx.home.limits.kept_since(cx.now);
        self.log.ends().since(kept).known()
    }

    /// What is said of the archive to a client that binds, if that is known.
    pub(super) fn about_archive(&self, cx: &Cx<'_>, login: &Login) -> Option<Vec<u8>> {
        let wanted = login.inline.archive && cx.home.archive;
        let ends = self.known_ends(cx).filter(|_| wanted)?;
        Some(self.metadata(cx, ends))
    }

    /// Nothing is looked up any more.
    pub(super) fn drop_looks(&mut self) {
        self.looks.number += 1;
        self.looks.look = None;
    }

    /// The first and the last message; `None` while they are looked up.
    pub(super) fn find_ends(&mut self, cx: &mut Cx<'_>) -> Option<[Option<Hit>; 2]> {
        loop {
            if let Some(ends) = self.known_ends(cx) {
                self.looks.look = None;
                return Some(ends);
            }
            if self.looks.look.as_ref().is_some_and(|look| look.asked) || !self.want_index(cx) {
                return None;
            }
            let mut look = match self.looks.look.take() {
                Some(look) => look,
                None => Look {
                    search: self.search_end(cx, false),
                    next: self.log.next(),
                    first: None,
                    backward: false,
                    asked: false,
                    missed: false,
                },
            };
            let step = look.search.step(self.seals.index()?);
            let number = self.looks.number;
            match step {
                Step::Ask(op) => {
                    self.begin(cx, Purpose::Ends { number }, op);
                    look.asked = true;
                }
                Step::Fetch(op) => {
                    self.begin_blob(cx, Purpose::Ends { number }, op);
                    look.asked = true;
                }
                Step::Give => look.search.pop(),
                Step::Missing | Step::Done => match self.end_found(cx, look) {
                    Some(next) => look = next,
                    None => continue,
                },
            }
            self.looks.look = Some(look);
        }
    }

    fn search_end(&self, cx: &Cx<'_>, backward: bool) -> Search {
        let bounds = Bounds {
            floor: self.archive.floor(),
            next: self.log.next(),
            bytes: cx.home.limits.archive_page_bytes,
        };
        let filter = Filter {
            kept: cx.home.limits.kept_since(cx.now),
            ..Filter::default()
        };
        Search::new(&self.jid, filter, Page::end(backward), bounds)
    }

    /// One end is found: gives back how it goes on, if it does.
    fn end_found(&mut self, cx: &Cx<'_>, mut look: Look) -> Option<Look> {
        let found = look.search.ends();
        let kept = cx.home.limits.kept_since(cx.now);
        let newest = match self.log.ends().since(kept).last {
            End::At(hit) => Some(hit),
            _ => None,
        };
        if look.backward {
            let last = newest.or(found.map(|(_, last)| last));
            self.log.set_ends(look.next, [look.first, last]);
            return None;
        }
        look.first = found.map(|(first, _)| first);
        if look.first.is_none() || newest.is_some() {
            self.log.set_ends(look.next, [look.first, newest]);
            return None;
        }
        look.search = self.search_end(cx, true);
        look.backward = true;
        Some(look)
    }

    /// The look that asked the store, now that it is answered.
    fn looked(&mut self, number: u64) -> Option<&mut Look> {
        let current = number == self.looks.number;
        let look = self.looks.look.as_mut().filter(|_| current)?;
        look.asked = false;
        Some(look)
    }

    /// A page of the log arrived for a look.
    pub(super) fn on_ends_page(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<Outcome, StoreError>,
    ) {
        let Some(look) = self.looked(number) else {
            return;
        };
        let read = match result {
            Ok(Outcome::Page { items, next }) => look.search.on_page(&items, next).is_ok(),
            _ => false,
        };
        if !read {
            self.fail_look(cx);
        }
    }

    /// A segment arrived for a look.
    pub(super) fn on_ends_segment(
        &mut self,
        cx: &mut Cx<'_>,
        number: u64,
        result: Result<BlobOutcome, StoreError>,
    ) {
        let Some(look) = self.looked(number) else {
            return;
        };
        let read = match result {
            Ok(BlobOutcome::Body(Some(object))) => {
                let read = look.search.on_segment(object).is_ok();
                cx.work.tally.unreadable += u64::from(!read);
                read
            }
            // The index may be out of date; once.
            Ok(BlobOutcome::Body(None)) if !look.missed => {
                look.missed = true;
                self.seals.doubt_index();
                true
            }
            result => {
                cx.work.tally.unreadable += u64::from(result.is_ok());
                false
            }
        };
        if !read {
            self.fail_look(cx);
        }
    }

    /// The ends can't be looked up now: who asks is refused.
    pub(super) fn fail_look(&mut self, cx: &mut Cx<'_>) {
        self.drop_looks();
        self.fail_metadata(cx);
    }

    /// The first and the last message (XEP-0313 section 5).
    pub(super) fn metadata(&self, cx: &Cx<'_>, ends: [Option<Hit>; 2]) -> Vec<u8> {
        let owner = self.jid.owner();
        archive::metadata(&Ids::new(&cx.home.archive_key, &owner), ends)
    }
}
