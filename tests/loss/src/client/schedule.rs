//! What a client does of itself, and when. Pure.

use std::time::Duration;

use crate::ledger::At;
use crate::rng::Rng;

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A message to a contact.
    Message,
    /// A ping of a contact.
    Ping,
    /// Another presence.
    Presence,
    /// End the session, and come back later.
    Leave,
    /// Drop the connection, and come back later.
    Break,
}

const DEEDS: [Deed; 5] = [
    Deed::Message,
    Deed::Ping,
    Deed::Presence,
    Deed::Leave,
    Deed::Break,
];

/// The mean time between two of a kind, for one client; none if it never does that.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Means(pub(crate) [Option<Duration>; 5]);

/// When each is done next.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    means: Means,
    next: [At; 5],
}

impl Schedule {
    /// Nothing is done before it begins.
    pub(crate) fn new(means: Means) -> Schedule {
        let next = [At::MAX; 5];
        Schedule { means, next }
    }

    /// The first of each kind comes after a part of its mean time, so that clients don't act at
    /// once.
    pub(crate) fn begin(&mut self, now: At, rng: &mut Rng) {
        for (next, mean) in self.next.iter_mut().zip(self.means.0) {
            *next = mean.map_or(At::MAX, |mean| now + rng.below(micros(mean).max(1)));
        }
    }

    /// Nothing more is done.
    pub(crate) fn end(&mut self) {
        self.next = [At::MAX; 5];
    }

    /// When something is to be done.
    pub(crate) fn deadline(&self) -> At {
        self.next.iter().copied().min().unwrap_or(At::MAX)
    }

    /// Something that is due. What was due more than once meanwhile is done once: a client that
    /// was held up doesn't catch up.
    pub(crate) fn due(&mut self, now: At, rng: &mut Rng) -> Option<Deed> {
        let due = self.next.iter().position(|at| *at <= now)?;
        let mean = self.means.0.get(due).copied().flatten();
        let next = mean.map_or(At::MAX, |mean| now + micros(rng.around(mean)).max(1));
        if let Some(slot) = self.next.get_mut(due) {
            *slot = next;
        }
        DEEDS.get(due).copied()
    }
}

fn micros(time: Duration) -> At {
    At::try_from(time.as_micros()).unwrap_or(At::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_come_at_their_rate_and_only_those_that_are_wanted() {
        let mut rng = Rng::new(1, 1);
        let message = Some(Duration::from_millis(100));
        let mut schedule = Schedule::new(Means([message, None, None, None, None]));
        assert_eq!(schedule.deadline(), At::MAX);
        schedule.begin(0, &mut rng);
        let mut done = 0;
        while schedule.deadline() < 10_000_000 {
            let now = schedule.deadline();
            assert_eq!(schedule.due(now, &mut rng), Some(Deed::Message));
            assert_eq!(schedule.due(now, &mut rng), None);
            done += 1;
        }
        assert!((80..=120).contains(&done), "{done}");
        schedule.end();
        assert_eq!(schedule.due(At::MAX - 1, &mut rng), None);
    }
}
