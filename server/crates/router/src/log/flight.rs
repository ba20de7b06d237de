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
    /// Its ticket has failed as unknown, or waits for another put: it is only there because its
    /// put may yet land.
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
    /// Until when it is tried: no longer than one deadline, whatever its records are allowed.
    pub until: u64,
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
        let entries = queue.pack();
        let records: Vec<&Record> = entries.iter().map(|entry| &entry.record).collect();
        let item = record::encode(owner, seq, &records, not_before);
        Self {
            nonce,
            item,
            entries,
            uncertain: false,
            until: now.saturating_add(limits.deadline_ms),
        }
    }

    /// When the first record that still waits for it waits no longer.
    pub(super) fn deadline(&self) -> Option<u64> {
        let waiting = self.entries.iter().filter(|entry| !entry.failed);
        waiting.map(|entry| entry.deadline.min(self.until)).min()
    }

    /// Gives up the records that have waited long enough. Those of them that may wait on: they
    /// are to go into the next put as well, which is at this position too unless this one lands.
    pub(super) fn expire(&mut self, now: u64, mut fail: impl FnMut(Ticket)) -> Vec<Waiting> {
        let mut again = Vec::new();
        let until = self.until;
        let entries = self.entries.iter_mut().filter(|entry| !entry.failed);
        for entry in entries.filter(|entry| entry.deadline.min(until) <= now) {
            entry.failed = true;
            if entry.deadline <= now {
                fail(entry.ticket);
            } else {
                again.push(Waiting {
                    record: entry.record.clone(),
                    failed: false,
                    ..*entry
                });
            }
        }
        again
    }

    /// Nobody waits for it any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.entries.iter().all(|entry| entry.failed)
    }
}
