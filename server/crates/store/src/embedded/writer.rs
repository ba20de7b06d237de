//! The writer: one thread that decides on all writes, and makes many durable with one sync.
//!
//! It takes whatever has queued up, checks each condition against what is stored and what the
//! same commit has already changed, appends the changes to the log as one frame, syncs, makes them
//! visible, and only then answers: also the refused, since a refusal may rest on a change of the
//! same commit.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cirrus_schema::TableId;

use super::base::BaseError;
use super::codec::{decode_head, decode_item, decode_key, split_key};
use super::control::Control;
use super::frame::FrameBuilder;
use super::log::Log;
use super::map::{Map, SortKey};
use super::memory::{Layers, Memory, Sealed};
use super::queue::{Job, Queue, Reply};
use crate::rules::{Head, Verdict, decide};
use crate::size::{usage_of_conflict, usage_of_write};
use crate::table::Answer;
use crate::{Clock, Condition, Outcome, Place, StoreError, Usage};

/// A frame is closed when it has this many bytes; one item more may go beyond.
const FULL_FRAME: usize = 4 * 1_024 * 1_024;

pub(super) struct Writer {
    pub queue: Arc<Queue>,
    pub memory: Arc<Memory>,
    pub control: Arc<Control>,
    pub clock: Clock,
    pub log: Log,
    pub tails: Tails,
    /// Least time between the beginnings of two commits.
    pub pace: Duration,
}

/// Lets writes gather: a commit costs two thread switches and a sync, whatever is in it. The first
/// write after a pause never waits.
struct Pacer {
    pace: Duration,
    began: Option<Instant>,
}

impl Pacer {
    fn new(pace: Duration) -> Self {
        Self { pace, began: None }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the writer's own thread waits, and nobody else"
    )]
    fn wait(&self) -> bool {
        let rest = self
            .began
            .map(|began| self.pace.saturating_sub(began.elapsed()));
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            std::thread::sleep(rest);
        }
        true
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "paces commits; nothing durable depends on it"
    )]
    fn begin(&mut self) {
        self.began = Some(Instant::now());
    }
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let (mut jobs, mut frame) = (Vec::new(), FrameBuilder::default());
        let mut pacer = Pacer::new(self.pace);
        while pacer.wait() && self.queue.take(&mut jobs) {
            pacer.begin();
            let mut rest = jobs.drain(..);
            while rest.len() > 0 {
                self.commit(&mut rest, &mut frame);
            }
        }
        self.control.stop();
    }

    /// Decides on jobs until a frame is full, writes it, and answers them.
    fn commit(&mut self, jobs: &mut impl ExactSizeIterator<Item = Job>, frame: &mut FrameBuilder) {
        frame.clear();
        let mut answers = Vec::with_capacity(jobs.len());
        let mut pending = {
            let mut commit = Commit {
                layers: &self.memory.read(),
                tails: &mut self.tails,
                pending: Map::default(),
                frame,
                now_ms: (self.clock)(),
            };
            while commit.frame.len() < FULL_FRAME {
                let Some(job) = jobs.next() else { break };
                answers.push(commit.decide_on(job));
            }
            commit.pending
        };
        let written = if frame.is_empty() {
            Ok(())
        } else {
            self.write(frame)
        };
        match written {
            Ok(()) => {
                self.memory.write().active.append(&mut pending);
                for (reply, answer) in answers {
                    reply.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the log of the embedded store can't be written");
                if self.log.is_broken() {
                    self.control.broke("its log could not be synced");
                }
                let error = Arc::new(error);
                for (reply, answer) in answers {
                    reply.send(unwritten(answer, &error, self.log.path()));
                }
            }
        }
    }

    /// Appends a frame to the log, durably, sealing the active file first if it is full.
    fn write(&mut self, frame: &mut FrameBuilder) -> io::Result<()> {
        if !self.log.has_room(frame.len()) {
            self.control.wait_applied().map_err(io::Error::other)?;
            let generation = self.log.generation();
            self.log.rotate()?;
            let mut layers = self.memory.write();
            let map = std::mem::take(&mut layers.active);
            layers.sealed = Some(Arc::new(Sealed { generation, map }));
            drop(layers);
            self.control.sealed();
        }
        self.log.append(frame)?;
        self.control.committed(self.log.used_percent());
        Ok(())
    }
}

/// Of partitions that were written to: a sort key behind which they have nothing, in no layer.
/// So an append, the most frequent write by far, needs to look nowhere to know that its place is
/// free. It stays true whatever is deleted, expires or moves to the database.
#[derive(Default)]
pub(super) struct Tails(HashMap<Box<[u8]>, Option<SortKey>>);

impl Tails {
    /// Some 100 bytes each. Past it all are forgotten, and found again when needed.
    const MAX: usize = 50_000;

