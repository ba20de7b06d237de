//! The end of an account: what it owned is removed, and its log's last position stays behind, so
//! that a write still in flight can't land in the log of a later account of that name.

use cirrus_jid::BareJid;
use cirrus_schema::TableId;
use cirrus_schema::keys::{archive, cluster, rosters};
use cirrus_stanza::StreamError;
use cirrus_store::{Attrs, Condition, Direction, Item, Op, Outcome, SkRange, StoreError};

use super::User;
use super::load::State;
use crate::event::{Effect, Token};
use crate::home::{Cx, Purpose};
use crate::roster::Kind;

/// Rows deleted at once.
const PAGE: u32 = 64;
/// Format of the floor item.
const FORMAT: u64 = 1;

/// An account on its way out.
pub(super) struct Erasure {
    token: Token,
    /// Tables still to be cleared; the last one is next.
    tables: Vec<TableId>,
    outstanding: usize,
    failed: Option<String>,
}

impl User {
    /// Starts the removal of a loaded account.
    pub(super) fn erase_loaded(&mut self, cx: &mut Cx<'_>, token: Token) {
        while let Some(index) = self.sessions.len().checked_sub(1) {
            self.end_session(cx, index, Some(StreamError::NotAuthorized));
        }
        self.owed.clear();
        self.leave_contacts(cx);
        let floor = self.log.next().saturating_sub(1);
        let tables = vec![TableId::Rosters, TableId::Archive];
        let erasure = Erasure {
            token,
            tables,
            outstanding: 1,
            failed: None,
        };
        self.state = State::Erasing(erasure);
        let attrs = Attrs::new().with("v", FORMAT).with("p", floor);
        let item = Item::new(cluster::erased(&self.jid.owner()), attrs);
        let op = Op::Put {
            item,
            condition: Condition::Any,
            nonce: 0,
        };
        self.begin(cx, Purpose::Erase, op);
    }

    /// Nobody is subscribed to an account that is gone (XEP-0077 section 3.2).
    fn leave_contacts(&mut self, cx: &mut Cx<'_>) {
        let contacts: Vec<(BareJid, bool, bool)> = self
            .roster
            .contacts()
            .map(|contact| {
                let to = contact.subscription.is_to() || contact.ask;
                (contact.jid.clone(), to, contact.subscription.is_from())
            })
            .collect();
        for (contact, to, from) in contacts {
            if to {
                self.send_kind(cx, &contact, Kind::Unsubscribe);
            }
            if from {
                self.send_kind(cx, &contact, Kind::Unsubscribed);
            }
        }
    }

    pub(super) fn on_erased(&mut self, cx: &mut Cx<'_>, result: Result<Outcome, StoreError>) {
        let State::Erasing(erasure) = &mut self.state else {
            return;
        };
        erasure.outstanding = erasure.outstanding.saturating_sub(1);
        match result {
            Ok(Outcome::Page { items, .. }) if !items.is_empty() => {
                erasure.outstanding += items.len();
                for item in items {
                    let op = Op::Delete {
                        key: item.key,
                        condition: Condition::Any,
                    };
                    self.begin(cx, Purpose::Erase, op);
                }
            }
            Ok(Outcome::Page { .. }) => {
                erasure.tables.pop();
            }
            Ok(_) => {}
            Err(error) => erasure.failed = Some(error.to_string()),
        }
        self.go_on_erasing(cx);
    }

    fn go_on_erasing(&mut self, cx: &mut Cx<'_>) {
        let State::Erasing(erasure) = &mut self.state else {
            return;
        };
        if erasure.outstanding > 0 {
            return;
        }
        let next = erasure
            .tables
            .last()
            .copied()
            .filter(|_| erasure.failed.is_none());
        let Some(table) = next else {
            let result = erasure.failed.take().map_or(Ok(()), Err);
            let token = erasure.token;
            cx.out.push(Effect::Erased { token, result });
            self.state = State::Absent;
            return;
        };
        erasure.outstanding = 1;
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
            after: None,
        };
        self.begin(cx, Purpose::Erase, op);
    }
}
