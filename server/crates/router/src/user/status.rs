//! The row `s` of the account: when it was last seen, and the cursor of offline delivery.
//!
//! Format 1: `l` = when the last session ended, Unix milliseconds; `s` = the status that it left;
//! `c` = the last archive position up to which nothing waits for delivery; `g` = positions, eight
//! bytes each, that a record behind `c` refers to and that were delivered nevertheless; `a`, `b` =
//! position and time of the first message of the archive, where that is known.

use bytes::Bytes;
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_store::{Attrs, Condition, Item, Key, Op, Outcome, StoreError, Value};
use serde::{Deserialize, Serialize};

use super::User;
use super::spool::Cursor;
use crate::home::{Cx, Purpose};
use crate::log::{End, Hit};

/// Format of the row.
const FORMAT: u64 = 1;
/// How long a write that the store refused rests, milliseconds.
const RETRY_MS: u64 = 2_000;
/// Longest status text that is kept, bytes.
const STATUS_BYTES: usize = 512;

/// The row in memory.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Status {
    version: u64,
    /// When the last session ended, Unix milliseconds; 0 = never.
    last_seen: u64,
    text: String,
    writing: bool,
    /// What is in memory is newer than the row.
    wanted: bool,
    /// The store refused it: when to try again, Unix milliseconds.
    retry_at: u64,
}

impl Status {
    /// Whether this version knows what is in the row.
    pub fn knows(item: &Item) -> bool {
        item.attrs.get_n("v") == Some(FORMAT)
    }

    /// Takes the row as it was read and returns its cursor.
    pub fn load(&mut self, item: &Item) -> Cursor {
        self.version = item.version;
        self.last_seen = item.attrs.get_n("l").unwrap_or(0);
        self.text = item.attrs.get_s("s").unwrap_or_default().to_owned();
        let partial = item.attrs.get_b("g");
        let partial = partial.map_or(&[][..], |bytes| bytes.as_chunks::<8>().0);
        Cursor {
            position: item.attrs.get_n("c").unwrap_or(0),
            partial: partial.iter().map(|p| u64::from_be_bytes(*p)).collect(),
        }
    }

    /// The first message of the archive, as the row has it.
    pub fn first_message(item: &Item) -> Option<Hit> {
        let number = |name| item.attrs.get_n(name);
        let (position, t) = number("a").zip(number("b"))?;
        Some(Hit { position, t })
    }

    /// Wants the row written.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    pub fn last_seen(&self) -> Option<(u64, &str)> {
        (self.last_seen > 0).then_some((self.last_seen, self.text.as_str()))
    }
}

impl User {
    /// A session ended: one write.
    pub(super) fn record_last_seen(&mut self, cx: &mut Cx<'_>, mut text: String) {
        let mut end = text.len().min(STATUS_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        self.status.last_seen = cx.now;
        self.status.text = text;
        self.status.want();
    }

    /// The row must be written before this entity may leave memory.
    pub(super) fn status_is_owed(&self) -> bool {
        self.status.wanted && self.state.is_active()
    }

    /// When the row may be written, if that is wanted, Unix milliseconds.
    pub(super) fn status_due(&self) -> Option<u64> {
        let ready = self.status_is_owed() && !self.status.writing && self.cursor_is_settled();
        ready.then_some(self.status.retry_at)
    }

    /// Writes the row when that is wanted: one write at a time, and not before the log has what
    /// ended sessions left, so that one write says it all.
    pub(super) fn write_status(&mut self, cx: &mut Cx<'_>) {
        if self.status_due().is_none_or(|at| cx.now < at) {
            return;
        }
        self.status.wanted = false;
        self.status.writing = true;
        let cursor = self.cursor();
        let key = accounts::key(&self.jid.owner(), Row::Last);
        let key = Key {
            table: key.table,
            pk: key.pk.into(),
            sk: Bytes::from(key.sk),
        };
        let condition = match self.status.version {
            0 => Condition::Absent,
            version => Condition::Version(version),
        };
        let mut attrs = Attrs::default();
        attrs.set("v", Value::N(FORMAT));
        attrs.set("l", Value::N(self.status.last_seen));
        attrs.set("c", Value::N(cursor.position));
        if !cursor.partial.is_empty() {
            let partial = cursor.partial.iter().flat_map(|p| p.to_be_bytes());
            attrs.set("g", Value::B(partial.collect()));
        }
        if let End::At(hit) = self.log.ends().first {
            attrs.set("a", Value::N(hit.position));
            attrs.set("b", Value::N(hit.t));
        }
        if !self.status.text.is_empty() {
            attrs.set("s", Value::S(self.status.text.clone()));
        }
        let version = self.status.version + 1;
        let item = Item {
            key,
            attrs,
            version,
            expires: None,
        };
        let op = Op::Put {
            item,
            condition,
            nonce: cx.rng.u128(),
        };
        self.begin(cx, Purpose::Status, op);
    }

    pub(super) fn on_status_written(
        &mut self,
        cx: &mut Cx<'_>,
        result: Result<Outcome, StoreError>,
    ) {
        self.status.writing = false;
        match result {
            Ok(_) => self.status.version += 1,
            Err(StoreError::Conflict { existing, .. }) => {
                // Another owner wrote it since; its cursor may be ahead of ours.
                self.status.version = existing.as_ref().map_or(0, |item| item.version);
                let cursor = existing.as_ref().and_then(|item| item.attrs.get_n("c"));
                self.spool.take_cursor(cursor.unwrap_or(0));
                self.status.want();
            }
            // Without the write, what was acknowledged would be delivered again.
            Err(_) => {
                self.status.want();
                self.status.retry_at = cx.now.saturating_add(RETRY_MS);
            }
        }
    }
}
