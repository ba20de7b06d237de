//! What keeps many clients that come at once from holding up those who are served already.
//!
//! After a node is lost thousands come: accepting is paced, as handshakes are the larger part of
//! the work, and so are new sessions. A session that is resumed never waits: it was served before.

use std::sync::{Mutex, PoisonError};

use cirrus_stanza::{Condition, StanzaError};

use super::Limits;
use super::bucket::Bucket;

/// Paces connections and new sessions.
#[derive(Debug)]
pub(super) struct Governor {
    accepts: Mutex<Bucket>,
    logins: Mutex<Bucket>,
    /// Milliseconds that a new session may wait for its turn.
    login_wait_ms: u64,
}

impl Governor {
    pub(super) fn new(limits: &Limits, now: u64) -> Self {
        let accepts = Bucket::new(limits.accepts_per_second, limits.accepts_burst, now);
        let logins = Bucket::new(limits.logins_per_second, limits.logins_burst, now);
        let wait = limits.login_wait.as_millis();
        Self {
            accepts: Mutex::new(accepts),
            logins: Mutex::new(logins),
            login_wait_ms: u64::try_from(wait).unwrap_or(u64::MAX),
        }
    }

    /// A connection was accepted; the next one may be at this time, if not at once.
    pub(super) fn accepted(&self, now: u64) -> Option<u64> {
        let mut accepts = self.accepts.lock().unwrap_or_else(PoisonError::into_inner);
        accepts.take(1, now)
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
