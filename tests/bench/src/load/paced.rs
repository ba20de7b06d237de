//! An open load at a fixed pace: latency from the write at the sender to the read at the receiver.

use std::time::Duration;

use anyhow::Result;

use super::{Ledger, Outcome, SESSIONS, Sender, Window, drain};
use crate::fleet::Fleet;
use crate::session::Arrival;
use crate::sys;

/// Messages a second in the comparison of servers, evenly spaced, over all sessions in turn.
pub(crate) const PACE: u64 = 2_000;

const WARM_UP: Duration = Duration::from_secs(1);
/// Seconds of a backlog after which the server does not keep up, and more of it says nothing new.
const BACKLOG: u64 = 2;

/// Runs the load on sessions that are online.
pub(crate) fn run(
    fleet: &mut Fleet,
    servers: &[u32],
    run: u32,
    rate: u64,
    time: Duration,
) -> Result<Outcome> {
    let mut pace = Pace {
        rate,
        ledger: Ledger::new(run),
        sender: Sender::new(false),
        sent_at: vec![Vec::new(); SESSIONS as usize],
        latencies: Vec::new(),
        next_user: 0,
        overrun: false,
    };
    pace.turn(fleet, WARM_UP)?;
    let before = pace.ledger.delivered;
    pace.latencies.clear();
    let window = Window::open(servers)?;
    pace.turn(fleet, time)?;
    let spent = window.close()?;
    let delivered = pace.ledger.delivered - before;
    drain(fleet, &mut pace.ledger)?;
    let mut outcome = Outcome::from_window(&spent, delivered);
    outcome.delivered = pace.ledger.delivered;
    outcome.faults = pace.ledger.faults();
    outcome.overrun = pace.overrun;
    pace.latencies.sort_unstable();
    outcome.p50 = percentile(&pace.latencies, 50);
    outcome.p99 = percentile(&pace.latencies, 99);
    Ok(outcome)
}

struct Pace {
    /// Messages a second.
    rate: u64,
    ledger: Ledger,
    sender: Sender,
    /// Times of sending, by sender and sequence - 1.
    sent_at: Vec<Vec<u64>>,
    latencies: Vec<u64>,
    next_user: u32,
    overrun: bool,
}

impl Pace {
    fn turn(&mut self, fleet: &mut Fleet, time: Duration) -> Result<()> {
        let interval = 1_000_000_000 / self.rate;
        let mut due = sys::now();
        let end = due + time.as_nanos() as u64;
        let mut arrivals = Vec::new();
        while !self.overrun {
            let now = sys::now();
            if now >= end {
                return Ok(());
            }
            if now >= due {
                due += interval;
                self.send_one(fleet)?;
                self.overrun = self.ledger.under_way() > BACKLOG * self.rate;
                continue;
            }
            fleet.pump(due - now)?;
            fleet.take_arrivals(&mut arrivals);
            self.book(&arrivals);
        }
        Ok(())
    }

    fn send_one(&mut self, fleet: &mut Fleet) -> Result<()> {
        let user = self.next_user;
        self.next_user = (user + 1) % SESSIONS;
        let mark = self.ledger.next(user);
        self.sent_at[user as usize].push(sys::now());
        self.sender.send(fleet, mark)
    }

    fn book(&mut self, arrivals: &[Arrival]) {
        for arrival in arrivals {
            if self.ledger.book(arrival) {
                let mark = arrival.mark;
                let sent = self.sent_at[mark.from as usize][mark.sequence as usize - 1];
                self.latencies.push(arrival.at.saturating_sub(sent));
            }
        }
    }
}

/// A percentile of sorted nanoseconds, in milliseconds.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> Option<f64> {
    let index = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    Some(sorted[index] as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_small_and_empty_sets() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[2_000_000], 99), Some(2.0));
        let hundred: Vec<u64> = (1..=100).map(|n| n * 1_000_000).collect();
        assert_eq!(percentile(&hundred, 50), Some(51.0));
        assert_eq!(percentile(&hundred, 99), Some(100.0));
    }
}
