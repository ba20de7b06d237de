//! One node at a time asks the authority: a lease, by the rules of `cirrus_cluster::lease`.
//!
//! Nothing depends on it but politeness to the authority: a certificate is stored on the condition
//! of the one that was read, so two nodes that ask at once can't mix theirs.

use cirrus_cluster::lease::{self, Watch};
use cirrus_schema::keys::cluster;
use cirrus_store::{Condition, StoreError, Table};

use crate::AcmeError;
use crate::task::Around;

/// Name of the lease among those of nodes; no node's name has a `/`.
const NAME: &str = "acme/order";
/// How long a node that has died keeps the others from asking.
const LEASE_MS: u64 = 30_000;

/// This node's turn to ask.
#[derive(Debug, Default)]
pub struct Turn {
    watch: Watch,
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    beat: u64,
    /// Until when it is ours, on our own clock.
    until: u64,
}

impl Turn {
    /// Milliseconds between renewals: two may fail.
    pub(crate) const RENEW_MS: u64 = LEASE_MS / 3;

    /// Takes the turn if it is free, or its holder has not renewed it for a full lease. Whether it
    /// is ours now; if not, ask again later.
    ///
    /// # Errors
    /// [`AcmeError::Store`].
    pub async fn take(&mut self, table: &dyn Table, around: &Around) -> Result<bool, AcmeError> {
        let asked = (around.boot)();
        let seen = table.get(cluster::lease(NAME)).await?;
        let seen = seen.map(|item| item.version);
        let idle = self.watch.saw(NAME, seen, asked, (around.boot)());
        let Some(beat) = next(seen, idle, around.nonce()) else {
            return Ok(false);
        };
        self.write(table, around, beat, seen).await
    }

    /// Renews it. `false`: it is not ours any more.
    ///
    /// # Errors
    /// [`AcmeError::Store`]; it may still be ours then.
    pub async fn renew(&mut self, table: &dyn Table, around: &Around) -> Result<bool, AcmeError> {
        let Some(held) = self.held.filter(|held| (around.boot)() < held.until) else {
            return Ok(false);
        };
        let next = held.beat.saturating_add(1);
        self.write(table, around, next, Some(held.beat)).await
    }

    /// Gives it back.
    pub async fn release(&mut self, table: &dyn Table) {
        if let Some(held) = self.held.take() {
            let condition = Condition::Version(held.beat);
            if let Err(error) = table.delete(cluster::lease(NAME), condition).await {
                // It runs out by itself.
                tracing::debug!(%error, "the turn to ask the authority is not given back");
            }
        }
    }

    async fn write(
        &mut self,
        table: &dyn Table,
        around: &Around,
        beat: u64,
        old: Option<u64>,
    ) -> Result<bool, AcmeError> {
        let sent = (around.boot)();
        let item = lease::item(NAME, beat, (around.wall)());
        let condition = old.map_or(Condition::Absent, Condition::Version);
        match table.put(item, condition, around.nonce()).await {
            Ok(()) => {
                let until = sent.saturating_add(LEASE_MS);
                self.held = Some(Held { beat, until });
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) => {
                self.held = None;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The beat to write where this one was seen, unchanged for so long; `None`: another's turn. A
/// first beat is random, so that no former holder takes it for its own.
fn next(seen: Option<u64>, idle_ms: u64, random: u128) -> Option<u64> {
    match seen {
        // Half of the numbers are left to count in.
        None => Some((random >> 65) as u64 | 1),
        Some(beat) if idle_ms >= LEASE_MS + lease::margin(LEASE_MS) => Some(beat.saturating_add(1)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use cirrus_store::MemoryTable;

    use super::*;

    fn around(clock: &Arc<AtomicU64>) -> Around {
        let clock = Arc::clone(clock);
        let count = AtomicU64::new(0);
        Around {
            wall: Arc::new(|| 1_795_488_480_000),
            boot: Arc::new(move || clock.load(Ordering::SeqCst)),
            random: Arc::new(move || u128::from(count.fetch_add(1, Ordering::SeqCst) + 1) << 65),
        }
    }

    #[tokio::test]
    async fn one_node_at_a_time() {
        let clock = Arc::new(AtomicU64::new(1_000));
        let around = around(&clock);
        let memory = MemoryTable::new(Arc::new(|| 1_795_488_480_000));
        let table: &dyn Table = &memory;
        let (mut a, mut b) = (Turn::default(), Turn::default());
        assert!(a.take(table, &around).await.unwrap());
        assert!(!b.take(table, &around).await.unwrap());
        a.release(table).await;
        assert!(b.take(table, &around).await.unwrap());
        assert!(!a.renew(table, &around).await.unwrap(), "given back");
    }

    #[tokio::test]
    async fn a_dead_nodes_turn_ends_after_a_full_lease_without_renewal() {
        let clock = Arc::new(AtomicU64::new(1_000));
        let around = around(&clock);
        let memory = MemoryTable::new(Arc::new(|| 1_795_488_480_000));
        let table: &dyn Table = &memory;
        let (mut a, mut b) = (Turn::default(), Turn::default());
        assert!(a.take(table, &around).await.unwrap());
        assert!(!b.take(table, &around).await.unwrap());
        clock.fetch_add(20_000, Ordering::SeqCst);
        assert!(a.renew(table, &around).await.unwrap());
        clock.fetch_add(20_000, Ordering::SeqCst);
        assert!(!b.take(table, &around).await.unwrap(), "it was renewed");
        clock.fetch_add(LEASE_MS + lease::margin(LEASE_MS), Ordering::SeqCst);
        assert!(!a.renew(table, &around).await.unwrap(), "it ran out");
        assert!(b.take(table, &around).await.unwrap());
        assert!(b.renew(table, &around).await.unwrap());
    }
}
