//! Keys that every node of a deployment shares, kept in the table `cluster`: created by whoever
//! needs one first, with a conditional write, and the same for all from then on.

use std::sync::Arc;
use std::time::Duration;

use cirrus_router::Entropy;
use cirrus_runtime::{SystemEntropy, wall_ms};
use cirrus_schema::TableId;
use cirrus_schema::keys::cluster;
use cirrus_store::{Attrs, Condition, Item, SkRange, StoreError, Table};
use cirrus_tls::{ServerTls, TicketSecrets};

/// Makes up keys of accounts that don't exist.
pub(crate) const FAKE: &str = "fake";
/// Makes ids of archived messages from their positions. Never replaced: ids are for ever.
pub(crate) const ARCHIVE: &str = "archive";
/// Proves to a node that another is of the same cluster.
pub(crate) const LINKS: &str = "links";
/// Makes the tokens that clients show instead of passwords. Never replaced: all would be void.
pub(crate) const TOKENS: &str = "tokens";
/// Seals TLS session tickets.
const TICKETS: &str = "tickets";
/// Format of a key's row: `v` this number, `k` the key, `t` when it was made (Unix milliseconds).
const FORMAT: u64 = 1;
/// A ticket secret is replaced when it is this old.
const TICKET_AGE_MS: u64 = 24 * 60 * 60 * 1000;
/// How often a node looks at them.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// A new one makes tickets only when every node has had the time to see it twice: else a ticket
/// would not open on all of them.
const YOUNG_MS: u64 = 2 * 60 * 60 * 1000;

/// A key in one of its generations.
#[derive(Clone)]
struct SharedKey {
    generation: u32,
    made_ms: u64,
    key: [u8; 32],
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The store failed.
    #[error("the shared key `{purpose}` can't be read or made: {source}")]
    Store {
        /// Which key.
        purpose: &'static str,
        /// The store's word.
        source: Box<StoreError>,
    },
    /// The row is not one that this version can read.
    #[error("the shared key `{purpose}` is not readable by this version")]
    Corrupt {
        /// Which key.
        purpose: &'static str,
    },
}

/// The key for `purpose`, made if there is none.
pub(crate) async fn obtain(table: &dyn Table, purpose: &'static str) -> Result<[u8; 32], KeyError> {
    let keys = at_least_one(table, purpose).await?;
    keys.last()
        .map(|last| last.key)
        .ok_or(KeyError::Corrupt { purpose })
}

/// The secrets of TLS tickets, a new one if the last is a day old.
pub(crate) async fn ticket_secrets(table: &dyn Table) -> Result<TicketSecrets, KeyError> {
    let purpose = TICKETS;
    let mut keys = at_least_one(table, purpose).await?;
    if let Some(last) = keys.last()
        && last.made_ms + TICKET_AGE_MS <= wall_ms()
    {
        let next = last.generation + 1;
        make(table, purpose, next).await?;
        keys = read(table, purpose).await?;
        for old in keys.iter().filter(|key| key.generation + 1 < next) {
            let key = cluster::key(purpose, old.generation);
            table
                .delete(key, Condition::Any)
                .await
                .map_err(|e| failed(purpose, e))?;
        }
    }
    let mut newest = keys.iter().rev();
    let last = newest.next().ok_or(KeyError::Corrupt { purpose })?;
    let before = newest.next().map(|key| key.key);
    let young = last.made_ms + YOUNG_MS > wall_ms();
    Ok(match before {
        Some(before) if young => TicketSecrets {
            current: before,
            other: Some(last.key),
        },
        other => TicketSecrets {
            current: last.key,
            other,
        },
    })
}

/// Gives TLS the ticket secrets of the day, each hour, until it is dropped.
pub(crate) async fn keep_tickets_fresh(table: Arc<dyn Table>, tls: Arc<ServerTls>) {
    loop {
        tokio::time::sleep(LOOK).await;
        match ticket_secrets(&*table).await {
            Ok(secrets) => tls.set_ticket_secrets(secrets),
            Err(error) => tracing::warn!(%error, "TLS tickets keep their secret for now"),
        }
    }
}

async fn at_least_one(
    table: &dyn Table,
    purpose: &'static str,
) -> Result<Vec<SharedKey>, KeyError> {
    let keys = read(table, purpose).await?;
    if !keys.is_empty() {
        return Ok(keys);
    }
    make(table, purpose, 1).await?;
    read(table, purpose).await
}

