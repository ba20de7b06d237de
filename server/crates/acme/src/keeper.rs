//! When a domain's certificate is due. Pure: time and randomness are arguments.

/// Longest pause between two tries.
const LONGEST_MS: u64 = 12 * 60 * 60 * 1_000;
/// Least pause after the authority has said "too many": its limits count by the hour.
const LIMITED_MS: u64 = 60 * 60 * 1_000;

/// How eagerly certificates are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Before a certificate's end; at most a third of its life is used.
    pub renew_before_ms: u64,
    /// After a first failure.
    pub retry_ms: u64,
}

/// How long a certificate is good for, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its start.
    pub not_before_ms: u64,
    /// Its end.
    pub not_after_ms: u64,
}

impl Validity {
    /// Whole days left; 0 once it is over.
    #[must_use]
    pub fn days_left(&self, now_ms: u64) -> u64 {
        self.not_after_ms.saturating_sub(now_ms) / (24 * 60 * 60 * 1_000)
    }
}

/// Keeps one domain in certificates.
#[derive(Debug)]
pub struct Keeper {
    pace: Pace,
    /// Chosen once: 0 to 1,023 parts of the tenth by which a renewal is moved, so that the
    /// deployments of the world do not ask at the same moment.
    jitter: u64,
    held: Option<Validity>,
    failures: u32,
    not_before: u64,
}

impl Keeper {
    /// A domain of which nothing is known yet.
    #[must_use]
    pub fn new(pace: Pace, random: u64) -> Self {
        Self {
            pace,
            jitter: random % 1_024,
            held: None,
            failures: 0,
            not_before: 0,
        }
    }

    /// What the table has now. Another certificate than before ends what failures had begun.
    pub fn found(&mut self, validity: Option<Validity>) {
        if validity.is_some() && validity != self.held {
            self.failures = 0;
            self.not_before = 0;
        }
        self.held = validity;
    }

    /// An order came to nothing. Returns for how long none is tried, in milliseconds.
    pub fn failed(&mut self, now_ms: u64, rate_limited: bool) -> u64 {
        let doubled = self.pace.retry_ms << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let least = if rate_limited { LIMITED_MS } else { 0 };
        let pause = doubled.min(LONGEST_MS).max(least);
        // Up to a tenth longer: nodes and domains that failed together part.
        let pause = pause + pause / 10 * self.jitter / 1_024;
        self.not_before = now_ms.saturating_add(pause);
        pause
    }

    /// When the next order is due, Unix milliseconds; in the past: now.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        let renewal = self.held.map_or(0, |held| {
            let life = held.not_after_ms.saturating_sub(held.not_before_ms);
            let before = self.pace.renew_before_ms.min(life / 3);
            let at = held.not_after_ms.saturating_sub(before);
            at.saturating_add(before / 10 * self.jitter / 1_024)
        });
        renewal.max(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1_000;
    const PACE: Pace = Pace {
        renew_before_ms: 30 * DAY,
        retry_ms: 300_000,
    };

    fn until(days: u64) -> Validity {
        Validity {
            not_before_ms: 0,
            not_after_ms: days * DAY,
        }
    }

    #[test]
    fn without_a_certificate_one_is_due_at_once() {
        let mut keeper = Keeper::new(PACE, 0);
        assert_eq!(keeper.due_ms(), 0);
        keeper.found(None);
        assert_eq!(keeper.due_ms(), 0);
    }

    #[test]
    fn renewals_are_spread_within_their_window() {
        for random in [0, 1, 512, 1_023, u64::MAX] {
            let mut keeper = Keeper::new(PACE, random);
            keeper.found(Some(until(90)));
            assert!((60 * DAY..63 * DAY).contains(&keeper.due_ms()), "{random}");
        }
    }

    #[test]
    fn a_short_lived_certificate_is_renewed_in_its_last_third() {
        let mut keeper = Keeper::new(PACE, 0);
        keeper.found(Some(until(6)));
        assert_eq!(keeper.due_ms(), 4 * DAY);
    }

    #[test]
    fn failures_wait_twice_as_long_each_up_to_half_a_day() {
        let mut keeper = Keeper::new(PACE, 0);
        let pauses: Vec<u64> = (0..10).map(|_| keeper.failed(0, false) / 60_000).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 720, 720]);
        for _ in 0..100 {
            assert_eq!(keeper.failed(7, false), LONGEST_MS);
        }
        assert_eq!(keeper.due_ms(), 7 + LONGEST_MS);
    }

    #[test]
    fn a_rate_limit_waits_an_hour_at_least() {
        let mut keeper = Keeper::new(PACE, 0);
        assert_eq!(keeper.failed(0, true), LIMITED_MS);
        assert_eq!(
            keeper.failed(0, false),
            600_000,
            "and the next failure counts on"
        );
    }

    #[test]
    fn another_nodes_certificate_ends_the_waiting() {
        let mut keeper = Keeper::new(PACE, 0);
        keeper.failed(0, false);
        keeper.failed(0, false);
        keeper.found(Some(until(90)));
        assert_eq!(keeper.due_ms(), 60 * DAY);
        // The renewal fails: the certificate that is there does not shorten the pause.
        let now = 60 * DAY;
        assert_eq!(keeper.failed(now, false), 300_000);
        keeper.found(Some(until(90)));
        assert_eq!(keeper.due_ms(), now + 300_000);
    }

    #[test]
    fn days_left() {
        assert_eq!(until(90).days_left(DAY / 2), 89);
        assert_eq!(until(1).days_left(2 * DAY), 0);
    }
}
