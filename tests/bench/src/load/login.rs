//! Logins: connection, STARTTLS with a full TLS 1.3 handshake, SCRAM, resource binding; then the
//! stream is ended.

use std::time::Duration;

use anyhow::Result;

use super::{Outcome, Window};
use crate::fleet::Fleet;
use crate::session::Dialect;
use crate::sys;

/// Logins under way at any time.
const CONCURRENT: usize = 32;
/// Accounts used in turn; their keys are derived in the warm-up.
const ACCOUNTS: u32 = 256;

/// Logs in and out for `time`.
pub(crate) fn run(
    fleet: &mut Fleet,
    servers: &[u32],
    time: Duration,
    dialect: Dialect,
) -> Result<Outcome> {
    let mut storm = Storm {
        next_user: 0,
        finished: 0,
        done: Vec::new(),
        dialect,
    };
    for slot in 0..CONCURRENT {
        storm.start(fleet, slot)?;
    }
    while storm.finished < u64::from(ACCOUNTS) {
        storm.turn(fleet)?;
    }
    let before = storm.finished;
    let window = Window::open(servers)?;
    let end = sys::now() + time.as_nanos() as u64;
    while sys::now() < end {
        storm.turn(fleet)?;
    }
    let spent = window.close()?;
    let outcome = Outcome::from_window(&spent, storm.finished - before);
    fleet.close_all();
    Ok(outcome)
}

struct Storm {
    next_user: u32,
    finished: u64,
    done: Vec<usize>,
    dialect: Dialect,
}

impl Storm {
    fn start(&mut self, fleet: &mut Fleet, slot: usize) -> Result<()> {
        let user = self.next_user;
        self.next_user = (user + 1) % ACCOUNTS;
        fleet.start(slot, user, self.dialect)
    }

    fn turn(&mut self, fleet: &mut Fleet) -> Result<()> {
        fleet.pump(100_000_000)?;
        let mut done = std::mem::take(&mut self.done);
        done.clear();
        done.extend(fleet.touched().filter(|slot| fleet.is_online(*slot)));
        for slot in &done {
            self.finished += 1;
            fleet.close(*slot);
            self.start(fleet, *slot)?;
        }
        self.done = done;
        Ok(())
    }
}
