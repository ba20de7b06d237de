//! Connections that are broken because their sessions can go on elsewhere: all of them when the
//! node leaves, some when others have fewer. Where that is, clients are told if nodes have
//! addresses of their own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cirrus_router::PipeId;
use cirrus_runtime::Public;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Connections are woken a group at a time, so that a few can be found among many.
const GROUPS: usize = 32;
/// Time for a group to answer before the next is woken.
const STEP: Duration = Duration::from_millis(5);

/// What connections ask whether they are to go.
#[derive(Default)]
pub(super) struct Leaving {
    /// So many a second when the node leaves; 0 = it stays.
    per_second: AtomicU64,
    /// How many have their time.
    given: AtomicU64,
    /// How many more are to go although the node stays.
    wanted: AtomicU64,
    /// Where these are to go, and how many each of these nodes lacks.
    to: Mutex<Vec<(Public, u64)>>,
    /// How many were told where to go.
    sent: AtomicU64,
    /// The group that is woken next.
    next: AtomicUsize,
    groups: [Arc<Notify>; GROUPS],
    /// Wakes listeners when the node leaves.
    pub(super) left: Arc<Notify>,
}

impl Leaving {
    /// The node leaves.
    pub(super) fn is_on(&self) -> bool {
        self.per_second.load(Ordering::Acquire) > 0
    }

    /// Milliseconds from now at which one more connection is broken because the node leaves.
    pub(super) fn place(&self) -> Option<u64> {
        let per_second = self.per_second.load(Ordering::Acquire);
        if per_second == 0 {
            return None;
        }
        let place = self.given.fetch_add(1, Ordering::AcqRel);
        Some(place.saturating_mul(1_000) / per_second)
    }

    /// What wakes a connection that may have to go.
    pub(super) fn told(&self, pipe: PipeId) -> OwnedNotified {
        // The remainder is below the number of groups.
        let group = (pipe.pipe % GROUPS as u64) as usize;
        let group = self.groups.get(group).unwrap_or(&self.left);
        Arc::clone(group).notified_owned()
    }

    /// Whether one more connection is to go although the node stays.
    pub(super) fn takes_one(&self) -> bool {
        let one_less = |wanted: u64| wanted.checked_sub(1);
        let taken = self
            .wanted
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less);
        taken.is_ok()
    }

    /// The node leaves: connections go, so many a second.
    pub(super) fn leave(&self, per_second: u64) {
        self.per_second.store(per_second.max(1), Ordering::Release);
        self.left.notify_waiters();
        for group in &self.groups {
            group.notify_waiters();
        }
    }

    /// Where the next connection that goes although the node stays is to go: to every node in
    /// proportion to what it lacks, in turns.
    pub(super) fn emptier(&self) -> Option<Public> {
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let all: u64 = to.iter().map(|(_, lacks)| lacks).sum();
        // Multiples of the golden ratio's fraction lie evenly between 0 and 1.
        let turn = self.sent.fetch_add(1, Ordering::Relaxed);
        let turn = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = ((u128::from(turn) * u128::from(all)) >> 64) as u64;
        for (public, lacks) in &*to {
            match at.checked_sub(*lacks) {
                Some(rest) => at = rest,
                None => return Some(public.clone()),
            }
        }
        None
    }

    /// Some connections go, to nodes that lack so many. Ends when they have gone, or when all were
    /// asked.
    pub(super) async fn part(&self, connections: u64, to: Vec<(Public, u64)>) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.wanted.fetch_add(connections, Ordering::AcqRel);
        for _ in 0..GROUPS {
            let next = self.next.fetch_add(1, Ordering::Relaxed) % GROUPS;
            if let Some(group) = self.groups.get(next) {
                group.notify_waiters();
            }
            tokio::time::sleep(STEP).await;
            if self.wanted.load(Ordering::Acquire) == 0 {
                return;
            }
        }
        // Nobody else is there who could go.
        self.wanted.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(host: &str) -> Public {
        Public {
            host: host.into(),
            c2s: None,
            c2s_tls: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_node_gets_what_it_lacks() {
        let leaving = Leaving::default();
        leaving.part(0, Vec::new()).await;
        assert_eq!(leaving.emptier(), None);
        let to = [("a", 30), ("b", 0), ("c", 10)];
        let to = to.map(|(host, lacks)| (public(host), lacks));
        leaving.part(0, to.to_vec()).await;
        let mut got = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..400 {
            let host = leaving.emptier().unwrap().host;
            *got.entry(host).or_default() += 1;
        }
        assert_eq!(got.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert!(got["a"].abs_diff(300) < 4, "{got:?}");
    }
}
