//! The closed loop: every session has one message under way, and sends the next when its partner
//! has it.

use std::time::Duration;

use anyhow::Result;

use super::{Ledger, Outcome, SESSIONS, Sender, Window, drain};
use crate::fleet::Fleet;
use crate::session::Session;
use crate::sys;

/// Time before the window opens.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest wait for the last acknowledgements.
const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// Stanzas that a session sent before its messages: initial presence.
const PRESENCES: u32 = 1;

/// Runs the loop on sessions that are online.
pub(crate) fn run(
    fleet: &mut Fleet,
    servers: &[u32],
    run: u32,
    time: Duration,
    stream_management: bool,
) -> Result<Outcome> {
    let mut ledger = Ledger::new(run);
    let mut sender = Sender::new(stream_management);
    for user in 0..SESSIONS {
        let mark = ledger.next(user);
        sender.send(fleet, mark)?;
    }
    turn(fleet, &mut ledger, &mut sender, WARM_UP)?;
    let before = ledger.delivered;
    let window = Window::open(servers)?;
    turn(fleet, &mut ledger, &mut sender, time)?;
    let spent = window.close()?;
    let delivered = ledger.delivered - before;
    drain(fleet, &mut ledger)?;
    let mut outcome = Outcome::from_window(&spent, delivered);
    outcome.delivered = ledger.delivered;
    outcome.faults = ledger.faults();
    if stream_management {
        outcome.faults.extend(unacknowledged(fleet, &ledger)?);
    }
    Ok(outcome)
}

fn turn(fleet: &mut Fleet, ledger: &mut Ledger, sender: &mut Sender, time: Duration) -> Result<()> {
    let end = sys::now() + time.as_nanos() as u64;
    let mut arrivals = Vec::new();
    while sys::now() < end {
        fleet.pump(10_000_000)?;
        fleet.take_arrivals(&mut arrivals);
        for arrival in &arrivals {
            if ledger.book(arrival) {
                let mark = ledger.next(arrival.mark.from);
                sender.send(fleet, mark)?;
            }
        }
    }
    Ok(())
}

/// Asks every session's stream once more and waits until all that was sent is acknowledged.
fn unacknowledged(fleet: &mut Fleet, ledger: &Ledger) -> Result<Option<String>> {
    for user in 0..SESSIONS {
        fleet.send(user as usize, b"<r xmlns='urn:xmpp:sm:3'/>")?;
    }
    let end = sys::now() + ACK_PATIENCE.as_nanos() as u64;
    loop {
        let missing = (0..SESSIONS as usize)
            .filter(|slot| {
                let acknowledged = fleet.session(*slot).map_or(0, Session::acknowledged);
                acknowledged != ledger.sent[*slot] + PRESENCES
            })
            .count();
        if missing == 0 {
            return Ok(None);
        }
        if sys::now() >= end {
            return Ok(Some(format!(
                "{missing} streams not acknowledged to the last stanza"
            )));
        }
        fleet.pump(10_000_000)?;
    }
}
