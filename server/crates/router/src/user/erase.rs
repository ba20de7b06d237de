//! The end of an account: nobody is subscribed to it any more, what it owned is removed, and its
//! log's last position stays behind, so that a write still in flight can't land in the log of a
//! later account of that name.
//!
//! Each step can be repeated; a refused one ends the erasure with an error, and the next
//! [`Event::Erase`](crate::Event::Erase) starts again. The roster goes last, because it says who
//! must be told.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::keys::{archive, cluster, rosters};
use cirrus_schema::{BucketId, TableId};
use cirrus_stanza::StreamError;
use cirrus_store::{
    Attrs, BlobKey, BlobOp, BlobOutcome, Condition, Direction, Item, Op, Outcome, SkRange,
    StoreError,
};
use serde::{Deserialize, Serialize};

use super::load::{Input, State};
use super::{User, Waiting};
use crate::event::{Effect, Token};
use crate::home::{Cx, Purpose};
use crate::log::MAX_RECORDS;
use crate::roster::Kind;

/// Rows deleted at once.
const PAGE: u32 = 64;
/// Most positions of one item of the log.
const ITEM: u64 = MAX_RECORDS as u64;
/// Format of the floor item.
const FORMAT: u64 = 1;
/// How long contacts' homes have to answer before they are told again, milliseconds.
const TELL_MS: u64 = 5_000;
/// How often they are told.
const TELLS: u32 = 6;

/// An account on its way out.
#[derive(Serialize, Deserialize)]
pub(super) struct Erasure {
    /// Who waits for the end.
    tokens: Vec<Token>,
    step: Step,
}

/// Where an erasure stands.
#[derive(Serialize, Deserialize)]
enum Step {
    /// What was under way before must be answered.
    Drain,
    /// Contacts' homes must confirm that the subscriptions have ended.
    Tell {
        left: Vec<(BareJid, Kind)>,
        again_at: u64,
        tells: u32,
    },
    /// The last position of an even earlier account is read.
    ReadFloor,
    /// The log's last item is read; nothing starts at or below this position.
    ReadLast {
        floor: u64,
    },
    /// The index's last row is read too.
    ReadSealed {
        floor: u64,
    },
    WriteFloor,
    /// The account's segments are listed and deleted.
    ClearSegments {
        objects: usize,
        more: bool,
    },
    /// Rows are deleted; the last table is next.
    Clear {
        tables: Vec<TableId>,
        rows: usize,
    },
}

impl Erasure {
    /// When something is due, Unix milliseconds.
    pub fn due_at(&self) -> Option<u64> {
        match &self.step {
            Step::Tell { again_at, .. } => Some(*again_at),
            _ => None,
        }
    }
}

impl User {
    /// Starts the removal of a loaded account.
    pub(super) fn erase_loaded(&mut self, cx: &mut Cx<'_>, token: Token) {
        let tokens = vec![token];
        let step = Step::Drain;
        while let Some(index) = self.sessions.len().checked_sub(1) {
            self.end_session(cx, index, Some(StreamError::NotAuthorized));
        }
        self.state = State::Erasing(Erasure { tokens, step });
        let gone = Self::absent();
        for entry in std::mem::take(&mut self.inflow) {
            self.refuse(cx, &entry.stanza, entry.origin, &gone);
        }
        for ticket in self.waiting_tickets() {
            if let Some(waiting) = self.tickets.remove(&ticket) {
                self.drop_waiting(cx, waiting);
            }
        }
        let owed = std::mem::take(&mut self.owed);
        self.drop_waiting(cx, Waiting::Owed(owed));
        self.parked = 0;
        self.spool.pass = None;
        self.drop_seals(cx, "the account is being deleted");
        self.drop_looks();
        self.drop_retractions();
        self.drop_changes(cx, &gone);
        let mut effects = Vec::new();
        self.log.flush(cx.now, &mut effects);
        self.log_effects(cx, effects);
        self.go_on_erasing(cx);
    }

