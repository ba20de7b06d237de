//! The writer: one thread that decides on all writes, and makes many durable with one sync.
//!
//! It takes whatever has queued up, checks each condition against what is stored and what the
//! same commit has already changed, appends the changes to the log as one frame, syncs, makes them
//! visible, and only then answers: also the refused, since a refusal may rest on a change of the
//! same commit.

use std::{collections::HashMap, io, path::Path, sync::Arc};

use bytes::Bytes;
use cirrus_schema::TableId;

use super::base::BaseError;
use super::codec::{decode_head, decode_item, decode_key};
use super::control::Control;
use super::frame::FrameBuilder;
use super::log::Log;
use super::memory::{Layers, Memory, Sealed};
use super::queue::{Job, Queue, Reply};
use crate::rules::{Verdict, decide};
use crate::size::{usage_of_conflict, usage_of_write};
use crate::table::Answer;
use crate::{Clock, Outcome, Place, StoreError, Usage};

/// A frame is closed when it has this many bytes; one item more may go beyond.
const FULL_FRAME: usize = 4 * 1_024 * 1_024;

pub(super) struct Writer {
    pub queue: Arc<Queue>,
    pub memory: Arc<Memory>,
    pub control: Arc<Control>,
    pub clock: Clock,
    pub log: Log,
}

/// The changes of the commit in the making.
type Pending = HashMap<Box<[u8]>, Option<Bytes>>;

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let (mut jobs, mut frame) = (Vec::new(), FrameBuilder::default());
        while self.queue.take(&mut jobs) {
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
        let mut pending = Pending::with_capacity(jobs.len());
        let mut answers = Vec::with_capacity(jobs.len());
        {
            let (layers, now_ms) = (self.memory.read(), (self.clock)());
            while frame.len() < FULL_FRAME {
                let Some(job) = jobs.next() else { break };
                answers.push(decide_on(job, &layers, &mut pending, frame, now_ms));
            }
        }
        let written = if frame.is_empty() {
            Ok(())
        } else {
            self.write(frame)
        };
        match written {
            Ok(()) => {
                self.memory.write().active.extend(pending.drain());
                for (reply, answer) in answers {
                    reply.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(%error, "the log of the embedded store can't be written");
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

/// Decides on one job; if it changes something, adds that to the commit.
fn decide_on(
    job: Job,
    layers: &Layers,
    pending: &mut Pending,
    frame: &mut FrameBuilder,
    now_ms: u64,
) -> (Reply, Answer) {
    let Job {
        key,
        record,
        condition,
        nonce,
        size,
        reply,
    } = job;
    let existing = match pending.get(&key) {
        Some(record) => Ok(record.clone()),
        None => layers.get(&key),
    };
    let existing = existing.and_then(|record| {
        let head = record
            .as_ref()
            .map(|record| decode_head(record))
            .transpose()?;
        Ok((head, record))
    });
    let (head, existing) = match existing {
        Ok(existing) => existing,
        Err(error) => return (reply, Answer::free(unreadable(&key, error))),
    };
    let old = head.map_or(0, |(_, size)| size);
    let head = head.map(|(head, _)| head);
    let answer = match decide(condition, nonce, head.as_ref(), now_ms) {
        Verdict::Write => {
            let outcome = if record.is_some() {
                Outcome::Put
            } else {
                Outcome::Deleted
            };
            if record.is_some() || existing.is_some() {
                frame.push(&key, record.as_deref());
                pending.insert(key, record);
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
            let alive = head.is_some_and(|head| !head.is_expired(now_ms));
            let error = conflict(&key, existing.filter(|_| alive));
            Answer {
                result: Err(error),
                usage: usage_of_conflict(old, size),
            }
        }
    };
    (reply, answer)
}

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