    /// Whether it is known that there is nothing under this key.
    fn is_free(&mut self, key: &[u8], layers: &Layers, pending: &Map) -> Result<bool, BaseError> {
        let (partition, sk) = split_key(key);
        let is_behind =
            |tail: &Option<SortKey>| tail.as_ref().is_none_or(|tail| tail.as_slice() < sk);
        if let Some(tail) = self.0.get(partition) {
            return Ok(is_behind(tail));
        }
        let tail = layers
            .last_sk(partition)?
            .max(pending.last_sk(partition).cloned());
        let is_free = is_behind(&tail);
        if self.0.len() >= Tails::MAX {
            self.0.clear();
        }
        self.0.insert(partition.into(), tail);
        Ok(is_free)
    }

    /// There will be something under this key.
    fn put(&mut self, key: &[u8]) {
        let (partition, sk) = split_key(key);
        if let Some(tail) = self.0.get_mut(partition)
            && tail.as_ref().is_none_or(|tail| tail.as_slice() < sk)
        {
            *tail = Some(sk.into());
        }
    }
}

/// A commit in the making.
struct Commit<'a> {
    layers: &'a Layers,
    tails: &'a mut Tails,
    /// What it changes.
    pending: Map,
    frame: &'a mut FrameBuilder,
    now_ms: u64,
}

impl Commit<'_> {
    /// Decides on one job; if it changes something, adds that to the commit.
    fn decide_on(&mut self, job: Job) -> (Reply, Answer) {
        let Job {
            key,
            record,
            condition,
            nonce,
            size,
            reply,
        } = job;
        let (head, existing) = match self.existing(&key, condition) {
            Ok(existing) => existing,
            Err(error) => return (reply, Answer::free(unreadable(&key, error))),
        };
        let old = head.map_or(0, |(_, size)| size);
        let head = head.map(|(head, _)| head);
        let answer = match decide(condition, nonce, head.as_ref(), self.now_ms) {
            Verdict::Write => {
                let outcome = if record.is_some() {
                    Outcome::Put
                } else {
                    Outcome::Deleted
                };
                if record.is_some() || existing.is_some() {
                    self.change(&key, record);
                }
                Answer {
                    result: Ok(outcome),
                    usage: usage_of_write(old, size),
                }
            }
            Verdict::Already => Answer {
                result: Ok(Outcome::Put),
                usage: usage_of_conflict(old, size),
            },
            Verdict::Conflict => {
                let alive = head.is_some_and(|head| !head.is_expired(self.now_ms));
                let error = conflict(&key, existing.filter(|_| alive));
                Answer {
                    result: Err(error),
                    usage: usage_of_conflict(old, size),
                }
            }
        };
        (reply, answer)
    }

    fn existing(&mut self, key: &[u8], condition: Condition) -> Result<Existing, BaseError> {
        if condition == Condition::Absent && self.tails.is_free(key, self.layers, &self.pending)? {
            return Ok((None, None));
        }
        let record = match self.pending.get(key) {
            Some(record) => record.clone(),
            None => self.layers.get(key)?,
        };
        let head = record
            .as_ref()
            .map(|record| decode_head(record))
            .transpose()?;
        Ok((head, record))
    }

    fn change(&mut self, key: &[u8], record: Option<Bytes>) {
        self.frame.push(key, record.as_deref());
        if record.is_some() {
            self.tails.put(key);
        }
        self.pending.insert(key, record);
    }
}

/// Head, billed size and record of what is under a key.
type Existing = (Option<(Head, usize)>, Option<Bytes>);

fn conflict(key: &[u8], existing: Option<Bytes>) -> StoreError {
    let conflict = || {
        let key = decode_key(key)?;
        let existing = existing
            .map(|record| decode_item(key.clone(), &record))
            .transpose()?;
        Ok(StoreError::Conflict {
            key,
            existing: existing.map(Box::new),
        })
    };
    conflict().unwrap_or_else(|error| unreadable(key, BaseError::Malformed(error)))
}

/// The error of a record or database that can't be read.
pub(super) fn unreadable(key: &[u8], error: BaseError) -> StoreError {
    let place = decode_key(key).map_or(Place::Table(TableId::Cluster), Place::Item);
    error.into_store_error(place)
}

/// What an answer becomes when the commit failed. What the failed commit had decided is void.
fn unwritten(answer: Answer, error: &Arc<io::Error>, path: &Path) -> Answer {
    let place = match answer.result {
        Err(StoreError::Conflict { key, .. }) => Place::Item(key),
        Err(other) => {
            return Answer {
                result: Err(other),
                usage: answer.usage,
            };
        }
        Ok(_) => Place::Path(path.to_owned()),
    };
    let source = io::Error::new(error.kind(), Arc::clone(error));
    let result = Err(StoreError::Unavailable {
        place,
        outcome_unknown: true,
        source: Some(source.into()),
    });
    Answer {
        result,
        usage: Usage {
            requests: 1,
            ..Usage::default()
        },
    }
}
