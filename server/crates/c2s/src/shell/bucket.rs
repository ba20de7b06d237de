//! Token buckets: how much of something a connection may do, in the long run and at once.

/// One bucket. Time is in milliseconds and never goes back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Tokens a second.
    rate: u64,
    /// Most tokens there can be, in thousandths.
    full: i64,
    /// Tokens there are, in thousandths; below zero after a draught that was larger.
    level: i64,
    filled_at: u64,
}

/// Thousandths of a token: a rate of one a second fills by one of them each millisecond.
const UNIT: i64 = 1_000;

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: u64, burst: u64, now: u64) -> Self {
        let full = i64::try_from(burst)
            .unwrap_or(i64::MAX)
            .saturating_mul(UNIT);
        Self {
            rate: rate.max(1),
            full,
            level: full,
            filled_at: now,
        }
    }

    /// As [`Self::take`], unless that would be made up for later than in `most` milliseconds: then
    /// nothing is taken, and the error is how many milliseconds too early it was.
    pub(super) fn take_within(&mut self, amount: u64, now: u64, most: u64) -> Result<u64, u64> {
        let before = *self;
        let at = self.take(amount, now).unwrap_or(now);
        let wait = at.saturating_sub(now);
        if wait > most {
            *self = before;
            return Err(wait - most);
        }
        Ok(at)
    }

    /// Takes `amount`, be it there or not. When it was not, the answer is when it will be made
    /// up for; until then nothing more should be taken.
    pub(super) fn take(&mut self, amount: u64, now: u64) -> Option<u64> {
        self.fill(now);
        let amount = i64::try_from(amount)
            .unwrap_or(i64::MAX)
            .saturating_mul(UNIT);
        self.level = self.level.saturating_sub(amount);
        let owed = self.level.min(0).unsigned_abs().div_ceil(self.rate);
        (owed > 0).then(|| now.saturating_add(owed))
    }

    /// From now on it fills so fast.
    pub(super) fn set_rate(&mut self, rate: u64, now: u64) {
        self.fill(now);
        self.rate = rate.max(1);
    }

    fn fill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.filled_at);
        let filled = i64::try_from(passed.saturating_mul(self.rate)).unwrap_or(i64::MAX);
        self.filled_at = now;
        self.level = self.level.saturating_add(filled).min(self.full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_rules() {
        let mut bucket = Bucket::new(10, 3, 1_000);
        assert_eq!(bucket.take(1, 1_000), None);
        assert_eq!(bucket.take(2, 1_000), None);
        assert_eq!(bucket.take(1, 1_000), Some(1_100));
        assert_eq!(bucket.take(1, 1_100), Some(1_200));
    }

    #[test]
    fn a_pause_fills_it_no_further_than_the_burst() {
        let mut bucket = Bucket::new(1_000, 5, 0);
        assert_eq!(bucket.take(5, 0), None);
        assert_eq!(bucket.take(5, u64::MAX / 2), None);
        assert_eq!(bucket.take(1, u64::MAX / 2), Some(u64::MAX / 2 + 1));
    }

    #[test]
    fn a_large_draught_takes_its_time() {
        let mut bucket = Bucket::new(1_000, 1_000, 0);
        assert_eq!(bucket.take(11_000, 0), Some(10_000));
        assert_eq!(bucket.take(0, 5_000), Some(10_000));
        assert_eq!(bucket.take(0, 10_000), None);
    }

    #[test]
    fn what_would_take_too_long_is_not_taken() {
        let mut bucket = Bucket::new(10, 1, 1_000);
        assert_eq!(bucket.take_within(1, 1_000, 200), Ok(1_000));
        assert_eq!(bucket.take_within(1, 1_000, 200), Ok(1_100));
        assert_eq!(bucket.take_within(1, 1_000, 200), Ok(1_200));
        assert_eq!(bucket.take_within(1, 1_000, 200), Err(100));
        assert_eq!(bucket.take_within(1, 1_100, 200), Ok(1_300));
    }

    #[test]
    fn a_new_rate_holds_from_then_on() {
        let mut bucket = Bucket::new(10, 1, 1_000);
        assert_eq!(bucket.take(2, 1_000), Some(1_100));
        bucket.set_rate(100, 1_050);
        assert_eq!(bucket.take(0, 1_050), Some(1_055));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let mut bucket = Bucket::new(u64::MAX, u64::MAX, 0);
        assert_eq!(bucket.take(u64::MAX, u64::MAX), None);
        bucket.take(u64::MAX, u64::MAX);
        let mut slow = Bucket::new(0, 0, 0);
        assert_eq!(slow.take(1, 0), Some(1_000));
    }
}
