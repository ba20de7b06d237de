//! The row `s` of the account: when it was last seen, and the cursor of offline delivery.

use bytes::Bytes;
use cirrus_schema::keys::accounts::{self, Row};
use cirrus_store::{Attrs, Condition, Item, Key, Op, Outcome, StoreError, Value};

use super::User;
use crate::home::{Cx, Purpose};

/// Format of the row.
const FORMAT: u64 = 1;
/// Longest status text that is kept, bytes.
const STATUS_BYTES: usize = 512;

/// The row in memory.
#[derive(Default)]
pub(super) struct Status {
    version: u64,
    /// When the last session ended, Unix milliseconds; 0 = never.
    last_seen: u64,
    text: String,
    writing: bool,
    again: bool,
}

impl Status {
    /// Takes the row as it was read and returns its cursor.
    pub fn load(&mut self, item: &Item) -> u64 {
        self.version = item.version;
        self.last_seen = item.attrs.get_n("l").unwrap_or(0);
        self.text = item.attrs.get_s("s").unwrap_or_default().to_owned();
        item.attrs.get_n("c").unwrap_or(0)
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
        self.record_status(cx);
    }

    /// Writes the row; one write is under way at a time.
    pub(super) fn record_status(&mut self, cx: &mut Cx<'_>) {
        if self.status.writing {
            self.status.again = true;
            return;
        }
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
        attrs.set("c", Value::N(cursor));
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
        let mut again = std::mem::take(&mut self.status.again);
        match result {
            Ok(_) => self.status.version += 1,
            Err(StoreError::Conflict { existing, .. }) => {
                // Another owner wrote it since; its cursor may be ahead of ours.
                self.status.version = existing.as_ref().map_or(0, |item| item.version);
                again = true;
            }
            // Without the write a later activation repeats messages, and loses none.
            Err(_) => {}
        }
        if again {
            self.record_status(cx);
        }
    }
}
