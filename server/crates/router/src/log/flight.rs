//! Records that wait for the store, and the put that carries some of them.

use std::collections::VecDeque;

use cirrus_store::Item;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::machine::Ticket;
use super::record::{self, MAX_BYTES, MAX_RECORDS, Record};

/// A record that was accepted and is not durable yet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub ticket: Ticket,
    pub record: Record,
    /// From when on it wants to be written, Unix milliseconds.
    pub due: u64,
    /// When its ticket fails.
    pub deadline: u64,
    /// Its ticket has failed as unknown: it is only there because its put may yet land.
    pub failed: bool,
}

/// What waits for the next put, in the order of acceptance.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Queue {
    entries: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push_back(&mut self, entry: Waiting) {
        self.bytes += entry.record.size();
        self.entries.push_back(entry);
    }

    /// Takes back what a put has not carried.
    pub(super) fn push_front(&mut self, entries: Vec<Waiting>) {
        for entry in entries.into_iter().rev() {
            self.bytes += entry.record.size();
            self.entries.push_front(entry);
        }
    }

    /// When something in it wants to be written.
    pub(super) fn due(&self) -> Option<u64> {
        // A full item's worth of what may wait need not wait longer.
        if self.entries.len() >= MAX_RECORDS {
            return Some(0);
        }
        self.entries.iter().map(|entry| entry.due).min()
    }

    /// When the first ticket in it fails.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.deadline).min()
    }

    /// Makes everything in it due.
    pub(super) fn hurry(&mut self, now: u64) {
        for entry in &mut self.entries {
            entry.due = entry.due.min(now);
        }
    }

    /// Removes the entries for which `gone` holds.
    pub(super) fn remove(&mut self, mut gone: impl FnMut(&Waiting) -> bool) -> Vec<Waiting> {
        let mut removed = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            if gone(&entry) {
                self.bytes -= entry.record.size();
                removed.push(entry);
            } else {
                self.entries.push_back(entry);
            }
        }
        removed
    }

    /// Takes one item's worth from the front.
    fn pack(&mut self) -> Vec<Waiting> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(entry) = self.entries.front() {
            bytes += entry.record.size();
            // One record always fits: `append` refuses larger ones.
            if taken.len() == MAX_RECORDS || (bytes > MAX_BYTES && !taken.is_empty()) {
                break;
            }
            let Some(entry) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= entry.record.size();
            taken.push(entry);
        }
        taken
    }
}

/// A put at one position, tried until it is done, has lost, or is given up.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flight {
    pub nonce: u128,
    pub item: Item,
    pub entries: Vec<Waiting>,
    /// A try of it may have landed, or may land yet.
    pub uncertain: bool,
}

impl Flight {
    /// Packs one item for position `seq` from the queue, which must not be empty.
    pub(super) fn pack(
        queue: &mut Queue,
        owner: &[u8],
        seq: u64,
        not_before: u64,
        nonce: u128,
        now: u64,
        limits: &Limits,
    ) -> Self {
        let mut entries = queue.pack();
        for entry in &mut entries {
            // No put is tried longer than one deadline, whatever its records were allowed.
            entry.deadline = entry.deadline.min(now.saturating_add(limits.deadline_ms));
        }
        let records: Vec<&Record> = entries.iter().map(|entry| &entry.record).collect();
        let item = record::encode(owner, seq, &records, not_before);
        Self {
            nonce,
            item,
            entries,
            uncertain: false,
        }
    }

    /// When its first ticket that still waits fails.
    pub(super) fn deadline(&self) -> Option<u64> {
        let waiting = self.entries.iter().filter(|entry| !entry.failed);
        waiting.map(|entry| entry.deadline).min()
    }

    /// Nobody waits for it any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.entries.iter().all(|entry| entry.failed)
    }
}
