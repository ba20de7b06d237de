//! From where accounts have logged in lately.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use cirrus_jid::BareJid;

/// Pairs of an account and a network that are remembered at the least, and half of the most: at
/// 8 bytes each, with the room that a set keeps, about 4 MiB in all.
const PAIRS: usize = 65_536;

/// Remembers the last pairs of an account and the network that it has logged in from. It knows
/// of this node's logins only, and of none from before the server was started.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Pairs are kept as hashes with a key that nobody outside knows.
    hasher: RandomState,
    pairs: Mutex<Pairs>,
}

/// When the newer ones are as many as may be they become the older ones, which go.
#[derive(Debug, Default)]
struct Pairs {
    newer: HashSet<u64>,
    older: HashSet<u64>,
}

impl Known {
    /// The account has logged in from this network.
    pub(super) fn add(&self, user: &BareJid, network: IpAddr) {
        let pair = self.hasher.hash_one((user, network));
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs.newer.len() >= PAIRS && !pairs.newer.contains(&pair) {
            pairs.older = std::mem::take(&mut pairs.newer);
        }
        pairs.newer.insert(pair);
    }

    /// Whether the account has.
    pub(super) fn has(&self, user: &BareJid, network: IpAddr) -> bool {
        let pair = self.hasher.hash_one((user, network));
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.newer.contains(&pair) || pairs.older.contains(&pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_bounded_and_the_oldest_go() {
        let known = Known::default();
        let ada = BareJid::new(Some("ada"), "localhost").unwrap();
        let bob = BareJid::new(Some("bob"), "localhost").unwrap();
        let network = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        known.add(&ada, network(0));
        assert!(known.has(&ada, network(0)));
        assert!(!known.has(&ada, network(1)) && !known.has(&bob, network(0)));
        for n in 1..2 * PAIRS {
            known.add(&ada, network(n));
        }
        assert!(known.has(&ada, network(0)) && known.has(&ada, network(2 * PAIRS - 1)));
        known.add(&bob, network(0));
        assert!(!known.has(&ada, network(0)), "it was the first");
        assert!(known.has(&ada, network(PAIRS)) && known.has(&bob, network(0)));
        let pairs = known.pairs.lock().unwrap();
        assert_eq!((pairs.newer.len(), pairs.older.len()), (1, PAIRS));
    }
}
