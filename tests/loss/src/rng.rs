//! Seeded randomness: SplitMix64, so that a run's choices can be repeated.

use std::time::Duration;

/// A generator.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of one account in a run with this seed.
    #[must_use]
    pub fn new(seed: u64, account: u32) -> Rng {
        let mut rng = Rng(seed ^ (u64::from(account) << 32));
        // Neighbours differ from their first number on.
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A time around `mean`: from half of it to one and a half.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        let mean = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX / 4);
        Duration::from_micros(mean / 2 + self.below(mean.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_times_stay_around_their_mean() {
        let numbers = |seed, account| {
            let mut rng = Rng::new(seed, account);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2), numbers(1, 3));
        let mut rng = Rng::new(7, 0);
        for _ in 0..100 {
            let time = rng.around(Duration::from_secs(2));
            assert!((1..=3).contains(&time.as_secs()), "{time:?}");
        }
        assert_eq!(rng.below(0), 0);
    }
}
