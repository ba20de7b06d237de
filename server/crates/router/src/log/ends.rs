//! The first and the last archived message of a log, as far as they are known without a read.

use serde::{Deserialize, Serialize};

use super::machine::Log;
use super::read::Tail;
use super::record::Record;

/// An archived message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Where it is in the log.
    pub position: u64,
    /// When it was accepted, Unix milliseconds.
    pub t: u64,
}

/// An end of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It has to be looked up.
    #[default]
    Unknown,
    /// There is no message.
    Nothing,
    /// This message.
    At(Hit),
}

/// Both ends of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// The oldest message.
    pub first: End,
    /// The newest one.
    pub last: End,
}

impl From<Option<Hit>> for End {
    fn from(hit: Option<Hit>) -> Self {
        hit.map_or(Self::Nothing, Self::At)
    }
}

impl Ends {
    /// The first and the last message, if both are known.
    pub fn known(&self) -> Option<[Option<Hit>; 2]> {
        let known = |end| match end {
            End::Unknown => None,
            End::Nothing => Some(None),
            End::At(hit) => Some(Some(hit)),
        };
        known(self.first).zip(known(self.last)).map(Into::into)
    }

    /// The ends of what is not older than that, Unix milliseconds.
    pub fn since(self, kept: u64) -> Self {
        let old = |end| matches!(end, End::At(Hit { t, .. }) if t < kept);
        match (old(self.first), old(self.last)) {
            (_, true) => Self {
                first: End::Nothing,
                last: End::Nothing,
            },
            (true, false) => Self {
                first: End::Unknown,
                ..self
            },
            (false, false) => self,
        }
    }

    /// What the tail of a log tells that begins behind position `floor`. `first` is what was the
    /// first message when that was last known; what is older than `kept`, Unix milliseconds, does
    /// not count.
    pub fn of(tail: &Tail, floor: u64, first: Option<Hit>, kept: u64) -> Self {
        let whole = match tail.records.first() {
            // What is before it is not younger.
            Some((position, record)) => *position <= floor + 1 || record.t < kept,
            None => tail.next <= floor + 1 || tail.last_t < kept,
        };
        let archived = |(position, record): &(u64, Record)| {
            let counts = record.is_archived() && record.t >= kept;
            counts.then_some(Hit {
                position: *position,
                t: record.t,
            })
        };
        let (oldest, newest) = (
            tail.records.iter().find_map(archived),
            tail.records.iter().rev().find_map(archived),
        );
        let before = first.filter(|hit| (floor + 1..tail.next).contains(&hit.position));
        let before = before.filter(|hit| hit.t >= kept);
        let unknown = |hit: Option<Hit>| hit.map_or(End::Unknown, End::At);
        match whole {
            true => Self {
                first: oldest.into(),
                last: newest.into(),
            },
            false => Self {
                first: unknown(before),
                last: unknown(newest),
            },
        }
    }

    /// A message was archived behind all others.
    fn add(&mut self, hit: Hit) {
        if self.first == End::Nothing {
            self.first = End::At(hit);
        }
        self.last = End::At(hit);
    }
}

impl Log {
    /// The log, when that is known of its ends.
    #[must_use]
    pub fn with_ends(mut self, ends: Ends) -> Self {
        self.ends = ends;
        self
    }

    /// Its ends.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// Both ends were looked up, while the next position was `next`: they are that, unless there
    /// is something newer by now. `false`: it has to be looked up once more.
    pub fn set_ends(&mut self, next: u64, found: [Option<Hit>; 2]) -> bool {
        let [first, last] = found;
        if first.is_none() && next != self.next() {
            return false;
        }
        self.ends.first = first.into();
        if self.ends.last == End::Unknown {
            self.ends.last = last.into();
        }
        true
    }

    /// Gives a record the next position: that, and its time.
    pub(super) fn advance(&mut self, record: &Record) -> (u64, u64) {
        let position = self.next;
        self.next += 1;
        self.last_t = self.last_t.max(record.t);
        if record.is_archived() {
            self.ends.add(Hit {
                position,
                t: self.last_t,
            });
        }
        (position, self.last_t)
    }
}