    /// What waited for a record that will belong to nobody.
    fn drop_waiting(&mut self, cx: &mut Cx<'_>, waiting: Waiting) {
        match waiting {
            Waiting::Spooled { stanza, origin, .. } => {
                self.refuse(cx, &stanza, origin, &Self::absent());
            }
            Waiting::Owed(owed) => {
                for (sender, origin) in owed.into_iter().filter_map(|owed| owed.confirm) {
                    cx.confirm(Some(&sender), Some(origin));
                }
            }
            Waiting::In | Waiting::Out { .. } => {}
        }
    }

    /// Somebody else waits for the end too.
    pub(super) fn erase_too(&mut self, token: Token) {
        if let State::Erasing(erasure) = &mut self.state {
            erasure.tokens.push(token);
        }
    }

    /// A contact's home has made the end of a subscription durable.
    pub(super) fn erasure_told(&mut self, cx: &mut Cx<'_>, contact: &BareJid, kind: Kind) {
        if let State::Erasing(Erasure {
            step: Step::Tell { left, .. },
            ..
        }) = &mut self.state
        {
            left.retain(|(jid, told)| jid != contact || *told != kind);
            self.go_on_erasing(cx);
        }
    }

    /// Tells contacts' homes again that have not answered.
    pub(super) fn retry_erasure(&mut self, cx: &mut Cx<'_>) {
        let State::Erasing(Erasure {
            step:
                Step::Tell {
                    left,
                    again_at,
                    tells,
                },
            ..
        }) = &mut self.state
        else {
            return;
        };
        if cx.now < *again_at {
            return;
        }
        *again_at = cx.now + TELL_MS;
        *tells += 1;
        if *tells > TELLS {
            let text = format!("{} contacts did not answer", left.len());
            return self.end_erasure(cx, Err(text));
        }
        for (contact, kind) in left.clone() {
            self.send_kind(cx, &contact, kind);
        }
    }

    /// An operation was answered while the account is erased.
    pub(super) fn on_erased(&mut self, cx: &mut Cx<'_>, result: Result<Outcome, StoreError>) {
        let State::Erasing(erasure) = &mut self.state else {
            return;
        };
        let next = match (&mut erasure.step, result) {
            (_, Err(error)) => return self.end_erasure(cx, Err(error.to_string())),
            (Step::ReadFloor, Ok(Outcome::Item(item))) => {
                let before = item.and_then(|item| item.attrs.get_n("p")).unwrap_or(0);
                // A put that was given up may yet land, at the next position.
                let floor = self.log.last_position() + ITEM;
                erasure.step = Step::ReadLast {
                    floor: floor.max(before),
                };
                let (first, last) = archive::hot_from(0);
                return self.read_last(cx, first, last);
            }
            (Step::ReadLast { floor }, Ok(Outcome::Page { items, .. })) => {
                // The account may be in memory without its log, and a page of the log may be
                // deleted already: so it is not loaded, and only its last item's key counts.
                let last = items
                    .first()
                    .and_then(|item| archive::hot_seq(&item.key.sk));
                let floor = last.map_or(*floor, |last| (*floor).max(last + 2 * ITEM));
                erasure.step = Step::ReadSealed { floor };
                let (first, last) = (archive::segment_sk(0), archive::segment_sk(u64::MAX));
                return self.read_last(cx, first, last);
            }
            (Step::ReadSealed { floor }, Ok(Outcome::Page { items, .. })) => {
                let last = items
                    .first()
                    .and_then(|item| archive::segment_last(&item.key.sk));
                let floor = last.map_or(*floor, |last| (*floor).max(last + 2 * ITEM));
                erasure.step = Step::WriteFloor;
                return self.write_floor(cx, floor);
            }
            (Step::WriteFloor, Ok(_)) => {
                return self.list_segments(cx);
            }
            (Step::Clear { tables, .. }, Ok(Outcome::Page { items, next })) if items.is_empty() => {
                // A page may be empty because all its rows have expired.
                if next.is_some() {
                    return self.clear(cx, next);
                }
                tables.pop();
                true
            }
            (Step::Clear { rows, .. }, Ok(Outcome::Page { items, .. })) => {
                *rows = items.len();
                for key in items.into_iter().map(|item| item.key) {
                    let condition = Condition::Any;
                    self.begin(cx, Purpose::Erase, Op::Delete { key, condition });
                }
                false
            }
            (Step::Clear { rows, .. }, Ok(_)) => {
                *rows = rows.saturating_sub(1);
                *rows == 0
            }
            _ => false,
        };
        if next {
            self.clear(cx, None);
        }
    }

