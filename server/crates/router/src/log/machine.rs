//! The machine: events in, effects out.

use bytes::Bytes;
use cirrus_jid::BareJid;
use cirrus_schema::TableId;
use cirrus_schema::keys::archive;
use cirrus_store::{Condition, Direction, Item, Op, Outcome, SkRange, StoreError};
use serde::{Deserialize, Serialize};

use super::LogError;
use super::cover::{Cover, put_due, scatter};
use super::ends::Ends;
use super::flight::{Flight, Queue, Waiting};
use super::limits::Limits;
use super::record::{self, Content, MAX_BYTES, MAX_RESPOOL, Record};

/// Names a record from [`Log::append`] until its fate is known.
pub type Ticket = u64;

/// Names an operation from [`LogEffect::Store`] to [`Log::on_result`].
pub type Token = u64;

/// Pause before the second try; it doubles up to [`MAX_PAUSE_MS`], and half of it is random.
const FIRST_PAUSE_MS: u64 = 50;
const MAX_PAUSE_MS: u64 = 2_000;
/// Pause before the store is asked whether a given-up put has landed after all. It doubles, and
/// past [`LAST_PROBE_MS`] the next append will tell: 1 + 2 + ... + 32 s covers any retry.
const FIRST_PROBE_MS: u64 = 1_000;
const LAST_PROBE_MS: u64 = 32_000;
/// Given-up puts that are remembered, all at one position. When an older one lands after all, its
/// records are reported as [`LogEffect::Learned`].
const MAX_GHOSTS: usize = 16;

/// What the log asks for or reports, in order.
#[derive(Debug)]
pub enum LogEffect {
    /// Carry out the operation and answer with [`Log::on_result`]. Every operation is answered,
    /// if need be by [`StoreError::Timeout`].
    Store {
        /// The answer's token.
        token: Token,
        /// The operation.
        op: Op,
    },
    /// The record is durable.
    Durable {
        /// Which.
        ticket: Ticket,
        /// Where it is.
        position: u64,
        /// Its time in the log, Unix milliseconds: at least that of the record before it.
        t: u64,
    },
    /// The record is not in the log, or it is unknown whether it is.
    Failed {
        /// Which.
        ticket: Ticket,
        /// It may have been written, or may be yet; then [`LogEffect::LandedLate`] follows.
        unknown: bool,
    },
    /// A record whose ticket had failed as unknown is in the log after all.
    LandedLate {
        /// Which.
        ticket: Ticket,
        /// Where it is.
        position: u64,
        /// What it is.
        record: Record,
    },
    /// Somebody else wrote this record, before anything that this machine writes from now on.
    Learned {
        /// Where it is.
        position: u64,
        /// What it is.
        record: Record,
    },
    /// The store failed in a way that asking again does not cure. The log is of no more use: every
    /// ticket fails, every append is refused, until it is loaded again.
    Broken {
        /// What happened.
        error: LogError,
    },
}

/// A reason to read on.
#[derive(Debug, Serialize, Deserialize)]
struct Behind {
    /// The sort key of the last item read, if a page was read already.
    #[serde(with = "cirrus_store::raw")]
    after: Option<Bytes>,
    /// A put has lost the next position, so something must be there.
    lost: bool,
}

/// A put or a read under way.
#[derive(Debug, Serialize, Deserialize)]
enum Asked {
    Put,
    Read,
    /// The due row of that day.
    Cover(u64),
}

/// The log of one owner, from its next position on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Log {
    pub(super) owner: Vec<u8>,
    /// From the configuration, wherever the log is.
    #[serde(skip)]
    limits: Limits,
    seed: u128,
    pub(super) next: u64,
    pub(super) last_t: u64,
    /// The first and the last archived message.
    pub(super) ends: Ends,
    /// The last day of which a due row is known to be durable; see [`Cover`].
    pub(super) cover: u64,
    queue: Queue,
    flight: Option<Flight>,
    /// Puts at [`Self::next`] that were given up while they might still land.
    ghosts: Vec<Flight>,
    /// Read on from [`Self::next`] before anything is put.
    behind: Option<Behind>,
    /// When to look whether a ghost has landed, and how long to wait after that.
    probe: Option<(u64, u64)>,
    under_way: Option<(Token, Asked)>,
    pub(super) tries: u32,
    retry_at: u64,
    tickets: Ticket,
    tokens: Token,
    nonces: u128,
    broken: Option<LogError>,
}