/// Makes a generation, unless another node has.
async fn make(table: &dyn Table, purpose: &'static str, generation: u32) -> Result<(), KeyError> {
    let mut entropy = SystemEntropy::default();
    let mut key = vec![0; 32];
    entropy.fill(&mut key);
    let attrs = Attrs::new()
        .with("v", FORMAT)
        .with("k", key)
        .with("t", wall_ms());
    let item = Item::new(cluster::key(purpose, generation), attrs);
    match table
        .put(item, Condition::Absent, entropy.u128().max(1))
        .await
    {
        Ok(()) | Err(StoreError::Conflict { .. }) => Ok(()),
        Err(source) => Err(failed(purpose, source)),
    }
}

/// All generations, the oldest first.
async fn read(table: &dyn Table, purpose: &'static str) -> Result<Vec<SharedKey>, KeyError> {
    let range = SkRange::Prefix(cluster::key_prefix(purpose).into());
    let items = table
        .query_all(TableId::Cluster, cluster::key_partition(), range)
        .await;
    let items = items.map_err(|source| failed(purpose, source))?;
    let keys = items.iter().map(|item| {
        let (_, generation) = cluster::key_parts(&item.key.sk)?;
        let key = item.attrs.get_b("k")?.get(..)?.try_into().ok()?;
        let made_ms = item.attrs.get_n("t")?;
        (item.attrs.get_n("v")? == FORMAT).then_some(SharedKey {
            generation,
            made_ms,
            key,
        })
    });
    keys.collect::<Option<Vec<_>>>()
        .ok_or(KeyError::Corrupt { purpose })
}

fn failed(purpose: &'static str, source: StoreError) -> KeyError {
    KeyError::Store {
        purpose,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use cirrus_store::MemoryTable;

    use super::*;

    fn table() -> Arc<dyn Table> {
        Arc::new(MemoryTable::new(Arc::new(wall_ms)))
    }

    #[tokio::test]
    async fn a_key_is_made_once() {
        let table = table();
        let first = obtain(&*table, FAKE).await.unwrap();
        assert_eq!(first, obtain(&*table, FAKE).await.unwrap());
        assert_ne!(first, ticket_secrets(&*table).await.unwrap().current);
    }

    #[tokio::test]
    async fn an_old_ticket_secret_is_replaced_and_still_opens() {
        let table = table();
        let attrs = |byte| {
            Attrs::new()
                .with("v", FORMAT)
                .with("k", vec![byte; 32])
                .with("t", u64::from(byte))
        };
        for generation in 1..=2 {
            let item = Item::new(cluster::key(TICKETS, generation), attrs(generation as u8));
            table.put(item, Condition::Any, 0).await.unwrap();
        }
        let secrets = ticket_secrets(&*table).await.unwrap();
        assert_eq!(
            secrets.current, [2; 32],
            "others may not know the new one yet"
        );
        let new = secrets.other.unwrap();
        assert!(new != [2; 32] && new != [1; 32]);
        assert_eq!(secrets, ticket_secrets(&*table).await.unwrap());
        assert_eq!(
            read(&*table, TICKETS).await.unwrap().len(),
            2,
            "the oldest is gone"
        );
        // Three hours later.
        let made_ms = wall_ms() - 3 * 60 * 60 * 1000;
        let attrs = Attrs::new()
            .with("v", FORMAT)
            .with("k", new.to_vec())
            .with("t", made_ms);
        let item = Item::new(cluster::key(TICKETS, 3), attrs);
        table.put(item, Condition::Any, 0).await.unwrap();
        let secrets = ticket_secrets(&*table).await.unwrap();
        assert_eq!((secrets.current, secrets.other), (new, Some([2; 32])));
    }

    #[tokio::test]
    async fn an_unknown_format_is_refused() {
        let table = table();
        let attrs = Attrs::new()
            .with("v", 9u64)
            .with("k", vec![1; 32])
            .with("t", 1u64);
        let item = Item::new(cluster::key(FAKE, 1), attrs);
        table.put(item, Condition::Any, 0).await.unwrap();
        assert!(matches!(
            obtain(&*table, FAKE).await,
            Err(KeyError::Corrupt { .. })
        ));
    }
}