    /// Segments go before their rows, so that what is left after a failure is found again.
    fn list_segments(&mut self, cx: &mut Cx<'_>) {
        self.step_erasure(Step::ClearSegments {
            objects: 0,
            more: true,
        });
        let op = BlobOp::List {
            bucket: BucketId::Data,
            prefix: crate::segment::folder(&self.jid.owner()),
            after: None,
            limit: PAGE,
        };
        self.begin_blob(cx, Purpose::Erase, op);
    }

    /// The store of blobs answered while the account is erased.
    pub(super) fn on_erased_blob(
        &mut self,
        cx: &mut Cx<'_>,
        result: Result<BlobOutcome, StoreError>,
    ) {
        let State::Erasing(Erasure {
            step: Step::ClearSegments { objects, more },
            ..
        }) = &mut self.state
        else {
            return;
        };
        let left = match result {
            Err(error) => return self.end_erasure(cx, Err(error.to_string())),
            Ok(BlobOutcome::Page(page)) => {
                (*objects, *more) = (page.blobs.len(), page.next.is_some());
                for blob in &page.blobs {
                    let at = BlobKey::new(BucketId::Data, blob.name.clone());
                    self.begin_blob(cx, Purpose::Erase, BlobOp::Delete { at });
                }
                page.blobs.len()
            }
            Ok(_) => {
                *objects = objects.saturating_sub(1);
                *objects
            }
        };
        let again = matches!(
            &self.state,
            State::Erasing(Erasure {
                step: Step::ClearSegments { more: true, .. },
                ..
            })
        );
        if left == 0 && again {
            self.list_segments(cx);
        } else if left == 0 {
            let tables = vec![TableId::Rosters, TableId::Archive];
            self.step_erasure(Step::Clear { tables, rows: 0 });
            self.clear(cx, None);
        }
    }

