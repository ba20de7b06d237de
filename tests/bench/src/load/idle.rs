//! Memory of idle sessions: what [`MEASURED`] more of them add to a server that already holds
//! [`SESSIONS`].

use std::time::Duration;

use anyhow::Result;

use super::{Outcome, SESSIONS, quiet};
use crate::fleet::Fleet;
use crate::session::Dialect;
use crate::sys;

/// Sessions that are added between the two readings.
pub(crate) const MEASURED: u32 = 1_000;
/// Accounts that the whole bench needs.
pub(crate) const ACCOUNTS: u32 = SESSIONS + MEASURED;

/// Time for a collector to run, and for a session to settle.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);

/// Opens the sessions, reads the memory, and closes all.
pub(crate) fn run(fleet: &mut Fleet, server: u32, dialect: Dialect) -> Result<Outcome> {
    fleet.open(0..SESSIONS, dialect)?;
    quiet(fleet, SETTLE)?;
    let before = sys::memory(server)?;
    fleet.open(SESSIONS..ACCOUNTS, dialect)?;
    quiet(fleet, SETTLE)?;
    let after = sys::memory(server)?;
    fleet.close_all();
    let sessions = f64::from(MEASURED);
    Ok(Outcome {
        pss: Some((after.pss - before.pss) / sessions),
        rss: Some((after.rss - before.rss) / sessions),
        ..Outcome::default()
    })
}
