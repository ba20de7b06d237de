//! What keeps many clients that come at once from holding up those who are served already.
//!
//! After a node is lost thousands come: accepting is paced, as handshakes are the larger part of
//! the work, and so are new sessions. A session that is resumed never waits: it was served before.
//!
//! How many a node can take beside its work it finds out: while the turn of connections comes in
//! time, and the machine has time to spare, it accepts more and more, and fewer when that comes
//! late, as then everything else does too; and so it is while the store is late.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cirrus_stanza::{Condition, StanzaError};

use super::Limits;
use super::bucket::Bucket;
use super::processors::{Processors, proc_stat};

/// Paces connections and new sessions.
#[derive(Debug)]
pub(super) struct Governor {
    accepts: Mutex<Accepts>,
    logins: Mutex<Bucket>,
    processors: Mutex<Processors>,
    /// Milliseconds that a new session may wait for its turn.
    login_wait_ms: u64,
}

impl Governor {
    pub(super) fn new(limits: &Limits, now: u64) -> Self {
        let accepts = Accepts::new(
            limits.accepts_per_second,
            limits.accepts_burst,
            limits.accepts_late_ms,
            now,
        );
        let logins = Bucket::new(limits.logins_per_second, limits.logins_burst, now);
        let wait = limits.login_wait.as_millis();
        Self {
            accepts: Mutex::new(accepts),
            logins: Mutex::new(logins),
            processors: Mutex::default(),
            login_wait_ms: u64::try_from(wait).unwrap_or(u64::MAX),
        }
    }

    /// A connection was accepted; the next one may be at this time, if not at once.
    pub(super) fn accepted(&self, now: u64) -> Option<u64> {
        self.accepts().take(now)
    }

    /// The turn of a connection has come that was to come at `at`; `late` tells whether the store
    /// is late too.
    pub(super) fn turn_came(&self, now: u64, at: u64, late: impl FnOnce() -> bool) {
        self.accepts().turn_came(now, at, || {
            let processors = self.processors.lock();
            let mut processors = processors.unwrap_or_else(PoisonError::into_inner);
            let spare = processors.have_time(proc_stat());
            match late() {
                true => Load::Late,
                false if spare => Load::Spare,
                false => Load::Full,
            }
        });
    }

    /// Connections that are accepted a second when more come.
    pub(super) fn accepts_per_second(&self) -> u64 {
        self.accepts().rate
    }

    fn accepts(&self) -> MutexGuard<'_, Accepts> {
        self.accepts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a new session may begin: now, or later.
    ///
    /// # Errors
    /// What the client is told when that is too late.
    pub(super) fn begin(&self, now: u64) -> Result<u64, StanzaError> {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins
            .take_within(1, now, self.login_wait_ms)
            .map_err(|early| {
                // Whoever comes then still waits, but gets its turn.
                let seconds = early.div_ceil(1_000).max(1);
                let text = format!("too many clients log in now; try again in {seconds} s");
                StanzaError::new(Condition::ResourceConstraint, text)
            })
    }
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// There is time for more.
    Spare,
    /// It should not become more.
    Full,
    /// It is too much.
    Late,
}

/// How many connections are accepted.
#[derive(Debug)]
struct Accepts {
    bucket: Bucket,
    /// What the bucket gives a second, between a part of the most and the most.
    rate: u64,
    most: u64,
    /// How late turns may come on average, milliseconds.
    late_ms: u64,
    accepted_at: u64,
    /// Turns that have come since then, and how late they came together.
    since: u64,
    turns: u64,
    late: u64,
}

/// After a pause the rate is this part of the most, and never less than that one.
const FIRST: u64 = 5;
const LEAST: u64 = 20;
/// Whether the rate is right is judged so often, milliseconds: a login takes its time, and so does
/// what it does to others.
const JUDGED_MS: u64 = 250;
/// Nothing is known any more of what a node can take after so many milliseconds without clients.
const PAUSE_MS: u64 = 5_000;

