//! Leases: how a node shows that it lives, and how another sees that it doesn't.
//!
//! Format 1, key `l` / node: `e` = beat, which rises with every renewal; `v` = 1. The item expires
//! a day after its last renewal: by then it is litter. Nothing else depends on wall clocks.
//!
//! Why at most one side believes: let the holder send renewal n at time s and have it confirmed.
//! It acts until s + lease on its clock, and only goes on if renewal n+1 is confirmed before that.
//! A watcher that reads beat n learns it after s. When it reads n again, in a request it sends a
//! full lease after the answer that first showed n, renewal n+1 was not written by then, so it was
//! not confirmed in time, and the holder has stopped. The watcher adds [`margin`] for clocks that
//! run at different speeds.

use std::collections::VecDeque;

use cirrus_schema::keys::cluster;
use cirrus_store::{Attrs, Item};

const FORMAT: u64 = 1;

/// How long a lease's item is kept. Requests are refused long before clocks are so far apart.
const KEEP_MS: u64 = 24 * 3_600 * 1_000;

/// How much longer than a lease a watcher waits: a tenth, for clocks that differ in speed.
pub fn margin(lease_ms: u64) -> u64 {
    lease_ms.div_ceil(10)
}

/// The item of a lease. `wall_ms` = Unix milliseconds, for the item's expiry only.
pub fn item(node: &str, beat: u64, wall_ms: u64) -> Item {
    let expires = wall_ms.saturating_add(KEEP_MS) / 1_000;
    Item::new(cluster::lease(node), Attrs::new().with("v", FORMAT))
        .versioned(beat)
        .expiring(expires)
}

/// A node's own lease.
#[derive(Debug)]
pub struct Held {
    lease_ms: u64,
    /// The beat that the store is known to have.
    stored: Option<u64>,
    /// The last beat that was sent, and when.
    sent: (u64, u64),
    /// Beats whose fate is not known, and when they were sent, the last lease's worth.
    open: VecDeque<(u64, u64)>,
    until: u64,
}

impl Held {
    /// A lease of that length, never renewed.
    pub fn new(lease_ms: u64) -> Self {
        Self {
            lease_ms,
            stored: None,
            sent: (0, 0),
            open: VecDeque::new(),
            until: 0,
        }
    }

    /// Until when the node may act, on its own clock.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The next renewal, sent now: the beat to write, and the beat that must be there. So a
    /// renewal that hangs on the way and arrives after a later one changes nothing.
    pub fn renew(&mut self, now: u64) -> (u64, Option<u64>) {
        self.sent = (self.sent.0 + 1, now);
        let lease_ms = self.lease_ms;
        self.open
            .retain(|(_, at)| at.saturating_add(lease_ms) > now);
        self.open.push_back(self.sent);
        (self.sent.0, self.stored)
    }

    /// The renewal was written.
    pub fn confirmed(&mut self) {
        self.is_stored(Some(self.sent.0));
    }

    /// Another beat is there: one of an earlier renewal whose answer was lost. As only the holder
    /// writes its lease, that renewal has succeeded, and counts from when it was sent. Returns
    /// when that was.
    pub fn is_stored(&mut self, beat: Option<u64>) -> Option<u64> {
        self.stored = beat;
        let its = self.open.iter().find(|(open, _)| Some(*open) == beat);
        let at = its.map(|(_, at)| *at);
        self.open.retain(|(open, _)| Some(*open) > beat);
        let until = at.map(|at| at.saturating_add(self.lease_ms));
        self.until = self.until.max(until.unwrap_or(0));
        at
    }
}

/// What a watcher knows of another's lease.
#[derive(Debug, Default)]
pub struct Watch {
    node: String,
    beat: Option<u64>,
    since: Option<u64>,
}

impl Watch {
    /// When the answer came that first showed what is there now; `None` = never asked.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// Whether it is that node's lease that was seen last.
    pub fn is_of(&self, node: &str) -> bool {
        self.node == node
    }

    /// A read of the lease of `node`, asked and answered at these times, showed this beat (`None`
    /// = no item). Returns for how long, at least, the lease has not changed.
    pub fn saw(&mut self, node: &str, beat: Option<u64>, asked: u64, answered: u64) -> u64 {
        match self.since {
            Some(since) if self.node == node && self.beat == beat => asked.saturating_sub(since),
            _ => {
                *self = Self {
                    node: node.to_owned(),
                    beat,
                    since: Some(answered),
                };
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_counts_from_before_it_sent() {
        let mut held = Held::new(3_000);
        assert_eq!(held.until(), 0);
        assert_eq!(held.renew(1_000), (1, None));
        held.confirmed();
        assert_eq!(held.until(), 4_000);
        // The answer to the next one is lost, and it had been written.
        assert_eq!(held.renew(2_000), (2, Some(1)));
        assert_eq!(held.renew(3_000), (3, Some(1)));
        assert_eq!(held.until(), 4_000);
        assert_eq!(held.is_stored(Some(2)), Some(2_000), "it is its own");
        assert_eq!(held.until(), 5_000);
        assert_eq!(held.renew(3_100), (4, Some(2)));
        held.confirmed();
        assert_eq!(held.until(), 6_100);
        assert_eq!(held.is_stored(None), None);
        assert_eq!(held.until(), 6_100);
    }

    #[test]
    fn the_watcher_counts_from_the_answer_to_the_question() {
        let mut watch = Watch::default();
        assert_eq!(watch.saw("a", Some(1), 0, 100), 0);
        assert_eq!(watch.saw("a", Some(1), 1_000, 1_500), 900);
        assert_eq!(watch.saw("a", Some(1), 3_200, 3_201), 3_100);
        assert_eq!(watch.saw("a", Some(2), 4_000, 4_001), 0, "it has changed");
        assert_eq!(
            watch.saw("a", Some(1), 5_000, 5_001),
            0,
            "any change counts"
        );
        assert_eq!(watch.saw("b", Some(1), 6_000, 6_001), 0, "another node");
        assert_eq!(watch.saw("b", None, 7_000, 7_001), 0);
        assert_eq!(
            watch.saw("b", None, 9_001, 9_002),
            2_000,
            "no item does not change either"
        );
    }

    #[test]
    fn the_item_of_a_lease() {
        let item = item("i-1~07", 5, 1_795_488_480_000);
        assert_eq!(
            (item.version, item.expires),
            (5, Some(1_795_488_480 + 86_400))
        );
        assert_eq!(item.attrs.get_n("v"), Some(1));
        assert_eq!(item.key.to_string(), "cluster[l][i-1~07]");
        assert_eq!(margin(3_000), 300);
    }
}
