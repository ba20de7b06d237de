//! How long writes take, beside how long they usually do.

use std::collections::VecDeque;
use std::time::Duration;

/// Seconds of which it is remembered how long writes took.
const REMEMBERED: usize = 60;
/// What counts as now.
const NOW: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);
/// Fewest answers that say how long writes take now.
const FEWEST: u32 = 4;
/// Writes that take half as long again as usual, and this much more, take long.
const MARGIN: Duration = Duration::from_millis(2);

/// Times of answers. Time is that of a clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// The means of the last seconds in which there were writes.
    usual: VecDeque<Duration>,
    second: Sum,
    now: Sum,
    /// The mean of the last moment, if there were enough.
    last: Option<Duration>,
}

#[derive(Debug, Default)]
struct Sum {
    since: Duration,
    total: Duration,
    count: u32,
}

impl Sum {
    fn add(&mut self, took: Duration) {
        self.total = self.total.saturating_add(took);
        self.count = self.count.saturating_add(1);
    }

    /// The mean, once so much time has passed; and it begins anew.
    fn end(&mut self, now: Duration, after: Duration) -> Option<(Option<Duration>, u32)> {
        (now.saturating_sub(self.since) >= after).then(|| {
            let ended = std::mem::take(self);
            self.since = now;
            (ended.total.checked_div(ended.count), ended.count)
        })
    }
}

impl Delays {
    /// A write was answered.
    pub(super) fn answered(&mut self, now: Duration, took: Duration) {
        self.pass(now);
        self.second.add(took);
        self.now.add(took);
    }

    fn pass(&mut self, now: Duration) {
        if let Some((mean, count)) = self.now.end(now, NOW) {
            self.last = mean.filter(|_| count >= FEWEST);
        }
        if let Some((Some(mean), _)) = self.second.end(now, SECOND) {
            self.usual.truncate(REMEMBERED - 1);
            self.usual.push_front(mean);
        }
    }

    /// Whether writes take long now.
    pub(super) fn are_long(&mut self, now: Duration) -> bool {
        self.pass(now);
        let mut usual: Vec<_> = self.usual.iter().copied().collect();
        usual.sort_unstable();
        let middle = usual.get(usual.len() / 2);
        let bound = middle.map(|it| it.saturating_add(*it / 2).saturating_add(MARGIN));
        self.last
            .zip(bound)
            .is_some_and(|(last, bound)| last > bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A write every ten milliseconds, from one time to another.
    fn write(delays: &mut Delays, from: u64, to: u64, took: u64) {
        for at in (from..to).step_by(10) {
            delays.answered(ms(at), ms(took));
        }
    }

    #[test]
    fn what_is_usual_is_not_long() {
        let mut delays = Delays::default();
        assert!(!delays.are_long(ms(0)), "nothing is known");
        write(&mut delays, 0, 5_000, 20);
        assert!(!delays.are_long(ms(5_000)));
        write(&mut delays, 5_000, 5_500, 31);
        assert!(!delays.are_long(ms(5_500)));
    }

    #[test]
    fn longer_than_usual_is_long_until_it_is_over() {
        let mut delays = Delays::default();
        write(&mut delays, 0, 5_000, 20);
        write(&mut delays, 5_000, 7_000, 40);
        assert!(delays.are_long(ms(7_000)), "two seconds make no usage");
        write(&mut delays, 7_000, 7_600, 20);
        assert!(!delays.are_long(ms(7_600)));
    }

    #[test]
    fn a_few_answers_say_nothing() {
        let mut delays = Delays::default();
        write(&mut delays, 0, 5_000, 20);
        delays.answered(ms(5_000), ms(500));
        delays.answered(ms(5_001), ms(500));
        assert!(!delays.are_long(ms(5_400)));
        assert!(!delays.are_long(ms(60_000)), "nor none");
    }
}