impl Accepts {
    fn new(most: u64, burst: u64, late_ms: u64, now: u64) -> Self {
        let rate = most.div_ceil(FIRST);
        Self {
            bucket: Bucket::new(rate, burst, now),
            rate,
            most,
            late_ms,
            accepted_at: now,
            since: now,
            turns: 0,
            late: 0,
        }
    }

    fn take(&mut self, now: u64) -> Option<u64> {
        if now >= self.accepted_at.saturating_add(PAUSE_MS) {
            self.begin(now);
            self.set_rate(self.most.div_ceil(FIRST), now);
        }
        self.accepted_at = now;
        self.bucket.take(1, now)
    }

    fn turn_came(&mut self, now: u64, at: u64, load: impl FnOnce() -> Load) {
        self.turns += 1;
        self.late += now.saturating_sub(at);
        if now < self.since.saturating_add(JUDGED_MS) {
            return;
        }
        let load = match self.late / self.turns > self.late_ms {
            true => Load::Late,
            false => load(),
        };
        let rate = match load {
            Load::Late => self.rate / 2,
            Load::Full => self.rate,
            Load::Spare => self.rate.saturating_mul(11).div_ceil(10),
        };
        self.set_rate(rate, now);
        self.begin(now);
    }

    fn begin(&mut self, now: u64) {
        (self.since, self.turns, self.late) = (now, 0, 0);
    }

    fn set_rate(&mut self, rate: u64, now: u64) {
        self.rate = rate.clamp(self.most.div_ceil(LEAST), self.most);
        self.bucket.set_rate(self.rate, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts all that may be in so many milliseconds, each `late` after its turn; how many.
    fn accept(accepts: &mut Accepts, from: u64, milliseconds: u64, late: u64) -> u64 {
        accept_beside(accepts, from, milliseconds, (late, Load::Spare))
    }

    /// The same, with so much else to do.
    fn accept_beside(
        accepts: &mut Accepts,
        from: u64,
        milliseconds: u64,
        (late, load): (u64, Load),
    ) -> u64 {
        let (mut now, mut accepted) = (from, 0);
        while now < from + milliseconds {
            accepted += 1;
            if let Some(at) = accepts.take(now) {
                now = at + late;
                accepts.turn_came(now, at, || load);
            }
        }
        accepted
    }

    fn accepts() -> Accepts {
        Accepts::new(1_000, 10, 5, 0)
    }

    #[test]
    fn more_are_accepted_while_their_turn_comes_in_time() {
        let mut accepts = accepts();
        let first = accept(&mut accepts, 0, 100, 1);
        assert!((20..60).contains(&first), "{first}");
        accept(&mut accepts, 100, 6_000, 1);
        assert_eq!(accepts.rate, 1_000);
    }

    #[test]
    fn fewer_are_accepted_where_it_comes_late_but_never_none() {
        let mut accepts = accepts();
        accept(&mut accepts, 0, 6_000, 1);
        accept(&mut accepts, 6_000, 3_000, 20);
        assert_eq!(accepts.rate, 50);
        let some = accept(&mut accepts, 9_000, 1_000, 20);
        assert!((40..70).contains(&some), "{some}");
    }

    #[test]
    fn fewer_are_accepted_while_the_store_is_late() {
        let mut accepts = accepts();
        accept(&mut accepts, 0, 6_000, 1);
        accept_beside(&mut accepts, 6_000, 2_000, (1, Load::Late));
        assert_eq!(accepts.rate, 50);
        accept(&mut accepts, 8_000, 10_000, 1);
        assert_eq!(accepts.rate, 1_000);
    }

    #[test]
    fn it_becomes_no_more_where_there_is_no_time_to_spare() {
        let mut accepts = accepts();
        accept_beside(&mut accepts, 0, 3_000, (1, Load::Full));
        assert_eq!(accepts.rate, 200);
    }

    #[test]
    fn after_a_pause_it_finds_out_anew() {
        let mut accepts = accepts();
        accept(&mut accepts, 0, 6_000, 1);
        assert_eq!(accepts.rate, 1_000);
        accepts.take(12_000);
        assert_eq!(accepts.rate, 200);
    }
}