    fn read_last(&mut self, cx: &mut Cx<'_>, first: Vec<u8>, last: Vec<u8>) {
        let op = Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&self.jid.owner()).into(),
            range: SkRange::Between(first.into(), last.into()),
            direction: Direction::Backward,
            limit: Some(1),
            after: None,
        };
        self.begin(cx, Purpose::Erase, op);
    }

    fn write_floor(&mut self, cx: &mut Cx<'_>, floor: u64) {
        let attrs = Attrs::new().with("v", FORMAT).with("p", floor);
        let op = Op::Put {
            item: Item::new(cluster::erased(&self.jid.owner()), attrs),
            condition: Condition::Any,
            nonce: cx.rng.u128(),
        };
        self.begin(cx, Purpose::Erase, op);
    }

    /// Asks for the next rows to delete; without a table left, the account is erased.
    fn clear(&mut self, cx: &mut Cx<'_>, after: Option<Bytes>) {
        let State::Erasing(Erasure {
            step: Step::Clear { tables, .. },
            ..
        }) = &self.state
        else {
            return;
        };
        let Some(table) = tables.last().copied() else {
            return self.end_erasure(cx, Ok(()));
        };
        let owner = self.jid.owner();
        let pk = match table {
            TableId::Archive => archive::partition(&owner),
            _ => rosters::partition(&owner),
        };
        let (range, direction) = (SkRange::All, Direction::Forward);
        let limit = Some(PAGE);
        let op = Op::Query {
            table,
            pk: pk.into(),
            range,
            direction,
            limit,
            after,
        };
        self.begin(cx, Purpose::Erase, op);
    }

    /// Takes the next step that waits for no operation of its own.
    pub(super) fn go_on_erasing(&mut self, cx: &mut Cx<'_>) {
        let drained = self.operations == 0 && self.log.is_idle();
        let told = match &self.state {
            State::Erasing(erasure) => match &erasure.step {
                Step::Drain if drained => false,
                Step::Tell { left, .. } if left.is_empty() => true,
                _ => return,
            },
            _ => return,
        };
        if told {
            self.step_erasure(Step::ReadFloor);
            let key = cluster::erased(&self.jid.owner()).into();
            return self.begin(cx, Purpose::Erase, Op::Get { key });
        }
        let mut left = self.ending_subscriptions();
        for (contact, kind) in &left {
            self.send_kind(cx, contact, *kind);
        }
        // Other servers are told once: whether they answer is not known here.
        left.retain(|(contact, _)| cx.home.serves(contact.host()));
        self.step_erasure(Step::Tell {
            left,
            again_at: cx.now + TELL_MS,
            tells: 1,
        });
        self.go_on_erasing(cx);
    }

    fn step_erasure(&mut self, next: Step) {
        if let State::Erasing(erasure) = &mut self.state {
            erasure.step = next;
        }
    }

    /// What contacts must be told so that nobody is subscribed to an account that is gone, and it
    /// to nobody (XEP-0077 section 3.2): what is, what was asked for, and what was said before and
    /// not confirmed.
    fn ending_subscriptions(&self) -> Vec<(BareJid, Kind)> {
        let mut all = Vec::new();
        let contacts = self.roster.contacts().map(|contact| &contact.jid);
        let requests = self.roster.requests().map(|(jid, _)| jid);
        for jid in contacts.chain(requests) {
            let state = self.roster.state(jid);
            if state.subscription().is_to() || state.ask() {
                all.push((jid.clone(), Kind::Unsubscribe));
            }
            if state.subscription().is_from() || state.pending_in() {
                all.push((jid.clone(), Kind::Unsubscribed));
            }
        }
        let unsent = self.roster.unsent().into_iter();
        all.extend(unsent.map(|(jid, kind)| match kind {
            Kind::Subscribe | Kind::Unsubscribe => (jid, Kind::Unsubscribe),
            Kind::Subscribed | Kind::Unsubscribed => (jid, Kind::Unsubscribed),
        }));
        all.sort_by(|a, b| a.0.cmp(&b.0).then((a.1 as u8).cmp(&(b.1 as u8))));
        all.dedup();
        all
    }

    pub(super) fn end_erasure(&mut self, cx: &mut Cx<'_>, result: Result<(), String>) {
        let next = match &result {
            Ok(()) => {
                cx.work.erased.add(cx.now, &self.jid);
                State::Absent
            }
            // What is in memory may be gone from the store, so a repetition reads it again.
            Err(_) => State::New,
        };
        let fresh = Self {
            timer: self.timer,
            operations: self.operations,
            idle_since: cx.now,
            state: next,
            ..Self::new(self.jid.clone(), &cx.home.limits)
        };
        if let State::Erasing(erasure) = std::mem::replace(self, fresh).state {
            for token in erasure.tokens {
                let result = result.clone();
                cx.out.push(Effect::Erased { token, result });
            }
        }
    }

    /// Ends an erasure that never began, because nothing is there.
    pub(super) fn nothing_to_erase(cx: &mut Cx<'_>, input: &Input) -> bool {
        let (Input::Erase(token) | Input::Seal(token)) = *input else {
            return false;
        };
        let result = Ok(());
        cx.out.push(Effect::Erased { token, result });
        true
    }
}