impl Log {
    /// The log of `owner`, whose next position is `next` and whose last record has time `last_t`
    /// (see [`Tail`](super::Tail)). `seed` = 128 random bits, drawn anew for every log: nonces and
    /// pauses come from it.
    pub fn new(owner: &BareJid, limits: Limits, next: u64, last_t: u64, seed: u128) -> Self {
        Self {
            owner: owner.owner(),
            limits: limits.bounded(),
            seed,
            next,
            last_t,
            ends: Ends::default(),
            cover: 0,
            queue: Queue::default(),
            flight: None,
            ghosts: Vec::new(),
            behind: None,
            probe: None,
            under_way: None,
            tries: 0,
            retry_at: 0,
            tickets: 0,
            tokens: 0,
            nonces: 0,
            broken: None,
        }
    }

    /// The log, when its last item is known to be covered by the due row of that day.
    #[must_use]
    pub fn covered(self, day: u64) -> Self {
        Self { cover: day, ..self }
    }

    /// Gives a log that was read from a snapshot its bounds, which are not in one.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.bounded();
    }

    /// The position that the next item gets unless somebody else takes it.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The position of the last record; 0 in an empty log.
    pub fn last_position(&self) -> u64 {
        self.next - 1
    }

    /// The last ticket that was given; 0 before the first.
    pub fn last_ticket(&self) -> Ticket {
        self.tickets
    }

    /// Nothing waits and nothing is under way: the log can leave memory.
    pub fn is_idle(&self) -> bool {
        let wanted = self.flight.is_some() || self.behind.is_some() || self.under_way.is_some();
        self.queue.is_empty() && !wanted
    }

    /// When [`Log::tick`] has something to do; `None` = not before another event.
    pub fn wake_at(&self) -> Option<u64> {
        if self.broken.is_some() {
            return None;
        }
        let flight = self.flight.as_ref().and_then(Flight::deadline);
        let deadlines = [self.queue.deadline(), flight];
        let work = self.work_at().filter(|_| self.under_way.is_none());
        let work = work.map(|at| at.max(self.retry_at));
        deadlines.into_iter().chain([work]).flatten().min()
    }

    /// When there is something to ask the store for.
    fn work_at(&self) -> Option<u64> {
        if self.flight.is_some() || self.behind.is_some() {
            return Some(0);
        }
        let probe = self.probe.map(|(at, _)| at);
        [self.queue.due(), probe].into_iter().flatten().min()
    }

    /// Accepts a record; its fate is told by an effect with the ticket.
    ///
    /// # Errors
    /// [`LogError::Full`], [`LogError::TooLarge`], [`LogError::Broken`]: the record is not taken.
    pub fn append(
        &mut self,
        now: u64,
        record: Record,
        out: &mut Vec<LogEffect>,
    ) -> Result<Ticket, LogError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let size = record.size();
        let too_many = matches!(&record.content, Content::Respool(p) if p.len() > MAX_RESPOOL);
        if size > MAX_BYTES || too_many {
            return Err(LogError::TooLarge {
                bytes: size,
                limit: MAX_BYTES,
            });
        }
        let (records, bytes) = (self.queue.len(), self.queue.bytes());
        if records >= self.limits.queue_records || bytes + size > self.limits.queue_bytes {
            return Err(LogError::Full { records, bytes });
        }
        self.tickets += 1;
        let due = now.saturating_add(if record.may_wait() {
            self.limits.defer_ms
        } else {
            0
        });
        let deadline = due.saturating_add(self.limits.deadline_ms);
        let ticket = self.tickets;
        self.queue.push_back(Waiting {
            ticket,
            record,
            due,
            deadline,
            failed: false,
        });
        self.pump(now, out);
        Ok(ticket)
    }

    /// Writes everything now, receipts and markers too: the process is about to stop.
    pub fn flush(&mut self, now: u64, out: &mut Vec<LogEffect>) {
        self.queue.hurry(now);
        self.tick(now, out);
    }

    /// Time has passed: see [`Log::wake_at`].
    pub fn tick(&mut self, now: u64, out: &mut Vec<LogEffect>) {
        self.expire(now, out);
        self.pump(now, out);
    }

    /// An operation was answered. A token that is not under way is ignored.
    pub fn on_result(
        &mut self,
        now: u64,
        token: Token,
        result: Result<Outcome, StoreError>,
        out: &mut Vec<LogEffect>,
    ) {
        match self.under_way.take_if(|(under_way, _)| *under_way == token) {
            None => return,
            Some((_, Asked::Put)) => self.on_put(now, result, out),
            Some((_, Asked::Read)) => self.on_read(now, result, out),
            Some((_, Asked::Cover(day))) => self.on_cover(now, day, result, out),
        }
        self.expire(now, out);
        self.pump(now, out);
    }

    fn on_put(&mut self, now: u64, result: Result<Outcome, StoreError>, out: &mut Vec<LogEffect>) {
        let Some(mut flight) = self.flight.take() else {
            return;
        };
        match result {
            Ok(_) => {
                self.tries = 0;
                self.landed(flight.entries, out);
            }
            Err(StoreError::Conflict { .. }) => {
                // Another item has the position for ever, so this one can't land there any more.
                self.behind = Some(Behind {
                    after: None,
                    lost: true,
                });
                self.take_back(flight);
            }
            Err(error) if error.is_retryable() => {
                flight.uncertain |= error.outcome_unknown();
                self.flight = Some(flight);
                self.pause(now);
            }
            Err(error) => {
                self.flight = Some(flight);
                self.break_down(LogError::Broken(error.to_string()), out);
            }
        }
    }

    fn on_read(&mut self, now: u64, result: Result<Outcome, StoreError>, out: &mut Vec<LogEffect>) {
        match result {
            Ok(Outcome::Page { items, next }) => {
                let learned = self.learn(&items, out);
                if let Err(error) = learned {
                    return self.break_down(error, out);
                }
                let lost = self.behind.take().is_some_and(|behind| behind.lost);
                match lost && items.is_empty() && next.is_none() {
                    // Don't go round in a hurry.
                    true => self.pause(now),
                    false => self.tries = 0,
                }
                self.behind = next.map(|sk| Behind {
                    after: Some(sk),
                    lost: false,
                });
            }
            Err(error) if error.is_retryable() => self.pause(now),
            Ok(_) => self.break_down(LogError::Broken("not a page".into()), out),
            Err(error) => self.break_down(LogError::Broken(error.to_string()), out),
        }
    }

    /// The records of our own put are at the next position.
    fn landed(&mut self, entries: Vec<Waiting>, out: &mut Vec<LogEffect>) {
        for entry in entries {
            let Waiting {
                ticket,
                record,
                failed,
                ..
            } = entry;
            let (position, t) = self.advance(&record);
            if !failed {
                out.push(LogEffect::Durable {
                    ticket,
                    position,
                    t,
                });
                continue;
            }
            let repeated = self
                .queue
                .remove(|entry| entry.ticket == ticket || entry.record.is_repetition_of(&record));
            if repeated.iter().all(|entry| entry.ticket != ticket) {
                let record = Record { t, ..record };
                out.push(LogEffect::LandedLate {
                    ticket,
                    position,
                    record,
                });
            }
            durable(repeated, position, t, out);
        }
        self.forget_ghosts();
    }

    /// Takes over what stands at the next positions.
    fn learn(&mut self, items: &[Item], out: &mut Vec<LogEffect>) -> Result<(), LogError> {
        for item in items {
            let (seq, records) = record::decode(item)?;
            if seq != self.next {
                return Err(LogError::Gap {
                    key: item.key.clone(),
                    expected: self.next,
                });
            }
            let own = self
                .ghosts
                .iter()
                .position(|ghost| ghost.item.attrs == item.attrs);
            match own.map(|index| self.ghosts.swap_remove(index)) {
                Some(ghost) => self.landed(ghost.entries, out),
                None => records
                    .into_iter()
                    .for_each(|record| self.learn_record(record, out)),
            }
            self.forget_ghosts();
        }
        Ok(())
    }

    fn learn_record(&mut self, record: Record, out: &mut Vec<LogEffect>) {
        let (position, t) = self.advance(&record);
        // Another node may have written a stanza that waits here too: it was sent again, and
        // must not be in the log twice.
        let repeated = self
            .queue
            .remove(|entry| entry.record.is_repetition_of(&record));
        if repeated.is_empty() {
            out.push(LogEffect::Learned { position, record });
        }
        durable(repeated, position, t, out);
    }

    /// Fails what waits too long.
    fn expire(&mut self, now: u64, out: &mut Vec<LogEffect>) {
        let put_under_way = matches!(self.under_way, Some((_, Asked::Put)));
        if let Some(flight) = &mut self.flight
            && flight.deadline().is_none_or(|deadline| deadline <= now)
        {
            if flight.uncertain || put_under_way {
                let again = flight.expire(now, |ticket| {
                    out.push(LogEffect::Failed {
                        ticket,
                        unknown: true,
                    });
                });
                self.queue.push_front(again);
                if flight.is_given_up() && !put_under_way {
                    self.give_up(now);
                }
            } else if let Some(flight) = self.flight.take() {
                self.take_back(flight);
            }
        }
        for entry in self.queue.remove(|entry| entry.deadline <= now) {
            out.push(LogEffect::Failed {
                ticket: entry.ticket,
                unknown: self.is_doubtful(entry.ticket),
            });
        }
    }

    /// Whether an earlier put with that record may yet land.
    fn is_doubtful(&self, ticket: Ticket) -> bool {
        let puts = self.ghosts.iter().chain(&self.flight);
        let mut entries = puts.flat_map(|put| &put.entries);
        entries.any(|entry| entry.ticket == ticket)
    }

    /// Nobody waits for the put any more, but it may yet land.
    fn give_up(&mut self, now: u64) {
        self.ghosts.extend(self.flight.take());
        if self.ghosts.len() > MAX_GHOSTS {
            self.ghosts.remove(0);
        }
        self.probe = Some((now.saturating_add(FIRST_PROBE_MS), FIRST_PROBE_MS));
    }

    /// The next position is taken: what else was tried there can't land any more.
    fn forget_ghosts(&mut self) {
        self.ghosts.clear();
        self.probe = None;
    }

    /// A put is certain not to land: its records wait again, except those that were given up.
    fn take_back(&mut self, flight: Flight) {
        let waiting = flight.entries.into_iter().filter(|entry| !entry.failed);
        self.queue.push_front(waiting.collect());
    }

    /// Asks for the next thing, if there is something to do and nothing is under way.
    fn pump(&mut self, now: u64, out: &mut Vec<LogEffect>) {
        if self.under_way.is_some() || self.broken.is_some() || now < self.retry_at {
            return;
        }
        if self.work_at().is_none_or(|at| now < at) {
            return;
        }
        if self.flight.is_none() && self.queue.due().is_none_or(|due| now < due) {
            // Only a probe is due.
            self.behind.get_or_insert(Behind {
                after: None,
                lost: false,
            });
            self.probe = self.probe.and_then(|(_, pause)| {
                let pause = pause * 2;
                (pause <= LAST_PROBE_MS).then_some((now.saturating_add(pause), pause))
            });
        }
        let today = now.max(self.last_t) / self.limits.day_ms;
        let (asked, op) = match &self.behind {
            Some(behind) => (Asked::Read, self.read_on(behind.after.clone())),
            None if self.flight.is_none() && self.cover < today => {
                let day = today + Cover::AHEAD_DAYS;
                (Asked::Cover(day), put_due(&self.owner, day))
            }
            None => (Asked::Put, self.put(now)),
        };
        self.tokens += 1;
        self.under_way = Some((self.tokens, asked));
        out.push(LogEffect::Store {
            token: self.tokens,
            op,
        });
    }

    fn put(&mut self, now: u64) -> Op {
        let planted = crate::planted::reuse_position();
        let seq = if planted {
            self.next.saturating_sub(1).max(1)
        } else {
            self.next
        };
        let flight = match self.flight.take() {
            Some(flight) => flight,
            None => {
                self.nonces += 1;
                // 0 would mean "no nonce"; two logs draw the same one as likely as two seeds.
                let nonce = self.seed.wrapping_add(self.nonces).max(1);
                let (queue, owner) = (&mut self.queue, &self.owner);
                let mut flight =
                    Flight::pack(queue, owner, seq, self.last_t, nonce, now, &self.limits);
                let expires = Cover::expires(self.cover, self.limits.day_ms);
                flight.item = flight.item.expiring(expires);
                flight
            }
        };
        let condition = if planted {
            Condition::Any
        } else {
            Condition::Absent
        };
        let op = Op::Put {
            item: flight.item.clone(),
            condition,
            nonce: flight.nonce,
        };
        self.flight = Some(flight);
        op
    }

    fn read_on(&self, after: Option<Bytes>) -> Op {
        let (first, last) = archive::hot_from(self.next);
        Op::Query {
            table: TableId::Archive,
            pk: archive::partition(&self.owner).into(),
            range: SkRange::Between(first.into(), last.into()),
            direction: Direction::Forward,
            limit: None,
            after,
        }
    }

    /// Waits before the next operation, twice as long each time, half of it by chance.
    pub(super) fn pause(&mut self, now: u64) {
        let pause = (FIRST_PAUSE_MS << self.tries.min(10)).min(MAX_PAUSE_MS);
        self.tries = self.tries.saturating_add(1);
        let chance = scatter(self.seed as u64 ^ now ^ u64::from(self.tries)) % (pause / 2 + 1);
        self.retry_at = now.saturating_add(pause / 2 + chance);
    }

    pub(super) fn break_down(&mut self, error: LogError, out: &mut Vec<LogEffect>) {
        if let Some(flight) = self.flight.take() {
            for entry in flight.entries.iter().filter(|entry| !entry.failed) {
                let unknown = flight.uncertain;
                out.push(LogEffect::Failed {
                    ticket: entry.ticket,
                    unknown,
                });
            }
        }
        for entry in self.queue.remove(|_| true) {
            out.push(LogEffect::Failed {
                ticket: entry.ticket,
                unknown: false,
            });
        }
        self.broken = Some(error.clone());
        out.push(LogEffect::Broken { error });
    }
}

/// What waited here stands at `position` by another write.
fn durable(entries: Vec<Waiting>, position: u64, t: u64, out: &mut Vec<LogEffect>) {
    for entry in entries {
        out.push(LogEffect::Durable {
            ticket: entry.ticket,
            position,
            t,
        });
    }
}
